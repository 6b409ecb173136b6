import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from joulegate.ops.v1 import breaker_pb2
from services.wire import provider_shapes

LAB = pb.Provider(
    name="lab",
    kind="openai",
    healthy=True,
    models=[pb.Model(id="small"), pb.Model(id="large")],
    success_count=3,
    failure_count=1,
    time_to_first_event=Duration(nanos=250_000_000),
    last_success_time=Timestamp(seconds=1_700_000_000),
    last_error="busy",
    in_flight_count=2,
    breaker_state=breaker_pb2.BREAKER_STATE_OPEN,
    time_to_first_event_p50=Duration(nanos=200_000_000),
    time_to_first_event_p95=Duration(nanos=400_000_000),
    time_to_first_event_p99=Duration(seconds=2),
    remaining_request_count=0,
    capabilities=["chat", "vision"],
)
NEW = pb.Provider(name="new", healthy=True, accepts_unlisted_models=True)
LAST_SUCCESS = "2023-11-14T22:13:20Z"


def test_status_has_the_members_that_were_promised() -> None:
    assert provider_shapes.status(LAB) == {
        "available": True,
        "healthy": True,
        "latency_ms": 250.0,
        "error_rate": 0.25,
        "last_success": LAST_SUCCESS,
        "last_error": "busy",
        "circuit_breaker_open": True,
        "active_requests": 2,
        "queue_length": 0,
        "rate_limit_remaining": 0,
    }


def test_health_has_the_members_that_were_promised() -> None:
    assert provider_shapes.health(LAB) == {
        "is_healthy": True,
        "latency_ms": 250.0,
        "latency_p50_ms": 200.0,
        "latency_p95_ms": 400.0,
        "latency_p99_ms": 2000.0,
        "success_rate": 0.75,
        "error_count": 1,
        "last_error": "busy",
        "last_check": LAST_SUCCESS,
    }


def test_listing_names_the_models_and_the_first_as_default() -> None:
    listed = provider_shapes.listed(LAB)
    assert listed.pop("health") == provider_shapes.health(LAB)
    assert listed == {
        "name": "lab",
        "display_name": "lab",
        "is_available": True,
        "supported_models": ["small", "large"],
        "default_model": "small",
        "capabilities": ["chat", "vision"],
    }
    assert provider_shapes.listed(NEW)["default_model"] is None


def test_summary_has_the_members_that_were_promised() -> None:
    assert provider_shapes.summary(LAB) == {
        "id": "lab",
        "name": "lab",
        "healthy": True,
        "latencyMs": 250.0,
        "modelCount": 2,
        "lastCheck": LAST_SUCCESS,
    }


def test_what_is_not_known_is_null_and_a_provider_without_calls_has_no_errors() -> None:
    assert provider_shapes.union(NEW) | {"queue_length": 0} == {
        **dict.fromkeys(provider_shapes.union(NEW)),
        "available": True,
        "healthy": True,
        "is_healthy": True,
        "error_rate": 0.0,
        "success_rate": 1.0,
        "error_count": 0,
        "circuit_breaker_open": False,
        "circuit_breaker_state": "closed",
        "active_requests": 0,
        "queue_length": 0,
    }


def test_union_has_every_name() -> None:
    union = provider_shapes.union(LAB)
    assert union.items() >= provider_shapes.status(LAB).items()
    assert union.items() >= provider_shapes.health(LAB).items()
    assert (union["latencyMs"], union["circuit_breaker_state"]) == (250.0, "open")
    assert "message" not in union


def test_only_an_unhealthy_provider_has_a_message() -> None:
    assert provider_shapes.union(pb.Provider(name="lab", last_error="busy"))["message"] == "busy"
    assert "message" not in provider_shapes.union(pb.Provider(name="lab"))


@pytest.mark.parametrize(
    "state", [breaker_pb2.BREAKER_STATE_UNSPECIFIED, breaker_pb2.BREAKER_STATE_CLOSED, breaker_pb2.BREAKER_STATE_HALF_OPEN]
)
def test_a_breaker_that_lets_calls_out_is_not_open(state: breaker_pb2.BreakerState.ValueType) -> None:
    assert not provider_shapes.status(pb.Provider(name="lab", breaker_state=state))["circuit_breaker_open"]
