"""An answer that a provider is giving: dispatched, relayed, and booked whichever way it ends."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol, cast

import grpc
from google.rpc import code_pb2
from grpc.aio import EOF

from joulegate.chat.v1 import chat_pb2, receipt_pb2
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.dispatch.v1 import dispatch_service_pb2 as dispatch_pb
from joulegate.ledger.v1 import entry_pb2, ledger_service_pb2
from services.router import metrics, tokens
from services.router.answer import Events, Source, completion_id, usage_chunk
from services.router.books import Books, is_heard_within
from services.router.decision import Decision
from services.router.leases import Target
from services.router.question import Question
from services.router.reservations import Admitted
from services.router.settlement import settlement_of
from services.runtime.calls import StreamCall
from services.runtime.errors import GatewayError
from services.wire.assemble import CompletionAssembler

# A settled answer waits this long for its figures; without them it leaves with the receipt's figures unset.
FIGURES_WAIT_S = 1.0
# Dispatch says at once that it has broken off; without that, what is known is booked.
LAST_NEWS_WAIT_S = 1.0
# What became of a call that gave no event; with any other code the provider refused it or was not there.
_OUTCOME_OF_CODE: Mapping[int, entry_pb2.Outcome.ValueType] = {
    code_pb2.DEADLINE_EXCEEDED: entry_pb2.OUTCOME_TIMED_OUT,
    code_pb2.DATA_LOSS: entry_pb2.OUTCOME_STREAM_CUT,
    code_pb2.CANCELLED: entry_pb2.OUTCOME_SUPERSEDED,
}
Keep = Callable[[chat_pb2.ChatCompletion, Source, ledger_service_pb2.SettlementAck | None], None]


class Left(Protocol):
    """Told when an answer is left: where it came from, if it had begun, and whether it broke off."""

    def __call__(self, source: Source | None, *, is_cut: bool) -> None: ...


class ProviderAnswer:
    """One request at the providers, from `begin` to `leave`.

    Left: the provider's call is over and the end is booked: as finished if `receipt` was called, else as what ended it.
    """

    def __init__(
        self,
        question: Question,
        admitted: Admitted,
        decision: Decision,
        status: Any,
        call: Any,
        books: Books,
        keep: Keep,
        left: Left,
    ) -> None:
        self._question = question
        self._targets = admitted.targets
        self._create_time = admitted.create_time
        self._intended = admitted.intended
        self._max_output_tokens = admitted.max_output_tokens or tokens.MOST_TOKENS
        self._decision, self._decision_text = decision, decision.text
        if admitted.downgraded_to:
            self._decision_text += f"; instead of {question.model}, for a budget is used up"
        self._warnings, self._downgraded_to = admitted.warnings, admitted.downgraded_to
        self._status = status
        self._call = call
        self._books = books
        self._keep: Keep | None = keep
        self._left = left
        self._failed: list[dispatch_pb.FailedAttempt] = []
        # By attempt, until it has failed or is selected. The first goes without saying.
        self._running = {1: admitted.targets[0]}
        self._selected: dispatch_pb.SelectedTarget | None = None
        # Known once it has begun.
        self.source: Source
        self._pending: dispatch_pb.DispatchResponse | None = None
        self._completion: chat_pb2.ChatCompletion | None = None
        self._chunks: list[chat_pb2.ChatCompletionChunk] = []
        # As the provider says it bills it.
        self._reported_cost: int | None = None
        self._usage: chat_pb2.Usage | None = None
        self._finished: dispatch_pb.Finished | None = None
        # Why the provider's call ended. Whoever reads the batches may tell the client by a last event and then leave without an error.
        self._broken: GatewayError | None = None
        self._is_settled = False

    async def begin(self) -> None:
        """On return its first events are at hand and its intent is durable. Raises GatewayError, having left, when there is no answer."""
        try:
            await self._await_selection()
            await self._books.durable(self._intended)
        except BaseException as error:
            try:
                await self._hear_last_news()
            finally:
                self.leave(error)
            raise
        elapsed = time.monotonic() - self._question.arrived_at
        metrics.first_event_seconds(self.source.provider).observe(elapsed)

    def leave(self, error: BaseException | None) -> None:
        """Ends the provider's call, and books the end that this error is, unless it is booked."""
        self._call.cancel()
        try:
            self._settle_end(error)
        finally:
            broken = self._broken
            source = None if self._selected is None else self.source
            self._left(source, is_cut=broken is not None and broken.reason == ErrorReason.ERROR_REASON_STREAM_CUT)
            # It knows the flight that knows this answer: all that belongs to a request would wait for the garbage collector.
            self._keep = None

    def _settle_end(self, error: BaseException | None) -> None:
        if not self._is_settled:
            # Left without a receipt and without any error: the reader walked away between two batches.
            end = self._broken or error or asyncio.CancelledError()
            outcome = outcome_of(end)
            if self._selected is not None and outcome == entry_pb2.OUTCOME_FAILED:
                outcome = entry_pb2.OUTCOME_STREAM_CUT
            self._settle(outcome)

    async def _await_selection(self) -> None:
        while self._selected is None:
            response = await self._read()
            if response is None:
                raise GatewayError(ErrorReason.ERROR_REASON_INTERNAL, "dispatch ended without an answer")
            self._note_attempts(response)
            if response.HasField("selected"):
                self._selected, self.source = response.selected, self._source_of(response.selected)
                self._pending = response

    def _source_of(self, selected: dispatch_pb.SelectedTarget) -> Source:
        return Source(
            selected.target.provider,
            selected.target.model,
            self._status,
            failed_attempts=sum(failed.code != code_pb2.CANCELLED for failed in self._failed),
            decision=self._decision_text,
            routing=self._decision,
            warnings=[*self._warnings, *selected.warnings],
            downgraded_to=self._downgraded_to,
            curtailed_for=self._question.caller.key_id if self._downgraded_to or self._warnings else None,
        )

    async def _hear_last_news(self) -> None:
        """A second call that has just begun may not be known of here yet; it is booked like any other."""
        if self._selected is None and self._decision.hedges and isinstance(self._call, StreamCall):
            for response in await self._call.last_messages(LAST_NEWS_WAIT_S):
                self._note_attempts(response)

    def _note_attempts(self, response: dispatch_pb.DispatchResponse) -> None:
        for begun in response.begun_attempts:
            if begun.HasField("target"):
                self._running[begun.attempt] = begun.target.provider, begun.target.model
            else:
                self._running.pop(begun.attempt, None)
        for failed in response.failed_attempts:
            self._running.pop(failed.attempt, None)
        self._failed += response.failed_attempts

    async def _read(self) -> dispatch_pb.DispatchResponse | None:
        try:
            response = await self._call.read()
        except grpc.aio.AioRpcError as error:
            self._broken = GatewayError.from_rpc(error)
            raise self._broken from None
        if response is EOF:
            return None
        if response.HasField("finished"):
            self._finished = response.finished
        # What has come is booked, whether or not it ever leaves.
        self._note(response.events)
        return cast(dispatch_pb.DispatchResponse, response)

    async def batches(self) -> AsyncIterator[Events]:
        response = self._pending
        while response is not None:
            if response.events:
                yield response.events
            if response.HasField("finished"):
                return
            response = await self._read()
        self._broken = GatewayError(ErrorReason.ERROR_REASON_STREAM_CUT, "the answer ended before it was complete")
        raise self._broken

    def _note(self, events: Events) -> None:
        for event in events:
            if event.HasField("reported_cost_nano_usd"):
                self._reported_cost = event.reported_cost_nano_usd
            if event.HasField("chunk"):
                chunk = event.chunk
                self._chunks.append(chunk)
                if chunk.HasField("usage"):
                    self._usage = chunk.usage
            else:
                self._completion = event.completion
                self._usage = event.completion.usage if event.completion.HasField("usage") else None

    async def receipt(self) -> receipt_pb2.Receipt:
        settled = self._settle(entry_pb2.OUTCOME_FINISHED)
        ack = settled.result() if await is_heard_within(settled, FIGURES_WAIT_S) else None
        source = self.source
        if self._keep is not None:
            self._keep(self._whole(), source, ack)
        receipt = receipt_pb2.Receipt(
            request_id=self._question.request_id,
            provider=source.provider,
            model=source.model,
            cache_status=source.cache_status,
            failed_attempt_count=source.failed_attempts,
        )
        if ack is not None:
            receipt.cost_nano_usd = ack.cost_nano_usd
            receipt.energy.CopyFrom(ack.energy)
            receipt.gateway_energy_microjoules = ack.gateway_energy_microjoules
        return receipt

    def usage_chunk(self) -> chat_pb2.ChatCompletionChunk:
        first = self._chunks[0] if self._chunks else self._completion or chat_pb2.ChatCompletionChunk()
        return usage_chunk(first.id or completion_id(self._question.request_id), first.model, self._usage or self._counted_usage())

    def _counted_usage(self) -> chat_pb2.Usage:
        counts = self._counted()
        total = counts.input_tokens + counts.output_tokens
        return chat_pb2.Usage(prompt_tokens=counts.input_tokens, completion_tokens=counts.output_tokens, total_tokens=total)

    def _whole(self) -> chat_pb2.ChatCompletion:
        if self._completion is None:
            assembler = CompletionAssembler()
            for chunk in self._chunks:
                assembler.add(chunk)
            self._completion = assembler.completion()
        return self._completion

    # What is booked.

    def _settle(self, outcome: entry_pb2.Outcome.ValueType) -> asyncio.Future[ledger_service_pb2.SettlementAck | None]:
        self._is_settled = True
        settlement = settlement_of(self._question, self._create_time, self._status)
        for failed in self._failed:
            self._add_failed(settlement, failed)
        if self._selected is not None:
            self._add_selected(settlement, self._selected, outcome)
        else:
            for attempt, target in self._running.items():
                self._add_unended(settlement, attempt, target, outcome)
        if not settlement.attempts:
            # A request whom nobody could be called for has its row all the same.
            self._add_unended(settlement, 1, self._targets[0], outcome)
        metrics.requests(settlement.attempts[-1].provider, self._status, outcome).inc()
        if self._finished is not None:
            settlement.gateway_cpu_nanos = self._finished.cpu_nanos
        return self._books.settle(settlement)

    def _add_selected(
        self, settlement: ledger_service_pb2.Settlement, selected: dispatch_pb.SelectedTarget, outcome: entry_pb2.Outcome.ValueType
    ) -> None:
        counts = None if self._usage is None else tokens.reported(self._usage)
        answer = self._completion or (self._chunks[0] if self._chunks else None)
        finished = self._finished
        attempt = settlement.attempts.add(
            attempt=selected.attempt,
            provider=selected.target.provider,
            model=selected.target.model,
            served_model="" if answer is None else answer.model,
            outcome=outcome,
            tokens=counts or self._counted(),
        )
        if self._reported_cost is not None:
            attempt.reported_cost_nano_usd = self._reported_cost
        if finished is not None and finished.HasField("measured_energy_microjoules"):
            attempt.measured_energy_microjoules = finished.measured_energy_microjoules
            attempt.measured_energy_boundary = finished.measured_energy_boundary
            attempt.is_energy_declared = finished.is_energy_declared

    def _add_unended(
        self, settlement: ledger_service_pb2.Settlement, attempt: int, target: Target, outcome: entry_pb2.Outcome.ValueType
    ) -> None:
        """A call that was running when the request ended, or that would have been."""
        provider, model = target
        settlement.attempts.add(attempt=attempt, provider=provider, model=model, outcome=outcome, tokens=self._unanswered(outcome))

    def _add_failed(self, settlement: ledger_service_pb2.Settlement, failed: dispatch_pb.FailedAttempt) -> None:
        outcome = _OUTCOME_OF_CODE.get(failed.code, entry_pb2.OUTCOME_FAILED)
        settlement.attempts.add(
            attempt=failed.attempt,
            provider=failed.target.provider,
            model=failed.target.model,
            outcome=outcome,
            tokens=self._unanswered(outcome),
        )

    def _unanswered(self, outcome: entry_pb2.Outcome.ValueType) -> entry_pb2.TokenCounts:
        """What a call without a first event took: a provider that did not refuse it has read the prompt, and may bill for that."""
        was_read = outcome != entry_pb2.OUTCOME_FAILED
        return entry_pb2.TokenCounts(input_tokens=tokens.count_prompt(self._question.request) if was_read else 0, estimated=True)

    def _counted(self) -> entry_pb2.TokenCounts:
        if self._completion is not None:
            said = [choice.message for choice in self._completion.choices]
        else:
            said = [choice.delta for chunk in self._chunks for choice in chunk.choices]
        # Counted in another vocabulary than the provider's, which has kept to its bound.
        output_tokens = min(tokens.count_answer(said), self._max_output_tokens)
        return entry_pb2.TokenCounts(input_tokens=tokens.count_prompt(self._question.request), output_tokens=output_tokens, estimated=True)


def outcome_of(error: BaseException) -> entry_pb2.Outcome.ValueType:
    """What an answer that this error has ended is booked as. Cancelling may carry the error that it is for."""
    if isinstance(error, asyncio.CancelledError) and error.args:
        error = error.args[0]
    if not isinstance(error, GatewayError):
        return entry_pb2.OUTCOME_CLIENT_LEFT
    match error.reason:
        case ErrorReason.ERROR_REASON_STREAM_CUT:
            return entry_pb2.OUTCOME_STREAM_CUT
        case ErrorReason.ERROR_REASON_PROVIDER_TIMEOUT | ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED:
            return entry_pb2.OUTCOME_TIMED_OUT
        case ErrorReason.ERROR_REASON_CANCELLED:
            return entry_pb2.OUTCOME_CLIENT_LEFT
    return entry_pb2.OUTCOME_FAILED
