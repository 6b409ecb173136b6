"""The routing policy is changed while the gateway runs: checked before it holds, then everywhere at once, and back by version."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio

from joulegate.ops.v1 import routing_service_pb2 as pb
from joulegate.ops.v1 import routing_service_pb2_grpc as pb_grpc
from tests.fakes.openai_upstream import OpenAIUpstream, completion
from tests.mesh.asking import CHAT, assert_openai_error, question
from tests.mesh.gateway import ADMIN_KEY, ONE_PROCESS, PATIENCE_S, PROCESSES, Gateway, provider_table, running

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROUTING = "/api/admin/routing"
OPERATOR = {"authorization": f"Bearer {ADMIN_KEY}"}


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=[PROCESSES, ONE_PROCESS])
async def gateway(
    request: pytest.FixtureRequest, upstreams: tuple[OpenAIUpstream, OpenAIUpstream], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateway]:
    tables = "".join(provider_table(name, each.base_url, ["small"]) for name, each in zip(("lab", "backup"), upstreams, strict=True))
    folder: Path = tmp_path_factory.mktemp("policy")
    async with running(folder, request.param, tables) as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="session")
async def http(gateway: Gateway, lab: OpenAIUpstream, backup: OpenAIUpstream) -> AsyncIterator[httpx.AsyncClient]:
    lab.always = backup.always = lambda _: completion("Hello")
    async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as client:
        await ledger_is_there(client)
        yield client


async def ledger_is_there(http: httpx.AsyncClient) -> None:
    """A router that has just begun may still be looking for it."""
    async with asyncio.timeout(PATIENCE_S):
        while (await http.get(f"{ROUTING}/versions", headers=OPERATOR)).status_code != 200:
            await asyncio.sleep(0.05)


async def provider_of(http: httpx.AsyncClient) -> str:
    response = await http.post(CHAT, json=question(), headers={"cache-control": "no-store"})
    assert response.status_code == 200
    return response.headers["x-joulegate-provider"]


async def change(http: httpx.AsyncClient, members: Any) -> int:
    response = await http.put(ROUTING, json=members, headers=OPERATOR)
    assert response.status_code == 200, response.text
    assert response.json()["success"] is True
    return int(response.json()["version"])


async def shown(http: httpx.AsyncClient) -> dict[str, Any]:
    return dict((await http.get(ROUTING, headers=OPERATOR)).json())


async def test_change_holds_for_the_next_request_and_fails_none_that_is_under_way(http: httpx.AsyncClient) -> None:
    async def ask_on(until: asyncio.Event) -> list[str]:
        answered = []
        while not until.is_set():
            answered.append(await provider_of(http))
        return answered

    await change(http, {"policy": {"strategy": "fallback"}})
    done = asyncio.Event()
    asking = [asyncio.create_task(ask_on(done)) for _ in range(4)]
    for turn in range(6):
        preferred = ("backup", "lab")[turn % 2]
        version = await change(http, {"policy": {"strategy": "fallback", "prefer_providers": [preferred]}})
        assert (await shown(http))["version"] == version
        assert await provider_of(http) == preferred
    done.set()
    answered = [name for names in await asyncio.gather(*asking) for name in names]
    assert set(answered) <= {"lab", "backup"} and answered


async def test_change_in_an_earlier_gateways_shape_holds_too(http: httpx.AsyncClient) -> None:
    await change(http, {"strategy": "fallback", "fallbackChain": ["backup"]})
    assert await provider_of(http) == "backup"
    assert (await shown(http))["fallbackChain"] == ["backup"]


async def test_policy_with_mistakes_is_refused_with_all_of_them_and_changes_nothing(http: httpx.AsyncClient) -> None:
    before = await shown(http)
    wrong = {"policy": {"strategy": "magic", "near_best": -1, "colour": "green"}}
    refused = await http.put(ROUTING, json=wrong, headers=OPERATOR)
    message = assert_openai_error(refused, 400, "invalid_request_error", None, param="policy")
    assert all(word in message for word in ("strategy", "near_best", "colour"))
    assert await shown(http) == before


async def test_change_to_a_version_that_has_passed_is_refused(http: httpx.AsyncClient) -> None:
    version = await change(http, {"policy": {}})
    assert await change(http, {"policy": {}, "version": version}) == version + 1
    stale = await http.put(ROUTING, json={"policy": {}, "version": version}, headers=OPERATOR)
    assert_openai_error(stale, 409, "invalid_request_error", "conflict")


async def test_earlier_version_comes_back_as_a_new_one(http: httpx.AsyncClient) -> None:
    earlier = await change(http, {"policy": {"prefer_providers": ["backup"]}, "comment": "backup first"})
    await change(http, {"policy": {"prefer_providers": ["lab"]}})
    assert await provider_of(http) == "lab"
    restored = await http.post(f"{ROUTING}/versions/{earlier}/restore", headers=OPERATOR)
    assert restored.json() == {"success": True, "version": earlier + 2}
    assert await provider_of(http) == "backup"
    versions = (await http.get(f"{ROUTING}/versions", params={"page_size": 3}, headers=OPERATOR)).json()["versions"]
    assert [each["version"] for each in versions] == [earlier + 2, earlier + 1, earlier]
    assert versions[2]["comment"] == "backup first"
    missing = await http.post(f"{ROUTING}/versions/999999/restore", headers=OPERATOR)
    assert_openai_error(missing, 404, "invalid_request_error", "not_found")


async def test_learning_is_switched_on_and_off_by_the_policy(http: httpx.AsyncClient) -> None:
    asked = 0

    async def ask() -> tuple[str, dict[str, Any]]:
        """Who answers the same question in a conversation of its own, and why; the answer is reported: good if it is from `backup`."""
        nonlocal asked
        asked += 1
        messages = [{"role": "system", "content": f"You are number {asked}."}, {"role": "user", "content": "How much is a joule?"}]
        headers = {"cache-control": "no-store", "x-joulegate-debug": "true"}
        answer = (await http.post(CHAT, json=question() | {"messages": messages}, headers=headers)).raise_for_status()
        provider = answer.headers["x-joulegate-provider"]
        report = {"request_id": answer.headers["x-request-id"], "score": float(provider == "backup")}
        (await http.post("/v1/feedback", json=report)).raise_for_status()
        return provider, answer.json()["x-gateway"]["explanation"]

    async def asked_until(is_so: Callable[[str, dict[str, Any]], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_so(*await ask()):
                pass

    def has_proved_worse(provider: str, why: dict[str, Any]) -> bool:
        return any(one["proved_worse"] for one in why["candidates"] if one["provider"] == "lab")

    await change(http, {"policy": {"strategy": "cost", "learning": "on"}})
    await asked_until(has_proved_worse)
    assert [(await ask())[0] for _ in range(10)] == ["backup"] * 10
    await change(http, {"policy": {"strategy": "cost"}})
    await asked_until(lambda provider, why: provider == "lab" and why["learning"] == "shadow" and not why["explored"])


async def test_typed_calls_see_and_change_the_same(http: httpx.AsyncClient, gateway: Gateway) -> None:
    metadata = (("authorization", f"Bearer {ADMIN_KEY}"),)
    async with grpc.aio.insecure_channel(gateway.url.removeprefix("http://")) as channel:
        stub = pb_grpc.RoutingServiceStub(channel)
        request = pb.UpdateRoutingPolicyRequest(document=json.dumps({"strategy": "cost"}), comment="typed")
        updated = (await stub.UpdateRoutingPolicy(request, metadata=metadata)).policy
        assert (await stub.GetRoutingPolicy(pb.GetRoutingPolicyRequest(), metadata=metadata)).policy == updated
        newest = (await stub.ListRoutingPolicies(pb.ListRoutingPoliciesRequest(page_size=1), metadata=metadata)).policies
        assert list(newest) == [updated]
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.GetRoutingPolicy(pb.GetRoutingPolicyRequest())
    assert raised.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert (await shown(http))["strategy"] == "cost"


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}], ids=str)
async def test_only_operators_may_see_or_change_it(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
    for response in (
        await http.get(ROUTING, headers=headers),
        await http.put(ROUTING, json={"policy": {}}, headers=headers),
        await http.get(f"{ROUTING}/versions", headers=headers),
        await http.post(f"{ROUTING}/versions/1/restore", headers=headers),
    ):
        assert response.status_code == 401


async def test_policy_outlives_the_gateway(
    upstreams: tuple[OpenAIUpstream, OpenAIUpstream], backup: OpenAIUpstream, tmp_path: Path
) -> None:
    tables = "".join(provider_table(name, each.base_url, ["small"]) for name, each in zip(("lab", "backup"), upstreams, strict=True))
    backup.always = lambda _: completion("Hello")
    for life in range(2):
        async with running(tmp_path, ONE_PROCESS, tables) as gateway, httpx.AsyncClient(base_url=gateway.url, timeout=30) as http:
            await ledger_is_there(http)
            if life == 0:
                await change(http, {"policy": {"prefer_providers": ["backup"]}})
            async with asyncio.timeout(PATIENCE_S):
                while (await shown(http))["version"] != 1:
                    await asyncio.sleep(0.01)
            assert await provider_of(http) == "backup"
