"""Budgets, leases and rates in the books: every SQL statement that a commit needs of them, the same on both stores.

What budgets there are, and what keys say of them, is remembered until its revision changes. So are balances, where no other ledger writes
any. On PostgreSQL they are read anew each time: whoever changes budgets or keys has a lock that all commits share, and a commit also locks
the budgets that it is about, in the order of their slots and after those of its requests, so what it reads stays true until it ends.
"""

import secrets
import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from joulegate.ledger.v1.budget_pb2 import BudgetScope
from services.ledger import rate_windows
from services.ledger.booking import Batch
from services.ledger.budgets import Balance, Balances, Budget, Sheet
from services.ledger.funds import Funds
from services.ledger.kept import KeptBalances
from services.ledger.leases import KeptLeases, Lease, Pace
from services.ledger.limits import Limits
from services.ledger.rate_windows import MINUTE, RateLimits, RateState
from services.ledger.records import OpenIntent, Row
from services.ledger.schema import api_keys, budget_balances, budget_revision, budgets, entries, intents, leases, rate_states
from services.ledger.statements import Among, Statement
from services.runtime.clock import Clock

# Whoever changes budgets has this lock alone; commits share it.
DEFINITIONS_LOCK: Final = 0x6A67627564
LOCK_SLOTS: Final = 64
_LOCK_SPACE: Final = 0x6A68
# Callers that are remembered: clients without keys may be many.
MAX_CALLERS: Final = 50_000

_share_definitions = Statement(sa.text("SELECT pg_advisory_xact_lock_shared(:definitions)"))
_lock_slots = Statement(
    sa.text("SELECT pg_advisory_xact_lock(:space, slot) FROM (SELECT unnest(CAST(:slots AS integer[])) AS slot ORDER BY 1) AS wanted")
)
_select_revision = Statement(sa.select(budget_revision.c.revision))
_key_columns = [api_keys.c[name] for name in ("key_id", "team", "organisation", "tier", "requests_per_minute", "tokens_per_minute")]
_select_keys = Statement(sa.select(*_key_columns).where(Among(api_keys.c.key_id)))
_select_budgets = Statement(
    sa.select(*(budgets.c[name] for name in Budget._fields))
    .where(budgets.c.scope == sa.bindparam("scope"), Among(budgets.c.scope_id))
    .order_by(budgets.c.budget_id)
)
_select_balances = Statement(
    sa.select(budget_balances).where(
        Among(budget_balances.c.budget_id), budget_balances.c.bucket_ns >= sa.bindparam("since", type_=sa.BigInteger())
    )
)
_lease_columns = [leases.c[name] for name in Lease._fields]
_select_leases = Statement(sa.select(*_lease_columns).where(Among(leases.c.lease_id)))
_select_leases_of_keys = Statement(sa.select(*_lease_columns).where(Among(leases.c.key_id)))
_select_leases_of_routers = Statement(sa.select(*_lease_columns).where(Among(leases.c.router_id)))
_select_all_leases = Statement(sa.select(*_lease_columns))
_select_lease_ids = sa.select(leases.c.lease_id)
_delete_leases = Statement(sa.delete(leases).where(Among(leases.c.lease_id)))
_select_rates = Statement(sa.select(rate_states.c.key_id, rate_states.c.state).where(Among(rate_states.c.key_id)))
_forget_rates = Statement(sa.delete(rate_states).where(rate_states.c.updated_ns < sa.bindparam("before", type_=sa.BigInteger())))
_database_ns = Statement(sa.text("SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000000 AS BIGINT)"))
_prune = Statement(
    sa.delete(budget_balances).where(
        budget_balances.c.budget_id == sa.bindparam("budget"), budget_balances.c.bucket_ns < sa.bindparam("before", type_=sa.BigInteger())
    )
)
_is_call = sa.case((entries.c.attempt > 0, entries.c.input_tokens + entries.c.output_tokens), else_=0)
_select_recent_rows = Statement(
    sa.select(entries.c.created_ns, sa.literal(1), sa.cast(sa.func.sum(_is_call), sa.BigInteger()))
    .where(entries.c.key_id == sa.bindparam("key"), entries.c.created_ns > sa.bindparam("since", type_=sa.BigInteger()))
    .group_by(entries.c.request_id, entries.c.created_ns)
)
_select_recent_intents = Statement(
    sa.select(intents.c.created_ns, sa.literal(1), intents.c.held_tokens).where(
        intents.c.key_id == sa.bindparam("key"), intents.c.created_ns > sa.bindparam("since", type_=sa.BigInteger())
    )
)


class Caller(NamedTuple):
    """What a key says of budgets and limits; nothing for who has none."""

    team: str = ""
    organisation: str = ""
    tier: str = ""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


_NOBODY: Final = Caller()
_Scope = tuple[int, str]


class Definitions:
    """What budgets there are and what keys say, as of one revision."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._revision = 0
        self._callers: dict[str, Caller] = {}
        self._budgets: dict[_Scope, tuple[Budget, ...]] = {}
        # By caller: asked for several times in each request.
        self._chains: dict[str, tuple[Budget, ...]] = {}

    def refresh(self, connection: sa.Connection) -> bool:
        """Forgets what is over; whether that was so."""
        revision = next((each for (each,) in _select_revision.all(connection)), 0)
        was_known, is_over = bool(self._revision), revision != self._revision
        if is_over or len(self._callers) > MAX_CALLERS:
            self._callers.clear()
            self._budgets.clear()
            self._chains.clear()
            self._revision = revision
        return was_known and is_over

    def forget(self) -> None:
        self._revision = 0

    def learn(self, connection: sa.Connection, key_ids: Collection[str]) -> None:
        """Reads what is not known of these callers yet."""
        new = [key_id for key_id in key_ids if key_id not in self._callers]
        if not new:
            return
        for key_id, *said in _select_keys.all(connection, these=new):
            self._callers[key_id] = Caller(*said)
        for key_id in new:
            self._callers.setdefault(key_id, _NOBODY)
        wanted = {scope for key_id in new for scope in self._scopes(key_id)} - self._budgets.keys()
        by_kind: dict[int, list[str]] = {}
        for kind, scope_id in sorted(wanted):
            by_kind.setdefault(kind, []).append(scope_id)
        found: dict[_Scope, list[Budget]] = {scope: [] for scope in wanted}
        for kind, scope_ids in by_kind.items():
            for fields in _select_budgets.all(connection, scope=kind, these=scope_ids):
                budget = Budget(*fields)
                found[kind, budget.scope_id].append(budget)
        self._budgets.update((scope, tuple(each)) for scope, each in found.items())

    def chain(self, key_id: str) -> tuple[Budget, ...]:
        """The budgets of a caller that was learnt, its own first."""
        chain = self._chains.get(key_id)
        if chain is None:
            chain = self._chains[key_id] = tuple(budget for scope in self._scopes(key_id) for budget in self._budgets[scope])
        return chain

    def limits(self, key_id: str) -> RateLimits:
        caller = self._callers[key_id]
        return self._limits.of(caller.tier, caller.requests_per_minute, caller.tokens_per_minute)

    def _scopes(self, key_id: str) -> Iterator[_Scope]:
        caller = self._callers[key_id]
        yield BudgetScope.BUDGET_SCOPE_KEY, key_id
        if caller.team:
            yield BudgetScope.BUDGET_SCOPE_TEAM, caller.team
        if caller.organisation:
            yield BudgetScope.BUDGET_SCOPE_ORGANISATION, caller.organisation
        yield BudgetScope.BUDGET_SCOPE_GLOBAL, ""


class FundsStore:
    """What commits know of budgets, leases and rates. For the writer's thread."""

    def __init__(self, dialect: sa.Dialect, limits: Limits, clock: Clock, unbounded_output_tokens: int) -> None:
        self._is_shared = dialect.name == "postgresql"
        self._clock = clock
        self._unbounded_output_tokens = unbounded_output_tokens
        self._definitions = Definitions(limits)
        # Where this ledger is the only one. What is not here is found in the rows.
        self._rates: OrderedDict[str, RateState] = OrderedDict()
        self._leases: KeptLeases | None = None
        self._kept_balances: KeptBalances | None = None if self._is_shared else KeptBalances()
        self._paces: dict[str, Pace] = {}
        self._rates_forgotten_at = 0
        self._put_balances = _upsert(budget_balances, dialect)
        self._put_leases = _upsert(leases, dialect)
        self._put_rates = _upsert(rate_states, dialect)
        # Whether leases that were given out before are over, because what they go by has changed.
        self.revokes_leases = False

    def share_definitions(self, connection: sa.Connection) -> None:
        """Before anything else of a commit that may change balances."""
        if self._is_shared:
            _share_definitions.run(connection, definitions=DEFINITIONS_LOCK)

    def refresh(self, connection: sa.Connection) -> bool:
        """Forgets what was said of budgets and keys if that has changed; whether it has. After `share_definitions`."""
        self.revokes_leases = self._definitions.refresh(connection)
        if self.revokes_leases and self._kept_balances is not None:
            self._kept_balances.forget()
        return self.revokes_leases

    def funds(self, connection: sa.Connection, batch: Batch, opened: Iterable[OpenIntent], rows: Iterable[Row]) -> Funds:
        """What a batch needs, after the requests that it is about are locked: also of those who have these open requests and rows."""
        opened, rows = list(opened), list(rows)
        found = self._named(connection, batch)
        seen: list[OpenIntent | Row | Lease] = [*opened, *rows, *found.values()]
        callers = batch.callers() | {each.key_id for each in seen}
        self._definitions.learn(connection, callers)
        chain = self._definitions.chain
        concerned = {budget.budget_id: budget for key_id in callers for budget in chain(key_id)}
        limited = [key_id for key_id in callers if not self._definitions.limits(key_id).are_none]
        self._lock(connection, [*concerned, *(f"rate {key_id}" for key_id in limited)])
        if self._is_shared and found:
            # They may have changed, or ended, before their callers were locked.
            found = self._select(connection, _select_leases, found)
        if limited:
            found |= self._of_keys(connection, limited)
        now_ns = int(self._clock.now() * 1e9)
        tick = self._tick(connection)
        oldest = min([now_ns, *(each.created_ns for each in seen), *(key.created_ns for key in batch.keys())])  # noqa: SIM118
        return Funds(
            Sheet(chain, self._balances(connection, concerned, oldest), now_ns),
            concerned,
            self._definitions.limits,
            self._states(connection, limited, found.values(), now_ns, tick),
            found,
            now_ns,
            tick,
            self._paces,
            lambda: secrets.token_hex(8),
            self._unbounded_output_tokens,
        )

    def save(self, connection: sa.Connection, funds: Funds) -> None:
        """Writes what has changed."""
        for budget_id, buckets in funds.sheet.changed.items():
            budget, kept = funds.budgets[budget_id], 0
            if budget.rolling_s and funds.sheet.has_new(budget_id):
                window = budget.window
                kept = window.oldest(window.oldest(window.oldest(window.oldest(funds.now_ns))))
                _prune.run(connection, budget=budget_id, before=kept)
            rows = [{"budget_id": budget_id, "bucket_ns": bucket, **balance._asdict()} for bucket, balance in sorted(buckets.items())]
            self._put_balances.run_each(connection, rows)
            if self._kept_balances is not None:
                self._kept_balances.note(budget_id, buckets, kept)
        self._save_leases(connection, funds)
        if self._is_shared and funds.rates:
            rates = [{"key_id": key_id, "state": state.encode(), "updated_ns": funds.tick} for key_id, state in sorted(funds.rates.items())]
            self._put_rates.run_each(connection, rates)
            if funds.tick - self._rates_forgotten_at > MINUTE:
                self._rates_forgotten_at = funds.tick
                _forget_rates.run(connection, before=funds.tick - 60 * MINUTE)

    def _save_leases(self, connection: sa.Connection, funds: Funds) -> None:
        put = list(funds.put_leases.values())
        if self._leases is not None:
            # What was used of a limit on speed alone is known here. After a restart a lease counts in full, until it ends.
            put = [lease for lease in put if (before := self._leases.get(lease.lease_id)) is None or lease.left != before.left]
            for lease in funds.put_leases.values():
                self._leases.put(lease)
            for lease_id in funds.ended_leases:
                self._leases.end(lease_id)
        if put:
            self._put_leases.run_each(connection, [lease._asdict() for lease in put])
        if funds.ended_leases:
            _delete_leases.run(connection, these=list(funds.ended_leases))

    def forget(self) -> None:
        """After a commit that may not have been one."""
        self._definitions.forget()
        self._rates.clear()
        self._leases = None
        if self._kept_balances is not None:
            self._kept_balances.forget()

    def lease_ids(self, connection: sa.Connection) -> list[str]:
        """All leases that there are."""
        return list(connection.scalars(_select_lease_ids))

    def _lock(self, connection: sa.Connection, names: Collection[str]) -> None:
        if self._is_shared and names:
            slots = sorted({zlib.crc32(name.encode()) % LOCK_SLOTS for name in names})
            _lock_slots.run(connection, space=_LOCK_SPACE, slots=slots)

    def _named(self, connection: sa.Connection, batch: Batch) -> dict[str, Lease]:
        """The leases that a batch names, and those of routers that are gone, which end."""
        if self._is_shared:
            found = self._select(connection, _select_leases, batch.lease_ids())
            gone = self._select(connection, _select_leases_of_routers, batch.gone_routers)
        else:
            kept = self._kept(connection)
            found, gone = kept.these(batch.lease_ids()), kept.of_routers(batch.gone_routers)
        batch.ended_lease_ids += gone
        return found | gone

    def _of_keys(self, connection: sa.Connection, key_ids: Collection[str]) -> dict[str, Lease]:
        return self._select(connection, _select_leases_of_keys, key_ids) if self._is_shared else self._kept(connection).of_keys(key_ids)

    def _kept(self, connection: sa.Connection) -> KeptLeases:
        if self._leases is None:
            self._leases = KeptLeases(Lease(*fields) for fields in _select_all_leases.all(connection))
        return self._leases

    @staticmethod
    def _select(connection: sa.Connection, query: Statement, these: Collection[str]) -> dict[str, Lease]:
        return {fields[0]: Lease(*fields) for fields in query.all(connection, these=list(these))} if these else {}

    def _tick(self, connection: sa.Connection) -> int:
        """By a clock that all ledgers share, or by one that never jumps."""
        return int(_database_ns.all(connection)[0][0]) if self._is_shared else int(self._clock.monotonic() * 1e9)

    def _balances(self, connection: sa.Connection, concerned: Mapping[str, Budget], oldest_ns: int) -> Balances:
        if not concerned:
            return {}
        if self._kept_balances is not None:
            return self._kept_balances.of(concerned, oldest_ns, lambda budget_ids: _read_balances(connection, budget_ids, 0))
        return _read_balances(connection, concerned, min(budget.window.oldest(oldest_ns) for budget in concerned.values()))

    def _states(
        self, connection: sa.Connection, limited: Sequence[str], found: Iterable[Lease], now_ns: int, tick: int
    ) -> dict[str, RateState]:
        kept: Mapping[str, RateState] = self._rates
        if self._is_shared and limited:
            found_states = _select_rates.all(connection, these=list(limited))
            kept = {key_id: rate_windows.decode(bytes(state), tick) for key_id, state in found_states}
        states = {key_id: kept.get(key_id) or self._restored(connection, key_id, now_ns, tick) for key_id in limited}
        if not self._is_shared:
            for key_id, state in states.items():
                self._rates[key_id] = state
                self._rates.move_to_end(key_id)
            while len(self._rates) > MAX_CALLERS:
                self._rates.popitem(last=False)
        for state in states.values():
            state.leased_requests = state.leased_tokens = 0
        for lease in found:
            if lease.key_id in states:
                states[lease.key_id].leased_requests += lease.requests
                states[lease.key_id].leased_tokens += lease.rate_tokens
        return states

    def _restored(self, connection: sa.Connection, key_id: str, now_ns: int, tick: int) -> RateState:
        """What the books say of a caller's last minute."""
        of_key = {"key": key_id, "since": now_ns - MINUTE}
        recent = [*_select_recent_rows.all(connection, **of_key), *_select_recent_intents.all(connection, **of_key)]
        return rate_windows.restored(sorted((tick - max(0, now_ns - created_ns), count, tokens) for created_ns, count, tokens in recent))


def _read_balances(connection: sa.Connection, budget_ids: Collection[str], since_ns: int) -> dict[str, dict[int, Balance]]:
    found: dict[str, dict[int, Balance]] = {}
    for budget_id, bucket, *balance in _select_balances.all(connection, since=since_ns, these=list(budget_ids)):
        found.setdefault(budget_id, {})[bucket] = Balance(*balance)
    return found


def _upsert(table: sa.Table, dialect: sa.Dialect) -> Statement:
    """Inserts rows of a table, or replaces those with the same key."""
    insert = postgresql.insert(table) if dialect.name == "postgresql" else sqlite.insert(table)
    kept = {column.name for column in table.primary_key}
    changed = {column.name: insert.excluded[column.name] for column in table.columns if column.name not in kept}
    return Statement(insert.inline().on_conflict_do_update(index_elements=sorted(kept), set_=changed))
