"""The official Python SDK, synchronous and asynchronous, gets from the gateway what it gets from OpenAI."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import openai
import pytest
import pytest_asyncio
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from tests.fakes.openai_upstream import Fault, OpenAIUpstream, Reply, answer, chunk, completion, completion_json, error, event, sse, stream
from tests.mesh.asking import UNCACHED, chunks_of, question, text_of
from tests.mesh.conftest import listed_models
from tests.mesh.gateway import ADMIN_KEY, Gateway

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEY = "sk-of-the-sdk-tests"
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place",
        "strict": True,
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"], "additionalProperties": False},
    },
}
LOGPROBS = {"content": [{"token": "Hi", "logprob": -0.25, "bytes": [72, 105], "top_logprobs": [{"token": "Hi", "logprob": -0.25}]}]}


Headers = Mapping[str, str]


class Sdk(Protocol):
    """One face of the SDK; arguments are those of `chat.completions.create`."""

    async def whole(self, **arguments: Any) -> tuple[Headers, ChatCompletion]: ...
    async def chunks(self, **arguments: Any) -> tuple[Headers, list[ChatCompletionChunk]]: ...
    async def raw_stream(self, **arguments: Any) -> bytes: ...
    async def parse(self, **arguments: Any) -> Any: ...
    async def models(self) -> list[str]: ...
    async def model(self, name: str) -> Any: ...


@dataclass(frozen=True, slots=True)
class Asynchronous:
    client: openai.AsyncOpenAI

    async def whole(self, **arguments: Any) -> tuple[Headers, ChatCompletion]:
        raw = await self.client.chat.completions.with_raw_response.create(**arguments)
        return raw.headers, raw.parse()

    async def chunks(self, **arguments: Any) -> tuple[Headers, list[ChatCompletionChunk]]:
        raw: Any = await self.client.chat.completions.with_raw_response.create(stream=True, **arguments)
        return raw.headers, [piece async for piece in raw.parse()]

    async def raw_stream(self, **arguments: Any) -> bytes:
        async with self.client.chat.completions.with_streaming_response.create(stream=True, **arguments) as response:
            return b"".join([data async for data in response.iter_bytes()])

    async def parse(self, **arguments: Any) -> Any:
        return await self.client.chat.completions.parse(**arguments)

    async def models(self) -> list[str]:
        return [model.id async for model in self.client.models.list()]

    async def model(self, name: str) -> Any:
        return await self.client.models.retrieve(name)


@dataclass(frozen=True, slots=True)
class Synchronous:
    """In a thread: the fake provider lives on this one's event loop."""

    client: openai.OpenAI

    async def whole(self, **arguments: Any) -> tuple[Headers, ChatCompletion]:
        create: Callable[..., Any] = self.client.chat.completions.with_raw_response.create
        raw = await asyncio.to_thread(create, **arguments)
        return raw.headers, raw.parse()

    async def chunks(self, **arguments: Any) -> tuple[Headers, list[ChatCompletionChunk]]:
        def read() -> tuple[Headers, list[ChatCompletionChunk]]:
            raw: Any = self.client.chat.completions.with_raw_response.create(stream=True, **arguments)
            return raw.headers, list(raw.parse())

        return await asyncio.to_thread(read)

    async def raw_stream(self, **arguments: Any) -> bytes:
        def read() -> bytes:
            with self.client.chat.completions.with_streaming_response.create(stream=True, **arguments) as response:
                return b"".join(response.iter_bytes())

        return await asyncio.to_thread(read)

    async def parse(self, **arguments: Any) -> Any:
        parse: Callable[..., Any] = self.client.chat.completions.parse
        return await asyncio.to_thread(parse, **arguments)

    async def models(self) -> list[str]:
        return await asyncio.to_thread(lambda: [model.id for model in self.client.models.list()])

    async def model(self, name: str) -> Any:
        return await asyncio.to_thread(self.client.models.retrieve, name)


@pytest_asyncio.fixture(loop_scope="session", params=["async", "sync"])
async def sdk(request: pytest.FixtureRequest, gateway: Gateway) -> AsyncIterator[Sdk]:
    settings: dict[str, Any] = {"base_url": gateway.base_url, "api_key": KEY, "default_headers": UNCACHED, "max_retries": 0, "timeout": 30}
    if request.param == "async":
        async with openai.AsyncOpenAI(**settings) as client:
            yield Asynchronous(client)
    else:
        with openai.OpenAI(**settings) as client:
            yield Synchronous(client)


def tool_call(number: int, arguments: str) -> dict[str, Any]:
    return {"id": f"call_{number}", "type": "function", "function": {"name": "weather", "arguments": arguments}}


def call_delta(number: int, arguments: str, *, opens: bool = False) -> bytes:
    """One piece of a tool call; the first names it."""
    delta: dict[str, Any] = {"index": number, "function": {"arguments": arguments}}
    if opens:
        delta |= {"id": f"call_{number}", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    return chunk({"tool_calls": [delta]})


def figures(row: dict[str, Any]) -> dict[str, Any]:
    """What a client is told of a row of the books."""
    return {
        "cost_usd": row["cost_nano_usd"] / 1e9,
        "energy_joules": row["energy_microjoules"] / 1e6,
        "energy_joules_low": row["energy_low_microjoules"] / 1e6,
        "energy_joules_high": row["energy_high_microjoules"] / 1e6,
        "energy_basis": row["energy_basis"].removeprefix("ENERGY_BASIS_").lower(),
        "gateway_energy_joules": row["gateway_energy_microjoules"] / 1e6,
    }


async def test_whole_answer_says_its_source_and_its_figures(sdk: Sdk, gateway: Gateway, lab: OpenAIUpstream) -> None:
    lab.script(completion("Hello!", service_tier="default"))
    headers, got = await sdk.whole(**question())
    assert got.choices[0].message.content == "Hello!"
    assert got.usage is not None and got.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": 5,
        "completion_tokens": 2,
        "total_tokens": 7,
    }
    assert (got.id, got.object, got.created, got.service_tier) == ("chatcmpl-1", "chat.completion", 1_700_000_000, "default")
    assert {name: headers[name] for name in ("x-joulegate-provider", "x-joulegate-model", "x-joulegate-cache")} == {
        "x-joulegate-provider": "lab",
        "x-joulegate-model": "small",
        "x-joulegate-cache": "bypass",
    }
    (row,) = await gateway.settled_entries(headers["x-request-id"])
    assert headers["x-joulegate-cost-usd"] == f"{row['cost_nano_usd'] / 1e9:.9f}"
    assert headers["x-joulegate-energy-joules"] == f"{row['energy_microjoules'] / 1e6:.6f}"
    assert row["energy_microjoules"] > 0 and row["gateway_energy_microjoules"] > 0
    said = (got.model_extra or {})["x-gateway"]
    assert said.pop("latency_ms") > 0 and "lab" in said.pop("routing_decision")
    assert said == {
        "request_id": headers["x-request-id"],
        "provider": "lab",
        "model": "small",
        **figures(row),
        "cache_hit": False,
        "fallback_used": False,
        "routing_strategy": "fallback",
        "router_score": None,
        "relaxed": [],
    }


async def test_key_of_the_client_stays_here(sdk: Sdk, lab: OpenAIUpstream) -> None:
    lab.script(completion())
    await sdk.whole(**question())
    (call,) = lab.calls
    assert KEY not in f"{call.headers}{call.body!r}"


async def test_stream_says_its_pieces_and_its_source(sdk: Sdk, lab: OpenAIUpstream) -> None:
    lab.script(stream("Hel", "lo", "!"))
    headers, got = await sdk.chunks(**question())
    assert [piece.choices[0].delta.content for piece in got] == ["", "Hel", "lo", "!", None]
    assert [piece.choices[0].finish_reason for piece in got] == [None, None, None, None, "stop"]
    assert got[0].choices[0].delta.role == "assistant"
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["x-joulegate-provider"] == "lab"


@pytest.mark.parametrize("usage_of_provider", [True, False])
async def test_stream_ends_with_usage_and_figures_when_asked(
    sdk: Sdk, gateway: Gateway, lab: OpenAIUpstream, usage_of_provider: bool
) -> None:
    lab.script(stream("Hello", " there", usage=usage_of_provider))
    headers, got = await sdk.chunks(**question(), stream_options={"include_usage": True})
    assert [piece.usage for piece in got[:-1]] == [None] * 4
    last = got[-1]
    (row,) = await gateway.settled_entries(headers["x-request-id"])
    assert last.choices == [] and last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (row["input_tokens"], row["output_tokens"])
    assert last.usage.total_tokens == row["input_tokens"] + row["output_tokens"]
    assert row["tokens_estimated"] is not usage_of_provider and row["output_tokens"] == 2
    assert (last.model_extra or {})["x-joulegate"] == {
        "request_id": headers["x-request-id"],
        "provider": "lab",
        "model": "small",
        **figures(row),
    }


@pytest.mark.parametrize("options", [{}, {"stream_options": None}, {"stream_options": {"include_usage": False}}])
async def test_usage_is_always_asked_of_the_provider_and_hidden_from_who_did_not(
    sdk: Sdk, lab: OpenAIUpstream, options: dict[str, Any]
) -> None:
    lab.script(stream("Hello"))
    body = await sdk.raw_stream(**question(), **options)
    assert body.count(b"[DONE]") == 1 and body.endswith(b"data: [DONE]\n\n")
    pieces = chunks_of(body)
    assert not [piece for piece in pieces if "usage" in piece or not piece["choices"]]
    assert text_of(pieces) == "Hello"
    assert lab.calls[0].json["stream_options"] == {"include_usage": True}


async def test_middle_chunks_carry_an_explicit_null_as_finish_reason(sdk: Sdk, lab: OpenAIUpstream) -> None:
    lab.script(sse(event({"choices": [{"index": 0, "delta": {"content": "a"}}]}), chunk({}, finish="stop"), b"data: [DONE]\n\n"))
    first, last = chunks_of(await sdk.raw_stream(**question()))
    assert first["choices"] == [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]
    assert (first["object"], last["choices"][0]["finish_reason"]) == ("chat.completion.chunk", "stop")


async def test_parallel_tool_calls_come_whole(sdk: Sdk, lab: OpenAIUpstream) -> None:
    calls = [tool_call(0, '{"place":"Ulm"}'), tool_call(1, '{"place": "Köln"')]  # a model may break off its JSON
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    lab.script(completion(choices=[{"index": 0, "message": message, "finish_reason": "tool_calls", "logprobs": None}]))
    _, got = await sdk.whole(**question(), tools=[WEATHER], tool_choice="required", parallel_tool_calls=True)
    assert got.choices[0].message.content is None and got.choices[0].finish_reason == "tool_calls"
    assert [call.model_dump() for call in got.choices[0].message.tool_calls or []] == calls
    assert {name: lab.calls[0].json[name] for name in ("tools", "tool_choice", "parallel_tool_calls")} == {
        "tools": [WEATHER],
        "tool_choice": "required",
        "parallel_tool_calls": True,
    }


async def test_parallel_tool_calls_come_as_the_deltas_that_the_provider_sent(sdk: Sdk, lab: OpenAIUpstream) -> None:
    deltas = [(0, '{"pl', True), (1, "", True), (0, 'ace":', False), (1, '{"place":"Köln"}', False), (0, '"Ulm"}', False)]
    pieces = [call_delta(number, arguments, opens=opens) for number, arguments, opens in deltas]
    lab.script(sse(chunk({"role": "assistant", "content": None}), *pieces, chunk({}, finish="tool_calls"), b"data: [DONE]\n\n"))
    _, got = await sdk.chunks(**question(), tools=[WEATHER])
    seen = [call for piece in got for call in piece.choices[0].delta.tool_calls or []]
    assert [(call.index, call.function and call.function.arguments, call.id is not None) for call in seen] == deltas
    assert [(call.id, call.type, call.function and call.function.name) for call in seen if call.id] == [
        ("call_0", "function", "weather"),
        ("call_1", "function", "weather"),
    ]
    assert got[-1].choices[0].finish_reason == "tool_calls"


async def test_tool_results_reach_the_provider(sdk: Sdk, lab: OpenAIUpstream) -> None:
    lab.script(completion("It is warm."))
    messages = [
        {"role": "user", "content": "How is it in Ulm?"},
        {"role": "assistant", "content": None, "tool_calls": [tool_call(0, '{"place":"Ulm"}')]},
        {"role": "tool", "tool_call_id": "call_0", "content": '{"celsius": 25.0}'},
    ]
    await sdk.whole(**question(messages=messages), tools=[WEATHER])
    assert lab.calls[0].json["messages"] == messages


async def test_several_choices_come_with_their_probabilities(sdk: Sdk, lab: OpenAIUpstream) -> None:
    choices = [
        {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": reason, "logprobs": LOGPROBS}
        for index, (text, reason) in enumerate([("Hi", "stop"), ("Ho", "length")])
    ]
    lab.script(completion(choices=choices))
    _, got = await sdk.whole(**question(), n=2, logprobs=True, top_logprobs=1)
    assert [(choice.index, choice.message.content, choice.finish_reason) for choice in got.choices] == [
        (0, "Hi", "stop"),
        (1, "Ho", "length"),
    ]
    for choice in got.choices:
        assert choice.logprobs is not None and choice.logprobs.model_dump(exclude_unset=True) == LOGPROBS
    assert {name: lab.calls[0].json[name] for name in ("n", "logprobs", "top_logprobs")} == {"n": 2, "logprobs": True, "top_logprobs": 1}


async def test_choices_of_a_stream_stay_apart(sdk: Sdk, lab: OpenAIUpstream) -> None:
    first = event({"choices": [{"index": 1, "delta": {"content": "Ho"}, "logprobs": LOGPROBS, "finish_reason": None}]})
    endings = [chunk({}, finish="length", index=1), chunk({}, finish="stop", index=0)]
    lab.script(sse(first, chunk({"content": "Hi"}, index=0), *endings, b"data: [DONE]\n\n"))
    _, got = await sdk.chunks(**question(), n=2, logprobs=True)
    seen = [(piece.choices[0].index, piece.choices[0].delta.content, piece.choices[0].finish_reason) for piece in got]
    assert seen == [(1, "Ho", None), (0, "Hi", None), (1, None, "length"), (0, None, "stop")]
    assert got[0].choices[0].logprobs is not None and got[0].choices[0].logprobs.model_dump(exclude_unset=True) == LOGPROBS


class Place(BaseModel):
    name: str
    people: int


async def test_schema_of_the_answer_reaches_the_provider_and_its_answer_is_parsed(sdk: Sdk, lab: OpenAIUpstream) -> None:
    lab.script(completion('{"name":"Ulm","people":128000}'))
    got = await sdk.parse(**question(), response_format=Place)
    assert got.choices[0].message.parsed == Place(name="Ulm", people=128000)
    wanted = lab.calls[0].json["response_format"]
    assert wanted["type"] == "json_schema" and wanted["json_schema"]["strict"] is True
    assert wanted["json_schema"]["schema"]["properties"]["people"] == {"title": "People", "type": "integer"}


async def test_image_parts_reach_the_provider(sdk: Sdk, lab: OpenAIUpstream) -> None:
    lab.script(completion("A pixel."))
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "video_url", "video_url": {"url": "https://example.com/x.mp4", "fps": 2.0}},
    ]
    await sdk.whole(**question(messages=[{"role": "user", "content": content}]))
    assert lab.calls[0].json["messages"][0]["content"] == content


async def test_parameters_that_nobody_knows_reach_the_provider(sdk: Sdk, lab: OpenAIUpstream) -> None:
    lab.script(completion())
    own = {
        "top_k": 40,
        "min_p": 0.05,
        "guided": {"regex": "a+", "deep": [{"er": None}]},
        "provider": {"order": ["x"], "allow_fallbacks": False},
    }
    await sdk.whole(**question(), extra_body=own | {"skip_cache": True, "routing_strategy": "cost"})
    assert lab.calls[0].json == question() | own


async def test_models_are_listed_once_each(sdk: Sdk) -> None:
    assert await sdk.models() == listed_models()


@pytest.mark.parametrize(
    ("name", "found"), [("small", "small"), ("lab/small", "small"), ("backup/shared", "shared"), ("demo/demo", "demo")]
)
async def test_model_is_found_alone_and_with_its_provider(sdk: Sdk, name: str, found: str) -> None:
    model = await sdk.model(name)
    assert (model.id, model.object) == (found, "model")


@pytest.mark.parametrize("name", ["nope", "backup/small", "nobody/small"])
async def test_model_that_nobody_serves_is_not_found(sdk: Sdk, name: str) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        await sdk.model(name)
    assert (raised.value.code, raised.value.type, raised.value.param) == ("model_not_found", "invalid_request_error", "model")
    assert name in raised.value.message


@pytest.mark.parametrize("name", ["small", "lab/small"])
async def test_provider_hears_its_own_name_of_the_model(sdk: Sdk, lab: OpenAIUpstream, name: str) -> None:
    lab.script(completion())
    await sdk.whole(**question(model=name))
    assert lab.calls[0].json["model"] == "small"


Raised = type[openai.APIStatusError]
REFUSALS: Mapping[str, tuple[Reply, Raised, int, str | None]] = {
    "bad request": (error(400, "too hot", type="invalid_request_error", code="zz"), openai.BadRequestError, 400, "zz"),
    "unknown model": (error(404, "no such model", code="model_not_found"), openai.NotFoundError, 404, "model_not_found"),
    "unprocessable": (error(422, "no"), openai.UnprocessableEntityError, 422, None),
    "limit": (error(429, "slow", {"retry-after": "7"}), openai.RateLimitError, 429, "provider_rate_limit_exceeded"),
    "our key": (error(401, "bad key"), openai.InternalServerError, 502, "all_providers_failed"),
    "fault": (error(500, "boom"), openai.InternalServerError, 502, "all_providers_failed"),
    "no JSON": (answer("<html>"), openai.InternalServerError, 502, "all_providers_failed"),
}


@pytest.mark.parametrize("case", REFUSALS)
async def test_refusal_of_a_provider_raises_the_exception_that_openai_raises(
    sdk: Sdk, lab: OpenAIUpstream, small_models: Iterator[str], case: str
) -> None:
    reply, kind, status, code = REFUSALS[case]
    lab.script(reply, reply)
    for ask in (sdk.whole, sdk.chunks):
        with pytest.raises(openai.APIStatusError) as raised:
            await ask(**question(model=next(small_models)))
        assert type(raised.value) is kind
        assert (raised.value.status_code, raised.value.code) == (status, code)
        assert raised.value.request_id
        assert raised.value.response.headers.get("retry-after") == ("7" if case == "limit" else None)


async def test_bad_parameter_raises_with_its_name(sdk: Sdk) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        await sdk.whole(**question(), temperature="hot")
    assert (raised.value.param, raised.value.type, raised.value.code) == ("temperature", "invalid_request_error", None)


async def test_wrong_key_raises_authentication_error(gateway: Gateway) -> None:
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/api/admin", api_key="wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as raised:
            await client.get("/entries", cast_to=object)
        assert raised.value.code == "invalid_api_key"
        assert await client.with_options(api_key=ADMIN_KEY).get("/entries", cast_to=object)


async def test_stream_that_is_cut_raises_instead_of_ending(sdk: Sdk, lab: OpenAIUpstream) -> None:
    lab.script(stream("Hel", Fault.CLOSE))
    with pytest.raises(openai.APIError, match="broke in the middle") as raised:
        await sdk.chunks(**question())
    assert (raised.value.code, raised.value.type) == ("stream_cut", "server_error")


async def test_client_that_gives_up_waiting_raises_timeout(sdk: Sdk, lab: OpenAIUpstream) -> None:
    lab.script(Reply(before=[Fault.HANG]))
    with pytest.raises(openai.APITimeoutError):
        await sdk.whole(**question(), timeout=0.3)
    async with asyncio.timeout(30):
        await lab.calls[0].disconnected.wait()


async def test_sdk_tries_again_when_the_provider_says_when(gateway: Gateway, lab: OpenAIUpstream) -> None:
    lab.script(error(429, "slow", {"retry-after": "0"}), completion("at last"))
    async with openai.AsyncOpenAI(base_url=gateway.base_url, api_key=KEY, default_headers=UNCACHED, max_retries=1) as client:
        got = await client.chat.completions.create(**question())
    assert got.choices[0].message.content == "at last"


async def test_accumulating_helper_of_the_sdk_builds_the_whole_answer(gateway: Gateway, lab: OpenAIUpstream) -> None:
    pieces = [call_delta(0, '{"place":', opens=True), call_delta(0, '"Ulm"}'), call_delta(1, "{}", opens=True)]
    lab.script(sse(chunk({"role": "assistant"}), *pieces, chunk({}, finish="tool_calls"), b"data: [DONE]\n\n"))
    async with openai.AsyncOpenAI(base_url=gateway.base_url, api_key=KEY, default_headers=UNCACHED) as client:
        create: Callable[..., Any] = client.chat.completions.stream
        async with create(**question(), tools=[WEATHER]) as events:
            got = await events.get_final_completion()
    calls = got.choices[0].message.tool_calls
    assert [(call.id, call.function.arguments) for call in calls] == [("call_0", '{"place":"Ulm"}'), ("call_1", "{}")]


async def test_answer_without_an_id_gets_one(sdk: Sdk, lab: OpenAIUpstream) -> None:
    lab.script(answer(json.dumps(completion_json("x") | {"id": ""})))
    headers, got = await sdk.whole(**question())
    assert got.id == f"chatcmpl-{headers['x-request-id']}"
    assert re.fullmatch(r"[0-9a-f-]{36}", headers["x-request-id"])
