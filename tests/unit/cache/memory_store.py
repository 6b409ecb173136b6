"""A store in memory that can be told to fail or to stall, for tests of the mirror."""

import threading

import numpy as np

from services.cache.backlog import Batch
from services.cache.entry_filter import EntryFilter
from services.cache.kept_entry import KeptEntry, KeptWording
from services.cache.removal_watch import Removal
from services.cache.rows import Row, entries_of, rows_of


class MemoryStore:
    """Outlives `close`, as a disk does."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.is_broken = False
        self.may_run = threading.Event()
        self.may_run.set()
        self.applied: list[Batch] = []
        self.told: list[Removal] = []
        self.open_count = 0

    def whole(self) -> dict[str, KeptEntry]:
        return {entry.entry_id: entry for entry in entries_of(self.rows.values())}

    def _work(self) -> None:
        assert self.may_run.wait(10)
        if self.is_broken:
            raise LookupError("disk on fire")

    def open(self) -> None:
        self._work()
        self.open_count += 1

    def heads(self, now_us: int) -> list[tuple[str, int]]:
        self._work()
        return [(row["row_id"], row["created_us"]) for row in self.rows.values() if row["expires_us"] > now_us]

    def read(self, row_ids: list[str]) -> list[KeptEntry]:
        rows = [self.rows[row_id] for row_id in row_ids if row_id in self.rows]
        self._work()
        return list(entries_of(rows))

    def find(self, entry_id: str, wording: KeptWording | None, count: int) -> list[KeptEntry]:
        self._work()
        near = [each for each in self.whole().values() if wording is not None and each.wording and each.wording.scope == wording.scope]
        near.sort(key=lambda each: -float(np.frombuffer(each.wording.vector, "<f4") @ np.frombuffer(wording.vector, "<f4")))  # type: ignore[union-attr]
        return [each for each in self.whole().values() if each.entry_id == entry_id] + near[:count]

    def apply(self, batch: Batch, now_us: int) -> None:
        self._work()
        for chosen in batch.removals:
            self._delete(chosen)
            self.told.append(Removal(str(len(self.told)), now_us, chosen))
        for row_id in batch.row_ids_to_delete:
            self.rows.pop(row_id, None)
        self.rows |= {row["row_id"]: row for entry in batch.entries_to_write for row in rows_of(entry)}
        self.applied.append(batch)

    def removals(self, since_us: int) -> list[Removal]:
        self._work()
        return [removal for removal in self.told if removal.at_us >= since_us]

    def _delete(self, chosen: EntryFilter) -> None:
        matched = {entry.entry_id for entry in self.whole().values() if chosen.matches(entry)}
        self.rows = {row_id: row for row_id, row in self.rows.items() if row_id.partition("-")[0] not in matched}

    def sweep(self, now_us: int) -> None:
        self._work()
        self.rows = {row_id: row for row_id, row in self.rows.items() if row["expires_us"] > now_us}

    def close(self) -> None:
        pass
