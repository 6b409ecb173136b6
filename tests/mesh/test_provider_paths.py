"""Providers and their breakers as operators and earlier clients see them, through the real gateway: an outage from its start to its end."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio

from joulegate.ops.v1 import breaker_pb2
from joulegate.ops.v1 import providers_service_pb2 as pb
from joulegate.ops.v1 import providers_service_pb2_grpc as pb_grpc
from tests.fakes.openai_upstream import OpenAIUpstream, completion, error
from tests.mesh.asking import CHAT, assert_openai_error, http_client, question
from tests.mesh.gateway import ADMIN_KEY, ONE_PROCESS, PROCESSES, Gateway, provider_table, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORIGIN = "https://app.example"
CLIENT_KEY = "key-of-the-client"
CLIENT = {"authorization": f"Bearer {CLIENT_KEY}"}
FAILURES = 5
OPEN_S = 300
LISTINGS = ("/providers", "/api/providers", "/v1/providers", "/v1/providers/lab/health", "/api/circuit-breakers")
BREAKER = "/admin/providers/lab/circuit-breaker"
RESET = f"{BREAKER}/reset"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab() -> AsyncIterator[OpenAIUpstream]:
    async with OpenAIUpstream() as upstream:
        yield upstream


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[PROCESSES, ONE_PROCESS])
async def gateway(request: pytest.FixtureRequest, lab: OpenAIUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    folder: Path = tmp_path_factory.mktemp(f"providers-{request.param}")
    tables = provider_table("lab", lab.base_url, ["small", "large"]) + provider_table("spare", lab.base_url, ["other"])
    tables += f"[retry]\nattempts = 1\n[breaker]\nopen_seconds = {OPEN_S}\n"
    async with running(folder, request.param, tables, GATEWAY_API_KEY=CLIENT_KEY, CORS_ORIGINS=ORIGIN) as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="module")
async def http(gateway: Gateway, lab: OpenAIUpstream) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the gateway's key; `lab` has an empty record and closed breakers."""
    lab.forget()
    async with http_client(gateway, **CLIENT) as http, gateway.admin() as admin:
        (await admin.post(RESET)).raise_for_status()
        yield http
    lab.check()


async def document(http: httpx.AsyncClient, path: str) -> Any:
    response = await http.get(path)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json"), response.text
    return response.json()


async def trip(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    lab.script(*[error(500, "down")] * FAILURES)
    for _ in range(FAILURES):
        assert (await http.post(CHAT, json=question())).status_code == 502


async def told_by_the_router(http: httpx.AsyncClient, *, is_open: bool) -> dict[str, Any]:
    """The provider in `GET /health`, once the router has heard of the change."""
    async with asyncio.timeout(30):
        while (lab := (await http.get("/health")).json()["providers"]["lab"])["circuit_breaker_open"] is not is_open:
            await asyncio.sleep(0.01)
    return dict(lab)


async def test_outage_is_seen_on_every_path_and_ended_by_an_operator(
    gateway: Gateway, http: httpx.AsyncClient, lab: OpenAIUpstream
) -> None:
    await trip(http, lab)
    refused = await http.post(CHAT, json=question())
    assert_openai_error(refused, 503, "all_providers_failed", "circuit_open")
    assert 0 < int(refused.headers["retry-after"]) <= OPEN_S
    assert len(lab.calls) == FAILURES

    statuses = await document(http, "/providers")
    assert {name: statuses[name]["circuit_breaker_open"] for name in ("lab", "spare")} == {"lab": True, "spare": False}
    assert statuses["lab"]["last_error"]
    summaries = {each["id"]: each for each in await document(http, "/api/providers")}
    assert (summaries["lab"]["healthy"], summaries["lab"]["modelCount"], summaries["spare"]["healthy"]) == (False, 2, True)
    listed = {each["name"]: each for each in (await document(http, "/v1/providers"))["providers"]}
    assert (listed["lab"]["is_available"], listed["lab"]["supported_models"]) == (False, ["small", "large"])
    assert (await document(http, "/v1/providers/lab/health"))["is_healthy"] is False
    breakers = await document(http, "/api/circuit-breakers")
    assert (breakers["lab"]["state"], breakers["lab"]["failureCount"], breakers["spare"]["state"]) == ("open", FAILURES, "closed")
    assert (await told_by_the_router(http, is_open=True)).keys() >= statuses["lab"].keys()

    async with gateway.admin() as admin:
        breaker = await document(admin, BREAKER)
        assert (breaker["state"], breaker["total_failures"], breaker["models"]) == ("open", FAILURES, {"small": "open"})
        reset = await admin.post(RESET)
        assert (reset.status_code, reset.json()) == (200, {"message": "Circuit breaker reset for lab"})
        assert (await document(admin, BREAKER))["state"] == "closed"
    lab.script(completion("Back."))
    answer = await http.post(CHAT, json=question())
    assert answer.json()["choices"][0]["message"]["content"] == "Back."
    await told_by_the_router(http, is_open=False)
    assert (await document(http, "/api/circuit-breakers"))["lab"]["state"] == "closed"


async def test_only_the_failing_model_is_refused(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    await trip(http, lab)
    lab.script(completion("Large.", model="large"))
    assert (await http.post(CHAT, json=question(model="large"))).status_code == 200
    assert (await http.post(CHAT, json=question())).status_code == 503


async def test_grpc_operators_reset_one_model(gateway: Gateway, http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    await trip(http, lab)
    key = (("authorization", f"Bearer {ADMIN_KEY}"),)
    async with grpc.aio.insecure_channel(gateway.url.removeprefix("http://")) as channel:
        stub = pb_grpc.ProvidersServiceStub(channel)
        listed = (await stub.ListBreakers(pb.ListBreakersRequest(provider="lab"), metadata=key)).breakers
        assert {breaker.model: breaker.state for breaker in listed}["small"] == breaker_pb2.BREAKER_STATE_OPEN
        request = pb.ResetBreakerRequest(provider="lab", model="small")
        (breaker,) = (await stub.ResetBreaker(request, metadata=key)).breakers
        assert breaker.state == breaker_pb2.BREAKER_STATE_CLOSED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ResetBreaker(request, metadata=(("authorization", f"Bearer {CLIENT_KEY}"),))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    lab.script(completion())
    assert (await http.post(CHAT, json=question())).status_code == 200


@pytest.mark.parametrize("key", ["wrong", CLIENT_KEY, ""])
async def test_wrong_admin_key_changes_nothing(gateway: Gateway, http: httpx.AsyncClient, lab: OpenAIUpstream, key: str) -> None:
    await trip(http, lab)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as stranger:
        for response in (await stranger.get(BREAKER), await stranger.post(RESET), await stranger.get("/admin/providers/x/circuit-breaker")):
            assert_openai_error(response, 401, "authentication_error", "invalid_api_key")
    assert (await http.post(CHAT, json=question())).status_code == 503


async def test_listings_are_for_those_who_have_the_gateways_key(gateway: Gateway, http: httpx.AsyncClient) -> None:
    async with httpx.AsyncClient(base_url=gateway.url) as stranger:
        for path in LISTINGS:
            assert_openai_error(await stranger.get(path), 401, "authentication_error", "invalid_api_key")
            assert (await stranger.get(path, headers={"x-api-key": CLIENT_KEY})).status_code == 200


async def test_console_of_another_origin_may_ask_and_reset(gateway: Gateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, headers={"origin": ORIGIN}) as page:
        for path, method in ((RESET, "POST"), (BREAKER, "GET"), ("/v1/providers", "GET")):
            asking = {"access-control-request-method": method, "access-control-request-headers": "authorization"}
            preflight = await page.options(path, headers=asking)
            assert preflight.status_code == 200
            assert method in preflight.headers["access-control-allow-methods"]
        answer = await page.post(RESET, headers={"authorization": f"Bearer {ADMIN_KEY}"})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, ORIGIN)


async def test_unknown_provider_is_told_in_the_words_of_each_path(gateway: Gateway, http: httpx.AsyncClient) -> None:
    health = await http.get("/v1/providers/nobody/health")
    assert (health.status_code, health.headers["content-type"]) == (404, "application/json")
    assert health.json() == {"detail": {"error": "not_found", "message": "Provider 'nobody' not found"}}
    async with gateway.admin() as admin:
        path = "/admin/providers/nobody/circuit-breaker"
        for response in (await admin.get(path), await admin.post(f"{path}/reset")):
            assert (response.status_code, response.json()) == (404, {"detail": "Provider not found"})


async def test_without_an_admin_key_the_admin_paths_are_off(lab: OpenAIUpstream, tmp_path: Path) -> None:
    tables = provider_table("lab", lab.base_url, ["small"])
    async with running(tmp_path, ONE_PROCESS, tables, ADMIN_API_KEY="") as bare, bare.admin() as admin:
        for response in (await admin.get(BREAKER), await admin.post(RESET)):
            assert_openai_error(response, 403, "permission_error", "permission_denied")
        assert (await admin.get("/providers")).status_code == 200
