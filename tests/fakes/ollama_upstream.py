"""A scripted provider that speaks Ollama's own dialect."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.fakes.upstream import Reply, Step, StreamParts, Upstream, answer

CREATED_AT = "2023-11-14T22:13:20.123456789Z"
NDJSON = "application/x-ndjson"
COUNTS = {
    "total_duration": 5_000_000,
    "load_duration": 1_000_000,
    "prompt_eval_count": 5,
    "prompt_eval_duration": 2_000_000,
    "eval_count": 2,
    "eval_duration": 1_500_000,
}


class OllamaUpstream(Upstream):
    """The provider."""

    def listing(self, models: Sequence[str]) -> Any:
        return {"models": [_listed(model) for model in models]}


def _listed(model: str) -> dict[str, Any]:
    details = {"parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"], "parameter_size": "3B"}
    return {"name": model, "model": model, "modified_at": CREATED_AT, "size": 2_000_000_000, "digest": "a80c4f17acd5", "details": details}


def line(said: Mapping[str, Any] | None = None, **members: Any) -> bytes:
    """One line of a stream: a piece of the message."""
    message = {"role": "assistant", "content": "", **(said or {})}
    body = {"model": "small", "created_at": CREATED_AT, "message": message, "done": False}
    return json.dumps(body | members).encode() + b"\n"


def last(reason: str = "stop", **members: Any) -> bytes:
    """The line that ends a stream."""
    return line(None, **{"done": True, "done_reason": reason} | COUNTS | members)


def whole_json(message: Mapping[str, Any], reason: str = "stop", **members: Any) -> dict[str, Any]:
    """A whole answer."""
    whole: dict[str, Any] = json.loads(line(message, **{"done": True, "done_reason": reason} | COUNTS | members))
    return whole


def stream(*steps: Step | str, ending: bytes | None = None) -> Reply:
    """A stream: text becomes a line, other steps are taken as they are; then the last line."""
    sent = [line({"content": step}) if isinstance(step, str) else step for step in steps]
    return Reply([*sent, last() if ending is None else ending], headers={"content-type": NDJSON})


def error(status: int, message: str) -> Reply:
    """An error before an answer."""
    return answer(error_body(status, message), status=status)


def whole(text: str) -> bytes:
    """The body of a whole answer."""
    return json.dumps(whole_json({"content": text})).encode()


def stream_parts(*texts: str) -> StreamParts:
    """A streamed answer in its parts."""
    return StreamParts(line(), [line({"content": text}) for text in texts], last(), NDJSON)


def error_body(status: int, message: str) -> bytes:
    """The body of an error, which does not repeat its status."""
    return json.dumps({"error": message}).encode()
