"""Books of any age become this program's, whatever cuts the way there, and go back as far as they can."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from joulegate.ledger.v1.entry_pb2 import Outcome
from services import cli
from services.ledger import commands, migration, schema
from services.ledger.audit_store import audit_books
from services.ledger.booking import sum_of
from services.ledger.engines import Place, open_engine
from services.ledger.lock import owned
from services.ledger.migration import BooksError
from services.ledger.records import Row
from services.ledger.store import Reader, Writer, open_books
from tests.postgresql import variables_of
from tests.unit.ledger.samples import BEGAN, LATER, attempt, hit, intent, settlement
from tests.unit.ledger.test_store import commit

REVISIONS = ["0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010"]
_READS = ("SELECT", "PRAGMA", "SHOW", "WITH")
# Files of programs from before there were revisions: an open intent, a request with two attempts, and a hit.
OLD = {"0001": "books_in_microseconds.sql", "0002": "books_in_nanoseconds.sql"}


@pytest.fixture
def place(bare_place: Place) -> Place:
    """Books are made here by what is tested."""
    return bare_place


@pytest.fixture
def engine(place: Place) -> Iterator[sa.Engine]:
    engine = open_engine(place, "full")
    yield engine
    engine.dispose()


def revision(engine: sa.Engine) -> str | None:
    with engine.connect() as connection:
        return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def old_books(path: Path, name: str) -> Path:
    with sqlite3.connect(path) as connection:
        connection.executescript((Path(__file__).parent / "data" / name).read_text())
    connection.close()
    return path


def test_the_newest_migration_is_the_one_that_the_program_writes() -> None:
    folder = Path(migration.__file__).with_name("migrations")
    assert [script.revision for script in ScriptDirectory(str(folder)).walk_revisions()] == REVISIONS[::-1]
    assert REVISIONS[-1] == migration.HEAD


def test_new_books_have_the_tables_that_the_statements_are_made_of(engine: sa.Engine) -> None:
    migration.bring_up(engine)
    assert revision(engine) == migration.HEAD
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
        assert connection.scalar(sa.select(sa.func.count()).select_from(schema.totals)) == 16


def test_servers_order_ids_by_bytes_in_any_language(engine: sa.Engine) -> None:
    migration.bring_up(engine)
    if engine.dialect.name == "postgresql":
        query = "SELECT table_name, collation_name FROM information_schema.columns WHERE column_name IN ('request_id', 'router_id')"
        with engine.connect() as connection:
            found = connection.exec_driver_sql(query).all()
        assert len(found) == 6
        assert {collation for _, collation in found} == {"C"}


def test_books_that_are_up_to_date_are_opened_without_alembic(place: Place) -> None:
    with open_books(place, "full"):
        pass
    program = (
        "import sys; from pathlib import Path\n"
        "from services.ledger.engines import server_url; from services.ledger.store import open_books\n"
        "place = Path(sys.argv[1]) if sys.argv[1].startswith('/') else server_url(sys.argv[1])\n"
        "with open_books(place, 'full'): print('alembic' in sys.modules)"
    )
    [address] = variables_of(place).values()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run([sys.executable, "-c", program, address], env=environment, capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("False\n", "")


@pytest.mark.parametrize("age", OLD)
def test_files_of_earlier_programs_are_adopted_with_all_that_is_in_them(tmp_path: Path, age: str) -> None:
    path = old_books(tmp_path / "ledger.db", OLD[age])
    with open_books(path, "full") as (writer, reader):
        rows = [row for _, row in reader.entries(10)]
        assert [(row.request_id, row.attempt, row.created_ns) for row in rows] == [
            ("hit", 0, BEGAN.ToNanoseconds()),
            ("r", 2, BEGAN.ToNanoseconds()),
            ("r", 1, BEGAN.ToNanoseconds()),
        ]
        assert reader.totals() == (sum_of(rows), 1)
        # The records of before are known, and those of other requests are not taken for them.
        commit(writer, intent("open"), settlement("r"), settlement("open"), settlement("hit", hit()), settlement("r", create_time=LATER))
        assert reader.totals()[0].entry_count == 5
        assert reader.totals()[1] == 0


def test_books_go_down_and_up_again_with_the_same_sums(place: Place, engine: sa.Engine) -> None:
    with open_books(place, "full") as (writer, reader):
        commit(writer, intent("lost"), intent("open"), router_id="b")
        commit(writer, settlement("r", attempt(1, Outcome.OUTCOME_FAILED), attempt(2)), settlement("s", hit()))
        commit(Writer(engine), settlement("t"))
        before = reader.totals()
        rows = [row for _, row in reader.entries(10)]
    for target in ("0008", "head", "0005", "0004", "0003", "0002", "0001", "0002", "head", "0001"):
        migration.migrate(engine, target)
        assert revision(engine) == (migration.HEAD if target == "head" else target)
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT SUM(entry_count) FROM totals").scalar() == 4
    with open_books(place, "full") as (_, reader):
        assert reader.totals() == before
        # What an earlier revision has no column for is lost on the way down.
        assert [row for _, row in reader.entries(10)] == [row._replace(**Row._field_defaults) for row in rows]
    assert audit_books(engine).faults == []


def test_rows_keep_the_first_revision_from_being_undone(engine: sa.Engine) -> None:
    migration.bring_up(engine)
    commit(Writer(engine), settlement("r"))
    with pytest.raises(BooksError, match="there are rows in the books"):
        migration.migrate(engine, "base")
    assert revision(engine) == migration.HEAD
    assert len(Reader(engine).entries(10)) == 1


def test_empty_books_go_down_to_nothing_and_up_again(engine: sa.Engine) -> None:
    migration.bring_up(engine)
    migration.migrate(engine, "base")
    with engine.connect() as connection:
        assert set(sa.inspect(connection).get_table_names()) <= {"alembic_version"}
    migration.bring_up(engine)
    assert commit(Writer(engine), settlement("r")).totals.entry_count == 1


def test_books_of_a_newer_program_are_left_alone(place: Place, engine: sa.Engine) -> None:
    migration.bring_up(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0999'")
    for change in (
        lambda: migration.bring_up(engine),
        lambda: migration.migrate(engine, "0001"),
        lambda: open_books(place, "full").__enter__(),
    ):
        with pytest.raises(BooksError, match=rf"newer program .* \(revision 0999\); this one knows those up to {migration.HEAD}"):
            change()
    assert revision(engine) == "0999"


def test_tables_of_somebody_else_are_left_alone(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE entries (title TEXT)")
    with pytest.raises(BooksError, match="not the ledger's"):
        migration.bring_up(engine)
    with engine.connect() as connection:
        assert sa.inspect(connection).get_table_names() == ["entries"]


def test_revision_that_there_is_not_is_refused_by_name(engine: sa.Engine) -> None:
    with pytest.raises(BooksError, match=f"no revision '0099': say one of base, {', '.join(REVISIONS)}"):
        migration.migrate(engine, "0099")


def cut_after(engine: sa.Engine, count: int) -> None:
    """Breaks in the middle when the engine has executed so many statements that change something: after a read all is as before it."""

    @sa.event.listens_for(engine, "after_cursor_execute")
    def _count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal count
        if not statement.lstrip().startswith(_READS):
            count -= 1
            if not count:
                raise InterruptedError


def contents(place: Place) -> dict[str, tuple[list[str], list[tuple[Any, ...]]]]:
    """All that is in the books, by table: its columns and its rows."""
    engine = open_engine(place, "full", read_only=True)
    with engine.connect() as connection:
        found = {}
        for name in sorted(sa.inspect(connection).get_table_names()):
            rows = connection.exec_driver_sql(f"SELECT * FROM {name}")
            found[name] = sorted(rows.keys()), sorted(map(tuple, rows))
    engine.dispose()
    return found


def books_at_first(place: Place) -> None:
    """Books of the first revision, with rows."""
    with open_books(place, "full") as (writer, _):
        commit(writer, intent("open"), settlement("r", attempt(1), attempt(2)), settlement("hit", hit()))
    engine = open_engine(place, "full")
    migration.migrate(engine, "0001")
    engine.dispose()


@pytest.mark.parametrize("start", ["empty", "0001"])
def test_migration_that_is_cut_anywhere_leaves_the_books_as_they_were(place: Place, start: str) -> None:
    if start == "0001":
        books_at_first(place)
    before = contents(place)
    cut_at = 0
    while True:
        cut_at += 1
        engine = open_engine(place, "full")
        cut_after(engine, cut_at)
        try:
            migration.bring_up(engine)
        except InterruptedError:
            assert contents(place) == before
        else:
            break
        finally:
            engine.dispose()
    assert cut_at > 20
    with open_books(place, "full") as (writer, reader):
        assert reader.totals()[0].entry_count == (3 if start == "0001" else 0)
        assert commit(writer, settlement("r")).totals.entry_count == (0 if start == "0001" else 1)


KILLED = """
import os, signal, sys
from pathlib import Path
import sqlalchemy as sa
from services.ledger import migration
from services.ledger.engines import open_engine, server_url

left = int(sys.argv[2])
engine = open_engine(Path(sys.argv[1]) if sys.argv[1].startswith("/") else server_url(sys.argv[1]), "full")

@sa.event.listens_for(engine, "after_cursor_execute")
def count(_connection, _cursor, statement, *_):
    global left
    left -= statement.startswith(("ALTER", "UPDATE", "INSERT", "CREATE"))
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

migration.bring_up(engine)
"""


@pytest.mark.parametrize("cut_at", [1, 3, 6, 12])
def test_migration_whose_process_is_killed_leaves_the_books_as_they_were_and_the_next_one_does_it(place: Place, cut_at: int) -> None:
    books_at_first(place)
    before = contents(place)
    [address] = variables_of(place).values()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", KILLED, address, str(cut_at)], env=environment)
    assert killed.returncode == -signal.SIGKILL
    assert contents(place) == before
    with open_books(place, "full") as (_, reader):
        assert reader.totals()[0].entry_count == len(reader.entries(10)) == 3


@pytest.fixture
def operator(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `joulegate` on the books, and gives its exit code."""
    monkeypatch.chdir(tmp_path)
    for name, value in variables_of(place).items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["joulegate", *arguments])
        return cli.main()

    return run


def test_operators_migrate_up_and_down(operator: Any, engine: sa.Engine, capsys: pytest.CaptureFixture[str]) -> None:
    assert operator("ledger", "migrate") == 0
    assert operator("ledger", "migrate") == 0
    assert operator("ledger", "migrate", "--down", "0002") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"the books are at revision {migration.HEAD}, and were at none",
        f"the books are at revision {migration.HEAD}",
        f"the books are at revision 0002, and were at {migration.HEAD}",
    ]
    assert revision(engine) == "0002"


def test_printed_sql_changes_nothing_and_does_what_the_migration_does(
    operator: Any, place: Place, engine: sa.Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, before, after in (
        ((), None, migration.HEAD),
        (("--down", "0001"), migration.HEAD, "0001"),
        ((), "0001", migration.HEAD),
    ):
        assert operator("ledger", "migrate", "--sql", *arguments) == 0
        if before is None:
            assert not isinstance(place, Path) or not place.exists()
        else:
            assert revision(engine) == before
        run_script(place, capsys.readouterr().out)
        assert revision(engine) == after
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []


@pytest.mark.parametrize("age", OLD)
def test_printed_sql_adopts_files_of_earlier_programs(tmp_path: Path, age: str) -> None:
    path = old_books(tmp_path / "ledger.db", OLD[age])
    engine = open_engine(path, "full")
    run_script(path, migration.script(engine, "sqlite", "head"))
    assert revision(engine) == migration.HEAD
    assert [row.created_ns for _, row in Reader(engine).entries(10)] == [BEGAN.ToNanoseconds()] * 3
    engine.dispose()


def test_books_that_are_not_there_are_not_made_by_looking(operator: Any, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert operator("ledger", "verify") == 2
    assert not isinstance(place, Path) or not place.exists()


def run_script(place: Place, sql: str) -> None:
    """As psql or the sqlite3 shell would."""
    if isinstance(place, Path):
        file = sqlite3.connect(place)
        file.executescript(sql)
        file.close()
        return
    engine = open_engine(place, "full")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(sql)
    engine.dispose()


def test_file_of_a_running_ledger_is_not_migrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEDGER_DB_PATH", str(tmp_path / "ledger.db"))
    with owned(tmp_path / "ledger.db"):
        assert commands.migrate("head", as_sql=False) == 2
    assert "has these books open" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://joe:secret@127.0.0.1:1/books", "LEDGER_DATABASE_URL, database 'books' of user 'joe': connection failed"),
        ("mysql://joe:secret@127.0.0.1/books", "LEDGER_DATABASE_URL: mysql: only postgresql:// is a store of the ledger"),
        ("secret@nowhere", "LEDGER_DATABASE_URL: not a URL like postgresql://"),
        ("postgresql://joe:secret@127.0.0.1:port/books", "LEDGER_DATABASE_URL: not a URL like postgresql://"),
    ],
)
def test_wrong_url_is_named_without_its_password(
    url: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEDGER_DATABASE_URL", url)
    assert commands.migrate("head", as_sql=False) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "secret" not in error
