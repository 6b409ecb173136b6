"""The chains in the books: where they end, and how rows of programs from before there were chains come into one."""

from typing import Final

import sqlalchemy as sa

from services.ledger.chain import Head, extend, origin
from services.ledger.records import Row
from services.ledger.schema import entries, totals

# Into this one go the rows that were there before.
FIRST: Final = 1
# Rows that get their place in one transaction.
_BATCH: Final = 2000

_select_head = sa.select(totals.c.links, totals.c.head).where(totals.c.id == sa.bindparam("chain")).with_for_update()
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
    links, last = connection.execute(_select_head, {"chain": chain}).one()
    return Head(links, last) if links else origin(chain)


def set_head(connection: sa.Connection, chain: int, head: Head) -> None:
    connection.execute(_set_head, {"row": chain, "new_links": head.links, "new_head": head.hash})


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
