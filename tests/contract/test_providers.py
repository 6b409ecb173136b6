"""ProvidersService as its proto says, built by dispatch's own composition root, on every kind of channel, against a provider over HTTP."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody

from joulegate.chat.v1 import chat_pb2
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.dispatch.v1 import dispatch_service_pb2 as dispatch_pb
from joulegate.dispatch.v1 import dispatch_service_pb2_grpc as dispatch_pb_grpc
from joulegate.ops.v1 import breaker_pb2
from joulegate.ops.v1 import providers_service_pb2 as pb
from joulegate.ops.v1 import providers_service_pb2_grpc as pb_grpc
from services.dispatch.__main__ import build
from services.dispatch.settings import DispatchSettings
from services.runtime.errors import GatewayError
from services.runtime.settings import load
from tests.contract.channels import KINDS, new_mesh, serve
from tests.fakes.openai_upstream import OpenAIUpstream, completion, error

OPERATOR = (("authorization", "Bearer admin"),)
CLIENT = (("x-api-key", "gateway"),)
FAILURES = 5
Metadata = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Service:
    """A running dispatch with the providers `lab` and `spare`, in this order."""

    stub: pb_grpc.ProvidersServiceStub
    dispatch: dispatch_pb_grpc.DispatchServiceStub
    lab: OpenAIUpstream

    async def ask(self, model: str = "small") -> GatewayError | None:
        """Calls the provider `lab`; the error, if it is one."""
        request = chat_pb2.ChatRequest(model=model, messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, text="Hi")])
        target = dispatch_pb.Target(provider="lab", model=model)
        try:
            async for _ in self.dispatch.Dispatch(
                dispatch_pb.DispatchRequest(request_id="r", request=request, targets=[target]), timeout=10
            ):
                pass
        except grpc.aio.AioRpcError as raised:
            return GatewayError.from_rpc(raised)
        return None

    async def trip(self) -> None:
        self.lab.script(*[error(500, "down")] * FAILURES)
        for _ in range(FAILURES):
            assert await self.ask() is not None


@asynccontextmanager
async def running(kind: str, folder: Path, keys: dict[str, str]) -> AsyncIterator[Service]:
    async with AsyncExitStack() as stack:
        lab = await stack.enter_async_context(OpenAIUpstream())
        config = folder / "joulegate.toml"
        config.write_text(
            f"""
            [providers.lab]
            kind = "openai"
            base_url = "{lab.base_url}"
            models = ["small", "large"]
            [providers.spare]
            kind = "openai"
            base_url = "{lab.base_url}"
            models = ["small"]
            limits = {{ requests_per_minute = 7 }}
            [retry]
            attempts = 1
            """
        )
        settings = load(DispatchSettings, {"JOULEGATE_CONFIG": str(config), "ENABLE_DEMO": "false"} | keys)
        mesh = new_mesh()
        await stack.enter_async_context(build(settings, mesh))
        channel = await stack.enter_async_context(serve(mesh, kind))
        yield Service(pb_grpc.ProvidersServiceStub(channel), dispatch_pb_grpc.DispatchServiceStub(channel), lab)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ENABLE_OLLAMA", "false")
    return str(request.param)


@pytest.fixture
async def service(kind: str, tmp_path: Path) -> AsyncIterator[Service]:
    async with running(kind, tmp_path, {"ADMIN_API_KEY": "admin"}) as service:
        yield service


async def document(call: Awaitable[HttpBody]) -> Any:
    body = await call
    assert body.content_type == "application/json"
    return json.loads(body.data)


async def refusal(call: Awaitable[Any]) -> tuple[GatewayError, Any]:
    """The error, and the body that Envoy makes of it where the channel carries that: only gRPC itself, which Envoy speaks."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    body = dict(raised.value.trailing_metadata() or ()).get("x-openai-error")
    return GatewayError.from_rpc(raised.value), None if body is None else json.loads(str(body))


# --- the listings ---


async def test_listings_name_every_provider_in_the_configured_order(service: Service) -> None:
    statuses = await document(service.stub.ListProviderStatuses(pb.ListProviderStatusesRequest()))
    summaries = await document(service.stub.ListProviderSummaries(pb.ListProviderSummariesRequest()))
    providers = await document(service.stub.ListProviders(pb.ListProvidersRequest()))
    breakers = await document(service.stub.ListCircuitBreakers(pb.ListCircuitBreakersRequest()))
    assert list(statuses) == list(breakers) == ["lab", "spare"]
    assert [(each["id"], each["modelCount"]) for each in summaries] == [("lab", 2), ("spare", 1)]
    assert [each["supported_models"] for each in providers["providers"]] == [["small", "large"], ["small"]]
    assert providers["total"] == 2
    assert {"chat", "streaming", "tools", "vision"} <= set(providers["providers"][0]["capabilities"])
    assert [status["rate_limit_remaining"] for status in statuses.values()] == [None, 7]


async def test_a_success_is_seen_by_all(service: Service) -> None:
    service.lab.script(completion())
    assert await service.ask() is None
    statuses = await document(service.stub.ListProviderStatuses(pb.ListProviderStatusesRequest()))
    assert statuses["lab"]["latency_ms"] > 0
    assert (statuses["lab"]["last_success"] is None, statuses["spare"]["last_success"]) == (False, None)
    health = await document(service.stub.GetProviderHealth(pb.GetProviderHealthRequest(provider="lab")))
    assert (health["is_healthy"], health["success_rate"]) == (True, 1.0)


# --- the breakers ---


async def test_an_open_breaker_is_seen_by_all_and_refuses(service: Service) -> None:
    await service.trip()
    refused = await service.ask()
    assert refused is not None
    assert (refused.http_status, len(service.lab.calls)) == (503, FAILURES)
    assert refused.retry_after_s is not None and 0 < refused.retry_after_s <= 30
    statuses = await document(service.stub.ListProviderStatuses(pb.ListProviderStatusesRequest()))
    assert {name: status["circuit_breaker_open"] for name, status in statuses.items()} == {"lab": True, "spare": False}
    breakers = await document(service.stub.ListCircuitBreakers(pb.ListCircuitBreakersRequest()))
    assert {name: (each["state"], each["failureCount"]) for name, each in breakers.items()} == {"lab": ("open", 5), "spare": ("closed", 0)}
    whole = await document(service.stub.GetCircuitBreaker(pb.GetCircuitBreakerRequest(provider="lab"), metadata=OPERATOR))
    assert (whole["state"], whole["total_failures"], whole["models"]) == ("open", 5, {"small": "open"})


async def test_routers_that_watch_learn_of_it(service: Service) -> None:
    await service.trip()
    lab, spare = (await service.dispatch.ListProviders(dispatch_pb.ListProvidersRequest())).providers
    assert (lab.breaker_state, spare.breaker_state) == (breaker_pb2.BREAKER_STATE_OPEN, breaker_pb2.BREAKER_STATE_UNSPECIFIED)


async def test_typed_breakers_are_listed_without_history_and_got_with_it(service: Service) -> None:
    await service.trip()
    service.lab.script(completion())
    assert await service.ask("large") is None
    listed = (await service.stub.ListBreakers(pb.ListBreakersRequest(), metadata=OPERATOR)).breakers
    assert [(each.provider, each.model, each.state, len(each.history)) for each in listed] == [
        ("lab", "large", breaker_pb2.BREAKER_STATE_CLOSED, 0),
        ("lab", "small", breaker_pb2.BREAKER_STATE_OPEN, 0),
    ]
    assert not (await service.stub.ListBreakers(pb.ListBreakersRequest(provider="spare"), metadata=OPERATOR)).breakers
    got = (await service.stub.GetBreaker(pb.GetBreakerRequest(provider="lab", model="small"), metadata=OPERATOR)).breaker
    assert [change.state for change in got.history] == [breaker_pb2.BREAKER_STATE_OPEN]
    assert got.retry_time.ToNanoseconds() > got.last_failure_time.ToNanoseconds()


async def test_reset_of_a_provider_lets_calls_out_again(service: Service) -> None:
    await service.trip()
    told = await document(service.stub.ResetCircuitBreaker(pb.ResetCircuitBreakerRequest(provider="lab"), metadata=OPERATOR))
    assert told == {"message": "Circuit breaker reset for lab"}
    whole = await document(service.stub.GetCircuitBreaker(pb.GetCircuitBreakerRequest(provider="lab"), metadata=OPERATOR))
    assert (whole["state"], whole["total_calls"], whole["history"]) == ("closed", 0, [])
    service.lab.script(completion())
    assert await service.ask() is None


async def test_reset_of_one_model_leaves_the_others(service: Service) -> None:
    await service.trip()
    service.lab.script(completion())
    await service.ask("large")
    reset = (await service.stub.ResetBreaker(pb.ResetBreakerRequest(provider="lab", model="large"), metadata=OPERATOR)).breakers
    assert [(each.model, each.state, each.call_count) for each in reset] == [("large", breaker_pb2.BREAKER_STATE_CLOSED, 0)]
    listed = (await service.stub.ListBreakers(pb.ListBreakersRequest(), metadata=OPERATOR)).breakers
    assert {each.model: each.state for each in listed}["small"] == breaker_pb2.BREAKER_STATE_OPEN
    both = (await service.stub.ResetBreaker(pb.ResetBreakerRequest(provider="lab"), metadata=OPERATOR)).breakers
    assert {each.model: each.state for each in both} == dict.fromkeys(("small", "large"), breaker_pb2.BREAKER_STATE_CLOSED)


# --- refusals ---


async def test_unknown_provider_is_told_in_the_words_of_each_path(service: Service, kind: str) -> None:
    stub = service.stub
    reason, body = await refusal(stub.GetProviderHealth(pb.GetProviderHealthRequest(provider="nobody")))
    assert reason.reason == ErrorReason.ERROR_REASON_NOT_FOUND
    if kind == "grpc":
        assert body == {"detail": {"error": "not_found", "message": "Provider 'nobody' not found"}}
    calls = (
        stub.GetCircuitBreaker(pb.GetCircuitBreakerRequest(provider="nobody"), metadata=OPERATOR),
        stub.ResetCircuitBreaker(pb.ResetCircuitBreakerRequest(provider="nobody"), metadata=OPERATOR),
    )
    for call in calls:
        reason, body = await refusal(call)
        assert reason.reason == ErrorReason.ERROR_REASON_NOT_FOUND
        if kind == "grpc":
            assert body == {"detail": "Provider not found"}


async def test_typed_methods_do_not_find_what_is_not_there(service: Service) -> None:
    stub = service.stub
    calls: list[Awaitable[Any]] = [
        stub.ListBreakers(pb.ListBreakersRequest(provider="nobody"), metadata=OPERATOR),
        stub.GetBreaker(pb.GetBreakerRequest(provider="nobody", model="small"), metadata=OPERATOR),
        stub.GetBreaker(pb.GetBreakerRequest(provider="lab", model="never called"), metadata=OPERATOR),
        stub.ResetBreaker(pb.ResetBreakerRequest(provider="nobody"), metadata=OPERATOR),
        stub.ResetBreaker(pb.ResetBreakerRequest(provider="lab", model="never called"), metadata=OPERATOR),
    ]
    for call in calls:
        assert (await refusal(call))[0].reason == ErrorReason.ERROR_REASON_NOT_FOUND


Call = Callable[[Service, Metadata], Awaitable[Any]]
FOR_OPERATORS: dict[str, Call] = {
    "ListBreakers": lambda service, key: service.stub.ListBreakers(pb.ListBreakersRequest(), metadata=key),
    "GetBreaker": lambda service, key: service.stub.GetBreaker(pb.GetBreakerRequest(provider="lab"), metadata=key),
    "ResetBreaker": lambda service, key: service.stub.ResetBreaker(pb.ResetBreakerRequest(provider="lab"), metadata=key),
    "GetCircuitBreaker": lambda service, key: service.stub.GetCircuitBreaker(pb.GetCircuitBreakerRequest(provider="lab"), metadata=key),
    "ResetCircuitBreaker": lambda service, key: service.stub.ResetCircuitBreaker(
        pb.ResetCircuitBreakerRequest(provider="lab"), metadata=key
    ),
}
FOR_CLIENTS: dict[str, Call] = {
    "ListProviderStatuses": lambda service, key: service.stub.ListProviderStatuses(pb.ListProviderStatusesRequest(), metadata=key),
    "ListProviderSummaries": lambda service, key: service.stub.ListProviderSummaries(pb.ListProviderSummariesRequest(), metadata=key),
    "ListProviders": lambda service, key: service.stub.ListProviders(pb.ListProvidersRequest(), metadata=key),
    "GetProviderHealth": lambda service, key: service.stub.GetProviderHealth(pb.GetProviderHealthRequest(provider="lab"), metadata=key),
    "ListCircuitBreakers": lambda service, key: service.stub.ListCircuitBreakers(pb.ListCircuitBreakersRequest(), metadata=key),
}


def test_no_method_is_forgotten() -> None:
    methods = {method.name for method in pb.DESCRIPTOR.services_by_name["ProvidersService"].methods}
    assert FOR_OPERATORS.keys() | FOR_CLIENTS.keys() == methods


async def test_what_is_for_operators_needs_their_key(service: Service) -> None:
    await service.trip()
    for name, call in FOR_OPERATORS.items():
        for metadata in ((), (("authorization", "Bearer wrong"),), (("x-api-key", "admin"),)):
            reason, _ = await refusal(call(service, metadata))
            assert (reason.reason, reason.http_status) == (ErrorReason.ERROR_REASON_INVALID_API_KEY, 401), name
    assert (await service.ask()) is not None and len(service.lab.calls) == FAILURES


async def test_without_an_admin_key_operators_are_kept_out(kind: str, tmp_path: Path) -> None:
    async with running(kind, tmp_path, {}) as service:
        for name, call in FOR_OPERATORS.items():
            reason, _ = await refusal(call(service, OPERATOR))
            assert (reason.reason, reason.http_status) == (ErrorReason.ERROR_REASON_PERMISSION_DENIED, 403), name


async def test_the_gateways_key_is_asked_for_where_there_is_one(kind: str, tmp_path: Path) -> None:
    async with running(kind, tmp_path, {"GATEWAY_API_KEY": "gateway"}) as service:
        for name, call in FOR_CLIENTS.items():
            for metadata in ((), (("authorization", "Bearer wrong"),)):
                reason, _ = await refusal(call(service, metadata))
                assert (reason.reason, reason.http_status) == (ErrorReason.ERROR_REASON_INVALID_API_KEY, 401), name
            await call(service, CLIENT)
            await call(service, (("authorization", "Bearer gateway"),))
