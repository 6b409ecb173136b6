"""The chains in the books: where they begin and end, what is in them, and how rows of earlier programs come into one."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import sqlalchemy as sa

from services.ledger.booking import Totals
from services.ledger.chain import Checkpoint, Head, Link, extend, origin
from services.ledger.records import Row
from services.ledger.schema import checkpoints, entries, totals
from services.ledger.statements import Statement

# Into this one go the rows that were there before.
FIRST: Final = 1
_CHECKPOINT_FIELDS: Final = (*Checkpoint._fields[:-1], *Totals._fields)
# Rows that are read at once, or get their place in one transaction.
_BATCH: Final = 2000

_select_head = Statement(sa.select(totals.c.links, totals.c.head).where(totals.c.id == sa.bindparam("chain")).with_for_update())
_set_head = (
    sa.update(totals).where(totals.c.id == sa.bindparam("row")).values(links=sa.bindparam("new_links"), head=sa.bindparam("new_head"))
)
_is_unlinked = sa.select(sa.literal(1)).where(entries.c.chain.is_(None)).limit(1)
_select_unlinked = (
    sa.select(entries.c.sequence, *(entries.c[name] for name in Row._fields))
    .where(entries.c.chain.is_(None), entries.c.sequence > sa.bindparam("after"))
    .order_by(entries.c.sequence)
    .limit(_BATCH)
)
_set_place = (
    sa.update(entries)
    .where(entries.c.sequence == sa.bindparam("number"))
    .values(chain=FIRST, link=sa.bindparam("new_link"), hash=sa.bindparam("new_hash"))
)


def locked_head(connection: sa.Connection, chain: int) -> Head:
    """The end of a chain. No other ledger adds to it before the transaction ends."""
    ((links, last),) = _select_head.all(connection, chain=chain)
    return Head(links, last) if links else origin(chain)


def set_head(connection: sa.Connection, chain: int, head: Head) -> None:
    connection.execute(_set_head, {"row": chain, "new_links": head.links, "new_head": head.hash})


def start(connection: sa.Connection, chain: int) -> tuple[Head, Totals]:
    """Where the links that are there begin, and what was deleted before."""
    query = sa.select(checkpoints).where(checkpoints.c.chain == chain).order_by(checkpoints.c.through_link.desc()).limit(1)
    found = connection.execute(query).one_or_none()
    if found is None:
        return origin(chain), Totals()
    return Head(found.through_link, bytes.fromhex(found.through_hash)), Totals(*(getattr(found, name) for name in Totals._fields))


def rows(connection: sa.Connection, table: sa.Table, chain: int, seen: Callable[[Sequence[Link]], None] = lambda _: None) -> Iterator[Link]:
    """The rows of a chain in one table, in order."""
    return _pages(connection, table, Row._fields, chain, lambda fields: Row(*fields), seen)


def checkpoints_of(connection: sa.Connection, chain: int) -> Iterator[Link]:
    """The checkpoints of a chain, in order."""
    return _pages(connection, checkpoints, _CHECKPOINT_FIELDS, chain, _checkpoint)


def _pages(
    connection: sa.Connection,
    table: sa.Table,
    fields: Sequence[str],
    chain: int,
    content_of: Callable[[Sequence[Any]], Row | Checkpoint],
    seen: Callable[[Sequence[Link]], None] = lambda _: None,
) -> Iterator[Link]:
    """The links of a chain in one table, in order. What is `seen` is told page by page."""
    columns = [table.c[name] for name in ("link", "hash", *fields)]
    query = sa.select(*columns).where(table.c.chain == chain, table.c.link > sa.bindparam("after")).order_by(table.c.link).limit(_BATCH)
    after = 0
    while found := connection.execute(query, {"after": after}).all():
        links = [Link(link, digest, content_of(content)) for link, digest, *content in found]
        seen(links)
        yield from links
        after = links[-1].link


def _checkpoint(fields: Sequence[Any]) -> Checkpoint:
    through_link, through_hash, created_ns, before_ns, *sums = fields
    return Checkpoint(through_link, through_hash, created_ns, before_ns, Totals(*sums))


def link_up(engine: sa.Engine) -> int:
    """Gives rows without a place in a chain one, in the order of their numbers; how many.

    Each batch is a transaction: where it was cut, the next call goes on.
    """
    count = after = 0
    while True:
        with engine.begin() as connection:
            if not connection.scalar(_is_unlinked):
                return count
            head = locked_head(connection, FIRST)
            found = connection.execute(_select_unlinked, {"after": after}).all()
            if not found:
                return count
            linked, head = extend(head, (Row(*fields) for _, *fields in found))
            places = zip((row.sequence for row in found), linked, strict=True)
            connection.execute(_set_place, [{"number": number, "new_link": each.link, "new_hash": each.hash} for number, each in places])
            set_head(connection, FIRST, head)
        count, after = count + len(found), found[-1].sequence
