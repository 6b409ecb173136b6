"""The books: every SQL statement of the ledger, the same on both stores.

One connection writes, on one thread; another reads, on another, and never waits for it. The statements are SQLAlchemy Core with
integers throughout. On SQLite this process is the only writer. PostgreSQL may have writers in several ledgers: each transaction there
first locks the requests that it is about. All that it reads of them it reads after that, and it stays true until the transaction ends.
"""

import secrets
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from services.ledger import chain_store, migration, prune_store
from services.ledger.booking import Batch, Changes, Known, Totals
from services.ledger.budget_store import FundsStore
from services.ledger.chain import Head, Linked, extend
from services.ledger.engines import Place, open_engine
from services.ledger.factors import FactorSet
from services.ledger.kept import KeptBooks
from services.ledger.limits import Limits
from services.ledger.records import OpenIntent, Row
from services.ledger.request_key import MARK, booked_ids
from services.ledger.reserving import HOLD_S
from services.ledger.schema import entries, intents, presence, superseded, totals
from services.ledger.statements import Among, Insertion, Statement
from services.ledger.windows import SECOND
from services.runtime.clock import Clock, SystemClock

# Requests of one slot wait for each other. Few enough that a server has room for the locks of many ledgers.
LOCK_SLOTS: Final = 64
# Rows of the totals that ledgers on one server choose from; a migration made them.
TOTALS_ROWS: Final = 16
_LOCK_SPACE: Final = 0x6A67

_row_columns = [entries.c[name] for name in Row._fields]
_linked_fields: Final = (*Row._fields, "chain", "link", "hash")
_intent_columns = [intents.c[name] for name in OpenIntent._fields]
_select_rows = Statement(sa.select(*_row_columns).where(Among(entries.c.request_id)).order_by(entries.c.attempt))
_select_open = Statement(sa.select(*_intent_columns).where(Among(intents.c.request_id)))
_select_all_open = Statement(sa.select(*_intent_columns))
_is_present = sa.exists().where(presence.c.router_id == intents.c.router_id, presence.c.until > sa.func.clock_timestamp())
_of_routers = sa.select(*_intent_columns).where(Among(intents.c.router_id))
_select_orphans = Statement(_of_routers)
_select_absent_orphans = Statement(_of_routers.where(~_is_present))
_select_expired = Statement(
    sa.select(*_intent_columns).where(intents.c.expires_ns > 0, intents.c.expires_ns < sa.bindparam("now", type_=sa.BigInteger()))
)
_extend = Statement(sa.update(intents).where(Among(intents.c.request_id)).values(expires_ns=sa.bindparam("until", type_=sa.BigInteger())))
_superseded_fields: Final = ["sequence", *_linked_fields]
_supersede_rows = Statement(
    sa.insert(superseded).from_select(
        _superseded_fields, sa.select(*(entries.c[name] for name in _superseded_fields)).where(Among(entries.c.request_id))
    )
)
_delete_rows = Statement(sa.delete(entries).where(Among(entries.c.request_id)))
_delete_intents = Statement(sa.delete(intents).where(Among(intents.c.request_id)))
_select_totals = sa.select(*(sa.cast(sa.func.sum(totals.c[name]), sa.BigInteger()) for name in Totals._fields))
_count_intents = sa.select(sa.func.count()).select_from(intents)
_add_to_totals = Statement(
    sa.update(totals)
    .where(totals.c.id == sa.bindparam("row"))
    .values({name: totals.c[name] + sa.bindparam(f"more_{name}") for name in Totals._fields})
    .values(links=sa.bindparam("new_links"), head=sa.bindparam("new_head"))
)
_select_waiting = sa.select(intents.c.router_id, sa.func.count()).group_by(intents.c.router_id)
# In the order of the slots, whoever asks: two transactions never wait for each other.
_lock_slots = Statement(
    sa.text("SELECT pg_advisory_xact_lock(:space, slot) FROM (SELECT unnest(CAST(:slots AS integer[])) AS slot ORDER BY 1) AS wanted")
)
_until = sa.func.clock_timestamp() + sa.func.make_interval(0, 0, 0, 0, 0, 0, sa.bindparam("seconds", type_=sa.Float()))
_insert_presence = postgresql.insert(presence).values(router_id=sa.bindparam("router"), until=_until)
_note_presence = _insert_presence.on_conflict_do_update(index_elements=["router_id"], set_={"until": _insert_presence.excluded.until})
_note_factors = sa.text(
    "INSERT INTO factor_sets (version, first_ns, document) VALUES (:version, :first_ns, :document) ON CONFLICT DO NOTHING"
)
_forget_presence = sa.delete(presence).where(presence.c.until < sa.func.clock_timestamp() - sa.func.make_interval(0, 0, 0, 1))


class Transaction:
    """One transaction of the writer."""

    def __init__(
        self,
        connection: sa.Connection,
        insertions: "_Insertions",
        totals_row: int,
        funds: FundsStore,
        clock: Clock,
        kept: KeptBooks | None = None,
    ) -> None:
        self._connection = connection
        # Where nobody else writes.
        self._kept = kept
        self._funds = funds
        self._clock = clock
        self._insert = insertions
        self._totals_row = totals_row
        self._is_shared = connection.dialect.name == "postgresql"

    def known(self, batch: Batch) -> Known:
        """What the books say about the requests and the gone routers of a batch."""
        keys = batch.keys()
        if batch.changes_balances:
            self._funds.share_definitions(self._connection)
        if self._funds.refresh(self._connection) and self._kept is not None:
            # What open requests hold may have changed, too.
            self._kept.forget()
        if self._is_shared and (slots := _slots(batch)):
            _lock_slots.run(self._connection, space=_LOCK_SPACE, slots=slots)
        rows, opened = self._requests({key.request_id for key in keys})
        began = {request_id: booked[0].created_ns for request_id, booked in rows.items()}
        ids = booked_ids(keys, began | {request_id: intent.created_ns for request_id, intent in opened.items()})
        derived_rows, derived_opened = self._requests({booked for key, booked in ids.items() if booked != key.request_id})
        orphans: list[OpenIntent] = []
        # A router that this ledger has lost may have found another.
        select_orphans = _select_absent_orphans if self._is_shared else _select_orphans
        if batch.gone_routers:
            orphans += [OpenIntent(*fields) for fields in select_orphans.all(self._connection, these=batch.gone_routers)]
        if batch.expires_holds:
            now_ns = int(self._clock.now() * 1e9)
            expired = [OpenIntent(*fields) for fields in _select_expired.all(self._connection, now=now_ns)]
            orphans += [intent for intent in expired if intent not in orphans]
        rows, opened = rows | derived_rows, opened | derived_opened | {orphan.request_id: orphan for orphan in orphans}
        funds = self._funds.funds(self._connection, batch, opened.values(), [row for booked in rows.values() for row in booked])
        return Known(ids, rows, opened, orphans, funds)

    def _requests(self, booked_ids: Collection[str]) -> tuple[dict[str, list[Row]], dict[str, OpenIntent]]:
        """The rows of those requests that have some, and the intents of those that are open."""
        rows: dict[str, list[Row]] = {}
        if not booked_ids:
            return rows, {}
        these = list(booked_ids)
        for fields in _select_rows.all(self._connection, these=these):
            rows.setdefault(fields[0], []).append(Row(*fields))
        if self._kept is not None:
            return rows, self._kept.open(these, lambda: (OpenIntent(*fields) for fields in _select_all_open.all(self._connection)))
        return rows, {fields[0]: OpenIntent(*fields) for fields in _select_open.all(self._connection, these=these)}

    def apply(self, changes: Changes) -> None:
        """Writes the changes."""
        linked: Sequence[Linked] = ()
        if changes.rows:
            linked, head = extend(self._head(), changes.rows)
            if self._kept is not None:
                self._kept.head = head
            more = {f"more_{name}": value for name, value in changes.totals._asdict().items()}
            ends = {"row": self._totals_row, "new_links": head.links, "new_head": head.hash}
            _add_to_totals.run(self._connection, **ends, **more)
        if changes.corrected_ids:
            _supersede_rows.run(self._connection, these=list(changes.corrected_ids))
            _delete_rows.run(self._connection, these=list(changes.corrected_ids))
        if changes.closed_ids:
            _delete_intents.run(self._connection, these=list(changes.closed_ids))
        self._insert.intents.run(self._connection, changes.opened)
        self._insert.rows.run(self._connection, [(*row, self._totals_row, link, digest) for row, link, digest in linked])
        until = changes.funds.now_ns + HOLD_S * SECOND
        if changes.extended_ids:
            _extend.run(self._connection, until=until, these=list(changes.extended_ids))
        if self._kept is not None:
            self._kept.note(changes, until)
        self._funds.save(self._connection, changes.funds)

    def _head(self) -> Head:
        if self._kept is not None and self._kept.head is not None:
            return self._kept.head
        # From here to the end no other ledger adds to this row of the totals and to its chain.
        return chain_store.locked_head(self._connection, self._totals_row)

    def note_presence(self, router_ids: Collection[str], seconds: float) -> None:
        """Tells the other ledgers that this one has these routers, for so long. Only on a shared store."""
        if router_ids:
            self._connection.execute(_note_presence, [{"router": name, "seconds": seconds} for name in sorted(router_ids)])


class _Insertions(NamedTuple):
    rows: Insertion
    intents: Insertion


@dataclass(frozen=True, slots=True)
class Terms:
    """What a writer lets requests in by."""

    limits: Limits = field(default_factory=Limits)
    clock: Clock = field(default_factory=SystemClock)
    # What an answer without a bound is bounded by where something limits its caller.
    unbounded_output_tokens: int = 4096


class Writer:
    """The connection that writes. For one thread."""

    def __init__(self, engine: sa.Engine, terms: Terms | None = None) -> None:
        terms = terms or Terms()
        self._engine = engine
        self._clock = terms.clock
        self.funds = FundsStore(engine.dialect, terms.limits, terms.clock, terms.unbounded_output_tokens)
        self._insertions = _Insertions(
            Insertion(entries, _linked_fields, engine.dialect), Insertion(intents, OpenIntent._fields, engine.dialect)
        )
        self._connection: sa.Connection | None = None
        # Whether other ledgers may write to the same books.
        self.is_shared = engine.dialect.name == "postgresql"
        self._totals_row = 1 + secrets.randbelow(TOTALS_ROWS) if self.is_shared else 1
        self._kept = None if self.is_shared else KeptBooks()
        # Transactions so far.
        self.commits = 0

    def create(self) -> None:
        """Brings the tables up to date. Raises BooksError when these are not books for this program."""
        migration.bring_up(self._engine)
        chain_store.link_up(self._engine)
        if self.is_shared:
            with self._engine.begin() as connection:
                connection.execute(_forget_presence)

    def reconnect(self) -> None:
        """Drops the connection; the next transaction makes a new one."""
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Durable when left without an exception, undone otherwise."""
        try:
            with self._begun() as connection:
                yield Transaction(connection, self._insertions, self._totals_row, self.funds, self._clock, self._kept)
        except BaseException:
            self._forget()
            raise
        self.commits += 1

    def _forget(self) -> None:
        self.funds.forget()
        if self._kept is not None:
            self._kept.forget()

    @contextmanager
    def _begun(self) -> Iterator[sa.Connection]:
        if self.is_shared:
            with self._engine.begin() as connection:
                yield connection
            return
        # There is one connection of the driver's whoever asks, and asking for it costs more than a statement.
        if self._connection is None:
            self._connection = self._engine.connect()
        with self._connection.begin():
            yield self._connection

    def prune(self, chain: int, before_ns: int, now_ns: int) -> int:
        """Deletes some of a chain's first rows that are older, and gives how many: 0 when no more can go. See retention."""
        if self._kept is not None:
            self._kept.head = None
        with self._engine.begin() as connection:
            if self.is_shared:
                # No record of any request is decided on while its rows go.
                _lock_slots.run(connection, space=_LOCK_SPACE, slots=list(range(LOCK_SLOTS)))
            return prune_store.prune(connection, chain, before_ns, now_ns)

    def note_factors(self, factors: FactorSet, now_ns: int) -> None:
        """Keeps what a version of the factors that rows name was, from its first use on."""
        with self._engine.begin() as connection:
            connection.execute(_note_factors, {"version": factors.version, "first_ns": now_ns, "document": factors.document})

    def recent_models(self, limit: int) -> list[tuple[str, str]]:
        """Providers and models of the latest rows."""
        latest = sa.select(entries.c.provider, entries.c.model).order_by(entries.c.sequence.desc()).limit(limit).subquery()
        with self._engine.connect() as connection:
            return [(row.provider, row.model) for row in connection.execute(sa.select(latest).distinct())]

    def lease_ids(self) -> list[str]:
        """All leases that there are."""
        with self._engine.connect() as connection:
            return self.funds.lease_ids(connection)

    def waiting_routers(self) -> dict[str, int]:
        """Routers that have open intents, and how many."""
        with self._engine.connect() as connection:
            return dict(map(tuple, connection.execute(_select_waiting)))


class Reader:
    """The connection that reads. For one thread."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def totals(self) -> tuple[Totals, int]:
        """The sums over all rows, and how many intents are open, at one moment."""
        with self._engine.connect() as connection:
            sums: Sequence[int] = connection.execute(_select_totals).one()
            return Totals(*sums), connection.scalar(_count_intents) or 0

    def entries(self, limit: int, before: int | None = None, request_id: str = "") -> list[tuple[int, Row]]:
        """Rows with their sequence numbers, newest first, below `before`; those of `request_id` are of all requests that came with it."""
        query = sa.select(entries.c.sequence, *_row_columns).order_by(entries.c.sequence.desc()).limit(limit)
        if before is not None:
            query = query.where(entries.c.sequence < before)
        if request_id:
            column, derived = entries.c.request_id, f"{request_id}{MARK}"
            # A range, which an index serves, and not LIKE, for which an id would have to be escaped.
            query = query.where(sa.or_(column == request_id, sa.and_(column >= derived, column < f"{request_id}{chr(ord(MARK) + 1)}")))
        with self._engine.connect() as connection:
            return [(sequence, Row(*fields)) for sequence, *fields in connection.execute(query)]


@contextmanager
def open_books(place: Place, synchronous: str, terms: Terms | None = None) -> Iterator[tuple[Writer, Reader]]:
    """Both connections to the books, which are brought up to date."""
    with ExitStack() as stack:
        writing = open_engine(place, synchronous)
        stack.callback(writing.dispose)
        writer = Writer(writing, terms)
        writer.create()
        reading = open_engine(place, synchronous, read_only=True)
        stack.callback(reading.dispose)
        yield writer, Reader(reading)


def _slots(batch: Batch) -> list[int]:
    """What a transaction on shared books has to lock. What a router leaves may be any request, and what expires too."""
    if batch.gone_routers or batch.expires_holds:
        return list(range(LOCK_SLOTS))
    # An id and those that are derived from it are one.
    plain_ids = {key.request_id.partition(MARK)[0] for key in batch.keys()}  # noqa: SIM118
    return sorted({zlib.crc32(plain_id.encode()) % LOCK_SLOTS for plain_id in plain_ids})
