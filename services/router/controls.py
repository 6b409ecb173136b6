"""What the caller asks of the gateway itself, beside the question to the model: by headers and by extension fields in the body."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.router.ranking import PLANNED, STRATEGIES, Strategy
from services.runtime.errors import GatewayError

HEDGE: Final = "x-joulegate-hedge"
MAX_NAMESPACE: Final = 128
# Who accepts more wrong answers than that is better off without them.
MAX_ERROR: Final = 0.5
MAX_TAGS: Final = 8
MAX_TAG_BYTES: Final = 128
_HONOURED: Final = frozenset(
    {"provider", "x-prefer-provider", "x-cache", "skip_cache", "routing_strategy", "x-routing-strategy", "routing"}
)
_BOOLEANS: Final = {"true": True, "false": False}
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
    mode = headers.get("x-cache-mode", default_mode).lower()
    if mode not in MODES:
        raise _invalid(f"x-cache-mode must be one of {', '.join(MODES)}, not {mode[:32]!r}", "x-cache-mode")
    directives = _directives(headers.get("cache-control", ""))
    skips = mode == OFF or extensions.get("x-cache") is False or extensions.get("skip_cache") is True
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


def preferred_provider(extensions: Mapping[str, object]) -> str:
    """The provider that the body fields `provider` or `x-prefer-provider` name; empty for none."""
    named = extensions.get("provider") or extensions.get("x-prefer-provider")
    return named if isinstance(named, str) else ""


def wants_hedge(headers: Mapping[str, str], strategy: Strategy) -> bool:
    """Whether a second provider is wanted when the first one's first event is late: as `x-joulegate-hedge` says, else where latency counts.

    Raises GatewayError.
    """
    value = headers.get(HEDGE)
    if value is None:
        return strategy is Strategy.LATENCY
    value = value.lower()
    if value not in _BOOLEANS:
        raise _invalid(f"{HEDGE} must be `true` or `false`, not {value[:32]!r}", HEDGE)
    return _BOOLEANS[value]


def routing_strategy(extensions: Mapping[str, object], default: Strategy) -> Strategy:
    """What the body fields `routing_strategy`, `x-routing-strategy` or `routing.strategy` name. Raises GatewayError for an unknown name."""
    if not extensions:
        return default
    field, name = _strategy(extensions)
    if not field or name in PLANNED:
        return default
    if name not in STRATEGIES:
        known = ", ".join(STRATEGIES)
        raise _invalid(f"{field} must be one of {known}, not {str(name)[:32]!r}", field)
    return STRATEGIES[name]


def unmet_wishes(extensions: Mapping[str, object], default: Strategy) -> tuple[str, ...]:
    """Fields of the gateway's own that this version reads and does not act on."""
    if not extensions:
        return ()
    fields = [name for name in extensions if name not in _HONOURED]
    routing = extensions.get("routing")
    if isinstance(routing, dict):
        fields += [f"routing.{name}" for name in routing if name != "strategy"]
    wishes = [f"{field}: not supported yet, ignored" for field in sorted(fields)]
    field, name = _strategy(extensions)
    if name in PLANNED:
        wishes.append(f"{field}: {name} is not supported yet, {default} is used")
    return tuple(wishes)


def _strategy(extensions: Mapping[str, object]) -> tuple[str, str]:
    """The field that names a strategy, and the name; empty for none."""
    routing = extensions.get("routing")
    fields = {name: extensions.get(name) for name in ("routing_strategy", "x-routing-strategy")}
    fields["routing.strategy"] = routing.get("strategy") if isinstance(routing, dict) else None
    for field, name in fields.items():
        if name is not None:
            return field, str(name).lower()
    return "", ""


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
