"""The books on disk: every SQL statement of the ledger.

One connection writes, on one thread; another reads, on another, and never waits for it (WAL). The statements are SQLAlchemy Core with
integers throughout and no dialect's specialities: another database is another `open_engine`.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from services.ledger.booking import Batch, Changes, Known, Totals
from services.ledger.records import OpenIntent, Row
from services.ledger.request_key import MARK, booked_ids

BUSY_MILLISECONDS: Final = 5000
# Parameters of one IN list: well under what any database takes.
_CHUNK: Final = 500

_metadata = sa.MetaData()
# SQLite counts rows only in a column that is called INTEGER; it is 64 bits wide there.
_sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _column(name: str, kind: type) -> sa.Column[Any]:
    types: dict[type, sa.types.TypeEngine[Any]] = {str: sa.Text(), int: sa.BigInteger(), bool: sa.Boolean()}
    return sa.Column(name, types[kind], nullable=False)


# A number that was given out is never given out again, or pages would shift when a LOST row is replaced.
_entries = sa.Table(
    "entries",
    _metadata,
    sa.Column("sequence", _sequence, primary_key=True, autoincrement=True),
    *(_column(name, kind) for name, kind in Row.__annotations__.items()),
    sa.UniqueConstraint("request_id", "attempt"),
    sqlite_autoincrement=True,
)
_intents = sa.Table(
    "intents",
    _metadata,
    sa.Column("request_id", sa.Text(), primary_key=True),
    *(_column(name, kind) for name, kind in OpenIntent.__annotations__.items() if name != "request_id"),
    sa.Index("intents_by_router", "router_id"),
)
_totals = sa.Table(
    "totals",
    _metadata,
    sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
    *(_column(name, kind) for name, kind in Totals.__annotations__.items()),
)

_row_columns = [_entries.c[name] for name in Row._fields]
_intent_columns = [_intents.c[name] for name in OpenIntent._fields]
# Built once: building a statement costs more than running it.
_these: sa.BindParameter[Any] = sa.bindparam("these", expanding=True)
_select_rows = sa.select(*_row_columns).where(_entries.c.request_id.in_(_these)).order_by(_entries.c.attempt)
_select_open = sa.select(_intents.c.request_id, _intents.c.created_ns).where(_intents.c.request_id.in_(_these))
_select_orphans = sa.select(*_intent_columns).where(_intents.c.router_id.in_(_these))
_delete_rows = sa.delete(_entries).where(_entries.c.request_id.in_(_these))
_delete_intents = sa.delete(_intents).where(_intents.c.request_id.in_(_these))
_select_totals = sa.select(*(_totals.c[name] for name in Totals._fields))
_count_intents = sa.select(sa.func.count()).select_from(_intents)
_add_to_totals = sa.update(_totals).values({name: _totals.c[name] + sa.bindparam(f"more_{name}") for name in Totals._fields})


def open_engine(path: Path, synchronous: str, read_only: bool = False) -> sa.Engine:
    """An engine on an SQLite file. `synchronous` is `full` or `normal`."""
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)), poolclass=sa.StaticPool, connect_args={"check_same_thread": False}
    )

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        # Transactions are begun below; the driver's own idea of when to begin one leaves reads outside.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute(f"PRAGMA busy_timeout={BUSY_MILLISECONDS}")
        connection.execute(f"PRAGMA query_only={int(read_only)}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


class _Insert:
    """An insert of many tuples without SQLAlchemy's work on each, which costs three times what SQLite's does.

    SQLite's rows go many to a statement: Python gives up its lock for each, and beside a busy event loop waits milliseconds to get it back.
    """

    # Few sizes, so that each statement's text is prepared once.
    _SIZES = (64, 32, 16, 8, 4, 2, 1)

    def __init__(self, table: sa.Table, fields: Sequence[str], dialect: sa.Dialect) -> None:
        compiled = sa.insert(table).compile(dialect=dialect, column_keys=list(fields))
        self._sql = str(compiled)
        self._fields = fields
        self._is_positional = bool(compiled.positional)
        row = f"({', '.join('?' for _ in fields)})"
        self._texts = {size: self._sql + f", {row}" * (size - 1) for size in self._SIZES}

    def run(self, connection: sa.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        if not self._is_positional:
            if rows:
                connection.exec_driver_sql(self._sql, [dict(zip(self._fields, row, strict=True)) for row in rows])
            return
        start = 0
        while start < len(rows):
            size = next(size for size in self._SIZES if size <= len(rows) - start)
            connection.exec_driver_sql(self._texts[size], tuple(chain.from_iterable(rows[start : start + size])))
            start += size


class Transaction:
    """One transaction of the writer."""

    def __init__(self, connection: sa.Connection, insert_rows: _Insert, insert_intents: _Insert) -> None:
        self._connection = connection
        self._insert_rows = insert_rows
        self._insert_intents = insert_intents

    def known(self, batch: Batch) -> Known:
        """What the books say about the requests and the gone routers of a batch."""
        keys = batch.keys()
        rows, began = self._requests({key.request_id for key in keys})
        ids = booked_ids(keys, began | {request_id: booked[0].created_ns for request_id, booked in rows.items()})
        derived_rows, derived_began = self._requests({booked for key, booked in ids.items() if booked != key.request_id})
        orphans: list[OpenIntent] = []
        for these in _chunks(batch.gone_routers):
            orphans += [OpenIntent(*fields) for fields in self._connection.execute(_select_orphans, these)]
        return Known(ids, rows | derived_rows, began.keys() | derived_began.keys(), orphans)

    def _requests(self, booked_ids: Collection[str]) -> tuple[dict[str, list[Row]], dict[str, int]]:
        """The rows of those requests that have some, and when those began that are open."""
        rows: dict[str, list[Row]] = {}
        began: dict[str, int] = {}
        for these in _chunks(booked_ids):
            for fields in self._connection.execute(_select_rows, these):
                rows.setdefault(fields.request_id, []).append(Row(*fields))
            began.update(map(tuple, self._connection.execute(_select_open, these)))
        return rows, began

    def apply(self, changes: Changes) -> None:
        """Writes the changes."""
        for these in _chunks(changes.corrected_ids):
            self._connection.execute(_delete_rows, these)
        for these in _chunks(changes.closed_ids):
            self._connection.execute(_delete_intents, these)
        self._insert_intents.run(self._connection, changes.opened)
        if changes.rows:
            self._insert_rows.run(self._connection, changes.rows)
            self._connection.execute(_add_to_totals, {f"more_{name}": value for name, value in changes.totals._asdict().items()})


class Writer:
    """The connection that writes. For one thread."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._insert_rows = _Insert(_entries, Row._fields, engine.dialect)
        self._insert_intents = _Insert(_intents, OpenIntent._fields, engine.dialect)

    def create(self) -> None:
        """Makes the tables of new books."""
        with self._engine.begin() as connection:
            _metadata.create_all(connection)
            if connection.scalar(sa.select(sa.func.count()).select_from(_totals)) == 0:
                connection.execute(sa.insert(_totals), {"id": 1, **Totals()._asdict()})

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Durable when left without an exception, undone otherwise."""
        with self._engine.begin() as connection:
            yield Transaction(connection, self._insert_rows, self._insert_intents)

    def recent_models(self, limit: int) -> list[tuple[str, str]]:
        """Providers and models of the latest rows."""
        latest = sa.select(_entries.c.provider, _entries.c.model).order_by(_entries.c.sequence.desc()).limit(limit).subquery()
        with self._engine.connect() as connection:
            return [(row.provider, row.model) for row in connection.execute(sa.select(latest).distinct())]

    def waiting_routers(self) -> list[str]:
        """Routers that have open intents."""
        with self._engine.connect() as connection:
            return list(connection.scalars(sa.select(_intents.c.router_id).distinct()))


class Reader:
    """The connection that reads. For one thread."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def totals(self) -> tuple[Totals, int]:
        """The sums over all rows, and how many intents are open, at one moment."""
        with self._engine.connect() as connection:
            return Totals(*connection.execute(_select_totals).one()), connection.scalar(_count_intents) or 0

    def entries(self, limit: int, before: int | None = None, request_id: str = "") -> list[tuple[int, Row]]:
        """Rows with their sequence numbers, newest first, below `before`; those of `request_id` are of all requests that came with it."""
        query = sa.select(_entries.c.sequence, *_row_columns).order_by(_entries.c.sequence.desc()).limit(limit)
        if before is not None:
            query = query.where(_entries.c.sequence < before)
        if request_id:
            column, derived = _entries.c.request_id, f"{request_id}{MARK}"
            # A range, which an index serves, and not LIKE, for which an id would have to be escaped.
            query = query.where(sa.or_(column == request_id, sa.and_(column >= derived, column < f"{request_id}{chr(ord(MARK) + 1)}")))
        with self._engine.connect() as connection:
            return [(sequence, Row(*fields)) for sequence, *fields in connection.execute(query)]


@contextmanager
def open_books(path: Path, synchronous: str) -> Iterator[tuple[Writer, Reader]]:
    """Both connections to the books, whose tables are made if need be."""
    with ExitStack() as stack:
        writing = open_engine(path, synchronous)
        stack.callback(writing.dispose)
        writer = Writer(writing)
        writer.create()
        reading = open_engine(path, synchronous, read_only=True)
        stack.callback(reading.dispose)
        yield writer, Reader(reading)


def _chunks(ids: Collection[str]) -> Iterator[dict[str, list[str]]]:
    listed = list(ids)
    return ({"these": listed[start : start + _CHUNK]} for start in range(0, len(listed), _CHUNK))
