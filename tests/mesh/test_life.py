"""The end of a gateway: answers outlive the signal to stop, the data outlives the gateway, and nothing else does."""

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from tests.fakes.openai_upstream import OpenAIUpstream, Reply, completion, completion_json, stream
from tests.mesh.asking import CHAT, chunks_of, events_as_they_come, question, text_of
from tests.mesh.gateway import ONE_PROCESS, PATIENCE_S, PROCESSES, Gateway, provider_table, running

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODES = pytest.mark.parametrize("mode", [PROCESSES, ONE_PROCESS])


def tables(lab: OpenAIUpstream) -> str:
    return provider_table("lab", lab.base_url, ["small"]) + "[retry]\nattempts = 1\n"


async def ended(gateway: Gateway) -> int:
    """The exit code of a gateway that was told to stop; all that it started is gone by then."""
    async with asyncio.timeout(PATIENCE_S):
        code = await gateway.process.wait()
    assert not [pid for pid in gateway.pids.values() if Path(f"/proc/{pid}").exists()]
    assert not gateway.events("child_killed")
    return code


async def refuses(http: httpx.AsyncClient) -> None:
    """Waits until new connections are refused."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                async with httpx.AsyncClient(base_url=http.base_url) as stranger:
                    await stranger.get("/healthz")
            except httpx.TransportError:
                return
            await asyncio.sleep(0.01)


@MODES
async def test_running_answers_finish_after_the_signal_and_are_booked(tmp_path: Path, lab: OpenAIUpstream, mode: str) -> None:
    go_on = asyncio.Event()
    whole = Reply([json.dumps(completion_json("Whole")).encode()], before=[go_on])
    async with running(tmp_path, mode, tables(lab), DRAIN_SECONDS="20") as gateway:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as http:
            lab.script(stream("first", go_on, "last"), whole)
            async with http.stream("POST", CHAT, json=question("streamed", stream=True)) as response:
                events = events_as_they_come(response)
                said = [await anext(events), await anext(events)]
                waiting = asyncio.create_task(http.post(CHAT, json=question("whole")))
                await lab.arrived(2)
                gateway.process.terminate()
                await refuses(http)
                go_on.set()
                said += [event async for event in events]
            answered = await waiting
        assert await ended(gateway) == 0
    chunks = chunks_of(b"".join(b"data: %b\n\n" % event for event in said))
    assert (text_of(chunks), chunks[-1]["choices"][0]["finish_reason"]) == ("firstlast", "stop")
    assert answered.json()["choices"][0]["message"]["content"] == "Whole"
    async with running(tmp_path, mode, tables(lab)) as gateway:
        rows = await gateway.entries()
        assert {row["request_id"]: row["outcome"] for row in rows} == {
            answer.headers["x-request-id"]: "OUTCOME_FINISHED" for answer in (response, answered)
        }
        assert (await gateway.totals()).open_intent_count == 0


@MODES
async def test_answer_that_outlasts_the_drain_is_cut_and_booked(tmp_path: Path, lab: OpenAIUpstream, mode: str) -> None:
    never = asyncio.Event()
    async with running(tmp_path, mode, tables(lab), DRAIN_SECONDS="0.5") as gateway:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as http:
            lab.script(stream("first", never, "last"))
            async with http.stream("POST", CHAT, json=question("too long", stream=True)) as response:
                events = events_as_they_come(response)
                said = [await anext(events), await anext(events)]
                gateway.process.terminate()
                try:
                    said += [event async for event in events]
                except httpx.RemoteProtocolError:
                    said.append(b"cut")
        assert await ended(gateway) == 0
    assert not any(b'"stop"' in event or event == b"[DONE]" for event in said)
    await lab.calls[0].disconnected.wait()
    async with running(tmp_path, mode, tables(lab)) as gateway:
        [row] = await gateway.settled_entries(response.headers["x-request-id"])
        assert row["outcome"] == "OUTCOME_CLIENT_LEFT"


async def test_books_and_answers_outlive_the_gateway_whichever_way_it_is_started(tmp_path: Path, lab: OpenAIUpstream) -> None:
    modes = (PROCESSES, ONE_PROCESS, PROCESSES)
    seen: list[str] = []
    lab.script(completion("Kept."))
    for mode in modes:
        async with running(tmp_path, mode, tables(lab), CACHE_LOOKUP_TIMEOUT_SECONDS="10") as gateway:
            # A cache answers before it has read what it had kept.
            await gateway.says("cache_store_ready")
            async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as http:
                answer = await http.post(CHAT, json=question("kept over restarts"))
            assert answer.json()["choices"][0]["message"]["content"] == "Kept."
            assert answer.headers["x-joulegate-cache"] == ("hit-exact" if seen else "miss")
            await gateway.settled_entries(answer.headers["x-request-id"])
            seen.append(answer.headers["x-request-id"])
            assert [row["request_id"] for row in await gateway.entries()] == seen[::-1]
            totals = await gateway.totals()
            assert (totals.request_count, totals.cache_hit_count) == (len(seen), len(seen) - 1)
            gateway.process.terminate()
            assert await ended(gateway) == 0
    assert len(lab.calls) == 1
