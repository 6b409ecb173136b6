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
from typing import Final, Literal, NamedTuple, Protocol

from services.router.strategies import Criterion, Weights

# How much worse than the worst known figure an unknown one counts, in the logarithm.
DOUBT = 1.0
MAX_ODDS = 1e6


class Prospect(NamedTuple):
    """One candidate's figures for one request; None: not known."""

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


# A field of Prospect.
Figure = Literal["cost_usd", "energy_j", "carbon_g", "latency_s", "p95_s", "failure_odds", "quality"]
Column = Sequence[float | None]


class Prospects(Protocol):
    """The prospects of several candidates, figure by figure: most choices ask only for some."""

    def __len__(self) -> int: ...

    def figures(self, name: Figure) -> Column:
        """One for each candidate, in their order."""


_COMPARED: Final[Mapping[Criterion, Figure]] = {
    Criterion.COST: "cost_usd",
    Criterion.ENERGY: "energy_j",
    Criterion.CARBON: "carbon_g",
    Criterion.LATENCY: "latency_s",
    Criterion.RELIABILITY: "failure_odds",
    Criterion.QUALITY: "quality",
}
_BOUNDED: Final[Mapping[Criterion, Figure]] = {**_COMPARED, Criterion.LATENCY: "p95_s"}


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


def distances(prospects: Prospects, weights: Weights, floors: Floors) -> list[float]:
    """How far each is from the best of them, as a logarithm: 0 is best, 0.05 is five per cent worse."""
    values = logarithms(prospects, weights, floors)
    least = min(values, default=0.0)
    return [value - least for value in values]


def logarithms(prospects: Prospects, weights: Weights, floors: Floors) -> list[float]:
    """The sum of weighted logarithms for each: the less, the better."""
    sums = [0.0] * len(prospects)
    for name, share in weights.shares().items():
        terms = terms_of(prospects, Criterion(name), floors)
        sums = [total + share * term for total, term in zip(sums, terms, strict=True)]
    return sums


def terms_of(prospects: Prospects, criterion: Criterion, floors: Floors) -> list[float]:
    """The logarithms of one criterion's figures."""
    return _logarithms(figures_of(prospects, criterion), getattr(floors, criterion))


def figures_of(prospects: Prospects, criterion: Criterion) -> Column:
    """What is compared, the lower the better: of quality, the odds against it."""
    figures = prospects.figures(_COMPARED[criterion])
    if criterion is not Criterion.QUALITY:
        return figures
    return [None if probability is None else odds_against(probability) for probability in figures]


def score(distance: float) -> float:
    """The weighted product as a part of the best one's."""
    return exp(-distance)


def _logarithms(figures: Column, floor: float) -> list[float]:
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
        return self is not UNBOUND and self != UNBOUND

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


# None of them.
UNBOUND: Final = Constraints()
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


def feasible(prospects: Prospects, constraints: Constraints, relaxation: Sequence[Criterion] = RELAXATION) -> Feasible:
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
    if not dropped or not (found.proven or found.doubtful):
        return found
    for criterion in tuple(reversed(dropped)):
        others = [other for other in dropped if other is not criterion]
        again = _sorted(prospects, {kept: bound for kept, bound in bounds.items() if kept not in others})
        if again.proven or again.doubtful:
            found, dropped = again, others
    return replace(found, relaxed=tuple(dropped))


def _bounds(prospects: Prospects, constraints: Constraints) -> dict[Criterion, float]:
    """Upper bounds on figures; of quality, on the probability that the answer is not good."""
    least = constraints.min_quality
    if constraints.min_quality_of_best is not None:
        best = max((quality for quality in prospects.figures("quality") if quality is not None), default=0.0)
        least = _most(least, constraints.min_quality_of_best * best)
    given = {
        Criterion.LATENCY: constraints.max_latency_s,
        Criterion.COST: constraints.max_cost_usd,
        Criterion.CARBON: constraints.max_carbon_g,
        Criterion.QUALITY: None if least is None else 1.0 - least,
    }
    return {criterion: bound for criterion, bound in given.items() if bound is not None}


def _sorted(prospects: Prospects, bounds: Mapping[Criterion, float]) -> Feasible:
    broken: dict[int, Criterion] = {}
    unknown: dict[int, Criterion] = {}
    kept: Sequence[int] = range(len(prospects))
    # Latency first: what else is not known of a candidate comes over it.
    for criterion, bound in bounds.items():
        figures = _bounded_figures(prospects, criterion)
        # A hair's breadth is rounding.
        most = bound + 1e-12
        for place in kept:
            figure = figures[place]
            if figure is None:
                unknown[place] = criterion
            elif figure > most:
                broken[place] = criterion
        if broken:
            kept = [place for place in kept if place not in broken]
    doubtful = tuple(place for place in kept if place in unknown) if unknown else ()
    untimed = frozenset(place for place in doubtful if unknown[place] is Criterion.LATENCY)
    proven = tuple(place for place in kept if place not in unknown) if unknown else tuple(kept)
    return Feasible(proven, doubtful, broken, untimed=untimed)


def _bounded_figures(prospects: Prospects, criterion: Criterion) -> Column:
    figures = prospects.figures(_BOUNDED[criterion])
    if criterion is not Criterion.QUALITY:
        return figures
    return [None if probability is None else 1.0 - probability for probability in figures]


def _least(one: float | None, other: float | None) -> float | None:
    least = min(inf if one is None else one, inf if other is None else other)
    return None if least == inf else least


def _most(one: float | None, other: float | None) -> float | None:
    most = max(-inf if one is None else one, -inf if other is None else other)
    return None if most == -inf else most
