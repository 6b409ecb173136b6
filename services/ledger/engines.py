"""Connections to the two stores: an SQLite file of this process, or a PostgreSQL server that several ledgers share."""

from pathlib import Path
from typing import Any, Final, TypeAlias

import sqlalchemy as sa

from services.ledger.statements import Statement

# A file, or a checked URL.
Place: TypeAlias = Path | sa.URL

BUSY_MILLISECONDS: Final = 5000
# A commit that finds so many pages in the log writes them into the file itself. See wal: mostly none does.
MOST_LOGGED_PAGES: Final = 16_384
# What libpq is told where the URL says nothing: a server that does not answer is away after seconds, not after the kernel's minutes.
_LIBPQ: Final = {
    "application_name": "joulegate-ledger",
    "connect_timeout": "2",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
# A ledger that hangs in the middle of a transaction must not hold the others up for long.
_SESSION: Final = {"idle_in_transaction_session_timeout": "5s", "lock_timeout": "10s"}
# All that a writer looks for is in an index. A server that has no statistics of a table yet takes a list of ids for most of the rows.
_WRITER_SESSION: Final = {"enable_seqscan": "off"}
_begin_reading: Final = Statement(sa.text("BEGIN"))
_begin_writing: Final = Statement(sa.text("BEGIN IMMEDIATE"))


def server_url(text: str) -> sa.URL:
    """The address of a PostgreSQL server. Raises ValueError, whose words never repeat a password."""
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        raise ValueError("not a URL like postgresql://user:password@host:5432/database") from None
    if url.drivername not in ("postgresql", "postgres"):
        raise ValueError(f"{url.drivername}: only postgresql:// is a store of the ledger")
    return url.set(drivername="postgresql+psycopg")


def open_engine(place: Place, synchronous: str, read_only: bool = False) -> sa.Engine:
    """An engine with one connection. `synchronous` is `full` or `normal`."""
    if isinstance(place, sa.URL):
        return _server_engine(place, synchronous, read_only)
    return _file_engine(place, synchronous, read_only)


def _file_engine(path: Path, synchronous: str, read_only: bool) -> sa.Engine:
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        poolclass=sa.StaticPool,
        # Nothing is open when a connection comes back: all that is done is done in a transaction.
        pool_reset_on_return=None,
        connect_args={"check_same_thread": False},
    )

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        # Transactions are begun below; the driver's own idea of when to begin one leaves reads outside.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute(f"PRAGMA busy_timeout={BUSY_MILLISECONDS}")
        connection.execute(f"PRAGMA wal_autocheckpoint={MOST_LOGGED_PAGES}")
        connection.execute(f"PRAGMA query_only={int(read_only)}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        (_begin_reading if read_only else _begin_writing).run(connection)

    return engine


def _server_engine(url: sa.URL, synchronous: str, read_only: bool) -> sa.Engine:
    engine = sa.create_engine(
        url,
        pool_size=1,
        max_overflow=0,
        # Whoever writes finds a lost connection out by itself and repeats; whoever reads is answered by the second try, unseen.
        pool_pre_ping=read_only,
        # A writer sees what was committed before it had the locks of its requests; a reader's statements see one moment.
        isolation_level="REPEATABLE READ" if read_only else "READ COMMITTED",
        connect_args={name: value for name, value in _LIBPQ.items() if name not in url.query},
    )

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.autocommit = True
        for name, value in (_SESSION if read_only else _SESSION | _WRITER_SESSION).items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        # A server that was set up to confirm even later (by its standbys) is left at that.
        off = "current_setting('synchronous_commit') = 'off'"
        wanted = "SELECT set_config('synchronous_commit', 'off', false)"
        connection.execute(wanted if synchronous == "normal" else f"SELECT set_config('synchronous_commit', 'on', false) WHERE {off}")
        connection.autocommit = False
        connection.read_only = read_only

    return engine
