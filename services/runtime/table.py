"""A table of joulegate.toml, read key by key: what is wrong is noted and not raised, so that all mistakes are told at once.

No note quotes a value: a key may stand where it should not.
"""

from collections.abc import Collection, Mapping
from typing import Any


class Table:
    """One table. `where` is how notes name it; `prefix` stands before the names of its keys."""

    def __init__(self, members: Any, where: str, problems: list[str], prefix: str = "") -> None:
        self.where = where
        self._problems = problems
        self._prefix = prefix
        self._members: Mapping[str, Any] = members if isinstance(members, dict) else {}
        self.is_table = isinstance(members, dict)
        if not self.is_table:
            self.problem(f"{prefix}must be a table")

    def problem(self, what: str) -> None:
        self._problems.append(f"{self.where}: {what}")

    def only(self, known: Collection[str]) -> None:
        """Notes every other key."""
        for key in sorted(self._members.keys() - known):
            self.problem(f"{self._prefix}unknown key {key!r}")

    def items(self) -> Collection[tuple[str, Any]]:
        return self._members.items()

    def has(self, key: str) -> bool:
        return key in self._members

    def table(self, key: str) -> "Table":
        """A table within; an absent one is empty."""
        return Table(self._members.get(key, {}), self.where, self._problems, f"{self._prefix}{key}: ")

    def tables(self, key: str) -> list["Table"]:
        """A list of tables; an absent one is empty."""
        entries = self._members.get(key, [])
        if not isinstance(entries, list):
            self.problem(f"{self._prefix}{key} must be a list of tables")
            return []
        return [Table(entry, self.where, self._problems, f"{self._prefix}{key}[{place}]: ") for place, entry in enumerate(entries)]

    def text(self, key: str, *, is_needed: bool = False) -> str | None:
        """A text; None when there is none."""
        value = self._members.get(key)
        if (value is not None or is_needed) and (not isinstance(value, str) or not value):
            self.problem(f"{self._prefix}{key} must be text")
            return None
        return value

    def names(self, key: str) -> tuple[str, ...]:
        """A list of texts, each once."""
        values = self._members.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
            self.problem(f"{self._prefix}{key} must be a list of names")
            return ()
        return tuple(dict.fromkeys(values))

    def texts(self, key: str) -> Mapping[str, str] | None:
        """A table of texts; None when there is none."""
        values = self._members.get(key)
        if values is None:
            return None
        if not isinstance(values, dict) or not all(isinstance(value, str) and value for value in values.values()):
            self.problem(f"{self._prefix}{key} must be a table of names")
            return None
        return values

    def integer(self, key: str, default: int, least: int, most: int) -> int:
        value = self._members.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.problem(f"{self._prefix}{key} must be a whole number from {least} to {most}")
            return default
        return value

    def boolean(self, key: str) -> bool | None:
        """True or false; None when it is not said."""
        value = self._members.get(key)
        if value is not None and not isinstance(value, bool):
            self.problem(f"{self._prefix}{key} must be true or false")
            return None
        return value

    def number(self, key: str, default: float, most: float, *, may_be_zero: bool = False) -> float:
        """A number above 0, or from 0, to `most`."""
        value = self._members.get(key, default)
        # NaN fails the comparison.
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most or (value == 0 and not may_be_zero):
            self.problem(f"{self._prefix}{key} must be a number {'from' if may_be_zero else 'above'} 0 to {most:g}")
            return default
        return float(value)
