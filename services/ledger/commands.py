"""What an operator does with the books by hand: `joulegate ledger …`. Each command gives its exit code."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from services.ledger import audit, audit_store, budget_changes, chain_store, figuring, migration, rederivation
from services.ledger.audit_store import Check
from services.ledger.carbon import Always
from services.ledger.engines import Place, open_engine
from services.ledger.export import FORMATS
from services.ledger.export_store import ALL, ExportReader, Span
from services.ledger.lock import owned
from services.ledger.places import place_of, unusable
from services.ledger.settings import LedgerSettings
from services.runtime.settings import SettingsError, load, read_environment

# What has to be true of books beside their rows and sums.
CHECKS: Sequence[Check] = (lambda connection: budget_changes.discrepancies(connection, time.time_ns()),)


def migrate(revision: str, as_sql: bool) -> int:
    """Brings the books to a revision, or prints the SQL that would."""
    return _run("migrate", lambda place: print(_script(place, revision) if as_sql else _migrated(place, revision)))


def verify(anchors: Sequence[str]) -> int:
    """Prints what an audit finds; 1 when that is a fault."""
    return _run("verify", lambda place: _verify(place, anchors))


def export(file_format: str, since: str | None, until: str | None, out: Path | None) -> int:
    """Writes rows to a file, or to standard output. The file is there when it is whole."""
    return _run(
        "export",
        lambda place: _export(place, file_format, Span(_time("--since", since, ALL.since_ns), _time("--until", until, ALL.until_ns)), out),
    )


def rerate(since: str | None, until: str | None) -> int:
    """Prints what rows were booked with, and what they would be with the present prices and factors. Changes nothing."""
    return _run("rerate", lambda place: _rerate(place, Span(_time("--since", since, ALL.since_ns), _time("--until", until, ALL.until_ns))))


def _run(name: str, work: Callable[[Place], int | None]) -> int:
    """Does some work on the books that the settings name. Gives 2 when it cannot be done."""
    try:
        place = place_of(load(LedgerSettings, read_environment(os.environ)))
        try:
            return work(place) or 0
        except (SQLAlchemyError, migration.BooksError) as error:
            raise unusable(place, error) from error
    except SettingsError as error:
        print(f"joulegate ledger {name}:", *error.problems, sep="\n  ", file=sys.stderr)
        return 2


def _migrated(place: Place, revision: str) -> str:
    with ExitStack() as stack:
        if isinstance(place, Path):
            stack.enter_context(owned(place))
        engine = open_engine(place, "full")
        stack.callback(engine.dispose)
        before, after = migration.migrate(engine, revision)
        if after == migration.HEAD:
            chain_store.link_up(engine)
    return f"the books are at revision {after}" + (f", and were at {before or 'none'}" if before != after else "")


def _script(place: Place, revision: str) -> str:
    if isinstance(place, Path) and not place.exists():
        return migration.script(None, "sqlite", revision)
    with _reading(place) as engine:
        return migration.script(engine, engine.dialect.name, revision)


def _verify(place: Place, anchors: Sequence[str]) -> int:
    wanted = []
    for text in anchors:
        try:
            wanted.append(audit.anchor(text))
        except ValueError:
            raise SettingsError([f"--anchor {text!r}: not chain:link:hash, as an audit prints the ends of chains"]) from None
    with _present(place) as engine:
        findings = audit_store.audit_books(engine, wanted, CHECKS)
    print(findings.text())
    return 1 if findings.fault_count else 0


def _export(place: Place, file_format: str, span: Span, out: Path | None) -> None:
    exporter = FORMATS[file_format]()
    with _present(place) as engine, _written(out) as file:
        file.write(exporter.begin())
        for page in ExportReader(engine).pages(span):
            file.write(exporter.rows(page))
        file.write(exporter.end())


def _rerate(place: Place, span: Span) -> None:
    figurer, factors = figuring.figurer_of(load(LedgerSettings, read_environment(os.environ)), Always())
    with _present(place) as engine:
        rows = (placed.linked.row for page in ExportReader(engine).pages(span) for placed in page)
        compared = rederivation.compare(rows, figurer)
    print(f"now: factors {factors.version}", rederivation.table(compared), sep="\n")


@contextmanager
def _written(out: Path | None) -> Iterator[BinaryIO]:
    """A file to write, which gets its name when all is written. Raises SettingsError when it cannot be."""
    if out is None:
        yield sys.stdout.buffer
        sys.stdout.flush()
        return
    part = out.with_name(f"{out.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(out)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise SettingsError([f"-o {str(out)!r}: {error}"]) from error


def _time(option: str, text: str | None, otherwise_ns: int) -> int:
    """A date or an RFC 3339 time, in UTC unless it says otherwise, in nanoseconds since 1970."""
    if text is None:
        return otherwise_ns
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError([f"{option} {text!r}: not a time as 2026-01-31 or 2026-01-31T00:00:00Z"]) from None
    since_1970 = (time if time.tzinfo else time.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return since_1970 // timedelta(microseconds=1) * 1000


@contextmanager
def _present(place: Place) -> Iterator[sa.Engine]:
    """Books to read, which are there and of this program's revision. Raises BooksError."""
    if isinstance(place, Path) and not place.exists():
        raise migration.BooksError("there are no books")
    with _reading(place) as engine:
        migration.check_present(engine)
        yield engine


@contextmanager
def _reading(place: Place) -> Iterator[sa.Engine]:
    engine = open_engine(place, "full", read_only=True)
    try:
        yield engine
    finally:
        engine.dispose()
