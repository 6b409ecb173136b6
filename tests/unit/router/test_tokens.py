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


@pytest.mark.parametrize(
    "text",
    [
        "Explain how a heat pump works, step by step, and where its energy comes from. What does it cost to run in winter?",
        "def mean(values: list[float]) -> float:\n    if not values:\n        raise ValueError\n    return sum(values) / len(values)\n",
        "Erkläre Schritt für Schritt, wie eine Wärmepumpe funktioniert und woher ihre Energie kommt.",
        "Explique comment fonctionne une pompe à chaleur, étape par étape, et d'où vient son énergie.",
        "Объясни шаг за шагом, как работает тепловой насос и откуда он берёт энергию.",
        "请一步一步地解释热泵是如何工作的。它的能量从哪里来。",
        "ヒートポンプの仕組みと、そのエネルギーがどこから来るのかを順を追って説明してください。",
        "اشرح خطوة بخطوة كيف تعمل المضخة الحرارية ومن أين تأتي طاقتها.",
        "3.14159 26535 89793 23846 26433 83279 50288 41971",
        "🚀🌍🔥🎉🍎🐢",
    ],
)
def test_bytes_tell_about_how_many_tokens_a_text_has(text: str) -> None:
    assert tokens.about(text.encode()) == pytest.approx(tokens.count_text(text), rel=0.35)
    many = text * 20
    # Of a long text, both ends are read.
    assert tokens.about((many * 100).encode()) == pytest.approx(100 * tokens.about(many.encode()), rel=0.05)


def test_nothing_has_no_tokens() -> None:
    assert tokens.about(b"") == 0
    assert tokens.about_prompt(chat_pb2.ChatRequest()) == 0


def test_what_is_counted_of_a_prompt_is_estimated_too() -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 5
    call = chat_pb2.ToolCall(function=chat_pb2.FunctionCall(name="f", arguments=text))
    parts = chat_pb2.ContentParts(parts=[chat_pb2.ContentPart(type="text", text=text)])
    tool = chat_pb2.Tool(function=chat_pb2.FunctionDefinition(parameters_json=text.encode()))
    for request in (
        chat_pb2.ChatRequest(messages=[chat_pb2.Message(text=text)]),
        chat_pb2.ChatRequest(messages=[chat_pb2.Message(parts=parts)]),
        chat_pb2.ChatRequest(messages=[chat_pb2.Message(tool_calls=[call])]),
        chat_pb2.ChatRequest(messages=[chat_pb2.Message()], tools=[tool]),
    ):
        assert tokens.about_prompt(request) == pytest.approx(tokens.count_prompt(request), rel=0.35)


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
