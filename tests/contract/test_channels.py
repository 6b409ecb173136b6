"""Whatever carries a call, stubs and handlers see the same."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from joulegate.cache.v1 import cache_service_pb2 as cache_pb
from joulegate.cache.v1 import cache_service_pb2_grpc as cache_grpc
from joulegate.chat.v1 import chat_pb2
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.dispatch.v1 import dispatch_service_pb2 as dispatch_pb
from joulegate.dispatch.v1 import dispatch_service_pb2_grpc as dispatch_grpc
from joulegate.ledger.v1 import ledger_service_pb2 as ledger_pb
from joulegate.ledger.v1 import ledger_service_pb2_grpc as ledger_grpc
from services.runtime.calls import StreamCall
from services.runtime.errors import GatewayError
from tests.contract.channels import KINDS, new_mesh, serve


class Scripted(cache_grpc.CacheServiceServicer, dispatch_grpc.DispatchServiceServicer, ledger_grpc.LedgerServiceServicer):
    """Handlers that do what their request's text says."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.release = asyncio.Event()
        self.metadata: dict[str, Any] = {}
        self.remaining: float | None = None
        self.sent = 0

    async def LookUp(self, request: cache_pb.LookUpRequest, context: Any) -> cache_pb.LookUpResponse:
        self.metadata = dict(context.invocation_metadata())
        self.remaining = context.time_remaining()
        match request.key.namespace:
            case "refuse":
                raise GatewayError(
                    ErrorReason.ERROR_REASON_RATE_LIMITED, "slowly, plëase", {"type": "x", "http_status": "429"}, retry_after_s=1.5
                )
            case "bug":
                raise KeyError("secret")
            case "hang":
                await self._hang()
            case "wait":
                await self._wait_for_one_that_is_cancelled()
        return cache_pb.LookUpResponse(similarity=0.5)

    async def _wait_for_one_that_is_cancelled(self) -> None:
        task = asyncio.create_task(self._hang())
        await self.started.wait()
        task.cancel()
        await task

    async def _hang(self) -> None:
        self.started.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def Dispatch(self, request: dispatch_pb.DispatchRequest, context: Any) -> AsyncIterator[dispatch_pb.DispatchResponse]:
        try:
            for number in range(int(request.request_id)):
                yield dispatch_pb.DispatchResponse(selected=dispatch_pb.SelectedTarget(attempt=number))
                self.sent += 1
            if request.targets:
                raise GatewayError(ErrorReason.ERROR_REASON_STREAM_CUT, "cut", {"provider": "p"})
            if request.request.model == "hang":
                await self._hang()
        finally:
            self.cancelled.set()

    async def Book(self, request: AsyncIterator[ledger_pb.BookRequest], context: Any) -> AsyncIterator[ledger_pb.BookResponse]:
        async for message in request:
            yield ledger_pb.BookResponse(intent_acks=[ledger_pb.IntentAck(request_id=intent.request_id) for intent in message.intents])


class Wired:
    def __init__(self, kind: str, servicer: Scripted, channel: grpc.aio.Channel, draining: asyncio.Event) -> None:
        self.kind = kind
        self.servicer = servicer
        self.draining = draining
        self.cache = cache_grpc.CacheServiceStub(channel)
        self.dispatch = dispatch_grpc.DispatchServiceStub(channel)
        self.ledger = ledger_grpc.LedgerServiceStub(channel)


def _lookup(namespace: str) -> cache_pb.LookUpRequest:
    return cache_pb.LookUpRequest(key=cache_pb.EntryKey(namespace=namespace))


@pytest.fixture(params=KINDS)
async def wired(request: pytest.FixtureRequest) -> AsyncIterator[Wired]:
    mesh, servicer = new_mesh(), Scripted()  # type: ignore[abstract]
    cache_grpc.add_CacheServiceServicer_to_server(servicer, mesh.registry)
    dispatch_grpc.add_DispatchServiceServicer_to_server(servicer, mesh.registry)
    ledger_grpc.add_LedgerServiceServicer_to_server(servicer, mesh.registry)
    async with serve(mesh, request.param) as channel:
        yield Wired(request.param, servicer, channel, mesh.draining)


async def test_a_unary_call_gives_its_answer_and_carries_metadata_and_deadline(wired: Wired) -> None:
    response = await wired.cache.LookUp(_lookup(""), timeout=60, metadata=(("traceparent", "00-1"),))
    assert response.similarity == 0.5
    assert wired.servicer.metadata["traceparent"] == "00-1"
    assert wired.servicer.remaining is not None and 50 < wired.servicer.remaining < 61


async def test_an_error_keeps_its_reason_metadata_and_retry_delay(wired: Wired) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await wired.cache.LookUp(_lookup("refuse"))
    assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    error = GatewayError.from_rpc(raised.value)
    assert (error.reason, error.message, error.retry_after_s) == (ErrorReason.ERROR_REASON_RATE_LIMITED, "slowly, plëase", 1.5)
    assert error.metadata == {"type": "x", "http_status": "429"}


async def test_an_unforeseen_exception_is_internal_and_says_nothing(wired: Wired) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await wired.cache.LookUp(_lookup("bug"))
    assert raised.value.code() == grpc.StatusCode.INTERNAL
    assert "secret" not in str(raised.value)


async def test_a_deadline_ends_the_call_and_cancels_the_handler(wired: Wired) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await wired.cache.LookUp(_lookup("hang"), timeout=0.05)
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(wired.servicer.cancelled.wait(), 30)


async def test_cancelling_a_waiting_task_cancels_the_handler(wired: Wired) -> None:
    async def ask() -> None:
        await wired.cache.LookUp(_lookup("hang"))

    task = asyncio.create_task(ask())
    await asyncio.wait_for(wired.servicer.started.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(wired.servicer.cancelled.wait(), 30)


async def test_a_handler_that_waits_for_what_is_cancelled_cancels_nobody_else(wired: Wired) -> None:
    if wired.kind == "grpc":
        pytest.skip("a plain RPC whose handler was cancelled ends at its deadline")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await wired.cache.LookUp(_lookup("wait"), timeout=60)
    assert raised.value.code() == grpc.StatusCode.CANCELLED
    task = asyncio.current_task()
    assert task is not None and not task.cancelling()


async def test_a_stream_gives_all_messages_in_order(wired: Wired) -> None:
    call = wired.dispatch.Dispatch(dispatch_pb.DispatchRequest(request_id="1000"))
    assert [response.selected.attempt async for response in call] == list(range(1000))


async def test_a_stream_starts_before_it_is_read(wired: Wired) -> None:
    call = wired.dispatch.Dispatch(dispatch_pb.DispatchRequest(request_id="0", request=chat_pb2.ChatRequest(model="hang")))
    await asyncio.wait_for(wired.servicer.started.wait(), 30)
    call.cancel()
    await asyncio.wait_for(wired.servicer.cancelled.wait(), 30)


async def test_what_was_sent_before_a_stream_was_cancelled_can_still_be_had(wired: Wired) -> None:
    call: Any = wired.dispatch.Dispatch(dispatch_pb.DispatchRequest(request_id="3", request=chat_pb2.ChatRequest(model="hang")))
    await asyncio.wait_for(wired.servicer.started.wait(), 30)
    if not isinstance(call, StreamCall):
        pytest.skip("a plain RPC that is cancelled drops what was on its way")
    assert [response.selected.attempt for response in await call.last_messages(5)] == [0, 1, 2]
    assert wired.servicer.cancelled.is_set()
    with pytest.raises(asyncio.CancelledError):
        await call.read()


async def test_an_error_after_messages_comes_after_them(wired: Wired) -> None:
    call: Any = wired.dispatch.Dispatch(dispatch_pb.DispatchRequest(request_id="3", targets=[dispatch_pb.Target()]))
    got = [(await call.read()).selected.attempt for _ in range(3)]
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call.read()
    assert got == [0, 1, 2]
    assert GatewayError.from_rpc(raised.value).reason == ErrorReason.ERROR_REASON_STREAM_CUT


async def test_a_handler_does_not_run_far_ahead_of_its_reader(wired: Wired) -> None:
    # 100,000 messages of a reader that has read one: flow control must have stopped the handler long before.
    call = wired.dispatch.Dispatch(dispatch_pb.DispatchRequest(request_id="100000"))
    await call.read()
    for _ in range(200):
        await asyncio.sleep(0)
    assert wired.servicer.sent < 50_000
    call.cancel()
    await asyncio.wait_for(wired.servicer.cancelled.wait(), 30)


async def test_a_bidirectional_stream_answers_while_it_is_written(wired: Wired) -> None:
    call: Any = wired.ledger.Book()
    for request_id in ("a", "b"):
        await call.write(ledger_pb.BookRequest(intents=[ledger_pb.Intent(request_id=request_id)]))
        assert (await call.read()).intent_acks[0].request_id == request_id
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_many_calls_at_once_each_get_their_own_answer(wired: Wired) -> None:
    async def count(number: int) -> int:
        return len([_ async for _ in wired.dispatch.Dispatch(dispatch_pb.DispatchRequest(request_id=str(number)))])

    assert await asyncio.gather(*[count(number) for number in range(100)]) == list(range(100))
