"""Tells that much of a budget is spent: by a log event at once, and by a POST to the operator's address in its own time.

That it was told is in the books before it is told, so an alert comes once, and where the ledger is killed at that moment, not at all.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp

from joulegate.ledger.v1.budget_pb2 import BudgetScope
from services.ledger import metrics
from services.ledger.budgets import Alert, measure_name
from services.ledger.windows import SECOND
from services.runtime import logs

log = logs.get(__name__)

PAUSES_S: Final = (0.5, 2.0, 8.0)
TIMEOUT_S: Final = 10.0
# What waits for an address that does not answer; beyond it alerts are in the log only.
MAX_WAITING: Final = 1000


class Alerts:
    """Alerts to an address, or to the log alone when there is none."""

    def __init__(self, url: str | None, session: aiohttp.ClientSession | None, pauses_s: Sequence[float] = PAUSES_S) -> None:
        self._url = url
        self._session = session
        self._pauses_s = pauses_s
        self._waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(MAX_WAITING)

    def tell(self, alerts: Sequence[Alert]) -> None:
        """Logs alerts, and has them sent."""
        for alert in alerts:
            document = _document(alert)
            log.warning("budget_alert", **document)
            metrics.ALERTS.labels(str(alert.percent)).inc()
            if self._url is None:
                continue
            if self._waiting.full():
                log.error("budget_alert_not_sent", budget_id=alert.budget.budget_id, reason="too many are waiting")
            else:
                self._waiting.put_nowait(document)

    async def run(self) -> None:
        """Sends what is told, for ever."""
        while True:
            document = await self._waiting.get()
            if not await self._is_sent(document):
                log.error("budget_alert_not_sent", budget_id=document["budget_id"], reason="its address did not take it")

    async def _is_sent(self, document: dict[str, Any]) -> bool:
        assert self._url is not None
        assert self._session is not None
        for pause_s in (*self._pauses_s, None):
            try:
                timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
                async with self._session.post(self._url, json=document, timeout=timeout, allow_redirects=False) as response:
                    if 200 <= response.status < 300:
                        return True
            except (aiohttp.ClientError, TimeoutError) as error:
                log.debug("budget_alert_refused", error=type(error).__name__)
            if pause_s is not None:
                await asyncio.sleep(pause_s)
        return False


def _document(alert: Alert) -> dict[str, Any]:
    budget = alert.budget
    return {
        "budget_id": budget.budget_id,
        "name": budget.name,
        "scope": BudgetScope.Name(BudgetScope.ValueType(budget.scope)).removeprefix("BUDGET_SCOPE_").lower(),
        "scope_id": budget.scope_id,
        "measure": measure_name(budget.measure),
        "percent": alert.percent,
        "spent": alert.spent,
        "limit": budget.bound,
        "window_start": datetime.fromtimestamp(alert.bucket_ns // SECOND, UTC).isoformat(),
    }
