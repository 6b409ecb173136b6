"""How fast callers may be: what their keys say, else their tier, else what holds for everybody."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from services.ledger.rate_windows import RateLimits
from services.runtime.settings import SettingsError

MAX_COUNT: Final = 10**9
MIN_REFILL_PER_S: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Limits:
    """`tiers` by name. A tier that is not there is like none."""

    default: RateLimits = field(default_factory=RateLimits)
    tiers: Mapping[str, RateLimits] = field(default_factory=dict)

    def of(self, tier: str, requests_per_minute: int | None, tokens_per_minute: int | None) -> RateLimits:
        """The limits of a key, or with nothing said those of a caller without one."""
        limits = self.tiers.get(tier, self.default)
        if requests_per_minute is None and tokens_per_minute is None:
            return limits
        return limits._replace(
            requests_per_minute=limits.requests_per_minute if requests_per_minute is None else requests_per_minute,
            tokens_per_minute=limits.tokens_per_minute if tokens_per_minute is None else tokens_per_minute,
        )


def default_limits(
    bucket_per_minute: int | None, requests_per_minute: int | None, capacity: int | None, refill_per_s: float | None
) -> RateLimits:
    """What holds for callers whose keys and tiers say nothing. A bucket's own two numbers win over the one for a minute.

    A bucket of which only one is said refills in a minute.
    """
    if capacity is None and refill_per_s is None:
        capacity, refill_per_s = bucket_per_minute, None if bucket_per_minute is None else bucket_per_minute / 60
    elif capacity is None:
        assert refill_per_s is not None
        capacity = max(1, round(refill_per_s * 60))
    elif refill_per_s is None:
        refill_per_s = capacity / 60
    return RateLimits(requests_per_minute, None, capacity, refill_per_s)


def read_tiers(config: Mapping[str, Any]) -> dict[str, RateLimits]:
    """The tiers of a parsed joulegate.toml. Raises SettingsError with every problem."""
    tables = config.get("tiers", {})
    if not isinstance(tables, Mapping):
        raise SettingsError(["[tiers]: must have a table for each tier"])
    problems: list[str] = []
    tiers: dict[str, RateLimits] = {}
    for name, table in tables.items():
        found = [f"[tiers.{name}] {problem}" for problem in _problems(table)]
        problems += found
        if not found:
            tiers[name] = _tier(table)
    if problems:
        raise SettingsError(problems)
    return tiers


def _tier(table: Mapping[str, Any]) -> RateLimits:
    bucket = default_limits(None, None, table.get("capacity"), table.get("refill_per_second"))
    return bucket._replace(requests_per_minute=table.get("requests_per_minute"), tokens_per_minute=table.get("tokens_per_minute"))


def _problems(table: Any) -> list[str]:
    if not isinstance(table, Mapping):
        return ["must be a table"]
    return [
        f"{key}: unknown" if key not in _CHECKS else f"{key}: {_CHECKS[key][1]}"
        for key, value in table.items()
        if key not in _CHECKS or not _CHECKS[key][0](value)
    ]


def _is_count(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= MAX_COUNT


def _is_rate(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and MIN_REFILL_PER_S <= value <= MAX_COUNT


_CHECKS: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "requests_per_minute": (_is_count(0), f"must be a whole number from 0 to {MAX_COUNT}"),
    "tokens_per_minute": (_is_count(0), f"must be a whole number from 0 to {MAX_COUNT}"),
    "capacity": (_is_count(1), f"must be a whole number from 1 to {MAX_COUNT}"),
    "refill_per_second": (_is_rate, f"must be a number from {MIN_REFILL_PER_S} to {MAX_COUNT}"),
}
