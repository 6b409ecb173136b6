"""Circuit breakers as they are shown: typed, and as the JSON of earlier gateways, which knew one breaker for a whole provider. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from joulegate.ops.v1 import breaker_pb2
from services.dispatch.breaker import MAX_HISTORY, Breaker, Breakers, State

STATES: Final = {
    State.CLOSED: breaker_pb2.BREAKER_STATE_CLOSED,
    State.HALF_OPEN: breaker_pb2.BREAKER_STATE_HALF_OPEN,
    State.OPEN: breaker_pb2.BREAKER_STATE_OPEN,
}
_SNAKE: Final = {State.CLOSED: "closed", State.HALF_OPEN: "half_open", State.OPEN: "open"}
_KEBAB: Final = {State.CLOSED: "closed", State.HALF_OPEN: "half-open", State.OPEN: "open"}


@dataclass(frozen=True, slots=True)
class Moment:
    """Now on both clocks: monotonic seconds, and seconds since 1970-01-01 UTC."""

    monotonic: float
    time: float

    def time_of(self, monotonic: float) -> float:
        """What the clock on the wall said, or will say, then."""
        return self.time + monotonic - self.monotonic


def by_model(breakers: Breakers) -> list[tuple[str, Breaker]]:
    """In the order of the models' names."""
    return sorted(breakers, key=lambda named: named[0])


def worst_state(breakers: Breakers, now: float) -> State | None:
    """Of all models; None while none has been called."""
    return max((breaker.state(now) for _, breaker in breakers), default=None)


def message(provider: str, model: str, breaker: Breaker, at: Moment, *, with_history: bool = False) -> breaker_pb2.Breaker:
    """The typed form."""
    history = breaker.history if with_history else ()
    return breaker_pb2.Breaker(
        provider=provider,
        model=model,
        state=STATES[breaker.state(at.monotonic)],
        call_count=breaker.call_count,
        success_count=breaker.success_count,
        failure_count=breaker.failure_count,
        consecutive_failure_count=breaker.failures_in_a_row,
        failure_rate=breaker.failure_rate(at.monotonic),
        last_success_time=_timestamp(breaker.last_success_at, at),
        last_failure_time=_timestamp(breaker.last_failure_at, at),
        retry_time=_timestamp(breaker.retry_at, at),
        history=[breaker_pb2.BreakerChange(time=_timestamp(time, at), state=STATES[state]) for time, state in history],
    )


def administered(breakers: Breakers, at: Moment) -> dict[str, Any]:
    """`GET /admin/providers/{provider}/circuit-breaker`. Times are seconds since 1970-01-01 UTC."""
    each = by_model(breakers)
    successes, failures = sum(breaker.success_count for _, breaker in each), sum(breaker.failure_count for _, breaker in each)
    last_failure_at = _last(breaker.last_failure_at for _, breaker in each)
    last_success_at = _last(breaker.last_success_at for _, breaker in each)
    return {
        "state": _SNAKE[worst_state(breakers, at.monotonic) or State.CLOSED],
        "total_calls": sum(breaker.call_count for _, breaker in each),
        "total_successes": successes,
        "total_failures": failures,
        "failure_count": _in_a_row(breakers),
        "success_count": sum(breaker.probe_successes for _, breaker in each if breaker.state(at.monotonic) is State.HALF_OPEN),
        "failure_rate": failures / (successes + failures) if successes + failures else 0.0,
        "last_failure_time": _time(last_failure_at, at),
        "last_success_time": _time(last_success_at, at),
        "time_since_last_failure": None if last_failure_at is None else at.monotonic - last_failure_at,
        "recovery_timeout": breakers.policy.open_s,
        "history": _history(breakers, at),
        "models": {model: _SNAKE[breaker.state(at.monotonic)] for model, breaker in each},
    }


def listed(breakers: Breakers, at: Moment) -> dict[str, Any]:
    """A member of `GET /api/circuit-breakers`. The time is in milliseconds since 1970-01-01 UTC."""
    last_failure_at = _last(breaker.last_failure_at for _, breaker in breakers)
    return {
        "state": _KEBAB[worst_state(breakers, at.monotonic) or State.CLOSED],
        "failureCount": _in_a_row(breakers),
        "lastFailureTime": None if last_failure_at is None else round(at.time_of(last_failure_at) * 1000),
    }


def _in_a_row(breakers: Breakers) -> int:
    """Of the model that has most: opening is what these failures count towards, and each model opens for itself."""
    return max((breaker.failures_in_a_row for _, breaker in breakers), default=0)


def _history(breakers: Breakers, at: Moment) -> list[dict[str, Any]]:
    changes = [(time, model, state) for model, breaker in breakers for time, state in breaker.history]
    return [{"time": at.time_of(time), "model": model, "state": _SNAKE[state]} for time, model, state in sorted(changes)[-MAX_HISTORY:]]


def _last(times: Iterable[float | None]) -> float | None:
    return max((time for time in times if time is not None), default=None)


def _time(monotonic: float | None, at: Moment) -> float | None:
    return None if monotonic is None else at.time_of(monotonic)


def _timestamp(monotonic: float | None, at: Moment) -> Timestamp | None:
    if monotonic is None:
        return None
    timestamp = Timestamp()
    timestamp.FromMicroseconds(round(at.time_of(monotonic) * 1e6))
    return timestamp
