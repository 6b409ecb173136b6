"""Cohere's dialect: what is sent."""

import json
from typing import Any

import pytest

from services.dispatch.adapters.cohere import CohereAdapter
from services.dispatch.failure import Failure, Kind
from tests.adapters.reading import request_of
from tests.fakes.cohere_upstream import (
    text_block,
)

ADAPTER = CohereAdapter()
ASK = request_of({})
ASK_STREAM = request_of({"stream": True})
FUNCTION = {
    "name": "weather",
    "description": "Says the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TOOL = {"type": "function", "function": FUNCTION}
OTHER_TOOL = {"type": "function", "function": FUNCTION | {"name": "clock"}}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Köln"}'}},
    {"id": "c2", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Bonn"}'}},
]
WITH_TOOLS: list[dict[str, Any]] = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": None, "tool_calls": CALLS, "reasoning_content": "I shall look."},
    {"role": "tool", "tool_call_id": "c1", "content": "12 degrees"},
    {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "13 degrees"}]},
]
CITATION = {
    "start": 0,
    "end": 2,
    "text": "12",
    "sources": [{"type": "tool", "id": "c1:0", "tool_output": {"t": 12}}],
    "type": "TEXT_CONTENT",
}


def sent(body: dict[str, Any]) -> dict[str, Any]:
    encoded: dict[str, Any] = json.loads(ADAPTER.encode(request_of(body), "small").body)
    return encoded


def parameters(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in sent(body).items() if name not in ("model", "messages", "stream")}


def warnings(body: dict[str, Any]) -> tuple[str, ...]:
    return ADAPTER.encode(request_of(body), "small").warnings


def refused(body: dict[str, Any]) -> str:
    with pytest.raises(Failure) as raised:
        ADAPTER.encode(request_of(body), "small")
    assert raised.value.kind is Kind.UNSUPPORTED
    return raised.value.param


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def image(url: str, **members: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url} | members}


@pytest.mark.parametrize("is_stream", [True, False])
def test_whether_to_stream_is_always_said(is_stream: bool) -> None:
    wire = ADAPTER.encode(request_of({"stream": is_stream}), "small")
    assert json.loads(wire.body) == {"model": "small", "messages": [{"role": "user", "content": "Hi"}], "stream": is_stream}
    assert wire.path == "/v2/chat"


def test_openais_parameters_get_coheres_names() -> None:
    same = {"temperature": 0.5, "seed": 7, "presence_penalty": 0.1, "frequency_penalty": 0.2, "logprobs": True}
    body = same | {"top_p": 0.9, "max_tokens": 10, "max_completion_tokens": 20, "stop": "END"}
    assert parameters(body) == same | {"p": 0.9, "max_tokens": 20, "stop_sequences": ["END"]}
    assert parameters({"max_tokens": 10, "stop": ["a", "b"]}) == {"max_tokens": 10, "stop_sequences": ["a", "b"]}


def test_coheres_own_members_arrive_as_they_are() -> None:
    own = {"documents": ["a"], "safety_mode": "STRICT", "k": 5, "thinking": {"type": "enabled", "token_budget": 9}, "priority": 1}
    assert parameters(own | {"reasoning_effort": "low"}) == own


@pytest.mark.parametrize(
    ("effort", "sent_as"),
    [
        ("none", {"type": "disabled"}),
        ("low", {"type": "enabled", "token_budget": 2048}),
        ("medium", {"type": "enabled", "token_budget": 8192}),
        ("high", {"type": "enabled"}),
    ],
)
def test_reasoning_effort_becomes_a_budget(effort: str, sent_as: dict[str, Any]) -> None:
    assert parameters({"reasoning_effort": effort}) == {"thinking": sent_as}


def test_json_mode_and_schemas_are_one_format() -> None:
    assert parameters({"response_format": {"type": "text"}}) == {}
    assert parameters({"response_format": {"type": "json_object"}}) == {"response_format": {"type": "json_object"}}
    schema = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA, "description": "d"}}
    assert parameters({"response_format": schema}) == {"response_format": {"type": "json_object", "json_schema": SCHEMA}}
    assert len(warnings({"response_format": schema})) == 1


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", {"tools": [TOOL, OTHER_TOOL]}),
        ("none", {"tools": [TOOL, OTHER_TOOL], "tool_choice": "NONE"}),
        ("required", {"tools": [TOOL, OTHER_TOOL], "tool_choice": "REQUIRED"}),
        ({"type": "function", "function": {"name": "clock"}}, {"tools": [OTHER_TOOL], "tool_choice": "REQUIRED"}),
    ],
)
def test_the_choice_of_tools_is_said(choice: Any, expected: dict[str, Any]) -> None:
    assert parameters({"tools": [TOOL, OTHER_TOOL], "tool_choice": choice, "parallel_tool_calls": True}) == expected


def test_strict_is_said_for_all_tools_or_left_out() -> None:
    strict = {"type": "function", "function": FUNCTION | {"strict": True}}
    lax = {"type": "function", "function": OTHER_TOOL["function"] | {"strict": False}}  # type: ignore[operator]
    assert parameters({"tools": [strict]}) == {"tools": [TOOL], "strict_tools": True}
    assert parameters({"tools": [strict, lax]}) == {"tools": [TOOL, OTHER_TOOL]}
    assert warnings({"tools": [strict, lax]}) == ("tools[].function.strict: is for all tools or none of them in Cohere's API, left out",)
    assert warnings({"tools": [lax]}) == ()


def test_functions_without_parameters_take_nothing() -> None:
    assert parameters({"tools": [{"type": "function", "function": {"name": "now"}}]})["tools"] == [
        {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}
    ]


def test_calls_results_and_the_plan_go_back() -> None:
    assert sent({"messages": WITH_TOOLS})["messages"] == [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "tool_plan": "I shall look.", "tool_calls": CALLS},
        {"role": "tool", "tool_call_id": "c1", "content": "12 degrees"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "13 degrees"}]},
    ]


def test_calls_gathered_from_a_stream_go_back_without_their_places() -> None:
    # Cohere's words otherwise: unknown field: parameter 'index' is not a valid field.
    gathered = [call | {"index": place} for place, call in enumerate(CALLS)]
    messages = [WITH_TOOLS[0], WITH_TOOLS[1] | {"tool_calls": gathered}, *WITH_TOOLS[2:]]
    assert sent({"messages": messages}) == sent({"messages": WITH_TOOLS})
    assert not warnings({"messages": messages})


def test_what_a_turn_cannot_hold_is_left_out_with_a_warning() -> None:
    turn = {"role": "assistant", "content": "Yes.", "x_own": 1, "name": "al"}
    assert sent({"messages": [turn]})["messages"] == [{"role": "assistant", "content": "Yes."}]
    assert {warning.partition(":")[0] for warning in warnings({"messages": [turn]})} == {"messages[0].name", "messages[0].x_own"}


def test_developers_are_the_system_and_what_was_said_comes_back() -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm.", "citations": [CITATION], "annotations": []},
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "No."}]},
        {"role": "assistant", "content": "", "tool_calls": CALLS, "tool_plan": "Own.", "reasoning_content": "Hm."},
    ]
    assert sent({"messages": messages})["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm."}, text_block("Yes.")], "citations": [CITATION]},
        {"role": "assistant", "content": "No."},
        {"role": "assistant", "content": [text_block("a"), text_block("No.")]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm."}], "tool_calls": CALLS, "tool_plan": "Own."},
    ]


def test_images_and_coheres_own_blocks_stay_where_they_are() -> None:
    parts = [
        text_block("What?"),
        image("https://example.com/a.png", detail="low"),
        image("data:image/png;base64,AAAA"),
        {"type": "document", "document": {"id": "d", "data": {"x": 1}}},
    ]
    assert sent(user(*parts))["messages"] == [{"role": "user", "content": parts}]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (user(text_block("a"), {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}), "messages[0].content[1]"),
        (user({"type": "file", "file": {"file_id": "f"}}), "messages[0].content[0]"),
        ({"messages": [{"role": "function", "name": "f", "content": "1"}]}, "messages[0].role"),
        ({"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}]}, "messages[0].function_call"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "c", "type": "custom"}]}]}, "messages[0].tool_calls[0]"),
        ({"tools": [TOOL, {"type": "custom", "custom": {"name": "x"}}]}, "tools[1]"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}, "tool_choice"),
        ({"tools": [TOOL], "parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"n": 2}, "n"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"logprobs": True, "top_logprobs": 2}, "top_logprobs"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}, "response_format.json_schema.schema"),
        ({"reasoning_effort": "immense"}, "reasoning_effort"),
    ],
)
def test_what_cohere_cannot_be_told_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    assert refused(body) == param


def test_what_does_no_harm_is_left_out_with_a_warning() -> None:
    body = {"user": "u", "n": 1, "messages": [{"role": "user", "content": "Hi", "name": "Al"}]}
    assert warnings(body) == (
        "messages[0].name: has no counterpart in Cohere's API, left out",
        "user: has no counterpart in Cohere's API, left out",
    )
