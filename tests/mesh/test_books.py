"""Every way a request can end leaves exactly its rows in the books, and the sums are those of the rows."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.fakes.openai_upstream import Fault, OpenAIUpstream, Reply, answer, completion, completion_json, error, hang, stream
from tests.mesh.asking import CHAT, assert_openai_error, chunks_of, question
from tests.mesh.gateway import ONE_PROCESS, PATIENCE_S, PROCESSES, Gateway, provider_table, running

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Not a whole number of nano-dollars a token: the sum must be rounded once.
INPUT_USD, OUTPUT_USD = Decimal("0.0375"), Decimal("12.5")
PRICES = "".join(
    f'[[models]]\nprovider = "{provider}"\nmodel = "small"\ninput_usd_per_million = {INPUT_USD}\noutput_usd_per_million = {OUTPUT_USD}\n'
    for provider in ("lab", "backup")
)
NO_STORE = {"cache-control": "no-store"}
BEARER = {"authorization": "Bearer sk-of-the-books"}


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=[PROCESSES, ONE_PROCESS])
async def priced(
    request: pytest.FixtureRequest, upstreams: tuple[OpenAIUpstream, OpenAIUpstream], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateway]:
    """A gateway whose model `small` has a price, at `lab` and, when that fails, at `backup`."""
    tables = "".join(
        provider_table(name, upstream.base_url, ["small"], patience_s=5)
        for name, upstream in zip(("lab", "backup"), upstreams, strict=True)
    )
    folder: Path = tmp_path_factory.mktemp("books")
    # A lookup that is slow on a busy machine is still a lookup.
    async with running(folder, request.param, tables + PRICES + "[retry]\nattempts = 1\n", CACHE_LOOKUP_TIMEOUT_SECONDS="10") as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="session")
async def http(priced: Gateway, lab: OpenAIUpstream, backup: OpenAIUpstream) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway that takes both providers for healthy, so that `lab` is tried first whatever the test before did to it."""
    async with httpx.AsyncClient(base_url=priced.url, timeout=30, headers=BEARER) as client:
        async with asyncio.timeout(PATIENCE_S):
            while (health := (await client.get("/health")).json())["status"] != "healthy":
                for upstream, name in ((lab, "lab"), (backup, "backup")):
                    if not health["providers"].get(name, {"healthy": True})["healthy"]:
                        upstream.script(completion())
                        await client.post(CHAT, json=question(model=f"{name}/small"), headers=NO_STORE)
                await asyncio.sleep(0.01)
        lab.forget()
        backup.forget()
        yield client


def cost(input_tokens: int, output_tokens: int) -> int:
    """What so many tokens cost, in nano-dollars."""
    return int((1000 * (input_tokens * INPUT_USD + output_tokens * OUTPUT_USD)).to_integral_value(ROUND_HALF_UP))


async def read_all(response: httpx.Response) -> None:
    await response.aread()


async def read_until_it_breaks(response: httpx.Response) -> None:
    body = await response.aread()
    assert b'"error"' in body
    assert b"[DONE]" not in body


async def leave_after_hello(response: httpx.Response) -> None:
    received = b""
    async for data in response.aiter_bytes():
        received += data
        if b"Hello" in received:
            return


@dataclass(frozen=True)
class Row:
    """What a test expects of a row; None for tokens that were counted and not reported."""

    provider: str
    outcome: str
    input_tokens: int | None = 0
    output_tokens: int | None = 0


@dataclass(frozen=True)
class Ending:
    """One way for a request to end."""

    lab: Reply
    rows: Sequence[Row]
    backup: Reply | None = None
    body: dict[str, Any] = field(default_factory=dict)
    read: Callable[[httpx.Response], Awaitable[None]] = read_all
    status: int = 200


STREAM = {"stream": True}
UNCOUNTED = {name: value for name, value in completion_json("Hello there").items() if name != "usage"}
ENDINGS = {
    "finished": Ending(completion(prompt_tokens=1001, completion_tokens=77), [Row("lab", "FINISHED", 1001, 77)]),
    "finished stream": Ending(stream("Hello"), [Row("lab", "FINISHED", 5, 2)], body=STREAM),
    "finished without usage": Ending(answer(json.dumps(UNCOUNTED)), [Row("lab", "FINISHED", None, None)]),
    "finished stream without usage": Ending(stream("Hello", usage=False), [Row("lab", "FINISHED", None, None)], body=STREAM),
    "client left": Ending(stream("Hello", Fault.HANG), [Row("lab", "CLIENT_LEFT", None, None)], body=STREAM, read=leave_after_hello),
    "stream cut": Ending(stream("Hello", Fault.RESET), [Row("lab", "STREAM_CUT", None, None)], body=STREAM, read=read_until_it_breaks),
    "stream stalled": Ending(stream("Hello", Fault.HANG), [Row("lab", "TIMED_OUT", None, None)], body=STREAM, read=read_until_it_breaks),
    "failed over": Ending(
        error(500, "broken"), [Row("lab", "FAILED"), Row("backup", "FINISHED", 9, 3)], completion(prompt_tokens=9, completion_tokens=3)
    ),
    "failed over from silence": Ending(hang(), [Row("lab", "TIMED_OUT", None), Row("backup", "FINISHED", 5, 2)], stream("Hello"), STREAM),
    "all failed": Ending(error(500, "broken"), [Row("lab", "FAILED"), Row("backup", "FAILED")], error(503, "broken too"), status=502),
    "refused": Ending(error(400, "no such parameter"), [Row("lab", "FAILED")], status=400),
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS.keys())
async def test_each_ending_leaves_its_rows(
    ending: Ending, priced: Gateway, http: httpx.AsyncClient, lab: OpenAIUpstream, backup: OpenAIUpstream
) -> None:
    lab.script(ending.lab)
    if ending.backup is not None:
        backup.script(ending.backup)
    async with http.stream("POST", CHAT, json=question(**ending.body), headers=NO_STORE) as response:
        assert response.status_code == ending.status
        await ending.read(response)
    rows = await priced.settled_entries(response.headers["x-request-id"], len(ending.rows))
    assert len(rows) == len(ending.rows)
    for number, (row, expected) in enumerate(zip(reversed(rows), ending.rows, strict=True), start=1):
        assert (row["attempt"], row["provider"], row["outcome"]) == (number, expected.provider, f"OUTCOME_{expected.outcome}")
        check_row(row, expected, bool(ending.body))


def check_row(row: dict[str, Any], expected: Row, is_streamed: bool) -> None:
    """That a row's figures are in keeping with its ending and with each other."""
    assert (row["requested_model"], row["model"], row["streamed"]) == ("small", "small", is_streamed)
    assert row["cache_status"] == "CACHE_STATUS_BYPASS"
    assert row["key_id"] and "sk-" not in row["key_id"]
    for name in ("input_tokens", "output_tokens"):
        count = getattr(expected, name)
        assert row[name] > 0 if count is None else row[name] == count
    assert row["tokens_estimated"] == (not expected.input_tokens)
    assert (row["cost_nano_usd"], row["cost_basis"]) == (cost(row["input_tokens"], row["output_tokens"]), "COST_BASIS_LIST")
    assert row["energy_low_microjoules"] <= row["energy_microjoules"] <= row["energy_high_microjoules"]
    assert (row["energy_microjoules"] > 0) == (row["carbon_micrograms"] > 0) == (expected.input_tokens != 0)
    assert (row["saved_cost_nano_usd"], row["saved_energy_microjoules"]) == (0, 0)


async def test_client_is_told_what_is_booked(priced: Gateway, http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    lab.script(completion(prompt_tokens=1001, completion_tokens=77), stream("Hello"))
    whole = await http.post(CHAT, json=question(), headers=NO_STORE)
    body = question(stream=True, stream_options={"include_usage": True})
    streamed = await http.post(CHAT, json=body, headers=NO_STORE)
    [row] = await priced.entries(whole.headers["x-request-id"])
    assert Decimal(whole.headers["x-joulegate-cost-usd"]) * 10**9 == row["cost_nano_usd"] == cost(1001, 77)
    assert Decimal(whole.headers["x-joulegate-energy-joules"]) * 10**6 == row["energy_microjoules"]
    [row] = await priced.entries(streamed.headers["x-request-id"])
    figures = chunks_of(streamed.content)[-1]["x-joulegate"]
    assert round(figures["cost_usd"] * 10**9) == row["cost_nano_usd"] == cost(5, 2)
    assert round(figures["energy_joules"] * 10**6) == row["energy_microjoules"]


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
async def test_cache_hit_costs_nothing_and_saves_what_its_answer_took(
    priced: Gateway, http: httpx.AsyncClient, lab: OpenAIUpstream, is_streamed: bool
) -> None:
    lab.script(completion(prompt_tokens=333, completion_tokens=55))
    body = question(f"What is saved by a hit that is streamed={is_streamed}?")
    first = await http.post(CHAT, json=body)
    hit = await http.post(CHAT, json=body | {"stream": is_streamed})
    assert (first.headers["x-joulegate-cache"], hit.headers["x-joulegate-cache"]) == ("miss", "hit-exact")
    [made] = await priced.settled_entries(first.headers["x-request-id"])
    [row] = await priced.settled_entries(hit.headers["x-request-id"])
    assert (made["cost_nano_usd"], made["cache_status"]) == (cost(333, 55), "CACHE_STATUS_MISS")
    assert (row["attempt"], row["outcome"], row["cache_status"]) == (0, "OUTCOME_CACHE_HIT", "CACHE_STATUS_HIT_EXACT")
    assert (row["provider"], row["model"], row["streamed"], row["key_id"]) == ("lab", "small", is_streamed, made["key_id"])
    assert (row["input_tokens"], row["output_tokens"]) == (333, 55)
    assert (row["cost_nano_usd"], row["cost_basis"]) == (0, "COST_BASIS_FREE")
    assert row["saved_cost_nano_usd"] == made["cost_nano_usd"]
    assert row["saved_energy_microjoules"] == made["energy_microjoules"] - row["energy_microjoules"]
    assert 0 < row["energy_microjoules"] < made["energy_microjoules"]
    if not is_streamed:
        # The client is told what is booked.
        assert Decimal(hit.headers["x-joulegate-energy-joules"]) * 10**6 == row["energy_microjoules"]
        assert hit.json()["x-gateway"]["energy_basis"] == row["energy_basis"].removeprefix("ENERGY_BASIS_").lower()


async def test_requests_that_share_an_id_are_booked_each_and_told_it(priced: Gateway, http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    name = f"mine-{'processes' if 'ledger' in priced.pids else 'one'}"
    headers = {"x-request-id": name}
    release = asyncio.Event()
    lab.script(completion(), *(Reply([json.dumps(completion_json("Hi")).encode()], before=[release]) for _ in range(2)))
    answers = [await http.post(CHAT, json=question(), headers=headers | NO_STORE)]
    at_once = [asyncio.create_task(http.post(CHAT, json=question(), headers=headers | NO_STORE)) for _ in range(2)]
    await lab.arrived(3)
    release.set()
    answers += await asyncio.gather(*at_once)
    assert [answer.headers["x-request-id"] for answer in answers] == [name] * 3
    rows = await priced.settled_entries(name, 3)
    assert len({row["request_id"] for row in rows}) == len(rows) == 3
    assert all(row["request_id"].partition("~")[0] == name for row in rows)
    assert [(row["outcome"], row["cost_nano_usd"]) for row in rows] == [("OUTCOME_FINISHED", cost(5, 2))] * 3


async def test_sums_are_exactly_those_of_the_rows(priced: Gateway, http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    lab.script(completion(prompt_tokens=123_457, completion_tokens=7), error(400, "no"), completion(prompt_tokens=1, completion_tokens=1))
    await http.post(CHAT, json=question("sums"))
    await http.post(CHAT, json=question("refused"))
    await http.post(CHAT, json=question("small change"))
    hit = await http.post(CHAT, json=question("sums"))
    await priced.settled_entries(hit.headers["x-request-id"])
    rows = await priced.entries()
    sums = Counter[str]()
    for row in rows:
        sums.update({name: value for name, value in row.items() if isinstance(value, int)})
    totals = await priced.totals()
    summed = ("input_tokens", "output_tokens", "cost_nano_usd", "saved_cost_nano_usd", "energy_microjoules", "saved_energy_microjoules")
    assert {name: getattr(totals, name) for name in summed} == {name: sums[name] for name in summed}
    assert (totals.carbon_micrograms, totals.open_intent_count) == (sums["carbon_micrograms"], 0)
    assert (totals.request_count, totals.entry_count) == (len({row["request_id"] for row in rows}), len(rows))
    assert totals.cache_hit_count == sum(row["attempt"] == 0 for row in rows) > 0
    summary = (await http.get("/")).json()
    assert (summary["requests_served"], summary["cache_hits"]) == (totals.request_count, totals.cache_hit_count)
    for name, value, unit in (
        ("cost_usd", totals.cost_nano_usd, 10**9),
        ("cost_saved_usd", totals.saved_cost_nano_usd, 10**9),
        ("energy_spent_joules", totals.energy_microjoules, 10**6),
        ("energy_saved_joules", totals.saved_energy_microjoules, 10**6),
        ("carbon_grams", totals.carbon_micrograms, 10**6),
    ):
        assert round(summary[name] * unit) == value > 0, name


async def test_pages_show_each_row_once_while_others_are_booked(priced: Gateway, http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    lab.always = lambda _: completion()
    for _ in range(5):
        await http.post(CHAT, json=question(), headers=NO_STORE)
    before = [(row["request_id"], row["attempt"]) for row in await priced.entries()]
    seen, token = [], ""
    for _ in range(len(before)):
        page = await admin_page(priced, page_size="2", page_token=token)
        seen += [(row["request_id"], row["attempt"]) for row in page["entries"]]
        token = page["next_page_token"]
        if not token:
            break
        await http.post(CHAT, json=question(), headers=NO_STORE)
    assert seen == before


async def admin_page(gateway: Gateway, **parameters: str) -> Any:
    async with gateway.admin() as http:
        return (await http.get("/api/admin/entries", params=parameters)).raise_for_status().json()


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Basic d3Jvbmc="])
async def test_wrong_admin_key_reads_nothing(priced: Gateway, authorization: str | None) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    async with httpx.AsyncClient(base_url=priced.url) as http:
        refused = await http.get("/api/admin/entries", headers=headers)
    assert_openai_error(refused, 401, "authentication_error", "invalid_api_key")


async def test_books_are_closed_to_all_until_there_is_an_admin_key(tmp_path: Path) -> None:
    async with running(tmp_path, ONE_PROCESS, "", ADMIN_API_KEY="") as gateway, gateway.admin() as http:
        refused = await http.get("/api/admin/entries")
    assert_openai_error(refused, 403, "permission_error", "permission_denied")
