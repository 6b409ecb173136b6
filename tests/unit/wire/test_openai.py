import json
from typing import Any

import pytest

from joulegate.chat.v1 import chat_pb2
from services.wire import openai
from services.wire.errors import InvalidAnswer, InvalidRequest
from services.wire.fields import decode_members, without_extra
from services.wire.fingerprint import exact_digest
from tests.unit.wire import samples
from tests.unit.wire.json_text import parse

MESSAGES = '"messages":[{"role":"user","content":"hi"}]'


def test_known_fields_of_a_request_are_typed() -> None:
    request = openai.decode_request(json.dumps(samples.FULL_REQUEST).encode())
    assert (request.model, request.temperature, request.top_p, request.n, request.seed) == ("gpt-4.1", 0.7, 1.0, 2, 42)
    assert list(request.stop.sequences) == ["END", "STOP"] and not request.stop.is_string
    assert [message.role for message in request.messages] == [
        chat_pb2.ROLE_DEVELOPER,
        chat_pb2.ROLE_USER,
        chat_pb2.ROLE_ASSISTANT,
        chat_pb2.ROLE_TOOL,
    ]
    parts = request.messages[1].parts.parts
    assert parts[1].image_url.url == "https://example.org/cat.png" and parts[2].input_audio.format == "wav"
    assert request.messages[2].tool_calls[0].function.arguments == '{"city":"Paris"}'
    assert json.loads(request.tools[0].function.parameters_json)["required"] == ["city"]
    assert json.loads(request.tool_choice_json)["type"] == "function"
    assert set(decode_members(request.extra_json)) == {"logit_bias", "service_tier"}
    assert json.loads(openai.encode_request(request)) == samples.FULL_REQUEST


def test_a_real_completion_is_typed_and_comes_back() -> None:
    completion = openai.decode_completion(samples.COMPLETION)
    choice = completion.choices[0]
    assert choice.finish_reason == chat_pb2.FINISH_REASON_STOP and choice.message.text == "Hello there"
    assert completion.usage.prompt_tokens_details.HasField("cached_tokens")
    assert set(decode_members(choice.message.extra_json)) == {"refusal", "annotations"}
    assert parse(openai.encode_completion(completion)) == parse(samples.COMPLETION)


@pytest.mark.parametrize("data", samples.PARALLEL_TOOL_CALLS)
def test_real_chunks_come_back(data: bytes) -> None:
    assert parse(openai.encode_chunk(openai.decode_chunk(data))) == parse(data)


def test_an_ordinary_chunk_leaves_nothing_odd_in_extra_json() -> None:
    chunk = openai.decode_chunk(samples.chunk({"content": "Hi"}))
    assert chunk.choices[0].delta == chat_pb2.Message(text="Hi")
    assert set(decode_members(chunk.extra_json)) == {"service_tier", "usage", "obfuscation"}


@pytest.mark.parametrize("text", ["0.7", "1", "0", "-2", "1e22", "1e-7"])
def test_a_canonical_number_is_only_typed(text: str) -> None:
    request = openai.decode_request(f'{{"model":"m",{MESSAGES},"temperature":{text}}}'.encode())
    assert request.temperature == float(text) and request.extra_json == b""
    assert f'"temperature":{text}'.encode() in openai.encode_request(request)


@pytest.mark.parametrize(("name", "text", "value"), [("temperature", "0.70", 0.7), ("max_tokens", "1e2", 100), ("seed", "7.0", 7)])
def test_a_number_written_otherwise_is_typed_and_keeps_its_text(name: str, text: str, value: float) -> None:
    request = openai.decode_request(f'{{"model":"m",{MESSAGES},"{name}":{text}}}'.encode())
    assert getattr(request, name) == value
    assert f'"{name}":{text}'.encode() in openai.encode_request(request)


def test_a_name_taken_out_of_extra_json_gives_way_to_the_typed_field() -> None:
    request = openai.decode_request(f'{{"model":"m",{MESSAGES},"max_tokens":1e2,"store":true}}'.encode())
    request.max_tokens = 50
    request.extra_json = without_extra(request.extra_json, {"max_tokens"})
    assert json.loads(openai.encode_request(request))["max_tokens"] == 50
    assert without_extra(request.extra_json, {"store"}) == b""
    assert without_extra(request.extra_json, {"other"}) == request.extra_json
    assert without_extra(b"", {"store"}) == b""


def test_the_last_of_duplicate_names_wins() -> None:
    request = openai.decode_request(f'{{"model":"a","model":"b",{MESSAGES},"x":1,"x":2}}'.encode())
    assert request.model == "b" and request.extra_json == b'{"x":2}'


def case(body: str, param: str | None) -> Any:
    return pytest.param(body.encode(errors="surrogateescape"), param, id=body[:60])


def with_message(members: str) -> str:
    return f'{{"model":"m","messages":[{{{members}}}]}}'


def with_field(members: str) -> str:
    return f'{{"model":"m",{MESSAGES},{members}}}'


@pytest.mark.parametrize(
    ("body", "param"),
    [
        case("", None),
        case("{", None),
        case("[]", None),
        case('"text"', None),
        case("\ufeff" + with_field('"n":1'), None),
        case(with_field('"x":"\udcff"'), None),
        case(with_field('"x":{"y":"\udced\udca0\udc80"}'), None),
        case(with_field('"x":{"y":"\\ud800"}'), None),
        case(with_field('"user":"\\udc00\\ud800"'), None),
        case(with_field('"x":[1,2,]'), None),
        case(with_field('"x":{"y":NaN}'), None),
        case(with_field('"x":01'), None),
        case(with_field('"n":1') + " trailing", None),
        case(f"{{{MESSAGES}}}", "model"),
        case(f'{{"model":"",{MESSAGES}}}', "model"),
        case(f'{{"model":null,{MESSAGES}}}', "model"),
        case(f'{{"model":5,{MESSAGES}}}', "model"),
        case('{"model":"m"}', "messages"),
        case('{"model":"m","messages":null}', "messages"),
        case('{"model":"m","messages":[]}', "messages"),
        case('{"model":"m","messages":"hi"}', "messages"),
        case('{"model":"m","messages":["hi"]}', "messages[0]"),
        case('{"model":"m","messages":[null]}', "messages[0]"),
        case(with_message('"content":"hi"'), "messages[0].role"),
        case(with_message('"role":null'), "messages[0].role"),
        case(with_message('"role":"robot"'), "messages[0].role"),
        case(with_message('"role":1'), "messages[0].role"),
        case(with_message('"role":"user","content":5'), "messages[0].content"),
        case(with_message('"role":"user","content":["hi"]'), "messages[0].content[0]"),
        case(with_message('"role":"user","content":[{"type":"image_url","image_url":"x"}]'), "messages[0].content[0].image_url"),
        case(
            with_message('"role":"assistant","tool_calls":[{"function":{"arguments":{}}}]'), "messages[0].tool_calls[0].function.arguments"
        ),
        case(with_field('"temperature":"hot"'), "temperature"),
        case(with_field('"temperature":1e999'), "temperature"),
        case(with_field('"max_tokens":1.5'), "max_tokens"),
        case(with_field('"n":2147483648'), "n"),
        case(with_field('"seed":9223372036854775808'), "seed"),
        case(with_field('"stream":"yes"'), "stream"),
        case(with_field('"stop":[1]'), "stop"),
        case(with_field('"stop":{}'), "stop"),
        case(with_field('"stream_options":true'), "stream_options"),
        case(with_field('"stream_options":{"include_usage":1}'), "stream_options.include_usage"),
        case(with_field('"tools":[{"type":"function"},{"function":{"name":7}}]'), "tools[1].function.name"),
    ],
)
def test_an_invalid_request_names_its_fault(body: bytes, param: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        openai.decode_request(body)
    assert caught.value.param == param
    assert caught.value.message == str(caught.value)
    assert param is None or param == "model" or f"'{param}'" in caught.value.message


def test_a_wrong_type_is_told_with_what_came_instead() -> None:
    with pytest.raises(InvalidRequest) as caught:
        openai.decode_request(with_field('"temperature":"hot"').encode())
    assert caught.value.message == "Invalid value for 'temperature': expected a decimal, but got a string instead."


def test_null_is_no_fault_in_an_optional_field() -> None:
    body = with_field('"temperature":null,"tools":null,"stop":null,"stream_options":{"include_usage":null}').encode()
    assert parse(openai.encode_request(openai.decode_request(body))) == parse(body)


@pytest.mark.parametrize("depth", [256, 1000, 100_000])
@pytest.mark.parametrize("opening", ["[", '{"a":', '{"]\\"]":'])
def test_a_nesting_bomb_is_an_invalid_document(opening: str, depth: int) -> None:
    bomb = opening * depth + "1" + ("]" if opening == "[" else "}") * depth
    with pytest.raises(InvalidRequest):
        openai.decode_request(with_field(f'"x":{bomb}').encode())
    with pytest.raises(InvalidAnswer):
        openai.decode_chunk(f'{{"x":{bomb}}}'.encode())


def test_what_is_accepted_can_be_read_again_deeper_in_the_stack() -> None:
    def read_again(request: chat_pb2.ChatRequest, frames: int) -> bytes:
        return read_again(request, frames - 1) if frames else exact_digest(request)

    for brackets in ("[]", ('{"a":', "}")):
        opening, closing = brackets
        request = openai.decode_request(with_field(f'"x":{opening * 255}1{closing * 255}').encode())
        assert len(read_again(request, frames=200)) == 32


def test_many_brackets_side_by_side_are_no_bomb() -> None:
    body = with_field('"x":[' + ",".join(["[]"] * 5000) + "]").encode()
    assert parse(openai.encode_request(openai.decode_request(body))) == parse(body)


@pytest.mark.parametrize("document", [b"", b"[DONE]", b"[]", b"null", b'{"id":"\xff"}', b'{"id":"\\ud800"}'])
def test_an_answer_that_is_no_json_object_is_invalid(document: bytes) -> None:
    for decode in (openai.decode_completion, openai.decode_chunk):
        with pytest.raises(InvalidAnswer):
            decode(document)


def test_what_openai_requires_is_written_even_when_unset() -> None:
    assert json.loads(openai.encode_completion(chat_pb2.ChatCompletion(choices=[chat_pb2.Choice()], usage=chat_pb2.Usage()))) == {
        "id": "",
        "object": "chat.completion",
        "created": 0,
        "model": "",
        "choices": [{"index": 0, "message": {}, "finish_reason": None}],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }
    chunk = json.loads(openai.encode_chunk(chat_pb2.ChatCompletionChunk(choices=[chat_pb2.ChunkChoice()])))
    assert chunk["object"] == "chat.completion.chunk"
    assert chunk["choices"] == [{"index": 0, "delta": {}, "finish_reason": None}]


def test_an_unknown_finish_reason_or_role_stays_in_extra_json() -> None:
    choice = openai.decode_chunk(samples.chunk({"role": "narrator"}, finish_reason="eos")).choices[0]
    assert choice.finish_reason == chat_pb2.FINISH_REASON_UNSPECIFIED and choice.delta.role == chat_pb2.ROLE_UNSPECIFIED
    assert decode_members(choice.extra_json).keys() == {"logprobs", "finish_reason"}
    assert choice.delta.extra_json == b'{"role":"narrator"}'


def test_a_foreign_object_name_is_kept() -> None:
    chunk = openai.decode_chunk(b'{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[]}')
    assert chunk.extra_json == b'{"object":"chat.completion"}'


@pytest.mark.parametrize("usage", [None, samples.USAGE])
def test_a_chunk_without_usage_has_no_such_member(usage: dict[str, Any] | None) -> None:
    chunk = openai.decode_chunk(samples.chunk({"content": "x"}, usage=usage))
    assert "usage" in json.loads(openai.encode_chunk(chunk))
    assert "usage" not in json.loads(openai.encode_chunk(chunk, with_usage=False))


def test_additions_are_written_as_they_are() -> None:
    additions = {"x-gateway": b'{"cost_usd":0.10}', "service_tier": b'"flex"'}
    for written in (
        openai.encode_completion(openai.decode_completion(samples.COMPLETION), additions=additions),
        openai.encode_chunk(openai.decode_chunk(samples.chunk()), additions=additions),
    ):
        assert b'"x-gateway":{"cost_usd":0.10}' in written
        assert json.loads(written)["service_tier"] == "flex"


@pytest.mark.parametrize("extra_json", [b"{", b"[]", b"\xff"])
def test_a_typed_request_with_a_bad_extra_json_is_invalid(extra_json: bytes) -> None:
    message = chat_pb2.Message(role=chat_pb2.ROLE_USER, text="hi")
    with pytest.raises(InvalidRequest):
        openai.checked_request(chat_pb2.ChatRequest(model="m", messages=[message], extra_json=extra_json))


def test_a_typed_request_cannot_say_two_things() -> None:
    message = chat_pb2.Message(role=chat_pb2.ROLE_USER, text="hi")
    request = chat_pb2.ChatRequest(model="m", messages=[message], max_tokens=5, extra_json=b'{"max_tokens":1000000}')
    assert openai.checked_request(request) == chat_pb2.ChatRequest(model="m", messages=[message], max_tokens=1_000_000)
