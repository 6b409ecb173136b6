"""Which answers are verified, and how they are asked for."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from joulegate.cache.v1 import cache_service_pb2 as cache_pb
from joulegate.chat.v1 import chat_pb2, receipt_pb2
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.router.answer import Answer, Events, Source
from services.router.controls import CacheControls
from services.router.question import Question
from services.router.verification import ID_PREFIX, MAX_AT_ONCE, Verifier
from services.router.wishes import Wishes
from services.runtime.errors import GatewayError
from services.runtime.identity import ANONYMOUS

PATIENCE_S = 30
SOURCE = Source("lab", "small", receipt_pb2.CACHE_STATUS_HIT_SEMANTIC, similarity=0.9, entry_id="e1")
QUESTION = Question(
    request_id="r1",
    request=chat_pb2.ChatRequest(model="small"),
    model="small",
    key=cache_pb.EntryKey(),
    caller=ANONYMOUS,
    controls=CacheControls(may_reword=True),
    warnings=(),
    trace=(),
    arrived_at=0.0,
    timeout_s=PATIENCE_S,
    wishes=Wishes(hedges=True),
)


class Provider:
    """Answers when it is let, or fails."""

    def __init__(self) -> None:
        self.asked: list[Question] = []
        self.settled = 0
        self.may_answer = asyncio.Event()
        self.failure: GatewayError | None = None
        self.changed = asyncio.Event()

    @asynccontextmanager
    async def ask(self, question: Question) -> AsyncIterator[Answer]:
        self.asked.append(question)
        self.changed.set()
        await self.may_answer.wait()
        if self.failure is not None:
            raise self.failure
        yield cast(Answer, self)

    async def batches(self) -> AsyncIterator[Events]:
        yield [chat_pb2.ChatEvent()]

    async def receipt(self) -> receipt_pb2.Receipt:
        self.settled += 1
        self.changed.set()
        return receipt_pb2.Receipt()

    async def changes(self) -> None:
        await asyncio.wait_for(self.changed.wait(), PATIENCE_S)
        self.changed.clear()


async def test_question_is_asked_anew_whatever_the_cache_has_and_names_what_it_is_compared_with() -> None:
    provider = Provider()
    verifier = Verifier(0.5, lambda: 0.4, provider.ask)
    verifier.served(QUESTION, SOURCE)
    await provider.changes()
    [asked] = provider.asked
    assert asked.request_id.startswith(ID_PREFIX)
    assert (asked.controls.may_read, asked.controls.may_write, asked.wishes.hedges) == (False, True, False)
    [neighbour] = asked.neighbours
    assert (neighbour.entry_id, neighbour.similarity, neighbour.served) == ("e1", 0.9, True)
    provider.may_answer.set()
    await provider.changes()
    assert provider.settled == 1
    await verifier.close()


@pytest.mark.parametrize(("share", "draw"), [(0.0, 0.0), (0.5, 0.5), (0.01, 0.9)])
async def test_what_the_draw_does_not_choose_is_not_asked(share: float, draw: float) -> None:
    provider = Provider()
    verifier = Verifier(share, lambda: draw, provider.ask)
    verifier.served(QUESTION, SOURCE)
    await verifier.close()
    assert provider.asked == []


async def test_few_run_at_once() -> None:
    provider = Provider()
    verifier = Verifier(1.0, lambda: 0.0, provider.ask)
    for _ in range(3 * MAX_AT_ONCE):
        verifier.served(QUESTION, SOURCE)
    await provider.changes()
    await asyncio.sleep(0)
    assert len(provider.asked) == MAX_AT_ONCE
    await verifier.close()


async def test_failure_ends_the_verification_and_nothing_else() -> None:
    provider = Provider()
    provider.failure = GatewayError(ErrorReason.ERROR_REASON_PROVIDERS_EXHAUSTED, "all failed")
    provider.may_answer.set()
    verifier = Verifier(1.0, lambda: 0.0, provider.ask)
    for _ in range(2 * MAX_AT_ONCE):
        verifier.served(QUESTION, SOURCE)
        await provider.changes()
        for _ in range(5):
            await asyncio.sleep(0)
    assert len(provider.asked) == 2 * MAX_AT_ONCE
    assert provider.settled == 0


async def test_whoever_wants_only_what_is_cached_has_no_provider_called() -> None:
    provider = Provider()
    verifier = Verifier(1.0, lambda: 0.0, provider.ask)
    verifier.served(dataclasses.replace(QUESTION, controls=CacheControls(only_if_cached=True)), SOURCE)
    await verifier.close()
    assert provider.asked == []
