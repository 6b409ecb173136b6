"""Other words of the same question, through the whole gateway: who may have whose answer, how it is told, and what keeps words apart."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.fakes.openai_upstream import OpenAIUpstream, completion
from tests.mesh.asking import CHAT, assert_openai_error, chunks_of, question, text_of
from tests.mesh.gateway import ONE_PROCESS, PATIENCE_S, PROCESSES, Gateway, provider_table, running

pytestmark = pytest.mark.asyncio(loop_scope="session")

# The second differs in nothing but spaces and capitals at the beginning: any gate lets it pass.
ASKED, REWORDED = "What is the boiling point of water?", "What is the  boiling point of water?"


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=[PROCESSES, ONE_PROCESS])
async def caching(
    request: pytest.FixtureRequest, upstreams: tuple[OpenAIUpstream, OpenAIUpstream], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateway]:
    tables = provider_table("lab", upstreams[0].base_url, ["small", "other"]) + "[retry]\nattempts = 1\n"
    folder: Path = tmp_path_factory.mktemp("semantic")
    # A lookup that is slow on a busy machine is still a lookup; what is found at all is found by the cache service.
    environment = {"CACHE_LOOKUP_TIMEOUT_SECONDS": "10", "CACHE_PUBLIC_NAMESPACES": "faq", "NEAR_CACHE_TTL_SECONDS": "0"}
    async with running(folder, request.param, tables, **environment) as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="session")
async def http(caching: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=caching.url, timeout=30, headers={"authorization": "Bearer tenant-one"}) as client:
        yield client


async def if_cached(http: httpx.AsyncClient, body: dict[str, Any], **headers: str) -> httpx.Response:
    return await http.post(CHAT, json=body, headers=headers | {"cache-control": "only-if-cached"})


async def keep(http: httpx.AsyncClient, lab: OpenAIUpstream, body: dict[str, Any], text: str, **headers: str) -> None:
    """Brings an answer into the cache: it is kept behind the back of its receiver."""
    lab.script(completion(text))
    await http.post(CHAT, json=body, headers=headers)
    async with asyncio.timeout(PATIENCE_S):
        while (await if_cached(http, body, **headers)).status_code != 200:
            await asyncio.sleep(0.01)


def _reworded(body: dict[str, Any]) -> dict[str, Any]:
    *earlier, last = body["messages"]
    return body | {"messages": [*earlier, last | {"content": last["content"].replace("the ", "the  ")}]}


def said(response: httpx.Response) -> str:
    return str(response.json()["choices"][0]["message"]["content"])


async def test_other_words_get_the_answer_and_are_told_how_near_they_are(
    http: httpx.AsyncClient, lab: OpenAIUpstream, caching: Gateway
) -> None:
    await keep(http, lab, question(ASKED), "100 degrees")
    hit = await if_cached(http, question(REWORDED))
    assert said(hit) == "100 degrees"
    assert hit.headers["x-joulegate-cache"] == "hit-semantic"
    assert 0.6 <= float(hit.headers["x-joulegate-cache-similarity"]) <= 1
    assert int(hit.headers["age"]) >= 0
    assert hit.headers["x-joulegate-cost-usd"] == "0.000000000"
    exact = await if_cached(http, question(ASKED))
    assert exact.headers["x-joulegate-cache"] == "hit-exact"
    assert exact.headers["x-joulegate-cache-entry"] == hit.headers["x-joulegate-cache-entry"]
    streamed = await if_cached(http, question(REWORDED, stream=True))
    assert streamed.headers["x-joulegate-cache"] == "hit-semantic"
    assert text_of(chunks_of(streamed.content)) == "100 degrees"
    [row] = await caching.settled_entries(hit.headers["x-request-id"])
    assert (row["cache_status"], row["cost_nano_usd"]) == ("CACHE_STATUS_HIT_SEMANTIC", 0)
    assert row["saved_energy_microjoules"] > 0


# The same words in another setting, each of which can change the answer.
SETTINGS: dict[str, dict[str, Any]] = {
    "model": {"model": "other"},
    "system": {"messages": [{"role": "system", "content": "Answer in Kelvin."}, *question(REWORDED)["messages"]]},
    "history": {
        "messages": [
            {"role": "user", "content": "Let us talk of Denver."},
            {"role": "assistant", "content": "Gladly."},
            *question(REWORDED)["messages"],
        ]
    },
    "max_tokens": {"max_tokens": 5},
    "response_format": {"response_format": {"type": "json_object"}},
    "tools": {"tools": [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]},
    "unknown": {"never_heard_of": 1},
    "temperature": {"temperature": 0.7},
    "several": {"n": 2},
    "seed": {"seed": 3},
}


@pytest.mark.parametrize("setting", SETTINGS)
async def test_same_words_in_another_setting_are_another_question(http: httpx.AsyncClient, lab: OpenAIUpstream, setting: str) -> None:
    await keep_once(http, lab)
    assert (await if_cached(http, question(REWORDED) | SETTINGS[setting])).status_code == 504


async def keep_once(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    if (await if_cached(http, question(REWORDED))).status_code != 200:
        await keep(http, lab, question(ASKED), "100 degrees")


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer tenant-two"},
        {"authorization": ""},
        {"x-cache-namespace": "other"},
        {"x-cache-mode": "exact"},
        {"x-cache-mode": "off"},
    ],
    ids=str,
)
async def test_other_words_find_nothing_of_another_tenant_or_namespace_nor_where_they_are_not_wanted(
    http: httpx.AsyncClient, lab: OpenAIUpstream, headers: dict[str, str]
) -> None:
    await keep_once(http, lab)
    assert (await if_cached(http, question(REWORDED), **headers)).status_code == 504
    assert (await if_cached(http, question(REWORDED))).status_code == 200


async def test_threshold_of_a_request_only_tightens(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    await keep_once(http, lab)
    similarity = float((await if_cached(http, question(REWORDED))).headers["x-joulegate-cache-similarity"])
    if similarity < 1:
        assert (await if_cached(http, question(REWORDED), **{"x-cache-threshold": "1"})).status_code == 504
    assert (await if_cached(http, question(REWORDED), **{"x-cache-threshold": "0"})).status_code == 200
    assert (await if_cached(http, question("Who painted the ceiling?"), **{"x-cache-threshold": "0"})).status_code == 504


async def test_public_namespace_is_shared_by_all(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    body = question("How high is the Grossglockner?")
    await keep(http, lab, body, "3798 m", **{"x-cache-namespace": "faq"})
    other = {"authorization": "Bearer tenant-two", "x-cache-namespace": "faq"}
    assert said(await if_cached(http, _reworded(body), **other)) == "3798 m"
    assert (await if_cached(http, body)).status_code == 504


@pytest.mark.parametrize(
    ("header", "value"), [("x-cache-mode", "fuzzy"), ("x-cache-threshold", "2"), ("x-cache-tags", "a,b,c,d,e,f,g,h,i")]
)
async def test_wish_that_makes_no_sense_is_refused(http: httpx.AsyncClient, lab: OpenAIUpstream, header: str, value: str) -> None:
    refused = await http.post(CHAT, json=question(), headers={header: value})
    assert_openai_error(refused, 400, "invalid_request_error", None, header)


# Wordings of one line mean the same; no two lines do. The first of each line is asked first.
SAMPLE = (
    ("How do I descale my kettle?", "What is the best way to descale a kettle?", "Please tell me how to descale my kettle."),
    ("How do I descale my coffee machine?",),
    ("What is the capital of Norway?", "Norway's capital?"),
    ("What is the capital of Denmark?",),
    ("What was the capital of Norway before Oslo?",),
    ("Convert 15 miles to kilometres", "How many kilometres are 15 miles?"),
    ("Convert 51 miles to kilometres",),
    ("Convert 15 kilometres to miles",),
    ("Is it safe to eat raw salmon?",),
    ("Is it not safe to eat raw salmon?",),
    ("How do I turn on the night light?", "How can I turn on the night light?"),
    ("How do I turn off the night light?",),
    ("Who wrote the book?",),
    ("When was the book written?",),
    ("How do I copy a file in Linux?", "How can I copy a file on Linux?"),
    ("How do I move a file in Linux?",),
    ("Translate 'good morning' into Welsh",),
    ("Translate 'good night' into Welsh",),
    ("Where does the train from Graz to Oslo stop?",),
    ("Where does the train from Oslo to Graz stop?",),
    ("Summarise in three bullet points: the meeting moved to Friday.",),
    ("Summarise in five bullet points: the meeting moved to Friday.",),
    ("x = a + b; what does this line do?",),
    ("x = a - b; what does this line do?",),
)


async def test_of_many_questions_that_look_alike_each_gets_its_own_answer(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    """A small fixed sample; the bars of the design are measured on large ones, which are not part of this repository."""
    hits = wordings = 0
    for number, (first, *others) in enumerate(SAMPLE):
        response = await if_cached(http, question(first))
        assert response.status_code == 504, f"{first!r} got {said(response)!r}"
        await keep(http, lab, question(first), f"answer {number}")
        for other in others:
            hit = await if_cached(http, question(other))
            wordings += 1
            if hit.status_code == 200:
                hits += 1
                assert said(hit) == f"answer {number}", other
    assert hits >= wordings / 2


async def test_no_tenant_ever_sees_what_was_said_to_another(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    """Canaries: each tenant's answers hold its own, and the same questions in the same words are asked by all."""
    tenants = [f"canary-tenant-{number}" for number in range(6)]
    texts = [f"What is the secret of the house number {number}?" for number in range(4)]
    for tenant in tenants:
        for number, text in enumerate(texts):
            await keep(http, lab, question(text), f"secret-{tenant}-{number}", authorization=f"Bearer {tenant}")
    for tenant in tenants:
        for number, text in enumerate(texts):
            for body in (question(text), _reworded(question(text)), question(text, stream=True)):
                hit = await if_cached(http, body, authorization=f"Bearer {tenant}")
                everything = hit.text if not body.get("stream") else text_of(chunks_of(hit.content))
                assert f"secret-{tenant}-{number}" in everything
                seen = everything + str(hit.headers)
                assert not [other for other in tenants if other != tenant and other in seen]


async def held_at_provider(http: httpx.AsyncClient, lab: OpenAIUpstream, body: dict[str, Any], tenant: str) -> tuple[httpx.Response, float]:
    """A tenant's answer, with the milliseconds that its provider took, during which somebody else is served from the cache."""
    calls, may_answer = len(lab.calls), asyncio.Event()
    lab.script(dataclasses.replace(completion("its own"), before=[may_answer]))
    asking = asyncio.create_task(http.post(CHAT, json=body, headers={"authorization": f"Bearer {tenant}"}))
    await lab.arrived(calls + 1)
    began = time.monotonic()
    assert (await if_cached(http, question(ASKED), authorization="Bearer has-it")).status_code == 200
    held_ms = (time.monotonic() - began) * 1e3
    may_answer.set()
    return await asking, held_ms


async def test_nothing_that_is_said_of_an_answer_tells_that_another_tenant_has_it(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    """Not its headers, not its fields, and not the time that it says it took: that is a provider's, and never a cache's."""
    await keep(http, lab, question(ASKED), "what another has", authorization="Bearer has-it")
    told = []
    for number, text in enumerate(("What was never asked by anybody?", ASKED, REWORDED)):
        response, held_ms = await held_at_provider(http, lab, question(text), f"has-it-not-{number}")
        assert said(response) == "its own"
        assert response.json()["x-gateway"]["latency_ms"] >= round(held_ms, 1) - 0.1
        status = {name: response.headers.get(f"x-joulegate-cache{name}") for name in ("", "-similarity", "-entry")}
        told.append((sorted(response.headers), sorted(response.json()["x-gateway"]), response.json()["x-gateway"]["cache_hit"], status))
    assert told[0] == told[1] == told[2]
    assert told[0][2:] == (False, {"": "miss", "-similarity": None, "-entry": None})


async def test_an_answer_on_its_way_to_one_tenant_is_not_shared_with_another(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    text, may_answer, calls = "What is on its way to somebody?", asyncio.Event(), len(lab.calls)
    lab.script(*(dataclasses.replace(completion("on its way"), before=[may_answer]) for _ in range(2)))
    asking = [
        asyncio.create_task(http.post(CHAT, json=question(text), headers={"authorization": f"Bearer on-its-way-{number}"}))
        for number in range(2)
    ]
    # One call would not do: the second would wait for the first.
    await lab.arrived(calls + 2)
    may_answer.set()
    assert [response.headers["x-joulegate-cache"] for response in await asyncio.gather(*asking)] == ["miss", "miss"]


async def test_answer_that_a_provider_gives_otherwise_serves_other_words_no_more(
    upstreams: tuple[OpenAIUpstream, OpenAIUpstream], lab: OpenAIUpstream, tmp_path: Path
) -> None:
    tables = provider_table("lab", upstreams[0].base_url, ["small"])
    settings = {"CACHE_LOOKUP_TIMEOUT_SECONDS": "10", "CACHE_VERIFY_SHARE": "1"}
    async with running(tmp_path, ONE_PROCESS, tables, **settings) as gateway, httpx.AsyncClient(base_url=gateway.url, timeout=30) as http:
        lab.always = lambda _: completion("90 degrees")
        await http.post(CHAT, json=question(ASKED))
        # Each look by other words that finds the answer has it asked anew, until the first comparison bars it from them.
        lab.always = lambda _: completion("100 degrees")
        async with asyncio.timeout(PATIENCE_S):
            while (await if_cached(http, question(REWORDED))).status_code != 200:
                await asyncio.sleep(0.01)
            hit = await http.post(CHAT, json=question(REWORDED))
            assert (hit.headers["x-joulegate-cache"], said(hit)) == ("hit-semantic", "90 degrees")
            # The new answer is kept under the words that it was given to.
            while said(hit) != "100 degrees":
                hit = await if_cached(http, question(REWORDED))
        assert hit.headers["x-joulegate-cache"] == "hit-exact"
        other = question(REWORDED.replace("the  ", "the   "))
        assert (await if_cached(http, other)).status_code == 504
        assert said(await if_cached(http, question(ASKED))) == "90 degrees"
        assert len(lab.calls) == 2
