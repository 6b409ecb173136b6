"""How fast and how busy each model at each provider is, as far as this router knows: what dispatch last told, and what was begun since.

What dispatch tells is a moment old. Were that all there is, every request of that moment would go to the same provider; so each router adds
its own calls since. Pure: `now` is monotonic seconds.
"""

from collections.abc import Iterable, Sequence
from math import exp
from typing import Final, Protocol

from google.protobuf.duration_pb2 import Duration

from joulegate.dispatch.v1 import dispatch_service_pb2 as pb

# As dispatch lets peaks come down.
PEAK_TAU_S: Final = 10.0
# What a model at a provider is taken to need before any call of it ended, once one is out: the first one finds out.
UNKNOWN_S: Final = 1.0
MAX_IDLE: Final = 4096
# So many calls at a time double what one takes. A guess that only has to be of the right size: what is measured afterwards corrects it.
ROOM: Final = 16.0
# So many times the average is what 95 % of answers do not exceed, about.
TAIL: Final = 2.0
# What dispatch believes of a model before anything is known.
BELIEVED_FAILURE_ODDS: Final = 1.0 / 20.0


class Live:
    """One model at one provider."""

    __slots__ = (
        "_averages",
        "_others_count",
        "_own_count",
        "_p95s",
        "_peaks",
        "_withheld_until",
        "between_tokens_s",
        "failure_odds",
        "told",
        "told_at",
    )

    def __init__(self) -> None:
        self._own_count = 0
        self.tell(None, 0.0)

    @property
    def is_idle(self) -> bool:
        return self.told is None and self._own_count == 0

    @property
    def in_flight_count(self) -> int:
        """Calls that are out: those told, and this router's since."""
        return self._own_count + self._others_count

    def tell(self, figures: pb.ModelFigures | None, now: float) -> None:
        """Takes in what dispatch says. Read once here, for each request looks at it."""
        # The figures as dispatch told them; None before any call.
        self.told = figures
        self.told_at = now
        # What dispatch counts beyond the calls of this router at that moment, which come and go since.
        self._others_count = 0 if figures is None else max(0, figures.in_flight_count - self._own_count)
        # By whether the answer is streamed; of the other kind, where there is none of this one.
        self._averages: tuple[float | None, float | None] = (None, None)
        self._peaks: tuple[float | None, float | None] = (None, None)
        self._p95s: tuple[float | None, float | None] = (None, None)
        # Of a stream; None before one ended.
        self.between_tokens_s: float | None = None
        # Failures for each success.
        self.failure_odds = BELIEVED_FAILURE_ODDS
        self._withheld_until = 0.0
        if figures is None:
            return
        self._averages = _by_kind(figures, "time_to_answer", "time_to_first_event")
        self._peaks = _by_kind(figures, "peak_time_to_answer", "peak_time_to_first_event")
        self._p95s = _by_kind(figures, "time_to_answer_p95", "time_to_first_event_p95")
        self.between_tokens_s = _given(figures, "time_between_tokens")
        if figures.success_odds > 0:
            self.failure_odds = 1.0 / figures.success_odds
        if figures.HasField("retry_after"):
            self._withheld_until = now + _seconds(figures.retry_after)

    def began(self) -> None:
        self._own_count += 1

    def ended(self) -> None:
        self._own_count -= 1

    def withheld_s(self, now: float) -> float:
        """For how long no call goes out; 0 when calls do."""
        return max(0.0, self._withheld_until - now)

    def peak_s(self, now: float, *, streamed: bool) -> float | None:
        """The peak time to the first event of such an answer; None before any call ended."""
        peak_s = self._peaks[streamed]
        return None if peak_s is None else peak_s * exp(min(0.0, self.told_at - now) / PEAK_TAU_S)

    def average_s(self, *, streamed: bool) -> float | None:
        """The average time to the first event of such an answer; None before the first one."""
        return self._averages[streamed]

    def p95_s(self, *, streamed: bool) -> float | None:
        """What 95 % of such times do not exceed: as measured or, before there were enough, as times usually vary. None before the first."""
        p95_s = self._p95s[streamed]
        if p95_s is not None:
            return p95_s
        average_s = self._averages[streamed]
        return None if average_s is None else TAIL * average_s

    def expected_s(self, now: float, *, streamed: bool) -> float | None:
        """The time to the first event that a call begun now may expect: a failure costs a peak, and calls that are out slow each other
        down. None before the first answer."""
        average_s = self._averages[streamed]
        if average_s is None:
            return None
        peak_s = self._peaks[streamed]
        if peak_s is not None:
            average_s += self.failure_odds * peak_s * exp(min(0.0, self.told_at - now) / PEAK_TAU_S)
        return average_s * (1.0 + (self._own_count + self._others_count) / ROOM)

    def cost_s(self, now: float, *, streamed: bool) -> float:
        """What the next call may have to wait: the peak time for each call that is out and the next. Nothing where nobody has tried yet."""
        peak_s = self.peak_s(now, streamed=streamed)
        if peak_s is None:
            return UNKNOWN_S * self.in_flight_count
        return peak_s * (self.in_flight_count + 1)


class Load:
    """All of them, by provider and model."""

    def __init__(self) -> None:
        self._live: dict[tuple[str, str], Live] = {}
        # Counts how often some were forgotten: whoever keeps one that is not told any more has to ask again.
        self.epoch = 0

    def of(self, provider: str, model: str) -> Live:
        live = self._live.get((provider, model))
        if live is None:
            live = self._live[provider, model] = Live()
            if len(self._live) > MAX_IDLE:
                self._forget_idle(live)
        return live

    def tell(self, figures: Iterable[pb.ModelFigures], now: float, *, is_whole: bool) -> None:
        """Takes in what dispatch told. With the whole state, what it does not name has no figures."""
        if is_whole:
            for live in self._live.values():
                live.tell(None, now)
        for one in figures:
            self.of(one.provider, one.model).tell(one, now)

    def _forget_idle(self, but: Live) -> None:
        """Clients may name any model."""
        self.epoch += 1
        self._live = {key: live for key, live in self._live.items() if live is but or not live.is_idle}


class Placed(Protocol):
    """A candidate, as far as its load goes."""

    @property
    def target(self) -> tuple[str, str]: ...

    @property
    def live(self) -> Live: ...


class Place:
    """Where one request is counted until it leaves: at the candidate that is tried first, then at the one that answers."""

    def __init__(self, ranked: Sequence["Placed"]) -> None:
        self._ranked = ranked
        self._live = ranked[0].live
        self._live.began()

    def move(self, provider: str, model: str) -> None:
        for candidate in self._ranked:
            if candidate.target == (provider, model):
                self._live.ended()
                self._live = candidate.live
                self._live.began()
                return

    def leave(self) -> None:
        self._live.ended()


def _by_kind(figures: pb.ModelFigures, whole_field: str, stream_field: str) -> tuple[float | None, float | None]:
    """By whether the answer is streamed; of the other kind, where there is none of this one."""
    whole, stream = _given(figures, whole_field), _given(figures, stream_field)
    return stream if whole is None else whole, whole if stream is None else stream


def _given(figures: pb.ModelFigures, field: str) -> float | None:
    return _seconds(getattr(figures, field)) if figures.HasField(field) else None  # type: ignore[arg-type]


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
