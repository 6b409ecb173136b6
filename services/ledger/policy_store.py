"""The routing policy in the books: every SQL statement about its versions, the same on both stores."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import sqlalchemy as sa

from services.ledger.engines import Place, open_engine
from services.ledger.schema import policies

_LOCK: Final = 0x6A67706F6C
_newest = sa.select(policies).order_by(policies.c.version.desc())


class PolicyVersion(NamedTuple):
    """One version of the routing policy; the document is the routers' own JSON."""

    version: int
    document: str
    created_ns: int
    comment: str


class PolicyStore:
    """Versions are added and read, and never change. For one thread."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        # Whether other ledgers may add versions to the same books.
        self.is_shared = engine.dialect.name == "postgresql"

    def add(self, document: str, created_ns: int, comment: str, expected: int | None) -> PolicyVersion | None:
        """The version that was added; None when `expected` is not the newest one (0: there is none)."""
        with self._engine.begin() as connection:
            if self.is_shared:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            newest = connection.scalar(sa.select(sa.func.max(policies.c.version))) or 0
            if expected is not None and expected != newest:
                return None
            added = PolicyVersion(newest + 1, document, created_ns, comment)
            connection.execute(sa.insert(policies).values(added._asdict()))
            return added

    def newest(self) -> PolicyVersion | None:
        """The version in force; None before the first."""
        return next(iter(self.page(1)), None)

    def get(self, version: int) -> PolicyVersion | None:
        """One version."""
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(policies).where(policies.c.version == version)).one_or_none()
        return None if row is None else PolicyVersion(*row)

    def page(self, limit: int, before: int | None = None) -> list[PolicyVersion]:
        """Versions below `before`, newest first."""
        query = _newest.limit(limit)
        if before is not None:
            query = query.where(policies.c.version < before)
        with self._engine.connect() as connection:
            return [PolicyVersion(*row) for row in connection.execute(query)]


@contextmanager
def open_policies(place: Place, synchronous: str) -> Iterator[PolicyStore]:
    """A connection of its own to books that are up to date."""
    engine = open_engine(place, synchronous)
    try:
        yield PolicyStore(engine)
    finally:
        engine.dispose()
