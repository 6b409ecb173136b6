"""How joulegate.toml says timeouts and the rules of failing: each table over the values that hold without it."""

from dataclasses import replace
from typing import Final

from services.dispatch.breaker import BreakerPolicy
from services.dispatch.limits import ProviderLimits
from services.dispatch.retry import RetryPolicy
from services.dispatch.timeouts import Timeouts
from services.runtime.table import Table

DAY_S: Final = 86_400
TIMEOUT_FIELDS: Final = {
    "connect": ("connect_s",),
    "first_byte": ("first_byte_s",),
    "idle": ("idle_s",),
    "total": ("total_s", "stream_total_s"),
}
RETRY_KEYS: Final = frozenset({"attempts", "budget", "budget_floor_per_second"})
LIMIT_KEYS: Final = frozenset({"requests_per_second", "requests_per_minute", "tokens_per_minute"})
MOST: Final = 1_000_000_000
BREAKER_KEYS: Final = frozenset({"failures", "failure_rate", "minimum_calls", "window_seconds", "open_seconds", "probes"})


def read_timeouts(table: Table, default: Timeouts) -> Timeouts:
    table.only(TIMEOUT_FIELDS)
    said = {
        field: table.number(key, default.total_s, DAY_S) for key, fields in TIMEOUT_FIELDS.items() if table.has(key) for field in fields
    }
    return replace(default, **said)


def read_retry(table: Table, default: RetryPolicy) -> RetryPolicy:
    table.only(RETRY_KEYS)
    return replace(
        default,
        attempts=table.integer("attempts", default.attempts, 1, 10),
        budget=table.number("budget", default.budget, 1, may_be_zero=True),
        budget_floor_per_s=table.number("budget_floor_per_second", default.budget_floor_per_s, 1000, may_be_zero=True),
    )


def read_breaker(table: Table, default: BreakerPolicy) -> BreakerPolicy:
    table.only(BREAKER_KEYS)
    return BreakerPolicy(
        failures=table.integer("failures", default.failures, 1, 10_000),
        failure_rate=table.number("failure_rate", default.failure_rate, 1),
        minimum_calls=table.integer("minimum_calls", default.minimum_calls, 1, 1_000_000),
        window_s=table.number("window_seconds", default.window_s, DAY_S),
        open_s=table.number("open_seconds", default.open_s, DAY_S),
        probes=table.integer("probes", default.probes, 1, 1000),
    )


def read_limits(table: Table) -> ProviderLimits:
    table.only(LIMIT_KEYS)
    return ProviderLimits(**{key: table.number(key, MOST, MOST) for key in LIMIT_KEYS if table.has(key)})
