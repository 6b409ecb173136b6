"""The targets of a request, in order, until one gives its first event; then that one only.

Everything before the first event may be tried again, for nobody has seen anything yet. After it nothing is: two halves of two answers are
no answer.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from functools import partial

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch.admission import withheld
from services.dispatch.attempt import Attempt
from services.dispatch.failure import CALLLESS, Failure
from services.dispatch.plan import Plan
from services.dispatch.retry import RetryPolicy
from services.dispatch.retry_budget import RetryBudget
from services.dispatch.roster import Provider, Roster
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
        self._retry_budget = RetryBudget(policy.budget, policy.budget_floor_per_s)
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
        self._retry_budget.deposit(began)
        plan = Plan(request.targets, self._policy)
        while (target := plan.target) is not None:
            provider = providers[target.provider]
            refusal = await self._refusal(plan, provider, target.model)
            if refusal is not None:
                plan.passed_over(refusal)
                continue
            answer = provider.backend.call(request.request, target.model, headers)
            async with Attempt(self._roster, provider, target, plan.begin(), answer, self._clock) as attempt:
                async for response in attempt.responses():
                    yield response
            if attempt.failure is None:
                return
            self._log(request.request_id, target, attempt.failure)
            if attempt.failure.kind not in CALLLESS:
                yield pb.DispatchResponse(failed_attempts=[attempt.report(attempt.failure)])
            elapsed = self._clock.monotonic() - began
            left_s = None if remaining_s is None else remaining_s - elapsed
            plan.failed(attempt.failure, self._random(), left_s, partial(self._may_repeat, provider, target.model))
        raise plan.error

    async def _refusal(self, plan: Plan, provider: Provider, model: str) -> Failure | None:
        """Waits as long as the plan says; why the call must not go out then, None when it may."""
        refusal = withheld(provider, model, self._clock.monotonic())
        if refusal is None and plan.delay_s:
            await self._sleep(plan.delay_s)
            refusal = withheld(provider, model, self._clock.monotonic())
        return refusal

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
    def _log(request_id: str, target: pb.Target, failure: Failure) -> None:
        log.info("attempt_failed", request_id=request_id, provider=target.provider, kind=failure.kind.name, summary=failure.summary)
