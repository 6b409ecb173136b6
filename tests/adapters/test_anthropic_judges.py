"""Anthropic's dialect before its judges: golden files, and Anthropic's SDK, which reads the fake's answers and makes requests.

The SDK speaks the version after the adapter's, so it judges bodies and answers; key and version are in other headers there.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest

from tests.adapters.golden import ROOT
from tests.adapters.reading import check_case
from tests.adapters.test_anthropic import ADAPTER, ASK, PIXEL, SCHEMA, THINKING, TOOL, WITH_TOOLS, image, sent, user
from tests.fakes.anthropic_upstream import (
    SSE,
    AnthropicUpstream,
    block,
    end,
    error,
    error_body,
    event,
    message,
    message_json,
    start,
    stream,
    text_block,
    whole,
)
from tests.fakes.upstream import sse

# --- golden files ---

HI = {"stream": True, "messages": [{"role": "user", "content": "Hi"}]}
CALL = block(
    1,
    {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}},
    *({"type": "input_json_delta", "partial_json": piece} for piece in ("", '{"city":', ' "Köln"}')),
)
THOUGHT = block(
    0,
    {"type": "thinking", "thinking": "", "signature": ""},
    {"type": "thinking_delta", "thinking": "Let me "},
    {"type": "thinking_delta", "thinking": "see."},
    {"type": "signature_delta", "signature": "EqQB"},
)
SEARCH = block(
    0,
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
    {"type": "input_json_delta", "partial_json": "{}"},
)
CITED = block(
    1,
    {"type": "text", "text": "", "citations": []},
    {"type": "citations_delta", "citation": {"type": "web_search_result_location", "url": "https://a.example"}},
    {"type": "text_delta", "text": "So."},
)
STREAM_CASES: dict[str, tuple[dict[str, Any], bytes]] = {
    "text": (
        {"stream": True, "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}], "max_tokens": 9},
        start(input_tokens=3, cache_read_input_tokens=2) + event("ping") + text_block(0, "Hel", "lo!") + end(),
    ),
    "tools": (
        {"stream": True, "messages": WITH_TOOLS, "tools": [TOOL], "parallel_tool_calls": False},
        start() + text_block(0, "Looking.") + CALL + end("tool_use"),
    ),
    "thinking": (
        HI | {"reasoning_effort": "high", "top_k": 20},
        start() + THOUGHT + text_block(1, "So.") + end(usage={"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 6}}),
    ),
    "server_tools": (HI, start() + SEARCH + CITED + end("pause_turn")),
    "cut": (HI, start() + text_block(0, "Hel") + end()[:60]),
    "error": (HI, start() + b"event: error\ndata: " + error_body(529, "Overloaded") + b"\n\n"),
}
WHOLE_CASES: dict[str, tuple[dict[str, Any], bytes]] = {
    "schema": (
        {
            "messages": [{"role": "user", "content": "A number?"}],
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
            "seed": 1,
        },
        whole('{"n": 7}'),
    ),
    "image": (user({"type": "text", "text": "What is this?"}, image(f"data:image/png;base64,{PIXEL}")), whole("A pixel.")),
    "refusal": (
        {"user": "u1"},
        json.dumps(message_json([], "refusal", stop_details={"type": "refusal", "category": "bio", "explanation": None})).encode(),
    ),
    "unknown_model": ({}, error_body(404, "model: small")),
}


@pytest.mark.parametrize("name", STREAM_CASES | WHOLE_CASES)
def test_golden(name: str) -> None:
    body, said = (STREAM_CASES | WHOLE_CASES)[name]
    check_case(ROOT / "anthropic" / name, ADAPTER, body, said, SSE if body.get("stream") else "application/json")


# --- Anthropic's SDK as the judge ---


@pytest.fixture
async def fake() -> AsyncIterator[AnthropicUpstream]:
    async with AnthropicUpstream() as upstream:
        yield upstream


@pytest.fixture
async def client(fake: AnthropicUpstream) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=fake.base_url, api_key="k", max_retries=0) as client:
        yield client


async def test_the_sdk_reads_the_fakes_answers(fake: AnthropicUpstream, client: anthropic.AsyncAnthropic) -> None:
    fake.script(message({"type": "text", "text": "Hello!"}), error(529, "Overloaded"))
    ask: dict[str, Any] = {"model": "small", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    said: Any = await client.messages.create(**ask)
    assert (said.content[0].text, said.stop_reason, said.usage.input_tokens, said.usage.output_tokens) == ("Hello!", "end_turn", 5, 2)
    with pytest.raises(anthropic.APIStatusError, match="Overloaded") as raised:
        await client.messages.create(**ask)
    assert raised.value.status_code == 529
    assert [model.id for model in (await client.models.list(limit=1000)).data] == ["small", "large"]
    assert fake.listings[0].path == ADAPTER.models_path


async def test_the_sdk_reads_the_fakes_streams(fake: AnthropicUpstream, client: anthropic.AsyncAnthropic) -> None:
    fake.script(stream("Hel", "lo!"), sse(start() + THOUGHT + CALL + text_block(2, "So.") + end("tool_use")))
    ask: dict[str, Any] = {"model": "small", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    async with client.messages.stream(**ask) as plain:
        assert await plain.get_final_text() == "Hello!"
        assert (await plain.get_final_message()).usage.output_tokens == 2
    async with client.messages.stream(**ask) as rich:
        final: Any = await rich.get_final_message()
    thought, call, text = final.content
    assert (thought.type, call.type, text.type) == ("thinking", "tool_use", "text")
    assert (thought.thinking, thought.signature, call.input, text.text) == ("Let me see.", "EqQB", {"city": "Köln"}, "So.")


BASE = {"max_tokens": 4096, "messages": [{"role": "user", "content": "Hi"}]}
ANTHROPIC_TOOL = {"name": "weather", "description": "Says the weather.", "input_schema": TOOL["function"]["parameters"]}
SDK_CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "text": (
        {"messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi"}], "stop": "x", "max_tokens": 7},
        BASE | {"system": "Be brief.", "stop_sequences": ["x"], "max_tokens": 7},
    ),
    "tools": (
        {"messages": WITH_TOOLS, "tools": [TOOL], "tool_choice": "auto"},
        {
            "max_tokens": 4096,
            "messages": [
                {"role": "user", "content": "Weather?"},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Köln"}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "12 degrees"}]},
                {"role": "user", "content": "And tomorrow?"},
            ],
            "tools": [ANTHROPIC_TOOL],
            "tool_choice": {"type": "auto"},
        },
    ),
    "named_tool": (
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "weather"}}, "parallel_tool_calls": False},
        BASE | {"tools": [ANTHROPIC_TOOL], "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}},
    ),
    "image": (
        user({"type": "text", "text": "What?"}, image(f"data:image/png;base64,{PIXEL}"), image("https://a.example/b.png")),
        {
            "max_tokens": 4096,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What?"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
                        {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}},
                    ],
                }
            ],
        },
    ),
    "schema": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
        BASE | {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    ),
    "thinking": (
        {
            "reasoning_effort": "low",
            "max_tokens": 4096,
            "messages": [{"role": "assistant", "content": "So.", "thinking_blocks": [THINKING]}],
        },
        {
            "max_tokens": 4096,
            "messages": [{"role": "assistant", "content": [THINKING, {"type": "text", "text": "So."}]}],
            "thinking": {"type": "adaptive", "display": "summarized"},
            "output_config": {"effort": "low"},
        },
    ),
    "terms": (
        {"user": "u1", "service_tier": "default"},
        BASE | {"metadata": {"user_id": "u1"}, "service_tier": "standard_only"},
    ),
}


@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("name", SDK_CASES)
async def test_what_is_sent_is_what_the_sdk_sends(
    fake: AnthropicUpstream, client: anthropic.AsyncAnthropic, name: str, is_stream: bool
) -> None:
    ours, theirs = SDK_CASES[name]
    if is_stream:
        fake.script(stream("Hello!"))
        async for _ in await client.messages.create(model="small", stream=True, **theirs):
            pass
    else:
        fake.script(message({"type": "text", "text": "Hello!"}))
        await client.messages.create(model="small", **theirs)
    expected = fake.calls[0].json
    if not is_stream:
        expected.pop("stream", None)
    assert sent(ours | {"stream": is_stream}) == expected
    assert fake.calls[0].path == ADAPTER.encode(ASK, "small").path
