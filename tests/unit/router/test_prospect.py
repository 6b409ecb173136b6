import pytest

from services.router.prospect import Constraints, Floors, Prospect, distances, feasible, odds_against
from services.router.strategies import Criterion, Weights
from tests.unit.router.pictures import Known

CHEAP = Prospect(cost_usd=0.001, latency_s=2.0, p95_s=4.0, carbon_g=0.1, quality=0.7)
GOOD = Prospect(cost_usd=0.010, latency_s=3.0, p95_s=5.0, carbon_g=0.5, quality=0.95)


def test_odds_tell_very_good_from_good() -> None:
    assert odds_against(0.95) / odds_against(0.999) == pytest.approx(52.6, rel=0.01)
    assert odds_against(0.0) == odds_against(1e-9) == 1e6


def test_the_weights_decide() -> None:
    assert distances(Known([CHEAP, GOOD]), Weights(cost=1), Floors())[0] == 0
    assert distances(Known([CHEAP, GOOD]), Weights(quality=1), Floors())[1] == 0


def test_differences_below_the_floor_hardly_count() -> None:
    free, nearly = CHEAP._replace(cost_usd=0.0), CHEAP._replace(cost_usd=1e-7)
    assert distances(Known([free, nearly]), Weights(cost=1), Floors())[1] < 0.011
    assert distances(Known([free, CHEAP]), Weights(cost=1), Floors())[1] > 4


def test_an_unknown_price_is_behind_every_known_one_when_price_is_all() -> None:
    found = distances(Known([CHEAP._replace(cost_usd=None), CHEAP, GOOD]), Weights(cost=1), Floors())
    assert found[0] == max(found) > found[2]


def test_bounds_leave_out_who_breaks_them() -> None:
    kept = feasible(Known([CHEAP, GOOD]), Constraints(min_quality=0.9))
    assert (kept.proven, kept.broken, kept.relaxed) == ((1,), {0: Criterion.QUALITY}, ())


def test_a_bound_whose_figure_is_not_known_excludes_nobody_and_proves_nothing() -> None:
    kept = feasible(Known([CHEAP, GOOD._replace(cost_usd=None)]), Constraints(max_cost_usd=0.005))
    assert (kept.proven, kept.doubtful, kept.broken) == ((0,), (1,), {})


def test_bounds_are_given_up_in_order_and_only_those_in_the_way() -> None:
    # Latency would be first, but is kept by the dear one: cost alone is in the way.
    kept = feasible(Known([CHEAP, GOOD]), Constraints(max_latency_s=6, max_cost_usd=0.0001))
    assert kept.relaxed == (Criterion.COST,)
    assert kept.proven == (0, 1)
    # Either of the two would do; the first in the order goes.
    kept = feasible(Known([CHEAP, GOOD]), Constraints(max_latency_s=4.5, min_quality=0.9))
    assert (kept.relaxed, kept.proven) == ((Criterion.LATENCY,), (1,))
    turned = feasible(Known([CHEAP, GOOD]), Constraints(max_latency_s=4.5, min_quality=0.9), (Criterion.QUALITY, Criterion.LATENCY))
    assert (turned.relaxed, turned.proven) == ((Criterion.QUALITY,), (0,))


def test_a_bound_that_may_not_be_given_up_can_leave_nobody() -> None:
    kept = feasible(Known([CHEAP, GOOD]), Constraints(max_cost_usd=0.0001), relaxation=(Criterion.LATENCY,))
    assert not kept.proven and not kept.doubtful and not kept.relaxed


def test_a_bound_as_a_part_of_the_best_moves_with_the_best() -> None:
    assert feasible(Known([CHEAP, GOOD]), Constraints(min_quality_of_best=0.85)).proven == (1,)
    assert feasible(Known([CHEAP, GOOD._replace(quality=0.8)]), Constraints(min_quality_of_best=0.85)).proven == (0, 1)


def test_of_two_sets_of_bounds_the_tighter_ones_hold() -> None:
    both = Constraints(max_cost_usd=1, min_quality=0.5).within(Constraints(max_cost_usd=2, min_quality=0.9, max_latency_s=3))
    assert both == Constraints(max_cost_usd=1, min_quality=0.9, max_latency_s=3)
    assert both.are_set and not Constraints().are_set
