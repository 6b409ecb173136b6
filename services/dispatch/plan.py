"""Which target is called next, and when: the course of one request through its targets."""

import math
from collections.abc import Callable, Iterator, Sequence

from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch import retry
from services.dispatch.failure import CALLLESS, Failure
from services.dispatch.retry import Again, RetryPolicy, Stop
from services.runtime.errors import GatewayError


class Plan:
    """Starts at the first target; each failure moves it. Without a target left, `error` says what to tell the caller."""

    def __init__(self, targets: Sequence[pb.Target], policy: RetryPolicy, max_calls: int = 0) -> None:
        self._left = list(reversed(targets))
        self._policy = policy
        self._tries = 1
        # Of the present target, while it is repeated.
        self._failure: Failure | None = None
        self._last_failures: list[tuple[str, Failure]] = []
        self._error: GatewayError | None = None
        self._calls = 0
        # That providers may bill.
        self._calls_left: float = max_calls or math.inf
        # How long to wait before the call.
        self.delay_s = 0.0

    @property
    def target(self) -> pb.Target | None:
        """To be called next; None when it is over."""
        return self._left[-1] if self._left and self._calls_left > 0 else None

    @property
    def error(self) -> GatewayError:
        return self._error or retry.exhausted(self._last_failures)

    @property
    def goes_without_saying(self) -> bool:
        """Whether the next call is what anybody expects: the first one, to the first target."""
        return self._calls == 0 and not self._last_failures

    def rivals(self) -> Iterator[pb.Target]:
        """The targets after the present one that are at another provider, in order; none when no call is left for them."""
        if self._calls_left <= 0:
            return iter(())
        present = self._left[-1].provider
        return (target for target in self._left[-2::-1] if target.provider != present)

    def set_apart(self, rival: pb.Target) -> None:
        """Takes out a target that is called beside the present one: it has its one call."""
        self._left = [target for target in self._left if target is not rival]

    def begin(self) -> int:
        """Counts a call that goes out; gives its number over all calls of the request."""
        self._calls += 1
        self._calls_left -= 1
        return self._calls

    def passed_over(self, failure: Failure) -> None:
        """Notes that `target` was not called."""
        self._move_on(failure)

    def failed(self, target: pb.Target, failure: Failure, jitter: float, remaining_s: float | None, may_repeat: Callable[[], bool]) -> None:
        """Notes that the call to the present target, or to one set apart, failed. `may_repeat` pays for a repeat, if it says yes."""
        if failure.kind in CALLLESS:
            self._calls -= 1
        if not retry.may_be_billed(failure):
            self._calls_left += 1
        decision = retry.decide(failure, self._tries, self._policy, jitter, remaining_s)
        if isinstance(decision, Stop):
            self._left.clear()
            self._error = retry.rejected(target.provider, failure)
        elif not self._left or target is not self._left[-1]:
            self._last_failures.append((target.provider, failure))
        elif isinstance(decision, Again) and self._calls_left > 0 and may_repeat():
            self._tries += 1
            self._failure = failure
            self.delay_s = decision.delay_s
        else:
            self._move_on(failure)

    def _move_on(self, failure: Failure) -> None:
        if failure.kind in CALLLESS and self._failure is not None:
            # What it said when it was called is the better account.
            failure = self._failure
        self._last_failures.append((self._left.pop().provider, failure))
        self._tries, self.delay_s, self._failure = 1, 0.0, None
