"""The weighted product keeps what is promised of it, whatever the figures."""

from dataclasses import replace
from math import isclose

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.router.prospect import RELAXATION, Constraints, Floors, Prospect, distances, feasible, figures_of
from services.router.strategies import Criterion, Weights
from tests.unit.router.pictures import Known

FIGURES = ("cost_usd", "energy_j", "carbon_g", "latency_s", "failure_odds", "quality")
CRITERION_OF = dict(zip(FIGURES, Criterion, strict=True))
FLOORS = Floors()

amounts = st.floats(0, 1e4, allow_nan=False)
known = st.builds(
    Prospect,
    cost_usd=amounts,
    energy_j=amounts,
    carbon_g=amounts,
    latency_s=amounts,
    p95_s=amounts,
    failure_odds=amounts,
    quality=st.floats(0, 1),
)
maybe = st.builds(
    Prospect,
    **{name: st.none() | amounts for name in FIGURES if name != "quality"},
    p95_s=st.none() | amounts,
    quality=st.none() | st.floats(0, 1),
)
weights = st.builds(Weights, **{criterion.value: st.floats(0, 10) for criterion in Criterion}).filter(
    lambda weights: sum(getattr(weights, criterion.value) for criterion in Criterion) > 0.01
)


@given(st.lists(known, min_size=1, max_size=8), weights, st.sampled_from(["cost", "energy", "carbon", "latency"]), st.floats(1e-6, 1e6))
def test_units_do_not_matter(prospects: list[Prospect], weights: Weights, criterion: str, unit: float) -> None:
    field = next(name for name, of in CRITERION_OF.items() if of == criterion)
    changed = [prospect._replace(**{field: getattr(prospect, field) * unit}) for prospect in prospects]
    floors = replace(FLOORS, **{criterion: getattr(FLOORS, criterion) * unit})
    assert distances(Known(changed), weights, floors) == pytest.approx(distances(Known(prospects), weights, FLOORS), abs=1e-6)


@given(st.lists(maybe, min_size=1, max_size=8), weights, st.randoms(use_true_random=False))
def test_the_order_of_candidates_does_not_matter(prospects: list[Prospect], weights: Weights, random: object) -> None:
    order = list(range(len(prospects)))
    random.shuffle(order)  # type: ignore[attr-defined]
    straight = distances(Known(prospects), weights, FLOORS)
    shuffled = distances(Known([prospects[place] for place in order]), weights, FLOORS)
    assert shuffled == pytest.approx([straight[place] for place in order])


@given(known, known, st.lists(maybe, max_size=6), weights)
def test_how_two_compare_does_not_depend_on_others(one: Prospect, other: Prospect, others: list[Prospect], weights: Weights) -> None:
    alone = distances(Known([one, other]), weights, FLOORS)
    among = distances(Known([one, other, *others]), weights, FLOORS)
    assert among[0] - among[1] == pytest.approx(alone[0] - alone[1], abs=1e-9)


@given(st.lists(maybe, min_size=1, max_size=6), known, weights, st.sampled_from(FIGURES), st.floats(0, 1))
def test_who_gets_better_does_not_get_worse(others: list[Prospect], one: Prospect, weights: Weights, field: str, part: float) -> None:
    value = getattr(one, field)
    better = one._replace(**{field: 1 - (1 - value) * part if field == "quality" else value * part})
    before = distances(Known([one, *others]), weights, FLOORS)
    after = distances(Known([better, *others]), weights, FLOORS)
    for place in range(1, len(others) + 1):
        # An unknown figure of another one may count less when the worst known one improves; a known one never.
        if None not in (getattr(others[place - 1], name) for name in FIGURES):
            assert after[0] - after[place] <= before[0] - before[place] + 1e-9


@given(st.lists(known, min_size=1, max_size=6), known, weights, st.sampled_from(FIGURES))
def test_not_knowing_a_figure_is_never_better_than_the_worst_that_is_known(
    others: list[Prospect], one: Prospect, weights: Weights, field: str
) -> None:
    figures = figures_of(Known(others), CRITERION_OF[field])
    worst = others[max(range(len(others)), key=lambda place: figures[place] or 0.0)]
    ignorant, informed = one._replace(**{field: None}), one._replace(**{field: getattr(worst, field)})
    unknown = distances(Known([ignorant, *others]), weights, FLOORS)
    as_bad = distances(Known([informed, *others]), weights, FLOORS)
    for place in range(1, len(others) + 1):
        assert unknown[0] - unknown[place] >= as_bad[0] - as_bad[place] - 1e-9


@given(st.lists(known, min_size=2, max_size=6), weights, st.sampled_from(FIGURES))
def test_what_nobody_knows_counts_for_nobody(prospects: list[Prospect], weights: Weights, field: str) -> None:
    criterion = CRITERION_OF[field].value
    assume(sum(getattr(weights, other.value) for other in Criterion if other != criterion) > 0.01)
    blind = [prospect._replace(**{field: None}) for prospect in prospects]
    without = distances(Known(prospects), replace(weights, **{criterion: 0.0}), FLOORS)
    share = 1 - weights.shares().get(criterion, 0.0)
    assert distances(Known(blind), weights, FLOORS) == pytest.approx([share * distance for distance in without], abs=1e-6)


@given(st.lists(known, min_size=1, max_size=8), weights)
def test_the_best_is_at_no_distance_and_a_free_one_not_infinitely_far_ahead(prospects: list[Prospect], weights: Weights) -> None:
    found = distances(Known([*prospects, Prospect(0, 0, 0, 0, 0, 0, 1)]), weights, FLOORS)
    assert found[-1] == min(found) == 0
    assert all(distance < 100 for distance in found)


bounds = st.builds(
    Constraints,
    max_latency_s=st.none() | amounts,
    max_cost_usd=st.none() | amounts,
    max_carbon_g=st.none() | amounts,
    min_quality=st.none() | st.floats(0, 1),
    min_quality_of_best=st.none() | st.floats(0, 1),
)


@given(st.lists(maybe, min_size=1, max_size=8), bounds)
def test_somebody_is_always_left_and_nothing_is_given_up_without_need(prospects: list[Prospect], constraints: Constraints) -> None:
    kept = feasible(Known(prospects), constraints)
    assert kept.proven or kept.doubtful
    assert {*kept.proven, *kept.doubtful, *kept.broken} == set(range(len(prospects)))
    strict = feasible(Known(prospects), constraints, relaxation=())
    assert bool(kept.relaxed) == (not strict.proven and not strict.doubtful)
    for criterion in kept.relaxed:
        others = [other for other in RELAXATION if other in kept.relaxed and other != criterion]
        held = feasible(Known(prospects), constraints, relaxation=others)
        assert not held.proven and not held.doubtful, f"{criterion} need not have been given up"


@given(st.lists(known, min_size=1, max_size=8), bounds)
def test_who_is_proven_keeps_every_bound_that_was_not_given_up(prospects: list[Prospect], constraints: Constraints) -> None:
    kept = feasible(Known(prospects), constraints)
    assert not kept.doubtful
    best = max(prospect.quality or 0.0 for prospect in prospects)
    for prospect in (prospects[place] for place in kept.proven):
        if constraints.max_cost_usd is not None and Criterion.COST not in kept.relaxed:
            assert prospect.cost_usd is not None and prospect.cost_usd <= constraints.max_cost_usd + 1e-9
        if constraints.max_latency_s is not None and Criterion.LATENCY not in kept.relaxed:
            assert prospect.p95_s is not None and prospect.p95_s <= constraints.max_latency_s + 1e-9
        if constraints.min_quality_of_best is not None and Criterion.QUALITY not in kept.relaxed:
            quality = prospect.quality or 0.0
            assert quality >= constraints.min_quality_of_best * best or isclose(
                quality, constraints.min_quality_of_best * best, abs_tol=1e-9
            )
