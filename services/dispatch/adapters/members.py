"""An object of a vendor's answer, taken apart member by member: what has no place of its own is left over, for `extra_json`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import DecodeError, Raw

from services.dispatch.failure import Failure, Kind
from services.wire.fields import NULL, decode_elements, decode_members, decode_string, encode, parse_object

# Sums of a few counts must still fit the integers of the stubs.
_MOST: Final = 1 << 60
_decode_number: Callable[[Raw], int | float] = msgspec.json.Decoder(int | float).decode
_decode_boolean: Callable[[Raw], bool] = msgspec.json.Decoder(bool).decode


class Members:
    """The object. A member is taken once, by the type it should have; one that is null is as good as absent.

    Each method raises Failure of kind BROKEN for a member of another type.
    """

    __slots__ = ("_members",)

    def __init__(self, members: dict[str, Raw]) -> None:
        self._members = members

    @classmethod
    def parse(cls, document: bytes) -> Members:
        """The object that a document is. Raises Failure when it is none."""
        try:
            return cls(parse_object(document))
        except ValueError:
            raise Failure(Kind.BROKEN, "the provider's answer is not a JSON object in UTF-8") from None

    def raw(self, name: str) -> Raw | None:
        """The JSON text of a member of any type."""
        raw = self._members.pop(name, None)
        return None if raw is None or raw == NULL else raw

    def skip(self, *names: str) -> None:
        """Takes what says nothing new."""
        for name in names:
            self._members.pop(name, None)

    def text(self, name: str) -> str:
        """A string; empty when absent."""
        raw = self.raw(name)
        if raw is None:
            return ""
        try:
            return decode_string(raw)
        except (DecodeError, UnicodeError):
            raise _wrong(name, "a string") from None

    def count(self, name: str) -> int | None:
        """A whole number from 0, written in any way; None when absent."""
        raw = self.raw(name)
        if raw is None:
            return None
        try:
            number = _decode_number(raw)
            if 0 <= number < _MOST and number == int(number):
                return int(number)
        except DecodeError:
            pass
        raise _wrong(name, "a count")

    def truth(self, name: str) -> bool:
        """A boolean; false when absent."""
        raw = self.raw(name)
        try:
            return raw is not None and _decode_boolean(raw)
        except DecodeError:
            raise _wrong(name, "a boolean") from None

    def object(self, name: str) -> Members:
        """An object; one without members when absent."""
        raw = self.raw(name)
        return Members({}) if raw is None else _object(name, raw)

    def objects(self, name: str) -> list[Members]:
        """An array of objects; empty when absent."""
        raw = self.raw(name)
        if raw is None:
            return []
        try:
            elements = decode_elements(raw)
        except DecodeError:
            raise _wrong(name, "an array") from None
        return [_object(name, element) for element in elements]

    def has(self, name: str) -> bool:
        """Whether a member is there and not yet taken."""
        return name in self._members

    def all(self) -> dict[str, Raw]:
        """What was not taken, name by name."""
        return self._members

    def rest(self) -> bytes:
        """What was not taken, as `extra_json`; empty when nothing was left."""
        return encode(self._members) if self._members else b""


def _object(name: str, raw: Raw) -> Members:
    try:
        return Members(decode_members(raw))
    except DecodeError:
        raise _wrong(name, "an object") from None


def _wrong(name: str, expected: str) -> Failure:
    return Failure(Kind.BROKEN, f"the provider's answer makes no sense: {name!r} is not {expected}")
