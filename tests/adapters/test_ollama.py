"""Ollama's own dialect: what is sent, and what is read from answers of every kind, in any chunking."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulegate.chat.v1 import chat_pb2
from services.dispatch.adapters.ollama import OllamaAdapter
from services.dispatch.failure import Failure, Kind
from services.wire.assemble import CompletionAssembler
from services.wire.ndjson import LineDecoder, LineTooLarge
from services.wire.openai import decode_request
from tests.adapters.reading import ANYTHING, CREATED, delta_fields, json_of, read, read_all, request_of
from tests.fakes.ollama_upstream import NDJSON, OllamaUpstream, error_body, last, line, stream_parts, whole_json

ADAPTER = OllamaAdapter()
ASK = request_of({})
ASK_STREAM = request_of({"stream": True})
PIXEL = base64.b64encode(b"\x89PNG fake").decode()
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Says the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
CALL = {"function": {"name": "weather", "arguments": {"city": "Köln", "days": 2}}}
ASSISTANT_CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Köln"}'}}
WITH_TOOLS = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": None, "tool_calls": [ASSISTANT_CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "12 degrees"},
    {"role": "user", "content": "And tomorrow?"},
]


def sent(body: dict[str, Any]) -> dict[str, Any]:
    encoded: dict[str, Any] = json.loads(ADAPTER.encode(request_of(body), "small").body)
    return encoded


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


# --- what is sent ---


@pytest.mark.parametrize("is_stream", [True, False])
def test_whether_to_stream_is_always_said(is_stream: bool) -> None:
    wire = ADAPTER.encode(request_of({"stream": is_stream}), "small")
    assert json.loads(wire.body) == {"model": "small", "messages": [{"role": "user", "content": "Hi"}], "stream": is_stream}
    assert wire.path == "/api/chat"


def test_openais_parameters_become_options() -> None:
    body = {
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "presence_penalty": 0.1,
        "frequency_penalty": -0.2,
        "max_tokens": 10,
        "max_completion_tokens": 20,
        "stop": "END",
    }
    options = {name: body[name] for name in ("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty")}
    assert sent(body)["options"] == options | {"num_predict": 20, "stop": ["END"]}
    assert sent({"max_tokens": 10, "stop": ["a", "b"]})["options"] == {"num_predict": 10, "stop": ["a", "b"]}


def test_the_clients_own_options_win_and_its_own_members_arrive() -> None:
    body = {"temperature": 0.5, "top_k": 40, "options": {"temperature": 0.1, "num_ctx": 8192}, "keep_alive": "5m", "think": True, "x": [1]}
    assert {name: value for name, value in sent(body | {"reasoning_effort": "low"}).items() if name not in ("model", "messages")} == {
        "stream": False,
        "options": {"temperature": 0.1, "top_k": 40, "num_ctx": 8192},
        "keep_alive": "5m",
        "think": True,
        "x": [1],
    }


@pytest.mark.parametrize(
    ("effort", "think"), [("none", False), ("minimal", "low"), ("low", "low"), ("medium", "medium"), ("high", "high"), ("xhigh", "high")]
)
def test_reasoning_effort_becomes_think(effort: str, think: bool | str) -> None:
    assert sent({"reasoning_effort": effort})["think"] == think
    assert bool(warnings({"reasoning_effort": effort})) == (effort in ("minimal", "xhigh"))


def test_json_mode_and_schemas_become_the_format() -> None:
    assert "format" not in sent({"response_format": {"type": "text"}})
    assert sent({"response_format": {"type": "json_object"}})["format"] == "json"
    schema = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA}}
    assert sent({"response_format": schema})["format"] == SCHEMA


def test_the_numbers_of_a_schema_and_of_arguments_keep_their_text() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x":1.0,"y":12345678901234567890123}'}}
    wire = ADAPTER.encode(request_of({"messages": [{"role": "assistant", "tool_calls": [call]}]}), "small")
    assert b'"arguments":{"x":1.0,"y":12345678901234567890123}' in wire.body


def test_tools_are_offered_unless_none_may_be_chosen() -> None:
    assert sent({"tools": [TOOL], "tool_choice": "auto"})["tools"] == [TOOL]
    assert "tools" not in sent({"tools": [TOOL], "tool_choice": "none", "parallel_tool_calls": False})
    strict = {"type": "function", "function": TOOL["function"] | {"strict": True}}  # type: ignore[operator]
    assert sent({"tools": [strict]})["tools"] == [TOOL]
    assert warnings({"tools": [strict]}) == ("tools[0].function.strict: has no counterpart in Ollama's API, left out",)


def test_results_name_the_function_of_their_call() -> None:
    assert sent({"messages": WITH_TOOLS})["messages"] == [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "tool_calls": [{"id": "c1", "function": {"name": "weather", "arguments": {"city": "Köln"}}}]},
        {"role": "tool", "content": "12 degrees", "tool_name": "weather", "tool_call_id": "c1"},
        {"role": "user", "content": "And tomorrow?"},
    ]


def test_developers_are_the_system_and_what_was_said_comes_back() -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."},
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "user", "content": "Hi", "x_own": 1},
    ]
    assert sent({"messages": messages})["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "system", "content": "a\nb"},
        {"role": "assistant", "content": "Yes.", "thinking": "Hm."},
        {"role": "assistant", "content": "No."},
        {"role": "user", "content": "Hi", "x_own": 1},
    ]


def test_images_stand_beside_the_text() -> None:
    body = user({"type": "text", "text": "What?"}, image(f"data:image/png;base64,{PIXEL}"), image(f"data:;base64,{PIXEL}", detail="high"))
    assert sent(body)["messages"] == [{"role": "user", "content": "What?", "images": [PIXEL, PIXEL]}]
    assert warnings(body) == ("messages[0].content[2].image_url.detail: has no counterpart in Ollama's API, left out",)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (user({"type": "text", "text": "a"}, image("https://example.com/a.png")), "messages[0].content[1]"),
        (user({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}), "messages[0].content[0]"),
        (user({"type": "file", "file": {"file_id": "f"}}), "messages[0].content[0]"),
        ({"messages": [{"role": "function", "name": "f", "content": "1"}]}, "messages[0].role"),
        ({"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}]}, "messages[0].function_call"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0]"),
        ({"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "weather"}}}, "tool_choice"),
        ({"tools": [TOOL], "parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"n": 2}, "n"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}, "response_format.json_schema.schema"),
        ({"reasoning_effort": "immense"}, "reasoning_effort"),
        ({"options": "fast"}, "options"),
    ],
)
def test_what_ollama_cannot_be_told_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    assert refused(body) == param


@pytest.mark.parametrize("arguments", ["{", "[]", "7", '"x"', "null"])
def test_arguments_that_are_no_object_are_refused(arguments: str) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    assert refused({"messages": [{"role": "assistant", "tool_calls": [call]}]}) == "messages[0].tool_calls[0].function.arguments"


@pytest.mark.parametrize("number", ["1e999", "9" * 5000])
def test_numbers_beyond_all_bounds_are_refused(number: str) -> None:
    body = '{"model":"m","messages":[{"role":"user","content":"Hi"}],"x":' + number + "}"
    with pytest.raises(Failure, match="larger than any double"):
        ADAPTER.encode(decode_request(body.encode()), "small")


def test_what_does_no_harm_is_left_out_with_a_warning() -> None:
    body = {"user": "u", "n": 1, "store": False, "messages": [{"role": "user", "content": "Hi", "name": "Al"}]}
    assert warnings(body) == (
        "messages[0].name: has no counterpart in Ollama's API, left out",
        "user: has no counterpart in Ollama's API, left out",
    )


# --- answers ---


def test_a_whole_answer_is_one_completion() -> None:
    [event], failure = read_all(
        ADAPTER, ASK, json.dumps(whole_json({"content": "Hello!", "thinking": "Hm."}, x=1.0)).encode(), "application/json"
    )
    assert failure is None
    assert event == {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "small",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello!", "reasoning_content": "Hm."},
                "finish_reason": "stop",
                "native_finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 2,
            "total_tokens": 7,
            "total_duration": 5_000_000,
            "load_duration": 1_000_000,
            "prompt_eval_duration": 2_000_000,
            "eval_duration": 1_500_000,
        },
        "x": 1.0,
    }


def test_a_stream_says_role_texts_reason_and_usage() -> None:
    body = line({"thinking": "Hm."}) + line({"content": "Hé"}) + line({"content": "llo"}) + last()
    events, failure = read(ADAPTER, ASK_STREAM, [body], NDJSON)
    assert failure is None
    assert delta_fields(events) == [
        {"role": "ROLE_ASSISTANT", "text": ""},
        {"reasoning_content": "Hm."},
        {"text": "Hé"},
        {"text": "llo"},
        {},
    ]
    assert events[-2].chunk.choices[0].finish_reason == chat_pb2.FINISH_REASON_STOP
    assert (len(events[-1].chunk.choices), events[-1].chunk.usage.prompt_tokens, events[-1].chunk.usage.completion_tokens) == (0, 5, 2)
    assert {(event.chunk.id, event.chunk.created, event.chunk.model) for event in events} == {("chatcmpl-0", CREATED, "small")}


def test_calls_get_ids_and_places_of_their_own() -> None:
    own = {"id": "call_own", "function": {"index": 0, "name": "clock", "arguments": {}}}
    body = line({"tool_calls": [CALL]}) + line({"tool_calls": [own, CALL]}) + last()
    events, failure = read(ADAPTER, ASK_STREAM, [body], NDJSON)
    assert failure is None
    calls = [call for event in events for choice in event.chunk.choices for call in choice.delta.tool_calls]
    assert [(call.index, call.id, call.function.name, call.function.arguments) for call in calls] == [
        (0, "call_0_0", "weather", '{"city": "K\\u00f6ln", "days": 2}'),
        (1, "call_own", "clock", "{}"),
        (2, "call_0_2", "weather", '{"city": "K\\u00f6ln", "days": 2}'),
    ]
    assert events[-2].chunk.choices[0].finish_reason == chat_pb2.FINISH_REASON_TOOL_CALLS


def test_a_call_is_passed_on_before_the_stream_ends() -> None:
    events, failure = read(ADAPTER, ASK_STREAM, [line({"tool_calls": [CALL]})], NDJSON)
    assert [call.function.name for event in events for call in event.chunk.choices[0].delta.tool_calls] == ["weather"]
    assert failure is not None


@pytest.mark.parametrize(
    ("native", "reason"), [("stop", "stop"), ("length", "length"), ("load", "stop"), ("unload", "stop"), ("a_new_word", "a_new_word")]
)
@pytest.mark.parametrize("is_stream", [True, False])
def test_every_reason_is_kept_in_ollamas_word(native: str, reason: str, is_stream: bool) -> None:
    body = last(native) if is_stream else json.dumps(whole_json({"content": "a"}, native)).encode()
    events, failure = read_all(ADAPTER, ASK_STREAM if is_stream else ASK, body, NDJSON)
    assert failure is None
    [choice] = [choice for event in events for choice in event["choices"] if choice["finish_reason"]]
    assert (choice["finish_reason"], choice["native_finish_reason"]) == (reason, native)


def test_probabilities_are_openais() -> None:
    logprobs = [
        {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "a", "logprob": -0.5}]},
        {"token": "b", "logprob": -1},
    ]
    expected = {"content": [logprobs[0], logprobs[1] | {"bytes": None, "top_logprobs": []}], "refusal": None}
    assert sent({"logprobs": True, "top_logprobs": 1}).items() >= {"logprobs": True, "top_logprobs": 1}.items()
    [event], _ = read_all(ADAPTER, ASK, json.dumps(whole_json({"content": "ab"}, logprobs=logprobs)).encode(), "application/json")
    assert event["choices"][0]["logprobs"] == expected
    events, _ = read_all(ADAPTER, ASK_STREAM, line({"content": "ab"}, logprobs=logprobs) + last(), NDJSON)
    assert events[1]["choices"][0]["logprobs"] == expected


def test_what_ollama_says_beside_is_kept_where_it_said_it() -> None:
    body = line({"content": "a", "images": ["x"]}, remote_model="big") + last(context=[1, 2])
    events, failure = read_all(ADAPTER, ASK_STREAM, body, NDJSON)
    assert failure is None
    assert (events[1]["choices"][0]["delta"], events[1]["remote_model"]) == ({"content": "a", "images": ["x"]}, "big")
    assert events[2]["context"] == [1, 2]
    events, _ = read_all(ADAPTER, ASK_STREAM, line(remote_host="far"), NDJSON)
    assert events[1]["remote_host"] == "far"


def test_without_counts_there_is_no_usage() -> None:
    body = line({"content": "a"}) + line(None, done=True, done_reason="stop", total_duration=1)
    events, failure = read_all(ADAPTER, ASK_STREAM, body, NDJSON)
    assert failure is None
    assert not any(event.get("usage") for event in events)
    assert events[-1]["total_duration"] == 1


def test_stream_and_whole_say_the_same() -> None:
    assembler = CompletionAssembler()
    body = line({"thinking": "Hm."}) + line({"content": "Hel"}) + line({"content": "lo"}) + line({"tool_calls": [CALL]}) + last()
    for event in read(ADAPTER, ASK_STREAM, [body], NDJSON)[0]:
        assembler.add(event.chunk)
    message = {"content": "Hello", "thinking": "Hm.", "tool_calls": [CALL]}
    [only], _ = read(ADAPTER, ASK, [json.dumps(whole_json(message)).encode()], "application/json")
    assert json_of(chat_pb2.ChatEvent(completion=assembler.completion())) == json_of(only)


@pytest.mark.parametrize(
    ("created_at", "created"),
    [
        ("2023-11-14T22:13:21.5Z", CREATED + 1),
        ("2023-11-14T23:13:21.123456789+01:00", CREATED + 1),
        ("2023-11-14T22:13:21", CREATED + 1),
        ("0001-01-01T00:00:00Z", 0),
        ("soon", CREATED),
        (None, CREATED),
    ],
)
def test_times_are_seconds(created_at: str | None, created: int) -> None:
    [event], _ = read_all(ADAPTER, ASK, json.dumps(whole_json({}, created_at=created_at)).encode(), "application/json")
    assert event["created"] == created


# --- what goes wrong ---


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n\n",
        line({"content": "a"}),
        line({"content": "a"}) + last()[:-9],
        b"<html>busy</html>",
    ],
)
def test_a_stream_that_ends_too_early_was_cut(body: bytes) -> None:
    assert_broken(body)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"[]\n",
        line({"content": 5}),
        line(message=[]),
        line({"tool_calls": {}}),
        line({"tool_calls": [{"function": {"arguments": {}}}]}),
        line({"content": "a"}, done="yes"),
        last(done_reason=None),
        last(prompt_eval_count=-1),
        last(eval_count=1 << 70),
        line({"content": "a"}).replace(b'"a"', b'"\xff"'),
        line({"content": "a"}).replace(b'"a"', b'"\\ud800"'),
    ],
)
def test_a_stream_that_makes_no_sense_is_broken(nonsense: bytes) -> None:
    assert_broken(nonsense + last())


def assert_broken(body: bytes) -> None:
    events, failure = read(ADAPTER, ASK_STREAM, [body], NDJSON)
    assert failure is not None
    assert failure.kind is Kind.BROKEN
    assert not any(choice.finish_reason for event in events for choice in event.chunk.choices)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"<html>", line({"content": "a"}), b'{"done":true}'])
def test_a_whole_answer_that_is_none_is_broken(body: bytes) -> None:
    events, failure = read(ADAPTER, ASK, [body], "application/json")
    assert (events, failure and failure.kind) == ([], Kind.BROKEN)


def test_a_missing_last_line_end_is_forgiven_and_what_follows_the_end_is_ignored() -> None:
    parts = stream_parts("a")
    expected = read_all(ADAPTER, ASK_STREAM, parts.opening + parts.pieces[0] + parts.ending, NDJSON)
    assert expected[1] is None
    for change in (parts.ending.rstrip(), parts.ending + b"nonsense\n", parts.ending.replace(b"\n", b"\r\n\r\n")):
        assert read_all(ADAPTER, ASK_STREAM, parts.opening + parts.pieces[0] + change, NDJSON) == expected


@pytest.mark.parametrize("is_stream", [True, False])
def test_an_error_in_place_of_an_answer_is_an_error(is_stream: bool) -> None:
    before = line({"content": "a"}) if is_stream else b""
    events, failure = read_all(ADAPTER, ASK_STREAM if is_stream else ASK, before + error_body(200, "out of memory"), NDJSON)
    assert failure == {"kind": "REFUSED", "message": "out of memory", "http_status": 500}
    assert len(events) == (2 if is_stream else 0)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (error_body(404, "model 'x' not found"), "model 'x' not found"),
        (b'{"error":{"message":"m","type":"t"}}', "m"),
        (b'{"message":"m"}', "m"),
        (b"<html><title>502</title></html>", "502"),
        (b"", "HTTP 404"),
        (b'{"error":null}', '{"error":null}'),
        (b"\xff", "\ufffd"),
    ],
)
def test_the_vendors_words_are_kept_whatever_the_body(body: bytes, message: str) -> None:
    failure = ADAPTER.decode_error(404, body)
    assert (failure.kind, failure.http_status, failure.message) == (Kind.REFUSED, 404, message)


@settings(deadline=None)
@given(data=st.data())
def test_no_mutation_of_a_stream_crashes_or_stops_falsely(data: st.DataObject) -> None:
    body = bytearray(line({"thinking": "x"}) + line({"content": "a"}) + line({"tool_calls": [CALL]}) + last())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    spoiled = bytes(body[: data.draw(st.integers(0, len(body)))])
    events, failure = read(ADAPTER, ASK_STREAM, [spoiled], NDJSON)
    assert failure is None or failure.kind in (Kind.BROKEN, Kind.REFUSED)
    for event in events:
        assert event.SerializeToString()
        if any(choice.finish_reason for choice in event.chunk.choices):
            assert b"stop" in spoiled or b"length" in spoiled or b"load" in spoiled


PLACES = ["model", "created_at", "message", "done", "done_reason", "error", "logprobs", "prompt_eval_count", "eval_count", "total_duration"]
INNER = ["role", "content", "thinking", "tool_calls", "images"]


@settings(deadline=None)
@given(outer=st.dictionaries(st.sampled_from(PLACES), ANYTHING), inner=st.dictionaries(st.sampled_from(INNER), ANYTHING), call=ANYTHING)
def test_any_json_in_any_place_is_an_answer_or_a_failure(outer: dict[str, Any], inner: dict[str, Any], call: Any) -> None:
    message = {"content": "a", "tool_calls": [call]} | inner
    for request in (ASK, ASK_STREAM):
        body = line(message, **{"done": True, "done_reason": "stop"} | outer)
        events, failure = read(ADAPTER, request, [body], NDJSON)
        assert failure is not None or outer.get("done", True) is True
        for event in events:
            assert json_of(event)


def test_lines_are_bounded() -> None:
    decoder = LineDecoder(max_line_bytes=10)
    assert decoder.feed(b"12345\n123") == [b"12345"]
    assert decoder.feed(b"4567890\n\n  \n") == [b"1234567890"]
    with pytest.raises(LineTooLarge):
        decoder.feed(b"x" * 11)
    with pytest.raises(LineTooLarge):
        LineDecoder(max_line_bytes=10).feed(b"x" * 11 + b"\n")


def test_a_line_without_end_is_given_up() -> None:
    _, failure = read(ADAPTER, ASK_STREAM, [b"x" * (1 << 23)] * 3, NDJSON)
    assert failure is not None
    assert "larger than" in failure.message


# --- models ---


def test_models_are_listed_by_the_names_they_are_called_by() -> None:
    body = json.dumps(OllamaUpstream().listing(["llama3.2:3b"]) | {"x": 1}).encode()
    assert [(model.id, model.created) for model in ADAPTER.decode_models(body)] == [("llama3.2:3b", CREATED)]
    assert [model.id for model in ADAPTER.decode_models(b'{"models":[{"name":"a"},{"model":7},{},7]}')] == ["a"]


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"models":{}}', b"<html>"])
def test_what_is_no_list_of_models_is_broken(body: bytes) -> None:
    with pytest.raises(Failure):
        ADAPTER.decode_models(body)
