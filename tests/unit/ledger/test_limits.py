"""Which limits hold for a caller, and what a tier may say."""

from typing import Any

import pytest

from services.ledger.limits import Limits, default_limits, read_tiers
from services.ledger.rate_windows import RateLimits
from services.runtime.settings import SettingsError

GOLD = RateLimits(500, 90_000, 20, 5.0)


def test_keys_win_over_their_tier_and_that_over_the_default() -> None:
    limits = Limits(RateLimits(requests_per_minute=60), {"gold": GOLD})
    assert limits.of("", None, None) == RateLimits(requests_per_minute=60)
    assert limits.of("unknown", None, 7) == RateLimits(requests_per_minute=60, tokens_per_minute=7)
    assert limits.of("gold", None, None) == GOLD
    assert limits.of("gold", 0, None) == GOLD._replace(requests_per_minute=0)


@pytest.mark.parametrize(
    ("said", "bucket"),
    [
        ((None, None, None), (None, None)),
        ((120, None, None), (120, 2.0)),
        ((120, 10, None), (10, 10 / 60)),
        ((120, 10, 3.0), (10, 3.0)),
        ((None, None, 0.5), (30, 0.5)),
        ((None, None, 0.001), (1, 0.001)),
    ],
)
def test_buckets_own_numbers_win(said: tuple[int | None, int | None, float | None], bucket: tuple[int | None, float | None]) -> None:
    limits = default_limits(said[0], 5, said[1], said[2])
    assert limits == RateLimits(5, None, *bucket)


def test_tiers_are_read() -> None:
    table = {"requests_per_minute": 500, "tokens_per_minute": 90_000, "capacity": 20, "refill_per_second": 5.0}
    assert read_tiers({"tiers": {"gold": table, "tin": {"requests_per_minute": 0}}}) == {"gold": GOLD, "tin": RateLimits(0)}
    assert read_tiers({}) == {}


@pytest.mark.parametrize(
    ("tables", "problem"),
    [
        ([], r"\[tiers\]: must have a table"),
        ({"gold": 5}, r"\[tiers.gold\] must be a table"),
        ({"gold": {"rpm": 5}}, "rpm: unknown"),
        ({"gold": {"requests_per_minute": -1}}, "requests_per_minute: must be a whole number"),
        ({"gold": {"requests_per_minute": True}}, "requests_per_minute: must be a whole number"),
        ({"gold": {"tokens_per_minute": 1.5}}, "tokens_per_minute: must be a whole number"),
        ({"gold": {"capacity": 0}}, "capacity: must be a whole number from 1"),
        ({"gold": {"refill_per_second": 0}}, "refill_per_second: must be a number"),
    ],
)
def test_what_no_tier_can_be_stops_the_start_by_name(tables: Any, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        read_tiers({"tiers": tables})
