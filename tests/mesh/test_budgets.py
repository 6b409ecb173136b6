"""Budgets and limits through the real gateway: made over REST, and never overspent by requests at the same moment."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.fakes.openai_upstream import OpenAIUpstream, completion
from tests.mesh.asking import CHAT, http_client, question
from tests.mesh.gateway import ADMIN_KEY, ONE_PROCESS, Gateway, provider_table, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

BUDGETS = "/api/admin/budgets"
PRICE = '[[models]]\nprovider = "lab"\nmodel = "small"\ninput_usd_per_million = 1.0\noutput_usd_per_million = 10.0\n'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab() -> AsyncIterator[OpenAIUpstream]:
    async with OpenAIUpstream() as lab:
        yield lab


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(lab: OpenAIUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    tables = provider_table("lab", lab.base_url, ["small"]) + PRICE + "[retry]\nattempts = 1\n"
    async with running(tmp_path_factory.mktemp("budgets"), ONE_PROCESS, tables) as gateway:
        yield gateway


async def make(admin: httpx.AsyncClient, **fields: Any) -> str:
    given = {"scope": "BUDGET_SCOPE_GLOBAL", "measure": "BUDGET_MEASURE_USD", "window": "BUDGET_WINDOW_MONTH"}
    response = await admin.post(BUDGETS, json=given | fields)
    assert response.status_code == 201, response.text
    return str(response.json()["usage"]["budget"]["budget_id"])


async def test_budget_is_never_overspent_by_requests_at_the_same_moment(gateway: Gateway, lab: OpenAIUpstream) -> None:
    lab.script(*[completion("One.") for _ in range(60)])
    async with gateway.admin() as admin, http_client(gateway) as http:
        budget = await make(admin, limit="3000000")
        body = {"max_tokens": 60}
        answers = await asyncio.gather(*(http.post(CHAT, json=question(f"q{number}", **body)) for number in range(40)))
        counts = {status: sum(answer.status_code == status for answer in answers) for status in (200, 429)}
        assert sum(counts.values()) == 40 and min(counts.values()) >= 3, counts
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.json()["error"]["type"] in ("budget_exceeded", "insufficient_quota"), refused.text
        for answer in answers:
            if answer.status_code == 200:
                await gateway.settled_entries(answer.headers["x-request-id"], 1)
        usage = (await admin.get(f"{BUDGETS}/{budget}")).json()["usage"]
        spent = sum(row["cost_nano_usd"] for row in await gateway.entries())
        assert (usage["spent"], usage.get("held", "0")) == (str(spent), "0") and 0 < spent <= 3_000_000

        summary = (await http.get("/api/budget")).json()
        assert (summary["costUsed"], summary["budget"]) == (spent / 1e9, {"monthlyUsd": 0.003})
        assert summary["tokensUsed"] > 0

        changed = await admin.patch(f"{BUDGETS}/{budget}", json={"limit": "900000000"})
        assert changed.json()["usage"]["budget"]["limit"] == "900000000", changed.text
        lab.script(completion("Two."))
        assert (await http.post(CHAT, json=question("again", **body))).status_code == 200
        listed = (await admin.get(BUDGETS)).json()["usages"]
        assert [each["budget"]["budget_id"] for each in listed] == [budget]
        assert (await admin.delete(f"{BUDGETS}/{budget}")).status_code == 200
        assert (await admin.get(f"{BUDGETS}/{budget}")).status_code == 404
    # How many were let in is the budget's to say.
    lab.forget()


async def test_nobody_but_the_operator_makes_budgets(gateway: Gateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as http:
        assert (await http.get(BUDGETS)).status_code == 401
        wrong = {"authorization": f"Bearer {ADMIN_KEY}"}
        refused = await http.post(BUDGETS, headers=wrong, json={"limit": "-1"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "scope")
        assert (await http.put(BUDGETS)).headers["allow"] == "GET, POST"


async def test_key_is_held_to_its_requests_per_minute(gateway: Gateway, lab: OpenAIUpstream) -> None:
    lab.script(*[completion("One.") for _ in range(6)])
    async with gateway.admin() as admin:
        key = (await admin.post("/api/admin/keys", json={"name": "robot", "rateLimitRpm": 3})).json()["key"]
    async with http_client(gateway, authorization=f"Bearer {key}") as http:
        answers = [await http.post(CHAT, json=question(f"k{number}", max_tokens=60)) for number in range(4)]
    lab.forget()
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[0].headers["x-ratelimit-limit-requests"] == "3"
    assert 0 < float(answers[3].headers["retry-after"]) <= 60
