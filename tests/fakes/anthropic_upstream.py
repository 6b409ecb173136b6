"""A scripted provider that speaks Anthropic's Messages API."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.fakes.upstream import Reply, Step, StreamParts, Upstream, answer, sse

USAGE = {"input_tokens": 5, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 2}
SSE = "text/event-stream"
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class AnthropicUpstream(Upstream):
    """The provider."""

    def listing(self, models: Sequence[str]) -> Any:
        data = [
            {"type": "model", "id": model, "display_name": model.title(), "created_at": "2023-11-14T22:13:20Z", "lifecycle": "active"}
            for model in models
        ]
        return {"data": data, "has_more": False, "first_id": models[0], "last_id": models[-1]}


def event(type: str, **members: Any) -> bytes:
    """One event of a stream."""
    return f"event: {type}\ndata: {json.dumps({'type': type, **members})}\n\n".encode()


def start(**usage: Any) -> bytes:
    """The event that begins a stream."""
    message = message_json([]) | {"stop_reason": None, "usage": USAGE | {"output_tokens": 1} | usage}
    return event("message_start", message=message)


def block(index: int, begun: Mapping[str, Any], *deltas: Mapping[str, Any]) -> bytes:
    """All events of one block."""
    pieces = [event("content_block_delta", index=index, delta=delta) for delta in deltas]
    return b"".join(
        [event("content_block_start", index=index, content_block=begun), *pieces, event("content_block_stop", index=index)],
    )


def text_block(index: int, *texts: str) -> bytes:
    """All events of a block of text."""
    return block(index, {"type": "text", "text": ""}, *({"type": "text_delta", "text": text} for text in texts))


def end(reason: str = "end_turn", usage: Mapping[str, Any] | None = None, **delta: Any) -> bytes:
    """What ends a stream."""
    said = {"stop_reason": reason, "stop_sequence": None} | delta
    return event("message_delta", delta=said, usage=usage or {"output_tokens": 2}) + event("message_stop")


def message_json(content: Sequence[Mapping[str, Any]], reason: str = "end_turn", **members: Any) -> dict[str, Any]:
    """A whole answer."""
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "small", "content": content}
    return message | {"stop_reason": reason, "stop_sequence": None, "usage": USAGE} | members


def message(*content: Mapping[str, Any], reason: str = "end_turn", **members: Any) -> Reply:
    """A whole answer of some blocks."""
    return answer(json.dumps(message_json(content, reason, **members)))


def stream(*steps: Step | str) -> Reply:
    """A stream: text becomes a piece of the one block, other steps are taken as they are."""
    parts = stream_parts(*(step for step in steps if isinstance(step, str)))
    pieces = iter(parts.pieces)
    return sse(parts.opening, *(next(pieces) if isinstance(step, str) else step for step in steps), parts.ending)


def error(status: int, text: str, headers: Mapping[str, str] | None = None) -> Reply:
    """An error before an answer."""
    return answer(error_body(status, text), status=status, headers=headers)


def whole(text: str) -> bytes:
    """The body of a whole answer."""
    return json.dumps(message_json([{"type": "text", "text": text}])).encode()


def stream_parts(*texts: str) -> StreamParts:
    """A streamed answer in its parts."""
    opening = start() + event("content_block_start", index=0, content_block={"type": "text", "text": ""}) + event("ping")
    pieces = [event("content_block_delta", index=0, delta={"type": "text_delta", "text": text}) for text in texts]
    return StreamParts(opening, pieces, event("content_block_stop", index=0) + end(), SSE)


def error_body(status: int, message: str) -> bytes:
    """The body of an error."""
    error = {"type": _TYPES.get(status, "api_error"), "message": message}
    return json.dumps({"type": "error", "error": error, "request_id": "req_1"}).encode()
