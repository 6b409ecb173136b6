"""Open flights: what keeps one going, what ends it, and that nothing of it stays behind."""

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest

from joulegate.cache.v1 import cache_service_pb2 as cache_pb
from joulegate.chat.v1 import chat_pb2, receipt_pb2
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.ledger.v1 import ledger_service_pb2
from services.router.answer import Answer, Events, Source
from services.router.books import Books
from services.router.controls import CacheControls
from services.router.flight import Flight
from services.router.flights import Flights, OpenFlight
from services.router.holds import Holds
from services.router.question import Question
from services.runtime.errors import GatewayError
from services.runtime.identity import ANONYMOUS

FLIGHT = b"flight"
PATIENCE_S = 30


class FakeAnswer:
    source = Source("lab", "small", receipt_pb2.CACHE_STATUS_MISS)

    def __init__(self, provider: "Provider") -> None:
        self._provider = provider

    async def batches(self) -> AsyncIterator[Events]:
        yield [chat_pb2.ChatEvent(chunk=chat_pb2.ChatCompletionChunk(id="c-1"))]

    async def receipt(self) -> receipt_pb2.Receipt:
        self._provider.receipts += 1
        return receipt_pb2.Receipt(cost_nano_usd=9)

    def usage_chunk(self) -> chat_pb2.ChatCompletionChunk:
        return chat_pb2.ChatCompletionChunk()

    def leave(self, error: BaseException | None) -> None:
        self._provider.left.append(error)


class FakeBooks:
    def __init__(self) -> None:
        self.settled: list[ledger_service_pb2.Settlement] = []
        self.running: Holds[str] = Holds()

    def settle_soon(self, settlement: ledger_service_pb2.Settlement) -> None:
        self.settled.append(settlement)


class Provider:
    """Answers, or fails as it is told to; counts how often it was asked."""

    def __init__(self) -> None:
        self.failures: list[BaseException] = []
        self.asked: list[str] = []
        self.left: list[BaseException | None] = []
        self.receipts = 0
        self.gate: asyncio.Event | None = None
        # What each answer leaves to be done.
        self.rest: Callable[[], Awaitable[None]] | None = None

    async def ask(self, question: Question, flown: OpenFlight) -> Answer:
        self.asked.append(question.request_id)
        await (self.gate.wait() if self.gate else asyncio.sleep(0))
        if self.failures:
            raise self.failures.pop(0)
        flown.rest = self.rest
        return FakeAnswer(self)


def asking(request_id: str, timeout_s: float, *, streamed: bool = True) -> Question:
    request = chat_pb2.ChatRequest(model="small", stream=streamed)
    return Question(request_id, request, "small", cache_pb.EntryKey(), ANONYMOUS, CacheControls(), (), (), time.monotonic(), timeout_s)


class Scene:
    def __init__(self) -> None:
        self.provider, self.books = Provider(), FakeBooks()
        self.flights = Flights(self.provider.ask, cast(Books, self.books), longest_s=60)

    async def asked(self, request_id: str, timeout_s: float = 60.0, *, streamed: bool = True) -> receipt_pb2.Receipt:
        question = asking(request_id, timeout_s, streamed=streamed)
        answer = await self.flights.share(self.flights.open(FLIGHT, question), question)
        async for _ in answer.batches():
            pass
        receipt = await answer.receipt()
        answer.leave(None)
        return receipt


async def test_flight_that_is_over_leaves_nothing_for_the_garbage_collector() -> None:
    scene, flights = Scene(), list[weakref.ref[Flight]]()
    opened = scene.flights.open

    def watched(flight_id: bytes, question: Question, **members: Any) -> Any:
        flown = opened(flight_id, question, **members)
        flights.append(weakref.ref(flown.flight))
        return flown

    scene.flights.open = watched  # type: ignore[method-assign]
    gc.disable()
    try:
        await asyncio.gather(scene.asked("leader"), scene.asked("follower"))
        await asyncio.sleep(0)
        assert [flight() for flight in flights] == [None, None]
    finally:
        gc.enable()


async def test_each_has_its_own_receipt_and_all_one_call() -> None:
    scene = Scene()
    led, followed = await asyncio.gather(scene.asked("leader"), scene.asked("follower"))
    assert (led.cost_nano_usd, followed.cost_nano_usd, followed.request_id) == (9, 0, "follower")
    assert scene.provider.asked == ["leader"]
    [settlement] = scene.books.settled
    assert (settlement.request_id, settlement.attempts[0].saved_cost_nano_usd) == ("follower", 9)


async def test_answer_that_nobody_has_whole_is_not_booked_as_delivered() -> None:
    scene = Scene()
    question = asking("leader", 60)
    answer = await scene.flights.share(scene.flights.open(FLIGHT, question), question)
    async for _ in answer.batches():
        pass
    await asyncio.sleep(0)
    answer.leave(None)
    await asyncio.sleep(0)
    assert (scene.provider.receipts, scene.flights.is_open(FLIGHT)) == (0, False)
    assert [type(error) for error in scene.provider.left] == [asyncio.CancelledError]
    await scene.asked("another")
    assert scene.provider.receipts == 1


async def test_reader_of_the_whole_has_it_booked_although_another_one_has_not_taken_it() -> None:
    scene = Scene()
    question = asking("slow", 60)
    slow = await scene.flights.share(scene.flights.open(FLIGHT, question), question)
    await asyncio.sleep(0)
    assert scene.provider.receipts == 0
    async with asyncio.timeout(PATIENCE_S):
        receipt = await scene.asked("whole", streamed=False)
    slow.leave(None)
    assert (receipt.request_id, scene.provider.asked, scene.provider.receipts) == ("whole", ["slow"], 1)


async def test_who_comes_after_the_end_makes_a_call_of_its_own() -> None:
    scene = Scene()
    await scene.asked("first")
    await scene.asked("second")
    assert scene.provider.asked == ["first", "second"]


async def test_leader_without_means_makes_way() -> None:
    scene = Scene()
    scene.provider.failures = [GatewayError(ErrorReason.ERROR_REASON_BUDGET_EXHAUSTED, "A budget is used up.")]
    poor, heir, third = await asyncio.gather(*map(scene.asked, ("poor", "heir", "third")), return_exceptions=True)
    assert isinstance(poor, GatewayError) and poor.reason == ErrorReason.ERROR_REASON_BUDGET_EXHAUSTED
    assert isinstance(heir, receipt_pb2.Receipt) and heir.cost_nano_usd == 9
    assert isinstance(third, receipt_pb2.Receipt) and third.cost_nano_usd == 0
    assert scene.provider.asked == ["poor", "heir"]
    assert [settlement.request_id for settlement in scene.books.settled] == ["third"]


async def test_unforeseen_failure_leaves_nobody_waiting() -> None:
    scene = Scene()
    scene.provider.failures = [KeyError("a mistake of ours")]
    for failure in await asyncio.gather(scene.asked("leader"), scene.asked("follower"), return_exceptions=True):
        assert isinstance(failure, GatewayError) and failure.reason == ErrorReason.ERROR_REASON_INTERNAL


async def test_closing_ends_what_is_open() -> None:
    scene = Scene()
    asked = asyncio.create_task(scene.asked("leader"))
    await asyncio.sleep(0)
    assert scene.flights.is_open(FLIGHT)
    await scene.flights.close()
    with pytest.raises(GatewayError):
        await asked
    assert not scene.flights.is_open(FLIGHT)


async def test_landed_flight_has_its_rest_done_whoever_is_gone_and_is_found_until_then() -> None:
    scene, stored, done = Scene(), asyncio.Event(), asyncio.Event()

    async def store() -> None:
        await stored.wait()
        done.set()

    scene.provider.rest = store
    await scene.asked("leader")
    assert not scene.flights.is_open(FLIGHT)
    landed = await scene.flights.departure(FLIGHT)
    assert landed is not None and landed.flight.is_over
    await scene.flights.close()
    stored.set()
    async with asyncio.timeout(PATIENCE_S):
        await done.wait()
    await asyncio.sleep(0)
    assert await scene.flights.departure(FLIGHT) is None


async def test_deadline_of_the_leader_is_its_own() -> None:
    scene = Scene()
    scene.provider.gate = asyncio.Event()
    hasty, patient = (asyncio.create_task(scene.asked(name, timeout_s)) for name, timeout_s in (("hasty", 0.0), ("patient", 60.0)))
    with pytest.raises(GatewayError) as late:
        await hasty
    assert late.value.reason == ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED
    scene.provider.gate.set()
    assert (await patient).request_id == "patient"
    assert scene.provider.asked == ["hasty"]


async def test_router_that_wants_a_flight_waits_until_it_is_decided() -> None:
    scene = Scene()
    assert await scene.flights.departure(FLIGHT) is None
    scene.flights.hold(FLIGHT)
    wanting = asyncio.create_task(scene.flights.departure(FLIGHT))
    await asyncio.sleep(0)
    assert not wanting.done()
    scene.flights.let_go(FLIGHT)
    assert await wanting is None
    scene.flights.hold(FLIGHT)
    wanting = asyncio.create_task(scene.flights.departure(FLIGHT))
    await asyncio.sleep(0)
    asked = asyncio.create_task(scene.asked("leader"))
    assert await wanting is not None
    scene.flights.let_go(FLIGHT)
    await asked
