"""Every fault of a provider, at every position, streamed or not, in every dialect: what the client sees, how often the provider was called,
and what the books say. The outcomes are those that docs/operations.md promises.

All cases run at once against one gateway: a fake finds its case by the prompt. Each test then looks at one case.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio

from services.router.tokens import count_text
from tests.fakes.dialects import DIALECTS, Dialect
from tests.fakes.upstream import Call, Fault, Reply, Step, Upstream, answer
from tests.mesh.asking import CHAT, events_of, http_client, question
from tests.mesh.gateway import ONE_PROCESS, Gateway, running

pytestmark = pytest.mark.asyncio(loop_scope="session")

FIRST, SECOND = "Hello", " world"
END = None  # the body ends as if all had been said
NONSENSE = b"data: <oops>\n\n<oops>\n\n"
TEXT, PROMPT_READ = re.compile(r"case:([\w/-]+)"), 1
AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is promised. `said` is the text that the client has before the error; None: an error instead of an answer."""

    status: int
    code: str | None
    calls: int
    books: str
    said: str | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One fault at one position."""

    position: str
    fault: str
    is_stream: bool
    outcome: Outcome

    @property
    def name(self) -> str:
        return f"{'stream' if self.is_stream else 'whole'}/{self.position}/{self.fault}"


FAULTS: Mapping[str, Step | None] = {"hang": Fault.HANG, "reset": Fault.RESET, "close": Fault.CLOSE, "end": END, "nonsense": NONSENSE}
UNREACHABLE = Outcome(502, "all_providers_failed", 2, "OUTCOME_FAILED")
SILENT = Outcome(504, "provider_timeout", 2, "OUTCOME_TIMED_OUT")
SENSELESS = Outcome(502, "all_providers_failed", 1, "OUTCOME_STREAM_CUT")
STATUSES = {
    "500": UNREACHABLE,
    "503": UNREACHABLE,
    "408": Outcome(502, "all_providers_failed", 2, "OUTCOME_TIMED_OUT"),
    "429": Outcome(429, "provider_rate_limit_exceeded", 2, "OUTCOME_FAILED"),
    "400": Outcome(400, None, 1, "OUTCOME_FAILED"),
    "401": Outcome(502, "all_providers_failed", 1, "OUTCOME_FAILED"),
}


def _cases() -> list[Case]:
    cases = []
    for is_stream in (True, False):
        cases += [Case("status", status, is_stream, outcome) for status, outcome in STATUSES.items()]
        cases += [Case("connect", "refused", is_stream, Outcome(502, "all_providers_failed", 0, "OUTCOME_FAILED"))]
        for fault, outcome in (("hang", SILENT), ("reset", UNREACHABLE), ("close", UNREACHABLE)):
            cases += [Case("headers", fault, is_stream, outcome), Case("before-first-token", fault, is_stream, outcome)]
        cases += [Case("before-first-token", fault, is_stream, SENSELESS) for fault in ("end", "nonsense")]
        for position in ("mid-answer", "last-chunk"):
            said = {"mid-answer": FIRST, "last-chunk": FIRST + SECOND}[position] if is_stream else None
            for fault in FAULTS:
                if fault == "hang":
                    outcome = Outcome(504, "provider_timeout", 1, "OUTCOME_TIMED_OUT", said)
                elif is_stream:
                    outcome = Outcome(502, "stream_cut", 1, "OUTCOME_STREAM_CUT", said)
                else:
                    outcome = SENSELESS
                cases.append(Case(position, fault, is_stream, outcome))
    return cases


CASES = _cases()


def _reply(dialect: Dialect, case: Case) -> Reply:
    if case.position == "status":
        return answer(dialect.words.error_body(int(case.fault), f"fault {case.fault}"), status=int(case.fault))
    fault = FAULTS[case.fault]
    if case.position == "headers":
        assert isinstance(fault, Fault)
        return Reply(before=[fault])
    if case.is_stream:
        parts = dialect.words.stream_parts(FIRST, SECOND)
        before = {
            "before-first-token": [],
            "mid-answer": [parts.opening + parts.pieces[0]],
            "last-chunk": [parts.opening + b"".join(parts.pieces), parts.ending[:12]],
        }[case.position]
        content_type = parts.content_type
    else:
        body, content_type = dialect.words.whole(FIRST + SECOND), "application/json"
        before = {"before-first-token": [], "mid-answer": [body[: len(body) // 2]], "last-chunk": [body[:-1]]}[case.position]
    steps: list[Step] = [*before] if fault is END else [*before, fault]
    return Reply(steps, headers={"content-type": content_type})


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of a case."""

    status: int
    body: bytes
    calls: int
    rows: list[dict[str, Any]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def seen(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mapping[str, Seen]]:
    async with AsyncExitStack() as stack:
        fakes = {dialect.kind: await stack.enter_async_context(dialect.upstream()) for dialect in DIALECTS}
        for dialect in DIALECTS:
            fakes[dialect.kind].always = _finder(dialect)
        tables = "".join(_table(dialect, fakes[dialect.kind]) for dialect in DIALECTS) + POLICY
        gateway = await stack.enter_async_context(running(tmp_path_factory.mktemp("faults"), ONE_PROCESS, tables))
        http = await stack.enter_async_context(http_client(gateway))
        turn = asyncio.Semaphore(AT_ONCE)
        names = [(dialect, case) for dialect in DIALECTS for case in CASES]
        results = await asyncio.gather(*(_run(turn, gateway, http, fakes[dialect.kind], dialect, case) for dialect, case in names))
        yield {_id(dialect, case): result for (dialect, case), result in zip(names, results, strict=True)}


def _finder(dialect: Dialect) -> Any:
    replies = {_id(dialect, case): _reply(dialect, case) for case in CASES if case.position != "connect"}
    return lambda call: replies[_asked(call)]


def _asked(call: Call) -> str:
    found = TEXT.search(call.body.decode())
    assert found is not None
    return found[1]


def _id(dialect: Dialect, case: Case) -> str:
    return f"{dialect.kind}/{case.name}"


# A machine that is busy with all cases at once must not take a working answer for a silent one.
_TIMEOUTS = "timeouts = { connect = 2, first_byte = 3, idle = 3, total = 6 }\n"
# So many faults at once are for the tests of the breaker and of the retry budget; here each case stands alone.
POLICY = "[retry]\nattempts = 2\nbudget = 1\nbudget_floor_per_second = 1000\n[breaker]\nfailures = 10000\nminimum_calls = 10000\n"


def _table(dialect: Dialect, fake: Upstream) -> str:
    def provider(name: str, base_url: str, model: str) -> str:
        kind = dialect.kind
        return f'[providers.{name}]\nkind = "{kind}"\nbase_url = "{base_url}"\nmodels = ["{model}"]\n{_TIMEOUTS}'

    dead = re.sub(r":\d+", ":1", fake.base_url)
    return provider(f"fake-{dialect.kind}", fake.base_url, dialect.kind) + provider(f"dead-{dialect.kind}", dead, f"dead-{dialect.kind}")


async def _run(turn: asyncio.Semaphore, gateway: Gateway, http: httpx.AsyncClient, fake: Upstream, dialect: Dialect, case: Case) -> Seen:
    model = f"dead-{dialect.kind}" if case.position == "connect" else dialect.kind
    name = _id(dialect, case)
    async with turn:
        response = await http.post(CHAT, json=question(f"case:{name}", model=model, stream=case.is_stream))
    rows = await gateway.settled_entries(response.headers["x-request-id"])
    calls = sum(_asked(call) == name for call in fake.calls)
    return Seen(response.status_code, response.content, calls, rows)


@pytest.mark.parametrize("dialect", DIALECTS, ids=[dialect.kind for dialect in DIALECTS])
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_a_fault_has_its_outcome(seen: Mapping[str, Seen], dialect: Dialect, case: Case) -> None:
    result, outcome = seen[_id(dialect, case)], case.outcome
    if outcome.said is None:
        assert result.status == outcome.status, result.body
        error = json.loads(result.body)["error"]
    else:
        assert result.status == 200
        *chunks, last = [json.loads(event) for event in events_of(result.body)]
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        assert "".join(choice["delta"].get("content") or "" for choice in choices) == outcome.said
        assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == []
        error = last["error"]
    assert error["code"] == outcome.code or outcome.code is None
    if case.position == "status" and outcome.code is None:
        assert f"fault {case.fault}" in error["message"]
    assert result.calls == outcome.calls


@pytest.mark.parametrize("dialect", DIALECTS, ids=[dialect.kind for dialect in DIALECTS])
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_a_fault_is_booked_with_what_the_provider_produced(seen: Mapping[str, Seen], dialect: Dialect, case: Case) -> None:
    result, outcome = seen[_id(dialect, case)], case.outcome
    # A closed port was knocked at as often as an open one would have been.
    assert len(result.rows) == (2 if case.position == "connect" else outcome.calls)
    assert {row["outcome"] for row in result.rows} == {outcome.books}
    was_read = outcome.books != "OUTCOME_FAILED"
    for row in result.rows:
        assert row["tokens_estimated"]
        assert (row["input_tokens"] > 0) == was_read
        assert row["output_tokens"] == count_text(outcome.said or "")
