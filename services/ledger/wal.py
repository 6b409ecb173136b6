"""The write-ahead log of a file: what commits have written to it goes into the file beside them.

SQLite by itself lets a commit do that for all before it whenever the log has grown, which takes many times what a commit does and the disk
twice. Here another connection does, while commits go on. The log starts anew, in its old place, once all of it is in the file; commits
that come meanwhile would put that off for ever, so the little that they add follows on their own thread.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from services.ledger.engines import Place
from services.ledger.store import Writer
from services.runtime import logs

log = logs.get(__name__)

LOOK_S: Final = 1.0
# Some thousands of pages.
COMMITS: Final = 512


class Checkpoints:
    """Follows the commits of a writer. `writing` is its thread."""

    def __init__(self, connection: sqlite3.Connection | None, writer: Writer, writing: Executor, beside: Executor) -> None:
        self._connection = connection
        # Who stops waiting for a thread does not stop it.
        self._using = threading.Lock()
        self._writer = writer
        self._threads = (beside, writing)
        self._seen_commits = 0

    async def run(self) -> None:
        """Looks for ever. There is nothing to do where a server keeps the books."""
        while self._connection is not None:
            await asyncio.sleep(LOOK_S)
            if self._writer.commits - self._seen_commits >= COMMITS:
                await self.write_back()

    async def write_back(self) -> None:
        """Brings what is in the log into the file, if the disk lets it; if not, it is tried again after as many commits."""
        self._seen_commits = self._writer.commits
        try:
            for thread in self._threads:
                await asyncio.get_running_loop().run_in_executor(thread, self._checkpoint)
        except sqlite3.Error as error:
            log.error("checkpoint_failed", cause=str(error))

    def close(self) -> None:
        with self._using:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _checkpoint(self) -> None:
        with self._using:
            if self._connection is not None:
                # Waits for nobody: a reader of long ago keeps what is newer out of the file until the next time.
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


@contextmanager
def open_checkpoints(place: Place, writer: Writer, writing: Executor, beside: Executor) -> Iterator[Checkpoints]:
    """Checkpoints of books that are open."""
    connection = sqlite3.connect(place, isolation_level=None, check_same_thread=False) if isinstance(place, Path) else None
    with closing(Checkpoints(connection, writer, writing, beside)) as checkpoints:
        yield checkpoints
