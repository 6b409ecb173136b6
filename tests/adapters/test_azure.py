"""Azure's way of serving OpenAI's dialect: paths, header, errors and filters; its judge is OpenAI's SDK for Azure."""

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from yarl import URL

from services.dispatch.adapters.azure import AzureAdapter
from services.dispatch.failure import Kind
from tests.adapters.golden import ROOT
from tests.adapters.reading import check_case, read, request_of
from tests.fakes.azure_upstream import AzureUpstream, error_body, filter_error, stream_parts, whole
from tests.fakes.upstream import answer, sse

DATED = AzureAdapter("2024-10-21", {"small": "prod small"})
NEWEST = AzureAdapter()
SSE = "text/event-stream"
USER = [{"role": "user", "content": "Hi"}]
STREAM = {"stream": True, "messages": USER}
PARTS = stream_parts("Hel", "lo!")
ANSWER = PARTS.opening + b"".join(PARTS.pieces) + PARTS.ending


@pytest.mark.parametrize(
    ("adapter", "path", "models_path"),
    [
        (DATED, "/openai/deployments/prod%20small/chat/completions?api-version=2024-10-21", "/openai/models?api-version=2024-10-21"),
        (NEWEST, "/openai/v1/chat/completions", "/openai/v1/models"),
        (AzureAdapter("preview"), "/openai/v1/chat/completions?api-version=preview", "/openai/v1/models?api-version=preview"),
    ],
)
def test_the_version_says_where_the_api_is(adapter: AzureAdapter, path: str, models_path: str) -> None:
    assert (adapter.encode(request_of({}), "small").path, adapter.models_path) == (path, models_path)


def test_the_key_has_a_header_of_its_own() -> None:
    assert NEWEST.authorization("k") == {"api-key": "k"}


def test_a_model_is_asked_by_the_name_of_its_deployment() -> None:
    assert json.loads(DATED.encode(request_of({}), "small").body)["model"] == "prod small"
    assert json.loads(DATED.encode(request_of({}), "large").body)["model"] == "large"


@pytest.mark.parametrize(
    ("version", "is_asked"),
    [("2023-05-15", False), ("2024-08-01-preview", False), ("2024-09-01-preview", True), ("2024-10-21", True), ("v1", True)],
)
def test_usage_of_a_stream_is_asked_of_versions_that_understand(version: str, is_asked: bool) -> None:
    for options in ({}, {"stream_options": {"include_usage": False}}):
        body = json.loads(AzureAdapter(version).encode(request_of(STREAM | options), "small").body)
        assert body.get("stream_options") == ({"include_usage": True} if is_asked else None)


@pytest.mark.parametrize("model", ["../../admin?x=", "a/b", "ä#?&", "%2e%2e"])
def test_a_models_name_cannot_leave_its_place_in_the_path(model: str) -> None:
    wire = DATED.encode(request_of({}), model)
    url = URL("https://x.test" + wire.path)
    assert url.raw_path.startswith("/openai/deployments/") and url.raw_path.endswith("/chat/completions")
    assert (len(url.raw_parts), dict(url.query)) == (6, {"api-version": "2024-10-21"})


def test_what_the_filters_found_stays_in_the_answer() -> None:
    events, failure = read(NEWEST, request_of(STREAM), [ANSWER], SSE)
    assert failure is None
    assert not events[0].chunk.choices and b"prompt_filter_results" in events[0].chunk.extra_json
    assert b"content_filter_results" in events[2].chunk.choices[0].extra_json
    said, _ = read(NEWEST, request_of({}), [whole("Hello!")], "application/json")
    assert b"prompt_filter_results" in said[0].completion.extra_json


def test_a_filtered_prompt_is_refused_in_azures_words() -> None:
    failure = NEWEST.decode_error(400, filter_error())
    assert (failure.kind, failure.code, failure.param) == (Kind.REFUSED, "content_filter", "prompt")
    assert failure.message == "The response was filtered. (ResponsibleAIPolicyViolation: hate high)"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"m","innererror":3}}', "m"),
        (b'{"error":{"message":"m","innererror":{"content_filter_result":[1]}}}', "m"),
        (b'{"error":{"message":"m","innererror":{"code":"c","content_filter_result":{"x":{"filtered":true},"y":null}}}}', "m (c: x)"),
        (b'{"error":"m"}', "m"),
        (b'{"statusCode":401,"message":"Access denied"}', "Access denied"),
        (b"<html><title>503</title></html>", "503"),
    ],
)
def test_errors_of_any_shape_are_understood(body: bytes, message: str) -> None:
    assert NEWEST.decode_error(418, body).message == message


# --- golden files ---

CASES: dict[str, tuple[dict[str, Any], bytes]] = {
    "text": (STREAM, ANSWER),
    "whole": ({"messages": USER, "max_tokens": 9}, whole("Hello!")),
    "cut": (STREAM, PARTS.opening + PARTS.pieces[0] + PARTS.pieces[1][:40]),
    "filtered": (STREAM, PARTS.opening + b"data: " + filter_error() + b"\n\n"),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    body, said = CASES[name]
    check_case(ROOT / "azure" / name, DATED, body, said, SSE if body.get("stream") else "application/json")


# --- OpenAI's SDK as the judge ---


@pytest.fixture
async def fake() -> AsyncIterator[AzureUpstream]:
    async with AzureUpstream() as upstream:
        yield upstream


@pytest.fixture
async def client(fake: AzureUpstream) -> AsyncIterator[openai.AsyncAzureOpenAI]:
    async with openai.AsyncAzureOpenAI(azure_endpoint=fake.base_url, api_key="k", api_version="2024-10-21", max_retries=0) as client:
        yield client


async def test_the_sdk_reads_the_fakes_answers(fake: AzureUpstream, client: openai.AsyncAzureOpenAI) -> None:
    fake.script(answer(whole("Hello!")), sse(ANSWER), answer(filter_error(), status=400), answer(error_body(429, "slow"), status=429))
    said = await client.chat.completions.create(model="d", messages=[{"role": "user", "content": "Hi"}])
    assert said.choices[0].message.content == "Hello!"
    parts = [
        part async for part in await client.chat.completions.create(model="d", messages=[{"role": "user", "content": "Hi"}], stream=True)
    ]
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == "Hello!"
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model="d", messages=[{"role": "user", "content": "Hi"}])
    assert refused.value.code == "content_filter"
    with pytest.raises(openai.RateLimitError):
        await client.chat.completions.create(model="d", messages=[{"role": "user", "content": "Hi"}])
    assert [model.id async for model in await client.models.list()] == ["small", "large"]
    assert [call.path for call in fake.listings] == [DATED.models_path]


async def test_the_sdk_calls_as_we_do(fake: AzureUpstream, client: openai.AsyncAzureOpenAI) -> None:
    fake.script(answer(whole("Hello!")))
    await client.chat.completions.create(model="prod small", messages=[{"role": "user", "content": "Hi"}], seed=7)
    call = fake.calls[0]
    wire = DATED.encode(request_of({"seed": 7}), "small")
    assert (call.path, call.headers["api-key"], call.json) == (wire.path, "k", json.loads(wire.body))
