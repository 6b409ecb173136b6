"""A client that asks for a hedge: who answers, and that both calls are in the books of the real gateway."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.fakes.openai_upstream import OpenAIUpstream, hang, stream
from tests.mesh.asking import CHAT, assert_openai_error, question
from tests.mesh.gateway import PATIENCE_S, PROCESSES, Gateway, provider_table, running

pytestmark = pytest.mark.asyncio(loop_scope="session")

HEDGED = {"cache-control": "no-store", "x-joulegate-hedge": "true"}
# Until it is known how long first events take, and two hedges are paid for.
WARM_UP = 60


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def hedging(upstreams: tuple[OpenAIUpstream, OpenAIUpstream], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """A gateway that has seen `lab` answer quickly for a while."""
    tables = "".join(
        provider_table(name, upstream.base_url, ["small"]) for name, upstream in zip(("lab", "backup"), upstreams, strict=True)
    )
    async with running(tmp_path_factory.mktemp("hedging"), PROCESSES, tables) as gateway:
        upstreams[0].always = lambda _: stream("Hello")
        async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as http:
            for _ in range(WARM_UP):
                await ask(http, {"cache-control": "no-store"})
        upstreams[0].forget()
        yield gateway


async def ask(http: httpx.AsyncClient, headers: dict[str, str]) -> httpx.Response:
    return await http.post(CHAT, json=question(stream=True), headers=headers)


def outcomes(rows: list[dict[str, object]]) -> set[tuple[object, ...]]:
    return {(row["attempt"], row["provider"], row["outcome"]) for row in rows}


async def test_who_is_late_is_overtaken_and_both_are_booked(hedging: Gateway, lab: OpenAIUpstream, backup: OpenAIUpstream) -> None:
    lab.script(hang())
    backup.script(stream("Energy."))
    async with httpx.AsyncClient(base_url=hedging.url, timeout=30) as http:
        answered = await ask(http, HEDGED)
    assert b"Energy." in answered.content
    assert answered.headers["x-joulegate-provider"] == "backup"
    async with asyncio.timeout(PATIENCE_S):
        await lab.calls[0].disconnected.wait()
    rows = await hedging.settled_entries(answered.headers["x-request-id"], 2)
    assert outcomes(rows) == {(1, "lab", "OUTCOME_SUPERSEDED"), (2, "backup", "OUTCOME_FINISHED")}
    [overtaken] = [row for row in rows if row["provider"] == "lab"]
    assert overtaken["input_tokens"] > 0 and overtaken["tokens_estimated"] and overtaken["energy_microjoules"] > 0


async def test_client_that_leaves_two_calls_has_both_booked(hedging: Gateway, lab: OpenAIUpstream, backup: OpenAIUpstream) -> None:
    lab.script(hang())
    backup.script(hang())
    async with httpx.AsyncClient(base_url=hedging.url, timeout=30) as http:
        asking = asyncio.create_task(ask(http, HEDGED | {"x-request-id": "left-both"}))
        calls = [await lab.arrived(), await backup.arrived()]
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(call.disconnected.wait() for call in calls))
    rows = await hedging.settled_entries("left-both", 2)
    assert outcomes(rows) == {(1, "lab", "OUTCOME_CLIENT_LEFT"), (2, "backup", "OUTCOME_CLIENT_LEFT")}


async def test_wish_that_cannot_be_read_is_refused(hedging: Gateway) -> None:
    async with httpx.AsyncClient(base_url=hedging.url, timeout=30) as http:
        refused = await ask(http, {"x-joulegate-hedge": "perhaps"})
    assert_openai_error(refused, 400, "invalid_request_error", None, "x-joulegate-hedge")
