"""Budgets: what may be spent, what was, and what running requests may still take.

A balance is two sums over the books: what the rows of a budget's scope in a bucket took, and what open intents and leases there hold. A
sheet is the balances that one transaction read and what it changes of them. `spent + held` of a window only grows by what was checked to
fit, at all levels at once; a settlement turns what was held into what was spent.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from joulegate.ledger.v1.budget_pb2 import BudgetMeasure
from services.ledger.windows import Window, when_fits

# Shares of a limit, in percent, that are told of once in each window.
ALERT_PERCENTS: Final = (80, 95)


_window: Final = lru_cache(maxsize=1024)(Window)


class Amounts(NamedTuple):
    """What calls take, in the order of BudgetMeasure: billionths of a US dollar, tokens, microjoules, micrograms of CO2 equivalent."""

    nano_usd: int = 0
    tokens: int = 0
    microjoules: int = 0
    micrograms: int = 0

    def of(self, measure: int) -> int:
        return self[measure - 1]

    def plus(self, other: "Amounts") -> "Amounts":
        return Amounts(self[0] + other[0], self[1] + other[1], self[2] + other[2], self[3] + other[3])

    def minus(self, other: "Amounts") -> "Amounts":
        return Amounts(self[0] - other[0], self[1] - other[1], self[2] - other[2], self[3] - other[3])

    def at_most(self, other: "Amounts") -> "Amounts":
        return Amounts(*map(min, self, other))


NOTHING: Final = Amounts()


class Budget(NamedTuple):
    """A budget as the ledger keeps it. Rows and holds from before `counted_from_ns` are not in its balances."""

    budget_id: str
    name: str
    scope: int
    scope_id: str
    measure: int
    window_kind: int
    rolling_s: int
    # The measure's units.
    bound: int
    on_exhausted: int
    downgrade_model: str
    enabled: bool
    created_ns: int
    counted_from_ns: int

    @property
    def window(self) -> Window:
        return _window(self.window_kind, self.rolling_s)


class Balance(NamedTuple):
    """One bucket of a budget. `alerted` is the highest share that was told of."""

    spent: int = 0
    held: int = 0
    alerted: int = 0


EMPTY: Final = Balance()
# By budget, then by when the bucket begins.
Balances = Mapping[str, Mapping[int, Balance]]


class Shortage(NamedTuple):
    """A budget that lacks room, and when it will have some: None where that is never or not known."""

    budget: Budget
    free_at_ns: int | None
    # The room would be there if nothing were held.
    is_held_only: bool


class Alert(NamedTuple):
    """A share of a budget that was reached."""

    budget: Budget
    percent: int
    spent: int
    bucket_ns: int


class Overshoot(NamedTuple):
    """A budget that has more in it than its limit, by what could not be foreseen."""

    budget_id: str
    measure: int
    by: int


class Sheet:
    """The balances of one transaction. `chain` gives the budgets of a caller by its id in the books: its own first, everybody's last."""

    def __init__(self, chain: Callable[[str], Sequence[Budget]], balances: Balances, now_ns: int) -> None:
        self.chain = chain
        self._balances = balances
        self._now_ns = now_ns
        self.changed: dict[str, dict[int, Balance]] = {}
        self.overshoots: list[Overshoot] = []

    def balance(self, budget_id: str, bucket: int) -> Balance:
        changed = self.changed.get(budget_id, {}).get(bucket)
        return changed or self._balances.get(budget_id, {}).get(bucket, EMPTY)

    def has_new(self, budget_id: str) -> bool:
        """Whether a bucket was begun."""
        return not self.changed.get(budget_id, {}).keys() <= self._balances.get(budget_id, {}).keys()

    def in_window(self, budget: Budget, at: int) -> Iterator[tuple[int, Balance]]:
        """The buckets that count for a request that begins at a moment."""
        window = budget.window
        if not window.is_rolling:
            bucket = window.bucket(at)
            yield bucket, self.balance(budget.budget_id, bucket)
            return
        known = {**self._balances.get(budget.budget_id, {}), **self.changed.get(budget.budget_id, {})}
        for bucket, balance in known.items():
            if window.counts(bucket, at):
                yield bucket, balance

    def room(self, budget: Budget, at: int) -> int:
        """What still fits for a request that begins then; negative when there is too much already."""
        window = budget.window
        if not window.is_rolling:
            balance = self.balance(budget.budget_id, window.bucket(at))
            return budget.bound - balance.spent - balance.held
        return budget.bound - sum(balance.spent + balance.held for _, balance in self.in_window(budget, at))

    def rooms(self, key_id: str, at: int) -> list[int | None]:
        """What still fits of each measure at all levels together; None: nothing bounds it."""
        rooms: list[int | None] = [None] * len(NOTHING)
        for budget in self.chain(key_id):
            if budget.enabled:
                room, known = self.room(budget, at), rooms[budget.measure - 1]
                rooms[budget.measure - 1] = room if known is None else min(known, room)
        return rooms

    def shortage(self, key_id: str, at: int, amounts: Amounts) -> Shortage | None:
        """The budget that has the least chance to take the amounts soon; None when they fit everywhere."""
        short = [
            self._shortage(budget, at, amounts.of(budget.measure))
            for budget in self.chain(key_id)
            if budget.enabled and self.room(budget, at) < amounts.of(budget.measure)
        ]
        return max(short, key=_wait, default=None)

    def _shortage(self, budget: Budget, at: int, amount: int) -> Shortage:
        balances = list(self.in_window(budget, at))
        excess = amount - budget.bound
        spent = sum(balance.spent for _, balance in balances)
        if excess > 0:
            return Shortage(budget, None, False)
        used = [(bucket, balance.spent + balance.held) for bucket, balance in balances]
        missing = excess + sum(amount for _, amount in used)
        return Shortage(budget, when_fits(budget.window, used, at, missing), spent + excess <= 0)

    def hold(self, key_id: str, at: int, amounts: Amounts) -> None:
        """Sets amounts aside at all levels, whether they fit or not."""
        self._add(key_id, at, NOTHING, amounts)
        self._note_overshoots(key_id, at, amounts)

    def hold_checked(self, key_id: str, at: int, amounts: Amounts) -> None:
        """Sets amounts aside that were seen to fit."""
        self._add(key_id, at, NOTHING, amounts)

    def free(self, key_id: str, at: int, amounts: Amounts) -> None:
        """Gives back what was held."""
        self._add(key_id, at, NOTHING, NOTHING.minus(amounts))

    def spend(self, key_id: str, at: int, taken: Amounts, held: Amounts = NOTHING) -> None:
        """Books what a request took instead of what it held."""
        self._add(key_id, at, taken, NOTHING.minus(held))
        self._note_overshoots(key_id, at, taken.minus(held))

    def _add(self, key_id: str, at: int, spent: Amounts, held: Amounts) -> None:
        for budget in self.chain(key_id):
            place = budget.measure - 1
            more_spent, more_held = spent[place], held[place]
            if not (more_spent or more_held) or not is_counted(budget, at, self._now_ns):
                continue
            bucket = budget.window.bucket(at)
            changed = self.changed.setdefault(budget.budget_id, {})
            spent_before, held_before, alerted = changed.get(bucket) or self.balance(budget.budget_id, bucket)
            # Held is never negative: what is given back was set aside in the same bucket of the same budget.
            changed[bucket] = Balance(spent_before + more_spent, held_before + more_held, alerted)

    def _note_overshoots(self, key_id: str, at: int, more: Amounts) -> None:
        for budget in self.chain(key_id):
            if budget.enabled and more[budget.measure - 1] > 0 and (room := self.room(budget, at)) < 0:
                self.overshoots.append(Overshoot(budget.budget_id, budget.measure, -room))

    def alerts(self, budgets: Mapping[str, Budget]) -> list[Alert]:
        """Shares of changed budgets that are reached for the first time in their window, which is noted."""
        reached = []
        for budget_id, buckets in list(self.changed.items()):
            budget = budgets.get(budget_id)
            if budget is None or not budget.enabled or budget.bound <= 0:
                continue
            newest = max(buckets)
            balances = [balance for _, balance in self.in_window(budget, newest)]
            spent, told = sum(balance.spent for balance in balances), max(balance.alerted for balance in balances)
            percent = max((each for each in ALERT_PERCENTS if each > told and spent * 100 >= each * budget.bound), default=0)
            if percent:
                buckets[newest] = buckets[newest]._replace(alerted=percent)
                reached.append(Alert(budget, percent, spent, newest))
        return reached


def is_counted(budget: Budget, at: int, now_ns: int) -> bool:
    """Whether a budget's balances have what begins at a moment. Of a rolling window, what is older than two of its length is forgotten."""
    if at < budget.counted_from_ns:
        return False
    if not budget.rolling_s:
        return True
    window = budget.window
    return at >= window.oldest(window.oldest(now_ns))


def _wait(shortage: Shortage) -> tuple[bool, bool, int]:
    return shortage.free_at_ns is None, not shortage.is_held_only, shortage.free_at_ns or 0


def measure_name(measure: int) -> str:
    """As people say it."""
    return BudgetMeasure.Name(BudgetMeasure.ValueType(measure)).removeprefix("BUDGET_MEASURE_").lower()
