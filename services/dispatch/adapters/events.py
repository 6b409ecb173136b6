"""Chunks of OpenAI's stream, for the dialects that stream otherwise."""

from collections.abc import Mapping
from typing import Any

from joulegate.chat.v1 import chat_pb2
from services.dispatch.adapters.base import Reply
from services.wire.fields import encode

STOP = chat_pb2.FINISH_REASON_STOP
LENGTH = chat_pb2.FINISH_REASON_LENGTH
TOOL_CALLS = chat_pb2.FINISH_REASON_TOOL_CALLS
CONTENT_FILTER = chat_pb2.FINISH_REASON_CONTENT_FILTER


class Chunks:
    """Makes the chunks of one stream. `id` and `model` may be set as soon as the provider says them."""

    def __init__(self, reply: Reply, model: str) -> None:
        self.id = reply.id
        self.created = reply.created
        self.model = model

    def delta(self, message: chat_pb2.Message, index: int = 0) -> chat_pb2.ChatEvent:
        """News of a choice."""
        return self._event([chat_pb2.ChunkChoice(index=index, delta=message)])

    def text(self, text: str, index: int = 0) -> chat_pb2.ChatEvent:
        """A piece of the answer's text: the event of most streams, so it has no detours."""
        return self._event([chat_pb2.ChunkChoice(index=index, delta=chat_pb2.Message(text=text))])

    def opening(self, index: int = 0) -> chat_pb2.ChatEvent:
        """A choice's first chunk, which says the role, as OpenAI's does."""
        return self.delta(chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, text=""), index)

    def finish(self, reason: chat_pb2.FinishReason.ValueType, native: str, index: int = 0) -> chat_pb2.ChatEvent:
        """A choice's last chunk."""
        return self._event(
            [chat_pb2.ChunkChoice(index=index, delta=chat_pb2.Message(), finish_reason=reason, extra_json=native_finish(native))]
        )

    def usage(self, usage: chat_pb2.Usage) -> chat_pb2.ChatEvent:
        """The stream's last chunk."""
        return self._event([], usage)

    def _event(self, choices: list[chat_pb2.ChunkChoice], usage: chat_pb2.Usage | None = None) -> chat_pb2.ChatEvent:
        return chat_pb2.ChatEvent(
            chunk=chat_pb2.ChatCompletionChunk(id=self.id, created=self.created, model=self.model, choices=choices, usage=usage)
        )


def native_finish(reason: str) -> bytes:
    """`extra_json` of a choice that keeps the vendor's own word, under the name that OpenRouter gave it."""
    return extra({"native_finish_reason": reason} if reason else {})


def extra(members: Mapping[str, Any]) -> bytes:
    """`extra_json` of some members; empty for none."""
    return encode(members) if members else b""
