"""Deletes old rows from the front of a chain, and leaves a checkpoint that stands for them.

What is in the rolling window of a budget stays, however old: when a key changes its team, what was spent is made anew from the rows.
"""

import heapq
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

import sqlalchemy as sa

from services.ledger import chain_store
from services.ledger.booking import sum_of
from services.ledger.chain import Checkpoint, Head, Link, hash_of
from services.ledger.records import Row
from services.ledger.schema import budgets, checkpoints, entries, superseded
from services.ledger.windows import Window

# Links that go in one transaction, which holds everybody up for so long.
_AT_ONCE: Final = 2000


def prune(connection: sa.Connection, chain: int, before_ns: int, now_ns: int) -> int:
    """Deletes rows of requests that began earlier and that no budget needs, up to the first that did not; how many went.

    Whoever calls sees to it that no record of their requests comes meanwhile.
    """
    before_ns = min([before_ns, *_windows_from(connection, now_ns)])
    head = chain_store.locked_head(connection, chain)
    _, deleted = chain_store.start(connection, chain)
    going = list(islice(_old(_links(connection, chain), before_ns), _AT_ONCE))
    rows = [link for link in going if isinstance(link.content, Row)]
    if not rows:
        return 0
    booked = _booked(connection, chain, rows)
    last = going[-1]
    for table in (entries, superseded, checkpoints):
        connection.execute(sa.delete(table).where(table.c.chain == chain, table.c.link <= last.link))
    requests = {row.request_id for row in booked}
    # A request whose attempts are not all gone counts when the last of them goes.
    gone = len(requests) - len(_still_there(connection, requests))
    totals = deleted.plus(sum_of(booked)._replace(request_count=gone))
    checkpoint = Checkpoint(last.link, last.hash.hex(), now_ns, before_ns, totals)
    end = Head(head.links + 1, hash_of(head.hash, checkpoint))
    values = checkpoint._asdict() | totals._asdict()
    del values["totals"]
    connection.execute(sa.insert(checkpoints).values(chain=chain, link=end.links, hash=end.hash, **values))
    chain_store.set_head(connection, chain, end)
    return len(rows)


def _windows_from(connection: sa.Connection, now_ns: int) -> Iterator[int]:
    """When what the rolling windows of budgets are made of begins: as of now, and for what began when such a window did."""
    windows = connection.execute(sa.select(budgets.c.window_kind, budgets.c.rolling_s).where(budgets.c.rolling_s > 0).distinct()).all()
    for window in (Window(*fields) for fields in windows):
        yield window.oldest(window.oldest(now_ns))


def _links(connection: sa.Connection, chain: int) -> Iterator[Link]:
    tables = (chain_store.rows(connection, table, chain) for table in (entries, superseded))
    return heapq.merge(*tables, chain_store.checkpoints_of(connection, chain), key=lambda link: link.link)


def _old(links: Iterable[Link], before_ns: int) -> Iterator[Link]:
    """Links from the front that may go: a checkpoint may, for the one that comes says all that it says."""
    for link in links:
        if isinstance(link.content, Row) and link.content.created_ns >= before_ns:
            return
        yield link


def _booked(connection: sa.Connection, chain: int, going: list[Link]) -> list[Row]:
    """The rows among these that are in the books, and not beside them."""
    beside = set(connection.scalars(sa.select(superseded.c.link).where(superseded.c.chain == chain, superseded.c.link <= going[-1].link)))
    return [link.content for link in going if isinstance(link.content, Row) and link.link not in beside]


def _still_there(connection: sa.Connection, request_ids: set[str]) -> set[str]:
    these = sa.select(entries.c.request_id).where(entries.c.request_id.in_(list(request_ids))).distinct()
    return set(connection.scalars(these))
