"""Who has read the beginning of one answer goes on with another only where that begins alike."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulegate.chat.v1 import chat_pb2
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.router.continuation import Continuation
from services.runtime.errors import GatewayError
from services.wire.assemble import CompletionAssembler

TEXT = "Energy is the capacity to do work."
STOP = chat_pb2.FINISH_REASON_STOP
USAGE = chat_pb2.ChatEvent(chunk=chat_pb2.ChatCompletionChunk(usage=chat_pb2.Usage(total_tokens=7)))


def event(
    text: str | None = None, finish: chat_pb2.FinishReason.ValueType = chat_pb2.FINISH_REASON_UNSPECIFIED, index: int = 0, **delta: object
) -> chat_pb2.ChatEvent:
    message = chat_pb2.Message(text=text, **delta)  # type: ignore[arg-type]
    choice = chat_pb2.ChunkChoice(index=index, delta=message, finish_reason=finish, extra_json=b'{"logprobs":null}')
    return chat_pb2.ChatEvent(chunk=chat_pb2.ChatCompletionChunk(choices=[choice]))


def streamed(text: str, cuts: Sequence[int]) -> list[chat_pb2.ChatEvent]:
    """A stream of that text in pieces."""
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    pieces = [text[start:end] for start, end in itertools.pairwise(edges)]
    return [event("", role=chat_pb2.ROLE_ASSISTANT), *map(event, pieces), event(finish=STOP), USAGE]


def assembled(events: Sequence[chat_pb2.ChatEvent]) -> chat_pb2.ChatCompletion:
    assembler = CompletionAssembler()
    for each in events:
        assembler.add(each.chunk)
    return assembler.completion()


cuts = st.lists(st.integers(0, 100), max_size=8)


@given(cuts, cuts, st.integers(0, 12), st.booleans())
def test_same_answer_in_other_pieces_goes_on_where_it_was(first: list[int], second: list[int], count: int, is_whole: bool) -> None:
    said = streamed(TEXT, first)[:count]
    continuation = Continuation(said)
    again = streamed(TEXT, second)
    rest = continuation.rest([chat_pb2.ChatEvent(completion=assembled(again))] if is_whole else again)
    continuation.finish()
    both = [*said, *rest]
    assert assembled(both) == assembled(again)
    assert sum(bool(choice.delta.role) for each in both for choice in each.chunk.choices) == 1
    assert sum(bool(choice.finish_reason) for each in both for choice in each.chunk.choices) == 1
    assert sum(each.chunk.HasField("usage") for each in both) == 1


SAID = [event("", role=chat_pb2.ROLE_ASSISTANT), event("Energy "), event("is ")]


@pytest.mark.parametrize(
    "again",
    [
        [event("Work "), event("is done.")],
        [event("Energy it")],
        [event("Energy"), event(finish=STOP)],
        [event("Energy is", chat_pb2.FINISH_REASON_LENGTH)],
        [event("Energy"), event(tool_calls=[chat_pb2.ToolCall(id="call_1")])],
        [event(reasoning_content="Hm.")],
        [event("Energy"), USAGE],
        [event("Energy")],
    ],
)
def test_other_answer_is_a_cut(again: list[chat_pb2.ChatEvent]) -> None:
    continuation = Continuation(SAID)
    with pytest.raises(GatewayError) as cut:
        continuation.rest(again)
        continuation.finish()
    assert cut.value.reason == ErrorReason.ERROR_REASON_STREAM_CUT


@pytest.mark.parametrize(
    "said",
    [
        event(tool_calls=[chat_pb2.ToolCall(id="call_1")]),
        event(reasoning_content="Hm."),
        event("a", extra_json=b'{"annotations":[1]}'),
    ],
)
def test_what_is_more_than_text_is_not_gone_on_with(said: chat_pb2.ChatEvent) -> None:
    with pytest.raises(GatewayError):
        Continuation([said])


def test_each_choice_goes_on_by_itself() -> None:
    continuation = Continuation([event("one", index=0), event("two", index=1)])
    again = [event("two, three", index=1), event("one, two", index=0), event("new", index=2)]
    rest = [(each.chunk.choices[0].index, each.chunk.choices[0].delta.text) for each in continuation.rest(again)]
    assert rest == [(1, ", three"), (0, ", two"), (2, "new")]
