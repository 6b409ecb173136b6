"""What the store has yet to be told: the latest state of each changed entry, and the invalidations that come before all of them.

Pure. An invalidation undoes the queued writes that it matches, so a queued write that it matches is younger than it. "First the removals,
then the rest" is therefore right, whatever the order of arrival, and nothing removed comes back.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from services.cache.entry_filter import EntryFilter
from services.cache.kept_entry import KeptEntry
from services.cache.rows import row_ids

# Beyond this many different invalidations the store is told to remove everything: a cache may forget, but must not remember.
MAX_REMOVALS = 1000


@dataclass(frozen=True, slots=True)
class Write:
    """An entry to be written."""

    kept: KeptEntry

    @property
    def row_ids(self) -> tuple[str, ...]:
        return tuple(row_ids(self.kept.entry_id, len(self.kept.data)))

    def is_matched_by(self, removals: Iterable[EntryFilter]) -> bool:
        return any(chosen.matches(self.kept) for chosen in removals)


@dataclass(frozen=True, slots=True)
class Deletion:
    """The rows of an entry that left memory."""

    row_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Work for one go, in order: removals, deletions, writes."""

    removals: tuple[EntryFilter, ...]
    changes: dict[str, Write | Deletion]

    @property
    def row_ids_to_delete(self) -> list[str]:
        return [row_id for change in self.changes.values() if isinstance(change, Deletion) for row_id in change.row_ids]

    @property
    def entries_to_write(self) -> list[KeptEntry]:
        return [change.kept for change in self.changes.values() if isinstance(change, Write)]


class Backlog:
    """Holds at most `limit` changes; the oldest is dropped for a new one. Writes share their bytes with the hot index."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._removals: dict[EntryFilter, None] = {}
        self._changes: OrderedDict[str, Write | Deletion] = OrderedDict()
        self.dropped_count = 0

    def __len__(self) -> int:
        return len(self._changes) + len(self._removals)

    @property
    def has_removals(self) -> bool:
        return bool(self._removals)

    def write(self, kept: KeptEntry) -> None:
        self._change(kept.entry_id, Write(kept))

    def delete(self, kept: KeptEntry) -> None:
        """Notes that an entry left memory by eviction or expiry."""
        self._change(kept.entry_id, Deletion(Write(kept).row_ids))

    def remove(self, chosen: EntryFilter) -> None:
        """Notes an invalidation.

        A queued write that it matches becomes a deletion: the store may hold a predecessor that the filter does not match.
        """
        self.forget(chosen)
        self._add_removals({chosen: None})

    def forget(self, chosen: EntryFilter) -> None:
        """Leaves undone the queued writes that an invalidation matches, of which the store knows already."""
        for entry_id, change in self._changes.items():
            if isinstance(change, Write) and chosen.matches(change.kept):
                self._changes[entry_id] = Deletion(change.row_ids)

    def supersedes(self, kept: KeptEntry) -> bool:
        """Whether an entry just read from the store is outdated by what the store has yet to be told."""
        return kept.entry_id in self._changes or Write(kept).is_matched_by(self._removals)

    def take(self, max_rows: int) -> Batch:
        """All removals and the oldest changes, about `max_rows` rows of them."""
        removals, self._removals = tuple(self._removals), {}
        changes: dict[str, Write | Deletion] = {}
        row_count = 0
        while self._changes and row_count < max_rows:
            entry_id, change = self._changes.popitem(last=False)
            changes[entry_id] = change
            row_count += len(change.row_ids)
        return Batch(removals, changes)

    def give_back(self, batch: Batch) -> None:
        """Takes back what could not be applied, but for what was overtaken meanwhile."""
        for entry_id, change in reversed(batch.changes.items()):
            if entry_id in self._changes:
                continue
            is_removed = isinstance(change, Write) and change.is_matched_by(self._removals)
            self._changes[entry_id] = Deletion(change.row_ids) if is_removed else change
            self._changes.move_to_end(entry_id, last=False)
        self._add_removals(dict.fromkeys(batch.removals))
        self._drop_excess()

    def _change(self, entry_id: str, change: Write | Deletion) -> None:
        self._changes[entry_id] = change
        self._changes.move_to_end(entry_id)
        self._drop_excess()

    def _drop_excess(self) -> None:
        while len(self._changes) > self._limit:
            self._changes.popitem(last=False)
            self.dropped_count += 1

    def _add_removals(self, removals: dict[EntryFilter, None]) -> None:
        self._removals |= removals
        if EntryFilter() in self._removals or len(self._removals) > MAX_REMOVALS:
            self._removals = {EntryFilter(): None}
