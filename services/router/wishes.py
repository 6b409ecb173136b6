"""How the caller wants a request routed: by fields of the body, those of earlier gateways among them, and by headers, which win.

Whoever stands between a client and the gateway can set a header without reading the body.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, TypeVar

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.router.prospect import UNBOUND, Constraints
from services.router.strategies import STRATEGIES, Strategy, named
from services.runtime.errors import GatewayError

T = TypeVar("T")
HEDGE: Final = "x-joulegate-hedge"
DEBUG: Final = "x-joulegate-debug"
EXPLORE: Final = "x-explore"
# Bodies and headers are small; a list of providers is, too.
MAX_PROVIDERS: Final = 100
MAX_NAME: Final = 200
_BOOLEANS: Final = {"true": True, "false": False}
# Words for what a model can do that a request may insist on, and other words for the same.
CAPABILITIES: Final[Mapping[str, str]] = {
    "chat": "chat",
    "streaming": "streaming",
    "vision": "vision",
    "audio": "audio",
    "tools": "tools",
    "function_calling": "tools",
    "functions": "tools",
    "json_mode": "json_mode",
    "json_schema": "json_schema",
    "structured_outputs": "json_schema",
    "reasoning": "reasoning",
}


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a request asks of routing."""

    # None: as the policy or the virtual model says.
    strategy: Strategy | None = None
    # Tried first, in this order, while they are well.
    preferred: tuple[str, ...] = ()
    excluded: frozenset[str] = frozenset()
    # Beyond what the request itself needs.
    required: frozenset[str] = frozenset()
    # Only machines in one of these zones; empty: anywhere.
    zones: frozenset[str] = frozenset()
    constraints: Constraints = UNBOUND
    # Whether others are tried when the first one fails.
    may_fail_over: bool = True
    # Whether a second provider may be called when the first one's first event is late; None: where latency counts.
    hedges: bool | None = None
    # Whether the answer tells why it came from where it came.
    wants_explanation: bool = False
    # Whether another one may be tried to learn about it.
    may_explore: bool = True
    # What of all this stands in headers and could make the answer another one.
    pinned: str = ""


NO_WISHES: Final = Wishes()
# Each bound, by its header and by its member of `routing`: the largest value, and how it becomes a bound.
_BOUNDS: Final[Mapping[str, tuple[str, float, Callable[[float], Constraints]]]] = {
    "max_cost_usd": ("x-joulegate-max-cost-usd", 1e6, lambda value: Constraints(max_cost_usd=value)),
    "max_latency_ms": ("x-joulegate-max-latency-ms", 1e9, lambda value: Constraints(max_latency_s=value / 1000)),
    "max_carbon_g": ("x-joulegate-max-carbon-g", 1e9, lambda value: Constraints(max_carbon_g=value)),
    "min_quality": ("x-joulegate-min-quality", 1.0, lambda value: Constraints(min_quality=value)),
}
_STRATEGY_HEADERS: Final = ("x-joulegate-strategy", "x-routing-strategy")
_PREFER_HEADERS: Final = ("x-joulegate-prefer-provider", "x-prefer-provider")
_EXCLUDE_HEADER: Final = "x-joulegate-exclude-providers"
_FALLBACK_HEADER: Final = "x-joulegate-fallback"
_ZONES_HEADER: Final = "x-joulegate-zones"
HEADERS: Final = frozenset(
    {
        *_STRATEGY_HEADERS,
        *_PREFER_HEADERS,
        _EXCLUDE_HEADER,
        _FALLBACK_HEADER,
        _ZONES_HEADER,
        HEDGE,
        DEBUG,
        EXPLORE,
        *(header for header, _, _ in _BOUNDS.values()),
    }
)
ROUTING_MEMBERS: Final = frozenset(
    {"strategy", "preferred_providers", "exclude_providers", "required_capabilities", "zones", "fallback", *_BOUNDS}
)
# The body's fields that are read here.
FIELDS: Final = frozenset({"provider", "x-prefer-provider", "routing_strategy", "x-routing-strategy", "routing", "fallback"})


def read_wishes(headers: Mapping[str, str], extensions: Mapping[str, Any]) -> Wishes:
    """Raises GatewayError, naming the field, for what makes no sense."""
    if not extensions and HEADERS.isdisjoint(headers):
        return NO_WISHES
    routing = extensions.get("routing")
    routing = routing if isinstance(routing, dict) else {}
    return Wishes(
        strategy=_strategy(headers, extensions, routing),
        preferred=_preferred(headers, extensions, routing),
        excluded=_excluded(headers, routing),
        required=_required(routing),
        zones=_zones(headers, routing),
        constraints=_constraints(headers, routing),
        may_fail_over=_may_fail_over(headers, extensions, routing),
        hedges=boolean(headers, HEDGE),
        wants_explanation=boolean(headers, DEBUG) or False,
        may_explore=boolean(headers, EXPLORE) is not False,
        pinned=_pinned(headers),
    )


def unmet(extensions: Mapping[str, Any], honoured: frozenset[str]) -> tuple[str, ...]:
    """Fields of the gateway's own that are read and not acted on."""
    if not extensions:
        return ()
    fields = [name for name in extensions if name not in honoured]
    routing = extensions.get("routing")
    if isinstance(routing, dict):
        fields += [f"routing.{name}" for name in routing if name not in ROUTING_MEMBERS]
    return tuple(f"{name}: not known here, ignored" for name in sorted(fields))


def boolean(headers: Mapping[str, str], header: str) -> bool | None:
    """A header that says true or false; None without it. Raises GatewayError."""
    value = headers.get(header)
    if value is None:
        return None
    if value.lower() not in _BOOLEANS:
        raise invalid(f"{header} must be `true` or `false`, not {value[:32]!r}", header)
    return _BOOLEANS[value.lower()]


def _strategy(headers: Mapping[str, str], extensions: Mapping[str, Any], routing: Mapping[str, Any]) -> Strategy | None:
    said = [(header, headers.get(header)) for header in _STRATEGY_HEADERS]
    said += [(name, extensions.get(name)) for name in ("routing_strategy", "x-routing-strategy")]
    said.append(("routing.strategy", routing.get("strategy")))
    for where, name in said:
        if name is None:
            continue
        found = named(name) if isinstance(name, str) else None
        if found is None:
            raise invalid(f"{where} must be one of {', '.join(STRATEGIES)}, not {str(name)[:32]!r}", where)
        return found
    return None


def _preferred(headers: Mapping[str, str], extensions: Mapping[str, Any], routing: Mapping[str, Any]) -> tuple[str, ...]:
    for header in _PREFER_HEADERS:
        if header in headers:
            return _split(headers[header], header)
    named = extensions.get("provider") or extensions.get("x-prefer-provider")
    first = (named,) if isinstance(named, str) else ()
    return tuple(dict.fromkeys((*first, *_names(routing, "preferred_providers"))))


def _excluded(headers: Mapping[str, str], routing: Mapping[str, Any]) -> frozenset[str]:
    """Both count: nobody lifts what another one excludes."""
    return frozenset((*_split(headers.get(_EXCLUDE_HEADER, ""), _EXCLUDE_HEADER), *_names(routing, "exclude_providers")))


def _required(routing: Mapping[str, Any]) -> frozenset[str]:
    names = [name.lower().replace("-", "_") for name in _names(routing, "required_capabilities")]
    unknown = next((name for name in names if name not in CAPABILITIES), None)
    if unknown is not None:
        where = "routing.required_capabilities"
        raise invalid(f"{where} must be of {', '.join(CAPABILITIES)}, not {unknown[:32]!r}", where)
    return frozenset(CAPABILITIES[name] for name in names)


def _zones(headers: Mapping[str, str], routing: Mapping[str, Any]) -> frozenset[str]:
    """Both hold."""
    one, other = _split(headers.get(_ZONES_HEADER, ""), _ZONES_HEADER), _names(routing, "zones")
    zones = frozenset(zone.upper() for zone in one or other)
    if not (one and other):
        return zones
    both = zones.intersection(zone.upper() for zone in other)
    if not both:
        raise invalid(f"{_ZONES_HEADER} and routing.zones have no zone in common", "routing.zones")
    return both


def _constraints(headers: Mapping[str, str], routing: Mapping[str, Any]) -> Constraints:
    """Of the same bound in a header and in the body, the tighter one."""
    bounds = UNBOUND
    for member, (header, most, bound) in _BOUNDS.items():
        if header in headers:
            bounds = bounds.within(bound(_number(headers[header], header, most)))
        if routing.get(member) is not None:
            bounds = bounds.within(bound(_number(routing[member], f"routing.{member}", most)))
    return bounds


def _may_fail_over(headers: Mapping[str, str], extensions: Mapping[str, Any], routing: Mapping[str, Any]) -> bool:
    said = boolean(headers, _FALLBACK_HEADER)
    if said is not None:
        return said
    for where, value in (("fallback", extensions.get("fallback")), ("routing.fallback", routing.get("fallback"))):
        if value is not None and not isinstance(value, bool):
            raise invalid(f"{where} must be true or false", where)
        if value is not None:
            return value
    return True


def _pinned(headers: Mapping[str, str]) -> str:
    said = (*_PREFER_HEADERS, _EXCLUDE_HEADER, _ZONES_HEADER, _BOUNDS["min_quality"][0])
    return "\n".join(f"{header}={headers[header]}" for header in said if header in headers)


def _names(routing: Mapping[str, Any], member: str) -> tuple[str, ...]:
    names = routing.get(member)
    if names is None:
        return ()
    where = f"routing.{member}"
    if not isinstance(names, list) or not all(isinstance(name, str) and 0 < len(name) <= MAX_NAME for name in names):
        raise invalid(f"{where} must be a list of names", where)
    if len(names) > MAX_PROVIDERS:
        raise invalid(f"{where} must hold at most {MAX_PROVIDERS} names", where)
    return tuple(names)


def _split(value: str, header: str) -> tuple[str, ...]:
    names = tuple(name for part in value.split(",") if (name := part.strip()))
    if len(names) > MAX_PROVIDERS:
        raise invalid(f"{header} must hold at most {MAX_PROVIDERS} names", header)
    return names


def _number(value: object, where: str, most: float) -> float:
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else -1.0
    except (ValueError, OverflowError):
        number = -1.0
    if not isfinite(number) or not 0 <= number <= most:
        raise invalid(f"{where} must be a number from 0 to {most:g}", where)
    return number


def invalid(message: str, param: str) -> GatewayError:
    """A request that cannot be understood, and where."""
    return GatewayError(ErrorReason.ERROR_REASON_INVALID_REQUEST, message, {"param": param})
