"""Whatever dies: answers are whole or say that they are not, the gateway comes back, and the books have each answer once."""

import asyncio
import json
import os
import random
import resource
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.fakes.openai_upstream import Call, OpenAIUpstream, Reply, completion, stream
from tests.mesh.asking import CHAT, assert_openai_error, question
from tests.mesh.gateway import ONE_PROCESS, PATIENCE_S, PROCESSES, Gateway, provider_table, running
from tests.postgresql import Server, text_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

CLIENTS = 16
# No answer may take longer, whatever dies: more than every deadline that is set below.
BOUND_S = 25
WORDS = ["one ", "two ", "three ", "four ", "five"]
TEXT = "".join(WORDS)
TOKEN_S = 0.02
# Answers that came after the return of the killed process before the load ends.
ENOUGH_AFTER = 40
ENOUGH_BEFORE = 80


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def crashing(
    request: pytest.FixtureRequest, upstreams: tuple[OpenAIUpstream, OpenAIUpstream], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateway]:
    """A gateway of its own, to be hurt."""
    tables = provider_table("lab", upstreams[0].base_url, ["small"]) + "[retry]\nattempts = 1\n"
    folder: Path = tmp_path_factory.mktemp("crashes")
    # Longer than a router that lives needs to find a ledger that was restarted.
    async with running(folder, request.param, tables, LEDGER_ORPHAN_GRACE_SECONDS="4", LEDGER_WAIT_SECONDS="10") as gateway:
        yield gateway


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def crashing_on_postgresql(
    upstreams: tuple[OpenAIUpstream, OpenAIUpstream], tmp_path_factory: pytest.TempPathFactory, postgresql_server: Server
) -> AsyncIterator[Gateway]:
    """Likewise, with its books on a server."""
    tables = provider_table("lab", upstreams[0].base_url, ["small"]) + "[retry]\nattempts = 1\n"
    folder: Path = tmp_path_factory.mktemp("crashes-postgresql")
    environment = {"LEDGER_DATABASE_URL": text_of(postgresql_server.new_database())}
    async with running(folder, PROCESSES, tables, LEDGER_ORPHAN_GRACE_SECONDS="4", LEDGER_WAIT_SECONDS="10", **environment) as gateway:
        yield gateway
        # All of the books were there.
        assert not list((folder / "data").glob("ledger.db*"))


@dataclass
class Asked:
    """One request of the load, and all that its client saw."""

    request_id: str
    is_stream: bool
    status: int = 0
    headers: httpx.Headers = field(default_factory=httpx.Headers)
    body: bytes = b""
    # The connection ended before the answer did.
    is_cut: bool = False

    @property
    def has_answer(self) -> bool:
        """Whether bytes of a provider's answer arrived."""
        return self.status == 200 and self.headers["x-joulegate-cache"] in ("miss", "bypass") and bool(self.body)

    @property
    def is_whole(self) -> bool:
        if self.status != 200 or self.is_cut:
            return False
        return self.body.endswith(b"data: [DONE]\n\n") if self.is_stream else True

    def check(self) -> None:
        """That this is an answer, an error as OpenAI's clients know it, or a cut that nobody can take for an end."""
        if self.status not in (0, 200):
            assert not self.is_cut
            check_error(json.loads(self.body))
            assert self.status in (502, 503, 504), self
        elif self.status == 200 and self.is_stream:
            self._check_stream()
        elif self.status == 200 and not self.is_cut:
            assert json.loads(self.body)["choices"][0]["message"]["content"] == TEXT

    def _check_stream(self) -> None:
        # A cut may go through the middle of an event.
        events = [event.removeprefix(b"data: ") for event in self.body.split(b"\n\n")[:-1]]
        chunks = [json.loads(event) for event in events if event != b"[DONE]"]
        errors = [chunk for chunk in chunks if "error" in chunk]
        choices = [choice for chunk in chunks for choice in chunk.get("choices", [])]
        text = "".join(choice["delta"].get("content") or "" for choice in choices)
        is_finished = any(choice["finish_reason"] for choice in choices)
        assert TEXT.startswith(text)
        assert not is_finished or text == TEXT
        assert (b"[DONE]" in events) <= (is_finished and not errors)
        for error in errors:
            check_error(error)
        assert self.is_whole or self.is_cut or errors, "the answer ended without a word"


def check_error(document: dict[str, Any]) -> None:
    assert document.keys() == {"error"}
    assert document["error"].keys() == {"message", "type", "param", "code"}
    assert document["error"]["type"] == "server_error"


class Load:
    """Clients that ask one question after the other until they are told to stop."""

    def __init__(self, gateway: Gateway, name: str) -> None:
        self._gateway = gateway
        self._name = name
        self._chance = random.Random(name)
        self._stop = asyncio.Event()
        self._news = asyncio.Event()
        self.asked: list[Asked] = []
        self.provided_count = 0

    async def __aenter__(self) -> "Load":
        self._clients = [asyncio.create_task(self._client(number)) for number in range(CLIENTS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._clients)

    async def answers(self, count: int) -> None:
        """Waits for so many more whole answers of the provider."""
        wanted = self.provided_count + count
        async with asyncio.timeout(PATIENCE_S):
            while self.provided_count < wanted:
                self._news.clear()
                await self._news.wait()
                for client in self._clients:
                    if client.done():
                        client.result()

    async def _client(self, number: int) -> None:
        async with httpx.AsyncClient(base_url=self._gateway.url, timeout=BOUND_S) as http:
            place = 0
            while not self._stop.is_set():
                place += 1
                asked = Asked(f"{self._name}-{number}-{place}", self._chance.random() < 0.5)
                self.asked.append(asked)
                # Some questions were asked before: hits are part of the load.
                text = f"{self._name} {self._chance.randint(1, 20) if self._chance.random() < 0.2 else asked.request_id}"
                async with asyncio.timeout(BOUND_S):
                    await self._ask(http, asked, question(text, stream=asked.is_stream))
                asked.check()
                self.provided_count += asked.has_answer and asked.is_whole
                self._news.set()
                if not asked.is_whole:
                    # Nobody hammers a closed door.
                    await asyncio.sleep(0.05)

    async def _ask(self, http: httpx.AsyncClient, asked: Asked, body: dict[str, Any]) -> None:
        try:
            async with http.stream("POST", CHAT, json=body, headers={"x-request-id": asked.request_id}) as response:
                asked.status, asked.headers = response.status_code, response.headers
                async for data in response.aiter_bytes():
                    asked.body += data
        except httpx.TransportError as error:
            assert not isinstance(error, httpx.TimeoutException), asked
            asked.is_cut = True


def paced(call: Call) -> Reply:
    """An answer that takes its time, as models do, so that there is a middle to be cut in."""
    if not call.json.get("stream"):
        return completion(TEXT)
    steps: list[Any] = []
    for place, word in enumerate(WORDS):
        turn = asyncio.Event()
        asyncio.get_running_loop().call_later(place * TOKEN_S, turn.set)
        steps += [turn, word]
    return stream(*steps)


async def is_healthy(gateway: Gateway) -> bool:
    try:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=5) as http:
            return (await http.get("/healthz")).status_code == 200
    except httpx.TransportError:
        return False


async def becomes(check: Callable[[], Any], wanted: object = True) -> None:
    """Waits until an asynchronous check gives what is wanted."""
    async with asyncio.timeout(PATIENCE_S):
        while await check() != wanted:
            await asyncio.sleep(0.02)


async def killed(gateway: Gateway, name: str) -> None:
    """Kills a process, and waits until its heir is there and the gateway is well."""
    old = gateway.pids[name]
    os.kill(old, signal.SIGKILL)
    async with asyncio.timeout(PATIENCE_S):
        while gateway.pids[name] == old:
            await asyncio.sleep(0.02)
    await becomes(lambda: is_healthy(gateway))


@pytest.mark.parametrize("victim", ["router", "cache", "dispatch", "ledger", "envoy"])
@pytest.mark.parametrize("crashing", [PROCESSES], indirect=True)
async def test_killed_process_comes_back_and_the_books_have_each_answer_once(crashing: Gateway, victim: str, lab: OpenAIUpstream) -> None:
    await survive(crashing, victim, lab)


@pytest.mark.parametrize("victim", ["all", "envoy"])
@pytest.mark.parametrize("crashing", [ONE_PROCESS], indirect=True)
async def test_killed_gateway_of_one_process_comes_back_likewise(crashing: Gateway, victim: str, lab: OpenAIUpstream) -> None:
    await survive(crashing, victim, lab)


@pytest.mark.parametrize("victim", ["router", "ledger"])
async def test_books_on_a_server_have_each_answer_once_likewise(crashing_on_postgresql: Gateway, victim: str, lab: OpenAIUpstream) -> None:
    await survive(crashing_on_postgresql, victim, lab)


async def survive(gateway: Gateway, victim: str, lab: OpenAIUpstream) -> None:
    """Kills a process under load, and checks what was promised of the answers and of the books."""
    lab.always = paced
    async with Load(gateway, f"{victim}-{gateway.process.pid}") as load:
        await load.answers(ENOUGH_BEFORE)
        await killed(gateway, victim)
        await load.answers(ENOUGH_AFTER)
    # Nobody notices the death of what an answer can do without for a while, and of the others somebody does, or there was no load.
    failed = [asked for asked in load.asked if not asked.is_whole]
    assert (failed == []) == (victim in ("cache", "ledger")), failed

    async def open_intents() -> int:
        return (await gateway.totals()).open_intent_count

    await becomes(open_intents, 0)
    rows = await gateway.entries()
    booked = Counter(row["request_id"] for row in rows)
    # One provider and one attempt: a request has one row.
    assert set(booked.values()) == {1}
    outcomes = {row["request_id"]: row["outcome"].removeprefix("OUTCOME_") for row in rows}
    answered = [asked for asked in load.asked if asked.has_answer]
    assert [asked.request_id for asked in answered if asked.request_id not in outcomes] == []
    assert {outcomes[asked.request_id] for asked in answered if asked.is_whole} == {"FINISHED"}
    assert {outcomes[asked.request_id] for asked in answered if not asked.is_whole} <= {"CLIENT_LEFT", "STREAM_CUT", "LOST", "FINISHED"}
    # Only a router takes what it knows with it.
    assert ("LOST" in {outcomes.get(asked.request_id) for asked in load.asked}) == (victim in ("router", "all"))
    totals = await gateway.totals()
    assert (totals.entry_count, totals.request_count) == (len(rows), len(booked))
    assert totals.output_tokens == sum(row["output_tokens"] for row in rows)


@dataclass(frozen=True)
class Patient:
    """A gateway in processes of which one can be kept down, and a client of it."""

    gateway: Gateway
    config: Path
    http: httpx.AsyncClient

    async def ask(self, text: str, **headers: str) -> httpx.Response:
        async with asyncio.timeout(BOUND_S):
            return await self.http.post(CHAT, json=question(text), headers=headers)

    async def keep(self, text: str) -> None:
        """Asks until the answer comes from the cache."""
        await becomes(lambda: self._hits(text))

    async def _hits(self, text: str) -> bool:
        answered = await self.ask(text)
        # Who has just been started may still be without its ledger.
        return answered.status_code == 200 and answered.headers["x-joulegate-cache"] == "hit-exact"

    async def answers(self) -> bool:
        """Whether a question that needs a provider is answered."""
        return (await self.ask("Are you well?", **{"cache-control": "no-store"})).status_code == 200

    @asynccontextmanager
    async def without(self, name: str) -> AsyncIterator[None]:
        """Kills dispatch or the ledger, and keeps each heir from starting while entered: what stands in their file makes no sense."""
        sense = self.config.read_text()
        self._configure("[[")
        try:
            os.kill(self.gateway.pids[name], signal.SIGKILL)
            await becomes(lambda: is_healthy(self.gateway), False)
            yield
        finally:
            self._configure(sense)
            await becomes(lambda: is_healthy(self.gateway))

    def _configure(self, text: str) -> None:
        """At once: an heir that starts meanwhile must not read half of it, or nothing."""
        whole = self.config.with_suffix(".new")
        whole.write_text(text)
        whole.replace(self.config)

    async def has_ledger(self) -> bool:
        """Whether the router has. Envoy, whose word /healthz is, may find out earlier."""
        return bool((await self.http.get("/health")).json()["ledger_connected"])


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ward(upstreams: tuple[OpenAIUpstream, OpenAIUpstream], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Patient]:
    tables = provider_table("lab", upstreams[0].base_url, ["small"]) + "[retry]\nattempts = 1\n"
    folder: Path = tmp_path_factory.mktemp("ward")
    # Every hit comes from the cache service, which may take its time, and every wait for the ledger is short.
    settings = {"NEAR_CACHE_TTL_SECONDS": "0", "CACHE_LOOKUP_TIMEOUT_SECONDS": "3", "LEDGER_WAIT_SECONDS": "1"}
    async with running(folder, PROCESSES, tables, **settings) as gateway, httpx.AsyncClient(base_url=gateway.url, timeout=BOUND_S) as http:
        yield Patient(gateway, folder / "joulegate.toml", http)


@pytest.fixture
def patient(ward: Patient, lab: OpenAIUpstream) -> Patient:
    """The gateway, with a provider that answers everything at once."""
    lab.always = lambda _: completion(TEXT)
    return ward


def assert_refused_for_the_books(response: httpx.Response) -> None:
    assert_openai_error(response, 503, "server_error", "ledger_unavailable")
    assert int(response.headers["retry-after"]) >= 1


async def test_without_the_ledger_no_provider_is_called_and_hits_are_served_and_booked_later(patient: Patient, lab: OpenAIUpstream) -> None:
    await patient.keep("kept before the ledger went")
    lab.calls.clear()
    async with patient.without("ledger"):
        await becomes(patient.has_ledger, False)
        began = time.monotonic()
        refused = await patient.ask("needs a provider")
        assert_refused_for_the_books(refused)
        # As it is set, and not the five seconds that it is without.
        assert 1 <= time.monotonic() - began < 5
        assert lab.calls == []
        hit = await patient.ask("kept before the ledger went")
        assert (hit.status_code, hit.headers["x-joulegate-cache"]) == (200, "hit-exact")
        health = (await patient.http.get("/health")).json()
        assert (health["status"], health["ledger_connected"], health["total_requests"]) == ("degraded", False, None)
    await becomes(patient.answers)
    [row] = await patient.gateway.settled_entries(hit.headers["x-request-id"])
    assert row["outcome"] == "OUTCOME_CACHE_HIT"
    assert await patient.gateway.entries(refused.headers["x-request-id"]) == []


async def test_when_the_books_cannot_grow_answers_are_withheld_and_hits_served_and_all_is_booked_when_they_can(patient: Patient) -> None:
    await patient.keep("kept before the disk was full")
    ledger = patient.gateway.pids["ledger"]
    unlimited = resource.prlimit(ledger, resource.RLIMIT_FSIZE)
    resource.prlimit(ledger, resource.RLIMIT_FSIZE, (0, unlimited[1]))
    try:
        refused = await patient.ask("needs a row")
        assert_refused_for_the_books(refused)
        hit = await patient.ask("kept before the disk was full")
        assert (hit.status_code, hit.headers["x-joulegate-cache"]) == (200, "hit-exact")
        assert await patient.gateway.entries(refused.headers["x-request-id"]) == []
    finally:
        resource.prlimit(ledger, resource.RLIMIT_FSIZE, unlimited)
    await becomes(patient.answers)
    [row] = await patient.gateway.settled_entries(hit.headers["x-request-id"])
    assert row["outcome"] == "OUTCOME_CACHE_HIT"
    # The provider was called meanwhile, and will send its bill.
    [row] = await patient.gateway.settled_entries(refused.headers["x-request-id"])
    assert (row["input_tokens"], row["output_tokens"], row["tokens_estimated"]) == (5, 2, False)
    assert patient.gateway.pids["ledger"] == ledger


async def test_without_dispatch_requests_are_refused_and_hits_served(patient: Patient, lab: OpenAIUpstream) -> None:
    await patient.keep("kept before dispatch went")
    lab.calls.clear()
    async with patient.without("dispatch"):
        refused = await patient.ask("needs a provider, which needs dispatch")
        assert_openai_error(refused, 503, "server_error", "service_unavailable")
        assert (await patient.http.get("/healthz")).status_code == 503
        hit = await patient.ask("kept before dispatch went")
        assert (hit.status_code, hit.headers["x-joulegate-cache"]) == (200, "hit-exact")
        assert lab.calls == []
    await becomes(patient.answers)
    [row] = await patient.gateway.settled_entries(refused.headers["x-request-id"])
    assert (row["outcome"], row["cost_nano_usd"], row["energy_microjoules"]) == ("OUTCOME_FAILED", 0, 0)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP], ids=["dead", "frozen"])
async def test_without_the_cache_every_question_is_a_miss(patient: Patient, signum: signal.Signals) -> None:
    text = f"kept before the cache got signal {signum}"
    await patient.keep(text)
    cache = patient.gateway.pids["cache"]
    os.kill(cache, signum)
    try:
        answered = await patient.ask(text)
        assert (answered.status_code, answered.headers["x-joulegate-cache"]) == (200, "miss")
        assert (await patient.http.get("/healthz")).status_code == 200
    finally:
        if signum == signal.SIGSTOP:
            os.kill(cache, signal.SIGCONT)
    await patient.keep(f"kept after signal {signum}")
