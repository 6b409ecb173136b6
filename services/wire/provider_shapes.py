"""A provider's description as the JSON of earlier gateways: each had its own names for the same things, and each shape is promised."""

from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from joulegate.ops.v1 import breaker_pb2

_STATES: Final = {
    breaker_pb2.BREAKER_STATE_UNSPECIFIED: "closed",
    breaker_pb2.BREAKER_STATE_CLOSED: "closed",
    breaker_pb2.BREAKER_STATE_HALF_OPEN: "half_open",
    breaker_pb2.BREAKER_STATE_OPEN: "open",
}


def status(provider: pb.Provider) -> dict[str, Any]:
    """A member of `GET /providers`."""
    return {
        "available": provider.healthy,
        "healthy": provider.healthy,
        "latency_ms": _milliseconds(provider, "time_to_first_event"),
        "error_rate": _error_rate(provider),
        "last_success": _time(provider, "last_success_time"),
        "last_error": provider.last_error or None,
        "circuit_breaker_open": provider.breaker_state == breaker_pb2.BREAKER_STATE_OPEN,
        "active_requests": provider.in_flight_count,
        # Nothing waits here: what cannot go out at once goes elsewhere or is refused.
        "queue_length": 0,
        "rate_limit_remaining": provider.remaining_request_count if provider.HasField("remaining_request_count") else None,
    }


def health(provider: pb.Provider) -> dict[str, Any]:
    """`GET /v1/providers/{provider}/health`."""
    return {
        "is_healthy": provider.healthy,
        "latency_ms": _milliseconds(provider, "time_to_first_event"),
        "latency_p50_ms": _milliseconds(provider, "time_to_first_event_p50"),
        "latency_p95_ms": _milliseconds(provider, "time_to_first_event_p95"),
        "latency_p99_ms": _milliseconds(provider, "time_to_first_event_p99"),
        "success_rate": 1.0 - _error_rate(provider),
        "error_count": provider.failure_count,
        "last_error": provider.last_error or None,
        "last_check": _time(provider, "last_success_time"),
    }


def listed(provider: pb.Provider) -> dict[str, Any]:
    """An element of `GET /v1/providers`."""
    models = [model.id for model in provider.models]
    return {
        "name": provider.name,
        "display_name": provider.name,
        "is_available": provider.healthy,
        "supported_models": models,
        "default_model": models[0] if models else None,
        "capabilities": list(provider.capabilities),
        "health": health(provider),
    }


def summary(provider: pb.Provider) -> dict[str, Any]:
    """An element of `GET /api/providers`."""
    return {
        "id": provider.name,
        "name": provider.name,
        "healthy": provider.healthy,
        "latencyMs": _milliseconds(provider, "time_to_first_event"),
        "modelCount": len(provider.models),
        "lastCheck": _time(provider, "last_success_time"),
    }


def union(provider: pb.Provider) -> dict[str, Any]:
    """A member of `providers` in `GET /health`, which is one path for all of them."""
    union = status(provider) | health(provider)
    union["latencyMs"] = union["latency_ms"]
    union["circuit_breaker_state"] = _STATES[provider.breaker_state]
    if not provider.healthy and provider.last_error:
        union["message"] = provider.last_error
    return union


def _milliseconds(provider: pb.Provider, field: str) -> float | None:
    span: Duration = getattr(provider, field)
    return span.ToMicroseconds() / 1000 if provider.HasField(field) else None  # type: ignore[arg-type]


def _error_rate(provider: pb.Provider) -> float:
    calls = provider.success_count + provider.failure_count
    return provider.failure_count / calls if calls else 0.0


def _time(provider: pb.Provider, field: str) -> str | None:
    time: Timestamp = getattr(provider, field)
    return time.ToJsonString() if provider.HasField(field) else None  # type: ignore[arg-type]
