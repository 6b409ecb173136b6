"""What every test has: a guard against the network beyond loopback, the two stores of the books, and how often it may fail."""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
import sqlalchemy as sa

from services.ledger import migration
from services.ledger.engines import Place, open_engine
from tests import postgresql

_LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")
# Tests in these folders talk to servers, and may fail once; so many of a whole run (docs/adr/0027).
SERVED: Final = ("contract", "mesh")
MOST_RERUNS: Final = 5
Books = TypeVar("Books", Path, sa.URL)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that talks to servers and fails runs a second time, and both are told. What shares something that is long in the making stays
    together where tests run side by side."""
    here = Path(__file__).parent
    for item in items:
        if any(item.path.is_relative_to(here / folder) for folder in SERVED):
            item.add_marker(pytest.mark.flaky(reruns=1))
        item.add_marker(pytest.mark.xdist_group(_sharing(item)))


def _sharing(item: pytest.Item) -> str:
    """The gateway that a test runs against, where that is the one of many files, or its own file."""
    has_its_own = hasattr(getattr(item, "module", None), "gateway")
    calling = getattr(item, "callspec", None)
    file = item.nodeid.partition("::")[0]
    return file if has_its_own or calling is None else str(calling.params.get("gateway", file))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Why each test that had to run again had failed."""
    for report in terminalreporter.stats.get("rerun", ()):
        terminalreporter.section(f"failed once: {report.nodeid}")
        terminalreporter.line(report.longreprtext)
        for title, text in report.sections:
            terminalreporter.line(f"{title}:\n{text}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """One stall of the machine is forgiven; a gateway that is often wrong is not."""
    reporter: pytest.TerminalReporter | None = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and len(reporter.stats.get("rerun", ())) > MOST_RERUNS:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test that reaches for the outside fails instead of billing somebody."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and not str(address[0]).startswith(_LOOPBACK):
            raise AssertionError(f"a test tried to reach {address[0]}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    yield


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[postgresql.Server]:
    """A PostgreSQL for all tests of a run. Where there can be none, tests that need it are skipped; in CI they fail."""
    with postgresql_or_skip() as server:
        yield server


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Books with nothing in them, to be copied: to make them takes a tenth of a second, which hundreds of tests would wait for."""
    return _with_tables(tmp_path_factory.mktemp("books") / "ledger.db")


@pytest.fixture(scope="session")
def empty_database(postgresql_server: postgresql.Server) -> sa.URL:
    """The same on PostgreSQL."""
    return _with_tables(postgresql_server.new_database())


def _with_tables(place: Books) -> Books:
    engine = open_engine(place, "normal")
    migration.bring_up(engine)
    engine.dispose()
    return place


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where a test's books are, with tables and nothing in them: each test that asks runs on both stores."""
    if request.param == "sqlite":
        return Path(shutil.copy(request.getfixturevalue("empty_file"), tmp_path / "ledger.db"))
    server: postgresql.Server = request.getfixturevalue("postgresql_server")
    return server.new_database(like=request.getfixturevalue("empty_database"))


@pytest.fixture(params=["sqlite", "postgresql"])
def bare_place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where books are to be, and nothing is yet."""
    if request.param == "sqlite":
        return tmp_path / "ledger.db"
    server: postgresql.Server = request.getfixturevalue("postgresql_server")
    return server.new_database()


@contextmanager
def postgresql_or_skip() -> Iterator[postgresql.Server]:
    try:
        started = ExitStack()
        server = started.enter_context(postgresql.running())
    except postgresql.UnavailableError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"NOT TESTED ON POSTGRESQL: {error}")
    with started:
        yield server
