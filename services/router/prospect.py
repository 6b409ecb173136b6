"""What a candidate is expected to cost and to give for one request, and how candidates compare: the weighted product in its log form.

For candidate i and criterion k with figures x >= 0, lower is better, the product of ((min_j x_jk + f_k) / (x_ik + f_k))^w_k with weights
that add up to 1 is greatest where the sum of w_k ln(x_ik + f_k) is least. Units cancel, so nothing is normalised; how two candidates
compare does not depend on the others, so none that arrives turns their order round. The floor f_k is an amount below which differences do
not count, in the unit of the figure: what is free is then not infinitely good. Reliability and quality enter as odds of failing: 0.999 is
fifty times better than 0.95, not one twentieth.

What is not known counts as a good deal worse than the worst that is known, so that ignorance never wins; where nobody knows, it counts for
nobody.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, inf, log
from typing import NamedTuple

from services.router.strategies import Criterion, Weights

# How much worse than the worst known figure an unknown one counts, in the logarithm.
DOUBT = 1.0
MAX_ODDS = 1e6


class Prospect(NamedTuple):
    """One candidate's figures for one request; None: not known. A tuple, for there may be hundreds to a request."""

    cost_usd: float | None = None
    energy_j: float | None = None
    carbon_g: float | None = None
    # Until the answer is there: its last token, as far as its length can be foreseen.
    latency_s: float | None = None
    # Which 95 % of first events, or of whole answers, do not exceed.
    p95_s: float | None = None
    # Failures for each success.
    failure_odds: float | None = None
    # The probability that the answer is good.
    quality: float | None = None


def odds_against(probability: float) -> float:
    """Failures for each success."""
    return MAX_ODDS if probability * MAX_ODDS <= 1.0 else (1.0 - probability) / probability


@dataclass(frozen=True, slots=True)
class Floors:
    """Amounts below which differences do not count; a field for each Criterion."""

    cost: float = 1e-5  # US dollars
    energy: float = 0.5  # joules
    carbon: float = 5e-5  # grams: about the half joule
    latency: float = 0.02  # seconds
    reliability: float = 1e-3  # odds
    quality: float = 1e-2  # odds


def distances(prospects: Sequence[Prospect], weights: Weights, floors: Floors) -> list[float]:
    """How far each is from the best of them, as a logarithm: 0 is best, 0.05 is five per cent worse."""
    values = logarithms(prospects, weights, floors)
    least = min(values, default=0.0)
    return [value - least for value in values]


def logarithms(prospects: Sequence[Prospect], weights: Weights, floors: Floors) -> list[float]:
    """The sum of weighted logarithms for each: the less, the better."""
    sums = [0.0] * len(prospects)
    for name, share in weights.shares().items():
        terms = terms_of(prospects, Criterion(name), floors)
        sums = [total + share * term for total, term in zip(sums, terms, strict=True)]
    return sums


def terms_of(prospects: Sequence[Prospect], criterion: Criterion, floors: Floors) -> list[float]:
    """The logarithms of one criterion's figures."""
    return _logarithms(figures_of(prospects, criterion), getattr(floors, criterion))


def figures_of(prospects: Sequence[Prospect], criterion: Criterion) -> list[float | None]:
    """What is compared, the lower the better: of quality, the odds against it."""
    match criterion:
        case Criterion.COST:
            return [prospect.cost_usd for prospect in prospects]
        case Criterion.ENERGY:
            return [prospect.energy_j for prospect in prospects]
        case Criterion.CARBON:
            return [prospect.carbon_g for prospect in prospects]
        case Criterion.LATENCY:
            return [prospect.latency_s for prospect in prospects]
        case Criterion.RELIABILITY:
            return [prospect.failure_odds for prospect in prospects]
    return [None if prospect.quality is None else odds_against(prospect.quality) for prospect in prospects]


def score(distance: float) -> float:
    """The weighted product as a part of the best one's."""
    return exp(-distance)


def _logarithms(figures: Sequence[float | None], floor: float) -> list[float]:
    if None not in figures:
        return [log(figure + floor) for figure in figures]  # type: ignore[operator]
    known = [log(figure + floor) for figure in figures if figure is not None]
    unknown = max(known) + DOUBT if known else 0.0
    return [unknown if figure is None else log(figure + floor) for figure in figures]


@dataclass(frozen=True, slots=True)
class Constraints:
    """Bounds on what a candidate may be expected to cost and take; None: none."""

    max_latency_s: float | None = None
    max_cost_usd: float | None = None
    max_carbon_g: float | None = None
    # The least probability that the answer is good.
    min_quality: float | None = None
    # The same, as a part of what the best candidate has.
    min_quality_of_best: float | None = None

    @property
    def are_set(self) -> bool:
        return self != _NONE

    def within(self, other: "Constraints") -> "Constraints":
        """Both: of each bound the tighter one."""
        if not other.are_set:
            return self
        return Constraints(
            _least(self.max_latency_s, other.max_latency_s),
            _least(self.max_cost_usd, other.max_cost_usd),
            _least(self.max_carbon_g, other.max_carbon_g),
            _most(self.min_quality, other.min_quality),
            _most(self.min_quality_of_best, other.min_quality_of_best),
        )


_NONE = Constraints()
# What may be given up when nobody keeps everything, the first one first.
RELAXATION = (Criterion.LATENCY, Criterion.COST, Criterion.CARBON, Criterion.QUALITY)


@dataclass(frozen=True, slots=True)
class Feasible:
    """What is left under constraints: places of candidates that keep them, and of those for whom that is not known."""

    proven: tuple[int, ...]
    doubtful: tuple[int, ...]
    # By place, the bound that a candidate breaks first.
    broken: Mapping[int, Criterion]
    # The bounds that had to be given up.
    relaxed: tuple[Criterion, ...] = ()
    # Of the doubtful ones, those of whom only their speed is not known: calls will tell.
    untimed: frozenset[int] = frozenset()


def feasible(prospects: Sequence[Prospect], constraints: Constraints, relaxation: Sequence[Criterion] = RELAXATION) -> Feasible:
    """Who keeps the constraints. Where nobody does, bounds are given up in the order of `relaxation` until somebody does; of those given
    up, the ones that were not in the way are held again. With a bound that may not be given up, the result may be empty."""
    bounds = _bounds(prospects, constraints)
    found = _sorted(prospects, bounds)
    dropped: list[Criterion] = []
    for criterion in relaxation:
        if found.proven or found.doubtful:
            break
        if criterion in bounds:
            dropped.append(criterion)
            found = _sorted(prospects, {kept: bound for kept, bound in bounds.items() if kept not in dropped})
    if not (found.proven or found.doubtful):
        return found
    for criterion in tuple(reversed(dropped)):
        others = [other for other in dropped if other is not criterion]
        again = _sorted(prospects, {kept: bound for kept, bound in bounds.items() if kept not in others})
        if again.proven or again.doubtful:
            found, dropped = again, others
    return replace(found, relaxed=tuple(dropped))


def _bounds(prospects: Sequence[Prospect], constraints: Constraints) -> dict[Criterion, float]:
    """Upper bounds on figures; of quality, on the probability that the answer is not good."""
    least = constraints.min_quality
    if constraints.min_quality_of_best is not None:
        best = max((prospect.quality for prospect in prospects if prospect.quality is not None), default=0.0)
        least = _most(least, constraints.min_quality_of_best * best)
    given = {
        Criterion.LATENCY: constraints.max_latency_s,
        Criterion.COST: constraints.max_cost_usd,
        Criterion.CARBON: constraints.max_carbon_g,
        Criterion.QUALITY: None if least is None else 1.0 - least,
    }
    return {criterion: bound for criterion, bound in given.items() if bound is not None}


def _sorted(prospects: Sequence[Prospect], bounds: Mapping[Criterion, float]) -> Feasible:
    broken: dict[int, Criterion] = {}
    unknown: dict[int, Criterion] = {}
    # Latency first: what else is not known of a candidate comes over it.
    for criterion, bound in bounds.items():
        # A hair's breadth is rounding.
        most = bound + 1e-12
        for place, figure in enumerate(_bounded_figures(prospects, criterion)):
            if figure is None:
                unknown[place] = criterion
            elif figure > most:
                broken.setdefault(place, criterion)
    kept = [place for place in range(len(prospects)) if place not in broken]
    doubtful = tuple(place for place in kept if place in unknown)
    untimed = frozenset(place for place in doubtful if unknown[place] is Criterion.LATENCY)
    return Feasible(tuple(place for place in kept if place not in unknown), doubtful, broken, untimed=untimed)


def _bounded_figures(prospects: Sequence[Prospect], criterion: Criterion) -> Sequence[float | None]:
    match criterion:
        case Criterion.LATENCY:
            return [prospect.p95_s for prospect in prospects]
        case Criterion.QUALITY:
            return [None if prospect.quality is None else 1.0 - prospect.quality for prospect in prospects]
    return figures_of(prospects, criterion)


def _least(one: float | None, other: float | None) -> float | None:
    least = min(inf if one is None else one, inf if other is None else other)
    return None if least == inf else least


def _most(one: float | None, other: float | None) -> float | None:
    most = max(-inf if one is None else one, -inf if other is None else other)
    return None if most == -inf else most
