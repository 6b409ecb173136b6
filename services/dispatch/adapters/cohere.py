"""Cohere's v2 chat.

Developers are the system; a refusal is sent as what was said. Reasoning is a block of thinking, or the plan beside tool calls, and comes
back as such. A named function is chosen by offering it alone; `strict` holds for all tools or for none. Efforts of reasoning become budgets
of tokens.
"""

from collections.abc import Mapping, Sequence

from joulegate.chat.v1 import chat_pb2
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch.adapters.base import Reply, StreamDecoder, WireRequest
from services.dispatch.adapters.bodies import WholeDecoder, listed, refusal
from services.dispatch.adapters.cohere_answer import EventsDecoder, completion
from services.dispatch.adapters.cohere_request import body_of
from services.dispatch.failure import Failure
from services.wire.fields import encode

_HEADERS: Mapping[bool, Mapping[str, str]] = {
    False: {"content-type": "application/json", "accept": "application/json"},
    True: {"content-type": "application/json", "accept": "text/event-stream"},
}


class CohereAdapter:
    """The dialect; it has no state."""

    models_path = "/v1/models?endpoint=chat&page_size=1000"

    def authorization(self, key: str) -> Mapping[str, str]:
        return {"authorization": f"Bearer {key}"}

    def encode(self, request: chat_pb2.ChatRequest, model: str) -> WireRequest:
        body, warnings = body_of(request, model)
        return WireRequest("/v2/chat", _HEADERS[request.stream], encode(body), warnings)

    def decoder(self, request: chat_pb2.ChatRequest, reply: Reply) -> StreamDecoder:
        # A gateway in between may answer with JSON although a stream was asked for.
        if not request.stream or "json" in reply.content_type:
            return WholeDecoder(lambda body: completion(body, reply))
        return EventsDecoder(reply)

    def decode_error(self, status: int, body: bytes) -> Failure:
        return refusal(body, status)

    def decode_models(self, body: bytes) -> Sequence[pb.Model]:
        names = (entry.get("name") for entry in listed(body, "models"))
        return [pb.Model(id=name, owned_by="cohere") for name in names if isinstance(name, str) and name]
