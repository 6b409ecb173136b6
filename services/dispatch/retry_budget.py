"""How many repeats all requests together may make: a share of the requests, so that retries never multiply an outage.

The rule is Finagle's and linkerd's retry budget (Twitter's Finagle, `RetryBudget`; linkerd, "Retry Budgets"): each request deposits `share`
of a token, each repeat of a call on the same target costs one, and a floor per second keeps repeats possible when there are few requests.
They let a deposit expire after ten seconds; here the whole balance decays with that time constant: one number instead of a list.

    balance(t + dt) = rest + (balance(t) - rest) * exp(-dt / 10 s),   rest = floor per second * 10 s

It starts at rest. Decay only takes away, so within any time t: repeats <= share * requests + floor per second * (t + 10 s).
Moving on to the next target is no repeat and costs nothing: the circuit breakers end that.
"""

import math
from typing import Final

DECAY_S: Final = 10.0


class RetryBudget:
    """Pure: `now` is monotonic seconds."""

    __slots__ = ("_balance", "_rest", "_settled_at", "_share")

    def __init__(self, share: float, floor_per_s: float) -> None:
        self._share = share
        self._rest = floor_per_s * DECAY_S
        self._balance = self._rest
        self._settled_at: float | None = None

    def deposit(self, now: float) -> None:
        """Counts a request."""
        self._settle(now)
        self._balance += self._share

    def take(self, now: float) -> bool:
        """Pays for a repeat; whether there was enough."""
        self._settle(now)
        if self._balance < 1.0:
            return False
        self._balance -= 1.0
        return True

    def _settle(self, now: float) -> None:
        if self._settled_at is not None:
            self._balance = self._rest + (self._balance - self._rest) * math.exp((self._settled_at - now) / DECAY_S)
        self._settled_at = now
