"""Which target is called next, and when: the course of one request through its targets."""

from collections.abc import Sequence

from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch import retry
from services.dispatch.failure import Failure
from services.dispatch.retry import Again, RetryPolicy, Stop
from services.runtime.errors import GatewayError


class Plan:
    """Starts at the first target; each failure moves it. Without a target left, `error` says what to tell the caller."""

    def __init__(self, targets: Sequence[pb.Target], policy: RetryPolicy) -> None:
        self._left = list(reversed(targets))
        self._policy = policy
        self._tries = 1
        self._last_failures: list[tuple[str, Failure]] = []
        self._error: GatewayError | None = None
        # Counts all calls of the request.
        self.number = 1
        # How long to wait before the call.
        self.delay_s = 0.0

    @property
    def target(self) -> pb.Target | None:
        """To be called next; None when it is over."""
        return self._left[-1] if self._left else None

    @property
    def error(self) -> GatewayError:
        return self._error or retry.exhausted(self._last_failures)

    def failed(self, failure: Failure, jitter: float, remaining_s: float | None) -> None:
        """Notes that the call to `target` failed."""
        decision = retry.decide(failure, self._tries, self._policy, jitter, remaining_s)
        self.number += 1
        if isinstance(decision, Again):
            self._tries += 1
            self.delay_s = decision.delay_s
            return
        provider = self._left.pop().provider
        self._last_failures.append((provider, failure))
        self._tries, self.delay_s = 1, 0.0
        if isinstance(decision, Stop):
            self._left.clear()
            self._error = retry.rejected(provider, failure)
