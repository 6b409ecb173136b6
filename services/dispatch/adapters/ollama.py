"""Ollama's own API, whose counts, durations, options and `keep_alive` the one that imitates OpenAI's hides.

A message has one text, and images beside it: text parts become lines of it, and images stand before it. Developers are the system; a
refusal is sent as what was said. `tool_choice` of "none" is said by offering no tools. OpenAI's sampling parameters go among the `options`,
as do Ollama's own that stand at the top level, where Ollama would overlook them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from joulegate.chat.v1 import chat_pb2
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch.adapters.base import Reply, StreamDecoder, WireRequest
from services.dispatch.adapters.bodies import WholeDecoder, listed, refusal
from services.dispatch.adapters.ollama_answer import LinesDecoder, completion, created_of
from services.dispatch.adapters.ollama_request import body_of
from services.dispatch.failure import Failure
from services.wire.fields import encode

_HEADERS: Mapping[bool, Mapping[str, str]] = {
    False: {"content-type": "application/json", "accept": "application/json"},
    True: {"content-type": "application/json", "accept": "application/x-ndjson"},
}


class OllamaAdapter:
    """The dialect; it has no state."""

    models_path = "/api/tags"

    def authorization(self, key: str) -> Mapping[str, str]:
        return {"authorization": f"Bearer {key}"}

    def encode(self, request: chat_pb2.ChatRequest, model: str) -> WireRequest:
        body, warnings = body_of(request, model)
        return WireRequest("/api/chat", _HEADERS[request.stream], encode(body), warnings)

    def decoder(self, request: chat_pb2.ChatRequest, reply: Reply) -> StreamDecoder:
        return LinesDecoder(reply) if request.stream else WholeDecoder(lambda body: completion(body, reply))

    def decode_error(self, status: int, body: bytes) -> Failure:
        return refusal(body, status)

    def decode_models(self, body: bytes) -> Sequence[pb.Model]:
        return [_model(entry) for entry in listed(body, "models") if _name(entry)]


def _name(entry: dict[str, Any]) -> str:
    name = entry.get("model") or entry.get("name")
    return name if isinstance(name, str) else ""


def _model(entry: dict[str, Any]) -> pb.Model:
    modified = entry.get("modified_at")
    return pb.Model(id=_name(entry), created=created_of(modified, 0) if isinstance(modified, str) else 0)
