"""What the only writer of the books knows without asking: what it has read of them, and what it wrote since.

A commit that may not have been one forgets all of it, and who changes something of it in another way has that forgotten.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from services.ledger.booking import Changes
from services.ledger.budgets import Balance, Balances, Budget
from services.ledger.chain import Head
from services.ledger.records import OpenIntent

MAX_BUDGETS: Final = 50_000


class KeptBooks:
    """The end of the chain, and the requests that are open."""

    def __init__(self) -> None:
        self.head: Head | None = None
        self._intents: dict[str, OpenIntent] | None = None

    def open(self, request_ids: Collection[str], read: Callable[[], Iterable[OpenIntent]]) -> dict[str, OpenIntent]:
        """Those of these requests that are open. All that are in the books are read when they are not known yet."""
        intents = self._intents
        if intents is None:
            intents = self._intents = {intent.request_id: intent for intent in read()}
        return {request_id: intents[request_id] for request_id in request_ids if request_id in intents}

    def note(self, changes: Changes, extended_to_ns: int) -> None:
        """Follows what is written."""
        if self._intents is None:
            return
        for request_id in changes.closed_ids:
            self._intents.pop(request_id, None)
        for intent in changes.opened:
            self._intents[intent.request_id] = intent
        for request_id in changes.extended_ids:
            self._intents[request_id] = self._intents[request_id]._replace(expires_ns=extended_to_ns)

    def forget(self) -> None:
        self.head = self._intents = None


class KeptBalances:
    """The balances of budgets that were asked for."""

    def __init__(self) -> None:
        self._balances: dict[str, dict[int, Balance]] = {}

    def of(self, budgets: Mapping[str, Budget], since_ns: int, read: Callable[[Collection[str]], Balances]) -> Balances:
        """Those of these budgets, but for what has left their rolling windows before a time. Those that are not known yet are read."""
        if len(self._balances) > MAX_BUDGETS:
            self.forget()
        unknown = budgets.keys() - self._balances.keys()
        if unknown:
            found = read(unknown)
            self._balances.update((budget_id, dict(found.get(budget_id, {}))) for budget_id in unknown)
        return {budget_id: self._in_window(budget, since_ns) for budget_id, budget in budgets.items()}

    def _in_window(self, budget: Budget, since_ns: int) -> Mapping[int, Balance]:
        buckets = self._balances[budget.budget_id]
        if not budget.rolling_s:
            return buckets
        oldest = budget.window.oldest(since_ns)
        return {bucket: balance for bucket, balance in buckets.items() if bucket >= oldest}

    def note(self, budget_id: str, changed: Mapping[int, Balance], kept_from_ns: int = 0) -> None:
        """Follows what is written of a budget, of which nothing before a time stays."""
        buckets = self._balances[budget_id]
        buckets.update(changed)
        if kept_from_ns:
            for bucket in [bucket for bucket in buckets if bucket < kept_from_ns]:
                del buckets[bucket]

    def forget(self) -> None:
        self._balances.clear()
