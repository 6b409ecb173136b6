"""Reads rows for an export: in the order of time, page by page, so that nobody waits and no memory is filled however many there are."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import sqlalchemy as sa

from services.ledger.chain import Linked
from services.ledger.engines import Place, open_engine
from services.ledger.export import Placed
from services.ledger.records import Row
from services.ledger.schema import entries

PAGE: Final = 2000
_newest: Final = sa.select(sa.func.coalesce(sa.func.max(entries.c.sequence), 0))
_columns: Final = [entries.c[name] for name in ("sequence", "chain", "link", "hash", *Row._fields)]
_after_ns: Final = sa.bindparam("after_ns", type_=sa.BigInteger())
_after: Final = sa.bindparam("after", type_=sa.BigInteger())
# The first condition is for the index; the second for rows of one moment.
_select_page: Final = (
    sa.select(*_columns)
    .where(entries.c.created_ns >= _after_ns, entries.c.created_ns < sa.bindparam("until_ns", type_=sa.BigInteger()))
    .where(sa.or_(entries.c.created_ns > _after_ns, entries.c.sequence > _after))
    .where(entries.c.sequence <= sa.bindparam("newest", type_=sa.BigInteger()))
    .order_by(entries.c.created_ns, entries.c.sequence)
    .limit(PAGE)
)


class Span(NamedTuple):
    """Rows of requests that began from the one time on and before the other, in nanoseconds since 1970."""

    since_ns: int
    until_ns: int


ALL: Final = Span(0, 2**63 - 1)


class ExportReader:
    """For one thread."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def pages(self, span: Span) -> Iterator[list[Placed]]:
        """The rows that are booked now. Each page is read when it is asked for; one that gave way meanwhile may be missing."""
        after_ns, after = span.since_ns, -1
        with self._engine.connect() as connection:
            newest = connection.scalar(_newest) or 0
        while True:
            given = {"after_ns": after_ns, "after": after, "until_ns": span.until_ns, "newest": newest}
            with self._engine.connect() as connection:
                found = connection.execute(_select_page, given).all()
            if not found:
                return
            yield [Placed(chain, Linked(Row(*row), link, digest)) for _, chain, link, digest, *row in found]
            after_ns, after = found[-1].created_ns, found[-1].sequence


@contextmanager
def open_export(place: Place, synchronous: str) -> Iterator[ExportReader]:
    """A connection of its own to books that are up to date."""
    engine = open_engine(place, synchronous, read_only=True)
    try:
        yield ExportReader(engine)
    finally:
        engine.dispose()
