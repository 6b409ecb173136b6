"""Identical requests at the same time are one call of a provider, on every kind of channel."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc.aio import EOF
from prometheus_client import REGISTRY

from joulegate.chat.v1 import chat_pb2, receipt_pb2
from joulegate.chat.v1 import chat_service_pb2 as typed_pb
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.dispatch.v1 import dispatch_service_pb2 as dispatch_pb
from joulegate.ledger.v1 import entry_pb2, ledger_service_pb2
from services.router.flight import Flight
from services.router.provider_answer import ProviderAnswer
from services.runtime.errors import GatewayError
from tests.contract.channels import KINDS
from tests.contract.test_router import QUESTION, TARGET, USAGE, Router, completion, serving, whole
from tests.fakes.ledger import PATIENCE_S

COALESCED = receipt_pb2.CACHE_STATUS_COALESCED
WORDS = ["Energy ", "is ", "work."]
TEXT = "".join(WORDS)


class Bookkeeper:
    """Acknowledges all records, and keeps the settlements."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self.settlements: dict[str, ledger_service_pb2.Settlement] = {}
        self._news = asyncio.Condition()

    async def run(self) -> None:
        while True:
            request = await self._router.ledger.requests.get()
            self._router.ledger.acknowledge(request, cost_nano_usd=9)
            async with self._news:
                self.settlements |= {settlement.request_id: settlement for settlement in request.settlements}
                self._news.notify_all()

    async def settled(self, count: int) -> list[ledger_service_pb2.Settlement]:
        """Waits until so many requests have ended."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: len(self.settlements) >= count)
        return list(self.settlements.values())


class Scene:
    """A router with books that take everything."""

    def __init__(self, router: Router, books: Bookkeeper) -> None:
        self.router = router
        self.books = books

    async def begun(self, request_id: str) -> "Reading":
        """A stream whose first message is here."""
        reading = self.stream(request_id)
        await reading.begun()
        return reading

    def stream(self, request_id: str = "leader") -> "Reading":
        request, metadata = typed_pb.StreamChatRequest(request=QUESTION), [("x-request-id", request_id)]
        return Reading(self.router.stub.StreamChat(request, timeout=PATIENCE_S, metadata=metadata))

    async def dispatched(self) -> dispatch_pb.DispatchRequest:
        return await asyncio.wait_for(self.router.dispatch.requests.get(), PATIENCE_S)

    async def listening(self, count: int) -> None:
        """Waits until so many requests listen."""
        async with asyncio.timeout(PATIENCE_S):
            while REGISTRY.get_sample_value("joulegate_router_flight_listeners") != count:
                await asyncio.sleep(0.001)

    @property
    def has_no_more_calls(self) -> bool:
        return self.router.dispatch.requests.empty()


@pytest.fixture(params=KINDS)
async def scene(request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    bookkeeping: list[asyncio.Task[None]] = []
    async with serving(request.param, LEDGER_WAIT_SECONDS="10") as router:
        books = Bookkeeper(router)
        bookkeeping.append(asyncio.create_task(books.run()))
        yield Scene(router, books)
    # The router has waited for its books as it ended.
    bookkeeping[0].cancel()


class Reading:
    """A stream that is read in steps."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.text = ""
        self.ids: set[str] = set()
        self.receipt = receipt_pb2.Receipt()

    async def begun(self) -> None:
        """Reads the first message."""
        assert await self._step()

    async def all(self) -> "Reading":
        while await self._step():
            pass
        return self

    async def _step(self) -> bool:
        response = await self.call.read()
        if response is EOF:
            return False
        for piece in response.chunks:
            self.ids.add(piece.id)
            self.text += "".join(choice.delta.text for choice in piece.choices)
        if response.HasField("receipt"):
            self.receipt = response.receipt
        return True


def chunk(text: str = "", finish: chat_pb2.FinishReason.ValueType = chat_pb2.FINISH_REASON_UNSPECIFIED) -> chat_pb2.ChatEvent:
    choice = chat_pb2.ChunkChoice(delta=chat_pb2.Message(text=text), finish_reason=finish)
    return chat_pb2.ChatEvent(chunk=chat_pb2.ChatCompletionChunk(id="c-1", model="small-1", choices=[choice]))


def part(*events: chat_pb2.ChatEvent, first: bool = False, last: bool = False) -> dispatch_pb.DispatchResponse:
    response = dispatch_pb.DispatchResponse(events=events)
    if first:
        response.selected.CopyFrom(dispatch_pb.SelectedTarget(target=TARGET, attempt=1))
    if last:
        response.finished.SetInParent()
    return response


def streamed(gate: asyncio.Event) -> list[Any]:
    """A stream that stops in the middle until the gate opens."""
    usage = chat_pb2.ChatEvent(chunk=chat_pb2.ChatCompletionChunk(id="c-1", model="small-1", usage=USAGE))
    end = chunk(finish=chat_pb2.FINISH_REASON_STOP)
    return [part(chunk(WORDS[0]), first=True), part(chunk(WORDS[1])), gate, part(chunk(WORDS[2])), part(end, usage, last=True)]


async def test_many_streams_are_one_call_and_each_is_whole(scene: Scene) -> None:
    gate = asyncio.Event()
    scene.router.dispatch.script = streamed(gate)
    leader = await scene.begun("leader")
    followers = [scene.stream(f"follower-{number}") for number in range(20)]
    # Who comes in the middle gets what was there before, and without asking the cache.
    await asyncio.gather(*(follower.begun() for follower in followers))
    gate.set()
    await asyncio.gather(leader.all(), *(follower.all() for follower in followers))
    await scene.dispatched()
    assert scene.has_no_more_calls and len(scene.router.cache.lookups) == 1
    assert (leader.text, leader.ids, leader.receipt.cache_status) == (TEXT, {"c-1"}, receipt_pb2.CACHE_STATUS_MISS)
    assert leader.receipt.cost_nano_usd == 9
    for number, follower in enumerate(followers):
        assert (follower.text, follower.ids) == (TEXT, {f"chatcmpl-follower-{number}"})
        assert (follower.receipt.cache_status, follower.receipt.HasField("cost_nano_usd")) == (COALESCED, True)
        assert follower.receipt.cost_nano_usd == 0
    settled = {settlement.request_id: settlement for settlement in await scene.books.settled(21)}
    assert settled.pop("leader").attempts[0].outcome == entry_pb2.OUTCOME_FINISHED
    for settlement in settled.values():
        [attempt] = settlement.attempts
        assert (attempt.attempt, attempt.outcome, settlement.cache_status) == (0, entry_pb2.OUTCOME_CACHE_HIT, COALESCED)
        assert (attempt.saved_cost_nano_usd, attempt.served_model, attempt.tokens.output_tokens) == (9, "small-1", 2)


def _alive() -> set[int]:
    return {id(each) for each in gc.get_objects() if type(each) in (ProviderAnswer, Flight)}


async def test_answer_that_is_over_leaves_nothing_to_the_garbage_collector(scene: Scene) -> None:
    scene.router.dispatch.script = [whole()]
    gc.collect()
    # What an error that a test keeps has in its traceback is no garbage.
    before = _alive()
    gc.disable()
    try:
        await (await scene.begun("only")).all()
        await scene.books.settled(1)
        await asyncio.wait_for(scene.router.cache.stores.get(), PATIENCE_S)
        async with asyncio.timeout(PATIENCE_S):
            while _alive() - before:
                await asyncio.sleep(0.01)
    finally:
        gc.enable()


async def test_call_outlives_its_leader_while_somebody_listens(scene: Scene) -> None:
    gate = asyncio.Event()
    scene.router.dispatch.script = streamed(gate)
    leader, follower = await scene.begun("leader"), await scene.begun("follower")
    leader.call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leader.all()
    gate.set()
    await follower.all()
    assert (follower.text, follower.receipt.cache_status) == (TEXT, COALESCED)
    await scene.dispatched()
    assert scene.has_no_more_calls
    # The one in whose name the call was made bears it.
    settled = {settlement.request_id: settlement.attempts[0] for settlement in await scene.books.settled(2)}
    assert settled["leader"].outcome == entry_pb2.OUTCOME_FINISHED
    assert (await asyncio.wait_for(scene.router.cache.stores.get(), PATIENCE_S)).entry.completion.choices[0].message.text == TEXT


async def test_call_ends_with_its_last_listener(scene: Scene) -> None:
    scene.router.dispatch.script = streamed(asyncio.Event())
    readings = [await scene.begun("leader"), await scene.begun("follower")]
    for reading in readings:
        reading.call.cancel()
    settled = {settlement.request_id: settlement for settlement in await scene.books.settled(2)}
    outcomes = {(name, each.attempts[0].attempt, each.attempts[0].outcome) for name, each in settled.items()}
    assert outcomes == {("leader", 1, entry_pb2.OUTCOME_CLIENT_LEFT), ("follower", 0, entry_pb2.OUTCOME_CLIENT_LEFT)}
    # Nobody can join what is over.
    scene.router.dispatch.script = [whole()]
    assert (await scene.router.ask()).receipt.cache_status == receipt_pb2.CACHE_STATUS_MISS


@pytest.mark.parametrize("leader_streams", [True, False])
async def test_whole_answers_and_streams_share_a_call(scene: Scene, leader_streams: bool) -> None:
    gate = asyncio.Event()
    scene.router.dispatch.script = streamed(gate) if leader_streams else [gate, whole(completion(TEXT))]

    async def ask_whole() -> str:
        return (await scene.router.ask()).completion.choices[0].message.text

    async def ask_streamed() -> str:
        return (await scene.stream().all()).text

    first, second = (ask_streamed, ask_whole) if leader_streams else (ask_whole, ask_streamed)
    leader = asyncio.create_task(first())
    await scene.dispatched()
    follower = asyncio.create_task(second())
    await scene.listening(2)
    gate.set()
    assert {await leader, await follower} == {TEXT}
    assert scene.has_no_more_calls


async def test_failure_of_the_provider_is_told_to_all_and_not_tried_by_each(scene: Scene) -> None:
    gate = asyncio.Event()
    rejected = GatewayError(ErrorReason.ERROR_REASON_PROVIDER_REJECTED, "no such tool", {"provider": "lab", "http_status": "422"})
    failed = dispatch_pb.FailedAttempt(target=TARGET, attempt=1, code=3, http_status=422)
    scene.router.dispatch.script = [gate, dispatch_pb.DispatchResponse(failed_attempts=[failed]), rejected]
    asked = [scene.router.ask()]
    await scene.dispatched()
    asked += [scene.router.ask() for _ in range(3)]
    await scene.listening(4)
    gate.set()
    for failure in await asyncio.gather(*asked, return_exceptions=True):
        assert isinstance(failure, grpc.aio.AioRpcError)
        assert GatewayError.from_rpc(failure).http_status == 422
    assert scene.has_no_more_calls
    settlements = await scene.books.settled(4)
    assert [settlement.attempts[0].outcome for settlement in settlements] == [entry_pb2.OUTCOME_FAILED] * 4
    assert sorted(settlement.attempts[0].attempt for settlement in settlements) == [0, 0, 0, 1]


async def test_cut_stream_is_cut_for_all_and_saves_nobody_anything(scene: Scene) -> None:
    gate = asyncio.Event()
    cut = GatewayError(ErrorReason.ERROR_REASON_STREAM_CUT, "lab: the connection broke")
    scene.router.dispatch.script = [part(chunk(WORDS[0]), first=True), gate, cut]
    readings = [await scene.begun("leader"), await scene.begun("follower")]
    gate.set()
    for failure in await asyncio.gather(*(reading.all() for reading in readings), return_exceptions=True):
        assert isinstance(failure, grpc.aio.AioRpcError)
        assert GatewayError.from_rpc(failure).reason == ErrorReason.ERROR_REASON_STREAM_CUT
    settlements = await scene.books.settled(2)
    attempts = sorted((each.attempts[0].attempt, each.attempts[0].outcome, each.attempts[0].saved_cost_nano_usd) for each in settlements)
    assert attempts == [(0, entry_pb2.OUTCOME_STREAM_CUT, 0), (1, entry_pb2.OUTCOME_STREAM_CUT, 0)]


async def test_deadline_of_a_follower_is_its_own(scene: Scene) -> None:
    gate = asyncio.Event()
    scene.router.dispatch.script = streamed(gate)
    leader = await scene.begun("leader")
    hasty = scene.router.stub.CompleteChat(typed_pb.CompleteChatRequest(request=QUESTION), timeout=0.1)
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await hasty
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    gate.set()
    assert (await leader.all()).text == TEXT


@pytest.mark.parametrize(
    "metadata", [("cache-control", "no-store"), ("cache-control", "no-cache"), ("x-cache-ttl", "0"), ("authorization", "Bearer other")]
)
async def test_who_wants_no_shared_answer_has_a_call_of_its_own(scene: Scene, metadata: tuple[str, str]) -> None:
    scene.router.dispatch.script = streamed(asyncio.Event())
    leader = await scene.begun("leader")
    await scene.dispatched()
    scene.router.dispatch.script = [whole()]
    assert (await scene.router.ask(metadata)).receipt.cache_status != COALESCED
    await scene.dispatched()
    leader.call.cancel()
