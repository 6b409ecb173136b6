"""Identical requests in flight are one call over two routers: one behind Envoy, and one beside it that shares all but the process."""

import asyncio
import os
import re
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.fakes.openai_upstream import Fault, OpenAIUpstream, Reply, completion, error, stream
from tests.mesh.asking import CHAT, assert_openai_error, chunks_of, events_as_they_come, question, text_of
from tests.mesh.gateway import PATIENCE_S, PROCESSES, Gateway, provider_table, running

pytestmark = pytest.mark.asyncio(loop_scope="session")

WORDS = ["Energy ", "is ", "the ", "capacity ", "to ", "do ", "work."]
TEXT = "".join(WORDS)


@dataclass
class Router:
    """A way in: through Envoy, or straight to the second router."""

    http: httpx.AsyncClient
    process: asyncio.subprocess.Process | None = None


@dataclass
class Pair:
    gateway: Gateway
    first: Router
    second: Router

    async def until(self, service: str, name: str, value: float) -> None:
        await until(self.gateway, service, name, lambda figure: figure == value)


async def until(gateway: Gateway, service: str, name: str, is_enough: Callable[[float], bool]) -> float:
    """Waits for a figure of one of the gateway's processes."""
    found = re.search(rf"(http://\S+/metrics) \({service}\)", gateway.text)
    assert found is not None
    async with httpx.AsyncClient() as http, asyncio.timeout(PATIENCE_S):
        while True:
            with suppress(httpx.TransportError):
                [figure] = re.findall(rf"^{name} (\S+)$", (await http.get(found[1])).text, re.MULTILINE)
                if is_enough(float(figure)):
                    return float(figure)
            await asyncio.sleep(0.05)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(upstreams: tuple[OpenAIUpstream, OpenAIUpstream], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    table = provider_table("lab", upstreams[0].base_url, ["small"])
    folder: Path = tmp_path_factory.mktemp("flights")
    # A lookup that is slow on a busy machine is still a lookup.
    patience = {"CACHE_LOOKUP_TIMEOUT_SECONDS": "10", "LEDGER_WAIT_SECONDS": "20", "CACHE_MODE": "exact"}
    async with running(folder, PROCESSES, table.replace("total = 20", "total = 60") + "[retry]\nattempts = 1\n", **patience) as gateway:
        yield gateway


@asynccontextmanager
async def second_router(gateway: Gateway, folder: Path) -> AsyncIterator[Router]:
    """Another router on the same cache, dispatch and ledger. It is killed at the end, if it still lives."""
    addresses = {f"{name.upper()}_ADDRESS": f"unix:{gateway.sockets / f'{name}.sock'}" for name in ("cache", "dispatch", "ledger")}
    own = {"GRPC_LISTEN": f"unix:{folder / 'r.sock'}", "HTTP_LISTEN": f"unix:{folder / 'h.sock'}", "DRAIN_SECONDS": "30"}
    patience = {"CACHE_LOOKUP_TIMEOUT_SECONDS": "10", "LEDGER_WAIT_SECONDS": "20", "CACHE_MODE": "exact"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", "serve", "router"),
        env=os.environ | addresses | own | patience,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    transport = httpx.AsyncHTTPTransport(uds=str(folder / "h.sock"), limits=httpx.Limits(max_connections=None))
    try:
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://router", timeout=PATIENCE_S) as http,
            asyncio.timeout(PATIENCE_S),
        ):
            await _until_healthy(http)
            yield Router(http, process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _until_healthy(http: httpx.AsyncClient) -> None:
    while True:
        with suppress(httpx.TransportError):
            if (await http.get("/healthz")).status_code == 200:
                return
        await asyncio.sleep(0.05)


@asynccontextmanager
async def paired(gateway: Gateway, folder: Path) -> AsyncIterator[Pair]:
    limits = httpx.Limits(max_connections=None)
    routers = "joulegate_cache_flight_routers"
    count = await until(gateway, "cache", routers, lambda figure: figure > 0)
    async with (
        httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE_S, limits=limits) as http,
        second_router(gateway, folder) as second,
    ):
        await until(gateway, "cache", routers, lambda figure: figure > count)
        yield Pair(gateway, Router(http), second)
    await until(gateway, "cache", routers, lambda figure: figure == count)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pair(gateway: Gateway) -> AsyncIterator[Pair]:
    with tempfile.TemporaryDirectory(prefix="jg-") as folder:
        async with paired(gateway, Path(folder)) as pair:
            yield pair


@pytest_asyncio.fixture(loop_scope="session")
async def mortal(gateway: Gateway) -> AsyncIterator[Pair]:
    """A pair whose second router may be hurt."""
    with tempfile.TemporaryDirectory(prefix="jg-") as folder:
        async with paired(gateway, Path(folder)) as pair:
            yield pair


class Reader:
    """One client of a stream."""

    def __init__(self, router: Router, body: dict[str, Any]) -> None:
        self._router = router
        self._body = body | {"stream": True}
        self.events: list[bytes] = []
        self._stack = AsyncExitStack()

    async def begin(self) -> "Reader":
        """Asks, and reads the first event."""
        self.response = await self._stack.enter_async_context(self._router.http.stream("POST", CHAT, json=self._body))
        assert self.response.status_code == 200, await self.response.aread()
        self._coming = events_as_they_come(self.response)
        self.events.append(await anext(self._coming))
        return self

    async def read_on(self) -> "Reader":
        """Reads to the end."""
        async with self._stack:
            self.events += [event async for event in self._coming]
        return self

    async def until(self, text: str) -> "Reader":
        """Reads up to the event with that text."""
        while text.encode() not in self.events[-1]:
            self.events.append(await anext(self._coming))
        return self

    async def leave(self) -> None:
        await self._stack.aclose()

    @property
    def text(self) -> str:
        """The text of an answer that ended as it should."""
        chunks = chunks_of(b"".join(b"data: %b\n\n" % event for event in self.events))
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
        assert sum("role" in choice["delta"] for chunk in chunks for choice in chunk["choices"]) == 1
        return text_of(chunks)

    @property
    def status(self) -> str:
        return self.response.headers["x-joulegate-cache"]

    @property
    def request_id(self) -> str:
        return self.response.headers["x-request-id"]


async def begun(routers: Sequence[Router], body: dict[str, Any]) -> list[Reader]:
    """Streams at the same time, all with their first event."""
    return list(await asyncio.gather(*(Reader(router, body).begin() for router in routers)))


def growing(gate: asyncio.Event) -> Reply:
    """A stream that stops in the middle until the gate opens."""
    return stream(*WORDS[:3], gate, *WORDS[3:])


async def outcomes(pair: Pair, readers: Sequence[Reader]) -> Counter[tuple[str, int]]:
    """How the books say that each request ended, and by which attempt."""
    wanted = {reader.request_id for reader in readers}
    async with asyncio.timeout(PATIENCE_S):
        while True:
            rows = [row for row in await pair.gateway.entries() if row["request_id"] in wanted]
            if {row["request_id"] for row in rows} == wanted:
                return Counter((row["outcome"].removeprefix("OUTCOME_"), row["attempt"]) for row in rows)
            await asyncio.sleep(0.05)


async def test_hundred_streams_over_two_routers_are_one_call(pair: Pair, lab: OpenAIUpstream) -> None:
    gate = asyncio.Event()
    lab.script(growing(gate))
    readers = await begun([pair.first, pair.second] * 50, question("a hundred"))
    gate.set()
    await asyncio.gather(*(reader.read_on() for reader in readers))
    assert [reader.text for reader in readers] == [TEXT] * 100
    assert len(lab.calls) == 1
    assert Counter(reader.status for reader in readers) == {"miss": 1, "coalesced": 99}
    ids = {reader.events[0].split(b'"id":"')[1].split(b'"')[0] for reader in readers}
    assert len(ids) == 100
    assert await outcomes(pair, readers) == {("FINISHED", 1): 1, ("CACHE_HIT", 0): 99}
    rows = [row for row in await pair.gateway.entries() if row["request_id"] in {reader.request_id for reader in readers}]
    [paid] = [row for row in rows if row["attempt"] == 1]
    assert paid["cost_nano_usd"] > 0
    assert {(row["cost_nano_usd"], row["saved_cost_nano_usd"]) for row in rows if row["attempt"] == 0} == {(0, paid["cost_nano_usd"])}


async def test_who_comes_late_gets_all_from_the_first_word(pair: Pair, lab: OpenAIUpstream) -> None:
    gate = asyncio.Event()
    lab.script(growing(gate))
    leader = await Reader(pair.second, question("late")).begin()
    await leader.until(WORDS[2])
    late = await begun([pair.first, pair.second, pair.first], question("late"))
    gate.set()
    for reader in await asyncio.gather(*(reader.read_on() for reader in [leader, *late])):
        assert reader.text == TEXT
    assert len(lab.calls) == 1
    # And who comes too late for that finds it in the cache.
    for router in (pair.first, pair.second):
        hit = await router.http.post(CHAT, json=question("late"))
        assert hit.headers["x-joulegate-cache"] == "hit-exact"


async def test_call_outlives_the_client_that_caused_it(pair: Pair, lab: OpenAIUpstream) -> None:
    gate = asyncio.Event()
    lab.script(growing(gate))
    leader = await Reader(pair.second, question("leader leaves")).begin()
    followers = await begun([pair.first, pair.second] * 50, question("leader leaves"))
    await leader.leave()
    gate.set()
    await asyncio.gather(*(reader.read_on() for reader in followers))
    assert [reader.text for reader in followers] == [TEXT] * 100
    assert len(lab.calls) == 1
    assert await outcomes(pair, [leader, *followers]) == {("FINISHED", 1): 1, ("CACHE_HIT", 0): 100}


async def test_call_goes_on_for_another_routers_clients_alone(pair: Pair, lab: OpenAIUpstream) -> None:
    gate = asyncio.Event()
    lab.script(growing(gate))
    leader = await Reader(pair.second, question("only afar")).begin()
    follower = await Reader(pair.first, question("only afar")).begin()
    await leader.leave()
    await pair.until("cache", "joulegate_cache_flight_relays", 1)
    gate.set()
    assert (await follower.read_on()).text == TEXT
    assert len(lab.calls) == 1


async def test_provider_is_left_when_the_last_of_all_has_left(pair: Pair, lab: OpenAIUpstream) -> None:
    lab.script(stream(*WORDS[:3], Fault.HANG))
    readers = [await Reader(router, question("all leave")).begin() for router in (pair.second, pair.first)]
    for reader in readers:
        assert not lab.calls[0].disconnected.is_set()
        await reader.leave()
    await asyncio.wait_for(lab.calls[0].disconnected.wait(), PATIENCE_S)
    assert await outcomes(pair, readers) == {("CLIENT_LEFT", 1): 1, ("CLIENT_LEFT", 0): 1}


async def test_killed_router_of_the_leader_costs_one_more_call(mortal: Pair, lab: OpenAIUpstream) -> None:
    gate = asyncio.Event()
    lab.script(growing(gate), stream(*WORDS))
    leader = await Reader(mortal.second, question("killed")).begin()
    followers = await begun([mortal.first] * 50, question("killed"))
    # Some have more than others when it happens.
    await asyncio.gather(*(reader.until(WORDS[2]) for reader in followers[::2]))
    assert mortal.second.process is not None
    mortal.second.process.kill()
    await asyncio.gather(*(reader.read_on() for reader in followers))
    assert [reader.text for reader in followers] == [TEXT] * 50
    assert len(lab.calls) == 2
    with suppress(httpx.TransportError):
        await leader.leave()
    assert await outcomes(mortal, followers) == {("FINISHED", 1): 1, ("CACHE_HIT", 0): 49}


async def test_other_answer_of_the_new_leader_is_not_mixed_with_the_old_one(mortal: Pair, lab: OpenAIUpstream) -> None:
    lab.script(stream(*WORDS[:3], asyncio.Event()), completion("Something else."))
    leader = await Reader(mortal.second, question("otherwise")).begin()
    follower = await (await Reader(mortal.first, question("otherwise")).begin()).until(WORDS[2])
    whole = asyncio.create_task(mortal.first.http.post(CHAT, json=question("otherwise")))
    await mortal.until("router", "joulegate_router_flight_listeners", 2)
    assert mortal.second.process is not None
    mortal.second.process.kill()
    await follower.read_on()
    assert b"[DONE]" not in follower.events and not any(b'"stop"' in event for event in follower.events)
    assert b'"stream_cut"' in follower.events[-1]
    # Who had nothing yet has the new one.
    assert (await whole).json()["choices"][0]["message"]["content"] == "Something else."
    with suppress(httpx.TransportError):
        await leader.leave()


@pytest.mark.parametrize("leader_streams", [True, False])
async def test_whole_answers_and_streams_share_a_call_over_routers(pair: Pair, lab: OpenAIUpstream, leader_streams: bool) -> None:
    gate, body = asyncio.Event(), question(f"mixed {leader_streams}")
    whole_reply = Reply(completion(TEXT).steps, headers=completion(TEXT).headers, before=[gate])
    lab.script(growing(gate) if leader_streams else whole_reply)

    async def stream_text(router: Router) -> str:
        return (await (await Reader(router, body).begin()).read_on()).text

    async def whole_text(router: Router) -> str:
        response = await router.http.post(CHAT, json=body)
        return str(response.json()["choices"][0]["message"]["content"])

    first, then = (stream_text, whole_text) if leader_streams else (whole_text, stream_text)
    asked = [asyncio.create_task(first(pair.second))]
    await lab.arrived()
    asked += [asyncio.create_task(then(pair.first)), asyncio.create_task(first(pair.first))]
    await pair.until("router", "joulegate_router_flight_listeners", 2)
    await pair.until("cache", "joulegate_cache_flight_relays", 1)
    gate.set()
    assert await asyncio.gather(*asked) == [TEXT] * 3
    assert len(lab.calls) == 1


async def test_followers_that_leave_disturb_nobody(pair: Pair, lab: OpenAIUpstream) -> None:
    gate = asyncio.Event()
    lab.script(growing(gate))
    leader = await Reader(pair.second, question("followers leave")).begin()
    leaving = await begun([pair.first, pair.second], question("followers leave"))
    await asyncio.gather(*(reader.leave() for reader in leaving))
    # Nothing is handed on to nobody.
    await pair.until("cache", "joulegate_cache_flight_relays", 0)
    gate.set()
    assert (await leader.read_on()).text == TEXT
    assert await outcomes(pair, [leader, *leaving]) == {("FINISHED", 1): 1, ("CLIENT_LEFT", 0): 2}


@pytest.mark.parametrize("nothing", [error(500, "broken"), completion("Ener", choices=[{"message": {}, "finish_reason": "length"}])])
async def test_lead_that_came_to_nothing_holds_nobody_up(pair: Pair, lab: OpenAIUpstream, nothing: Reply) -> None:
    body = question(f"came to nothing {nothing.status}")
    lab.script(nothing, completion(TEXT))
    await pair.second.http.post(CHAT, json=body)
    answer = await pair.first.http.post(CHAT, json=body)
    assert answer.json()["choices"][0]["message"]["content"] == TEXT
    assert answer.headers["x-joulegate-cache"] == "miss"


async def test_cut_stream_is_cut_for_all(pair: Pair, lab: OpenAIUpstream) -> None:
    gate = asyncio.Event()
    lab.script(stream(*WORDS[:3], gate, Fault.RESET))
    readers = [await Reader(router, question("cut")).begin() for router in (pair.second, pair.first, pair.second, pair.first)]
    gate.set()
    for reader in await asyncio.gather(*(reader.read_on() for reader in readers)):
        assert b"[DONE]" not in reader.events
        assert b'"error"' in reader.events[-1]
    assert len(lab.calls) == 1
    assert await outcomes(pair, readers) == {("STREAM_CUT", 1): 1, ("STREAM_CUT", 0): 3}


async def test_refusal_of_the_provider_is_told_to_all(pair: Pair, lab: OpenAIUpstream) -> None:
    gate = asyncio.Event()
    refusal = error(422, "no such tool")
    lab.script(Reply(refusal.steps, refusal.status, refusal.headers, before=[gate]))
    asked = [asyncio.create_task(pair.second.http.post(CHAT, json=question("refused")))]
    await lab.arrived()
    asked += [asyncio.create_task(pair.first.http.post(CHAT, json=question("refused"))) for _ in range(3)]
    await pair.until("router", "joulegate_router_flight_listeners", 3)
    await pair.until("cache", "joulegate_cache_flight_relays", 1)
    gate.set()
    responses = await asyncio.gather(*asked)
    assert [response.status_code for response in responses] == [422] * 4
    assert_openai_error(responses[1], 422, "fake_error", None)
    assert len(lab.calls) == 1


async def test_router_that_is_told_to_stop_hands_its_answers_on_to_their_end(mortal: Pair, lab: OpenAIUpstream) -> None:
    gate = asyncio.Event()
    lab.script(growing(gate))
    leader = await Reader(mortal.second, question("stopped")).begin()
    follower = await Reader(mortal.first, question("stopped")).begin()
    await leader.leave()
    assert mortal.second.process is not None
    mortal.second.process.terminate()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(mortal.second.process.wait(), 1)
    gate.set()
    assert (await follower.read_on()).text == TEXT
    assert await asyncio.wait_for(mortal.second.process.wait(), PATIENCE_S) == 0
    assert len(lab.calls) == 1


async def test_without_a_cache_each_router_asks_for_itself(pair: Pair, lab: OpenAIUpstream) -> None:
    pid = pair.gateway.pids["cache"]
    restarts = len(pair.gateway.events("child_started"))
    os.kill(pid, signal.SIGKILL)
    gate = asyncio.Event()
    lab.always = lambda call: growing(gate)
    readers = await begun([pair.first] * 3 + [pair.second] * 3, question("no cache"))
    gate.set()
    await asyncio.gather(*(reader.read_on() for reader in readers))
    assert [reader.text for reader in readers] == [TEXT] * 6
    assert len(lab.calls) <= 2
    async with asyncio.timeout(PATIENCE_S):
        while len(pair.gateway.events("child_started")) == restarts:
            await asyncio.sleep(0.05)
    await until(pair.gateway, "cache", "joulegate_cache_flight_routers", lambda figure: figure == 2)
