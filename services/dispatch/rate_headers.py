"""What the headers of an answer say of the provider's limits, whichever vendor wrote them.

OpenAI, Groq, Azure, GitHub and xAI say `x-ratelimit-remaining-requests` and so on, Cerebras and Mistral with the period behind it,
Anthropic `anthropic-ratelimit-requests-remaining`, Together `x-ratelimit-remaining` and `x-tokenlimit-remaining`, OpenRouter and GitHub's
own API `x-ratelimit-remaining`, the draft standards `ratelimit-remaining` or one field `ratelimit`. A reset is `6m0s`, `20ms`, seconds, a
time since 1970 in seconds or milliseconds, or RFC 3339. What cannot be read is left out: no header of a vendor's may break an answer.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
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
_FIELD_OF_ITEM: Final = {"limit": "limit", "q": "limit", "remaining": "remaining", "r": "remaining", "reset": "reset", "t": "reset"}
_PERIODS_S: Final = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0, "month": 2_592_000.0}
# Numbers above are times since 1970: no limit starts anew in thirty years.
_EPOCH: Final = 1e9
_EPOCH_MS: Final = 1e12


def read_rates(headers: Mapping[str, str], now: float) -> Rates:
    """The limits in an answer's headers; `now` is seconds since 1970."""
    rates: dict[tuple[Quota, str], Rate] = {}
    for name, text in headers.items():
        lowered = name.lower()
        if lowered == "ratelimit":
            for item, value in _ITEM.findall(text.lower()):
                _add(rates, (Quota.REQUESTS, ""), _FIELD_OF_ITEM[item], value, now)
        elif "limit-" in lowered and (match := _NAME.fullmatch(lowered)):
            quota = match["before"] or match["quota"] or ("tokens" if match["family"] == "tokenlimit" else "requests")
            _add(rates, (Quota("requests" if quota == "req" else quota), match["period"] or ""), match["field"], text, now)
    return rates


def period_s(period: str) -> float | None:
    """The seconds of a period that a header's name said."""
    return _PERIODS_S.get(period)


def _add(rates: dict[tuple[Quota, str], Rate], key: tuple[Quota, str], field: str, text: str, now: float) -> None:
    value = _reset_s(text, now) if field == "reset" else _amount(text)
    if value is not None:
        known = rates.get(key, Rate())
        rates[key] = replace(known, **{"reset_s" if field == "reset" else field: value})


def _amount(text: str) -> float | None:
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
