"""The commands of docs/operations.md back books up while they are written, and bring them back."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import sqlalchemy as sa

from services.ledger.audit_store import audit_books
from services.ledger.booking import sum_of
from services.ledger.engines import Place, open_engine
from services.ledger.store import Writer, open_books
from tests import postgresql
from tests.unit.ledger.samples import attempt, intent, settlement
from tests.unit.ledger.test_store import commit

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def command(start: str) -> str:
    """The one command in the handbook that begins like this."""
    [found] = re.findall(rf"^{re.escape(start)}.*$", OPERATIONS.read_text(), re.MULTILINE)
    return str(found)


def run(line: str, folder: Path, **variables: str) -> None:
    ran = subprocess.run(["sh", "-c", line], cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


def write_on(writer: Writer, stop: Event, started: Event) -> int:
    """Books one request after the other until told to stop; how many."""
    count = 0
    while not stop.is_set():
        commit(writer, intent(f"open-{count}"), settlement(f"r{count}", attempt(1), attempt(2)))
        count += 1
        if count == 20:
            started.set()
    return count


def back_up_while_writing(place: Place, line: str, folder: Path, **variables: str) -> int:
    """Runs a command beside a writer; how many requests there were in the end."""
    stop, started = Event(), Event()
    with open_books(place, "full") as (writer, _), ThreadPoolExecutor(1) as thread:
        writing = thread.submit(write_on, writer, stop, started)
        try:
            assert started.wait(30)
            run(line, folder, **variables)
        finally:
            stop.set()
        return writing.result()


def check_restored(place: Place, written: int) -> None:
    """The books are those of one moment, and can be written."""
    with open_books(place, "full") as (writer, reader):
        engine = open_engine(place, "full", read_only=True)
        assert audit_books(engine).faults == []
        engine.dispose()
        rows = [row for _, row in reader.entries(100_000)]
        totals, open_count = reader.totals()
        assert totals == sum_of(rows)
        assert 20 <= open_count == totals.request_count <= written
        assert totals.entry_count == 2 * open_count
        assert commit(writer, settlement("r0"), settlement("new")).totals.entry_count == 1


def test_file_is_backed_up_and_restored(tmp_path: Path) -> None:
    place = tmp_path / "data" / "ledger.db"
    place.parent.mkdir()
    python = command(".venv/bin/python -c").replace(".venv/bin/python", sys.executable)
    written = back_up_while_writing(place, python, tmp_path)
    # What was there is to be gone, and what is restored to be no mixture.
    with open_books(place, "full") as (writer, _):
        commit(writer, settlement("after"))
    run(command("rm -f data/"), tmp_path)
    check_restored(place, written)


def test_server_is_backed_up_and_restored(postgresql_server: postgresql.Server, tmp_path: Path) -> None:
    place, elsewhere = postgresql_server.new_database(), postgresql_server.new_database()
    path = os.pathsep.join((str(postgresql_server.program("pg_dump").parent), os.environ["PATH"]))

    def with_address(url: sa.URL) -> dict[str, str]:
        return {"PATH": path, "LEDGER_DATABASE_URL": postgresql.text_of(url)}

    written = back_up_while_writing(place, command("pg_dump"), tmp_path, **with_address(place))
    # Over what is there, and where there is nothing.
    for target in (place, elsewhere):
        run(command("pg_restore"), tmp_path, **with_address(target))
        check_restored(target, written)
