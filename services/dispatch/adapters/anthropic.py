"""Anthropic's Messages API.

What a request says otherwise than it came is told in `anthropic_request`, and what becomes of an answer's blocks in `anthropic_answer`.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from joulegate.chat.v1 import chat_pb2
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch.adapters.anthropic_answer import KEEPSAKES, EventsDecoder, completion
from services.dispatch.adapters.anthropic_request import members
from services.dispatch.adapters.base import Reply, StreamDecoder, WireRequest
from services.dispatch.adapters.bodies import WholeDecoder, listed, refusal
from services.dispatch.adapters.question import Question
from services.dispatch.failure import Failure
from services.wire.fields import encode

# The version that knows `temperature`, `top_p` and `top_k`, which the next one, 2026-10-21, refuses at any value.
VERSION = "2023-06-01"
_HEADERS: Mapping[str, Mapping[str, str]] = {
    accept: {"content-type": "application/json", "accept": accept} for accept in ("application/json", "text/event-stream")
}


class AnthropicAdapter:
    """The dialect, in one version of it."""

    # In pages, the largest of which holds more models than there are.
    models_path = "/v1/models?limit=1000"

    def authorization(self, key: str) -> Mapping[str, str]:
        return {"x-api-key": key, "anthropic-version": VERSION}

    def encode(self, request: chat_pb2.ChatRequest, model: str) -> WireRequest:
        question = Question(request, "Anthropic's Messages API", KEEPSAKES)
        body = {"model": model, **members(question, model)}
        if request.stream:
            body["stream"] = True
        accept = "text/event-stream" if request.stream else "application/json"
        return WireRequest("/v1/messages", _HEADERS[accept], encode(body), question.warnings)

    def decoder(self, request: chat_pb2.ChatRequest, reply: Reply) -> StreamDecoder:
        if not request.stream or "json" in reply.content_type:
            return WholeDecoder(lambda body: completion(body, reply))
        return EventsDecoder(reply)

    def decode_error(self, status: int, body: bytes) -> Failure:
        return refusal(body, status)

    def decode_models(self, body: bytes) -> Sequence[pb.Model]:
        return [_model(entry) for entry in listed(body, "data") if isinstance(entry.get("id"), str)]


def _model(entry: Mapping[str, Any]) -> pb.Model:
    return pb.Model(id=entry["id"], owned_by="anthropic", created=_created(entry.get("created_at")))


def _created(timestamp: Any) -> int:
    """Seconds since 1970 of a time such as 2025-10-15T00:00:00Z; 0, as Anthropic itself says it, where it is not known."""
    try:
        at = datetime.fromisoformat(timestamp)
        return max(0, int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()))
    except (TypeError, ValueError, OverflowError):
        return 0
