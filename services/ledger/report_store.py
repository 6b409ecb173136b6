"""Sums over the books, made by the stores: exact whatever they come to, in one statement that sees one moment.

SQLite adds in 64 bits and fails beyond them, so there the upper and the lower halves of a number are added apart and put together here.
PostgreSQL's sums have no bound.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa

from joulegate.ledger.v1.report_pb2 import Interval
from services.ledger.engines import Place, open_engine
from services.ledger.report import Group, Question, Sums
from services.ledger.schema import api_keys, entries

_SECOND_NS: Final = 10**9
_SECONDS: Final = {Interval.INTERVAL_HOUR: 3600, Interval.INTERVAL_DAY: 86_400}
_HALF_BITS: Final = 32
_ADDED: Final = [entries.c[name] for name in Sums._fields if name in entries.c]
_newest: Final = sa.select(sa.func.coalesce(sa.func.max(entries.c.sequence), 0))


class ReportReader:
    """Adds rows up. For one thread."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._is_server = engine.dialect.name == "postgresql"

    def sums(self, asked: Question, limit: int, newest: int | None = None, after: Group = ()) -> tuple[int, list[tuple[Group, Sums]]]:
        """The first groups after `after`, in their order, of the rows up to the one numbered `newest`: of all when None. Gives it, too."""
        with self._engine.connect() as connection:
            if newest is None:
                newest = connection.scalar(_newest) or 0
            query, width = self._query(asked, after)
            rows = connection.execute(query.where(entries.c.sequence <= newest).limit(limit)).all()
        return newest, [(tuple(row[:width]), self._exact(row[width:])) for row in rows]

    def _query(self, asked: Question, after: Group) -> tuple[sa.Select[Any], int]:
        """The statement, and how many of its columns name the group."""
        source: sa.FromClause = entries
        named = [self._interval(asked.interval)] if asked.interval else []
        for field in asked.fields:
            if field in entries.c:
                named.append(entries.c[field])
                continue
            if source is entries:
                source = entries.outerjoin(api_keys, entries.c.key_id == api_keys.c.key_id)
            named.append(sa.func.coalesce(api_keys.c[field], sa.literal("", api_keys.c[field].type)))
        # Numbers, where Python's names of them would clash with those of the columns that are added.
        group = [column.label(f"group_{number}") for number, column in enumerate(named)]
        start_ns = asked.start_ns
        if after and asked.interval:
            # What lies before the page is not looked at again.
            start_ns = max(start_ns, int(after[0]) * _SECOND_NS)
        query = sa.select(*group, *self._sums()).select_from(source)
        query = query.where(entries.c.created_ns >= start_ns, entries.c.created_ns < asked.end_ns)
        for field in ("key_id", "provider", "model"):
            if wanted := getattr(asked, field):
                query = query.where(entries.c[field] == wanted)
        if after:
            given = (sa.literal(value, column.type) for value, column in zip(after, named, strict=True))
            query = query.where(sa.tuple_(*named) > sa.tuple_(*given))
        if group:
            places: list[sa.ColumnElement[Any]] = [sa.literal_column(str(number + 1)) for number in range(len(group))]
            query = query.group_by(*places).order_by(*places)
        return query, len(group)

    def _interval(self, interval: int) -> sa.ColumnElement[Any]:
        """The second at which a row's interval begins."""
        second = entries.c.created_ns // sa.literal_column(str(_SECOND_NS), sa.BigInteger())
        if interval != Interval.INTERVAL_MONTH:
            length = sa.literal_column(str(_SECONDS[Interval.ValueType(interval)]), sa.BigInteger())
            return second // length * length
        if self._is_server:
            utc = sa.func.timezone(_word("UTC"), sa.func.to_timestamp(second))
            return sa.cast(sa.extract("epoch", sa.func.date_trunc(_word("month"), utc)), sa.BigInteger())
        return sa.cast(sa.func.strftime(_word("%s"), second, _word("unixepoch"), _word("start of month")), sa.BigInteger())

    def _sums(self) -> list[sa.ColumnElement[Any]]:
        rows, hits = sa.func.count(), sa.func.count(sa.case((entries.c.attempt == 0, 1)))
        columns: list[sa.ColumnElement[Any]] = [sa.func.count(entries.c.request_id.distinct()), rows - hits, hits]
        for column in _ADDED:
            parts = [column] if self._is_server else [column.op(">>")(_HALF_BITS), column.op("&")(2**_HALF_BITS - 1)]
            columns += [sa.func.coalesce(sa.func.sum(part), 0) for part in parts]
        return columns

    def _exact(self, row: Any) -> Sums:
        counts = len(Sums._fields) - len(_ADDED)
        # A server's sums come as decimals without a fraction.
        numbers = [int(number) for number in row]
        if self._is_server:
            return Sums(*numbers)
        halves = zip(numbers[counts::2], numbers[counts + 1 :: 2], strict=True)
        return Sums(*numbers[:counts], *((upper << _HALF_BITS) + lower for upper, lower in halves))


@contextmanager
def open_reports(place: Place, synchronous: str) -> Iterator[ReportReader]:
    """A connection of its own to books that are up to date: a long report holds nobody up."""
    engine = open_engine(place, synchronous, read_only=True)
    try:
        yield ReportReader(engine)
    finally:
        engine.dispose()


def _word(word: str) -> sa.ColumnElement[str]:
    """A constant in the text of a statement: a parameter would make a server take equal expressions for different ones."""
    return sa.literal_column(f"'{word}'", sa.Text())
