"""The demo provider behaves as a real one."""

from typing import Any

import pytest

from joulegate.chat.v1 import chat_pb2
from services.dispatch.demo import MAX_ECHO, DemoBackend, answer
from services.dispatch.failure import Failure
from services.runtime.clock import SystemClock


def ask(text: str = "What is a joule?", **fields: Any) -> chat_pb2.ChatRequest:
    return chat_pb2.ChatRequest(messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, text=text)], **fields)


def whole(request: chat_pb2.ChatRequest) -> chat_pb2.ChatCompletion:
    [event] = answer(request, "demo", 1)
    return event.completion


def streamed(request: chat_pb2.ChatRequest) -> list[chat_pb2.ChatCompletionChunk]:
    return [event.chunk for event in answer(request, "demo", 1)]


def text_of(chunks: list[chat_pb2.ChatCompletionChunk], index: int = 0) -> str:
    return "".join(choice.delta.text for chunk in chunks for choice in chunk.choices if choice.index == index)


def test_it_says_that_it_is_a_demo_and_what_was_said() -> None:
    text = whole(ask()).choices[0].message.text
    assert "demo" in text
    assert "What is a joule?" in text


def test_it_is_deterministic_and_tells_conversations_apart() -> None:
    assert whole(ask()) == whole(ask())
    assert whole(ask()).choices[0].message.text != whole(ask("What is a watt?")).choices[0].message.text


def test_long_questions_are_echoed_in_part() -> None:
    assert len(whole(ask("x" * 10_000)).choices[0].message.text) < MAX_ECHO + 300


def test_the_last_user_message_counts_and_parts_are_read() -> None:
    part = chat_pb2.ContentPart(type="text", text="from parts")
    request = chat_pb2.ChatRequest(
        messages=[
            chat_pb2.Message(role=chat_pb2.ROLE_USER, text="first"),
            chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=chat_pb2.ContentParts(parts=[part])),
            chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, text="other"),
        ]
    )
    assert "You said: from parts" in whole(request).choices[0].message.text


def test_a_stream_says_the_same_in_several_chunks_with_usage_last() -> None:
    chunks = streamed(ask(stream=True))
    completion = whole(ask())
    assert text_of(chunks) == completion.choices[0].message.text
    assert len([chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.text]) > 3
    assert chunks[0].choices[0].delta.role == chat_pb2.ROLE_ASSISTANT
    assert chunks[-2].choices[0].finish_reason == chat_pb2.FINISH_REASON_STOP
    assert not chunks[-1].choices
    assert chunks[-1].usage == completion.usage
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens > 4


@pytest.mark.parametrize("limit", [{"max_tokens": 3}, {"max_completion_tokens": 3}, {"max_tokens": 9, "max_completion_tokens": 3}])
def test_a_token_limit_cuts_and_says_so(limit: dict[str, Any]) -> None:
    completion = whole(ask(**limit))
    assert completion.choices[0].finish_reason == chat_pb2.FINISH_REASON_LENGTH
    assert completion.usage.completion_tokens == 3
    assert len(completion.choices[0].message.text.split()) == 3


def test_a_stop_sequence_ends_the_text_before_it() -> None:
    choice = whole(ask("one TWO three", stop=chat_pb2.StopSequences(sequences=["TWO", ""]))).choices[0]
    assert choice.message.text.endswith("one ")
    assert choice.finish_reason == chat_pb2.FINISH_REASON_STOP


def test_n_choices_are_n_different_ones() -> None:
    completion = whole(ask(n=3))
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    assert len({choice.message.text for choice in completion.choices}) == 3
    chunks = streamed(ask(n=3, stream=True))
    assert [text_of(chunks, index) for index in range(3)] == [choice.message.text for choice in completion.choices]


@pytest.mark.parametrize(("model", "fields", "status"), [("gpt-4o", {}, 404), ("demo", {"n": 0}, 400), ("demo", {"n": 1000}, 400)])
def test_it_refuses_what_a_real_one_would(model: str, fields: dict[str, Any], status: int) -> None:
    with pytest.raises(Failure) as raised:
        list(answer(ask(**fields), model, 1))
    assert raised.value.http_status == status


async def test_batches_end_with_the_last_event() -> None:
    demo = DemoBackend(SystemClock()).call(ask(stream=True), "demo", {})
    batches = [await demo.read()]
    while not batches[-1].is_last:
        batches.append(await demo.read())
    assert all(len(batch.events) == 1 for batch in batches)
    assert batches[-1].events[0].chunk.HasField("usage")
