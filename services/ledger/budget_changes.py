"""Changes of budgets, and of what keys say of them: balances are made anew from the rows, holds and leases in the same transaction.

Whoever changes something has it alone: on SQLite as the only writer of the moment, on PostgreSQL by a lock that all commits share.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from joulegate.ledger.v1.budget_pb2 import BudgetMeasure, BudgetScope, BudgetWindow, OnExhausted
from services.ledger.api_key import Key, KeyTerms
from services.ledger.budget_store import DEFINITIONS_LOCK
from services.ledger.budgets import Amounts, Balance, Budget, Sheet, is_counted
from services.ledger.engines import Place, open_engine
from services.ledger.records import HELD, OpenIntent
from services.ledger.schema import api_keys, budget_balances, budget_revision, budgets, checkpoints, entries, intents, leases
from services.ledger.windows import DAY, months

# What the id of a budget of a key's own field ends with, by the field.
OWN: Final = {
    "monthly_token_budget": (".monthly-tokens", BudgetMeasure.BUDGET_MEASURE_TOKENS),
    "monthly_cost_budget_nano_usd": (".monthly-usd", BudgetMeasure.BUDGET_MEASURE_USD),
}
# What a request holds that was let in when nothing bounded its caller.
Presume = Callable[[OpenIntent], Amounts]
# What commits go by of a key.
_TERMS: Final = ("team", "organisation", "tier", "requests_per_minute", "tokens_per_minute", *OWN)
_SCOPES: Final = ((BudgetScope.BUDGET_SCOPE_TEAM, "team"), (BudgetScope.BUDGET_SCOPE_ORGANISATION, "organisation"))
_MEASURED: Final = {
    BudgetMeasure.BUDGET_MEASURE_USD: entries.c.cost_nano_usd,
    BudgetMeasure.BUDGET_MEASURE_TOKENS: entries.c.input_tokens + entries.c.output_tokens,
    BudgetMeasure.BUDGET_MEASURE_JOULES: entries.c.energy_microjoules,
    BudgetMeasure.BUDGET_MEASURE_GCO2E: entries.c.carbon_micrograms,
}
_take_definitions = sa.text("SELECT pg_advisory_xact_lock(:definitions)")
_next_revision = sa.update(budget_revision).values(revision=budget_revision.c.revision + 1)
_budget_columns = [budgets.c[name] for name in Budget._fields]
_intent_columns = [intents.c[name] for name in OpenIntent._fields]


class View(NamedTuple):
    """A budget in its window of now. Times are in nanoseconds since 1970."""

    budget: Budget
    spent: int
    held: int
    # When the window began, and when it, or the oldest that is in it, ends.
    start_ns: int | None
    reset_ns: int | None


class BudgetWriter:
    """Changes budgets. For one thread."""

    def __init__(self, engine: sa.Engine, presume: Presume) -> None:
        self._engine = engine
        self._presume = presume

    def insert(self, budget: Budget, now_ns: int) -> bool:
        """Adds a budget with what is booked in its window; False when it is for a key that there is not."""
        with self._engine.begin() as connection, changed(connection):
            if budget.scope == BudgetScope.BUDGET_SCOPE_KEY and not _is_caller(connection, budget.scope_id):
                return False
            _insert(connection, budget, now_ns, self._presume)
        return True

    def change(self, budget_id: str, change: Callable[[Budget], Budget]) -> Budget | None:
        """Replaces a budget by what `change` makes of it, which counts the same; None when there is none."""
        with self._engine.begin() as connection, changed(connection):
            before = _find(connection, budget_id)
            if before is None:
                return None
            after = change(before)
            connection.execute(sa.update(budgets).where(budgets.c.budget_id == budget_id).values(**after._asdict()))
        return after

    def delete(self, budget_id: str) -> bool:
        """Forgets a budget; whether there was one."""
        with self._engine.begin() as connection, changed(connection):
            return _delete(connection, budget_id)

    def adopt_keys(self, now_ns: int) -> None:
        """Gives keys from before there were budgets those of their own fields."""
        has_field = sa.or_(*(api_keys.c[name].is_not(None) for name in OWN))
        has_none = ~sa.exists().where(budgets.c.scope == BudgetScope.BUDGET_SCOPE_KEY, budgets.c.scope_id == api_keys.c.key_id)
        with self._engine.begin() as connection, changed(connection):
            for row in connection.execute(sa.select(api_keys).where(has_field, has_none)).all():
                _own_budgets(connection, row.key_id, dict.fromkeys(OWN), row._asdict(), now_ns, self._presume)


class BudgetReader:
    """Finds budgets. For one thread."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def view(self, budget_id: str, now_ns: int) -> View | None:
        """A budget with what is used of it."""
        with self._engine.connect() as connection:
            budget = _find(connection, budget_id)
            return None if budget is None else _view(connection, budget, now_ns)

    def views(self, limit: int, after: str, now_ns: int) -> list[View]:
        """Budgets by their ids, from the one after `after`."""
        query = sa.select(*_budget_columns).where(budgets.c.budget_id > after).order_by(budgets.c.budget_id).limit(limit)
        with self._engine.connect() as connection:
            return [_view(connection, Budget(*fields), now_ns) for fields in connection.execute(query).all()]

    def everybody(self, start_ns: int) -> tuple[Amounts, dict[int, int]]:
        """What all calls since a moment took, and the limits of the enabled monthly budgets for everybody, by their measures."""
        calls = sa.select(*(_whole(sa.func.coalesce(sa.func.sum(column), 0)) for column in _MEASURED.values())).where(
            entries.c.attempt > 0, entries.c.created_ns >= start_ns
        )
        bounds = sa.select(budgets.c.measure, sa.func.min(budgets.c.bound)).where(
            budgets.c.scope == BudgetScope.BUDGET_SCOPE_GLOBAL,
            budgets.c.window_kind == BudgetWindow.BUDGET_WINDOW_MONTH,
            budgets.c.enabled,
        )
        with self._engine.connect() as connection:
            sums: Sequence[int] = connection.execute(calls).one()
            return Amounts(*sums), dict(map(tuple, connection.execute(bounds.group_by(budgets.c.measure)).all()))


@contextmanager
def changed(connection: sa.Connection) -> Iterator[None]:
    """Keeps commits away from here to the end of the transaction, and tells them that what they remember is over."""
    if connection.dialect.name == "postgresql":
        connection.execute(_take_definitions, {"definitions": DEFINITIONS_LOCK})
    yield
    connection.execute(_next_revision)


def follow_key(connection: sa.Connection, before: Key | None, after: Key, now_ns: int, presume: Presume) -> None:
    """Brings budgets to what a key says now. Within the transaction that changes the key, after its row was written."""
    old = {name: None if before is None else getattr(before.terms, name) for name in KeyTerms._fields}
    new = after.terms._asdict()
    if all(old[name] == new[name] for name in _TERMS):
        return
    with changed(connection):
        _own_budgets(connection, after.key_id, old, new, now_ns, presume)
        if before is None:
            return
        moved = [(scope, each[name]) for scope, name in _SCOPES if old[name] != new[name] for each in (old, new) if each[name]]
        for scope, scope_id in moved:
            found = connection.execute(sa.select(*_budget_columns).where(budgets.c.scope == scope, budgets.c.scope_id == scope_id)).all()
            for fields in found:
                _rebuild(connection, Budget(*fields), now_ns, presume)


def discrepancies(connection: sa.Connection, now_ns: int) -> Iterator[str]:
    """Balances that are not what the rows, holds and leases come to: a sentence for each. What was deleted for its age is not looked at."""
    deleted_ns = connection.scalar(sa.select(sa.func.coalesce(sa.func.max(checkpoints.c.before_ns), 0))) or 0
    for fields in connection.execute(sa.select(*_budget_columns).order_by(budgets.c.budget_id)).all():
        budget = Budget(*fields)
        kept, made = _kept(connection, budget), _made(connection, budget, now_ns)
        for bucket in sorted(kept.keys() | made.keys()):
            if bucket < deleted_ns or not is_counted(budget, bucket, now_ns):
                continue
            have, want = kept.get(bucket, Balance()), made.get(bucket, Balance())
            for name, mine, theirs in (("spent", have.spent, want.spent), ("held", have.held, want.held)):
                if mine != theirs:
                    yield f"budget {budget.budget_id!r}, window from {bucket}: {name} is {mine}, and the books come to {theirs}"


def _own_budgets(
    connection: sa.Connection, key_id: str, old: Mapping[str, Any], new: Mapping[str, Any], now_ns: int, presume: Presume
) -> None:
    for name, (ending, measure) in OWN.items():
        budget_id = key_id + ending
        if new[name] is None:
            _delete(connection, budget_id)
        elif old[name] is None:
            scope, month = BudgetScope.BUDGET_SCOPE_KEY, BudgetWindow.BUDGET_WINDOW_MONTH
            refuse = OnExhausted.ON_EXHAUSTED_REFUSE
            budget = Budget(budget_id, "", scope, key_id, measure, month, 0, new[name], refuse, "", True, now_ns, 0)
            _insert(connection, budget, now_ns, presume)
        elif old[name] != new[name]:
            connection.execute(sa.update(budgets).where(budgets.c.budget_id == budget_id).values(bound=new[name]))


def _insert(connection: sa.Connection, budget: Budget, now_ns: int, presume: Presume) -> None:
    budget = budget._replace(counted_from_ns=budget.window.oldest(now_ns))
    connection.execute(sa.insert(budgets).values(**budget._asdict()))
    _rebuild(connection, budget, now_ns, presume)


def _delete(connection: sa.Connection, budget_id: str) -> bool:
    connection.execute(sa.delete(budget_balances).where(budget_balances.c.budget_id == budget_id))
    return bool(connection.execute(sa.delete(budgets).where(budgets.c.budget_id == budget_id)).rowcount)


def _rebuild(connection: sa.Connection, budget: Budget, now_ns: int, presume: Presume) -> None:
    """Makes the balances of a budget anew; which alerts were given stays."""
    _hold_open(connection, budget, presume)
    kept = _kept(connection, budget)
    connection.execute(sa.delete(budget_balances).where(budget_balances.c.budget_id == budget.budget_id))
    rows = [
        {"budget_id": budget.budget_id, "bucket_ns": bucket, **balance._replace(alerted=kept.get(bucket, balance).alerted)._asdict()}
        for bucket, balance in _made(connection, budget, now_ns).items()
    ]
    if rows:
        connection.execute(sa.insert(budget_balances), rows)


def _hold_open(connection: sa.Connection, budget: Budget, presume: Presume) -> None:
    """Has the open requests of a budget's callers hold something that were let in when nothing bounded them: others must not take it."""
    query = sa.select(*_intent_columns).where(*(intents.c[name] == 0 for name in HELD), _is_in(budget, intents.c.key_id))
    for fields in connection.execute(query).all():
        intent = OpenIntent(*fields)
        held = dict(zip(HELD, presume(intent), strict=True))
        connection.execute(sa.update(intents).where(intents.c.request_id == intent.request_id).values(**held))


def _kept(connection: sa.Connection, budget: Budget) -> dict[int, Balance]:
    found = connection.execute(sa.select(budget_balances).where(budget_balances.c.budget_id == budget.budget_id))
    return {bucket: Balance(*balance) for _, bucket, *balance in found}


def _made(connection: sa.Connection, budget: Budget, now_ns: int) -> dict[int, Balance]:
    """The balances of a budget as the books have it: from its rows, and from what open requests and leases hold."""
    start_ns = max(budget.counted_from_ns, budget.window.oldest(budget.window.oldest(now_ns)) if budget.rolling_s else 0)
    made = {bucket: Balance(spent=spent) for bucket, spent in _spent(connection, budget, start_ns, now_ns)}
    sheet = Sheet(lambda _: [budget], {budget.budget_id: made}, now_ns)
    for fields in connection.execute(sa.select(*_intent_columns).where(_is_in(budget, intents.c.key_id))):
        intent = OpenIntent(*fields)
        sheet.hold(intent.key_id, intent.created_ns, intent.held)
    for lease in connection.execute(sa.select(leases).where(_is_in(budget, leases.c.key_id))):
        left = Amounts(lease.nano_usd, lease.tokens, lease.microjoules, lease.micrograms)
        sheet.hold(lease.key_id, lease.created_ns, left)
    return made | sheet.changed.get(budget.budget_id, {})


def _spent(connection: sa.Connection, budget: Budget, start_ns: int, now_ns: int) -> Iterable[tuple[int, int]]:
    amount = _whole(sa.func.sum(_MEASURED[BudgetMeasure.ValueType(budget.measure)]))
    is_call = sa.and_(entries.c.attempt > 0, _is_in(budget, entries.c.key_id))
    if budget.window_kind == BudgetWindow.BUDGET_WINDOW_MONTH:
        # Rows may be of a router whose clock is ahead.
        for first, last in months(start_ns, now_ns + 2 * DAY):
            spent = connection.scalar(sa.select(amount).where(is_call, entries.c.created_ns >= first, entries.c.created_ns < last))
            if spent:
                yield first, spent
        return
    width = DAY if budget.window_kind == BudgetWindow.BUDGET_WINDOW_DAY else budget.window.width
    bucket = entries.c.created_ns - entries.c.created_ns % sa.literal(width, sa.BigInteger())
    query = sa.select(bucket.label("bucket"), amount).where(is_call, entries.c.created_ns >= start_ns).group_by(sa.text("bucket"))
    yield from ((start, spent) for start, spent in connection.execute(query).all() if spent)


def _is_in(budget: Budget, key_id: sa.Column[str]) -> sa.ColumnElement[bool]:
    """Whether a caller is in the scope of a budget."""
    if budget.scope == BudgetScope.BUDGET_SCOPE_GLOBAL:
        return sa.true()
    if budget.scope == BudgetScope.BUDGET_SCOPE_KEY:
        return key_id == budget.scope_id
    member = api_keys.c.team if budget.scope == BudgetScope.BUDGET_SCOPE_TEAM else api_keys.c.organisation
    return key_id.in_(sa.select(api_keys.c.key_id).where(member == budget.scope_id))


def _is_caller(connection: sa.Connection, key_id: str) -> bool:
    """Whether an id is one of a key, or could be the mark of a caller without one."""
    if not key_id.startswith("key_"):
        return True
    return connection.scalar(sa.select(sa.exists().where(api_keys.c.key_id == key_id))) or False


def _find(connection: sa.Connection, budget_id: str) -> Budget | None:
    if "\0" in budget_id:
        return None
    found = connection.execute(sa.select(*_budget_columns).where(budgets.c.budget_id == budget_id)).one_or_none()
    return None if found is None else Budget(*found)


def _view(connection: sa.Connection, budget: Budget, now_ns: int) -> View:
    window = budget.window
    sheet = Sheet(lambda _: (), {budget.budget_id: _kept(connection, budget)}, now_ns)
    balances = dict(sheet.in_window(budget, now_ns))
    spent, held = sum(balance.spent for balance in balances.values()), sum(balance.held for balance in balances.values())
    if not window.is_rolling:
        start_ns = window.bucket(now_ns)
        return View(budget, spent, held, start_ns, window.leaves(start_ns))
    used = [bucket for bucket, balance in balances.items() if balance.spent or balance.held]
    return View(budget, spent, held, None, window.leaves(min(used)) if used else None)


def _whole(value: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
    return sa.cast(value, sa.BigInteger())


@contextmanager
def open_budgets(place: Place, synchronous: str, presume: Presume) -> Iterator[tuple[BudgetWriter, BudgetReader]]:
    """A connection that changes budgets and one that reads them, to books that are up to date."""
    writing, reading = open_engine(place, synchronous), open_engine(place, synchronous, read_only=True)
    try:
        yield BudgetWriter(writing, presume), BudgetReader(reading)
    finally:
        writing.dispose()
        reading.dispose()
