"""Limits and budgets through the real gateway: who is let in, what clients are told, and that every ending gives back what was held."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from tests.fakes.openai_upstream import Fault, OpenAIUpstream, Reply, completion, error, hang, stream
from tests.mesh.asking import CHAT, assert_openai_error, http_client, question
from tests.mesh.gateway import ONE_PROCESS, PATIENCE_S, PROCESSES, Gateway, provider_table, running
from tests.mesh.test_keys import create, lab, upstream

__all__ = ["lab", "upstream"]
pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMITED_BUT = {"rateLimitRpm": 10_000, "rateLimitTpm": 10_000_000}
PRICES = '[[models]]\nprovider = "lab"\nmodel = "{}"\ninput_usd_per_million = {}\noutput_usd_per_million = {}\n'


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[PROCESSES, ONE_PROCESS])
async def gateway(
    request: pytest.FixtureRequest, upstream: OpenAIUpstream, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateway]:
    models = ["small", "dear", "tiny", *(f"small-{number}" for number in range(len(ENDINGS)))]
    table = (
        provider_table("lab", upstream.base_url, models, patience_s=5)
        + "[retry]\nattempts = 1\n[breaker]\nfailures = 10000\nminimum_calls = 1000000\n"
    )
    prices = "".join(PRICES.format(*each) for each in (("small", 1, 2), ("dear", 1000, 2000), ("tiny", 0.001, 0.001)))
    async with running(tmp_path_factory.mktemp(f"limits-{request.param}"), request.param, table + prices) as gateway:
        yield gateway


async def keyed(gateway: Gateway, **members: Any) -> str:
    """A new key's text."""
    return str((await create(gateway, **(LIMITED_BUT | members)))["key"])


def client(gateway: Gateway, key: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=gateway.base_url, api_key=key, max_retries=0, default_headers={"cache-control": "no-store"})


@asynccontextmanager
async def budgeted(gateway: Gateway, measure: str, limit: int, **members: Any) -> AsyncIterator[str]:
    """A budget while entered. Routers that have a lease already hear of it a moment later."""
    budget = {"scope": "BUDGET_SCOPE_GLOBAL", "window": "BUDGET_WINDOW_MONTH"}
    body = budget | {"measure": f"BUDGET_MEASURE_{measure}", "limit": str(limit)} | members
    async with gateway.admin() as admin:
        response = await admin.post("/api/admin/budgets", json=body)
        assert response.status_code == 201, response.text
        budget_id = str(response.json()["usage"]["budget"]["budget_id"])
        try:
            yield budget_id
        finally:
            await admin.delete(f"/api/admin/budgets/{budget_id}")


async def usage(gateway: Gateway, budget_id: str) -> tuple[int, int]:
    """Spent and held."""
    async with gateway.admin() as admin:
        response = await admin.get(f"/api/admin/budgets/{budget_id}")
        # While the ledger is away, nothing is known to be given back.
        found = response.json().get("usage", {"held": "1"})
        return int(found.get("spent", 0)), int(found.get("held", 0))


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await check():
            await asyncio.sleep(0.05)


async def at_rest(gateway: Gateway, budget_id: str) -> int:
    """What is spent once nothing is held."""
    found = (0, 0)

    async def is_at_rest() -> bool:
        nonlocal found
        found = await usage(gateway, budget_id)
        return found[1] == 0

    await until(is_at_rest)
    return found[0]


async def ask(http: openai.AsyncOpenAI, model: str = "small", **members: Any) -> dict[str, str]:
    """Asks for a whole answer; the headers."""
    messages: Any = [{"role": "user", "content": "What is a joule?"}]
    response = await http.chat.completions.with_raw_response.create(model=model, messages=messages, **members)
    return dict(response.headers)


async def test_requests_of_a_minute_are_counted_hits_included(gateway: Gateway, lab: OpenAIUpstream) -> None:
    key = await keyed(gateway, rateLimitRpm=3)
    lab.script(completion(), completion())
    async with http_client(gateway, authorization=f"Bearer {key}", **{"cache-control": ""}) as http:
        answers = [await http.post(CHAT, json=question("Which limit?")) for _ in range(3)]
        assert [answer.headers["x-joulegate-cache"] for answer in answers] == ["miss", "hit-exact", "hit-exact"]
        assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["2", "1", "0"]
        assert {answer.headers["x-ratelimit-limit-requests"] for answer in answers} == {"3"}
        began = time.monotonic()
        refused = await http.post(CHAT, json=question("Which limit?"))
        assert_openai_error(refused, 429, "rate_limit_error", "rate_limit_exceeded")
        wait_ms = int(refused.headers["retry-after-ms"])
        assert 0 < wait_ms <= 60_000 and refused.headers["retry-after"] == str(-(-wait_ms // 1000))
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        # The second one is told less, by the time between them.
        again = await http.post(CHAT, json=question("Which limit?", stream=True))
        assert again.status_code == 429
        passed_ms = (time.monotonic() - began) * 1000
        assert wait_ms - passed_ms - 50 <= int(again.headers["retry-after-ms"]) <= wait_ms
    assert len(lab.calls) == 1


async def test_official_client_sees_a_rate_limit_error_with_its_headers(gateway: Gateway, lab: OpenAIUpstream) -> None:
    key = await keyed(gateway, rateLimitRpm=1, rateLimitTpm=100_000)
    lab.script(stream("Hello."))
    async with client(gateway, key) as http:
        messages: Any = [{"role": "user", "content": "Hi"}]
        streamed = await http.chat.completions.with_raw_response.create(model="small", messages=messages, stream=True, max_tokens=10)
        assert streamed.headers["x-ratelimit-remaining-requests"] == "0"
        assert 99_000 < int(streamed.headers["x-ratelimit-remaining-tokens"]) < 100_000
        async for _ in streamed.parse():
            pass
        with pytest.raises(openai.RateLimitError) as raised:
            await ask(http)
    assert (raised.value.code, raised.value.type) == ("rate_limit_exceeded", "rate_limit_error")
    assert raised.value.response.headers["x-ratelimit-limit-requests"] == "1"


async def test_tokens_of_a_minute_are_held_and_given_back(gateway: Gateway, lab: OpenAIUpstream) -> None:
    key = await keyed(gateway, rateLimitTpm=2000)
    lab.script(completion(), completion(), completion())
    async with client(gateway, key) as http:
        # Each holds more than half, and takes seven.
        for _ in range(2):
            await ask(http, max_tokens=1200)
        headers = await ask(http, max_tokens=100)
        assert headers["x-ratelimit-limit-tokens"] == "2000"
        assert 1000 < int(headers["x-ratelimit-remaining-tokens"]) < 1900
        with pytest.raises(openai.RateLimitError) as raised:
            await http.chat.completions.create(model="small", messages=[{"role": "user", "content": "long " * 1000}])
    assert raised.value.code == "rate_limit_exceeded"


async def test_budget_of_a_key_bounds_its_answers_and_then_refuses(gateway: Gateway, lab: OpenAIUpstream) -> None:
    key = await keyed(gateway, monthlyTokenBudget=2000)
    lab.script(completion("Long.", prompt_tokens=100, completion_tokens=1800, finish_reason="length"))
    async with client(gateway, key) as http:
        headers = await ask(http, max_tokens=10_000)
        assert "instead of 10000" in headers["x-joulegate-warnings"]
        sent = lab.calls[0].json["max_tokens"]
        assert 1000 < sent < 2000
        with pytest.raises(openai.RateLimitError) as raised:
            await ask(http, max_tokens=1000)
    refused = raised.value
    assert (refused.code, refused.type) == ("insufficient_quota", "budget_exceeded")
    assert refused.response.headers["x-should-retry"] == "false"
    now = datetime.now(UTC)
    month_end = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
    assert abs(int(refused.response.headers["retry-after"]) - (month_end - now).total_seconds()) < 60
    assert "monthly budget in tokens" in refused.message


@pytest.mark.parametrize("measure", ["USD", "JOULES", "GCO2E"])
async def test_budget_of_everybody_is_never_overspent(gateway: Gateway, lab: OpenAIUpstream, measure: str) -> None:
    """Twenty at once, where a few fit. The provider bills all that it may."""
    lab.always = lambda call: completion(prompt_tokens=50, completion_tokens=call.json["max_tokens"])
    async with budgeted(gateway, measure, 10**15) as probe, client(gateway, await keyed(gateway)) as http:
        await ask(http, max_tokens=400)
        spent = await at_rest(gateway, probe)
    assert spent > 0
    # What the books have already counts; the rest is for some four requests.
    limit = spent + 5 * await usage_of_one(gateway, measure)
    async with budgeted(gateway, measure, limit) as budget, client(gateway, await keyed(gateway)) as http:
        outcomes = await asyncio.gather(*(ask(http, max_tokens=400) for _ in range(20)), return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, openai.RateLimitError)]
        answered = [outcome for outcome in outcomes if isinstance(outcome, dict)]
        assert len(refused) + len(answered) == 20 and refused and answered
        assert {each.code for each in refused} == {"insufficient_quota"}
        assert spent < await at_rest(gateway, budget) <= limit


async def usage_of_one(gateway: Gateway, measure: str) -> int:
    """What the newest row took."""
    row = (await gateway.entries())[0]
    return int(row[{"USD": "cost_nano_usd", "JOULES": "energy_microjoules", "GCO2E": "carbon_micrograms"}[measure]])


async def test_full_budget_may_have_a_cheaper_model_answer(gateway: Gateway, lab: OpenAIUpstream) -> None:
    # Ten cents: too little for the dear model's answer.
    limit = (await gateway.totals()).cost_nano_usd + 10**8
    lab.script(completion(model="tiny"))
    async with budgeted(gateway, "USD", limit, on_exhausted="ON_EXHAUSTED_DOWNGRADE", downgrade_model="tiny"):
        async with client(gateway, await keyed(gateway)) as http:
            headers = await ask(http, "dear", max_tokens=2000)
        assert (headers["x-joulegate-downgraded-to"], headers["x-joulegate-model"]) == ("tiny", "tiny")
        assert lab.calls[0].json["model"] == "tiny"
        (row,) = await gateway.settled_entries(headers["x-request-id"])
        assert (row["requested_model"], row["model"]) == ("dear", "tiny")
        # One that may not use the cheaper model is refused.
        async with client(gateway, await keyed(gateway, allowedModels=["dear"])) as http:
            with pytest.raises(openai.RateLimitError):
                await ask(http, "dear", max_tokens=2000)


# By name: the provider's part, whether a stream is asked for, and what is booked; None: an estimate.
ENDINGS: dict[str, tuple[Callable[[], Reply], bool, int | None]] = {
    "whole": (lambda: completion(prompt_tokens=9, completion_tokens=3), False, 12),
    "whole, no usage": (lambda: completion(usage=None), False, None),
    "stream": (lambda: stream("One ", "two."), True, 7),
    "stream, no usage": (lambda: stream("One ", "two.", usage=False), True, None),
    "stream, cut": (lambda: stream("One ", "two.", Fault.RESET), True, None),
    "stream, silent": (lambda: stream("One ", Fault.HANG), True, None),
    "refused": (lambda: error(400, "no"), False, 0),
    "limited": (lambda: error(429, "slow"), False, 0),
    "broken": (lambda: error(500, "down"), False, 0),
    "silent": (hang, True, None),
    "left early": (hang, True, None),
    "left late": (lambda: stream("One ", Fault.HANG, "two."), True, None),
}


async def test_every_ending_books_the_truth_and_holds_nothing(gateway: Gateway, lab: OpenAIUpstream) -> None:
    lab.always = lambda call: ENDINGS[call.json["messages"][0]["content"]][0]()
    try:
        await asyncio.gather(*(_ends(gateway, name) for name in ENDINGS))
    finally:
        lab.always = None


async def _ends(gateway: Gateway, name: str) -> None:
    _, is_stream, truth = ENDINGS[name]
    made = await create(gateway, **LIMITED_BUT)
    request_id = f"ending-{made['id']}"
    # A model of its own, for a provider's limit is on a model.
    asked = question(name, model=f"small-{list(ENDINGS).index(name)}", stream=is_stream, max_tokens=50)
    async with (
        budgeted(gateway, "TOKENS", 10**9, scope="BUDGET_SCOPE_KEY", scope_id=made["id"]) as budget,
        http_client(gateway, authorization=f"Bearer {made['key']}", **{"x-request-id": request_id}) as http,
    ):
        if name.startswith("left"):
            with pytest.raises(httpx.TimeoutException):
                await http.post(CHAT, json=asked, timeout=1)
        else:
            await http.post(CHAT, json=asked)
        (row,) = await gateway.settled_entries(request_id)
        spent = await at_rest(gateway, budget)
    assert spent == row["input_tokens"] + row["output_tokens"], name
    assert spent == truth if truth is not None else 0 < spent < 60, (name, spent)


async def test_ledger_that_comes_back_goes_on_with_what_was_held(gateway: Gateway, lab: OpenAIUpstream) -> None:
    if "ledger" not in gateway.pids:
        pytest.skip("in one process the ledger does not die alone")
    gate = asyncio.Event()
    lab.script(stream("One ", gate, "two."))
    made = await create(gateway, **LIMITED_BUT)
    async with (
        budgeted(gateway, "TOKENS", 10**9, scope="BUDGET_SCOPE_KEY", scope_id=made["id"]) as budget,
        http_client(gateway, authorization=f"Bearer {made['key']}") as http,
    ):
        async with http.stream("POST", CHAT, json=question(stream=True, max_tokens=50)) as response:
            parts = response.aiter_bytes()
            await anext(parts)
            assert (await usage(gateway, budget))[1] > 0
            os.kill(gateway.pids["ledger"], signal.SIGKILL)
            gate.set()
            rest = b"".join([part async for part in parts])
        assert b"[DONE]" in rest
        assert await at_rest(gateway, budget) == 7
