"""In which order the candidates of a request are tried.

`fallback` is the configured sequence. `least_busy` goes by load alone. `latency` is the power of two choices: of two candidates drawn at
random, the one where the next call may have to wait less, by peak latency and load; the fastest known alone would be everybody's choice,
until it is the slowest. A candidate that takes far longer than the fastest is left out of the draw, for at a high load the product alone
sends it the hundredth call; when its peak has come down, it gets one call at a time to show that it is well again. Pure: time and
randomness are arguments.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final

from services.router.catalogue import Candidate


class Strategy(StrEnum):
    """How the first candidate is chosen."""

    FALLBACK = "fallback"
    LATENCY = "latency"
    LEAST_BUSY = "least_busy"


# Beyond so many times the fastest one's average, a candidate is far.
FAR: Final = 2.0
# Names of earlier gateways among them.
STRATEGIES: Final = {
    "fallback": Strategy.FALLBACK,
    "failover": Strategy.FALLBACK,
    "latency": Strategy.LATENCY,
    "least_latency": Strategy.LATENCY,
    "least_busy": Strategy.LEAST_BUSY,
}
# Earlier gateways know them; this version does not yet.
PLANNED: Final = frozenset(
    {
        "auto",
        "balanced",
        "cheap",
        "cost",
        "eco",
        "energy",
        "fast",
        "green",
        "highest_quality",
        "lowest_cost",
        "quality",
        "random",
        "round-robin",
        "round_robin",
        "weighted_random",
    }
)

_REASONS: Final = {
    Strategy.FALLBACK: "first in sequence",
    Strategy.LATENCY: "soonest of two by latency and load",
    Strategy.LEAST_BUSY: "least busy",
}


class Ranking:
    """Ranks by a strategy as of `now`, in monotonic seconds; `draw` gives random numbers in [0, 1)."""

    def __init__(self, now: Callable[[], float], draw: Callable[[], float]) -> None:
        self._now = now
        self._draw = draw

    def rank(self, candidates: Sequence[Candidate], strategy: Strategy, *, streamed: bool, preferred: str = "") -> list[Candidate]:
        """Best first: the provider that the caller prefers, then by the strategy; those that are failing or withheld last.

        They keep a place behind the others: they may be the only ones, and a call is how they recover.
        """
        now = self._now()
        able = [candidate for candidate in candidates if is_able(candidate, now)]
        rest = [candidate for candidate in candidates if not is_able(candidate, now)]
        # The sort keeps the sequence among those that come back at the same time.
        rest.sort(key=lambda candidate: candidate.live.withheld_s(now))
        ranked = self._by_strategy(able, strategy, now, streamed)
        ranked.sort(key=lambda candidate: candidate.provider.name != preferred)
        return ranked + rest

    def explain(self, ranked: Sequence[Candidate], strategy: Strategy) -> str:
        """The order in words, for `x-gateway.routing_decision` and RankCandidates."""
        if not ranked:
            return "no provider serves this model"
        why = _REASONS[strategy] if is_able(ranked[0], self._now()) else "no healthy provider serves this model"
        return f"{ranked[0].provider.name}: {why}, of {len(ranked)} candidate{'s' if len(ranked) > 1 else ''}"

    def _by_strategy(self, candidates: list[Candidate], strategy: Strategy, now: float, streamed: bool) -> list[Candidate]:
        match strategy:
            case Strategy.FALLBACK:
                return candidates
            case Strategy.LEAST_BUSY:
                return sorted(candidates, key=lambda candidate: candidate.live.in_flight_count)
            case Strategy.LATENCY:
                return self._by_latency(candidates, now, streamed)

    def _by_latency(self, candidates: list[Candidate], now: float, streamed: bool) -> list[Candidate]:
        if len(candidates) < 2:
            return candidates
        costs = [candidate.live.cost_s(now, streamed=streamed) for candidate in candidates]
        drawn = self._two_of(_near(candidates, now, streamed))
        first = min(drawn, key=costs.__getitem__)
        following = sorted((place for place in range(len(candidates)) if place != first), key=costs.__getitem__)
        return [candidates[place] for place in (first, *following)]

    def _two_of(self, places: Sequence[int]) -> Sequence[int]:
        """Two of them at random, or the only one."""
        if len(places) == 1:
            return places
        one = int(self._draw() * len(places))
        other = int(self._draw() * (len(places) - 1))
        return places[one], places[other + (other >= one)]


def _near(candidates: Sequence[Candidate], now: float, streamed: bool) -> list[int]:
    """The places of those that take no longer than the fastest by much, and of those that are due for a call that finds out."""
    averages = [candidate.live.average_s(streamed=streamed) for candidate in candidates]
    bound_s = FAR * min((average for average in averages if average is not None), default=0.0)

    def is_near(place: int) -> bool:
        average, live = averages[place], candidates[place].live
        if average is None or average <= bound_s:
            return True
        return live.in_flight_count == 0 and (live.peak_s(now, streamed=streamed) or 0.0) <= bound_s

    return [place for place in range(len(candidates)) if is_near(place)]


def is_able(candidate: Candidate, now: float) -> bool:
    """Whether a call is expected to go out and to succeed.

    What dispatch tells of the model is decisive: when the breaker has done its waiting, the candidate is back in its place, and gets the
    call that proves it well. The provider's health stands in where the model was never called.
    """
    live = candidate.live
    return candidate.provider.healthy if live.told is None else live.withheld_s(now) == 0
