"""What the ledger measures of itself and of what it books."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from prometheus_client import Gauge

from joulegate.ledger.v1.entry_pb2 import Outcome
from services.ledger.records import Row
from services.runtime.metrics import Counter, counter, counters, histogram

ENTRIES = counters("joulegate_ledger_entries", "Rows booked, by outcome.", ["outcome"])
DELETED_ROWS = counter("joulegate_ledger_deleted_rows", "Rows deleted for their age.")
COMMITS = counters("joulegate_ledger_commits", "Transactions of the writer, by result.", ["result"])
BATCH_RECORDS = histogram(
    "joulegate_ledger_batch_records", "Intents and settlements in one commit.", (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
)
COMMIT_SECONDS = histogram(
    "joulegate_ledger_commit_seconds",
    "From the start of a transaction to its durable end.",
    (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
# 0.001 J to 1 MJ: a cached answer takes millijoules, a long one of a large model tens of kilojoules.
ENERGY_JOULES = histogram(
    "joulegate_ledger_energy_joules", "Energy of a row, point estimate.", [0.001 * 2.5**step for step in range(23)] + [1e6]
)
OPEN_INTENTS = Gauge("joulegate_ledger_open_intents", "Requests that wait for their settlement.")

RESERVATIONS = counters("joulegate_ledger_reservations", "Requests that asked to be let in, by what came of it.", ["result"])
OVERSHOOTS = counters("joulegate_ledger_budget_overshoots", "Times that more was booked than a budget had room for.", ["measure"])
ALERTS = counters("joulegate_ledger_budget_alerts", "Budgets of which so much is spent, in percent.", ["percent"])
MAX_BUDGETS: Final = 500
_shown_budgets: set[str] = set()
BUDGET_USED = Gauge("joulegate_ledger_budget_used_ratio", "Spent of a budget in its window, as a share of its limit.", ["budget_id"])

CARBON_POLLS = counters("joulegate_ledger_carbon_polls", "Questions to the live carbon source, by result.", ["source", "result"])
CARBON_FALLBACKS = counter("joulegate_ledger_carbon_fallbacks", "Rows with an annual average because the live source did not know.")


def budget_used(budget_id: str, ratio: float) -> None:
    """Shows a budget, but for those beyond so many that nobody looks at them."""
    if budget_id in _shown_budgets or len(_shown_budgets) < MAX_BUDGETS:
        _shown_budgets.add(budget_id)
        BUDGET_USED.labels(budget_id).set(ratio)


def rows_booked(rows: Sequence[Row]) -> None:
    """Counts the rows of a commit."""
    for row in rows:
        _entries(row.outcome).inc()
        ENERGY_JOULES.observe(row.energy_microjoules / 1e6)


@lru_cache(maxsize=64)
def _entries(outcome: int) -> Counter:
    # A router of a later version may send outcomes that have no name here yet.
    return ENTRIES.labels(Outcome.Name(Outcome.ValueType(outcome)) if outcome in Outcome.values() else "OTHER")
