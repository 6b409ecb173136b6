"""Brings the books to the revision that this program writes, in one transaction: whatever cuts it leaves them as they were.

Alembic is loaded only when there is something to do, for it takes half a second.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

if TYPE_CHECKING:
    from alembic.config import Config

# The newest revision; a test holds it to the newest file in migrations/versions.
HEAD: Final = "0010"
_FOLDER: Final = Path(__file__).with_name("migrations")
# What ledgers that start together wait for, one after the other.
_LOCK: Final = 0x6A6F756C6567
_VERSION_TABLE: Final = "alembic_version"


class BooksError(Exception):
    """These books are not for this program; the words say why and are for the operator."""


def bring_up(engine: sa.Engine) -> None:
    """Makes the tables of new books, and changes those of older ones. Raises BooksError for books of a newer program."""
    migrate(engine, "head")


def migrate(engine: sa.Engine, revision: str) -> tuple[str | None, str | None]:
    """Brings the books up or down to a revision, `head` and `base` among them, and gives where they were and are.

    Raises BooksError when that is impossible.
    """
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            # Longer than a session usually waits: another ledger may be changing many rows, and Alembic takes its time to load.
            connection.execute(sa.text("SET LOCAL lock_timeout = 0"))
            connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = '60s'"))
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        if _stamped(connection) == HEAD and revision in ("head", HEAD):
            return HEAD, HEAD
        return _run(connection, revision), _stamped(connection)


def check_present(engine: sa.Engine) -> None:
    """Raises BooksError for books that are not of the revision that this program reads."""
    with engine.connect() as connection:
        stamped = _stamped(connection)
    if stamped != HEAD:
        raise BooksError(f"the books are at revision {stamped or 'none'}, and this program reads {HEAD}: see `joulegate ledger migrate`")


def script(engine: sa.Engine | None, dialect: str, revision: str) -> str:
    """The SQL that `migrate` would run on these books, or on new ones when there is no engine. Changes nothing."""
    if engine is None:
        return _text(None, True, dialect, revision)
    with engine.connect() as connection:
        return _text(_present(connection), _stamped(connection) is not None, dialect, revision)


def _stamped(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(_VERSION_TABLE):
        return None
    return connection.scalar(sa.select(sa.column("version_num")).select_from(sa.table(_VERSION_TABLE)))


def _present(connection: sa.Connection) -> str | None:
    """The revision that books have, also those from before there were revisions; None for new ones. Raises BooksError for others."""
    stamped = _stamped(connection)
    if stamped is not None:
        return stamped
    inspector = sa.inspect(connection)
    if not inspector.has_table("entries"):
        return None
    columns = {column["name"] for column in inspector.get_columns("entries")}
    if "request_id" in columns:
        for name, revision in (("created_ns", "0002"), ("created_us", "0001")):
            if name in columns:
                return revision
    raise BooksError("there is a table `entries` that is not the ledger's: give the ledger a database of its own")


def _run(connection: sa.Connection, revision: str) -> str | None:
    from alembic import command

    config = _config()
    present = _present(connection)
    is_up = _is_up(config, present, revision)
    config.attributes["connection"] = connection
    if present is not None and _stamped(connection) is None:
        command.stamp(config, present)
    try:
        (command.upgrade if is_up else command.downgrade)(config, revision)
    except ValueError as error:
        raise BooksError(str(error)) from error
    return present


def _text(present: str | None, is_stamped: bool, dialect: str, revision: str) -> str:
    from alembic import command

    out = io.StringIO()
    config = _config(out)
    change = command.upgrade if _is_up(config, present, revision) else command.downgrade
    config.attributes["dialect"] = dialect
    if present is not None and not is_stamped:
        command.stamp(config, f"base:{present}", sql=True)
    change(config, f"{present or 'base'}:{revision}", sql=True)
    return out.getvalue()


def _config(out: io.StringIO | None = None) -> "Config":
    from alembic.config import Config

    config = Config(output_buffer=out)
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _is_up(config: "Config", present: str | None, revision: str) -> bool:
    """Whether the way to a revision leads up. Raises BooksError when one of the two is none that this program knows."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(config).walk_revisions()
    known = ["base", *reversed([script.revision for script in scripts])]
    if (present or "base") not in known:
        raise BooksError(f"a newer program has written these books (revision {present}); this one knows those up to {known[-1]}")
    wanted = known[-1] if revision == "head" else revision
    if wanted not in known:
        raise BooksError(f"there is no revision {revision!r}: say one of {', '.join(known)}")
    return known.index(wanted) >= known.index(present or "base")
