"""OpenAI's dialect before its judges: golden files, and the SDKs of OpenAI, Groq and Together, which read answers and make requests."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import groq
import openai
import pytest
import together

from services.dispatch.adapters.openai import OpenAIAdapter
from services.dispatch.adapters.variants import VARIANTS
from services.wire.openai import decode_request
from tests.adapters.golden import ROOT
from tests.adapters.reading import check_case
from tests.fakes.openai_upstream import OpenAIUpstream, chunk, completion, completion_json, error, error_body, event, stream, usage_json

SSE = "text/event-stream"
USER: dict[str, Any] = {"role": "user", "content": "Hi"}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}},
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Köln"}'}}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
WITH_TOOLS: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "sun"},
]
DONE = b"data: [DONE]\n\n"
USAGE = event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "small", "choices": [], "usage": usage_json()})
OPENING = chunk({"role": "assistant", "content": ""})
ENDING = chunk({}, finish="stop") + USAGE + DONE

# --- golden files ---

_CALLED = [
    chunk({"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}]}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": '"Köln"}'}}]}),
]
_GROQ_END = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "x_groq": {"id": "req_1", "usage": usage_json()}}
_THOUGHT = [{"type": "thinking", "thinking": [{"type": "text", "text": "2+2"}]}]
CASES: dict[str, tuple[str, dict[str, Any], bytes]] = {
    "text": ("openai", {"stream": True, "messages": [USER]}, OPENING + chunk({"content": "Hel"}) + chunk({"content": "lo!"}) + ENDING),
    "tools": (
        "openai",
        {"stream": True, "messages": WITH_TOOLS, "tools": [TOOL], "tool_choice": "required"},
        OPENING + b"".join(_CALLED) + chunk({}, finish="tool_calls") + USAGE + DONE,
    ),
    "schema": (
        "openai",
        {
            "messages": [{"role": "user", "content": [{"type": "text", "text": "How many?"}, IMAGE]}],
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}},
            "seed": 1,
        },
        json.dumps(completion_json('{"n":7}')).encode(),
    ),
    "cut": ("openai", {"stream": True, "messages": [USER]}, OPENING + chunk({"content": "Hel"}) + chunk({"content": "lo!"})[:30]),
    "error": ("openai", {"stream": True, "messages": [USER]}, OPENING + b"data: " + error_body(500, "The server had an error.") + b"\n\n"),
    "groq": (
        "groq",
        {"stream": True, "messages": [USER, {"role": "assistant", "content": "4", "reasoning_content": "2+2"}, USER]},
        OPENING + chunk({"reasoning": "Hm. "}) + chunk({"content": "4"}) + event(_GROQ_END) + DONE,
    ),
    "mistral": (
        "mistral",
        {
            "stream": True,
            "messages": [{"role": "developer", "content": "Be brief."}, USER],
            "seed": 7,
            "max_completion_tokens": 9,
            "user": "al",
        },
        OPENING
        + chunk({"content": _THOUGHT})
        + chunk({"content": "4"})
        + event({"id": "c", "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "model_length"}], "usage": usage_json()})
        + DONE,
    ),
    "openrouter": (
        "openrouter",
        {"stream": True, "messages": [USER]},
        b": OPENROUTER PROCESSING\n\n"
        + OPENING
        + event(
            {
                "id": "gen-1",
                "error": {"code": 502, "message": "Provider returned error"},
                "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
            }
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    variant, body, said = CASES[name]
    check_case(ROOT / "openai" / name, OpenAIAdapter(VARIANTS[variant]), body, said, SSE if body.get("stream") else "application/json")


# --- SDKs as the judges ---


@pytest.fixture
async def fake() -> AsyncIterator[OpenAIUpstream]:
    async with OpenAIUpstream() as upstream:
        yield upstream


CLIENTS: dict[str, Callable[..., Any]] = {"openai": openai.AsyncOpenAI, "groq": groq.AsyncGroq, "together": together.AsyncTogether}


@pytest.fixture(params=CLIENTS)
async def judge(request: pytest.FixtureRequest, fake: OpenAIUpstream) -> AsyncIterator[tuple[str, Any]]:
    """A vendor's name and its SDK's client."""
    async with AsyncExitStack() as stack:
        client = CLIENTS[request.param](base_url=fake.base_url, api_key="k", max_retries=0)
        yield request.param, await stack.enter_async_context(client)


async def test_the_sdk_reads_the_fakes_answers(fake: OpenAIUpstream, judge: tuple[str, Any]) -> None:
    _, client = judge
    fake.script(completion("Hello!"), stream("Hel", *_CALLED, finish="tool_calls"), error(429, "slow down"))
    said = await client.chat.completions.create(model="small", messages=[USER])
    assert (said.choices[0].message.content, said.usage.total_tokens) == ("Hello!", 7)
    parts = [part async for part in await client.chat.completions.create(model="small", messages=[USER], stream=True)]
    deltas = [part.choices[0].delta for part in parts if part.choices]
    arguments = [call.function.arguments for delta in deltas for call in delta.tool_calls or ()]
    assert "".join(arguments) == '{"city":"Köln"}'
    assert next(part.choices[0].finish_reason for part in reversed(parts) if part.choices) == "tool_calls"
    with pytest.raises((openai.RateLimitError, groq.RateLimitError, together.RateLimitError)):
        await client.chat.completions.create(model="small", messages=[USER])


async def test_the_sdk_reads_reasoning_where_its_vendor_says_it(fake: OpenAIUpstream) -> None:
    fake.script(stream(chunk({"reasoning": "Hm."}), event(_GROQ_END), finish=None, usage=False))
    async with groq.AsyncGroq(base_url=fake.base_url, api_key="k", max_retries=0) as client:
        said = await client.chat.completions.create(model="small", messages=[{"role": "user", "content": "Hi"}], stream=True)
        parts = [part async for part in said]
    assert parts[1].choices[0].delta.reasoning == "Hm."
    assert parts[2].x_groq is not None and parts[2].x_groq.usage is not None
    assert parts[2].x_groq.usage.completion_tokens == 2


REQUESTS: dict[str, dict[str, Any]] = {
    "text": {"messages": [{"role": "system", "content": "Be brief."}, USER], "max_tokens": 9, "temperature": 0.5, "stop": ["x"], "seed": 1},
    "tools": {"messages": WITH_TOOLS, "tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
    "image": {"messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}, IMAGE]}]},
    "schema": {"messages": [USER], "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
    "stream": {"messages": [USER], "stream": True},
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_what_the_sdk_sends_passes_unchanged(fake: OpenAIUpstream, judge: tuple[str, Any], name: str) -> None:
    vendor, client = judge
    asked = REQUESTS[name]
    fake.script(stream("Hi") if asked.get("stream") else completion())
    answered = await client.chat.completions.create(model="small", **asked)
    if asked.get("stream"):
        async for _ in answered:
            pass
    body = fake.calls[0].json
    assert body == {"model": "small"} | asked
    wire = json.loads(OpenAIAdapter(VARIANTS[vendor]).encode(decode_request(fake.calls[0].body), "small").body)
    assert wire == body | ({"stream_options": {"include_usage": True}} if asked.get("stream") else {})
