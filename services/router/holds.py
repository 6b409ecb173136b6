"""Who is still needed, by how many: a key that several may hold at a time stays held until the last one lets go. Pure."""

from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Holds(Generic[Key]):
    """Counts who holds which key."""

    def __init__(self) -> None:
        self._counts: dict[Key, int] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._counts

    def take(self, key: Key) -> None:
        """One more holds it."""
        self._counts[key] = self._counts.get(key, 0) + 1

    def drop(self, key: Key) -> bool:
        """One lets go. Says whether that was the last one."""
        count = self._counts[key] - 1
        if count:
            self._counts[key] = count
            return False
        del self._counts[key]
        return True
