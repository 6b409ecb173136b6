"""What the headers of an answer say of the provider's limits, whichever vendor wrote them.

OpenAI, Groq, Azure, GitHub and xAI say `x-ratelimit-remaining-requests` and so on, Cerebras and Mistral with the period behind it,
Anthropic `anthropic-ratelimit-requests-remaining`, Together `x-ratelimit-remaining` and `x-tokenlimit-remaining`, OpenRouter and GitHub's
own API `x-ratelimit-remaining`, the draft standards `ratelimit-remaining` or one field `ratelimit`. A reset is `6m0s`, `20ms`, seconds, a
time since 1970 in seconds or milliseconds, or RFC 3339. What cannot be read is left out: no header of a vendor's may break an answer.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import lru_cache
from typing import Final


class Quota(Enum):
    """What is counted. Of input and output, a call takes the share that it takes of tokens."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input-tokens"
    OUTPUT_TOKENS = "output-tokens"


@dataclass(frozen=True, slots=True)
class Rate:
    """One limit: how much of it is left, and in how many seconds it starts anew. None: not said."""

    limit: float | None = None
    remaining: float | None = None
    reset_s: float | None = None


# One limit by what it counts and over which period, "" where that is not said.
Rates = Mapping[tuple[Quota, str], Rate]

_NAME: Final = re.compile(
    r"(?:x-|anthropic-)?(?P<family>ratelimit|tokenlimit)"
    r"(?:-(?P<before>requests|input-tokens|output-tokens|tokens))?"
    r"-(?P<field>limit|remaining|reset)"
    r"(?:-(?P<quota>requests|req|input-tokens|output-tokens|tokens))?"
    r"(?:-(?P<period>second|minute|hour|day|month))?"
)
_SPAN: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?(?:\d+(?:\.\d+)?[uµn]s)?")
_PARTS_S: Final = (86_400.0, 3600.0, 60.0, 1.0, 0.001)
_ITEM: Final = re.compile(r'(?:^|[;,\s])(limit|q|remaining|r|reset|t)\s*=\s*"?(\d+)')
_FIELD_OF_ITEM: Final = {"limit": "limit", "q": "limit", "remaining": "remaining", "r": "remaining", "reset": "reset_s", "t": "reset_s"}
_PERIODS_S: Final = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0, "month": 2_592_000.0}
# Numbers above are times since 1970: no limit starts anew in thirty years.
_EPOCH: Final = 1e9
_EPOCH_MS: Final = 1e12


def read_rates(headers: Mapping[str, str], now: float) -> Rates:
    """The limits in an answer's headers; `now` is seconds since 1970."""
    found: dict[tuple[Quota, str], dict[str, float]] = {}
    for name, text in headers.items():
        meaning = _meaning(name)
        if meaning is None:
            continue
        key, field = meaning
        parts = [(field, text)] if field else [(_FIELD_OF_ITEM[item], value) for item, value in _ITEM.findall(text.lower())]
        for part, value in parts:
            number = _reset_s(value, now) if part == "reset_s" else _amount(value)
            if number is not None:
                found.setdefault(key, {})[part] = number
    return {key: Rate(**fields) for key, fields in found.items()}


@lru_cache(maxsize=512)
def _meaning(name: str) -> tuple[tuple[Quota, str], str] | None:
    """What a header of this name says, and of which limit; None: nothing. The field is empty where one header says all.

    Remembered, for the same few names come with every answer.
    """
    name = name.lower()
    if name == "ratelimit":
        return (Quota.REQUESTS, ""), ""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    quota = match["before"] or match["quota"] or ("tokens" if match["family"] == "tokenlimit" else "requests")
    field = "reset_s" if match["field"] == "reset" else match["field"]
    return (Quota("requests" if quota == "req" else quota), match["period"] or ""), field


def period_s(period: str) -> float | None:
    """The seconds of a period that a header's name said."""
    return _PERIODS_S.get(period)


def _amount(text: str) -> float | None:
    if text.isdecimal():
        return float(text)
    # Some write the policy behind the number: `100, 100;w=60`.
    match = re.match(r"\s*(-?\d+(?:\.\d+)?)\s*(?:[,;]|$)", text)
    return max(0.0, float(match[1])) if match else None


def _reset_s(text: str, now: float) -> float | None:
    text = text.strip()
    try:
        number = float(text)
    except ValueError:
        return _span_s(text) if text[:1].isdigit() and "-" not in text else _until_s(text, now)
    if not 0 <= number < _EPOCH_MS * 100:  # NaN fails too
        return None
    if number >= _EPOCH:
        number = (number / 1000 if number >= _EPOCH_MS else number) - now
    return max(0.0, number)


def _span_s(text: str) -> float | None:
    match = _SPAN.fullmatch(text.lower())
    if match is None:
        return None
    return sum(float(part) * seconds for part, seconds in zip(match.groups(), _PARTS_S, strict=True) if part)


def _until_s(text: str, now: float) -> float | None:
    try:
        then = datetime.fromisoformat(text)
    except ValueError:
        return None
    return max(0.0, then.timestamp() - now) if then.tzinfo is not None else None
