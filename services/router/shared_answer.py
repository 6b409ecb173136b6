"""One request's part in an answer that identical requests share: the leader gets it as it is, a follower as an answer of its own.

A follower's answer is booked as a hit: it cost nothing, and saved what the leader's took.
"""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Callable

from google.protobuf import timestamp_pb2

from joulegate.chat.v1 import chat_pb2, receipt_pb2
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.ledger.v1 import entry_pb2, ledger_service_pb2
from services.router import metrics, tokens
from services.router.answer import Events, Source, completion_id, free_receipt
from services.router.books import Books
from services.router.flight import Flight, LookAgainError
from services.router.provider_answer import outcome_of
from services.router.question import Counted, Question
from services.router.settlement import settlement_of
from services.runtime.errors import GatewayError

COALESCED = receipt_pb2.CACHE_STATUS_COALESCED


class SharedAnswer:
    """Listens to a flight until `leave`. Nobody else ends with it: neither its own deadline nor its client's leaving is the flight's."""

    def __init__(self, flight: Flight, question: Question, books: Books, want_receipt: Callable[[], None]) -> None:
        self._flight = flight
        self._question = question
        self._books = books
        self._want_receipt = want_receipt
        self._waiter: asyncio.Future[None] | None = None
        self._listener = flight.join(self._wake, question)
        # Beside the id it tells the books which request this is.
        self._created_ns = time.time_ns()
        left_s = question.timeout_s - (time.monotonic() - question.arrived_at)
        self._timer = asyncio.get_running_loop().call_later(max(0.0, left_s), self._expire)
        self._has_begun = self._has_all = False
        # Why the answer broke off; whoever reads it may tell the client by a last event and then leave without an error.
        self._broken: GatewayError | None = None

    @property
    def source(self) -> Source:
        assert self._flight.answer is not None
        source = self._flight.answer.source
        if self._listener.has_led:
            return source
        return dataclasses.replace(source, cache_status=COALESCED, decision="shared with an identical request")

    async def begun(self) -> None:
        """Waits until the answer has begun; until it is booked, where it is read as a whole. Raises GatewayError when none comes."""
        listener = self._listener
        listener.check()
        while not listener.is_served:
            if self._flight.is_finished:
                # It came whole to others, who may never ask what it took.
                self._want_receipt()
            await self._news()
            listener.check()
        self._has_begun = True

    async def batches(self) -> AsyncIterator[Events]:
        while True:
            try:
                events = self._listener.take()
            except GatewayError as error:
                self._broken = error
                raise
            if events:
                yield self._own(events)
            elif self._flight.is_finished:
                return
            else:
                await self._news()

    async def receipt(self) -> receipt_pb2.Receipt:
        self._want_receipt()
        while (receipt := self._flight.receipt) is None:
            if (error := self._listener.error or self._flight.error) is not None:
                self._broken = error
                raise error
            await self._news()
        self._has_all = True
        return receipt if self._listener.has_led else free_receipt(self._question.request_id, self.source)

    def usage_chunk(self) -> chat_pb2.ChatCompletionChunk:
        return self._own([chat_pb2.ChatEvent(chunk=self._flight.usage_chunk())])[0].chunk

    def leave(self, error: BaseException | None) -> None:
        """The end of this request's part, and the row in the books of one that has only followed. Who looks again has its row elsewhere."""
        self._timer.cancel()
        self._flight.leave(self._listener, self._listener.error)
        looks_again = isinstance(error, LookAgainError) and not self._has_begun
        if not self._listener.has_led and not looks_again:
            self._book(self._outcome(error))

    # What the flight calls.

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _expire(self) -> None:
        self._listener.fail(GatewayError(ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED, "The answer took longer than the request may."))

    async def _news(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _own(self, events: Events) -> Events:
        """The events under this request's own id. A request that has led from the start has the provider's."""
        if not self._listener.has_followed:
            return events
        own = []
        for event in events:
            copy = chat_pb2.ChatEvent()
            copy.CopyFrom(event)
            (copy.chunk if copy.HasField("chunk") else copy.completion).id = completion_id(self._question.request_id)
            own.append(copy)
        return own

    def _outcome(self, error: BaseException | None) -> entry_pb2.Outcome.ValueType:
        if self._has_all:
            return entry_pb2.OUTCOME_CACHE_HIT
        outcome = outcome_of(self._broken or error or asyncio.CancelledError())
        has_begun = self._flight.answer is not None
        return entry_pb2.OUTCOME_STREAM_CUT if has_begun and outcome == entry_pb2.OUTCOME_FAILED else outcome

    def _book(self, outcome: entry_pb2.Outcome.ValueType) -> None:
        """Books without waiting: nothing was spent."""
        question, answer = self._question, self._flight.answer
        counted = question.ticket.counted or Counted(self._create_time())
        settlement = settlement_of(question, counted.create_time, COALESCED, counted.lease_id)
        attempt = settlement.attempts.add(outcome=outcome)
        if answer is not None:
            attempt.provider, attempt.model = answer.source.provider, answer.source.model
        if outcome == entry_pb2.OUTCOME_CACHE_HIT:
            self._note_savings(attempt)
        self._books.settle_soon(settlement)
        metrics.requests(attempt.provider, COALESCED, outcome).inc()

    def _create_time(self) -> timestamp_pb2.Timestamp:
        create_time = timestamp_pb2.Timestamp()
        create_time.FromNanoseconds(self._created_ns)
        return create_time

    def _note_savings(self, attempt: ledger_service_pb2.Attempt) -> None:
        receipt, chunk = self._flight.receipt, self._flight.usage_chunk()
        assert receipt is not None
        attempt.served_model = chunk.model
        counts = tokens.reported(chunk.usage)
        if counts is not None:
            attempt.tokens.CopyFrom(counts)
        attempt.saved_cost_nano_usd = receipt.cost_nano_usd
        attempt.saved_energy_microjoules = receipt.energy.microjoules
