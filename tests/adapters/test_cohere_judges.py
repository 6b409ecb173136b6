"""Cohere's dialect before its judges: golden files, and Cohere's SDK, which reads the fake's answers and makes requests to compare with."""

import json
from collections.abc import AsyncIterator
from typing import Any

import cohere
import pytest

from tests.adapters.golden import ROOT
from tests.adapters.reading import check_case
from tests.adapters.test_cohere import ADAPTER, ASK, CALLS, CITATION, SCHEMA, TOOL, WITH_TOOLS, image, sent, user
from tests.fakes.cohere_upstream import (
    SSE,
    CohereUpstream,
    block_start,
    call,
    end,
    error,
    error_body,
    event,
    message_event,
    plan,
    start,
    stream,
    text,
    text_block,
    thinking,
    whole,
    whole_json,
)
from tests.fakes.upstream import answer

# --- golden files ---

HI = {"messages": [{"role": "user", "content": "Hi"}]}
CITED = message_event("citation-start", {"citations": CITATION}, index=0) + event("citation-end", index=0)
STREAM_CASES: dict[str, tuple[dict[str, Any], bytes]] = {
    "text": (
        {
            "stream": True,
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
            "top_p": 0.9,
            "stop": "x",
        },
        start() + block_start() + text("Hel") + text("lo!") + event("content-end", index=0) + end(),
    ),
    "tools": (
        {"stream": True, "messages": WITH_TOOLS[:1], "tools": [TOOL], "tool_choice": "required"},
        start()
        + plan("I shall ")
        + plan("look.")
        + call(0, "c1", "weather", '{"city":', '"Köln"}')
        + call(1, "c2", "weather")
        + end("TOOL_CALL"),
    ),
    "results": ({"stream": True, "messages": WITH_TOOLS, "tools": [TOOL]}, start() + block_start() + text("12 degrees.") + CITED + end()),
    "thinking": (
        HI | {"stream": True, "reasoning_effort": "low"},
        start() + block_start("thinking") + thinking("Let me see. ") + block_start() + text("So.") + end("MAX_TOKENS"),
    ),
    "cut": (HI | {"stream": True}, start() + block_start() + text("Hel") + end()[:60]),
    "error": (HI | {"stream": True}, start() + block_start() + text("Hel") + end("ERROR", error="internal server error")),
}
WHOLE_CASES: dict[str, tuple[dict[str, Any], bytes]] = {
    "schema": (
        HI | {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}, "seed": 1, "documents": ["d"]},
        whole('{"n": 7}'),
    ),
    "image": (user(text_block("What is this?"), image("https://example.com/a.png")), whole("A pixel.")),
    "plan": (
        {"messages": WITH_TOOLS[:1], "tools": [TOOL]},
        json.dumps(whole_json(reason="TOOL_CALL", message={"tool_plan": "I shall look.", "tool_calls": CALLS})).encode(),
    ),
    "refused": (HI, error_body(200, "model 'small' not found")),
}


@pytest.mark.parametrize("name", STREAM_CASES | WHOLE_CASES)
def test_golden(name: str) -> None:
    body, said = (STREAM_CASES | WHOLE_CASES)[name]
    check_case(ROOT / "cohere" / name, ADAPTER, body, said, SSE if body.get("stream") else "application/json")


# --- Cohere's SDK as the judge ---


@pytest.fixture
async def fake() -> AsyncIterator[CohereUpstream]:
    async with CohereUpstream() as upstream:
        yield upstream


@pytest.fixture
async def client(fake: CohereUpstream) -> AsyncIterator[cohere.AsyncClientV2]:
    async with cohere.AsyncClientV2(api_key="key", base_url=fake.base_url) as client:
        yield client


async def test_the_sdk_reads_the_fakes_answers(fake: CohereUpstream, client: cohere.AsyncClientV2) -> None:
    fake.script(
        answer(whole("Hello!")), stream("Hel", thinking("Hm."), plan("So."), call(0, "c1", "weather", "{}"), CITED), error(404, "no model")
    )
    messages: Any = [{"role": "user", "content": "Hi"}]
    said = await client.chat(model="small", messages=messages)
    assert said.message.content is not None and said.message.content[0].type == "text"
    assert (said.message.content[0].text, said.finish_reason) == ("Hello!", "COMPLETE")
    assert said.usage is not None and said.usage.tokens is not None
    assert (said.usage.tokens.input_tokens, said.usage.tokens.output_tokens) == (5, 2)
    events: list[Any] = [one async for one in client.chat_stream(model="small", messages=messages)]
    assert [one.type for one in events] == [
        "message-start",
        "content-start",
        "content-delta",
        "content-delta",
        "tool-plan-delta",
        "tool-call-start",
        "tool-call-delta",
        "tool-call-end",
        "citation-start",
        "citation-end",
        "content-end",
        "message-end",
    ]
    assert (events[2].delta.message.content.text, events[3].delta.message.content.thinking) == ("Hel", "Hm.")
    assert (events[5].delta.message.tool_calls.function.name, events[6].delta.message.tool_calls.function.arguments) == ("weather", "{}")
    assert events[8].delta.message.citations.text == CITATION["text"]
    assert (events[-1].delta.finish_reason, events[-1].delta.usage.tokens.output_tokens) == ("COMPLETE", 2)
    with pytest.raises(cohere.NotFoundError, match="no model"):
        await client.chat(model="x", messages=messages)
    listed = await client.models.list(endpoint="chat", page_size=1000)
    assert [model.name for model in listed.models] == ["small", "large"]
    assert fake.listings[0].path == ADAPTER.models_path.replace("endpoint=chat&page_size=1000", "page_size=1000&endpoint=chat")


SDK_CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "text": (
        {"messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi"}], "top_p": 0.5, "stop": "x"},
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}], "p": 0.5, "stop_sequences": ["x"]},
    ),
    "parameters": (
        HI | {"temperature": 0.1, "seed": 1, "max_completion_tokens": 9, "frequency_penalty": 0.5, "logprobs": True, "k": 3},
        HI | {"temperature": 0.1, "seed": 1, "max_tokens": 9, "frequency_penalty": 0.5, "logprobs": True, "k": 3},
    ),
    "tools": (
        {"messages": WITH_TOOLS, "tools": [TOOL], "tool_choice": "required"},
        {
            "messages": [
                cohere.UserChatMessageV2(content="Weather?"),
                cohere.AssistantChatMessageV2(tool_plan="I shall look.", tool_calls=[cohere.ToolCallV2(**call) for call in CALLS]),  # type: ignore[arg-type]
                cohere.ToolChatMessageV2(tool_call_id="c1", content="12 degrees"),
                cohere.ToolChatMessageV2(tool_call_id="c2", content=[cohere.TextToolContent(text="13 degrees")]),
            ],
            "tools": [cohere.ToolV2(**TOOL)],  # type: ignore[arg-type]
            "tool_choice": "REQUIRED",
        },
    ),
    "image": (
        user(text_block("What?"), image("data:image/png;base64,AAAA", detail="low")),
        {
            "messages": [
                cohere.UserChatMessageV2(
                    content=[
                        cohere.TextContent(text="What?"),
                        cohere.ImageUrlContent(image_url=cohere.ImageUrl(url="data:image/png;base64,AAAA", detail="low")),
                    ]
                )
            ]
        },
    ),
    "schema": (
        HI | {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
        HI | {"response_format": cohere.JsonObjectResponseFormatV2(json_schema=SCHEMA)},
    ),
    "thinking": (
        {
            "messages": [{"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."}, {"role": "user", "content": "Why?"}],
            "reasoning_effort": "low",
        },
        {
            "messages": [
                cohere.AssistantChatMessageV2(
                    content=[
                        cohere.ThinkingAssistantMessageV2ContentOneItem(thinking="Hm."),
                        cohere.TextAssistantMessageV2ContentOneItem(text="Yes."),
                    ]
                ),
                cohere.UserChatMessageV2(content="Why?"),
            ],
            "thinking": cohere.Thinking(type="enabled", token_budget=2048),
        },
    ),
}


@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("name", SDK_CASES)
async def test_what_is_sent_is_what_the_sdk_sends(fake: CohereUpstream, client: cohere.AsyncClientV2, name: str, is_stream: bool) -> None:
    ours, theirs = SDK_CASES[name]
    fake.script(stream("Hello!") if is_stream else answer(whole("Hello!")))
    if is_stream:
        async for _ in client.chat_stream(model="small", **theirs):
            pass
    else:
        await client.chat(model="small", **theirs)
    assert sent(ours | {"stream": is_stream}) == fake.calls[0].json
    assert fake.calls[0].path == ADAPTER.encode(ASK, "small").path
    headers = {name.lower(): value for name, value in fake.calls[0].headers.items()}
    assert ADAPTER.authorization("key").items() <= headers.items()
