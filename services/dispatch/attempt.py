"""One call of a provider, from its start to its end, with the provider's figures and its breaker kept."""

from collections.abc import Callable, Sequence
from typing import Final, Literal

from joulegate.chat.v1 import chat_pb2
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from joulegate.ledger.v1.entry_pb2 import EnergyBoundary
from services.dispatch import metrics, retry
from services.dispatch.backend import Answer, Batch
from services.dispatch.breaker import State
from services.dispatch.failure import CALLLESS, Failure, Kind
from services.dispatch.meter import Share
from services.dispatch.roster import Provider, Roster, duration
from services.runtime import logs
from services.runtime.clock import Clock

log = logs.get(__name__)

# Near enough for a weight.
_BYTES_PER_TOKEN: Final = 3
_SUPERSEDED = Failure(Kind.SUPERSEDED, "another provider answered first")


class Attempt:
    """`begin`, `read` until it is over, `close`. Whoever begins it has asked whether a call may go out, with nothing awaited in between."""

    def __init__(
        self,
        roster: Roster,
        provider: Provider,
        target: pb.Target,
        number: int,
        answer: Answer,
        clock: Clock,
        request: chat_pb2.ChatRequest,
    ) -> None:
        self._roster = roster
        self._provider = provider
        self.target = target
        self._number = number
        self._answer = answer
        self._clock = clock
        self._breaker = provider.breakers.of(target.model)
        self._figures = provider.figures.of(target.model)
        # For the breaker, until it has been told how the call ended.
        self._ticket: int | None = None
        self._request = request
        # Of what the machine's counters count while it runs.
        self._share: Share | None = None
        self._began = clock.monotonic()
        self._is_open = False
        # None before the first event.
        self._first_event_s: float | None = None
        self._event_count = 0
        self._outcome: Literal["cancelled", "success", "failure", "rejected"] = "cancelled"
        # Why there was no first event.
        self.failure: Failure | None = None
        # Whether `read` has given its last response.
        self.is_over = False

    @property
    def is_won(self) -> bool:
        """Whether it gave its events. Says so when it is over."""
        return self.failure is None

    @property
    def failed(self) -> "Sequence[Attempt]":
        """The calls without an event: this one, if it has failed."""
        return () if self.failure is None else (self,)

    async def read(self) -> pb.DispatchResponse:
        """The next of the answer or, with `failure` set, the only one: what is told of that. Raises GatewayError when the answer is cut."""
        try:
            batch = await self._answer.read()
        except Failure as failure:
            self._fail(failure)
            if self._first_event_s is not None:
                raise retry.cut(self.target.provider, failure) from None
            self.failure, self.is_over = failure, True
            if failure.kind in CALLLESS:
                return pb.DispatchResponse(begun_attempts=[pb.BegunAttempt(attempt=self._number)])
            return pb.DispatchResponse(failed_attempts=[self.report(failure)])
        return self._response(batch)

    @property
    def begun(self) -> pb.BegunAttempt:
        return pb.BegunAttempt(target=self.target, attempt=self._number)

    def report(self, failure: Failure) -> pb.FailedAttempt:
        return pb.FailedAttempt(
            target=self.target,
            attempt=self._number,
            code=retry.status_code(failure),
            http_status=failure.http_status,
            message=failure.message,
            elapsed=duration(self._clock.monotonic() - self._began),
        )

    async def superseded(self, *, is_whole: bool) -> pb.FailedAttempt:
        """Breaks the call off because another one answers. Gives what is told of it."""
        now = self._clock.monotonic()
        self._figures.overtaken(now, now - self._began, is_whole=is_whole)
        await self.close()
        return self.report(_SUPERSEDED)

    def begin(self) -> None:
        self._is_open = True
        if self._provider.metering is not None:
            self._share = self._provider.metering.begin(self._request.ByteSize() // _BYTES_PER_TOKEN)
        self._figures.began()
        period = self._breaker.period
        self._ticket = self._breaker.begin(self._began)
        if self._breaker.period != period:
            self._announce()

    async def close(self) -> None:
        """Ends the call, wherever it is. Again: nothing."""
        if not self._is_open:
            return
        self._is_open = False
        self._measured()
        self._figures.ended()
        if self.failure is None or self.failure.kind not in CALLLESS:
            self._provider.calls[self._outcome].inc()
        if self._ticket is not None:
            self._tell_breaker(self._breaker.abandoned, self._clock.monotonic())
        self._answer.close()

    def _response(self, batch: Batch) -> pb.DispatchResponse:
        now, events = self._clock.monotonic(), batch.events
        elapsed = now - self._began
        self._event_count += len(events)
        # A whole answer is one event.
        is_whole = bool(events) and events[0].HasField("completion")
        if self._share is not None and not is_whole:
            # The tokens of a whole answer were made before: it weighs as its prompt to its end.
            self._share.produce(len(events))
        response = pb.DispatchResponse()
        response.events.extend(events)
        if self._first_event_s is None:
            self._saw_first_event(now, elapsed, is_whole=is_whole)
            selected = response.selected
            selected.target.CopyFrom(self.target)
            selected.attempt = self._number
            selected.time_to_first_event.CopyFrom(duration(elapsed))
            selected.warnings.extend(self._answer.warnings)
        if batch.is_last:
            self.is_over = True
            finished = response.finished
            finished.elapsed.CopyFrom(duration(elapsed))
            if (measured := self._measured()) is not None:
                finished.measured_energy_microjoules, finished.measured_energy_boundary, finished.is_energy_declared = measured
            self._succeed(now, elapsed)
        return response

    def _measured(self) -> tuple[int, EnergyBoundary.ValueType, bool] | None:
        """Ends its share: what it took in microjoules, of what, and whether that is only stated. None when nobody counts, and once it has
        been told."""
        share, self._share = self._share, None
        metering = self._provider.metering
        if share is None or metering is None:
            return None
        microjoules = metering.end(share)
        return None if microjoules is None else (microjoules, metering.boundary, metering.is_declared)

    def _saw_first_event(self, now: float, elapsed: float, *, is_whole: bool) -> None:
        self._first_event_s = elapsed
        self._figures.saw_first_event(now, elapsed, is_whole=is_whole)
        self._provider.first_event_seconds.observe(elapsed)
        if self._breaker.retry_at is not None:
            # What a probe is for is shown by now; its answer may take minutes, and the other calls would wait for it.
            self._tell_breaker(self._breaker.succeeded, now)

    def _succeed(self, now: float, elapsed: float) -> None:
        assert self._first_event_s is not None
        self._outcome = "success"
        self._tell_breaker(self._breaker.succeeded, now)
        was_healthy = self._provider.figures.is_healthy
        self._figures.succeeded(now, self._clock.now())
        # An event is a token, near enough: vendors send one for each, or bundle them at their own pace, which is what a reader feels.
        self._figures.streamed_tokens(self._event_count, elapsed - self._first_event_s)
        if not was_healthy:
            self._roster.touch()

    def _fail(self, failure: Failure) -> None:
        now = self._clock.monotonic()
        if retry.counts_against_health(failure):
            self._tell_breaker(self._breaker.failed, now)
        # A provider that refuses a bad request, or does not have a model, does its work.
        if retry.is_callers_fault(failure) or failure.http_status == 404 or failure.kind in CALLLESS:
            self._outcome = "rejected"
            return
        self._outcome = "failure"
        was_healthy = self._provider.figures.is_healthy
        self._figures.failed(now, failure.summary)
        if was_healthy != self._provider.figures.is_healthy:
            self._roster.touch()

    def _tell_breaker(self, tell: Callable[[float, int], None], now: float) -> None:
        """Once for each call: what comes after a probe's first event is no second outcome."""
        if self._ticket is None:
            return
        ticket, self._ticket, period = self._ticket, None, self._breaker.period
        tell(now, ticket)
        if self._breaker.period != period:
            self._announce()

    def _announce(self) -> None:
        """Tells operators and routers that the breaker has changed."""
        state: State = self._breaker.history[-1].state
        provider, model = self.target.provider, self.target.model
        metrics.BREAKER_TRANSITIONS.labels(provider, state.name.lower()).inc()
        write = log.warning if state is State.OPEN else log.info
        write(
            "circuit_changed", provider=provider, model=model, state=state.name.lower(), failures_in_a_row=self._breaker.failures_in_a_row
        )
        self._roster.touch()
