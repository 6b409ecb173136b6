"""What is sent in Google Gemini's dialect."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.dispatch.adapters.gemini_dialogue import UNSIGNED
from services.dispatch.failure import Failure, Kind
from services.wire.openai import decode_request
from tests.adapters import golden
from tests.adapters.gemini_asking import ADAPTER, MODEL, SCHEMA, TEXT, WEATHER, encoded, sent, user


def refused(**members: Any) -> str:
    with pytest.raises(Failure) as caught:
        encoded(**members)
    assert caught.value.kind is Kind.UNSUPPORTED
    assert f"'{caught.value.param}'" in caught.value.message
    return caught.value.param


@pytest.mark.parametrize("case", sorted((golden.ROOT / "gemini" / "requests").iterdir()), ids=lambda case: case.name)
def test_a_request_is_told_as_reviewed(case: Path) -> None:
    wire = ADAPTER.encode(decode_request((case / "request.json").read_bytes()), MODEL)
    shown = {"path": wire.path, "headers": dict(wire.headers), "warnings": wire.warnings, "body": json.loads(wire.body)}
    golden.check(case / "wire.json", golden.pretty(shown))


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gemini-3-flash", "/v1beta/models/gemini-3-flash:generateContent"),
        ("models/gemini-3-flash", "/v1beta/models/gemini-3-flash:generateContent"),
        ("tunedModels/mine-1", "/v1beta/tunedModels/mine-1:generateContent"),
        ("../a b/c?d", "/v1beta/models/..%2Fa%20b%2Fc%3Fd:generateContent"),
    ],
)
def test_the_path_names_the_model(model: str, path: str) -> None:
    assert encoded(model).path == path
    assert encoded(model, stream=True).path == path.replace(":generateContent", ":streamGenerateContent?alt=sse")


def test_the_key_is_a_header() -> None:
    assert ADAPTER.authorization("k") == {"x-goog-api-key": "k"}


def test_a_plain_question_is_only_its_contents() -> None:
    assert sent() == {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}


def test_system_messages_alone_are_the_users_turn() -> None:
    assert sent(messages=[{"role": "system", "content": "Hi"}]) == {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}


def test_a_system_message_between_turns_joins_the_instruction_with_a_warning() -> None:
    wire = encoded(messages=[{"role": "user", "content": "Hi"}, {"role": "developer", "content": "Be brief."}])
    assert json.loads(wire.body)["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    assert [warning.partition(": ")[0] for warning in wire.warnings] == ["messages[1].role"]


@pytest.mark.parametrize(
    ("model", "effort", "thinking"),
    [
        ("gemini-3-flash", "minimal", {"thinkingLevel": "MINIMAL", "includeThoughts": True}),
        ("gemini-flash-latest", "xhigh", {"thinkingLevel": "XHIGH", "includeThoughts": True}),
        ("gemini-2.5-flash", "medium", {"thinkingBudget": 8192, "includeThoughts": True}),
        ("models/gemini-2.5-pro", "high", {"thinkingBudget": 24576, "includeThoughts": True}),
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
    ],
)
def test_an_effort_is_a_level_or_a_budget(model: str, effort: str, thinking: dict[str, Any]) -> None:
    assert sent(model, reasoning_effort=effort)["generationConfig"] == {"thinkingConfig": thinking}


@pytest.mark.parametrize(
    ("choice", "is_strict", "calling"),
    [
        (None, False, None),
        (None, True, {"mode": "VALIDATED"}),
        ("auto", False, {"mode": "AUTO"}),
        ("none", True, {"mode": "NONE"}),
        ("required", False, {"mode": "ANY"}),
        ({"type": "function", "function": {"name": "weather"}}, False, {"mode": "ANY", "allowedFunctionNames": ["weather"]}),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "weather"}}]}},
            False,
            {"mode": "VALIDATED", "allowedFunctionNames": ["weather"]},
        ),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"function": {"name": "weather"}}]}},
            False,
            {"mode": "ANY", "allowedFunctionNames": ["weather"]},
        ),
    ],
)
def test_every_tool_choice_is_a_mode(choice: Any, is_strict: bool, calling: dict[str, Any] | None) -> None:
    tool = {"type": "function", "function": {**WEATHER["function"], "strict": is_strict}}
    body = sent(tools=[tool], tool_choice=choice)
    assert body.get("toolConfig") == (None if calling is None else {"functionCallingConfig": calling})
    assert body["tools"] == [{"functionDeclarations": [{"name": "weather", "description": "The weather.", "parametersJsonSchema": SCHEMA}]}]


def call_turn(**members: Any) -> list[dict[str, Any]]:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    return [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": None, "tool_calls": [call | members, call]}]


def test_calls_of_another_model_bear_googles_mark_where_signatures_are_demanded() -> None:
    first, second = sent(messages=call_turn())["contents"][1]["parts"]
    assert first["thoughtSignature"] == UNSIGNED
    assert "thoughtSignature" not in second
    older, _ = sent("gemini-2.5-flash", messages=call_turn())["contents"][1]["parts"]
    assert "thoughtSignature" not in older
    signed, _ = sent(messages=call_turn(extra_content={"google": {"thought_signature": "c2ln"}}))["contents"][1]["parts"]
    assert signed["thoughtSignature"] == "c2ln"


@pytest.mark.parametrize(
    ("content", "response"),
    [
        ("fine", {"output": "fine"}),
        ("[1]", {"output": "[1]"}),
        ("", {"output": ""}),
        ('{"a": 1.0}', {"a": 1.0}),
        ([{"type": "text", "text": '{"a":1}'}], {"a": 1}),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], {"output": ["a", "b"]}),
    ],
)
def test_a_tools_result_is_an_object_that_names_its_function(content: Any, response: Any) -> None:
    body = sent(messages=[*call_turn(), {"role": "tool", "tool_call_id": "call_1", "content": content}])
    assert body["contents"][2] == {
        "role": "user",
        "parts": [{"functionResponse": {"id": "call_1", "name": "weather", "response": response}}],
    }


def test_the_numbers_of_arguments_and_results_keep_their_text() -> None:
    digits = "1234567890123456789012345678901234567890"
    turn = call_turn(function={"name": "weather", "arguments": f'{{"a":1e2,"b":{digits}}}'})
    body = encoded(messages=[*turn, {"role": "tool", "tool_call_id": "call_1", "content": '{"c":1.50}'}]).body
    assert f'"args":{{"a":1e2,"b":{digits}}}'.encode() in body
    assert b'"response":{"c":1.50}' in body


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"audio": {"voice": "x"}, "modalities": ["text"]}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"tools": [WEATHER, {"type": "custom", "custom": {"name": "x"}}]}, "tools[1]"),
        ({"tools": [{"type": "function", "function": None}]}, "tools[0]"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": 7}}]}, "tools[0].function.parameters"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": {"type": "custom", "custom": {"name": "x"}}}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": 7}}, "tool_choice"),
        ({"tool_choice": [1]}, "tool_choice"),
        ({"contents": []}, "contents"),
        ({"system_instruction": {}}, "system_instruction"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "assistant", "function_call": {"name": "f"}}]}, "messages[0].function_call"),
        ({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, "messages[0].audio"),
        ({"messages": [{"role": "assistant", "images": [7]}]}, "messages[0].images[0]"),
        ({"messages": [{"role": "tool", "tool_call_id": "x", "content": "y"}]}, "messages[0].tool_call_id"),
        ({"messages": call_turn(function={"name": "f", "arguments": "{oops"})}, "messages[1].tool_calls[0].function.arguments"),
        ({"messages": call_turn(function={"name": "f", "arguments": "[]"})}, "messages[1].tool_calls[0].function.arguments"),
        ({"messages": call_turn(type="custom")}, "messages[1].tool_calls[0]"),
        ({"messages": user(TEXT, {"type": "video_url", "video_url": {"url": "x"}})}, "messages[0].content[1]"),
        ({"messages": user({"type": "image_url", "image_url": {"url": "data:image/png,x"}})}, "messages[0].content[0]"),
        ({"messages": user({"type": "image_url", "image_url": {"url": "data:;base64,x"}})}, "messages[0].content[0]"),
        ({"messages": user({"type": "image_url"})}, "messages[0].content[0]"),
        ({"messages": user({"type": "file", "file": {"file_id": "file-1"}})}, "messages[0].content[0]"),
        ({"messages": user({"type": "file", "file": {"file_data": "x"}})}, "messages[0].content[0].file.file_data"),
        ({"messages": [{"role": "system", "content": [TEXT, {"type": "input_audio", "input_audio": {}}]}]}, "messages[0].content[1]"),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(members: dict[str, Any], param: str) -> None:
    assert refused(**members) == param


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"service_tier": "scale"}, "service_tier"),
        ({"metadata": {"a": "b"}}, "metadata"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"messages": [{"role": "user", "content": "Hi", "name": "Al"}]}, "messages[0].name"),
        ({"messages": [{"role": "assistant", "content": "Hi", "reasoning_details": [1]}]}, "messages[0].reasoning_details"),
        ({"messages": user({"type": "text", "text": "a", "cache_control": {}})}, "messages[0].content[0].cache_control"),
        (
            {"messages": user({"type": "image_url", "image_url": {"url": "https://a/b", "detail": "high"}})},
            "messages[0].content[0].image_url.detail",
        ),
        ({"tools": [{**WEATHER, "cache_control": {}}]}, "tools[0].cache_control"),
    ],
)
def test_what_is_harmless_is_left_out_with_a_warning(members: dict[str, Any], param: str) -> None:
    [warning] = encoded(**members).warnings
    assert warning.startswith(f"{param}: ")


def test_asking_for_what_is_so_anyway_warns_of_nothing() -> None:
    members: dict[str, Any] = {"service_tier": "auto", "modalities": ["text"], "parallel_tool_calls": True, "top_logprobs": 0}
    echoed: dict[str, Any] = {
        "role": "assistant",
        "content": "Hi",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
    }
    wire = encoded(**members, messages=[echoed])
    assert (wire.warnings, json.loads(wire.body)) == ((), {"contents": [{"role": "model", "parts": [{"text": "Hi"}]}]})


def test_native_members_of_the_config_win() -> None:
    config = sent(temperature=1, generation_config={"temperature": 0, "top_k": 3}, topP=0.5)["generationConfig"]
    assert config == {"temperature": 0, "topK": 3, "topP": 0.5}


@pytest.mark.parametrize(("seed", "folded"), [(-5, -5), (2**31 - 1, 2**31 - 1), (2**31, 0), (2**40 + 9, 9), (-(2**31) - 1, 2**31 - 1)])
def test_a_seed_fits_its_32_bits(seed: int, folded: int) -> None:
    assert sent(seed=seed)["generationConfig"] == {"seed": folded}
