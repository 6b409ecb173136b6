"""Ollama's dialect before its judges: golden files, and Ollama's SDK, which reads the fake's answers and makes requests to compare with."""

from collections.abc import AsyncIterator
from typing import Any

import ollama
import pytest

from tests.adapters.golden import ROOT
from tests.adapters.reading import check_case
from tests.adapters.test_ollama import ADAPTER, ASK, CALL, PIXEL, SCHEMA, TOOL, WITH_TOOLS, image, sent, user
from tests.fakes.ollama_upstream import NDJSON, OllamaUpstream, error, error_body, last, line, stream, whole
from tests.fakes.upstream import answer

# --- golden files ---

STREAM_CASES: dict[str, tuple[dict[str, Any], bytes]] = {
    "text": (
        {"stream": True, "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}], "max_tokens": 9},
        line({"content": "Hel"}) + line({"content": "lo!"}) + last(),
    ),
    "tools": (
        {"stream": True, "messages": WITH_TOOLS, "tools": [TOOL]},
        line({"tool_calls": [CALL]}) + line({"tool_calls": [CALL]}) + last(),
    ),
    "thinking": (
        {"stream": True, "messages": [{"role": "user", "content": "Why?"}], "reasoning_effort": "high", "keep_alive": "10m", "top_k": 20},
        line({"thinking": "Let me see. "}) + line({"content": "So."}) + last("length"),
    ),
    "cut": ({"stream": True, "messages": [{"role": "user", "content": "Hi"}]}, line({"content": "Hel"}) + last()[:40]),
    "error": (
        {"stream": True, "messages": [{"role": "user", "content": "Hi"}]},
        line({"content": "Hel"}) + error_body(200, "llama runner process has terminated: exit status 2") + b"\n",
    ),
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
    "unknown_model": ({"messages": [{"role": "user", "content": "Hi"}]}, error_body(200, "model 'small' not found")),
}


@pytest.mark.parametrize("name", STREAM_CASES | WHOLE_CASES)
def test_golden(name: str) -> None:
    body, said = (STREAM_CASES | WHOLE_CASES)[name]
    check_case(ROOT / "ollama" / name, ADAPTER, body, said, NDJSON if body.get("stream") else "application/json")


# --- Ollama's SDK as the judge ---


@pytest.fixture
async def fake() -> AsyncIterator[OllamaUpstream]:
    async with OllamaUpstream() as upstream:
        yield upstream


@pytest.fixture
async def client(fake: OllamaUpstream) -> AsyncIterator[ollama.AsyncClient]:
    async with ollama.AsyncClient(host=fake.base_url) as client:
        yield client


async def test_the_sdk_reads_the_fakes_answers(fake: OllamaUpstream, client: ollama.AsyncClient) -> None:
    fake.script(answer(whole("Hello!")), stream("Hel", line({"thinking": "Hm.", "tool_calls": [CALL]})), error(404, "model 'x' not found"))
    messages = [{"role": "user", "content": "Hi"}]
    said = await client.chat("small", messages)
    assert (said.message.content, said.done_reason, said.prompt_eval_count, said.eval_count) == ("Hello!", "stop", 5, 2)
    parts = [part async for part in await client.chat("small", messages, stream=True)]
    assert [part.message.content for part in parts] == ["Hel", "", ""]
    assert parts[1].message.tool_calls is not None
    assert parts[1].message.tool_calls[0].function.arguments == {"city": "Köln", "days": 2}
    assert (parts[-1].done, parts[-1].done_reason, parts[-1].eval_count) == (True, "stop", 2)
    with pytest.raises(ollama.ResponseError, match="model 'x' not found"):
        await client.chat("x", messages)
    assert [model.model for model in (await client.list()).models] == ["small", "large"]


SDK_CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "text": (
        {"messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi"}], "temperature": 0.5, "stop": "x"},
        {
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
            "options": {"temperature": 0.5, "stop": ["x"]},
        },
    ),
    "tools": (
        {"messages": WITH_TOOLS, "tools": [TOOL], "tool_choice": "auto"},
        {
            "messages": [
                {"role": "user", "content": "Weather?"},
                {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Köln"}}}]},
                {"role": "tool", "content": "12 degrees", "tool_name": "weather"},
                {"role": "user", "content": "And tomorrow?"},
            ],
            "tools": [TOOL],
        },
    ),
    "image": (
        user({"type": "text", "text": "What?"}, image(f"data:image/png;base64,{PIXEL}")),
        {"messages": [{"role": "user", "content": "What?", "images": [PIXEL]}]},
    ),
    "schema": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
        {"messages": [{"role": "user", "content": "Hi"}], "format": SCHEMA},
    ),
    "thinking": (
        {"reasoning_effort": "high", "logprobs": True, "top_logprobs": 2, "keep_alive": "5m"},
        {"messages": [{"role": "user", "content": "Hi"}], "think": "high", "logprobs": True, "top_logprobs": 2, "keep_alive": "5m"},
    ),
}


@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("name", SDK_CASES)
async def test_what_is_sent_is_what_the_sdk_sends(fake: OllamaUpstream, client: ollama.AsyncClient, name: str, is_stream: bool) -> None:
    ours, theirs = SDK_CASES[name]
    fake.script(stream("Hello!") if is_stream else answer(whole("Hello!")))
    if is_stream:
        async for _ in await client.chat("small", stream=True, **theirs):
            pass
    else:
        await client.chat("small", **theirs)
    expected = fake.calls[0].json
    if not expected["tools"]:  # the SDK says that there are none
        del expected["tools"]
    mine = sent(ours | {"stream": is_stream})
    for message in mine["messages"]:  # Ollama's server knows the ids of calls, its SDK does not yet
        message.pop("tool_call_id", None)
        for call in message.get("tool_calls", ()):
            call.pop("id")
    assert mine == expected
    assert fake.calls[0].path == ADAPTER.encode(ASK, "small").path
