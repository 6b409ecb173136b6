"""Keys in the books: every SQL statement about them, the same on both stores.

They have connections of their own, beside those of the rows: an operator who changes a key does not wait in the queue of commits. Ledgers
that share the books write keys one after the other, so that the number of a change is seen only when all before it are.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import sqlalchemy as sa

from services.ledger.api_key import Key, KeyView, Usage, columns_of, key_of_row
from services.ledger.budget_changes import Presume, follow_key
from services.ledger.engines import Place, open_engine
from services.ledger.schema import api_keys, entries, salts

_LOCK: Final = 0x6A676B6579
_SALT: Final = "anonymous_salt"

_of_key = entries.c.key_id == api_keys.c.key_id
# Answers from the cache are nobody's spending.
_in_month = sa.and_(_of_key, entries.c.attempt > 0, entries.c.created_ns >= sa.bindparam("month_ns", type_=sa.BigInteger()))


def _sum(value: sa.ColumnElement[int]) -> sa.ScalarSelect[int]:
    return sa.select(sa.cast(sa.func.coalesce(sa.func.sum(value), 0), sa.BigInteger())).where(_in_month).scalar_subquery()


_select_views = sa.select(
    api_keys,
    sa.select(sa.func.max(entries.c.created_ns)).where(_of_key).scalar_subquery().label("last_used_ns"),
    _sum(entries.c.input_tokens + entries.c.output_tokens).label("used_tokens"),
    _sum(entries.c.cost_nano_usd).label("used_nano_usd"),
)
_select_by_digest = sa.select(api_keys).where(api_keys.c.digest == sa.bindparam("wanted"))
_next_revision = sa.select(sa.func.coalesce(sa.func.max(api_keys.c.revision), 0) + 1)
_select_changes = sa.select(api_keys.c.revision, api_keys.c.digest).where(api_keys.c.revision > sa.bindparam("seen"))
_select_revision = sa.select(sa.func.coalesce(sa.func.max(api_keys.c.revision), 0))
_count_keys = sa.select(sa.func.count()).select_from(api_keys).where(api_keys.c.revoked_ns.is_(None))


class KeyWriter:
    """Changes keys. For one thread."""

    def __init__(self, engine: sa.Engine, presume: Presume) -> None:
        self._engine = engine
        self._presume = presume
        # Whether other ledgers may change keys of the same books.
        self.is_shared = engine.dialect.name == "postgresql"

    def insert(self, key: Key) -> None:
        """Adds a key."""
        with self._engine.begin() as connection:
            revision = self._begin(connection)
            connection.execute(sa.insert(api_keys).values(revision=revision, **columns_of(key)))
            follow_key(connection, None, key, key.created_ns, self._presume)

    def change(self, key_id: str, change: Callable[[Key], Key], now_ns: int) -> tuple[Key, Key] | None:
        """Replaces a key by what `change` makes of it. Gives it as it was and as it is; None when there is none."""
        return self._change(api_keys.c.key_id == _storable(key_id), change, now_ns)

    def change_by_digest(self, digest: bytes, change: Callable[[Key], Key], now_ns: int) -> tuple[Key, Key] | None:
        """The same for the key of a text."""
        return self._change(api_keys.c.digest == digest, change, now_ns)

    def _change(self, condition: sa.ColumnElement[bool], change: Callable[[Key], Key], now_ns: int) -> tuple[Key, Key] | None:
        with self._engine.begin() as connection:
            revision = self._begin(connection)
            row = connection.execute(sa.select(api_keys).where(condition)).one_or_none()
            if row is None:
                return None
            before = key_of_row(row)
            after = change(before)
            if after != before:
                changed = sa.update(api_keys).where(api_keys.c.sequence == row.sequence)
                connection.execute(changed.values(revision=revision, **columns_of(after)))
                follow_key(connection, before, after, now_ns, self._presume)
            return before, after

    def salt(self, fresh: bytes) -> bytes:
        """What addresses are hashed with: the one that is kept, or the fresh one, which is kept from now on."""
        with self._engine.begin() as connection:
            self._begin(connection)
            kept = connection.scalar(sa.select(salts.c.salt).where(salts.c.name == _SALT))
            if kept is None:
                connection.execute(sa.insert(salts).values(name=_SALT, salt=fresh))
            return bytes(kept or fresh)

    def _begin(self, connection: sa.Connection) -> int:
        if self.is_shared:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        return connection.scalar(_next_revision) or 1


class KeyReader:
    """Finds keys. For one thread."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def by_digest(self, digest: bytes) -> Key | None:
        """The key of a text."""
        with self._engine.connect() as connection:
            row = connection.execute(_select_by_digest, {"wanted": digest}).one_or_none()
        return None if row is None else key_of_row(row)

    def view(self, key_id: str, month_ns: int) -> KeyView | None:
        """A key with what is booked on it since `month_ns`."""
        with self._engine.connect() as connection:
            row = connection.execute(_select_views.where(api_keys.c.key_id == _storable(key_id)), {"month_ns": month_ns}).one_or_none()
        return None if row is None else _view(row)

    def views(self, limit: int | None, before: int | None, month_ns: int, *, show_revoked: bool = False) -> list[tuple[int, KeyView]]:
        """Keys with their sequence numbers, newest first, below `before`."""
        query = _select_views.order_by(api_keys.c.sequence.desc()).limit(limit)
        if before is not None:
            query = query.where(api_keys.c.sequence < before)
        if not show_revoked:
            query = query.where(api_keys.c.revoked_ns.is_(None))
        with self._engine.connect() as connection:
            return [(row.sequence, _view(row)) for row in connection.execute(query, {"month_ns": month_ns})]

    def count(self) -> int:
        """How many keys are not revoked."""
        with self._engine.connect() as connection:
            return connection.scalar(_count_keys) or 0

    def revision(self) -> int:
        """The number of the newest change."""
        with self._engine.connect() as connection:
            return connection.scalar(_select_revision) or 0

    def changes(self, seen: int) -> tuple[int, list[bytes]]:
        """The newest change and the digests of keys that changed after `seen`."""
        with self._engine.connect() as connection:
            rows = connection.execute(_select_changes, {"seen": seen}).all()
        return max((row.revision for row in rows), default=seen), [bytes(row.digest) for row in rows]


@contextmanager
def open_keys(place: Place, synchronous: str, presume: Presume) -> Iterator[tuple[KeyWriter, KeyReader, KeyReader]]:
    """A connection that writes keys and two that read them, to books that are up to date."""
    with ExitStack() as stack:
        writing, *reading = (open_engine(place, synchronous, read_only=read_only) for read_only in (False, True, True))
        for engine in (writing, *reading):
            stack.callback(engine.dispose)
        yield KeyWriter(writing, presume), KeyReader(reading[0]), KeyReader(reading[1])


def _storable(key_id: str) -> str:
    """PostgreSQL does not even look for text with the one character that it does not keep. No id is empty."""
    return "" if "\0" in key_id else key_id


def _view(row: Any) -> KeyView:
    return KeyView(key_of_row(row), Usage(row.last_used_ns, row.used_tokens, row.used_nano_usd))
