"""The entries that can serve, in memory: a hash table in order of use, bounded by count and by bytes.

Pure: the caller says what time it is. Expiry is a heap with lazy deletion, so that leaving is O(log n) and needs no scan.
"""

import heapq
from collections import OrderedDict

from services.cache.entry_filter import EntryFilter
from services.cache.kept_entry import KeptEntry

# Room for stale records in the heap before it is built anew.
_SLACK = 1024


class HotIndex:
    """Least recently used entries leave when `max_entries` or `max_bytes` is passed."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._size_bytes = 0
        # Coldest first.
        self._entries: OrderedDict[str, KeptEntry] = OrderedDict()
        self._expiries: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def get(self, entry_id: str, now_us: int, max_age_us: int | None = None) -> KeptEntry | None:
        """The entry, if it has not expired and is not older than asked. Serving it makes it the most recently used."""
        kept = self._entries.get(entry_id)
        if kept is None or kept.expires_us <= now_us:
            return None
        if max_age_us is not None and now_us - kept.created_us > max_age_us:
            return None
        self._entries.move_to_end(entry_id)
        return kept

    def put(self, kept: KeptEntry) -> list[KeptEntry]:
        """Keeps an entry in place of its predecessor; gives those that had to leave for it."""
        self._forget(kept.entry_id)
        self._insert(kept)
        evicted = []
        while len(self._entries) > self._max_entries or self._size_bytes > self._max_bytes:
            _, coldest = self._entries.popitem(last=False)
            self._size_bytes -= len(coldest.data)
            evicted.append(coldest)
        return evicted

    def restore(self, kept: KeptEntry, now_us: int) -> bool:
        """Takes an entry back from the store, as the coldest. False when it is expired, superseded or there is no room."""
        is_wanted = kept.expires_us > now_us and kept.entry_id not in self._entries
        has_room = len(self._entries) < self._max_entries and self._size_bytes + len(kept.data) <= self._max_bytes
        if not (is_wanted and has_room):
            return False
        self._insert(kept)
        self._entries.move_to_end(kept.entry_id, last=False)
        return True

    def expire(self, now_us: int) -> list[KeptEntry]:
        """Removes what may no longer serve and gives it."""
        expired = []
        while self._expiries and self._expiries[0][0] <= now_us:
            _, entry_id = heapq.heappop(self._expiries)
            kept = self._entries.get(entry_id)
            # A record of an entry that left, or was stored again to live longer, is stale.
            if kept is not None and kept.expires_us <= now_us:
                self._forget(entry_id)
                expired.append(kept)
        return expired

    def remove(self, chosen: EntryFilter) -> int:
        """Removes the entries that a filter matches; gives their number."""
        if chosen.entry_id is not None:
            kept = self._entries.get(chosen.entry_id)
            doomed = [kept.entry_id] if kept is not None and chosen.matches(kept) else []
        else:
            doomed = [kept.entry_id for kept in self._entries.values() if chosen.matches(kept)]
        for entry_id in doomed:
            self._forget(entry_id)
        return len(doomed)

    def _insert(self, kept: KeptEntry) -> None:
        self._entries[kept.entry_id] = kept
        self._size_bytes += len(kept.data)
        heapq.heappush(self._expiries, (kept.expires_us, kept.entry_id))
        if len(self._expiries) > 2 * len(self._entries) + _SLACK:
            self._expiries = [(live.expires_us, live.entry_id) for live in self._entries.values()]
            heapq.heapify(self._expiries)

    def _forget(self, entry_id: str) -> None:
        kept = self._entries.pop(entry_id, None)
        if kept is not None:
            self._size_bytes -= len(kept.data)
