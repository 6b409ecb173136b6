"""Alerts reach an address that answers late, and wait for nobody."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from joulegate.ledger.v1 import budget_pb2
from services.ledger import alerts as alerts_module
from services.ledger.alerts import Alerts
from services.ledger.budgets import Alert, Budget

PATIENCE_S = 30
TEAM, USD, MONTH = budget_pb2.BUDGET_SCOPE_TEAM, budget_pb2.BUDGET_MEASURE_USD, budget_pb2.BUDGET_WINDOW_MONTH
BUDGET = Budget("budget_1", "ours", TEAM, "red", USD, MONTH, 0, 1000, 1, "", True, 0, 0)
ALERT = Alert(BUDGET, 80, 810, 1_698_796_800 * 10**9)


@asynccontextmanager
async def address(statuses: list[int]) -> AsyncIterator[tuple[str, asyncio.Queue[Any]]]:
    """An address that answers with these statuses in turn, and what was posted to it."""
    posted: asyncio.Queue[Any] = asyncio.Queue()

    async def take(request: web.Request) -> web.Response:
        posted.put_nowait(json.loads(await request.read()))
        return web.Response(status=statuses.pop(0))

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}/hook", posted
    finally:
        await runner.cleanup()


async def test_alert_is_posted_again_until_it_is_taken() -> None:
    async with address([500, 302, 200, 204]) as (url, posted), aiohttp.ClientSession() as session:
        alerts = Alerts(url, session, pauses_s=(0.0, 0.0, 0.0))
        running = asyncio.create_task(alerts.run())
        alerts.tell([ALERT, ALERT._replace(percent=95)])
        percents = [(await asyncio.wait_for(posted.get(), PATIENCE_S))["percent"] for _ in range(4)]
        running.cancel()
        await asyncio.wait([running])
    assert percents == [80, 80, 80, 95]


async def test_document_says_whose_budget_it_is_and_what_is_spent() -> None:
    async with address([200]) as (url, posted), aiohttp.ClientSession() as session:
        alerts = Alerts(url, session)
        running = asyncio.create_task(alerts.run())
        alerts.tell([ALERT])
        document = await asyncio.wait_for(posted.get(), PATIENCE_S)
        running.cancel()
        await asyncio.wait([running])
    assert document == {
        "budget_id": "budget_1",
        "name": "ours",
        "scope": "team",
        "scope_id": "red",
        "measure": "usd",
        "percent": 80,
        "spent": 810,
        "limit": 1000,
        "window_start": "2023-11-01T00:00:00+00:00",
    }


async def test_address_that_is_away_is_given_up_and_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts_module, "MAX_WAITING", 2)
    async with aiohttp.ClientSession() as session:
        alerts = Alerts("http://127.0.0.1:1/hook", session, pauses_s=(0.0,))
        # More than may wait: told at once, all the same.
        alerts.tell([ALERT] * 5)
        running = asyncio.create_task(alerts.run())
        async with asyncio.timeout(PATIENCE_S):
            while not alerts._waiting.empty():
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])
