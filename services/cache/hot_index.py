"""The entries that can serve, in memory: a table by id, a slab of vectors for each scope, bounded by count and by bytes.

Pure: the caller says what time it is. Who leaves for want of room: of the tenant that holds most, the entry that saves least. That is
Greedy-Dual-Size (Cao and Irani 1997) with joules for cost: an entry's rank is the joules that it saves per byte, plus the rank of what left
last at the time of its last use, so that among equals the least recently used leaves, and nothing dear stays for ever unused.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from services.cache.embedders.base import Vectors
from services.cache.entry_filter import EntryFilter
from services.cache.kept_entry import KeptEntry
from services.cache.least_first import LeastFirst
from services.cache.nearest import Rows, Search
from services.cache.slabs import NO_ROWS, Slabs
from services.cache.template import Filling, filling

# What a search may look at when the first that it finds are too old: so many times the candidates asked for.
_SPARE_FACTOR = 8


class _Shelf:
    """What one tenant holds."""

    __slots__ = ("inflation", "ranks", "size_bytes")

    def __init__(self) -> None:
        self.size_bytes = 0
        self.inflation = 0.0
        self.ranks = LeastFirst[tuple[float, int]]()


class HotIndex:
    """Entries leave when `max_entries` or `max_bytes` is passed, or `tenant_max_bytes` by their tenant."""

    def __init__(self, max_entries: int, max_bytes: int, tenant_max_bytes: int | None = None) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._tenant_max_bytes = max_bytes if tenant_max_bytes is None else tenant_max_bytes
        self._size_bytes = 0
        self._entries: dict[str, KeptEntry] = {}
        self._slabs = Slabs()
        self._expiries = LeastFirst[int]()
        self._shelves: dict[str, _Shelf] = {}
        # By size, negative: the largest first.
        self._tenants = LeastFirst[int]()
        # Counts uses, and downwards what came back from the store: colder than anything used since.
        self._uses = 0
        self._restored = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, entry_id: str) -> bool:
        return entry_id in self._entries

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    @property
    def semantic_count(self) -> int:
        """Entries that can serve other words."""
        return len(self._slabs)

    def holdings(self) -> Mapping[str, tuple[int, int]]:
        """Entries and bytes of each tenant, by its mark."""
        return {tenant: (len(shelf.ranks), shelf.size_bytes) for tenant, shelf in self._shelves.items()}

    def get(self, entry_id: str, now_us: int, max_age_us: int | None = None) -> KeptEntry | None:
        """The entry, if it has not expired and is not older than asked. Serving it makes it the most recently used."""
        kept = self._entries.get(entry_id)
        if kept is None or not _may_serve(kept, now_us, max_age_us):
            return None
        self.use(kept)
        return kept

    def peek(self, entry_id: str) -> KeptEntry | None:
        """The entry, whether or not it may still serve. Not a use of it."""
        return self._entries.get(entry_id)

    def is_beside_none(self, scope: str, asked: Filling | None) -> bool:
        """Whether a scope has nothing that a text need be compared with; None: a text that may be compared with any."""
        slab = self._slabs.get(scope)
        return slab is None or slab.is_beside_none(asked)

    def unembedded_beside(self, scope: str, asked: Filling | None) -> list[KeptEntry]:
        """The entries of a scope that must have their vectors before a search for a text; None: for one that may be compared with any."""
        slab = self._slabs.get(scope)
        return [] if slab is None else [self._entries[entry_id] for entry_id in slab.unembedded_beside(asked)]

    def embed(self, kept: KeptEntry, vector: Vectors) -> None:
        """Gives an entry its vector, if it is still there and has none."""
        own = self._entries.get(kept.entry_id)
        if own is None or own.wording is None:
            return
        slab = self._slabs.get(own.wording.scope)
        if slab is not None and slab.embed(own.entry_id, vector):
            self._entries[own.entry_id] = own.without_vector(vector.nbytes)
            self._resize(own, vector.nbytes)

    def rows_beside(self, scope: str, asked: Filling | None) -> Rows | None:
        """The only rows of a scope that a search for a text need look at; None: all."""
        slab = self._slabs.get(scope)
        return NO_ROWS if slab is None else slab.rows_beside(asked)

    def long_search(self, scope: str, vector: Vectors, floor: float, count: int) -> Search | None:
        """A search of all rows that had better run in another thread, for `near`; None where it takes no time."""
        slab = self._slabs.get(scope)
        return slab.search(vector, floor, _SPARE_FACTOR * count) if slab is not None and slab.is_long else None

    def near(
        self,
        scope: str,
        vector: Vectors,
        floor: float,
        count: int,
        now_us: int,
        max_age_us: int | None = None,
        rows: Rows | None = None,
    ) -> Iterator[tuple[KeptEntry, float]]:
        """The at most `count` entries of a scope nearest to a vector, with their cosines, nearest first; none below `floor`.

        `rows` are the only ones to be looked at: those beside a text, or that a long search has found for the same. The caller changes
        nothing until it has what it wants.
        """
        slab = self._slabs.get(scope)
        if slab is None:
            return
        left, seen = count, set[str]()
        for most in (count, _SPARE_FACTOR * count):
            named = list(slab.named(slab.search(vector, floor, most), rows))
            for entry_id, similarity in named:
                kept = self._entries[entry_id]
                if entry_id in seen or not _may_serve(kept, now_us, max_age_us):
                    continue
                yield kept, similarity
                seen.add(entry_id)
                left -= 1
                if not left:
                    return
            if len(named) < most:
                return

    def use(self, kept: KeptEntry) -> None:
        """Notes that an entry serves."""
        self._uses += 1
        self._rank(kept, self._uses)

    def put(self, kept: KeptEntry) -> list[KeptEntry]:
        """Keeps an entry in place of its predecessor; gives those that had to leave for it."""
        self._forget(kept.entry_id)
        evicted = []
        while (victim := self._victim(kept)) is not None:
            self._inflate(victim)
            self._forget(victim.entry_id)
            evicted.append(victim)
        self._uses += 1
        self._insert(kept, self._uses)
        return evicted

    def restore(self, kept: KeptEntry, now_us: int) -> bool:
        """Takes an entry back from the store, as the coldest. False when it is expired, superseded or there is no room."""
        is_wanted = kept.expires_us > now_us and kept.entry_id not in self._entries
        if not is_wanted or self._victim(kept) is not None:
            return False
        self._restored -= 1
        self._insert(kept, self._restored)
        return True

    def expire(self, now_us: int) -> list[KeptEntry]:
        """Removes what may no longer serve and gives it."""
        expired = []
        while (least := self._expiries.least()) is not None and least[1] <= now_us:
            expired.append(self._entries[least[0]])
            self._forget(least[0])
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

    def _victim(self, newcomer: KeptEntry) -> KeptEntry | None:
        """Who must leave before the newcomer fits; None when it does, or nobody is left."""
        own = self._shelves.get(newcomer.tenant)
        size_bytes = newcomer.size_bytes
        if own is not None and own.size_bytes + size_bytes > self._tenant_max_bytes:
            tenant = newcomer.tenant
        elif len(self._entries) >= self._max_entries or self._size_bytes + size_bytes > self._max_bytes:
            largest = self._tenants.least()
            if largest is None:
                return None
            tenant = largest[0]
        else:
            return None
        least = self._shelves[tenant].ranks.least()
        return None if least is None else self._entries[least[0]]

    def _insert(self, kept: KeptEntry, use: int) -> None:
        if kept.wording is not None:
            vector = np.frombuffer(kept.wording.vector, "<f4") if kept.wording.vector else None
            self._slabs.put(kept.wording.scope, kept.entry_id, vector, filling(kept.wording.text))
            if vector is not None:
                kept = kept.without_vector()
        self._entries[kept.entry_id] = kept
        self._expiries.set(kept.entry_id, kept.expires_us)
        if kept.tenant not in self._shelves:
            self._shelves[kept.tenant] = _Shelf()
        self._rank(kept, use)
        self._resize(kept, kept.size_bytes)

    def _forget(self, entry_id: str) -> None:
        kept = self._entries.pop(entry_id, None)
        if kept is None:
            return
        self._expiries.discard(entry_id)
        if kept.wording is not None:
            self._slabs.remove(kept.wording.scope, entry_id)
        self._shelves[kept.tenant].ranks.discard(entry_id)
        self._resize(kept, -kept.size_bytes)

    def _rank(self, kept: KeptEntry, use: int) -> None:
        shelf = self._shelves[kept.tenant]
        shelf.ranks.set(kept.entry_id, (shelf.inflation + _density(kept), use))

    def _inflate(self, victim: KeptEntry) -> None:
        """Raises the ranks of all that is used from now on to where the victim's was."""
        shelf = self._shelves[victim.tenant]
        least = shelf.ranks.least()
        if least is not None:
            shelf.inflation = least[1][0]

    def _resize(self, kept: KeptEntry, change: int) -> None:
        self._size_bytes += change
        shelf = self._shelves[kept.tenant]
        shelf.size_bytes += change
        if len(shelf.ranks):
            self._tenants.set(kept.tenant, -shelf.size_bytes)
        else:
            self._tenants.discard(kept.tenant)
            del self._shelves[kept.tenant]


def _density(kept: KeptEntry) -> float:
    """Joules saved per byte, in millionths."""
    return kept.microjoules / max(1, kept.size_bytes)


def _may_serve(kept: KeptEntry, now_us: int, max_age_us: int | None) -> bool:
    return kept.expires_us > now_us and (max_age_us is None or now_us - kept.created_us <= max_age_us)
