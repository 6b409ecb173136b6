"""The texts of a scope that have no vector yet: nobody has asked what need be compared with them.

Most scopes are conversations, which hold one question that nobody asks again; and of a template filled with many numbers only the texts
with those of a question may answer it, in whatever words (template.py). So a text waits for its vector until it may serve: in small
scopes until anything is asked, in others until something with the same digits is, in any order: "1000" is "1,000" too, and "7 or 8" is
"8 or 7". Pure.
"""

from itertools import islice

from services.cache.template import Filling

# How many are looked at for one question: those of the same digits are seldom more than a few.
_MOST = 64


class Unembedded:
    """By what must be asked before they matter: digits, or None for anything."""

    __slots__ = ("_fillings", "_keys")

    def __init__(self) -> None:
        self._keys: dict[str, str | None] = {}
        self._fillings: dict[str | None, dict[str, Filling]] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def put(self, entry_id: str, own: Filling, is_among_few: bool) -> None:
        """Adds a text that is not there."""
        key = own.digits if own.has_numbers and not is_among_few else None
        self._keys[entry_id] = key
        self._fillings.setdefault(key, {})[entry_id] = own

    def pop(self, entry_id: str) -> Filling | None:
        """Takes a text out; None where it is not."""
        if entry_id not in self._keys:
            return None
        key = self._keys.pop(entry_id)
        fillings = self._fillings[key]
        own = fillings.pop(entry_id)
        if not fillings:
            del self._fillings[key]
        return own

    def beside(self, asked: Filling | None) -> list[str]:
        """What must have a vector before a search for a text; None: for one that may be compared with any."""
        found = list(self._fillings.get(None, ()))
        alike = self._fillings.get(asked.digits) if asked is not None and asked.has_numbers else None
        if asked is not None and alike is not None:
            found += [entry_id for entry_id, own in islice(alike.items(), _MOST) if not asked.differs_in_numbers_only(own)]
        return found
