"""A scripted provider that speaks OpenAI's dialect."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.fakes.upstream import Call, Fault, Reply, Step, StreamParts, Upstream, answer, hang, reset, sse

__all__ = [
    "Call",
    "Fault",
    "OpenAIUpstream",
    "Reply",
    "answer",
    "chunk",
    "completion",
    "error",
    "error_body",
    "event",
    "hang",
    "reset",
    "sse",
    "stream",
    "stream_parts",
    "whole",
]


class OpenAIUpstream(Upstream):
    """The provider."""

    prefix = "/v1"

    def listing(self, models: Sequence[str]) -> Any:
        data = [{"id": model, "object": "model", "created": 1_700_000_000, "owned_by": "fake"} for model in models]
        return {"object": "list", "data": data}


def completion(text: str = "Hello!", *, model: str = "small", prompt_tokens: int = 5, completion_tokens: int = 2, **members: Any) -> Reply:
    """A whole chat completion; `members` are added to it."""
    return answer(json.dumps(completion_json(text, model, prompt_tokens, completion_tokens) | members))


def completion_json(text: str, model: str = "small", prompt_tokens: int = 5, completion_tokens: int = 2) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", "logprobs": None}],
        "usage": usage_json(prompt_tokens, completion_tokens),
    }


def usage_json(prompt_tokens: int = 5, completion_tokens: int = 2) -> dict[str, int]:
    return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": prompt_tokens + completion_tokens}


def error(status: int, message: str, headers: Mapping[str, str] | None = None, **members: Any) -> Reply:
    """An error in OpenAI's shape."""
    body = {"error": {"message": message, "type": "fake_error", "param": None, "code": None} | members}
    return answer(json.dumps(body), status=status, headers=headers)


def stream(*steps: Step | str, model: str = "small", finish: str | None = "stop", usage: bool = True, done: bool = True) -> Reply:
    """A stream: text becomes a chunk, other steps are taken as they are; then the finish reason, the usage and `[DONE]`."""
    sent: list[Step] = [chunk({"role": "assistant", "content": ""}, model=model)]
    sent += [chunk({"content": step}, model=model) if isinstance(step, str) else step for step in steps]
    if finish is not None:
        sent.append(chunk({}, finish=finish, model=model))
    if usage:
        sent.append(event(_chunk_json(model) | {"choices": [], "usage": usage_json()}))
    if done:
        sent.append(b"data: [DONE]\n\n")
    return sse(*sent)


def chunk(delta: Mapping[str, Any], *, finish: str | None = None, model: str = "small", index: int = 0) -> bytes:
    """One event of a stream."""
    return event(_chunk_json(model) | {"choices": [{"index": index, "delta": delta, "finish_reason": finish}]})


def event(data: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def _chunk_json(model: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": model}


def whole(text: str) -> bytes:
    """The body of a whole answer."""
    return json.dumps(completion_json(text)).encode()


def stream_parts(*texts: str) -> StreamParts:
    """A streamed answer in its parts."""
    ending = chunk({}, finish="stop") + event(_chunk_json("small") | {"choices": [], "usage": usage_json()}) + b"data: [DONE]\n\n"
    opening = chunk({"role": "assistant", "content": ""})
    return StreamParts(opening, [chunk({"content": text}) for text in texts], ending, "text/event-stream")


def error_body(status: int, message: str) -> bytes:
    """The body of an error."""
    return json.dumps({"error": {"message": message, "type": "fake_error", "param": None, "code": str(status)}}).encode()
