"""What two answers say about each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulegate.chat.v1 import chat_pb2
from services.cache.agreement import Agreement, compare, compare_texts

LONG = "Photosynthesis turns light into chemical energy. It takes place in the chloroplasts of plant cells, where water is split."


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Paris.", "paris"),
        ("The  capital is Paris!", "The capital is Paris."),
        ('{"a": 1, "b": [2]}', '{ "b": [2], "a": 1 }'),
        (LONG, LONG.replace("takes place", "happens")),
    ],
)
def test_same(one: str, other: str) -> None:
    assert compare_texts(one, other) is Agreement.SAME


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It costs 10 USD.", "It costs 100 USD."),
        ("Yes, it is safe.", "No, it is not safe."),
        ("Paris", "Rome"),
        ('{"a": 1}', '{"a": 2}'),
        (f"{LONG} It was found in 1779.", f"{LONG} It was found in 1780."),
        ("ANSWER[d0001]", "Sure. ANSWER[d0002]"),
    ],
)
def test_different(one: str, other: str) -> None:
    assert compare_texts(one, other) is Agreement.DIFFERENT


def test_other_wording_is_evidence_of_nothing() -> None:
    other = "Plants make sugar from carbon dioxide, with sunlight as the source of power; oxygen is given off on the way, as a by-product."
    assert compare_texts(LONG, other) is Agreement.UNKNOWN


def completion(*calls: tuple[str, str], text: str | None = None) -> chat_pb2.ChatCompletion:
    message = chat_pb2.Message(
        tool_calls=[chat_pb2.ToolCall(function=chat_pb2.FunctionCall(name=name, arguments=arguments)) for name, arguments in calls]
    )
    if text is not None:
        message.text = text
    return chat_pb2.ChatCompletion(choices=[chat_pb2.Choice(message=message)])


def test_tool_calls_compare_by_value() -> None:
    assert compare(completion(("find", '{"a":1,"b":2}')), completion(("find", '{"b": 2, "a": 1}'))) is Agreement.SAME
    assert compare(completion(("find", '{"a":1}')), completion(("find", '{"a":2}'))) is Agreement.DIFFERENT
    assert compare(completion(("find", "{}")), completion(text="I cannot.")) is Agreement.DIFFERENT


def test_answer_without_a_choice_says_nothing() -> None:
    assert compare(chat_pb2.ChatCompletion(), completion(text="x")) is Agreement.UNKNOWN


@given(st.text(), st.text())
def test_comparing_is_symmetric_and_a_text_agrees_with_itself(one: str, other: str) -> None:
    assert compare_texts(one, other) is compare_texts(other, one)
    assert compare_texts(one, one) is Agreement.SAME
