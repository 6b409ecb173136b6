"""JSON as text: a parser that keeps every number as it was written, and a writer for what it gives."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Number:
    """A number by its text: 1, 1.0 and 1e0 are three."""

    text: str


def parse(document: bytes) -> Any:
    return json.loads(document, parse_int=Number, parse_float=Number, parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def render(value: Any, *, ensure_ascii: bool = False, separators: tuple[str, str] = (",", ":")) -> bytes:
    comma, colon = separators

    def text(value: Any) -> str:
        match value:
            case Number():
                return value.text
            case dict():
                return "{" + comma.join(text(name) + colon + text(member) for name, member in value.items()) + "}"
            case list():
                return "[" + comma.join(map(text, value)) + "]"
            case _:
                return json.dumps(value, ensure_ascii=ensure_ascii)

    return text(value).encode()


def assert_kept(source: Any, result: Any) -> None:
    """Everything of `source` is in `result`, which may say more only as members that objects of `source` lack."""
    if isinstance(source, dict) and isinstance(result, dict):
        for name, value in source.items():
            assert name in result
            assert_kept(value, result[name])
    elif isinstance(source, list) and isinstance(result, list):
        assert len(source) == len(result)
        for one, other in zip(source, result, strict=True):
            assert_kept(one, other)
    else:
        assert source == result
