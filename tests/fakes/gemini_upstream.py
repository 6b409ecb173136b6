"""A scripted provider that speaks Google Gemini's dialect."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.fakes.upstream import Reply, StreamParts, Upstream, answer, sse

SSE = "text/event-stream"


class GeminiUpstream(Upstream):
    """The provider."""

    def listing(self, models: Sequence[str]) -> Any:
        listed = [_model(model, "generateContent", "countTokens") for model in models]
        return {"models": [*listed, _model("embedder", "embedContent")]}


def _model(name: str, *methods: str) -> dict[str, Any]:
    return {"name": f"models/{name}", "displayName": name, "inputTokenLimit": 1_048_576, "supportedGenerationMethods": list(methods)}


def usage_json(prompt: int = 5, candidates: int = 2, **counts: Any) -> dict[str, Any]:
    total = prompt + candidates + counts.get("thoughtsTokenCount", 0)
    return {"promptTokenCount": prompt, "candidatesTokenCount": candidates, "totalTokenCount": total} | counts


def candidate_json(*parts: Mapping[str, Any], finish: str | None = None, index: int = 0, **members: Any) -> dict[str, Any]:
    """A candidate of some parts."""
    ending = {} if finish is None else {"finishReason": finish}
    return {"content": {"parts": list(parts), "role": "model"}, **ending, "index": index, **members}


def answer_json(*candidates: Mapping[str, Any], usage: Mapping[str, Any] | None = None, **members: Any) -> dict[str, Any]:
    """A whole answer, or one event of a stream: the same shape."""
    counts = usage_json() if usage is None else usage
    return {"candidates": list(candidates), "usageMetadata": counts, "modelVersion": "small-001", "responseId": "resp-1"} | members


def event(data: Any) -> bytes:
    """One event of a stream; Google ends lines as HTTP does."""
    return b"data: " + json.dumps(data).encode() + b"\r\n\r\n"


def said(*parts: Mapping[str, Any], finish: str | None = None, **members: Any) -> bytes:
    """The event that brings some parts of the first candidate."""
    return event(answer_json(candidate_json(*parts, finish=finish, **members)))


def error_json(status: int, message: str, *details: Mapping[str, Any], word: str = "UNAVAILABLE") -> dict[str, Any]:
    error = {"code": status, "message": message, "status": word}
    return {"error": error | ({"details": list(details)} if details else {})}


def completion(text: str = "Hello!", **members: Any) -> Reply:
    """A whole answer."""
    return answer(json.dumps(answer_json(candidate_json({"text": text}, finish="STOP"), **members)))


def stream(*texts: str) -> Reply:
    """A streamed answer."""
    parts = stream_parts(*texts)
    return sse(parts.opening, *parts.pieces, parts.ending)


def whole(text: str) -> bytes:
    """The body of a whole answer."""
    return json.dumps(answer_json(candidate_json({"text": text}, finish="STOP"))).encode()


def stream_parts(*texts: str) -> StreamParts:
    """A streamed answer in its parts. The prompt is counted from the first event on, the answer at the end."""
    begun = {"promptTokenCount": 5, "totalTokenCount": 5}
    opening, *pieces = (event(answer_json(candidate_json({"text": text}), usage=begun)) for text in ("", *texts))
    return StreamParts(opening, pieces, said({"text": ""}, finish="STOP"), SSE)


def error_body(status: int, message: str) -> bytes:
    """The body of an error."""
    return json.dumps(error_json(status, message)).encode()
