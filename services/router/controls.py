"""How the caller lets the cache be used: by headers and by extension fields in the body. What it asks of routing is in `wishes`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.runtime.errors import GatewayError

MAX_NAMESPACE: Final = 128
# Who accepts more wrong answers than that is better off without them.
MAX_ERROR: Final = 0.5
MAX_TAGS: Final = 8
MAX_TAG_BYTES: Final = 128
# The body's fields that are read here.
FIELDS: Final = frozenset({"x-cache", "skip_cache"})
_HEADERS: Final = frozenset(
    {
        "cache-control",
        "x-cache-max-error",
        "x-cache-mode",
        "x-cache-namespace",
        "x-cache-tags",
        "x-cache-threshold",
        "x-cache-ttl",
    }
)
_SECONDS = re.compile(r"\d{1,9}")
_DECIMAL = re.compile(r"[01](\.\d{1,9})?")
OFF: Final = "off"
EXACT: Final = "exact"
SEMANTIC: Final = "semantic"
MODES: Final = (OFF, EXACT, SEMANTIC)


@dataclass(frozen=True, slots=True)
class CacheControls:
    """How the cache may be used for one request."""

    may_read: bool = True
    may_write: bool = True
    # Only a cached answer will do.
    only_if_cached: bool = False
    # The oldest answer that will do, and how long a new one is kept; None: the cache's own bounds.
    max_age_s: int | None = None
    ttl_s: int | None = None
    namespace: str = ""
    # Whether the answer to other words of the same question will do.
    may_reword: bool = False
    # The least likeness of such words, a cosine, where it is above the cache's own.
    min_similarity: float | None = None
    # The share of wrong answers that is accepted of what the cache would refuse; None: none of that.
    max_error: float | None = None
    # Marks by which a new answer can be removed.
    tags: tuple[str, ...] = ()

    @property
    def may_share(self) -> bool:
        """Whether one call may answer this request and identical ones at the same time."""
        return self.may_read and self.may_write and not self.only_if_cached and self.ttl_s != 0


def cache_controls(
    headers: Mapping[str, str], extensions: Mapping[str, object], cache_enabled: bool, default_mode: str = EXACT
) -> CacheControls:
    """Reads `cache-control`, the headers of `x-cache-`, and the body fields `x-cache` and `skip_cache`. Raises GatewayError."""
    skips = extensions.get("x-cache") is False or extensions.get("skip_cache") is True
    if headers.keys().isdisjoint(_HEADERS):
        return _unspoken(cache_enabled and not skips and default_mode != OFF, default_mode == SEMANTIC)
    mode = headers.get("x-cache-mode", default_mode).lower()
    if mode not in MODES:
        raise _invalid(f"x-cache-mode must be one of {', '.join(MODES)}, not {mode[:32]!r}", "x-cache-mode")
    directives = _directives(headers.get("cache-control", ""))
    skips = skips or mode == OFF
    namespace = headers.get("x-cache-namespace", "")
    if len(namespace) > MAX_NAMESPACE:
        raise _invalid(f"x-cache-namespace is longer than {MAX_NAMESPACE} characters", "x-cache-namespace")
    ttl = headers.get("x-cache-ttl")
    return CacheControls(
        may_read=cache_enabled and not skips and "no-cache" not in directives and "no-store" not in directives,
        may_write=cache_enabled and not skips and "no-store" not in directives,
        only_if_cached="only-if-cached" in directives,
        max_age_s=_seconds(directives["max-age"], "cache-control") if "max-age" in directives else None,
        ttl_s=None if ttl is None else _seconds(ttl, "x-cache-ttl"),
        namespace=namespace,
        may_reword=mode == SEMANTIC,
        min_similarity=_share(headers, "x-cache-threshold", 1.0),
        max_error=_share(headers, "x-cache-max-error", MAX_ERROR) or None,
        tags=_tags(headers.get("x-cache-tags", "")),
    )


@cache
def _unspoken(may_use: bool, may_reword: bool) -> CacheControls:
    """What holds for who says nothing by headers, as most do."""
    return CacheControls(may_read=may_use, may_write=may_use, may_reword=may_reword)


def _directives(header: str) -> dict[str, str]:
    pairs = (part.strip().lower().partition("=") for part in header.split(",") if part.strip())
    return {name.strip(): value.strip().strip('"') for name, _, value in pairs}


def _share(headers: Mapping[str, str], header: str, most: float) -> float | None:
    value = headers.get(header)
    if value is None:
        return None
    if not _DECIMAL.fullmatch(value) or float(value) > most:
        raise _invalid(f"{header} must be a number from 0 to {most:g}, not {value[:32]!r}", header)
    return float(value)


def _tags(header: str) -> tuple[str, ...]:
    tags = tuple(dict.fromkeys(tag for part in header.split(",") if (tag := part.strip())))
    if len(tags) > MAX_TAGS or any(len(tag.encode()) > MAX_TAG_BYTES for tag in tags):
        raise _invalid(f"x-cache-tags has at most {MAX_TAGS} tags, of at most {MAX_TAG_BYTES} bytes each", "x-cache-tags")
    return tags


def _seconds(value: str, header: str) -> int:
    if not _SECONDS.fullmatch(value):
        raise _invalid(f"{header} must give whole seconds, not {value[:32]!r}", header)
    return int(value)


def _invalid(message: str, param: str) -> GatewayError:
    return GatewayError(ErrorReason.ERROR_REASON_INVALID_REQUEST, message, {"param": param})
