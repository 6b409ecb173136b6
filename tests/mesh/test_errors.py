"""Every way a request can fail, as a client sees it over raw HTTP, and what the books say of it."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.fakes.openai_upstream import Fault, OpenAIUpstream, Reply, answer, chunk, completion, error, hang, reset, sse, stream, usage_json
from tests.mesh.asking import CHAT, assert_openai_error, chunks_of, http_client, question, text_of
from tests.mesh.gateway import Gateway

pytestmark = pytest.mark.asyncio(loop_scope="session")

INVALID = "invalid_request_error"
FAILED = "all_providers_failed"
LIMITED = "provider_rate_limit_exceeded"
PATIENCE_S = 30


@pytest_asyncio.fixture(loop_scope="session")
async def http(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with http_client(gateway) as client:
        yield client


BAD_BODIES: Mapping[str, tuple[bytes, str | None]] = {
    "nothing": (b"", None),
    "no JSON": (b'{"model": ', None),
    "no UTF-8": (b'{"model": "\xff"}', None),
    "NaN": (b'{"model": "small", "messages": [{"role": "user"}], "temperature": NaN}', None),
    "two documents": (b"{}{}", None),
    "an array": (b"[]", None),
    "a string": (b'"small"', None),
    "nested too deeply": (b'{"model": "small", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
    "no model": (b'{"messages": [{"role": "user", "content": "x"}]}', "model"),
    "empty model": (b'{"model": "", "messages": [{"role": "user", "content": "x"}]}', "model"),
    "model of a wrong type": (b'{"model": 7, "messages": [{"role": "user", "content": "x"}]}', "model"),
    "no messages": (b'{"model": "small"}', "messages"),
    "empty messages": (b'{"model": "small", "messages": []}', "messages"),
}


@pytest.mark.parametrize("case", BAD_BODIES)
async def test_body_that_is_no_request_is_refused(http: httpx.AsyncClient, case: str) -> None:
    body, param = BAD_BODIES[case]
    response = await http.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert_openai_error(response, 400, INVALID, None, param)


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"messages": "x"}, "messages"),
        ({"messages": [7]}, "messages[0]"),
        ({"messages": [{"role": 3}]}, "messages[0].role"),
        ({"messages": [{"role": "king"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 1.5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}, "messages[0].content[0].image_url"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"n": 2**31}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": True}, "stream_options"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"stop": 7}, "stop"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": []}}]}, "tools[0].function.name"),
        ({"user": {}}, "user"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_value_of_a_wrong_type_is_refused_by_its_name(http: httpx.AsyncClient, members: dict[str, Any], param: str) -> None:
    message = assert_openai_error(await http.post(CHAT, json=question(**members)), 400, INVALID, None, param)
    assert param in message


@pytest.mark.parametrize("header", [{"x-cache-ttl": "soon"}, {"cache-control": "max-age=-1"}, {"x-cache-namespace": "n" * 129}], ids=str)
async def test_wish_to_the_cache_that_makes_no_sense_is_refused_by_its_header(http: httpx.AsyncClient, header: dict[str, str]) -> None:
    assert_openai_error(await http.post(CHAT, json=question(), headers=header), 400, INVALID, None, next(iter(header)))


@pytest.mark.parametrize("model", ["nope", "nobody/small", "backup/small", "small/"])
async def test_unknown_model_is_not_found(http: httpx.AsyncClient, model: str) -> None:
    for streamed in (False, True):
        response = await http.post(CHAT, json=question(model=model, stream=streamed))
        assert model in assert_openai_error(response, 404, INVALID, "model_not_found", "model")


async def test_unknown_model_of_the_list_is_not_found(http: httpx.AsyncClient) -> None:
    assert_openai_error(await http.get("/v1/models/nope"), 404, INVALID, "model_not_found", "model")


@pytest.mark.parametrize(("method", "path", "allow"), [("GET", CHAT, "POST"), ("DELETE", CHAT, "POST"), ("POST", "/v1/models", "GET")])
async def test_wrong_method_is_told_the_right_one(http: httpx.AsyncClient, method: str, path: str, allow: str) -> None:
    response = await http.request(method, path)
    assert_openai_error(response, 405, INVALID, "method_not_allowed")
    assert response.headers["allow"] == allow


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat", "/nothing", "/v1/chat/completions/x"])
async def test_unknown_path_is_not_found(http: httpx.AsyncClient, path: str) -> None:
    assert_openai_error(await http.post(path, json={}), 404, INVALID, "not_found")


async def test_body_over_32_mebibytes_is_refused(http: httpx.AsyncClient) -> None:
    assert_openai_error(await http.post(CHAT, content=b" " * (33 << 20)), 413, INVALID, "request_too_large")


async def test_body_below_32_mebibytes_reaches_the_provider(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    lab.script(completion())
    text = "x" * (31 << 20)
    assert (await http.post(CHAT, json=question(text))).status_code == 200
    assert lab.calls[0].json["messages"][0]["content"] == text


async def test_only_if_cached_without_a_cached_answer_is_refused_without_a_call(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    response = await http.post(CHAT, json=question("Nobody has asked this"), headers={"cache-control": "only-if-cached"})
    assert_openai_error(response, 504, INVALID, "not_cached")
    assert not lab.calls


async def test_wrong_admin_key_is_refused(http: httpx.AsyncClient) -> None:
    response = await http.get("/api/admin/entries", headers={"authorization": "Bearer wrong"})
    assert_openai_error(response, 401, "authentication_error", "invalid_api_key")


@dataclass(frozen=True, slots=True)
class Expected:
    """What the client gets, and the outcome in the books."""

    status: int
    type: str
    code: str | None
    says: str
    param: str | None = None
    outcome: str = "OUTCOME_FAILED"
    headers: Mapping[str, str] = field(default_factory=dict)


PAGE = "<html><head><title>Bad gateway</title></head><body>secret</body></html>"
REFUSALS: Mapping[str, tuple[Reply, Expected]] = {
    "400": (
        error(400, "too hot", type=INVALID, param="temperature", code="range"),
        Expected(400, INVALID, "range", "too hot", "temperature"),
    ),
    "401": (error(401, "who are you", type="authentication_error"), Expected(502, FAILED, FAILED, "who are you")),
    "403": (error(403, "not you"), Expected(502, FAILED, FAILED, "not you")),
    "404 of the model": (error(404, "no such model"), Expected(404, "fake_error", "model_not_found", "no such model")),
    "404 of the path": (error(404, "wrong path"), Expected(502, FAILED, FAILED, "wrong path")),
    "422": (error(422, "no", code="c"), Expected(422, "fake_error", "c", "no")),
    "429": (error(429, "slow", {"retry-after": "7"}), Expected(429, "rate_limit_error", LIMITED, "slow", headers={"retry-after": "7"})),
    "429 in milliseconds": (
        error(429, "slow", {"retry-after-ms": "2500"}),
        Expected(429, "rate_limit_error", LIMITED, "slow", headers={"retry-after": "3"}),
    ),
    "500": (error(500, "boom"), Expected(502, FAILED, FAILED, "boom")),
    "503": (error(503, "overloaded"), Expected(502, FAILED, FAILED, "overloaded")),
    "a page": (answer(PAGE, status=502, content_type="text/html"), Expected(502, FAILED, FAILED, "Bad gateway")),
    "no body": (answer(b"", status=500), Expected(502, FAILED, FAILED, "HTTP 500")),
    "a page with 200": (answer(PAGE, content_type="text/html"), Expected(502, FAILED, FAILED, "lab", outcome="OUTCOME_STREAM_CUT")),
    "half a document": (answer('{"id": "x", '), Expected(502, FAILED, FAILED, "lab", outcome="OUTCOME_STREAM_CUT")),
    "an error with 200": (answer('{"error": {"message": "quota", "code": 402}}'), Expected(502, FAILED, FAILED, "quota")),
    "reset": (reset(), Expected(502, FAILED, FAILED, "broke before an answer")),
    "closed": (Reply(before=[Fault.CLOSE]), Expected(502, FAILED, FAILED, "broke before an answer")),
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("case", REFUSALS)
async def test_failure_of_the_provider_is_told_and_booked(
    http: httpx.AsyncClient, gateway: Gateway, lab: OpenAIUpstream, small_models: Iterator[str], case: str, streamed: bool
) -> None:
    reply, expected = REFUSALS[case]
    lab.script(reply)
    model = next(small_models) if reply.status == 429 else "small"
    response = await http.post(CHAT, json=question(model=model, stream=streamed))
    message = assert_openai_error(response, expected.status, expected.type, expected.code, expected.param)
    assert expected.says in message and "secret" not in message
    assert {name: response.headers.get(name) for name in expected.headers} == expected.headers
    (row,) = await gateway.settled_entries(response.headers["x-request-id"])
    assert (row["outcome"], row["attempt"], row["provider"], row["streamed"]) == (expected.outcome, 1, "lab", streamed)
    assert_took_at_most_the_prompt(row)


def assert_took_at_most_the_prompt(row: Mapping[str, Any]) -> None:
    """Who was silent, or answered with nonsense, has read the prompt and may bill for it; who refused has not."""
    assert (row["input_tokens"] > 0) is (row["cost_nano_usd"] > 0) is (row["outcome"] in ("OUTCOME_TIMED_OUT", "OUTCOME_STREAM_CUT"))
    assert row["output_tokens"] == 0


SLOW: Mapping[str, Sequence[Any]] = {"no headers": [], "no first event": [b": still here\n\n"]}


@pytest.mark.parametrize("case", SLOW)
async def test_stream_whose_first_event_does_not_come_is_a_timeout(
    http: httpx.AsyncClient, gateway: Gateway, lab: OpenAIUpstream, case: str
) -> None:
    steps = SLOW[case]
    lab.script(sse(*steps, Fault.HANG) if steps else hang())
    response = await http.post(CHAT, json=question(model="hasty", stream=True))
    assert_openai_error(response, 504, "server_error", "provider_timeout")
    await asyncio.wait_for(lab.calls[0].disconnected.wait(), 1)
    (row,) = await gateway.settled_entries(response.headers["x-request-id"])
    assert row["outcome"] == "OUTCOME_TIMED_OUT"


async def heals(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    """Makes the router know lab as healthy: earlier tests have let it fail, and who fails is asked last."""
    lab.script(completion())
    assert (await http.post(CHAT, json=question())).status_code == 200
    async with asyncio.timeout(PATIENCE_S):
        while "lab" not in (await http.get("/health")).json()["active_providers"]:
            await asyncio.sleep(0.01)
    lab.calls.clear()


FAILOVERS: Mapping[str, tuple[Reply, str]] = {
    "our key": (error(401, "bad key"), "OUTCOME_FAILED"),
    "unknown model": (error(404, "no such model"), "OUTCOME_FAILED"),
    "limit": (error(429, "slow", {"retry-after": "1"}), "OUTCOME_FAILED"),
    "fault": (error(500, "boom"), "OUTCOME_FAILED"),
    "reset": (reset(), "OUTCOME_FAILED"),
    "a page with 200": (answer(PAGE, content_type="text/html"), "OUTCOME_STREAM_CUT"),
}
STREAM_FAILOVERS: Mapping[str, tuple[Reply, str]] = {
    **FAILOVERS,
    "an error as the first event": (sse(b'data: {"error": {"message": "no"}}\n\n', Fault.HANG), "OUTCOME_FAILED"),
}


def assert_failed_over(rows: list[dict[str, Any]], outcome: str) -> None:
    seen = [(row["attempt"], row["provider"], row["outcome"]) for row in sorted(rows, key=lambda row: row["attempt"])]
    assert seen == [(1, "lab", outcome), (2, "backup", "OUTCOME_FINISHED")]
    failed, finished = sorted(rows, key=lambda row: row["attempt"])
    assert_took_at_most_the_prompt(failed)
    assert finished["output_tokens"] == 2


@pytest.mark.parametrize("case", FAILOVERS)
async def test_next_provider_answers_when_the_first_fails(
    http: httpx.AsyncClient, gateway: Gateway, lab: OpenAIUpstream, backup: OpenAIUpstream, shared_models: Iterator[str], case: str
) -> None:
    await heals(http, lab)
    reply, outcome = FAILOVERS[case]
    lab.script(reply)
    model = next(shared_models) if reply.status == 429 else "shared"
    backup.script(completion("from the backup", model="shared"))
    response = await http.post(CHAT, json=question(model=model))
    assert response.status_code == 200, response.text
    document = response.json()
    assert document["choices"][0]["message"]["content"] == "from the backup"
    assert (document["x-gateway"]["fallback_used"], document["x-gateway"]["provider"]) == (True, "backup")
    assert response.headers["x-joulegate-provider"] == "backup"
    assert_failed_over(await gateway.settled_entries(response.headers["x-request-id"], 2), outcome)


@pytest.mark.parametrize("case", STREAM_FAILOVERS)
async def test_next_provider_streams_when_the_first_fails_before_its_first_event(
    http: httpx.AsyncClient, gateway: Gateway, lab: OpenAIUpstream, backup: OpenAIUpstream, shared_models: Iterator[str], case: str
) -> None:
    await heals(http, lab)
    reply, outcome = STREAM_FAILOVERS[case]
    lab.script(reply)
    model = next(shared_models) if reply.status == 429 else "shared"
    backup.script(stream("from ", "the backup", model="shared"))
    response = await http.post(CHAT, json=question(model=model, stream=True))
    assert text_of(chunks_of(response.content)) == "from the backup"
    assert response.headers["x-joulegate-provider"] == "backup"
    assert_failed_over(await gateway.settled_entries(response.headers["x-request-id"], 2), outcome)


async def test_request_that_any_provider_would_refuse_is_not_tried_at_the_next(
    http: httpx.AsyncClient, lab: OpenAIUpstream, backup: OpenAIUpstream
) -> None:
    await heals(http, lab)
    lab.script(error(400, "too hot", code="range"))
    assert_openai_error(await http.post(CHAT, json=question(model="shared")), 400, "fake_error", "range")
    assert not backup.calls


async def test_all_providers_down_is_told_with_the_last_ones_words_and_both_are_booked(
    http: httpx.AsyncClient, gateway: Gateway, lab: OpenAIUpstream, backup: OpenAIUpstream
) -> None:
    await heals(http, lab)
    lab.script(error(500, "lab is down"))
    backup.script(error(503, "backup is down"))
    response = await http.post(CHAT, json=question(model="shared"))
    assert "backup is down" in assert_openai_error(response, 502, FAILED, FAILED)
    rows = await gateway.settled_entries(response.headers["x-request-id"], 2)
    assert sorted((row["attempt"], row["provider"], row["outcome"]) for row in rows) == [
        (1, "lab", "OUTCOME_FAILED"),
        (2, "backup", "OUTCOME_FAILED"),
    ]


async def test_all_providers_over_their_limits_say_the_shortest_wait(
    http: httpx.AsyncClient, lab: OpenAIUpstream, backup: OpenAIUpstream, shared_models: Iterator[str]
) -> None:
    await heals(http, lab)
    lab.script(error(429, "slow", {"retry-after": "9"}))
    backup.script(error(429, "slow", {"retry-after": "4"}))
    model = next(shared_models)
    response = await http.post(CHAT, json=question(model=model))
    assert_openai_error(response, 429, "rate_limit_error", LIMITED)
    assert response.headers["retry-after"] == "4"
    # Neither is called again before that.
    response = await http.post(CHAT, json=question(model=model))
    assert_openai_error(response, 429, "rate_limit_error", LIMITED)
    assert 1 <= int(response.headers["retry-after"]) <= 4
    assert (len(lab.calls), len(backup.calls)) == (1, 1)


@pytest.mark.parametrize("bound", [-1, 0, 2**62])
async def test_bound_that_makes_no_sense_is_the_providers_to_refuse_and_holds_up_nobody(
    http: httpx.AsyncClient, gateway: Gateway, lab: OpenAIUpstream, bound: int
) -> None:
    lab.script(error(400, "max_tokens", param="max_tokens"), completion())
    async with asyncio.timeout(3):  # the books are waited for longer than this
        assert_openai_error(await http.post(CHAT, json=question(max_tokens=bound)), 400, "fake_error", None, "max_tokens")
        response = await http.post(CHAT, json=question(max_tokens=bound))
    assert lab.calls[1].json["max_tokens"] == bound
    assert await gateway.settled_entries(response.headers["x-request-id"])


@pytest.mark.parametrize("count", [-1, 10**9 + 1, 2**62])
async def test_provider_that_lies_about_its_tokens_is_booked_by_our_count(
    http: httpx.AsyncClient, gateway: Gateway, lab: OpenAIUpstream, count: int
) -> None:
    lab.script(completion("Hello", usage=usage_json(5, count)))
    response = await http.post(CHAT, json=question())
    assert response.json()["usage"]["completion_tokens"] == count  # what it said is its own matter
    (row,) = await gateway.settled_entries(response.headers["x-request-id"])
    assert (row["outcome"], row["output_tokens"], row["tokens_estimated"]) == ("OUTCOME_FINISHED", 1, True)


async def test_chunks_that_come_with_the_failure_still_reach_the_client(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    lab.script(sse(chunk({"content": "a"}) + chunk({"content": "b"}) + b'data: {"error": {"message": "crashed"}}\n\n'))
    body = (await http.post(CHAT, json=question(stream=True))).text
    assert body.index('"a"') < body.index('"b"') < body.index("crashed")
    assert "[DONE]" not in body
