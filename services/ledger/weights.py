"""How large an open model is: from the table of models whose names do not say it, or from a name that does (`qwen3:30b-a3b`,
`mixtral:8x7b`).
"""

import re
from functools import cache
from typing import Final, NamedTuple

from services.ledger.aliases import spellings
from services.ledger.tables import rows

PUBLISHED_BITS: Final = 16
# Of n experts with b billions each, attention is shared and two are active; from Mixtral 8x7B and 8x22B.
_TOTAL_OF_EXPERTS: Final = 0.83
_ACTIVE_OF_TOTAL: Final = 0.277

_SIZE = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)(b|m)(?![a-z0-9])")
_EXPERTS = re.compile(r"(?<![a-z0-9.])(\d+)x(\d+(?:\.\d+)?)b(?![a-z0-9])")
_ACTIVE = re.compile(r"(?<![a-z0-9])a(\d+(?:\.\d+)?)b(?![a-z0-9])")
_FIREWORKS_POINT = re.compile(r"(?<=\d)p(?=\d)")
_BITS = (
    (2, re.compile(r"(?<![a-z0-9])i?q2(?![0-9])")),
    (3, re.compile(r"(?<![a-z0-9])i?q3(?![0-9])")),
    (4, re.compile(r"(?<![a-z0-9])(?:i?q4(?![0-9])|4-?bits?(?![a-z])|(?:nv|mx)?fp4|int4|w4a16|awq|gptq)")),
    (5, re.compile(r"(?<![a-z0-9])q5(?![0-9])")),
    (6, re.compile(r"(?<![a-z0-9])q6(?![0-9])")),
    (8, re.compile(r"(?<![a-z0-9])(?:q8(?![0-9])|8-?bits?(?![a-z])|fp8|int8|w8a8)")),
    (16, re.compile(r"(?<![a-z0-9])(?:bf16|fp16|f16)(?![a-z0-9])")),
)
# Names come from clients.
_LARGEST_BILLIONS: Final = 5000


class Weights(NamedTuple):
    """Billions of parameters, in all and at work on a token, and the bits of each."""

    total: float
    active: float
    bits: float = PUBLISHED_BITS


def bits_of(model: str) -> float | None:
    """Bits of a weight, if the name says them."""
    name = model.lower()
    return next((bits for bits, pattern in _BITS if pattern.search(name)), None)


def listed(model: str) -> Weights | None:
    """The size of a model in the table."""
    known = _listed()
    return next((known[name] for name in spellings(model) if name in known), None)


@cache
def _listed() -> dict[str, Weights]:
    return {
        name: Weights(row["total"], row.get("active", row["total"]), row.get("bits", PUBLISHED_BITS))
        for row in rows("open_weights")
        for name in row["names"]
    }


def from_name(model: str) -> Weights | None:
    """The size that a name says."""
    name = _FIREWORKS_POINT.sub(".", model.lower().rpartition("/")[2])
    experts = _EXPERTS.search(name)
    if experts:
        total = int(experts[1]) * float(experts[2]) * _TOTAL_OF_EXPERTS
        return _plausible(total, total * _ACTIVE_OF_TOTAL)
    size = _SIZE.search(name)
    if size is None:
        return None
    total = float(size[1]) / (1000 if size[2] == "m" else 1)
    active = _ACTIVE.search(name)
    return _plausible(total, min(total, float(active[1])) if active else total)


def _plausible(total: float, active: float) -> Weights | None:
    return Weights(total, active) if 0.001 <= active <= total <= _LARGEST_BILLIONS else None
