"""The targets of a request, in order, until one gives its first event; then that one only.

Everything before the first event may be tried again, for nobody has seen anything yet. After it nothing is: two halves of two answers are
no answer.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import Literal

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch import retry
from services.dispatch.backend import Answer, Batch
from services.dispatch.failure import Failure, Kind
from services.dispatch.plan import Plan
from services.dispatch.retry import RetryPolicy
from services.dispatch.roster import Provider, Roster, duration
from services.runtime import logs
from services.runtime.clock import Clock
from services.runtime.errors import GatewayError

log = logs.get(__name__)


class Attempts:
    """Serves requests from the roster. `random` gives numbers in [0, 1)."""

    def __init__(
        self,
        roster: Roster,
        policy: RetryPolicy,
        clock: Clock,
        random: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._roster = roster
        self._policy = policy
        self._clock = clock
        self._random = random
        self._sleep = sleep

    async def dispatch(
        self, request: pb.DispatchRequest, headers: Mapping[str, str], remaining_s: float | None
    ) -> AsyncGenerator[pb.DispatchResponse, None]:
        """The responses, as their grammar says; failed attempts are told as they happen. Raises GatewayError."""
        providers = {target.provider: self._provider(target) for target in request.targets}
        if not providers:
            raise GatewayError(ErrorReason.ERROR_REASON_INVALID_REQUEST, "a request needs at least one target", {"param": "targets"})
        began = self._clock.monotonic()
        plan = Plan(request.targets, self._policy)
        while (target := plan.target) is not None:
            if plan.delay_s:
                await self._sleep(plan.delay_s)
            provider = providers[target.provider]
            answer = provider.backend.call(request.request, target.model, headers)
            async with Attempt(self._roster, provider, target, plan.number, answer, self._clock) as attempt:
                async for response in attempt.responses():
                    yield response
            if attempt.failure is None:
                return
            self._log(request.request_id, target, attempt.failure)
            if attempt.failure.kind is not Kind.UNSUPPORTED:
                yield pb.DispatchResponse(failed_attempts=[attempt.report(attempt.failure)])
            elapsed = self._clock.monotonic() - began
            plan.failed(attempt.failure, self._random(), None if remaining_s is None else remaining_s - elapsed)
        raise plan.error

    def _provider(self, target: pb.Target) -> Provider:
        provider = self._roster.find(target.provider)
        if provider is None:
            raise GatewayError(
                ErrorReason.ERROR_REASON_MODEL_NOT_FOUND, f"there is no provider {target.provider!r}", {"model": target.model}
            )
        return provider

    @staticmethod
    def _log(request_id: str, target: pb.Target, failure: Failure) -> None:
        log.info("attempt_failed", request_id=request_id, provider=target.provider, kind=failure.kind.name, summary=failure.summary)


class Attempt:
    """One call, from its start to its end, with the provider's figures kept. Entered around the use of `responses`.

    A breaker, hedging and limits per provider would stand around it.
    """

    def __init__(self, roster: Roster, provider: Provider, target: pb.Target, number: int, answer: Answer, clock: Clock) -> None:
        self._roster = roster
        self._provider = provider
        self._target = target
        self._number = number
        self._answer = answer
        self._clock = clock
        self._began = clock.monotonic()
        self._outcome: Literal["cancelled", "success", "failure", "rejected"] = "cancelled"
        # Why there was no first event.
        self.failure: Failure | None = None

    async def responses(self) -> AsyncIterator[pb.DispatchResponse]:
        """The answer. Ends at once with `failure` set when there is no first event. Raises GatewayError when it is cut after that."""
        is_selected = False
        is_last = False
        while not is_last:
            try:
                batch = await self._answer.read()
            except Failure as failure:
                self._fail(failure)
                if is_selected:
                    raise retry.cut(self._target.provider, failure) from None
                self.failure = failure
                return
            is_last = batch.is_last
            yield self._response(batch, is_first=not is_selected)
            is_selected = True

    def report(self, failure: Failure) -> pb.FailedAttempt:
        return pb.FailedAttempt(
            target=self._target,
            attempt=self._number,
            code=retry.status_code(failure),
            http_status=failure.http_status,
            message=failure.message,
            elapsed=duration(self._clock.monotonic() - self._began),
        )

    async def __aenter__(self) -> "Attempt":
        self._provider.figures.in_flight_count += 1
        return self

    async def __aexit__(self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None) -> None:
        self._provider.figures.in_flight_count -= 1
        self._provider.calls[self._outcome].inc()
        await self._answer.close()

    def _response(self, batch: Batch, *, is_first: bool) -> pb.DispatchResponse:
        elapsed = self._clock.monotonic() - self._began
        selected = finished = None
        if is_first:
            self._provider.figures.saw_first_event(elapsed)
            self._provider.first_event_seconds.observe(elapsed)
            selected = pb.SelectedTarget(
                target=self._target, attempt=self._number, time_to_first_event=duration(elapsed), warnings=self._answer.warnings
            )
        if batch.is_last:
            finished = pb.Finished(elapsed=duration(elapsed))
            self._succeed()
        return pb.DispatchResponse(selected=selected, events=batch.events, finished=finished)

    def _succeed(self) -> None:
        self._outcome = "success"
        was_healthy = self._provider.figures.is_healthy
        self._provider.figures.succeeded(self._clock.now())
        if not was_healthy:
            self._roster.touch()

    def _fail(self, failure: Failure) -> None:
        # A provider that refuses a bad request, or does not have a model, does its work.
        if retry.is_callers_fault(failure) or failure.http_status == 404 or failure.kind is Kind.UNSUPPORTED:
            self._outcome = "rejected"
            return
        self._outcome = "failure"
        was_healthy = self._provider.figures.is_healthy
        self._provider.figures.failed(failure.summary)
        if was_healthy != self._provider.figures.is_healthy:
            self._roster.touch()
