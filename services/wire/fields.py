"""The engine under the codec: reads and writes one JSON object level by a table compiled from a message's descriptor.

A proto field has the JSON name it carries in chat.proto, so the descriptor is the table; callers add only what it cannot say.
Reading keeps the law of `extra_json`: whatever writing the typed field would not give back to the letter is kept there as well.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import msgspec
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from msgspec import DecodeError, Raw

encode = msgspec.json.Encoder().encode
decode_members: Callable[[bytes | Raw], dict[str, Raw]] = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_objects: Callable[[bytes | Raw], list[dict[str, Raw]]] = msgspec.json.Decoder(list[dict[str, Raw]]).decode
decode_elements: Callable[[bytes | Raw], list[Raw]] = msgspec.json.Decoder(list[Raw]).decode
decode_string: Callable[[bytes | Raw], str] = msgspec.json.Decoder(str).decode
_decode_integer: Callable[[Raw], int] = msgspec.json.Decoder(int).decode
_decode_float: Callable[[Raw], float] = msgspec.json.Decoder(float).decode
_decode_boolean: Callable[[Raw], bool] = msgspec.json.Decoder(bool).decode

NULL = Raw(b"null")

# More than any document of these APIs has, and so few that whoever reads a part of it again may stand deep in the stack. Counted, since how
# deep an interpreter goes by itself is another number in each version.
MOST_LEVELS = 256
_LEVELS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NEITHER_BRACKETS_NOR_QUOTES = bytes(set(range(256)) - _LEVELS.keys() - set(b'"'))

# Beyond this a double does not tell neighbouring integers apart, so writing all the digits would claim a precision it lacks.
_EXACT_INTEGERS = 2.0**53


class Unfit(Exception):  # noqa: N818 - a value that does not fit is not an error until someone says so
    """A JSON value that its field cannot hold, and where it stands."""

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = path

    def under(self, step: str) -> Unfit:
        """The same, seen from one level up: `step` is a member's name or `[index]`."""
        separator = "." if self.path and not self.path.startswith("[") else ""
        return Unfit(self.problem, step + separator + self.path)


def wrong_type(expected: str, raw: Raw) -> Unfit:
    """Says what was expected and what came instead, in OpenAI's words."""
    return Unfit(f"expected {expected}, but got {_kind(raw)} instead.")


def _kind(raw: Raw) -> str:
    text = bytes(raw)
    named = {b"{": "an object", b"[": "an array", b'"': "a string", b"t": "a boolean", b"f": "a boolean", b"n": "null"}
    return named.get(text[:1]) or ("an integer" if text.lstrip(b"-").isdigit() else "a decimal")


# Puts what it read among the message's keyword arguments; says whether writing them gives the same text back. The flag asks for `Unfit`
# instead of leniency further down.
Read = Callable[[Raw, dict[str, Any], bool], bool]
# How a kind of value is read into a keyword argument, of which is known whether its unset value is written. One step for each value: there
# are dozens in a request.
Reader = Callable[[str, bool], Read]
# The JSON value of a set field; None where it is the field's value as it is.
Write = Callable[[Any], Any] | None


@dataclass(frozen=True, slots=True)
class Field:
    """One JSON name: how it is read, and which proto fields it is written from."""

    read: Read
    writes: Mapping[str, Write]


class Shape:
    """One object level, compiled."""

    __slots__ = ("_null_when_unset", "_readers", "_unset", "_writers")

    def __init__(self, fields: Mapping[str, Field], always: Mapping[str, Any]) -> None:
        self._readers = {name: field.read for name, field in fields.items()}
        self._writers = {attribute: (name, write) for name, field in fields.items() for attribute, write in field.writes.items()}
        self._unset = dict(always)
        self._null_when_unset = frozenset(name for name, value in always.items() if value is None)

    def read(self, members: Mapping[str, Raw], strict: bool) -> dict[str, Any]:
        """Keyword arguments for the message. `Unfit` if `strict`; else what does not fit stays in `extra_json` alone."""
        values: dict[str, Any] = {}
        extra: dict[str, Raw] = {}
        for name, raw in members.items():
            read = self._readers.get(name)
            if read is None:
                extra[name] = raw
            elif raw == NULL:
                if name not in self._null_when_unset:
                    extra[name] = raw
            else:
                try:
                    exact = read(raw, values, strict)
                except Unfit as unfit:
                    if strict:
                        raise unfit.under(name) from None
                    exact = False
                if not exact:
                    extra[name] = raw
        if extra:
            values["extra_json"] = encode(extra)
        return values

    def write(self, message: Message) -> dict[str, Any]:
        """The JSON object of `message`, ready for `encode`."""
        members = dict(self._unset)
        for field, value in message.ListFields():
            writer = self._writers.get(field.name)
            if writer is None:  # extra_json: the last field, so that its names win
                members.update(decode_members(value))
            else:
                name, write = writer
                members[name] = value if write is None else write(value)
        return members


def parse_object(document: bytes) -> dict[str, Raw]:
    """The members of a JSON object in UTF-8. ValueError if it is none, or nests deeper than MOST_LEVELS.

    msgspec checks what it skips down to number syntax and surrogate pairs, but not the UTF-8 inside skipped strings.
    """
    document.decode()
    if document.count(b"[") + document.count(b"{") > MOST_LEVELS and _levels(document) > MOST_LEVELS:
        raise ValueError("nested too deeply")
    return decode_members(document)


def _levels(document: bytes) -> int:
    """How deep a document nests."""
    marks = document.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NEITHER_BRACKETS_NOR_QUOTES)
    # Strings without brackets are next to nothing by now; every other piece of the rest is within one.
    brackets = b"".join(marks.replace(b'""', b"").split(b'"')[::2])
    return max(accumulate(map(_LEVELS.__getitem__, brackets)), default=0)


def without_extra(extra_json: bytes, names: Collection[str]) -> bytes:
    """`extra_json` less some names.

    Whoever sets a typed field must take its name out of `extra_json`, which would win: 100 may have come as `1e2`.
    """
    members = decode_members(extra_json or b"{}")
    kept = {name: raw for name, raw in members.items() if name not in names}
    if len(kept) == len(members):
        return extra_json
    return encode(kept) if kept else b""


def compile_shape(descriptor: Descriptor, always: Mapping[str, Mapping[str, Any]], special: Mapping[str, Field]) -> Shape:
    """The shape of a message and of all below it.

    `always`, by message name: members written even when unset, with the value they then have; a name that no field has is a constant.
    `special`, by `Message.member`: fields whose JSON form the descriptor does not tell.
    """
    unset = always.get(descriptor.name, {})
    fields = {}
    for field in descriptor.fields:
        name = _json_name(field)
        if name != "extra_json":
            fields[name] = special.get(f"{descriptor.name}.{name}") or _field(field, name in unset, always, special)
    constants = {name: _constant(value) for name, value in unset.items() if name not in fields}
    return Shape(fields | constants, unset)


def _json_name(field: FieldDescriptor) -> str:
    oneof = field.containing_oneof
    if oneof is not None and len(oneof.fields) > 1:  # an `optional` field is alone in a oneof of its own
        return oneof.name
    return field.name if field.name == "extra_json" else field.name.removesuffix("_json")


def _field(field: FieldDescriptor, is_always_written: bool, always: Mapping[str, Mapping[str, Any]], special: Mapping[str, Field]) -> Field:
    reader: Reader
    write: Write
    if field.message_type is not None:
        shape = compile_shape(field.message_type, always, special)
        reader, write = many(shape) if field.is_repeated else one(shape)
    elif field.enum_type is not None:
        reader, write = _enum(field.enum_type)
    else:
        reader, write = _SCALARS[field.type]
    return Field(reader(field.name, field.has_presence or is_always_written), {field.name: write})


def _constant(value: str) -> Field:
    text = Raw(encode(value))
    return Field(lambda raw, values, strict: raw == text, {})


def one(shape: Shape) -> tuple[Reader, Write]:
    """An object."""

    def reader(attribute: str, is_unset_visible: bool) -> Read:
        def read(raw: Raw, values: dict[str, Any], strict: bool) -> bool:
            try:
                members = decode_members(raw)
            except DecodeError:
                raise wrong_type("an object", raw) from None
            values[attribute] = shape.read(members, strict)
            return True

        return read

    return reader, shape.write


def many(shape: Shape) -> tuple[Reader, Write]:
    """An array of objects."""
    write_one = shape.write

    def reader(attribute: str, is_unset_visible: bool) -> Read:
        def read(raw: Raw, values: dict[str, Any], strict: bool) -> bool:
            elements: list[dict[str, Any]] = []
            for members in _objects(raw):
                try:
                    elements.append(shape.read(members, strict))
                except Unfit as unfit:
                    raise unfit.under(f"[{len(elements)}]") from None
            values[attribute] = elements
            return is_unset_visible or bool(elements)

        return read

    return reader, lambda messages: [write_one(message) for message in messages]


def _objects(raw: Raw) -> list[dict[str, Raw]]:
    try:
        return _decode_objects(raw)
    except DecodeError:
        pass
    try:
        elements = decode_elements(raw)
    except DecodeError:
        raise wrong_type("an array of objects", raw) from None
    at, element = next((at, element) for at, element in enumerate(elements) if memoryview(element)[0] != ord("{"))
    raise wrong_type("an object", element).under(f"[{at}]")


def string(raw: Raw) -> str:
    """A string; its escapes may be written otherwise, which is the same JSON."""
    try:
        return decode_string(raw)
    except DecodeError:
        raise wrong_type("a string", raw) from None


def _plain(decode: Callable[[Raw], str | bool], expected: str) -> Reader:
    """A kind of value that has one text, as far as that matters."""

    def reader(attribute: str, is_unset_visible: bool) -> Read:
        def read(raw: Raw, values: dict[str, Any], strict: bool) -> bool:
            try:
                value = values[attribute] = decode(raw)
            except DecodeError:
                raise wrong_type(expected, raw) from None
            return is_unset_visible or bool(value)

        return read

    return reader


def _text(attribute: str, is_unset_visible: bool) -> Read:
    def read(raw: Raw, values: dict[str, Any], strict: bool) -> bool:
        values[attribute] = bytes(raw)
        return True

    return read


def _double(attribute: str, is_unset_visible: bool) -> Read:
    def read(raw: Raw, values: dict[str, Any], strict: bool) -> bool:
        try:
            value = values[attribute] = _decode_float(raw)
        except DecodeError:
            raise wrong_type("a decimal", raw) from None
        return raw == Raw(encode(_number(value))) and (is_unset_visible or value != 0)

    return read


def _number(value: float) -> float | int:
    """The canonical form: the shortest text that reads as the same double, without `.0` on an integer."""
    return int(value) if abs(value) < _EXACT_INTEGERS and value.is_integer() else value


def _integer(bits: int) -> Reader:
    bound = 1 << (bits - 1)

    def reader(attribute: str, is_unset_visible: bool) -> Read:
        def read(raw: Raw, values: dict[str, Any], strict: bool) -> bool:
            try:
                value, is_canonical = _decode_integer(raw), True
            except DecodeError:
                value, is_canonical = _integral(raw), False
            if not -bound <= value < bound:
                raise Unfit(f"expected a value between {-bound} and {bound - 1}.")
            values[attribute] = value
            # An integer's text is canonical, but for -0.
            return is_canonical and (value != 0 or (is_unset_visible and raw == _ZERO))

        return read

    return reader


_ZERO = Raw(b"0")


def _integral(raw: Raw) -> int:
    """The integer that a text like 1.0 or 1e2 means."""
    try:
        value = _decode_float(raw)
    except DecodeError:
        raise wrong_type("an integer", raw) from None
    if not value.is_integer():
        raise wrong_type("an integer", raw)
    return int(value)


def _enum(enum: EnumDescriptor) -> tuple[Reader, Write]:
    """A string: the value's name without its prefix, in lower case. The zero value has none."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    names = {value.number: value.name.removeprefix(prefix).lower() for value in enum.values if value.number}
    numbers = {name: number for number, name in names.items()}
    expected = "expected one of " + ", ".join(f"'{name}'" for name in numbers) + "."

    def reader(attribute: str, is_unset_visible: bool) -> Read:
        def read(raw: Raw, values: dict[str, Any], strict: bool) -> bool:
            number = numbers.get(string(raw))
            if number is None:
                raise Unfit(expected)
            values[attribute] = number
            return True

        return read

    return reader, names.get


_SCALARS: Mapping[int, tuple[Reader, Write]] = {
    FieldDescriptor.TYPE_STRING: (_plain(decode_string, "a string"), None),
    FieldDescriptor.TYPE_BYTES: (_text, Raw),
    FieldDescriptor.TYPE_BOOL: (_plain(_decode_boolean, "a boolean"), None),
    FieldDescriptor.TYPE_DOUBLE: (_double, _number),
    FieldDescriptor.TYPE_INT32: (_integer(32), None),
    FieldDescriptor.TYPE_INT64: (_integer(64), None),
}
