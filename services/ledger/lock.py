"""One owner for a file: a second ledger on the same books must not start."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.runtime.settings import SettingsError


@contextmanager
def owned(path: Path) -> Iterator[None]:
    """Holds `path` for this process while entered, by a lock on a file beside it that ends with the process, however that ends.

    Raises SettingsError when another process holds it or the folder cannot be made.
    """
    lock = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SettingsError([f"LEDGER_DB_PATH={str(path)!r}: {error}"]) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            raise SettingsError([f"LEDGER_DB_PATH={str(path)!r}: another ledger (process {owner}) has these books open"]) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        # The file stays: removing it would let a third process lock a new one while a second still waits on the old.
        yield
    finally:
        os.close(descriptor)
