"""The prospects of candidates: what this request would cost at each, by the books' rates, the live figures and the expected length."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from joulegate.chat.v1.receipt_pb2 import COST_BASIS_UNKNOWN, ENERGY_BASIS_DEFAULT
from services.router.catalogue import Candidate
from services.router.demand import Demand
from services.router.families import Traits
from services.router.prospect import Column, Figure, Prospect
from services.router.rates import Rate

NANO: Final = 1e-9
# Of each candidate's tier, the probability that it answers well; None: not known.
Quality = Callable[[int], float | None]


class RateSource(Protocol):
    """Whoever knows what calls cost; never waits."""

    @property
    def known(self) -> Mapping[tuple[str, str], Rate]:
        """All of them. Nobody changes it: newer ones are in another one."""

    def of(self, provider: str, model: str) -> Rate | None: ...


class LengthSource(Protocol):
    """Whoever knows how long answers get."""

    def expected(self, model: str, bound: int | None) -> float: ...


@dataclass(slots=True)
class Outlook:
    """What is expected of candidates for one request at one moment. Each figure is found out for all of them when it is first asked for."""

    candidates: Sequence[Candidate]
    traits: Sequence[Traits]
    demand: Demand
    quality: Quality
    # Monotonic seconds.
    now: float
    rates: RateSource
    lengths: LengthSource
    # Of all whom the request can go to, these candidates or more, the longest time between tokens.
    slowest_s: float
    _columns: dict[Figure, Column] = field(default_factory=dict)
    _rates: Sequence[Rate | None] | None = None
    _output_tokens: Sequence[float] | None = None

    def __len__(self) -> int:
        return len(self.candidates)

    def figures(self, name: Figure) -> Column:
        """One for each candidate; None: not known."""
        known = self._columns.get(name)
        if known is None:
            known = self._columns[name] = _FOUND[name](self)
        return known

    def at(self, places: Sequence[int]) -> "Outlook":
        """The same of those at these places."""
        return Outlook(
            [self.candidates[place] for place in places],
            [self.traits[place] for place in places],
            self.demand,
            self.quality,
            self.now,
            self.rates,
            self.lengths,
            self.slowest_s,
            {name: [figures[place] for place in places] for name, figures in self._columns.items()},
            None if self._rates is None else [self._rates[place] for place in places],
            None if self._output_tokens is None else [self._output_tokens[place] for place in places],
        )

    def prospect(self, place: int) -> Prospect:
        """All figures of one candidate."""
        return Prospect(*(self.figures(name)[place] for name in _FOUND))

    def hopes_s(self) -> list[float]:
        """Each one's latency, were it as fast as its peak, which comes down unasked, lets hope. Who was never asked may be anything."""
        streamed, now = self.demand.streamed, self.now
        return [
            _hope(candidate, latency_s, streamed, now)
            for candidate, latency_s in zip(self.candidates, self.figures("latency_s"), strict=True)
        ]

    def known_rates(self) -> Sequence[Rate | None]:
        """What a call of each costs."""
        if self._rates is None:
            known, of = self.rates.known, self.rates.of
            # Who is not known is to be asked about.
            self._rates = [known.get(candidate.target) or of(*candidate.target) for candidate in self.candidates]
        return self._rates

    def output_tokens(self) -> Sequence[float]:
        """How long each one's answer is expected to be."""
        if self._output_tokens is None:
            bound, expected = self.demand.max_output_tokens, self.lengths.expected
            lengths = {model: expected(model, bound) for model in {candidate.model for candidate in self.candidates}}
            self._output_tokens = [lengths[candidate.model] for candidate in self.candidates]
        return self._output_tokens


class Forecast:
    """Foretells figures."""

    def __init__(self, rates: RateSource, lengths: LengthSource) -> None:
        self._rates = rates
        self._lengths = lengths

    def outlook(self, candidates: Sequence[Candidate], traits: Sequence[Traits], demand: Demand, quality: Quality, now: float) -> Outlook:
        """At `now` in monotonic seconds."""
        # Whose tokens nobody has timed is not faster for that.
        slowest_s = max((candidate.live.between_tokens_s or 0.0 for candidate in candidates), default=0.0)
        return Outlook(candidates, traits, demand, quality, now, self._rates, self._lengths, slowest_s)


def _costs_usd(outlook: Outlook) -> Column:
    input_tokens = outlook.demand.input_tokens
    return [
        None if rate is None or rate.cost_basis == COST_BASIS_UNKNOWN else rate.cost_nano_usd(input_tokens, output_tokens) * NANO
        for rate, output_tokens in zip(outlook.known_rates(), outlook.output_tokens(), strict=True)
    ]


def _energies_j(outlook: Outlook) -> Column:
    input_tokens = outlook.demand.input_tokens
    return [
        None if rate is None or rate.energy_basis == ENERGY_BASIS_DEFAULT else rate.joules(input_tokens, output_tokens)
        for rate, output_tokens in zip(outlook.known_rates(), outlook.output_tokens(), strict=True)
    ]


def _carbon_g(outlook: Outlook) -> Column:
    return [
        None if rate is None or energy_j is None else rate.grams(energy_j)
        for rate, energy_j in zip(outlook.known_rates(), outlook.figures("energy_j"), strict=True)
    ]


def _latencies_s(outlook: Outlook) -> Column:
    now, streamed, slowest_s = outlook.now, outlook.demand.streamed, outlook.slowest_s
    until_begun = [candidate.live.expected_s(now, streamed=streamed) for candidate in outlook.candidates]
    if not streamed:
        return until_begun
    between = [candidate.live.between_tokens_s for candidate in outlook.candidates]
    return [
        None if begun_s is None else begun_s + output_tokens * (slowest_s if between_s is None else between_s)
        for begun_s, between_s, output_tokens in zip(until_begun, between, outlook.output_tokens(), strict=True)
    ]


def _p95s_s(outlook: Outlook) -> Column:
    streamed = outlook.demand.streamed
    return [candidate.live.p95_s(streamed=streamed) for candidate in outlook.candidates]


def _failure_odds(outlook: Outlook) -> Column:
    return [candidate.live.failure_odds for candidate in outlook.candidates]


def _qualities(outlook: Outlook) -> Column:
    qualities = {tier: outlook.quality(tier) for tier in {traits.tier for traits in outlook.traits}}
    return [qualities[traits.tier] for traits in outlook.traits]


# In the order of Prospect's fields.
_FOUND: Final[Mapping[Figure, Callable[[Outlook], Column]]] = {
    "cost_usd": _costs_usd,
    "energy_j": _energies_j,
    "carbon_g": _carbon_g,
    "latency_s": _latencies_s,
    "p95_s": _p95s_s,
    "failure_odds": _failure_odds,
    "quality": _qualities,
}


def _hope(candidate: Candidate, latency_s: float | None, streamed: bool, now: float) -> float:
    average_s = candidate.live.average_s(streamed=streamed)
    if latency_s is None or average_s is None:
        return 0.0
    peak_s = candidate.live.peak_s(now, streamed=streamed)
    return latency_s if peak_s is None or peak_s >= average_s else max(0.0, latency_s - average_s + peak_s)
