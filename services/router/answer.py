"""Answers on their way to the client: where they come from, their events, and their receipt."""

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from joulegate.cache.v1 import cache_service_pb2 as cache_pb
from joulegate.chat.v1 import chat_pb2, receipt_pb2
from services.router.decision import Decision
from services.router.question import Question
from services.runtime import lookup
from services.wire.assemble import chunks_of

Events = Sequence[chat_pb2.ChatEvent]


@dataclass(frozen=True, slots=True)
class Source:
    """Where an answer comes from; known before its first event leaves."""

    provider: str
    model: str
    cache_status: receipt_pb2.CacheStatus.ValueType
    similarity: float | None = None
    # How old a cached answer is, in seconds.
    age_s: int | None = None
    # Of a cached answer, where it is known.
    entry_id: str = ""
    failed_attempts: int = 0
    # For humans.
    decision: str = ""
    # None for an answer that was not routed.
    routing: Decision | None = None
    # What the provider's dialect could not be told, and what limits and budgets do not leave.
    warnings: Sequence[str] = ()
    # The model that answers because a budget would have it so; empty: the one that was asked for.
    downgraded_to: str = ""
    # The key whose budget has changed what was asked for; None: nothing was changed.
    curtailed_for: str | None = None


class Answer(Protocol):
    """An answer that has begun."""

    @property
    def source(self) -> Source: ...

    def batches(self) -> AsyncIterator[Events]:
        """Events in order, as they arrive. Raises GatewayError when the provider breaks off."""
        ...

    async def receipt(self) -> receipt_pb2.Receipt:
        """What it cost. Closes the books; call it once, after the last batch."""
        ...

    def usage_chunk(self) -> chat_pb2.ChatCompletionChunk:
        """The final chunk with usage, for a client that asked for it when the provider sent none."""
        ...

    def leave(self, error: BaseException | None) -> None:
        """Its reader is gone, for that reason if there is one. Whatever is still under way for it ends."""
        ...


class CachedAnswer:
    """A stored answer, in the shape that is asked for."""

    def __init__(self, question: Question, entry: cache_pb.Entry, source: Source) -> None:
        self._question = question
        self.entry = entry
        self.source = source

    async def batches(self) -> AsyncIterator[Events]:
        """The whole answer at once, under a new id."""
        event = chat_pb2.ChatEvent()
        completion = event.completion
        completion.CopyFrom(self.entry.completion)
        completion.id = completion_id(self._question.request_id)
        completion.created = int(time.time())
        if self._question.wants_stream:
            yield [chat_pb2.ChatEvent(chunk=chunk) for chunk in chunks_of(completion, with_usage=True)]
        else:
            yield [event]

    def usage_chunk(self) -> chat_pb2.ChatCompletionChunk:
        completion = self.entry.completion
        return usage_chunk(completion_id(self._question.request_id), completion.model, completion.usage)

    async def receipt(self) -> receipt_pb2.Receipt:
        receipt = free_receipt(self._question.request_id, self.source)
        if self.source.similarity is not None:
            receipt.cache_similarity = self.source.similarity
        return receipt

    def leave(self, error: BaseException | None) -> None:
        """Nothing is under way."""


def free_receipt(request_id: str, source: Source) -> receipt_pb2.Receipt:
    """The receipt of an answer that no provider was called for."""
    return receipt_pb2.Receipt(
        request_id=request_id,
        provider=source.provider,
        model=source.model,
        cache_status=source.cache_status,
        cost_nano_usd=0,
        energy=receipt_pb2.Energy(
            low_microjoules=lookup.LOW_MICROJOULES,
            microjoules=lookup.MICROJOULES,
            high_microjoules=lookup.HIGH_MICROJOULES,
            basis=lookup.BASIS,
        ),
    )


def completion_id(request_id: str) -> str:
    """An id in OpenAI's form, for answers that have none of a provider."""
    return f"chatcmpl-{request_id}"


def usage_chunk(answer_id: str, model: str, usage: chat_pb2.Usage) -> chat_pb2.ChatCompletionChunk:
    """OpenAI's last chunk: no choices, only usage."""
    return chat_pb2.ChatCompletionChunk(id=answer_id, created=int(time.time()), model=model, usage=usage)
