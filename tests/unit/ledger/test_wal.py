"""What is in the log goes into the file beside the commits, and the log starts anew in its old place."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from services.ledger.booking import decide
from services.ledger.store import Writer, open_books
from services.ledger.wal import Checkpoints, open_checkpoints
from tests.unit.ledger.samples import batch_of, new_figurer, settlement

FIGURER = new_figurer()
# Commits that fill more of the log than SQLite by itself lets stand there.
MANY = 250
SMALL = 4096 * 1000


def commit(writer: Writer, name: str, count: int) -> None:
    """So many times, one row each."""
    for number in range(count):
        batch = batch_of(settlement(f"{name}{number}"))
        with writer.transaction() as transaction:
            transaction.apply(decide(batch, transaction.known(batch), FIGURER))


class Opened:
    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = path
        self.log = path.with_name(path.name + "-wal")
        self.writer, self.reader = stack.enter_context(open_books(path, "normal"))
        threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(2)]
        self.checkpoints: Checkpoints = stack.enter_context(open_checkpoints(path, self.writer, *threads))


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    with ExitStack() as stack:
        yield Opened(tmp_path / "ledger.db", stack)


def test_commits_leave_what_they_wrote_in_the_log(opened: Opened) -> None:
    before = opened.path.stat().st_size
    commit(opened.writer, "r", MANY)
    assert opened.log.stat().st_size > SMALL
    assert opened.path.stat().st_size == before


async def test_log_that_was_written_back_starts_anew(opened: Opened) -> None:
    before = opened.path.stat().st_size
    commit(opened.writer, "r", MANY)
    await opened.checkpoints.write_back()
    filled = opened.log.stat().st_size
    assert opened.path.stat().st_size > before
    commit(opened.writer, "s", MANY // 2)
    assert opened.log.stat().st_size == filled
    assert opened.reader.totals()[0].entry_count == MANY + MANY // 2


async def test_log_is_written_back_after_so_many_commits(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.ledger.wal.LOOK_S", 0.001)
    monkeypatch.setattr("services.ledger.wal.COMMITS", 3)
    before = opened.path.stat().st_mtime_ns
    running = asyncio.create_task(opened.checkpoints.run())
    try:
        commit(opened.writer, "a", 2)
        await asyncio.sleep(0.05)
        assert opened.path.stat().st_mtime_ns == before
        commit(opened.writer, "b", 1)
        async with asyncio.timeout(30):
            while opened.path.stat().st_mtime_ns == before:
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.wait([running])
