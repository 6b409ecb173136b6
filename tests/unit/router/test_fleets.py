"""What choosing by figures does to a fleet: six routers, four providers of which one becomes eight times slower; two regions, two grids.

One pair of grids is recorded. The other is made up in the shape of real ones, so that each is much the cleaner one for hours: one on wind
and water, one on coal by night and sun by day.
"""

from collections.abc import Mapping, Sequence
from math import log

import pytest

from joulegate.chat.v1 import receipt_pb2
from services.router.catalogue import Candidate
from services.router.policy import parse
from services.router.rates import Rate
from tests.unit.router.fleets import USUAL_S, Fleet, Site
from tests.unit.router.grids import CALIFORNIA, TEXAS

SLOW_FROM_S, SLOW_UNTIL_S, END_S = 8.0, 20.0, 30.0
RECOVERY_S = 5.0
PER_SECOND = 400.0
PRICES = {"a": 2.0, "b": 2.5, "c": 3.0, "big": 8.0}
# Grams per kilowatt hour, one for each "hour" of the simulation.
COAL_AND_SUN = (620, 640, 650, 640, 560, 420, 300, 220, 180, 190, 260, 380, 520, 610)
WIND_AND_WATER = (60, 40, 35, 50, 90, 140, 210, 260, 240, 200, 150, 110, 80, 60)
HOUR_S = 1.0
# Two regions: what a request costs there in USD, and what a kilowatt hour emits, by the hour.
Regions = Mapping[str, tuple[float, Sequence[float]]]
MADE_UP: Regions = {"sunny": (1.0e-3, COAL_AND_SUN), "windy": (1.1e-3, WIND_AND_WATER)}
# Where power is cheap, a provider can be.
RECORDED: Regions = {"texas": (1.0e-3, TEXAS), "california": (1.1e-3, CALIFORNIA)}


def rate(usd: float, grams_per_kwh: float = 400.0) -> Rate:
    """Of a call that costs so much, whatever its length, and takes a hundred joules."""
    return Rate(
        usd * 1e9,
        0,
        0,
        0,
        receipt_pb2.COST_BASIS_LIST,
        (100, 100),
        (0, 0),
        (0, 0),
        receipt_pb2.ENERGY_BASIS_BENCHMARK,
        grams_per_kwh,
        "WOR",
        0,
    )


def _slowness(now: float) -> float:
    return 8.0 if SLOW_FROM_S <= now < SLOW_UNTIL_S else 1.0


def _sites() -> list[Site]:
    sites = [Site(name, lambda now, usd=PRICES[name]: rate(usd), slots=60) for name in "bc"]  # type: ignore[misc]
    return [Site("a", lambda now: rate(PRICES["a"]), 60, _slowness), *sites, Site("big", lambda now: rate(PRICES["big"]))]


def _plain(candidates: Sequence[Candidate]) -> Candidate:
    """The weighted product with live latency alone, as earlier gateways have it."""

    def product(candidate: Candidate) -> float:
        average_s = candidate.live.average_s(streamed=True) or 0.0
        return 0.4 * log(PRICES[candidate.provider.name]) + 0.25 * log(average_s + 0.02)

    return min(candidates, key=product)


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    fleet = Fleet(_sites(), parse({"strategy": "balanced"}), PER_SECOND)
    fleet.run(END_S)
    return fleet


def mean_price(fleet: Fleet) -> float:
    requests = fleet.between(3.0, END_S)
    return sum(PRICES[request.site] for request in requests) / len(requests)


def test_p99_is_back_within_five_seconds_of_a_slowdown(fleet: Fleet) -> None:
    steady_s = fleet.quantile_s(0.99, 3.0, SLOW_FROM_S)
    assert steady_s < 4 * USUAL_S
    recovered = SLOW_FROM_S + RECOVERY_S
    for since, until in ((recovered, recovered + 3.0), (recovered + 3.0, SLOW_UNTIL_S), (SLOW_UNTIL_S, END_S)):
        assert fleet.quantile_s(0.99, since, until) < 2.5 * steady_s


def test_the_cheap_ones_carry_the_load_and_the_slow_one_is_found_well_again(fleet: Fleet) -> None:
    before = fleet.shares(3.0, SLOW_FROM_S)
    assert before["a"] > before["b"] > before["c"] > before["big"]
    assert before["big"] < 0.02
    assert 0.0 < fleet.shares(SLOW_FROM_S + RECOVERY_S, SLOW_UNTIL_S)["a"] < 0.02
    assert fleet.shares(END_S - 6.0, END_S - 1.0)["a"] > 0.2


def test_it_is_not_dearer_than_the_plain_weighted_product_and_far_faster(fleet: Fleet) -> None:
    plain = Fleet(_sites(), parse({}), PER_SECOND, pick=_plain)
    plain.run(END_S)
    assert mean_price(fleet) <= mean_price(plain)
    assert fleet.quantile_s(0.99, 3.0, END_S) < 0.5 * plain.quantile_s(0.99, 3.0, END_S)


BOUNDS = {"constraints": {"min_quality_of_best": 0.85, "max_latency_ms": 2000}}


def _grams_per_kwh(trace: Sequence[float], now: float) -> float:
    return trace[int(now / HOUR_S) % len(trace)]


def _sites_of(regions: Regions) -> list[Site]:
    def site(name: str, usd: float, trace: Sequence[float]) -> Site:
        return Site(name, lambda now: rate(usd, _grams_per_kwh(trace, now)))

    return [site(name, usd, trace) for name, (usd, trace) in regions.items()]


def _emissions(fleet: Fleet, regions: Regions) -> float:
    """Grams for each request, by the hour in which it came."""
    return sum(100 / 3.6e6 * _grams_per_kwh(regions[request.site][1], request.came) for request in fleet.done) / len(fleet.done)


def _hours(regions: Regions) -> int:
    return len(next(iter(regions.values()))[1])


def _run(regions: Regions) -> tuple[Fleet, Fleet]:
    """The same requests by cost and by carbon."""
    by_cost, by_carbon = (Fleet(_sites_of(regions), parse({"strategy": strategy} | BOUNDS), 40.0) for strategy in ("cost", "carbon"))
    for fleet in (by_cost, by_carbon):
        fleet.run(_hours(regions) * HOUR_S)
    return by_cost, by_carbon


@pytest.mark.parametrize("regions", [RECORDED, MADE_UP], ids=["recorded", "made up"])
def test_carbon_falls_by_a_quarter_at_the_same_quality_and_latency_bounds(regions: Regions) -> None:
    by_cost, by_carbon = _run(regions)
    assert _emissions(by_carbon, regions) <= 0.75 * _emissions(by_cost, regions)
    assert by_carbon.quantile_s(0.95, 0.0, _hours(regions) * HOUR_S) < 2.0


def test_requests_follow_the_grid_by_the_hour() -> None:
    _, by_carbon = _run(MADE_UP)
    for hour, (sunny, windy) in enumerate(zip(COAL_AND_SUN, WIND_AND_WATER, strict=True)):
        share = by_carbon.shares(hour * HOUR_S, (hour + 1) * HOUR_S)["sunny"]
        if sunny > 1.3 * windy:
            assert share < 0.2, hour
        elif windy > 1.3 * sunny:
            assert share > 0.5, hour
