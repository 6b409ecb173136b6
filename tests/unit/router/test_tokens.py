import pytest

from joulegate.chat.v1 import chat_pb2
from joulegate.ledger.v1 import entry_pb2
from services.router import tokens


def test_texts_are_counted_with_the_o200k_vocabulary() -> None:
    assert tokens.count_text("hello world") == 2
    assert tokens.count_text("") == 0


def test_a_prompt_counts_texts_parts_and_tools() -> None:
    request = chat_pb2.ChatRequest(
        messages=[
            chat_pb2.Message(role=chat_pb2.ROLE_USER, text="hello world"),
            chat_pb2.Message(parts=chat_pb2.ContentParts(parts=[chat_pb2.ContentPart(type="text", text="hello world")])),
        ],
        tools=[chat_pb2.Tool(function=chat_pb2.FunctionDefinition(parameters_json=b"hello world"))],
    )
    assert tokens.count_prompt(request) == 6 + 2 * tokens.TOKENS_PER_MESSAGE


def test_an_answer_in_pieces_counts_as_its_whole() -> None:
    pieces = [chat_pb2.Message(text=text) for text in ("hel", "lo wor", "ld")]
    assert tokens.count_answer(pieces) == 2
    call = chat_pb2.ToolCall(function=chat_pb2.FunctionCall(name="f", arguments='{"a": 1}'))
    assert tokens.count_answer([chat_pb2.Message(tool_calls=[call])]) > 3


def test_the_quick_estimate_is_not_below_the_count() -> None:
    request = chat_pb2.ChatRequest(messages=[chat_pb2.Message(text="The quick brown fox jumps over the lazy dog. " * 50)])
    assert tokens.quick_prompt_estimate(request) >= tokens.count_prompt(request)


def test_reported_counts_are_taken_as_they_are() -> None:
    usage = chat_pb2.Usage(prompt_tokens=5, completion_tokens=tokens.MOST_TOKENS)
    usage.prompt_tokens_details.cached_tokens = 3
    usage.prompt_tokens_details.cache_write_tokens = 2
    usage.prompt_tokens_details.cache_write_1h_tokens = 1
    usage.prompt_tokens_details.audio_tokens = 4
    usage.completion_tokens_details.reasoning_tokens = 2
    usage.completion_tokens_details.audio_tokens = 6
    assert tokens.reported(usage) == entry_pb2.TokenCounts(
        input_tokens=5,
        cached_input_tokens=3,
        output_tokens=tokens.MOST_TOKENS,
        reasoning_tokens=2,
        cache_write_tokens=2,
        cache_write_1h_tokens=1,
        input_audio_tokens=4,
        output_audio_tokens=6,
    )


@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details"])
@pytest.mark.parametrize("count", [-1, tokens.MOST_TOKENS + 1])
def test_reported_counts_that_cannot_be_true_are_none(name: str, count: int) -> None:
    details = {"prompt_tokens_details": {"cached_tokens": count}, "completion_tokens_details": {"audio_tokens": count}}
    assert tokens.reported(chat_pb2.Usage(**{name: details.get(name, count)})) is None  # type: ignore[arg-type]
