"""Live figures: of a provider as a whole, for people, and of each of its models, for choosing where the next call goes.

A model's latency is kept as finagle does (peak-EWMA): it rises to a slow call at once and comes down over ten seconds, by faster calls and
by time alone, so that who was slow is tried again. An error counts as if the provider had taken all the time it may: else who fails at once
would be the fastest. Whole answers are timed apart from streams, since their first event is their last.

Pure: `now` is monotonic seconds. Per event of a stream nothing happens here; per call a few additions.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import exp, log
from typing import Final

# Failures in a row after which calls are no longer expected to succeed.
UNHEALTHY_AFTER = 3
# Weight of the newest call in the moving averages.
WEIGHT = 0.2
# Seconds over which a peak comes down.
PEAK_TAU_S: Final = 10.0
# Seconds over which successes and failures are forgotten.
ODDS_TAU_S: Final = 60.0
# What is believed of a model before anything is known: so many successes and failures.
_BELIEVED_SUCCESSES: Final = 20.0
_BELIEVED_FAILURES: Final = 1.0
MAX_MODELS: Final = 256
TIMEOUT_S: Final = 10.0


class Quantile:
    """An upper quantile of times, of the last few hundred: counts in buckets a tenth apart that are halved now and then."""

    __slots__ = ("_counts", "_total")

    _LEAST_S: Final = 0.001
    _STEP: Final = log(1.1)
    _BUCKETS: Final = 140  # up to ten minutes
    _HALVED_AT: Final = 400
    _ENOUGH: Final = 20

    def __init__(self) -> None:
        self._counts = [0] * self._BUCKETS
        self._total = 0

    def add(self, seconds: float) -> None:
        place = int(log(seconds / self._LEAST_S) / self._STEP) if seconds > self._LEAST_S else 0
        self._counts[min(place, self._BUCKETS - 1)] += 1
        self._total += 1
        if self._total >= self._HALVED_AT:
            self._counts = [count // 2 for count in self._counts]
            self._total = sum(self._counts)

    def value_s(self, share: float) -> float | None:
        """A time, a tenth too long at most, that this share of calls does not exceed; None before there are enough."""
        if self._total < self._ENOUGH:
            return None
        left = share * self._total
        for place, count in enumerate(self._counts):
            left -= count
            if left <= 0:
                return self._LEAST_S * exp(self._STEP * (place + 1))
        return None


class Latency:
    """The time to the first event of one kind of call."""

    __slots__ = ("_peak_at", "_peak_s", "_quantile", "average_s")

    def __init__(self) -> None:
        # Moving average over successes; None before the first.
        self.average_s: float | None = None
        self._peak_s: float | None = None
        self._peak_at = 0.0
        self._quantile: Quantile | None = None

    def peak_s(self, now: float) -> float | None:
        """The peak-EWMA; None before the first call ended."""
        if self._peak_s is None:
            return None
        return self._peak_s * exp(min(0.0, self._peak_at - now) / PEAK_TAU_S)

    def p95_s(self) -> float | None:
        return None if self._quantile is None else self._quantile.value_s(0.95)

    def took(self, now: float, seconds: float) -> None:
        """A call that had its first event after so long."""
        average = self.average_s
        self.average_s = seconds if average is None else average + WEIGHT * (seconds - average)
        if self._quantile is None:
            self._quantile = Quantile()
        self._quantile.add(seconds)
        self._observe(now, seconds)

    def failed(self, now: float, timeout_s: float) -> None:
        self._observe(now, timeout_s)

    def _observe(self, now: float, seconds: float) -> None:
        kept = exp(min(0.0, self._peak_at - now) / PEAK_TAU_S)
        if self._peak_s is None or seconds >= self._peak_s * kept:
            self._peak_s = seconds
        else:
            self._peak_s = self._peak_s * kept + seconds * (1.0 - kept)
        self._peak_at = now


class ModelFigures:
    """The figures of one model at a provider; what happens to it is counted for the provider too."""

    __slots__ = (
        "_at",
        "_failures",
        "_provider",
        "_successes",
        "between_tokens_s",
        "in_flight_count",
        "streamed",
        "version",
        "whole",
    )

    def __init__(self, provider: "Figures") -> None:
        self._provider = provider
        self.in_flight_count = 0
        self.streamed = Latency()
        self.whole = Latency()
        # Moving average over successes; None before the first stream.
        self.between_tokens_s: float | None = None
        self._successes = 0.0
        self._failures = 0.0
        self._at = 0.0
        # Changes with every change.
        self.version = 0

    @property
    def first_event_s(self) -> float | None:
        """Of streams, or of whole answers where there was no stream."""
        return self.whole.average_s if self.streamed.average_s is None else self.streamed.average_s

    def peak_s(self, now: float) -> float | None:
        """Of streams, or of whole answers where there was no stream."""
        peak_s = self.streamed.peak_s(now)
        return self.whole.peak_s(now) if peak_s is None else peak_s

    def first_event_p95_s(self) -> float | None:
        """Of streams; None before there were enough."""
        return self.streamed.p95_s()

    def success_odds(self, now: float) -> float:
        """Successes for each failure lately, and what was believed before any."""
        kept = exp(min(0.0, self._at - now) / ODDS_TAU_S)
        return (self._successes * kept + _BELIEVED_SUCCESSES) / (self._failures * kept + _BELIEVED_FAILURES)

    def began(self) -> None:
        self.in_flight_count += 1
        self._provider.in_flight_count += 1
        self._changed()

    def ended(self) -> None:
        self.in_flight_count -= 1
        self._provider.in_flight_count -= 1
        self._changed()

    def saw_first_event(self, now: float, after_s: float, *, is_whole: bool) -> None:
        self._provider.saw_first_event(after_s)
        (self.whole if is_whole else self.streamed).took(now, after_s)
        self._changed()

    def overtaken(self, now: float, after_s: float, *, is_whole: bool) -> None:
        """A call that was broken off without an event: it would have taken longer still. Else who is always overtaken would seem quick."""
        (self.whole if is_whole else self.streamed).failed(now, after_s)
        self._changed()

    def streamed_tokens(self, count: int, over_s: float) -> None:
        """A stream of so many tokens that took so long after its first."""
        if count < 2:
            return
        between_s, average = over_s / (count - 1), self.between_tokens_s
        self.between_tokens_s = between_s if average is None else average + WEIGHT * (between_s - average)

    def succeeded(self, now: float, time: float) -> None:
        """`time` is seconds since 1970."""
        self._provider.succeeded(time)
        self._forget(now)
        self._successes += 1

    def failed(self, now: float, message: str) -> None:
        self._provider.failed(message)
        self._forget(now)
        self._failures += 1
        self.streamed.failed(now, self._provider.timeout_s)
        self.whole.failed(now, self._provider.timeout_s)
        self._changed()

    def _forget(self, now: float) -> None:
        kept = exp(min(0.0, self._at - now) / ODDS_TAU_S)
        self._successes *= kept
        self._failures *= kept
        self._at = now

    def _changed(self) -> None:
        self.version += 1
        self._provider.version += 1


@dataclass(slots=True)
class Figures:
    """Counts and averages of a provider since the start, and the figures of its models."""

    success_count: int = 0
    failure_count: int = 0
    in_flight_count: int = 0
    failures_in_a_row: int = 0
    first_event_s: float | None = None
    last_success_time: float | None = None
    last_error: str = ""
    # What an error costs in the latency of a model.
    timeout_s: float = TIMEOUT_S
    # Changes with every change of a model's figures.
    version: int = 0
    # Of all calls, for people.
    first_event: Quantile = field(default_factory=Quantile)
    _by_model: dict[str, ModelFigures] = field(default_factory=dict)

    def of(self, model: str) -> ModelFigures:
        """A model's figures. Clients may name any model: beyond a bound the one not called for longest is forgotten."""
        figures = self._by_model.pop(model, None)
        if figures is None:
            figures = ModelFigures(self)
            if len(self._by_model) >= MAX_MODELS:
                del self._by_model[next(iter(self._by_model))]
        self._by_model[model] = figures
        return figures

    def models(self) -> Iterator[tuple[str, ModelFigures]]:
        """Those that have been called."""
        return iter(list(self._by_model.items()))

    @property
    def is_healthy(self) -> bool:
        return self.failures_in_a_row < UNHEALTHY_AFTER

    def saw_first_event(self, after_s: float) -> None:
        average = self.first_event_s
        self.first_event_s = after_s if average is None else average + WEIGHT * (after_s - average)
        self.first_event.add(after_s)

    def succeeded(self, now: float) -> None:
        self.success_count += 1
        self.failures_in_a_row = 0
        self.last_success_time = now

    def failed(self, message: str) -> None:
        self.failure_count += 1
        self.failures_in_a_row += 1
        self.last_error = message
