"""An answer books what ended it, however its reader took the end."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc.aio import EOF, AioRpcError, Metadata

from joulegate.cache.v1 import cache_service_pb2 as cache_pb
from joulegate.chat.v1 import chat_pb2, receipt_pb2
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.dispatch.v1 import dispatch_service_pb2 as dispatch_pb
from joulegate.ledger.v1 import entry_pb2, ledger_service_pb2
from services.router.books import Books, Verdict
from services.router.controls import CacheControls
from services.router.decision import Decision
from services.router.provider_answer import ProviderAnswer
from services.router.question import Question
from services.router.reservations import Admitted
from services.router.strategies import Strategy
from services.runtime.errors import STATUS_DETAILS_KEY, GatewayError
from services.runtime.identity import ANONYMOUS

TARGET = dispatch_pb.Target(provider="lab", model="small")
DECISION = Decision([], Strategy.FALLBACK, "small", False, "first in sequence", False)
SPARE = dispatch_pb.Target(provider="spare", model="small")


class FakeCall:
    """A Dispatch call that gives what it was told to."""

    def __init__(self, *responses: Any) -> None:
        self._responses = deque(responses)
        self.is_cancelled = False

    async def read(self) -> Any:
        response = self._responses.popleft()
        if isinstance(response, GatewayError):
            details = Metadata((STATUS_DETAILS_KEY, response.to_status().SerializeToString()))
            raise AioRpcError(response.shape.grpc_code, Metadata(), details, response.message)
        return response

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeBooks:
    """Acknowledges at once; while down, no intent is durable."""

    def __init__(self, are_down: bool = False) -> None:
        self.are_down = are_down
        self.settlements: list[ledger_service_pb2.Settlement] = []

    async def durable(self, intended: asyncio.Future[Verdict]) -> None:
        if self.are_down:
            raise GatewayError(ErrorReason.ERROR_REASON_LEDGER_UNAVAILABLE, "the ledger cannot be written to")
        await intended

    def settle(self, settlement: ledger_service_pb2.Settlement) -> asyncio.Future[ledger_service_pb2.SettlementAck | None]:
        self.settlements.append(settlement)
        future: asyncio.Future[ledger_service_pb2.SettlementAck | None] = asyncio.get_running_loop().create_future()
        future.set_result(ledger_service_pb2.SettlementAck(request_id=settlement.request_id))
        return future


def begun() -> dispatch_pb.DispatchResponse:
    chunk = chat_pb2.ChatCompletionChunk(id="a", choices=[chat_pb2.ChunkChoice(delta=chat_pb2.Message(text="Hello"))])
    return dispatch_pb.DispatchResponse(
        selected=dispatch_pb.SelectedTarget(target=TARGET, attempt=1), events=[chat_pb2.ChatEvent(chunk=chunk)]
    )


@asynccontextmanager
async def answer(call: FakeCall, books: FakeBooks, most: int = 0, **members: Any) -> AsyncIterator[ProviderAnswer]:
    """An answer that has begun; it is left for what its reader raises."""
    request = chat_pb2.ChatRequest(model="small", stream=True, **members)
    key = cache_pb.EntryKey()
    question = Question("r", request, "small", key, ANONYMOUS, CacheControls(), (), (), asyncio.get_running_loop().time(), 10)
    status = receipt_pb2.CACHE_STATUS_MISS
    intended: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    intended.set_result(None)
    admitted = Admitted(request, [("lab", "small"), ("spare", "small")], 0, most, Timestamp(seconds=1), intended, (), "")
    left: list[bool] = []
    begun = ProviderAnswer(
        question,
        admitted,
        DECISION,
        status,
        call,
        cast(Books, books),
        lambda completion, source, ack: None,
        lambda source, *, is_cut: left.append(is_cut),
    )
    try:
        await begun.begin()
        try:
            yield begun
        except BaseException as error:
            begun.leave(error)
            raise
        begun.leave(None)
    finally:
        # However it ends, it is left once.
        assert len(left) == 1


CUT = GatewayError(ErrorReason.ERROR_REASON_STREAM_CUT, "lab: the connection broke")
LATE = GatewayError(ErrorReason.ERROR_REASON_PROVIDER_TIMEOUT, "lab: the provider stopped sending")


@pytest.mark.parametrize(
    ("end", "outcome"), [(CUT, entry_pb2.OUTCOME_STREAM_CUT), (LATE, entry_pb2.OUTCOME_TIMED_OUT), (EOF, entry_pb2.OUTCOME_STREAM_CUT)]
)
@pytest.mark.parametrize("reader_raises", [True, False])
async def test_cut_answer_is_booked_as_cut_even_if_its_reader_leaves_without_an_error(
    end: Any, outcome: entry_pb2.Outcome.ValueType, reader_raises: bool
) -> None:
    call, books = FakeCall(begun(), end), FakeBooks()
    with suppress(GatewayError):
        async with answer(call, books) as cut:
            try:
                async for _ in cut.batches():
                    pass
            except GatewayError:
                if reader_raises:
                    raise
    (settlement,) = books.settlements
    assert [attempt.outcome for attempt in settlement.attempts] == [outcome]
    assert call.is_cancelled


async def test_answer_whose_reader_walks_away_is_booked_as_left() -> None:
    call, books = FakeCall(begun()), FakeBooks()
    async with answer(call, books) as left:
        await anext(left.batches())
    (settlement,) = books.settlements
    assert [attempt.outcome for attempt in settlement.attempts] == [entry_pb2.OUTCOME_CLIENT_LEFT]
    assert settlement.attempts[0].tokens.output_tokens == 1
    assert call.is_cancelled


def failed(number: int, target: dispatch_pb.Target, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> dispatch_pb.DispatchResponse:
    return dispatch_pb.DispatchResponse(failed_attempts=[dispatch_pb.FailedAttempt(target=target, attempt=number, code=code.value[0])])


def started(number: int, target: dispatch_pb.Target | None) -> dispatch_pb.DispatchResponse:
    return dispatch_pb.DispatchResponse(begun_attempts=[dispatch_pb.BegunAttempt(target=target, attempt=number)])


FAILED = failed(1, TARGET)
SILENT = failed(1, TARGET, grpc.StatusCode.DEADLINE_EXCEEDED)
FAILED_TOO = failed(2, SPARE)
STARTED_TOO = started(2, SPARE)
NOT_STARTED = started(1, None)


@pytest.mark.parametrize(
    ("responses", "reason", "booked"),
    [
        ([FAILED, FAILED_TOO], "PROVIDERS_EXHAUSTED", [("lab", "FAILED"), ("spare", "FAILED")]),
        ([FAILED], "PROVIDER_REJECTED", [("lab", "FAILED")]),
        ([FAILED], "PROVIDER_RATE_LIMITED", [("lab", "FAILED")]),
        ([FAILED], "MODEL_NOT_FOUND", [("lab", "FAILED")]),
        ([SILENT], "PROVIDER_TIMEOUT", [("lab", "TIMED_OUT")]),
        # The calls that were running when the request ended were made too, and no others.
        ([], "DEADLINE_EXCEEDED", [("lab", "TIMED_OUT")]),
        ([FAILED, STARTED_TOO], "DEADLINE_EXCEEDED", [("lab", "FAILED"), ("spare", "TIMED_OUT")]),
        ([], "CANCELLED", [("lab", "CLIENT_LEFT")]),
        ([FAILED], "CANCELLED", [("lab", "FAILED")]),
        ([FAILED, STARTED_TOO], "CANCELLED", [("lab", "FAILED"), ("spare", "CLIENT_LEFT")]),
        ([SILENT, STARTED_TOO], "CANCELLED", [("lab", "TIMED_OUT"), ("spare", "CLIENT_LEFT")]),
        ([STARTED_TOO], "CANCELLED", [("lab", "CLIENT_LEFT"), ("spare", "CLIENT_LEFT")]),
        ([STARTED_TOO, FAILED], "CANCELLED", [("lab", "FAILED"), ("spare", "CLIENT_LEFT")]),
        # The first target was passed over.
        ([started(1, SPARE)], "CANCELLED", [("spare", "CLIENT_LEFT")]),
        ([], "SERVICE_UNAVAILABLE", [("lab", "FAILED")]),
        ([FAILED, STARTED_TOO], "SERVICE_UNAVAILABLE", [("lab", "FAILED"), ("spare", "FAILED")]),
        ([FAILED, STARTED_TOO, FAILED_TOO, started(3, SPARE)], "SERVICE_UNAVAILABLE", [("lab", "FAILED")] + [("spare", "FAILED")] * 2),
        # Nobody was called: the request has its row all the same.
        ([], "PROVIDERS_EXHAUSTED", [("lab", "FAILED")]),
        # Calls that turned out not to be needed.
        ([NOT_STARTED], "UNSUPPORTED_PARAMETER", [("lab", "FAILED")]),
        ([FAILED, STARTED_TOO, started(2, None)], "PROVIDERS_EXHAUSTED", [("lab", "FAILED")]),
        ([NOT_STARTED, started(1, SPARE)], "CANCELLED", [("spare", "CLIENT_LEFT")]),
        ([STARTED_TOO, started(2, None)], "CANCELLED", [("lab", "CLIENT_LEFT")]),
    ],
)
async def test_each_call_of_a_request_without_a_first_event_is_booked(
    responses: list[dispatch_pb.DispatchResponse], reason: str, booked: list[tuple[str, str]]
) -> None:
    books, end = FakeBooks(), GatewayError(ErrorReason.Value(f"ERROR_REASON_{reason}"), "the end")
    said = [chat_pb2.Message(role=chat_pb2.ROLE_USER, text="Hello")]
    with pytest.raises(GatewayError):
        async with answer(FakeCall(*responses, end), books, messages=said):
            pass
    (settlement,) = books.settlements
    outcomes = [(attempt.provider, entry_pb2.Outcome.Name(attempt.outcome).removeprefix("OUTCOME_")) for attempt in settlement.attempts]
    assert outcomes == booked
    assert [attempt.attempt for attempt in settlement.attempts] == list(range(1, len(booked) + 1))
    for attempt in settlement.attempts:
        # Who took the call and did not refuse it has read the prompt.
        assert (attempt.tokens.input_tokens > 0) == (attempt.outcome != entry_pb2.OUTCOME_FAILED)
        assert attempt.tokens.estimated


@pytest.mark.parametrize("is_streamed_on", [True, False])
async def test_call_that_another_one_overtook_is_booked_with_the_prompt_it_read(is_streamed_on: bool) -> None:
    overtaken = failed(2, SPARE, grpc.StatusCode.CANCELLED).failed_attempts
    first = dispatch_pb.DispatchResponse(failed_attempts=overtaken)
    first.MergeFrom(begun())
    books, said = FakeBooks(), [chat_pb2.Message(role=chat_pb2.ROLE_USER, text="Hello")]
    async with answer(
        FakeCall(STARTED_TOO, first, dispatch_pb.DispatchResponse(finished=dispatch_pb.Finished())), books, messages=said
    ) as one:
        assert one.source.failed_attempts == 0
        async for _ in one.batches():
            if not is_streamed_on:
                break
        if is_streamed_on:
            await one.receipt()
    booked = [(each.attempt, each.provider, entry_pb2.Outcome.Name(each.outcome)) for each in books.settlements[0].attempts]
    end = "OUTCOME_FINISHED" if is_streamed_on else "OUTCOME_CLIENT_LEFT"
    # The answer's own row is the last: the receipt has its basis.
    assert booked == [(2, "spare", "OUTCOME_SUPERSEDED"), (1, "lab", end)]
    tokens = books.settlements[0].attempts[0].tokens
    assert (tokens.input_tokens > 0, tokens.output_tokens, tokens.estimated) == (True, 0, True)


async def test_answer_that_is_withheld_from_its_client_is_booked_as_what_it_took() -> None:
    books = FakeBooks(are_down=True)
    with pytest.raises(GatewayError, match="ledger"):
        async with answer(FakeCall(begun()), books):
            pass
    (attempt,) = books.settlements[0].attempts
    assert (attempt.outcome, attempt.tokens.output_tokens) == (entry_pb2.OUTCOME_STREAM_CUT, 1)


async def test_estimate_of_an_answer_is_never_more_than_its_bound() -> None:
    books = FakeBooks()
    said = chat_pb2.ChatCompletionChunk(choices=[chat_pb2.ChunkChoice(delta=chat_pb2.Message(text="One two three four five."))])
    rest = dispatch_pb.DispatchResponse(events=[chat_pb2.ChatEvent(chunk=said)])
    async with answer(FakeCall(begun(), rest), books, most=3) as left:
        batches = left.batches()
        await anext(batches)
        await anext(batches)
    assert books.settlements[0].attempts[0].tokens.output_tokens == 3


async def test_usage_that_cannot_be_true_is_counted_instead() -> None:
    lie = chat_pb2.ChatCompletionChunk(usage=chat_pb2.Usage(prompt_tokens=1, completion_tokens=2**40))
    last = dispatch_pb.DispatchResponse(events=[chat_pb2.ChatEvent(chunk=lie)], finished=dispatch_pb.Finished())
    books = FakeBooks()
    async with answer(FakeCall(begun(), last), books) as lied:
        async for _ in lied.batches():
            pass
        await lied.receipt()
    (attempt,) = books.settlements[0].attempts
    assert (attempt.outcome, attempt.tokens.estimated, attempt.tokens.output_tokens) == (entry_pb2.OUTCOME_FINISHED, True, 1)
