"""In which order the candidates of a request are tried.

`fallback` is the configured sequence, `round_robin` takes turns in it, `weighted_random` and `random` draw, `least_busy` goes by load
alone. `latency` is the power of two choices: of two candidates drawn at random, the one where the next call may have to wait less, by peak
latency and load; the fastest known alone would be everybody's choice, until it is the slowest. A candidate that takes far longer than the
fastest is left out of the draw, for at a high load the product alone sends it the hundredth call; when its peak has come down, it gets one
call at a time to show that it is well again.

The other strategies judge by figures (services/router/prospect.py). Those near the best are as good as it; which of them is first, its load
decides, and the conversation: one that goes on finds its beginning in the provider's prompt cache, so it stays where it is, at the
candidate that its digest likes best, while that one is not twice as loaded as the one that it likes next. All routers agree on that without
a word. Who was slow, or was never tried, gets a call now and then here, too, one at a time.

Pure: time and randomness are arguments.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from math import log
from typing import Final

from services.router.catalogue import Candidate
from services.router.strategies import Strategy
from services.router.turns import Turns

# Beyond so many times the fastest one's average, a candidate is far.
FAR: Final = 2.0
# A conversation leaves its place when that is so many times as loaded as another one.
CROWDED: Final = 2.0
# The part of requests that may find out how fast somebody is by now.
TRIALS: Final = 0.05
# More than rounding, and less than any difference that counts.
HAIR: Final = 1e-9

_REASONS: Final = {
    Strategy.FALLBACK: "first in sequence",
    Strategy.LATENCY: "soonest of two by latency and load",
    Strategy.LEAST_BUSY: "least busy",
    Strategy.ROUND_ROBIN: "next in turn",
    Strategy.WEIGHTED_RANDOM: "drawn by success and speed",
    Strategy.RANDOM: "drawn",
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the figures say of candidates, by their places."""

    # Logarithms: the less, the better.
    values: Sequence[float]
    # The same for one that would be as fast as it may be by now; what it is judged by while no call of it is out.
    hopes: Sequence[float]
    # So far from the best is as good as the best.
    near: float
    # Gives the digest of the conversation; empty for none.
    home: Callable[[], bytes] = bytes

    def without(self, places: Collection[int]) -> "Judgement":
        """The same with these of the near best just beyond them."""
        # Whoever is the best without them is at most `near` from the best with them.
        further = dict.fromkeys(places, 2 * self.near + HAIR)
        values = [value + further.get(place, 0.0) for place, value in enumerate(self.values)]
        hopes = values if self.hopes is self.values else [hope + further.get(place, 0.0) for place, hope in enumerate(self.hopes)]
        return replace(self, values=values, hopes=hopes)


class Ranking:
    """Ranks by a strategy as of `now`, in monotonic seconds; `draw` gives random numbers in [0, 1)."""

    def __init__(self, now: Callable[[], float], draw: Callable[[], float]) -> None:
        self._now = now
        self._draw = draw
        self._turns = Turns()

    def rank(
        self,
        candidates: Sequence[Candidate],
        strategy: Strategy,
        *,
        streamed: bool,
        preferred: Sequence[str] = (),
        judgement: Judgement | None = None,
        shares: Mapping[str, float] | None = None,
    ) -> list[Candidate]:
        """Best first: the providers that the caller prefers, then by the strategy; those that are failing or withheld last.

        They keep a place behind the others: they may be the only ones, and a call is how they recover. With a judgement, it decides.
        `shares` are providers' parts of turns and of chances.
        """
        now = self._now()
        able: list[int] = []
        rest: list[Candidate] = []
        for place, candidate in enumerate(candidates):
            if is_able(candidate, now):
                able.append(place)
            else:
                rest.append(candidate)
        # The sort keeps the sequence among those that come back at the same time.
        rest.sort(key=lambda candidate: candidate.live.withheld_s(now))
        if judgement is None:
            ranked = self._by_strategy([candidates[place] for place in able], strategy, now, streamed, shares or {})
        else:
            ranked = [candidates[place] for place in self._by_judgement(candidates, able, judgement, now, streamed)]
        if preferred:
            order = {name: place for place, name in reversed(list(enumerate(preferred)))}
            ranked.sort(key=lambda candidate: order.get(candidate.provider.name, len(order)))
        return ranked + rest

    def explain(self, ranked: Sequence[Candidate], strategy: Strategy, why: str = "") -> str:
        """The order in words, for `x-gateway.routing_decision` and RankCandidates."""
        if not ranked:
            return "no provider serves this model"
        reason = why or _REASONS.get(strategy, f"best for {strategy}")
        if not is_able(ranked[0], self._now()):
            reason = "no healthy provider serves this model"
        return f"{ranked[0].provider.name}: {reason}, of {len(ranked)} candidate{'s' if len(ranked) > 1 else ''}"

    def _by_strategy(
        self, candidates: list[Candidate], strategy: Strategy, now: float, streamed: bool, shares: Mapping[str, float]
    ) -> list[Candidate]:
        match strategy:
            case Strategy.LEAST_BUSY:
                return sorted(candidates, key=lambda candidate: candidate.live.in_flight_count)
            case Strategy.LATENCY:
                return self._by_latency(candidates, now, streamed)
            case Strategy.ROUND_ROBIN:
                return self._turns.order(candidates, shares)
            case Strategy.RANDOM:
                return self._drawn(candidates, [1.0] * len(candidates))
            case Strategy.WEIGHTED_RANDOM:
                return self._drawn(candidates, _chances(candidates, streamed, shares))
        return candidates

    def _by_latency(self, candidates: list[Candidate], now: float, streamed: bool) -> list[Candidate]:
        if len(candidates) < 2:
            return candidates
        costs = [candidate.live.cost_s(now, streamed=streamed) for candidate in candidates]
        drawn = self._two_of(_near(candidates, now, streamed))
        first = min(drawn, key=costs.__getitem__)
        following = sorted((place for place in range(len(candidates)) if place != first), key=costs.__getitem__)
        return [candidates[place] for place in (first, *following)]

    def _by_judgement(
        self, candidates: Sequence[Candidate], able: Sequence[int], judgement: Judgement, now: float, streamed: bool
    ) -> list[int]:
        """Places, best first."""
        order = sorted(able, key=judgement.values.__getitem__)
        near = near_best(order, judgement)
        hopeful = _hopeful(candidates, order, judgement)
        if hopeful and self._draw() < TRIALS:
            return _first(hopeful[int(self._draw() * len(hopeful))], order)
        if len(near) < 2:
            return order
        home = judgement.home()
        two = _homes(candidates, near, home) if home else self._two_of(near)
        first, second = two[0], two[-1]
        costs = [candidates[place].live.cost_s(now, streamed=streamed) for place in (first, second)]
        patience = CROWDED if home else 1.0
        chosen = first if costs[0] <= patience * costs[1] else second
        return _first(chosen, order)

    def _drawn(self, candidates: Sequence[Candidate], chances: Sequence[float]) -> list[Candidate]:
        """All of them, one after the other, each with its chance among those that are left: the greatest of u^(1/chance) comes first."""
        keys = [log(max(self._draw(), 1e-300)) / chance for chance in chances]
        return [candidates[place] for place in sorted(range(len(candidates)), key=keys.__getitem__, reverse=True)]

    def _two_of(self, places: Sequence[int]) -> Sequence[int]:
        """Two of them at random, or the only one."""
        if len(places) == 1:
            return places
        one = int(self._draw() * len(places))
        other = int(self._draw() * (len(places) - 1))
        return places[one], places[other + (other >= one)]


def near_best(places: Sequence[int], judgement: Judgement) -> list[int]:
    """Those that are as good as the best of them."""
    bound = min((judgement.values[place] for place in places), default=0.0) + judgement.near
    return [place for place in places if judgement.values[place] <= bound]


def _hopeful(candidates: Sequence[Candidate], order: Sequence[int], judgement: Judgement) -> list[int]:
    """Those that are not near the best, might be by now, and have no call out that will tell."""
    if judgement.hopes is judgement.values or not order:
        return []
    bound = judgement.values[order[0]] + judgement.near
    return [
        place
        for place in order
        if judgement.hopes[place] <= bound < judgement.values[place] and candidates[place].live.in_flight_count == 0
    ]


def _first(chosen: int, order: Sequence[int]) -> list[int]:
    """The order, but for one that comes first."""
    return [chosen, *(place for place in order if place != chosen)]


def _homes(candidates: Sequence[Candidate], places: Sequence[int], home: bytes) -> list[int]:
    """The two that a conversation likes best: the highest of hashes over both names (rendezvous hashing)."""

    def liking(place: int) -> bytes:
        candidate = candidates[place]
        return blake2b(f"{candidate.provider.name}/{candidate.model}".encode("utf-8", "replace"), digest_size=8, key=home).digest()

    return sorted(places, key=liking)[:2]


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


def _chances(candidates: Sequence[Candidate], streamed: bool, shares: Mapping[str, float]) -> list[float]:
    """Success over time, as an earlier gateway has it; who has no time yet has the others' mean."""
    averages = [candidate.live.average_s(streamed=streamed) for candidate in candidates]
    known = [average for average in averages if average]
    usual = sum(known) / len(known) if known else 1.0
    return [
        shares.get(candidate.provider.name, 1.0) / (1.0 + candidate.live.failure_odds) / (average or usual)
        for candidate, average in zip(candidates, averages, strict=True)
    ]


def is_able(candidate: Candidate, now: float) -> bool:
    """Whether a call is expected to go out and to succeed.

    What dispatch tells of the model is decisive: when the breaker has done its waiting, the candidate is back in its place, and gets the
    call that proves it well. The provider's health stands in where the model was never called.
    """
    live = candidate.live
    return candidate.provider.healthy if live.told is None else live.withheld_s(now) == 0
