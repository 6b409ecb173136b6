import json
from typing import Any

import pytest

from joulegate.chat.v1 import chat_pb2
from services.wire.assemble import CompletionAssembler, chunks_of
from services.wire.openai import decode_chunk, decode_completion, encode_completion
from tests.unit.wire import samples
from tests.unit.wire.samples import chunk


def assemble(chunks: list[bytes]) -> dict[str, Any]:
    assembler = CompletionAssembler()
    for data in chunks:
        assembler.add(decode_chunk(data))
    answer: dict[str, Any] = json.loads(encode_completion(assembler.completion()))
    return answer


def message_of(*deltas: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = assemble([chunk(delta) for delta in deltas])["choices"][0]["message"]
    return message


def test_texts_are_joined_and_the_rest_is_kept() -> None:
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "", "refusal": None}, {"content": "Hel"}, {"content": "lo"}]
    assert assemble([*map(chunk, deltas), chunk({}, finish_reason="stop"), chunk(usage=samples.USAGE)]) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1741570283,
        "model": "gpt-4.1",
        "service_tier": "default",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": samples.USAGE,
    }


def test_parallel_tool_calls_are_told_apart_by_index() -> None:
    choice = assemble(samples.PARALLEL_TOOL_CALLS)["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [
            {"id": "call_a", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}},
            {"id": "call_b", "type": "function", "function": {"name": "time", "arguments": "{}"}},
        ],
    }


def test_without_an_index_an_id_opens_a_new_tool_call() -> None:
    def call(**members: Any) -> dict[str, Any]:
        return {"tool_calls": [members]}

    message = message_of(
        call(id="a", function={"name": "f", "arguments": "1"}),
        call(id="", type="", function={"name": "", "arguments": "2"}, extra_content={"signature": "s"}),
        call(id="b", function={"name": "g", "arguments": "3"}),
    )
    assert message["tool_calls"] == [
        {"id": "a", "function": {"name": "f", "arguments": "12"}, "extra_content": {"signature": "s"}},
        {"id": "b", "function": {"name": "g", "arguments": "3"}},
    ]


def test_refusals_and_reasoning_are_joined() -> None:
    message = message_of(
        {"reasoning_content": "I ", "reasoning": "A", "refusal": None},
        {"reasoning_content": "think", "reasoning": "B"},
        {"refusal": "I can"},
        {"refusal": "not", "provider_specific": "old"},
        {"provider_specific": "new"},
    )
    assert message == {"reasoning_content": "I think", "reasoning": "AB", "refusal": "I cannot", "provider_specific": "new"}


def test_the_older_function_call_and_audio_grow_in_their_texts_only() -> None:
    message = message_of(
        {"function_call": {"name": "f", "arguments": ""}, "audio": {"id": "a1", "transcript": "Hel"}, "annotations": [{"n": 1}]},
        {"function_call": {"arguments": "{"}, "audio": {"transcript": "lo"}, "annotations": [{"n": 2}]},
        {"function_call": {"arguments": "}"}, "audio": {"data": "UklG", "expires_at": 5}},
    )
    assert message == {
        "function_call": {"name": "f", "arguments": "{}"},
        "audio": {"id": "a1", "transcript": "Hello", "data": "UklG", "expires_at": 5},
        "annotations": [{"n": 1}, {"n": 2}],
    }


def test_content_in_parts_stays_in_parts() -> None:
    thinking = {"type": "thinking", "thinking": "hm"}
    message = message_of({"content": ""}, {"content": [thinking]}, {"content": "He"}, {"content": "llo"}, {"content": [thinking]})
    assert message == {"content": [thinking, {"type": "text", "text": "Hello"}, thinking]}


def test_token_probabilities_are_appended() -> None:
    def with_logprobs(text: str, content: list[Any]) -> bytes:
        choice = {"index": 0, "delta": {"content": text}, "logprobs": {"content": content, "refusal": None}, "finish_reason": None}
        return chunk(choices=[choice])

    choice = assemble([with_logprobs("a", [{"token": "a"}]), with_logprobs("b", [{"token": "b"}]), chunk({}, finish_reason="stop")])[
        "choices"
    ][0]
    assert choice["logprobs"] == {"content": [{"token": "a"}, {"token": "b"}], "refusal": None}


def test_choices_are_folded_apart_and_ordered() -> None:
    answer = assemble([chunk({"content": "b"}, index=1), chunk({"content": "a"}), chunk({"content": "B"}, index=1)])
    assert [(choice["index"], choice["message"]["content"]) for choice in answer["choices"]] == [(0, "a"), (1, "bB")]


def test_a_null_in_one_chunk_does_not_hide_what_others_said() -> None:
    message = message_of(
        {"content": None, "tool_calls": None}, {"content": "Hi", "tool_calls": [{"index": 0, "id": "a"}]}, {"content": None}
    )
    assert message == {"content": "Hi", "tool_calls": [{"id": "a"}]}


def test_an_answer_is_complete_when_every_choice_has_a_reason() -> None:
    assembler = CompletionAssembler()
    steps = [
        (chunk(), False),
        (chunk({"content": "a"}), False),
        (chunk({}, finish_reason="stop"), True),
        (chunk({"content": "b"}, index=1), False),
        (chunk({}, finish_reason="a_reason_of_its_own", index=1), True),
    ]
    for data, is_complete in steps:
        assembler.add(decode_chunk(data))
        assert assembler.is_complete is is_complete


def test_an_empty_assembler_has_an_empty_answer() -> None:
    assembler = CompletionAssembler()
    assert not assembler.is_complete
    assert assembler.completion() == chat_pb2.ChatCompletion()


def test_a_replay_looks_like_a_stream() -> None:
    text = "The quick brown fox jumps over the lazy dog, and then\n\nit sleeps.  "
    message = chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, text=text)
    choice = chat_pb2.Choice(message=message, finish_reason=chat_pb2.FINISH_REASON_STOP)
    completion = chat_pb2.ChatCompletion(id="x", created=1, model="m", choices=[choice], usage=chat_pb2.Usage(total_tokens=3))
    first, *pieces, last, usage = chunks_of(completion, with_usage=True)
    assert first.choices[0].delta == chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, text="")
    assert [piece.choices[0].delta.text for piece in pieces] == [
        "The quick brown fox jumps over",
        " the lazy dog, and then\n\nit",
        " sleeps.",
        "  ",
    ]
    assert last.choices[0].HasField("delta") and last.choices[0].finish_reason == chat_pb2.FINISH_REASON_STOP
    assert not usage.choices and usage.usage.total_tokens == 3
    assert {(piece.id, piece.created, piece.model) for piece in (first, *pieces, last, usage)} == {("x", 1, "m")}
    assert chunks_of(completion, with_usage=False) == [first, *pieces, last]


def test_a_replayed_tool_call_opens_with_its_name() -> None:
    call = chat_pb2.ToolCall(id="a", type="function", function=chat_pb2.FunctionCall(name="f", arguments="{}"))
    choice = chat_pb2.Choice(message=chat_pb2.Message(tool_calls=[call]), finish_reason=chat_pb2.FINISH_REASON_TOOL_CALLS)
    deltas = [chunk.choices[0].delta for chunk in chunks_of(chat_pb2.ChatCompletion(choices=[choice]), with_usage=True)]
    opening = chat_pb2.ToolCall(index=0, id="a", type="function", function=chat_pb2.FunctionCall(name="f", arguments=""))
    arguments = chat_pb2.ToolCall(index=0, function=chat_pb2.FunctionCall(arguments="{}"))
    assert deltas == [
        chat_pb2.Message(),
        chat_pb2.Message(tool_calls=[opening]),
        chat_pb2.Message(tool_calls=[arguments]),
        chat_pb2.Message(),
    ]


@pytest.mark.parametrize("text", ["漢" * 500, " " * 10_000, "a" * 10_000, "word " * 2000])
def test_no_text_is_one_great_piece_or_lost(text: str) -> None:
    choice = chat_pb2.Choice(message=chat_pb2.Message(text=text))
    pieces = [chunk.choices[0].delta.text for chunk in chunks_of(chat_pb2.ChatCompletion(choices=[choice]), with_usage=False)]
    assert "".join(pieces) == text
    assert text.isspace() or max(map(len, pieces)) <= 200


def test_a_real_answer_survives_the_replay() -> None:
    completion = decode_completion(samples.COMPLETION)
    assembler = CompletionAssembler()
    for piece in chunks_of(completion, with_usage=True):
        assembler.add(piece)
    assert assembler.completion() == completion
