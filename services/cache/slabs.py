"""The vectors that lookups search, in memory: for each scope one contiguous array, compared as a whole.

Pure. A scope seldom holds more than a few thousand questions, and a matrix product over those is exact and faster than any index over all
scopes would be; leaving takes one move of the last row.
"""

from collections.abc import Iterator

import numpy as np

from services.cache.embedders.base import Vectors

# What one search may look at: the candidates asked for, and as many again that turn out too old or refused.
_PARTITION_FACTOR = 8


class Slab:
    """The vectors of one scope."""

    __slots__ = ("_ids", "_rows", "_vectors")

    def __init__(self, dimension: int) -> None:
        # Most scopes are conversations, which hold one question.
        self._vectors = np.empty((1, dimension), np.float32)
        self._ids: list[str] = []
        self._rows: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def size_bytes(self) -> int:
        return self._vectors.nbytes

    def put(self, entry_id: str, vector: Vectors) -> None:
        row = self._rows.get(entry_id)
        if row is None:
            row = self._rows[entry_id] = len(self._ids)
            if row == len(self._vectors):
                self._resize(2 * row)
            self._ids.append(entry_id)
        self._vectors[row] = vector

    def remove(self, entry_id: str) -> None:
        row = self._rows.pop(entry_id)
        last = self._ids.pop()
        if last != entry_id:
            self._ids[row] = last
            self._rows[last] = row
            self._vectors[row] = self._vectors[len(self._ids)]
        if 0 < 4 * len(self._ids) < len(self._vectors):
            self._resize(2 * len(self._ids))

    def search(self, vector: Vectors, floor: float, count: int) -> Iterator[tuple[str, float]]:
        """The nearest entries with a cosine of at least `floor`, nearest first; more than `count` where there are more."""
        # Row by row: a matrix product would wake the threads of the linear algebra, whose waiting costs more than they save.
        similarities = np.vecdot(self._vectors[: len(self._ids)], vector)
        rows = np.flatnonzero(similarities >= floor)
        most = _PARTITION_FACTOR * count
        if len(rows) > most:
            rows = rows[np.argpartition(similarities[rows], -most)[-most:]]
        for row in rows[np.argsort(-similarities[rows], kind="stable")]:
            yield self._ids[row], min(1.0, float(similarities[row]))

    def _resize(self, capacity: int) -> None:
        vectors = np.empty((capacity, self._vectors.shape[1]), np.float32)
        vectors[: len(self._ids)] = self._vectors[: len(self._ids)]
        self._vectors = vectors


class Slabs:
    """The slabs of all scopes."""

    def __init__(self) -> None:
        self._slabs: dict[str, Slab] = {}
        self._count = 0

    def __len__(self) -> int:
        """Entries in all scopes."""
        return self._count

    def put(self, scope: str, entry_id: str, vector: Vectors) -> None:
        """Adds an entry that is not yet there."""
        slab = self._slabs.get(scope)
        if slab is None:
            slab = self._slabs[scope] = Slab(len(vector))
        slab.put(entry_id, vector)
        self._count += 1

    def remove(self, scope: str, entry_id: str) -> None:
        slab = self._slabs[scope]
        slab.remove(entry_id)
        self._count -= 1
        if not len(slab):
            del self._slabs[scope]

    def search(self, scope: str, vector: Vectors, floor: float, count: int) -> Iterator[tuple[str, float]]:
        """See Slab.search; the caller changes nothing until it has what it wants."""
        slab = self._slabs.get(scope)
        return iter(()) if slab is None else slab.search(vector, floor, count)
