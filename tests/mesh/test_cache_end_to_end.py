"""One stored answer serves whoever may have it, in the shape that is asked for, and nobody else."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.fakes.openai_upstream import Fault, OpenAIUpstream, Reply, chunk, completion, error, sse, stream
from tests.mesh.asking import CHAT, assert_openai_error, chunks_of, question, text_of
from tests.mesh.gateway import ONE_PROCESS, PATIENCE_S, PROCESSES, Gateway, provider_table, running

pytestmark = pytest.mark.asyncio(loop_scope="session")

ONLY_IF_CACHED = {"cache-control": "only-if-cached"}
TEXT = "Energy is the capacity to do work."
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"place":"Graz"}'}}


# Without copies in the router it is the cache service that answers; with them, mostly the router itself.
@pytest_asyncio.fixture(
    scope="module", loop_scope="session", params=[(PROCESSES, "0"), (ONE_PROCESS, "30")], ids=["cache-service", "near-cache"]
)
async def caching(
    request: pytest.FixtureRequest, upstreams: tuple[OpenAIUpstream, OpenAIUpstream], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateway]:
    mode, near_ttl_s = request.param
    tables = provider_table("lab", upstreams[0].base_url, ["small", "other"]) + "[retry]\nattempts = 1\n"
    folder: Path = tmp_path_factory.mktemp("cache")
    # A lookup that is slow on a busy machine is still a lookup.
    async with running(folder, mode, tables, NEAR_CACHE_TTL_SECONDS=near_ttl_s, CACHE_LOOKUP_TIMEOUT_SECONDS="10") as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="session")
async def http(caching: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=caching.url, timeout=30, headers={"authorization": "Bearer tenant-one"}) as client:
        yield client


async def if_cached(http: httpx.AsyncClient, body: Mapping[str, Any], **headers: str) -> httpx.Response:
    """The cached answer, or the refusal where there is none."""
    control = ", ".join(filter(None, ["only-if-cached", headers.pop("cache-control", "")]))
    response = await http.post(CHAT, json=body, headers=headers | {"cache-control": control})
    if response.status_code == 200:
        assert response.headers["x-joulegate-cache"] == "hit-exact"
        assert int(response.headers["age"]) >= 0
    else:
        assert_openai_error(response, 504, "invalid_request_error", "not_cached")
    return response


async def until_cached(http: httpx.AsyncClient, body: Mapping[str, Any], **headers: str) -> httpx.Response:
    """The cached answer, once it is there: answers are kept behind the back of their receiver."""
    async with asyncio.timeout(PATIENCE_S):
        while (response := await if_cached(http, body, **headers)).status_code != 200:
            await asyncio.sleep(0.01)
    return response


async def ask(http: httpx.AsyncClient, lab: OpenAIUpstream, reply: Reply, body: Mapping[str, Any], **headers: str) -> httpx.Response:
    """An answer that the provider has to give."""
    lab.script(reply)
    calls = len(lab.calls)
    response = await http.post(CHAT, json=body, headers=headers)
    assert len(lab.calls) == calls + 1
    return response


async def keep(http: httpx.AsyncClient, lab: OpenAIUpstream, body: Mapping[str, Any], reply: Reply | None = None, **headers: str) -> None:
    """Brings an answer into the cache."""
    first = await ask(http, lab, reply or completion(TEXT), body, **headers)
    assert first.headers["x-joulegate-cache"] == "miss"
    await until_cached(http, body, **headers)


async def test_stream_is_replayed_as_json(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    body = question("stream to json")
    await keep(http, lab, body | {"stream": True}, stream(*re.findall(r"\S+\s?", TEXT)))
    hit = await if_cached(http, body)
    document = hit.json()
    [choice] = document["choices"]
    assert (choice["message"], choice["finish_reason"]) == ({"role": "assistant", "content": TEXT}, "stop")
    assert document["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    assert document["id"] == f"chatcmpl-{hit.headers['x-request-id']}"
    assert document["x-gateway"]["cache_hit"] is True
    assert hit.headers["x-joulegate-cost-usd"] == "0.000000000"


@pytest.mark.parametrize("asks_usage", [False, True])
async def test_json_is_replayed_as_a_stream_of_several_chunks(http: httpx.AsyncClient, lab: OpenAIUpstream, asks_usage: bool) -> None:
    body = question(f"json to stream, usage {asks_usage}")
    await keep(http, lab, body)
    hit = await if_cached(http, body | {"stream": True} | ({"stream_options": {"include_usage": True}} if asks_usage else {}))
    assert hit.headers["content-type"].startswith("text/event-stream")
    chunks = chunks_of(hit.content)
    last = chunks.pop() if asks_usage else None
    assert text_of(chunks) == TEXT
    assert sum(bool(piece["choices"][0]["delta"].get("content")) for piece in chunks) > 1
    assert [piece["choices"][0]["finish_reason"] for piece in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert {piece["id"] for piece in chunks} == {f"chatcmpl-{hit.headers['x-request-id']}"}
    if last is None:
        assert not any(piece.get("usage") for piece in chunks)
    else:
        assert (last["choices"], last["usage"]["total_tokens"], last["x-joulegate"]["cost_usd"]) == ([], 7, 0)


async def test_tool_calls_are_replayed_in_both_shapes(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    body = question("tool calls", tools=[TOOL])
    message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    choices = [{"index": 0, "message": message, "finish_reason": "tool_calls", "logprobs": None}]
    await keep(http, lab, body, completion(choices=choices))
    assert (await if_cached(http, body)).json()["choices"][0]["message"] == message
    chunks = chunks_of((await if_cached(http, body | {"stream": True})).content)
    calls = [call for piece in chunks for call in piece["choices"][0]["delta"].get("tool_calls", [])]
    assert "".join(call["function"].get("arguments", "") for call in calls) == CALL["function"]["arguments"]  # type: ignore[index]
    assert (calls[0]["id"], calls[0]["function"]["name"], chunks[-1]["choices"][0]["finish_reason"]) == ("call_1", "weather", "tool_calls")


OTHER_QUESTIONS: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 0.5},
    "tools": {"tools": [TOOL]},
    "system": {"messages": [{"role": "system", "content": "Be brief."}, *question("variations")["messages"]]},
    "model": {"model": "other"},
    "max_tokens": {"max_tokens": 9},
    "seed": {"seed": 1},
    "unknown": {"never_heard_of": True},
    "provider": {"provider": "lab"},
}


@pytest.mark.parametrize("change", OTHER_QUESTIONS.values(), ids=OTHER_QUESTIONS.keys())
async def test_other_question_is_a_miss(http: httpx.AsyncClient, lab: OpenAIUpstream, change: dict[str, Any]) -> None:
    body = question("variations")
    if (await if_cached(http, body)).status_code != 200:
        await keep(http, lab, body)
    assert (await if_cached(http, body | change)).status_code == 504
    asked = await ask(http, lab, completion("Something else."), body | change)
    assert asked.headers["x-joulegate-cache"] == "miss"
    assert (await if_cached(http, body)).json()["choices"][0]["message"]["content"] == TEXT


@pytest.mark.parametrize("change", [{"user": "u-1"}, {"metadata": {"a": "b"}}, {"store": True}, {"prompt_cache_key": "k"}], ids=str)
async def test_who_asks_and_how_the_answer_travels_is_no_other_question(
    http: httpx.AsyncClient, lab: OpenAIUpstream, change: dict[str, Any]
) -> None:
    body = question(f"irrelevant {change}")
    await keep(http, lab, body)
    assert (await if_cached(http, body | change)).status_code == 200


@pytest.mark.parametrize(
    "other",
    [{"authorization": "Bearer tenant-two"}, {"authorization": ""}, {"authorization": "", "x-api-key": "tenant-two"}],
    ids=["bearer", "anonymous", "api-key"],
)
async def test_answer_of_one_tenant_is_not_seen_by_another(http: httpx.AsyncClient, lab: OpenAIUpstream, other: dict[str, str]) -> None:
    body = question(f"whose answer, {len(str(other))}")
    await keep(http, lab, body)
    assert (await if_cached(http, body, **other)).status_code == 504
    assert (await if_cached(http, body, authorization="", **{"x-api-key": "tenant-one"})).status_code == 200


async def test_namespace_divides_the_answers_of_a_tenant(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    body = question("namespaces")
    await keep(http, lab, body, completion("blue"), **{"x-cache-namespace": "blue"})
    assert (await if_cached(http, body)).status_code == 504
    await keep(http, lab, body, completion("red"), **{"x-cache-namespace": "red"})
    for name in ("blue", "red"):
        assert (await if_cached(http, body, **{"x-cache-namespace": name})).json()["choices"][0]["message"]["content"] == name


async def test_no_cache_asks_anew_and_keeps_the_newer_answer(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    body = question("no-cache")
    await keep(http, lab, body, completion("old"))
    fresh = await ask(http, lab, completion("new"), body, **{"cache-control": "no-cache"})
    assert (fresh.headers["x-joulegate-cache"], fresh.json()["choices"][0]["message"]["content"]) == ("bypass", "new")
    async with asyncio.timeout(PATIENCE_S):
        while (await if_cached(http, body)).json()["choices"][0]["message"]["content"] != "new":
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("headers", "members"),
    [({"cache-control": "no-store"}, {}), ({}, {"x-cache": False}), ({}, {"skip_cache": True})],
    ids=["no-store", "x-cache", "skip_cache"],
)
async def test_request_can_pass_the_cache_by(
    http: httpx.AsyncClient, lab: OpenAIUpstream, headers: dict[str, str], members: dict[str, Any]
) -> None:
    body = question(f"pass by {headers} {members}")
    passing = await ask(http, lab, completion("unseen"), body | members, **headers)
    assert passing.headers["x-joulegate-cache"] == "bypass"
    assert not members.keys() & lab.calls[-1].json.keys()
    await nothing_was_kept_of(http, lab, body)
    await keep(http, lab, body)
    # Neither does it read.
    assert (await ask(http, lab, completion("anew"), body | members, **headers)).json()["choices"][0]["message"]["content"] == "anew"
    assert (await if_cached(http, body)).json()["choices"][0]["message"]["content"] == TEXT


async def nothing_was_kept_of(http: httpx.AsyncClient, lab: OpenAIUpstream, body: Mapping[str, Any]) -> None:
    """Answers are kept one after the other: when a later one is there, an earlier one would be."""
    await keep(http, lab, question(f"after {json.dumps(body)}"))
    assert (await if_cached(http, body)).status_code == 504


async def test_only_if_cached_never_asks_a_provider(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    assert (await if_cached(http, question("never asked"))).status_code == 504
    assert lab.calls == []


async def test_max_age_bounds_the_age_of_an_answer(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    body = question("max-age")
    await keep(http, lab, body)
    assert (await if_cached(http, body, **{"cache-control": "max-age=600"})).status_code == 200
    async with asyncio.timeout(PATIENCE_S):
        while (await if_cached(http, body, **{"cache-control": "max-age=1"})).status_code == 200:
            await asyncio.sleep(0.05)
    assert (await if_cached(http, body)).status_code == 200


async def test_answer_lives_as_long_as_was_asked_and_no_longer(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    body = question("ttl")
    await keep(http, lab, body, completion(TEXT), **{"x-cache-ttl": "2"})
    async with asyncio.timeout(PATIENCE_S):
        while (response := await if_cached(http, body)).status_code == 200:
            assert int(response.headers["age"]) <= 2
            await asyncio.sleep(0.05)


async def test_ttl_of_zero_keeps_nothing(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    body = question("ttl of zero")
    await ask(http, lab, completion(TEXT), body, **{"x-cache-ttl": "0"})
    await nothing_was_kept_of(http, lab, body)


INCOMPLETE = {
    "error": (error(500, "broken"), False),
    "refusal": (error(400, "no"), False),
    "cut": (stream("Ener", Fault.RESET), True),
    "length": (completion("Ener", choices=[{"index": 0, "message": {"content": "Ener"}, "finish_reason": "length"}]), False),
    "length of a stream": (stream("Ener", finish="length"), True),
    "filtered": (completion("", choices=[{"index": 0, "message": {"content": ""}, "finish_reason": "content_filter"}]), False),
    "no reason to finish": (stream("Ener", finish=None), True),
    "one choice of two": (
        sse(chunk({"content": "a"}), chunk({}, finish="stop"), chunk({"content": "b"}, index=1), chunk({}, finish="length", index=1)),
        True,
    ),
}


@pytest.mark.parametrize(("reply", "is_stream"), INCOMPLETE.values(), ids=INCOMPLETE.keys())
async def test_incomplete_answer_is_never_kept(http: httpx.AsyncClient, lab: OpenAIUpstream, reply: Reply, is_stream: bool) -> None:
    body = question(f"incomplete {reply.status} {[step for step in reply.steps if isinstance(step, bytes)]!r}")
    await ask(http, lab, reply, body | {"stream": is_stream})
    await nothing_was_kept_of(http, lab, body)


async def test_failed_ask_leaves_the_kept_answer_alone(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    body = question("kept over a failure")
    await keep(http, lab, body)
    failed = await ask(http, lab, error(500, "broken"), body, **{"cache-control": "no-cache"})
    assert failed.status_code == 502
    await keep(http, lab, question("after the failure"))
    assert (await if_cached(http, body)).json()["choices"][0]["message"]["content"] == TEXT


@pytest.mark.parametrize(
    ("header", "value"), [("x-cache-ttl", "soon"), ("x-cache-ttl", "-1"), ("x-cache-namespace", "n" * 129), ("cache-control", "max-age=x")]
)
async def test_wish_that_makes_no_sense_is_refused(http: httpx.AsyncClient, lab: OpenAIUpstream, header: str, value: str) -> None:
    refused = await http.post(CHAT, json=question(), headers={header: value})
    assert_openai_error(refused, 400, "invalid_request_error", None, header)
