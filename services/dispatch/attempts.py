"""The targets of a request, in order, until one gives its first event; then that one only.

Everything before the first event may be tried again, for nobody has seen anything yet. After it nothing is: two halves of two answers are
no answer.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch import hedging
from services.dispatch.admission import withheld
from services.dispatch.attempt import Attempt
from services.dispatch.hedging import HedgeBudget
from services.dispatch.plan import Plan
from services.dispatch.race import Race
from services.dispatch.retry import RetryPolicy
from services.dispatch.retry_budget import RetryBudget
from services.dispatch.roster import Provider, Roster
from services.runtime import logs
from services.runtime.clock import Clock
from services.runtime.errors import GatewayError
from services.runtime.own_cpu import NO_CPU, OwnCpu

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
        own_cpu: OwnCpu = NO_CPU,
    ) -> None:
        self._roster = roster
        self._policy = policy
        self._retry_budget = RetryBudget(policy.budget, policy.budget_floor_per_s)
        self._hedge_budget = HedgeBudget()
        self._clock = clock
        self._random = random
        self._sleep = sleep
        self._own_cpu = own_cpu

    async def dispatch(
        self, request: pb.DispatchRequest, headers: Mapping[str, str], remaining_s: float | None
    ) -> AsyncGenerator[pb.DispatchResponse, None]:
        """The responses, as their grammar says; attempts are told as they happen. Raises GatewayError."""
        course = self._course(request, headers)
        plan, began = course.plan, self._clock.monotonic()
        self._retry_budget.deposit(began)
        self._hedge_budget.deposit()
        while (target := plan.target) is not None:
            provider = course.providers[target.provider]
            refusal = withheld(provider, target.model, self._clock.monotonic())
            if refusal is None and plan.delay_s:
                await self._sleep(plan.delay_s)
                refusal = withheld(provider, target.model, self._clock.monotonic())
            if refusal is not None:
                plan.passed_over(refusal)
                continue
            goes_without_saying = plan.goes_without_saying
            attempt = self._attempt(course, target)
            contest = self._contest(course, attempt)
            try:
                contest.begin()
                if not goes_without_saying:
                    yield pb.DispatchResponse(begun_attempts=[attempt.begun])
                while not contest.is_over:
                    response = await contest.read()
                    if response.HasField("finished"):
                        response.finished.cpu_nanos = self._own_cpu.take_ns()
                    yield response
            finally:
                await contest.close()
            for failed in contest.failed:
                self._log(request.request_id, failed)
            if contest.is_won:
                return
            elapsed = self._clock.monotonic() - began
            self._note(course, contest.failed, None if remaining_s is None else remaining_s - elapsed)
        raise plan.error

    def _course(self, request: pb.DispatchRequest, headers: Mapping[str, str]) -> "_Course":
        providers = {target.provider: self._provider(target) for target in request.targets}
        if not providers:
            raise GatewayError(ErrorReason.ERROR_REASON_INVALID_REQUEST, "a request needs at least one target", {"param": "targets"})
        return _Course(request, headers, providers, Plan(request.targets, self._policy, request.max_calls))

    def _attempt(self, course: "_Course", target: pb.Target) -> Attempt:
        provider = course.providers[target.provider]
        answer = provider.backend.call(course.request.request, target.model, course.headers)
        return Attempt(self._roster, provider, target, course.plan.begin(), answer, self._clock, course.request.request)

    def _contest(self, course: "_Course", attempt: Attempt) -> Attempt | Race:
        """The attempt alone, or with a second one that may come to its side: once for a request."""
        if course.is_hedged or not course.request.HasField("hedge"):
            return attempt
        target = attempt.target
        after_s = hedging.delay_s(course.request, course.providers[target.provider].figures.of(target.model))
        if after_s is None:
            return attempt
        return Race(attempt, after_s, partial(self._rival, course), is_whole=not course.request.request.stream)

    def _rival(self, course: "_Course") -> Attempt | None:
        """A call of the next provider that may be called, if one is left and the budget allows it."""
        now = self._clock.monotonic()
        for target in course.plan.rivals():
            if withheld(course.providers[target.provider], target.model, now) is None:
                if not self._hedge_budget.take():
                    return None
                course.is_hedged = True
                course.plan.set_apart(target)
                return self._attempt(course, target)
        return None

    def _note(self, course: "_Course", failed: Sequence[Attempt], remaining_s: float | None) -> None:
        for attempt in failed:
            target, failure = attempt.target, attempt.failure
            assert failure is not None
            may_repeat = partial(self._may_repeat, course.providers[target.provider], target.model)
            course.plan.failed(target, failure, self._random(), remaining_s, may_repeat)

    def _may_repeat(self, provider: Provider, model: str) -> bool:
        """Pays for a repeat, unless it could not go out anyway."""
        now = self._clock.monotonic()
        return withheld(provider, model, now) is None and self._retry_budget.take(now)

    def _provider(self, target: pb.Target) -> Provider:
        provider = self._roster.find(target.provider)
        if provider is None:
            raise GatewayError(
                ErrorReason.ERROR_REASON_MODEL_NOT_FOUND, f"there is no provider {target.provider!r}", {"model": target.model}
            )
        return provider

    @staticmethod
    def _log(request_id: str, attempt: Attempt) -> None:
        failure = attempt.failure
        assert failure is not None
        provider = attempt.target.provider
        log.info("attempt_failed", request_id=request_id, provider=provider, kind=failure.kind.name, summary=failure.summary)


@dataclass(slots=True)
class _Course:
    """One request on its way through its targets."""

    request: pb.DispatchRequest
    headers: Mapping[str, str]
    providers: Mapping[str, Provider]
    plan: Plan
    is_hedged: bool = False
