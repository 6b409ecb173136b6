"""What one transaction knows of budgets, limits and leases, and what it changes of them.

Requests come in by a reservation or under a lease, hold something, and end by a settlement, a release or their loss. Each of these moves
amounts between rows, holds and leases; none of them makes or loses any.
"""

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from joulegate.ledger.v1.budget_pb2 import BudgetScope
from services.ledger.budgets import NOTHING, Alert, Amounts, Budget, Sheet
from services.ledger.leases import Lease, Pace
from services.ledger.rate_windows import RateLimits, RateState
from services.ledger.records import OpenIntent, Row, taken

MAX_PACES: Final = 10_000
_OF_KEY: Final = BudgetScope.BUDGET_SCOPE_KEY


@dataclass(slots=True)
class Funds:
    """`rates` has the callers of the batch that have limits, `leases` those that it names or that these callers have."""

    sheet: Sheet
    budgets: Mapping[str, Budget]
    limits: Callable[[str], RateLimits]
    rates: Mapping[str, RateState]
    leases: dict[str, Lease]
    # By the wall, and by the clock of the rates; both in nanoseconds.
    now_ns: int
    tick: int
    paces: MutableMapping[str, Pace]
    new_lease_id: Callable[[], str]
    # What an answer without a bound is bounded by where something limits its caller.
    unbounded_output_tokens: int
    put_leases: dict[str, Lease] = field(default_factory=dict)
    ended_leases: set[str] = field(default_factory=set)

    def take_up(self, intent: OpenIntent, lease_id: str, wanted: Amounts) -> OpenIntent:
        """Lets in what a router has let in under a lease. What that lacks is held all the same: the provider is being called."""
        self.use_lease(lease_id, intent.key_id, wanted)
        self.sheet.hold(intent.key_id, intent.created_ns, wanted)
        return intent.under_lease(wanted, self.count(intent.key_id, wanted.tokens))

    def has_budgets(self, key_id: str) -> bool:
        """Whether anything counts what a caller takes."""
        return bool(self.sheet.chain(key_id))

    def use_lease(self, lease_id: str, key_id: str, wanted: Amounts) -> None:
        """Takes one request out of a lease."""
        lease = self.leases.get(lease_id)
        state = self.rates.get(key_id)
        if lease is None:
            if state is not None:
                state.fill(self.limits(key_id), self.tick, 1)
            return
        # The next lease is for as many.
        self.note_pace(key_id, wanted)
        part = wanted.at_most(lease.left)
        requests, rate_tokens = min(1, lease.requests), min(wanted.tokens, lease.rate_tokens)
        self.sheet.free(lease.key_id, lease.created_ns, part)
        if state is not None:
            state.leased_requests -= requests
            state.leased_tokens -= rate_tokens
            # The bucket gave its request to the lease.
            state.fill(self.limits(key_id), self.tick, 1 - requests)
        self.put(lease.without(part, requests, rate_tokens))

    def count(self, key_id: str, tokens: int) -> int:
        """Counts a request in its caller's minute, and gives where."""
        state = self.rates.get(key_id)
        return 0 if state is None else state.take(self.tick, tokens)

    def note_pace(self, key_id: str, amounts: Amounts) -> Pace:
        """Counts a request in what its caller took of late."""
        pace = self.paces.get(key_id)
        if pace is None:
            if len(self.paces) >= MAX_PACES:
                self.paces.clear()
            pace = self.paces[key_id] = Pace(self.tick)
        pace.note(self.tick, amounts)
        return pace

    def book(self, before: Sequence[Row], after: Sequence[Row], opened: OpenIntent | None) -> None:
        """Books rows of one request in the place of others, and of what it held."""
        took = taken(after)
        held = NOTHING
        if opened is not None:
            held = opened.held
            self.correct(opened, took.tokens)
        rows = after or before
        if opened is not None and not (rows and rows[0].key_id == opened.key_id):
            self.sheet.free(opened.key_id, opened.created_ns, held)
            held = NOTHING
        if rows:
            self.sheet.spend(rows[0].key_id, rows[0].created_ns, took.minus(taken(before)) if before else took, held)

    def correct(self, opened: OpenIntent, tokens: int) -> None:
        """Counts the tokens that a request took in its caller's minute, and no longer those that it held."""
        state = self.rates.get(opened.key_id)
        if state is not None:
            state.correct(opened.rate_tick, tokens - opened.held_tokens)

    def put(self, lease: Lease) -> None:
        self.leases[lease.lease_id] = self.put_leases[lease.lease_id] = lease

    def end_lease(self, lease_id: str) -> None:
        """Gives back what is left of a lease. Nothing happens to one that is not there."""
        lease = self.leases.pop(lease_id, None)
        if lease is None:
            return
        self.put_leases.pop(lease_id, None)
        self.ended_leases.add(lease_id)
        self.sheet.free(lease.key_id, lease.created_ns, lease.left)
        state = self.rates.get(lease.key_id)
        if state is not None:
            state.leased_requests -= lease.requests
            state.leased_tokens -= lease.rate_tokens
            state.fill(self.limits(lease.key_id), self.tick, -lease.requests)

    def used_ratios(self) -> Iterator[tuple[str, float]]:
        """What is spent of budgets that have changed, as a share of their limits; but for those of keys, of which there may be many."""
        for budget_id, buckets in self.sheet.changed.items():
            budget = self.budgets[budget_id]
            if budget.scope != _OF_KEY and budget.bound > 0:
                spent = sum(balance.spent for _, balance in self.sheet.in_window(budget, max(buckets)))
                yield budget_id, spent / budget.bound

    def alerts(self) -> list[Alert]:
        """What is told of once everything is booked."""
        return self.sheet.alerts(self.budgets)
