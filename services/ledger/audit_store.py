"""Audits books: every link of every chain, and all sums, as of one moment and without holding anybody up."""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeAlias

import sqlalchemy as sa

from joulegate.ledger.v1.entry_pb2 import Outcome
from services.ledger import audit, chain_store
from services.ledger.audit import Anchor, Findings
from services.ledger.booking import Totals, sum_of
from services.ledger.chain import Head, Link
from services.ledger.records import Row
from services.ledger.schema import checkpoints, entries, intents, superseded, totals

# What else has to be true of books: gives a sentence for each fault.
Check: TypeAlias = Callable[[sa.Connection], Iterable[str]]
_SHOWN: Final = 20
_LOST: Final = sa.literal(int(Outcome.OUTCOME_LOST))


def audit_books(engine: sa.Engine, anchors: Sequence[Anchor] = (), checks: Sequence[Check] = ()) -> Findings:
    """Reads all books. Takes half a minute for a million rows."""
    findings = Findings()
    try:
        with engine.connect() as connection:
            for fault in _damage(connection):
                findings.fault(fault)
            _Audit(connection, findings, anchors).run()
            for check in (_twice, _unlinked, _lost, _given_way, _open, *checks):
                for fault in check(connection):
                    findings.fault(fault)
    except sa.exc.DatabaseError as error:
        if isinstance(error, sa.exc.OperationalError) and engine.dialect.name == "postgresql":
            # The server is away: that says nothing about the books.
            raise
        findings.fault(f"the store cannot be read: {' '.join(str(error.orig).split())}")
    return findings


class _Audit:
    """The chains and the sums of books."""

    def __init__(self, connection: sa.Connection, findings: Findings, anchors: Sequence[Anchor]) -> None:
        self._connection = connection
        self._findings = findings
        self._anchors = anchors
        self._found: dict[tuple[int, int], str] = {}
        self._added = Totals()

    def run(self) -> None:
        kept = Totals()
        for row in self._connection.execute(sa.select(totals).order_by(totals.c.id)).all():
            kept = kept.plus(Totals(*(getattr(row, name) for name in Totals._fields)))
            if row.links:
                self._chain(row.id, Head(row.links, row.head))
        live = self._connection.scalar(sa.select(sa.func.count(entries.c.request_id.distinct()))) or 0
        self._added = self._added._replace(request_count=self._added.request_count + live)
        open_count = self._connection.scalar(sa.select(sa.func.count()).select_from(intents))
        self._findings.note(f"{self._added.entry_count} rows of {self._added.request_count} requests booked; {open_count} requests open")
        for fault in (*audit.faults_of_sums(kept, self._added), *audit.faults_of_anchors(self._open_anchors(), self._found)):
            self._findings.fault(fault)

    def _chain(self, chain: int, end: Head) -> None:
        start, deleted = chain_store.start(self._connection, chain)
        wanted = {anchor.link for anchor in self._anchors if anchor.chain == chain}
        if start.links in wanted:
            self._found[chain, start.links] = start.hash.hex()
        self._added = self._added.plus(deleted)
        for fault in audit.faults_of_chain(chain, start, self._noted(chain, wanted), end):
            self._findings.fault(fault)
        gone = f", {start.links} of them deleted for their age" if start.links else ""
        self._findings.note(f"chain {chain}: {end.links} links{gone}; it ends with {chain}:{end.links}:{end.hash.hex()}")

    def _noted(self, chain: int, wanted: set[int]) -> Iterator[Link]:
        """The links of a chain in order; notes what the audit needs to know of them later."""
        rows = chain_store.rows(self._connection, entries, chain, self._add_up)
        gave_way = chain_store.rows(self._connection, superseded, chain)
        stood_for = chain_store.checkpoints_of(self._connection, chain)
        for link in heapq.merge(rows, gave_way, stood_for, key=lambda link: link.link):
            if link.link in wanted:
                self._found[chain, link.link] = link.hash.hex()
            yield link

    def _add_up(self, links: Sequence[Link]) -> None:
        rows = [link.content for link in links if isinstance(link.content, Row)]
        try:
            # Requests are counted in one go, for one may have rows in several pages.
            self._added = self._added.plus(sum_of(rows)._replace(request_count=0))
        except TypeError:
            self._findings.fault(f"there is text where numbers belong in links {links[0].link} to {links[-1].link}")

    def _open_anchors(self) -> Iterator[Anchor]:
        """Anchors that can be looked for; a link that was deleted for its age cannot."""
        for anchor in self._anchors:
            start, _ = chain_store.start(self._connection, anchor.chain)
            if anchor.link < start.links:
                self._findings.note(f"chain {anchor.chain}: link {anchor.link}, which was noted, was deleted for its age: not looked for")
            else:
                yield anchor


def _damage(connection: sa.Connection) -> Iterator[str]:
    """What a file says of itself."""
    if connection.dialect.name == "sqlite":
        for (said,) in connection.exec_driver_sql(f"PRAGMA integrity_check({_SHOWN})"):
            if said != "ok":
                yield f"the file is damaged: {' '.join(said.split())}"


def _twice(connection: sa.Connection) -> Iterator[str]:
    key = (entries.c.request_id, entries.c.attempt)
    for request_id, attempt in connection.execute(sa.select(*key).group_by(*key).having(sa.func.count() > 1).limit(_SHOWN)):
        yield f"request {request_id!r}, attempt {attempt}: booked twice"


def _unlinked(connection: sa.Connection) -> Iterator[str]:
    if count := connection.scalar(sa.select(sa.func.count()).select_from(entries).where(entries.c.chain.is_(None))):
        yield f"{count} rows are in no chain: a ledger that is too old has written them, or the one that links them has not started yet"


def _lost(connection: sa.Connection) -> Iterator[str]:
    other = entries.alias()
    has_another = sa.exists().where(other.c.request_id == entries.c.request_id, other.c.sequence != entries.c.sequence)
    for (request_id,) in connection.execute(
        sa.select(entries.c.request_id).where(entries.c.outcome == _LOST, has_another).distinct().limit(_SHOWN)
    ):
        yield f"request {request_id!r}: booked as lost and as settled"


def _given_way(connection: sa.Connection) -> Iterator[str]:
    """A row stands beside the books only because what really happened to its request is in them."""
    is_settled = sa.exists().where(entries.c.request_id == superseded.c.request_id, entries.c.outcome != _LOST)
    # Both may have grown old, and the one in the books be gone already.
    deleted_ns = sa.select(sa.func.coalesce(sa.func.max(checkpoints.c.before_ns), 0)).scalar_subquery()
    wrong = sa.or_(superseded.c.outcome != _LOST, sa.and_(~is_settled, superseded.c.created_ns >= deleted_ns))
    for request_id, attempt in connection.execute(sa.select(superseded.c.request_id, superseded.c.attempt).where(wrong).limit(_SHOWN)):
        yield f"request {request_id!r}, attempt {attempt}: taken out of the books, and nothing is there for it"


def _open(connection: sa.Connection) -> Iterator[str]:
    is_booked = sa.exists().where(entries.c.request_id == intents.c.request_id)
    for (request_id,) in connection.execute(sa.select(intents.c.request_id).where(is_booked).limit(_SHOWN)):
        yield f"request {request_id!r}: booked, and open"
