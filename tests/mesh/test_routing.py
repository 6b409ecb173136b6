"""Routing through the real gateway: each earlier gateway's examples, virtual models, bounds, and the explanation.

Three providers serve `shared` at different prices, and each a model of its own. The settings are GreenGate's.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio

from joulegate.chat.v1 import chat_pb2
from joulegate.router.v1 import router_service_pb2 as pb
from joulegate.router.v1 import router_service_pb2_grpc as pb_grpc
from tests.fakes.openai_upstream import Call, OpenAIUpstream, Reply, completion, error, stream
from tests.mesh.asking import CHAT, UNCACHED, assert_openai_error, chunks_of, question
from tests.mesh.gateway import ONE_PROCESS, PATIENCE_S, Gateway, provider_table, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXPLAIN = "/v1/route/explain"
# Provider, its own model, that one's tier, US dollars and joules per million and per token, and where it stands.
FLEET = (
    ("openai", "grand", 5, 10.0, 1.0, "POL"),
    ("groq", "tiny", 1, 0.1, 0.05, "USA"),
    ("together", "middling", 3, 1.0, 0.2, "SWE"),
)
TABLES = """
[virtual_models.house]
strategy = "quality"
models = ["together/*", "groq/*"]
"""


def tables(upstreams: dict[str, OpenAIUpstream]) -> str:
    """joulegate.toml."""
    text = "[retry]\nattempts = 1\n" + TABLES
    for name, own, tier, usd, joules, zone in FLEET:
        text += provider_table(name, upstreams[name].base_url, ["shared", own]) + f'zone = "{zone}"\n'
        for model, tier_there in ((own, tier), ("shared", 3)):
            text += (
                f'[[models]]\nprovider = "{name}"\nmodel = "{model}"\ntier = {tier_there}\ncontext_tokens = 1000\n'
                f"input_usd_per_million = {usd}\noutput_usd_per_million = {usd}\njoules_per_output_token = {joules}\n"
            )
    return text


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstreams() -> AsyncIterator[dict[str, OpenAIUpstream]]:
    async with AsyncExitStack() as stack:
        found = {name: await stack.enter_async_context(OpenAIUpstream()) for name, *_ in FLEET}
        for name, upstream in found.items():
            upstream.always = _answerer(name)
        yield found


def _answerer(name: str) -> Any:
    def answer(call: Call) -> Reply:
        streamed = bool(call.json.get("stream"))
        return stream(f"From {name}.") if streamed else completion(f"From {name}.", completion_tokens=20)

    return answer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstreams: dict[str, OpenAIUpstream], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    environment = {
        "MODEL_ROUTER_WEIGHTS": "cost=0.35,latency=0.2,reliability=0.3,energy=0.15",
        "LLM_PROVIDER_SEQUENCE": "openai,groq,together",
        "ENABLE_DEMO": "false",
    }
    async with running(tmp_path_factory.mktemp("routing"), ONE_PROCESS, tables(upstreams), **environment) as gateway:
        async with asyncio.timeout(PATIENCE_S), httpx.AsyncClient(base_url=gateway.url) as http:
            # Rates arrive in the background.
            while None in [one["expected"]["cost_usd"] for one in (await explain(http, model="shared"))["candidates"]]:
                await asyncio.sleep(0.05)
        yield gateway


@pytest_asyncio.fixture(loop_scope="module")
async def http(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=gateway.url, headers=UNCACHED, timeout=30) as client:
        yield client


async def explain(http: httpx.AsyncClient, **members: Any) -> dict[str, Any]:
    response = await http.post(EXPLAIN, json=question(**members))
    assert response.status_code == 200, response.text
    document = response.json()
    assert isinstance(document, dict)
    return document


async def answered_by(http: httpx.AsyncClient, headers: dict[str, str] | None = None, **members: Any) -> str:
    response = await http.post(CHAT, json=question(**members), headers=headers)
    assert response.status_code == 200, response.text
    return f"{response.headers['x-joulegate-provider']}/{response.headers['x-joulegate-model']}"


async def test_greengates_weights_route_by_cost_and_energy(http: httpx.AsyncClient) -> None:
    answer = await http.post(CHAT, json=question(model="shared"))
    assert answer.headers["x-joulegate-provider"] == "groq", "the frugal one, not the first of the sequence"
    said = answer.json()["x-gateway"]
    assert said["routing_strategy"] == "eco" and "eco" in said["routing_decision"]


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        # The Enhanced LLM Gateway's.
        ({"routing_strategy": "lowest_cost", "fallback": True}, "groq"),
        ({"routing_strategy": "failover"}, "openai"),
        ({"routing_strategy": "least_latency", "provider": "together"}, "together"),
        # The TypeScript gateway's.
        ({"x-routing-strategy": "cost", "x-cache": False}, "groq"),
        ({"x-routing-strategy": "balanced", "x-prefer-provider": "together"}, "together"),
        # LLM Gateway & Routing's.
        ({"routing": {"strategy": "cost", "preferred_providers": [], "exclude_providers": ["groq"]}}, "together"),
        ({"routing": {"strategy": "fallback", "preferred_providers": ["together", "groq"]}}, "together"),
        ({"routing": {"strategy": "latency", "exclude_providers": ["openai", "groq"], "required_capabilities": ["chat"]}}, "together"),
    ],
)
async def test_examples_of_earlier_gateways_hold(http: httpx.AsyncClient, members: dict[str, Any], expected: str) -> None:
    assert await answered_by(http, model="shared", **members) == f"{expected}/shared"


async def test_turns_are_taken(http: httpx.AsyncClient) -> None:
    served = [await answered_by(http, model="shared", routing={"strategy": "round_robin"}) for _ in range(6)]
    assert served == ["openai/shared", "groq/shared", "together/shared"] * 2


async def test_virtual_models_change_who_answers_and_are_listed(http: httpx.AsyncClient) -> None:
    assert await answered_by(http, model="cheap") in {"groq/tiny", "groq/shared"}
    assert await answered_by(http, model="quality") == "openai/grand"
    assert (await answered_by(http, model="eco")).split("/")[0] in {"together", "openai"}
    assert await answered_by(http, model="house") in {"groq/shared", "together/shared", "together/middling"}
    listed = {model["id"]: model for model in (await http.get("/v1/models")).json()["data"]}
    assert {"auto", "fast", "cheap", "eco", "quality", "house"} < listed.keys()
    assert (listed["auto"]["owned_by"], sorted(listed["house"]["providers"])) == ("joulegate", ["groq", "together"])
    assert (await http.get("/v1/models/house")).json()["id"] == "house"


async def test_a_virtual_models_answer_is_found_again_under_its_name(gateway: Gateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as http:
        first = await http.post(CHAT, json=question("Say it twice.", model="auto"))
        assert (first.headers["x-joulegate-cache"], first.json()["x-gateway"]["router_score"] is not None) == ("miss", True)
        again = await http.post(CHAT, json=question("Say it twice.", model="auto"))
        assert again.headers["x-joulegate-cache"] == "hit-exact"
        excluding = await http.post(
            CHAT,
            json=question("Say it twice.", model="auto"),
            headers={"x-joulegate-exclude-providers": first.headers["x-joulegate-provider"]},
        )
        assert excluding.headers["x-joulegate-provider"] != first.headers["x-joulegate-provider"]


async def test_bounds_of_a_request_are_kept_or_their_relaxation_is_said(http: httpx.AsyncClient) -> None:
    dear = {"x-joulegate-max-cost-usd": "0.0004"}
    assert await answered_by(http, dear, model="quality", max_tokens=100) == "groq/shared", "the cheapest of the best that it may be"
    answer = await http.post(CHAT, json=question(model="shared"), headers={"x-joulegate-max-cost-usd": "0"})
    assert answer.json()["x-gateway"]["relaxed"] == ["cost"]


@pytest.mark.parametrize(
    ("headers", "members", "param"),
    [
        ({"x-joulegate-max-cost-usd": "cheap"}, {}, "x-joulegate-max-cost-usd"),
        ({"x-joulegate-strategy": "fastest"}, {}, "x-joulegate-strategy"),
        ({}, {"routing": {"exclude_providers": "groq"}}, "routing.exclude_providers"),
        ({}, {"routing": {"exclude_providers": ["openai", "groq", "together"]}}, "routing"),
    ],
)
async def test_wishes_that_make_no_sense_are_refused_by_name(
    http: httpx.AsyncClient, headers: dict[str, str], members: dict[str, Any], param: str
) -> None:
    for path in (CHAT, EXPLAIN):
        response = await http.post(path, json=question(model="shared", **members), headers=headers)
        assert_openai_error(response, 400, "invalid_request_error", None, param)


async def test_without_failover_the_first_ones_error_is_the_answer(http: httpx.AsyncClient, upstreams: dict[str, OpenAIUpstream]) -> None:
    upstreams["openai"].script(error(500, "broken"))
    members: dict[str, Any] = {"model": "shared", "routing_strategy": "failover"}
    response = await http.post(CHAT, json=question(**members, fallback=False))
    assert response.status_code == 502, response.text
    upstreams["openai"].script(error(500, "broken"))
    assert await answered_by(http, **members) == "groq/shared"


async def test_an_explanation_has_figures_for_all_and_calls_nobody(http: httpx.AsyncClient, upstreams: dict[str, OpenAIUpstream]) -> None:
    before = sum(len(upstream.calls) for upstream in upstreams.values())
    told = await explain(http, model="shared", routing_strategy="cost", max_tokens=100)
    assert sum(len(upstream.calls) for upstream in upstreams.values()) == before
    assert (told["object"], told["strategy"], told["virtual"]) == ("route.explanation", "cost", False)
    assert [one["provider"] for one in told["candidates"]] == ["groq", "together", "openai"]
    assert (told["chosen"]["provider"], told["runner_up"]["provider"]) == ("groq", "together")
    tokens = told["input_tokens"] + told["chosen"]["output_tokens"]
    assert told["chosen"]["expected"]["cost_usd"] == pytest.approx(tokens * 0.1e-6)
    difference = told["runner_up"]["difference"]
    assert difference["cost_usd"] == pytest.approx(tokens * 0.9e-6) and difference["energy_joules"] > 0
    assert told["chosen"]["score"] == 1 and told["chosen"]["tier"] == 3 and told["chosen"]["zone"] == "USA"
    assert told["weights"]["cost"] == pytest.approx(0.8)


async def test_the_context_length_of_the_file_leaves_out_who_is_too_short(http: httpx.AsyncClient) -> None:
    refused = await http.post(EXPLAIN, json=question(model="auto", max_tokens=5000))
    assert "context" in assert_openai_error(refused, 400, "invalid_request_error", None, "routing")
    # Of a model that is named, the provider itself says so.
    assert len((await explain(http, model="shared", max_tokens=5000))["candidates"]) == 3


async def test_debugging_adds_the_explanation_to_answers_and_to_the_last_chunk(http: httpx.AsyncClient) -> None:
    debug = {"x-joulegate-debug": "true"}
    whole = (await http.post(CHAT, json=question(model="auto"), headers=debug)).json()["x-gateway"]
    told = whole["explanation"]
    assert told["chosen"]["provider"] == whole["provider"] and told["runner_up"]["difference"].keys() >= {"cost_usd", "energy_joules"}
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    streamed = await http.post(CHAT, json=question(model="auto", **options), headers=debug)
    last = chunks_of(streamed.content)[-1]["x-joulegate"]
    assert last["explanation"]["object"] == "route.explanation" and last["routing_strategy"] == "balanced"
    without = await http.post(CHAT, json=question(model="auto", **options))
    assert "explanation" not in chunks_of(without.content)[-1]["x-joulegate"]


async def test_the_same_is_told_over_grpc(gateway: Gateway, http: httpx.AsyncClient) -> None:
    request = chat_pb2.ChatRequest(model="shared", messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, text="Hello")])
    request.extra_json = json.dumps({"routing": {"strategy": "cost"}}).encode()
    async with grpc.aio.insecure_channel(gateway.url.removeprefix("http://")) as channel:
        call = pb_grpc.RouterServiceStub(channel).RankCandidates(pb.RankCandidatesRequest(request=request), timeout=PATIENCE_S)
        response = await call
    told = await explain(http, model="shared", routing_strategy="cost")
    assert [candidate.provider for candidate in response.candidates] == [one["provider"] for one in told["candidates"]]
    assert response.candidates[0].cost_usd == pytest.approx(told["chosen"]["expected"]["cost_usd"])
    assert (response.strategy, response.candidates[0].near_best) == ("cost", True)


async def test_only_post_explains(http: httpx.AsyncClient) -> None:
    assert_openai_error(await http.get(EXPLAIN), 405, "invalid_request_error", "method_not_allowed")


async def test_a_report_teaches_once_and_takes_a_wrong_cached_answer_away(gateway: Gateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE_S) as http:
        body = question(model="auto", messages=[{"role": "user", "content": "Which answer will be reported?"}])
        fresh = await http.post(CHAT, json=body)
        assert fresh.headers["x-joulegate-cache"] == "miss"
        report = {"request_id": fresh.headers["x-request-id"], "score": 0.9}
        assert (await http.post("/v1/feedback", json=report)).json() == {"learnt": True, "cache_told": False}
        assert (await http.post("/v1/feedback", json=report)).json() == {"learnt": False, "cache_told": False}
        kept = await http.post(CHAT, json=body)
        assert kept.headers["x-joulegate-cache"] == "hit-exact"
        wrong = await http.post("/v1/feedback", json={"request_id": kept.headers["x-request-id"], "score": 0})
        assert wrong.json() == {"learnt": False, "cache_told": True}
        again = await http.post(CHAT, json=body)
        assert again.headers["x-joulegate-cache"] == "miss"
        assert_openai_error(
            await http.post("/v1/feedback", json={"request_id": "never", "score": 1}),
            404,
            "invalid_request_error",
            "not_found",
            "request_id",
        )
        assert (await http.post("/v1/feedback", json={"request_id": "never", "score": 2})).status_code == 400
        assert (await http.post("/v1/feedback", json={"request_id": "never"})).status_code == 400
        assert (await http.get("/v1/feedback")).status_code == 405
