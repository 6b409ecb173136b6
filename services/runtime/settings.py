"""Settings come from the environment once, into frozen dataclasses; everything that is wrong is reported at once.

A settings class names its variables beside its fields, so that reading and documenting them use the same words:

    @dataclass(frozen=True, slots=True)
    class CacheSettings:
        ttl_s: float = setting("CACHE_TTL_SECONDS", number(above=0), "3600", "How long an answer may serve.")
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dotenv import dotenv_values

T = TypeVar("T")
_KEY = "setting"


class SettingsError(Exception):
    """One or more settings are wrong; `problems` has a line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable: how it is read and what it means. `default` is text as in the environment; None: unset."""

    name: str
    parse: Callable[[str], Any]
    default: str | None
    meaning: str


def setting(name: str, parse: Callable[[str], Any], default: str | None, meaning: str) -> Any:
    """A dataclass field that is read from the variable `name`; unset with no default gives None."""
    return dataclasses.field(metadata={_KEY: Variable(name, parse, default, meaning)})


def variables(cls: type[Any]) -> list[Variable]:
    """The variables that a settings class reads, in order."""
    return [field.metadata[_KEY] for field in dataclasses.fields(cls)]


def load(cls: type[T], environment: Mapping[str, str]) -> T:
    """Reads a settings class. Raises SettingsError with every problem."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        variable: Variable = field.metadata[_KEY]
        # An empty variable is an unset one: compose files and shells write `NAME=` for "none".
        text = environment.get(variable.name) or variable.default
        try:
            values[field.name] = None if text is None else variable.parse(text)
        except ValueError as error:
            problems.append(f"{variable.name}={text!r}: {error}")
    if problems:
        raise SettingsError(problems)
    return cls(**values)


def read_environment(process: Mapping[str, str]) -> dict[str, str]:
    """The process environment over the `.env` file, which lies beside `JOULEGATE_CONFIG` or in the working directory."""
    config = process.get("JOULEGATE_CONFIG")
    dotenv = (Path(config).parent if config else Path()) / ".env"
    kept = {name: value for name, value in dotenv_values(dotenv).items() if value is not None} if dotenv.is_file() else {}
    return {**kept, **process}


def text(value: str) -> str:
    return value


def boolean(value: str) -> bool:
    match value.strip().lower():
        case "true" | "1" | "yes" | "on":
            return True
        case "false" | "0" | "no" | "off":
            return False
    raise ValueError("say true or false")


def integer(least: int | None = None, most: int | None = None) -> Callable[[str], int]:
    """A whole number within bounds."""

    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            raise ValueError("must be a whole number") from None
        _check_bounds(number, least, most)
        return number

    return parse


def number(least: float | None = None, most: float | None = None, above: float | None = None) -> Callable[[str], float]:
    """A finite decimal number within bounds."""

    def parse(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            raise ValueError("must be a number") from None
        if not math.isfinite(number):
            raise ValueError("must be finite")
        if above is not None and number <= above:
            raise ValueError(f"must be above {above:g}")
        _check_bounds(number, least, most)
        return number

    return parse


def _check_bounds(number: float, least: float | None, most: float | None) -> None:
    if least is not None and number < least:
        raise ValueError(f"must be at least {least:g}")
    if most is not None and number > most:
        raise ValueError(f"must be at most {most:g}")


def one_of(*choices: str) -> Callable[[str], str]:
    """One of the given words, in any case."""

    def parse(value: str) -> str:
        if value.lower() not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return value.lower()

    return parse


def names(value: str) -> tuple[str, ...]:
    """A comma-separated list."""
    return tuple(part for part in (piece.strip() for piece in value.split(",")) if part)


def path(value: str) -> Path:
    return Path(value).expanduser()


def http_address(value: str) -> str:
    """The start of a web address, without a slash at its end."""
    if not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", value):
        raise ValueError("must be http:// or https://, a host and perhaps a path")
    return value.rstrip("/")


def address(value: str) -> str:
    """A gRPC address: `unix:/path` or `host:port`."""
    if value.startswith("unix:"):
        if not value.removeprefix("unix:"):
            raise ValueError("a socket path is missing")
        return value
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError("must be unix:/path or host:port")
    return value


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of `host:port`; what is in brackets is an IPv6 address."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
