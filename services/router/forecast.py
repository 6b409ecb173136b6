"""The prospects of candidates: what this request would cost at each, by the books' rates, the live figures and the expected length."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from joulegate.chat.v1.receipt_pb2 import COST_BASIS_UNKNOWN, ENERGY_BASIS_DEFAULT
from services.router.catalogue import Candidate
from services.router.demand import Demand
from services.router.families import Traits
from services.router.prospect import Prospect
from services.router.rates import Rate

NANO: Final = 1e-9
# Of each candidate's tier, the probability that it answers well; None: not known.
Quality = Callable[[int], float | None]


class RateSource(Protocol):
    """Whoever knows what calls cost; never waits."""

    def of(self, provider: str, model: str) -> Rate | None: ...


class LengthSource(Protocol):
    """Whoever knows how long answers get."""

    def expected(self, model: str, bound: int | None) -> float: ...


class Forecast:
    """Foretells figures."""

    def __init__(self, rates: RateSource, lengths: LengthSource) -> None:
        self._rates = rates
        self._lengths = lengths

    def rate(self, candidate: Candidate) -> Rate | None:
        return self._rates.of(candidate.provider.name, candidate.model)

    def output_tokens(self, candidate: Candidate, demand: Demand) -> float:
        return self._lengths.expected(candidate.model, demand.max_output_tokens)

    def prospects(
        self, candidates: Sequence[Candidate], traits: Sequence[Traits], demand: Demand, quality: Quality, now: float
    ) -> list[Prospect]:
        """One for each, at `now` in monotonic seconds."""
        lives = [candidate.live for candidate in candidates]
        # Whose tokens nobody has timed is not faster for that.
        slowest_s = max((live.between_tokens_s or 0.0 for live in lives), default=0.0)
        qualities = {tier: quality(tier) for tier in {trait.tier for trait in traits}}
        lengths = {model: self._lengths.expected(model, demand.max_output_tokens) for model in {one.model for one in candidates}}
        streamed, input_tokens, rate_of = demand.streamed, demand.input_tokens, self._rates.of
        prospects = []
        for candidate, live, trait in zip(candidates, lives, traits, strict=True):
            output_tokens = lengths[candidate.model]
            latency_s = live.expected_s(now, streamed=streamed)
            if latency_s is not None and streamed:
                latency_s += output_tokens * (slowest_s if live.between_tokens_s is None else live.between_tokens_s)
            prices = _prices(rate_of(*candidate.target), input_tokens, output_tokens)
            prospects.append(Prospect(*prices, latency_s, live.p95_s(streamed=streamed), live.failure_odds, qualities[trait.tier]))
        return prospects

    def hoped_s(self, candidates: Sequence[Candidate], prospects: Sequence[Prospect], demand: Demand, now: float) -> list[float]:
        """Each one's latency, were it as fast as its peak, which comes down unasked, lets hope. Who was never asked may be anything."""
        streamed = demand.streamed
        return [_hope(candidate, prospect.latency_s, streamed, now) for candidate, prospect in zip(candidates, prospects, strict=True)]


def _prices(rate: Rate | None, input_tokens: float, output_tokens: float) -> tuple[float | None, float | None, float | None]:
    """US dollars, joules and grams."""
    if rate is None:
        return None, None, None
    cost_usd = None if rate.cost_basis == COST_BASIS_UNKNOWN else rate.cost_nano_usd(input_tokens, output_tokens) * NANO
    if rate.energy_basis == ENERGY_BASIS_DEFAULT:
        return cost_usd, None, None
    energy_j = rate.joules(input_tokens, output_tokens)
    return cost_usd, energy_j, rate.grams(energy_j)


def _hope(candidate: Candidate, latency_s: float | None, streamed: bool, now: float) -> float:
    average_s = candidate.live.average_s(streamed=streamed)
    if latency_s is None or average_s is None:
        return 0.0
    peak_s = candidate.live.peak_s(now, streamed=streamed)
    return latency_s if peak_s is None or peak_s >= average_s else max(0.0, latency_s - average_s + peak_s)
