"""Circuit breakers: a model at a provider that keeps failing is left alone for a while, then tried with a few calls before all come back.

Closed, every call may go out. It opens after `failures` in a row, or when `failure_rate` of at least `minimum_calls` within the sliding
window failed: for `open_s` no call goes out. Then it is half-open by the passing of time alone: the next call that is wanted is the probe.
`probes` calls may be out at a time; as many successes close it, one failure opens it for a fresh `open_s`. That time does not grow: a dead
provider costs a call or two per `open_s`, and a longer one would only be spent on not noticing that it is back.

Pure: `now` is monotonic seconds. `begin` gives a ticket that comes back with the outcome, so that a call from before a change of state,
which may end minutes later, is counted but proves nothing about the state since.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

MAX_MODELS: Final = 256
MAX_HISTORY: Final = 32
# The window slides by this part of itself.
_SLICES: Final = 10


class State(IntEnum):
    """The numbers are those of the metric."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Change(NamedTuple):
    """When a breaker took on a state, in monotonic seconds."""

    time: float
    state: State


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When to open and for how long."""

    failures: int = 5
    failure_rate: float = 0.5
    minimum_calls: int = 20
    window_s: float = 60.0
    open_s: float = 30.0
    probes: int = 3


DEFAULT_POLICY: Final = BreakerPolicy()


class Breaker:
    """The breaker of one model at one provider."""

    __slots__ = (
        "_policy",
        "_probes_out",
        "_state",
        "_window",
        "call_count",
        "failure_count",
        "failures_in_a_row",
        "history",
        "last_failure_at",
        "last_success_at",
        "period",
        "probe_successes",
        "retry_at",
        "success_count",
    )

    def __init__(self, policy: BreakerPolicy = DEFAULT_POLICY) -> None:
        self._policy = policy
        # Counts the changes of state.
        self.period = 0
        self._start()

    def _start(self) -> None:
        self._state = State.CLOSED
        self._window = _Window(self._policy.window_s)
        self._probes_out = 0
        # Since it opened last.
        self.probe_successes = 0
        self.call_count = 0
        self.success_count = 0
        self.failure_count = 0
        self.failures_in_a_row = 0
        # When the first probe may go out; None while closed.
        self.retry_at: float | None = None
        self.last_failure_at: float | None = None
        self.last_success_at: float | None = None
        self.history: deque[Change] = deque(maxlen=MAX_HISTORY)

    def state(self, now: float) -> State:
        if self._state is State.OPEN and self._is_due(now):
            return State.HALF_OPEN
        return self._state

    def admits(self, now: float) -> bool:
        """Whether a call may go out."""
        if self._state is State.CLOSED:
            return True
        if self._state is State.OPEN:
            return self._is_due(now)
        return self._probes_out < self._policy.probes

    def begin(self, now: float) -> int:
        """Counts a call that goes out. Gives the ticket for its one outcome: `succeeded`, `failed` or `abandoned`."""
        self.call_count += 1
        if self._state is State.OPEN and self._is_due(now):
            self._become(State.HALF_OPEN, now)
            self._probes_out = 0
        if self._state is State.HALF_OPEN:
            self._probes_out += 1
        return self.period

    def succeeded(self, now: float, ticket: int | None = None) -> None:
        """Without a ticket: something other than a call, such as a health check, has shown it."""
        self.success_count += 1
        self.last_success_at = now
        if not self._returns(ticket):
            return
        self.failures_in_a_row = 0
        if self._state is State.CLOSED:
            self._window.add(now, is_failure=False)
        elif self._state is State.HALF_OPEN:
            self.probe_successes += 1
            if self.probe_successes >= self._policy.probes:
                self._window.clear()
                self.retry_at = None
                self._become(State.CLOSED, now)

    def failed(self, now: float, ticket: int | None = None) -> None:
        self.failure_count += 1
        self.last_failure_at = now
        if not self._returns(ticket):
            return
        self.failures_in_a_row += 1
        if self._state is State.CLOSED:
            self._window.add(now, is_failure=True)
        if self._state is State.HALF_OPEN or (self._state is State.CLOSED and self._is_too_much(now)):
            self.retry_at = now + self._policy.open_s
            self.probe_successes = 0
            self._become(State.OPEN, now)

    def abandoned(self, now: float, ticket: int | None = None) -> None:
        """The call ended without showing anything: left by the client, or refused for a fault of its own."""
        self._returns(ticket)

    def hasten(self, now: float) -> None:
        """Lets a probe go out now: something other than a call has shown that the provider can be reached again. It proves no more."""
        if self._state is State.OPEN and self.retry_at is not None:
            self.retry_at = min(self.retry_at, now)

    def reset(self) -> None:
        """Closed, and as new. Calls that are out still count, and change nothing."""
        self.period += 1
        self._start()

    def failure_rate(self, now: float) -> float:
        """Of the calls that ended within the window; 0 without any."""
        calls, failures = self._window.counts(now)
        return failures / calls if calls else 0.0

    def _is_due(self, now: float) -> bool:
        return self.retry_at is not None and now >= self.retry_at

    def _is_too_much(self, now: float) -> bool:
        policy = self._policy
        if self.failures_in_a_row >= policy.failures:
            return True
        calls, failures = self._window.counts(now)
        return calls >= policy.minimum_calls and failures >= policy.failure_rate * calls

    def _returns(self, ticket: int | None) -> bool:
        """Takes a ticket back; whether what it stands for says something about the present state."""
        if ticket is None:
            return True
        if ticket != self.period:
            return False
        if self._state is State.HALF_OPEN:
            self._probes_out -= 1
        return True

    def _become(self, state: State, now: float) -> None:
        self._state = state
        self.period += 1
        self.history.append(Change(now, state))


class _Window:
    """Calls and failures of the last seconds, in slices that are forgotten one by one: constant work and size at any rate."""

    __slots__ = ("_calls", "_failures", "_newest", "_slice_s")

    def __init__(self, window_s: float) -> None:
        self._slice_s = window_s / _SLICES
        self._newest = 0
        self.clear()

    def clear(self) -> None:
        self._calls = [0] * _SLICES
        self._failures = [0] * _SLICES

    def add(self, now: float, *, is_failure: bool) -> None:
        self._slide(now)
        place = self._newest % _SLICES
        self._calls[place] += 1
        self._failures[place] += is_failure

    def counts(self, now: float) -> tuple[int, int]:
        self._slide(now)
        return sum(self._calls), sum(self._failures)

    def _slide(self, now: float) -> None:
        index = int(now / self._slice_s)
        if index == self._newest:
            return
        for passed in range(max(self._newest, index - _SLICES) + 1, index + 1):
            self._calls[passed % _SLICES] = self._failures[passed % _SLICES] = 0
        self._newest = max(self._newest, index)


class Breakers:
    """The breakers of one provider, by model. Clients may name any model: beyond a bound the one not used for longest is forgotten."""

    def __init__(self, policy: BreakerPolicy = DEFAULT_POLICY) -> None:
        self.policy = policy
        self._by_model: dict[str, Breaker] = {}

    def __iter__(self) -> Iterator[tuple[str, Breaker]]:
        return iter(list(self._by_model.items()))

    def of(self, model: str) -> Breaker:
        """The breaker for a call of this model."""
        breaker = self._by_model.pop(model, None)
        if breaker is None:
            breaker = Breaker(self.policy)
            if len(self._by_model) >= MAX_MODELS:
                del self._by_model[next(iter(self._by_model))]
        self._by_model[model] = breaker
        return breaker

    def find(self, model: str) -> Breaker | None:
        """The breaker of a model that has been called; None for others."""
        return self._by_model.get(model)
