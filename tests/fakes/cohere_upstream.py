"""A scripted provider that speaks Cohere's dialect."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.fakes.upstream import Reply, Step, StreamParts, Upstream, answer, sse

ID = "c14c80c3-18eb-4519-9460-6c92edd8cfb4"
SSE = "text/event-stream"


class CohereUpstream(Upstream):
    """The provider."""

    def listing(self, models: Sequence[str]) -> Any:
        listed = [
            {"name": model, "endpoints": ["chat"], "finetuned": False, "context_length": 128_000, "features": None} for model in models
        ]
        return {"models": listed}


def usage_json(**members: Any) -> dict[str, Any]:
    """Counts are decimals at times."""
    tokens = {"input_tokens": 5, "output_tokens": 2.0}
    return {"billed_units": {"input_tokens": 3, "output_tokens": 2}, "tokens": tokens} | members


def event(type: str, **members: Any) -> bytes:
    """One event of a stream."""
    return f"event: {type}\ndata: {json.dumps({'type': type} | members)}\n\n".encode()


def message_event(type: str, message: Mapping[str, Any], **members: Any) -> bytes:
    """An event that says something of the message."""
    return event(type, delta={"message": message}, **members)


def start() -> bytes:
    message = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    return message_event("message-start", message, id=ID)


def text(piece: str, **members: Any) -> bytes:
    return message_event("content-delta", {"content": {"text": piece}}, index=0, **members)


def thinking(piece: str) -> bytes:
    return message_event("content-delta", {"content": {"thinking": piece}}, index=0)


def plan(piece: str) -> bytes:
    return message_event("tool-plan-delta", {"tool_plan": piece})


def call(index: int, id: str, name: str, *pieces: str) -> bytes:
    """The events of a call, its arguments in pieces."""
    opening = {"id": id, "type": "function", "function": {"name": name, "arguments": ""}}
    events = [message_event("tool-call-start", {"tool_calls": opening}, index=index)]
    events += [message_event("tool-call-delta", {"tool_calls": {"function": {"arguments": piece}}}, index=index) for piece in pieces]
    return b"".join(events) + event("tool-call-end", index=index)


def end(reason: str = "COMPLETE", **members: Any) -> bytes:
    """The event that ends a stream."""
    return event("message-end", id=ID, delta={"finish_reason": reason, "usage": usage_json()} | members)


def block_start(type: str = "text") -> bytes:
    return message_event("content-start", {"content": {"type": type, type: ""}}, index=0)


def stream(*steps: Step | str, ending: bytes | None = None) -> Reply:
    """A stream: text becomes an event, other steps are taken as they are; then the last event."""
    sent = [text(step) if isinstance(step, str) else step for step in steps]
    return sse(start(), block_start(), *sent, event("content-end", index=0), end() if ending is None else ending)


def whole_json(
    *blocks: Mapping[str, Any], reason: str = "COMPLETE", message: Mapping[str, Any] | None = None, **members: Any
) -> dict[str, Any]:
    """A whole answer of some blocks."""
    said = {"role": "assistant", "content": list(blocks), **(message or {})}
    return {"id": ID, "finish_reason": reason, "message": said, "usage": usage_json()} | members


def text_block(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def error(status: int, message: str) -> Reply:
    """An error before an answer."""
    return answer(error_body(status, message), status=status)


def whole(text: str) -> bytes:
    """The body of a whole answer."""
    return json.dumps(whole_json(text_block(text))).encode()


def stream_parts(*texts: str) -> StreamParts:
    """A streamed answer in its parts."""
    return StreamParts(start() + block_start(), [text(piece) for piece in texts], event("content-end", index=0) + end(), SSE)


def error_body(status: int, message: str) -> bytes:
    """The body of an error, which does not repeat its status."""
    return json.dumps({"id": ID, "message": message}).encode()
