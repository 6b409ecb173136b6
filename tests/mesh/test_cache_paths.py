"""What the cache holds, shown and removed on the paths of earlier gateways and by typed calls, by operators and by callers."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio

from joulegate.ops.v1 import cache_ops_service_pb2 as pb
from joulegate.ops.v1 import cache_ops_service_pb2_grpc as pb_grpc
from tests.fakes.openai_upstream import OpenAIUpstream, completion
from tests.mesh.asking import CHAT, assert_openai_error, question
from tests.mesh.gateway import ADMIN_KEY, ONE_PROCESS, PATIENCE_S, PROCESSES, Gateway, provider_table, running

pytestmark = pytest.mark.asyncio(loop_scope="session")

SAVINGS = {"hits", "misses", "hitRate", "estimatedSavingsUsd", "totalEntries", "hitsByModel", "missesByModel"}
STATE = {"enabled", "size", "hits", "misses", "hit_rate", "evictions"}
INVALIDATE = "/api/cache/invalidate"
OPERATOR = {"authorization": f"Bearer {ADMIN_KEY}"}
OURS, THEIRS = {"authorization": "Bearer ours"}, {"authorization": "Bearer theirs"}


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=[PROCESSES, ONE_PROCESS])
async def gateway(
    request: pytest.FixtureRequest, upstreams: tuple[OpenAIUpstream, OpenAIUpstream], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateway]:
    tables = provider_table("lab", upstreams[0].base_url, ["small", "large"])
    folder: Path = tmp_path_factory.mktemp("cache-paths")
    async with running(folder, request.param, tables, CACHE_LOOKUP_TIMEOUT_SECONDS="10") as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="session")
async def http(gateway: Gateway, lab: OpenAIUpstream) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as client:
        # A gateway that has just begun may still be looking for its books.
        async with asyncio.timeout(PATIENCE_S):
            while (await client.get("/api/cache/stats")).status_code != 200:
                await asyncio.sleep(0.05)
        (await client.post(INVALIDATE, headers=OPERATOR)).raise_for_status()
        yield client


async def is_kept(http: httpx.AsyncClient, text: str, owner: dict[str, str], model: str = "small", **headers: str) -> bool:
    headers = {**owner, "cache-control": "only-if-cached", **headers}
    return (await http.post(CHAT, json=question(text, model=model), headers=headers)).status_code == 200


async def keep(http: httpx.AsyncClient, lab: OpenAIUpstream, text: str, owner: dict[str, str], model: str = "small", **headers: str) -> str:
    """Brings an answer into the cache service; gives the entry's id."""
    before = await size(http)
    lab.script(completion(text))
    await http.post(CHAT, json=question(text, model=model), headers=owner | headers)
    async with asyncio.timeout(PATIENCE_S):
        while await size(http) == before:
            await asyncio.sleep(0.01)
    hit = await http.post(CHAT, json=question(text, model=model), headers=owner | headers)
    return hit.headers["x-joulegate-cache-entry"]


async def size(http: httpx.AsyncClient) -> int:
    return int((await http.get("/v1/cache/stats", headers=OPERATOR)).json()["size"])


async def removed(http: httpx.AsyncClient, body: Any, owner: dict[str, str]) -> int:
    response = await http.post(INVALIDATE, json=body, headers=owner)
    assert response.status_code == 200, response.text
    return int(response.json()["removed"])


async def test_stats_have_the_shapes_of_earlier_gateways_and_agree(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    before = (await http.get("/api/cache/stats", headers=OURS)).json()
    await keep(http, lab, "counted", OURS)
    assert await is_kept(http, "counted", OURS)
    assert not await is_kept(http, "never asked", OURS, model="large")
    savings = (await http.get("/api/cache/stats", headers=OURS)).json()
    state = (await http.get("/v1/cache/stats", headers=OURS)).json()
    assert (savings.keys(), state.keys()) == (SAVINGS, STATE)
    assert (savings["hits"] - before["hits"], savings["misses"] - before["misses"]) == (2, 2)
    assert savings["hitsByModel"]["small"] - before["hitsByModel"].get("small", 0) == 2
    assert savings["missesByModel"]["large"] - before["missesByModel"].get("large", 0) == 1
    assert (savings["totalEntries"], state["size"], state["enabled"]) == (1, 1, True)
    assert (state["hits"], state["misses"]) == (savings["hits"], savings["misses"])
    assert savings["hitRate"] == state["hit_rate"] == savings["hits"] / (savings["hits"] + savings["misses"])
    assert savings["estimatedSavingsUsd"] >= before["estimatedSavingsUsd"]


async def test_operator_removes_everybodys_entries_and_a_caller_its_own(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    for text in ("one", "two"):
        await keep(http, lab, text, OURS)
    await keep(http, lab, "one", THEIRS)
    response = await http.delete("/v1/cache", headers=OURS)
    assert (response.status_code, response.json()) == (200, {"status": "ok", "message": "Cache cleared"})
    assert not await is_kept(http, "one", OURS)
    assert await is_kept(http, "one", THEIRS)
    assert await removed(http, {}, OURS) == 0
    assert await removed(http, {}, OPERATOR) == 1
    assert not await is_kept(http, "one", THEIRS)


# What is to be removed, and what then is left.
CHOICES: list[tuple[dict[str, Any], str]] = [
    ({"pattern": "*"}, ""),
    ({"pattern": "lar*"}, "ab"),
    ({"pattern": "nothing*"}, "abc"),
    ({"model": "small"}, "c"),
    ({"namespace": "blue"}, "ac"),
    ({"tag": "faq"}, "bc"),
    ({"tag": "faq", "model": "large"}, "abc"),
    ({"older_than_seconds": 3600}, "abc"),
    ({"older_than_seconds": 0}, ""),
]
BY_QUERY = [(True, chosen, left) for chosen, left in CHOICES if "pattern" not in chosen]


@pytest.mark.parametrize(("by_query", "chosen", "left"), [*((False, *choice) for choice in CHOICES), *BY_QUERY], ids=str)
async def test_entries_are_chosen_by_what_they_were_kept_with(
    http: httpx.AsyncClient, lab: OpenAIUpstream, by_query: bool, chosen: dict[str, Any], left: str
) -> None:
    await keep(http, lab, "a", OURS, **{"x-cache-tags": "faq,de"})
    await keep(http, lab, "b", OURS, **{"x-cache-namespace": "blue"})
    await keep(http, lab, "c", OURS, model="large")
    if by_query:
        assert (await http.delete("/v1/cache", params=chosen, headers=OURS)).status_code == 200
    else:
        assert await removed(http, chosen, OURS) == 3 - len(left)
    kept = {
        "a": await is_kept(http, "a", OURS),
        "b": await is_kept(http, "b", OURS, **{"x-cache-namespace": "blue"}),
        "c": await is_kept(http, "c", OURS, model="large"),
    }
    assert {name for name, is_there in kept.items() if is_there} == set(left)


async def test_entry_is_removed_by_the_name_that_its_answer_carried(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    entry_id = await keep(http, lab, "one", OURS)
    await keep(http, lab, "two", OURS)
    assert await removed(http, {"entry_id": entry_id}, THEIRS) == 0
    assert await removed(http, {"entry_id": entry_id}, OURS) == 1
    assert (await is_kept(http, "one", OURS), await is_kept(http, "two", OURS)) == (False, True)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ("[]", "body"),
        ("{", "body"),
        ('{"namespce": "blue"}', "namespce"),
        ('{"model": 5}', "model"),
        ('{"older_than_seconds": -1}', "older_than_seconds"),
        ('{"older_than_seconds": true}', "older_than_seconds"),
        ('{"pattern": "a", "model": "b"}', "pattern"),
    ],
)
async def test_body_that_makes_no_sense_removes_nothing(http: httpx.AsyncClient, lab: OpenAIUpstream, body: str, param: str) -> None:
    await keep(http, lab, "one", OURS)
    refused = await http.post(INVALIDATE, content=body, headers=OURS | {"content-type": "application/json"})
    assert_openai_error(refused, 400, "invalid_request_error", None, param)
    assert await is_kept(http, "one", OURS)


async def test_misspelt_query_removes_nothing(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    await keep(http, lab, "one", OURS)
    refused = await http.delete("/v1/cache?namespce=blue", headers=OURS)
    assert_openai_error(refused, 400, "invalid_request_error", None, "namespce")
    assert await is_kept(http, "one", OURS)


async def test_callers_do_not_remove_what_is_anothers(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    await keep(http, lab, "one", OURS)
    refused = await http.post(INVALIDATE, json={"tenant": "somebody"}, headers=THEIRS)
    assert refused.status_code == 403
    assert await removed(http, {"tenant": "somebody"}, OPERATOR) == 0
    assert await is_kept(http, "one", OURS)


async def test_typed_calls_say_and_do_the_same(http: httpx.AsyncClient, lab: OpenAIUpstream, gateway: Gateway) -> None:
    entry_id = await keep(http, lab, "one", OURS)
    async with grpc.aio.insecure_channel(gateway.url.removeprefix("http://")) as channel:
        stub = pb_grpc.CacheOpsServiceStub(channel)
        use = await stub.GetCacheUse(pb.GetCacheUseRequest(), metadata=tuple(OURS.items()), timeout=30)
        assert (use.enabled, use.entry_count, use.semantic_entry_count) == (True, 1, 1)
        assert use.size_bytes > 0
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.RemoveEntries(pb.RemoveEntriesRequest(), metadata=tuple(OURS.items()), timeout=30)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        chosen = pb.RemoveEntriesRequest(entry_id=entry_id)
        assert (await stub.RemoveEntries(chosen, metadata=tuple(OPERATOR.items()), timeout=30)).removed_count == 1
        everything = pb.RemoveEntriesRequest(all=True)
        assert (await stub.RemoveEntries(everything, metadata=tuple(OURS.items()), timeout=30)).removed_count == 0
