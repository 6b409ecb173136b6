"""What holds of the gate for any text."""

import itertools
import re
import string

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from services.cache.gate import Rule, analyse, compare, differ_in_numbers_only, numerals
from services.cache.gate.analysis import MAX_CHARS
from tests.unit.cache.gate.questions import groups

QUESTIONS = [text for group in groups() for text in (*group.same, *group.different)]
WORDS = sorted(
    {word for text in QUESTIONS for word in text.split()} | set("`\"'()[]{}:;,.?!+-*/=<>&|%$#@~^\\") | {"```", "'s", "->", "::", "--x"}
)
OPERATORS = ["+", "-", "*", "/", "%", "=", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "&", "|", "^", "<<", "->", ":="]
texts = st.text(max_size=200) | st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join)
identifiers = st.from_regex(r"[a-z]{2,6}(_[a-z]{2,6}){1,2}|[a-z]{2,6}\.[a-z]{2,6}\(\)", fullmatch=True)


@settings(max_examples=60, deadline=None)
@given(texts)
def test_every_text_equals_itself(text: str) -> None:
    assert compare(analyse(text), analyse(text)) is None


@settings(max_examples=60, deadline=None)
@given(texts, texts)
def test_comparison_is_symmetric(one: str, other: str) -> None:
    first, second = analyse(one), analyse(other)
    assert (compare(first, second) is None) is (compare(second, first) is None)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([text for text in QUESTIONS if any(map(str.isdigit, text))]), st.data())
def test_another_digit_is_another_question(text: str, data: st.DataObject) -> None:
    at = data.draw(st.sampled_from([index for index, char in enumerate(text) if char.isdigit() and char.isascii()]))
    digit = data.draw(st.sampled_from([digit for digit in string.digits if digit != text[at]]))
    assert compare(analyse(text), analyse(text[:at] + digit + text[at + 1 :])) is not None


@settings(max_examples=60, deadline=None)
@given(identifiers, identifiers, st.sampled_from(["What does {} do?", "How do I call {} in Python?", "Explain {}", "Why does {} fail?"]))
def test_another_identifier_is_another_question(one: str, other: str, frame: str) -> None:
    assume(one != other)
    assert compare(analyse(frame.format(one)), analyse(frame.format(other))) is Rule.LITERAL


@settings(max_examples=60, deadline=None)
@given(identifiers, st.data())
def test_case_inside_an_identifier_counts(name: str, data: st.DataObject) -> None:
    at = data.draw(st.sampled_from([index for index, char in enumerate(name) if char.isalpha()]))
    other = name[:at] + name[at].upper() + name[at + 1 :]
    assert compare(analyse(f"What does {name} do?"), analyse(f"What does {other} do?")) is not None


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(OPERATORS),
    st.sampled_from(OPERATORS),
    st.sampled_from(["What is a {} b?", "What does x {} 3 give?", "Why does `n {} m` fail?", "What is 7 {} 2?", "Explain (a {} b) in C"]),
)
def test_another_operator_is_another_question(one: str, other: str, frame: str) -> None:
    assume(one != other)
    assert compare(analyse(frame.format(one)), analyse(frame.format(other))) is not None


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(
        [
            " ",
            "a",
            "a ",
            "' ",
            '"',
            "`",
            "of ",
            "a of ",
            "not ",
            "1 ",
            "1,",
            "how to ",
            "please ",
            ", ",
            "(",
            "a.b.",
            "a_",
            "A",
            "--a ",
            "'s ",
        ]
    )
)
def test_long_texts_of_one_kind_are_taken_apart(piece: str) -> None:
    # Each would take minutes if a pattern looked at every pair of places.
    text = (piece * MAX_CHARS)[:MAX_CHARS]
    assert compare(analyse(text), analyse(text)) is None
    assert analyse(text * 2).plain


def test_texts_that_differ_in_numbers_only_are_refused_as_the_rules_would() -> None:
    changes = [r"\g<0>7", r"9\g<0>", r"0\g<0>", "12"]
    for text, change in itertools.product([text for text in QUESTIONS if re.search(r"[0-9]", text)], changes):
        other = re.sub(r"[0-9]+", change, text)
        if differ_in_numbers_only(numerals(text), numerals(other)):
            assert compare(analyse(text), analyse(other)) is not None, (text, other)


def test_what_may_mean_the_same_number_is_left_to_the_rules() -> None:
    assert differ_in_numbers_only(numerals("Order 17 of 3"), numerals("Order 18 of 3"))
    for one, other in [("6 and 7", "7 and 6"), ("at 7 pm", "at 07 pm"), ("three cats", "3 cats"), ("1,000 cats", "1000 cats")]:
        assert not differ_in_numbers_only(numerals(one), numerals(other))
