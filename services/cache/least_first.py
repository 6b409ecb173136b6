"""Keys in order of a rank that may change: a heap with lazy deletion, so that changing and leaving cost O(log n). Pure."""

import heapq
from typing import Generic, TypeVar

Rank = TypeVar("Rank", int, tuple[float, int])

# Room for stale records in the heap before it is built anew.
_SLACK = 64


class LeastFirst(Generic[Rank]):
    """Each key has one rank, its latest."""

    __slots__ = ("_heap", "_ranks")

    def __init__(self) -> None:
        self._ranks: dict[str, Rank] = {}
        self._heap: list[tuple[Rank, str]] = []

    def __len__(self) -> int:
        return len(self._ranks)

    def set(self, key: str, rank: Rank) -> None:
        self._ranks[key] = rank
        heapq.heappush(self._heap, (rank, key))
        if len(self._heap) > 2 * len(self._ranks) + _SLACK:
            self._heap = [(latest, own) for own, latest in self._ranks.items()]
            heapq.heapify(self._heap)

    def discard(self, key: str) -> None:
        self._ranks.pop(key, None)

    def least(self) -> tuple[str, Rank] | None:
        """The key of least rank and that rank; None when there is none."""
        while self._heap:
            rank, key = self._heap[0]
            if self._ranks.get(key) == rank:
                return key, rank
            heapq.heappop(self._heap)
        return None
