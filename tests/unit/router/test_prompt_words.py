import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.router.prompt_features import NAMES, Lexicon, features
from services.router.prompt_words import (
    CLASS_BITS,
    DIGITS,
    HALF,
    LETTERS,
    MOST_LENGTH,
    RARITY_BITS,
    RARITY_UNIT,
    SIGN,
    UNRANKED,
    Words,
    distinct,
    hash_of,
    shortened,
    slots_of,
    words_of,
)
from training.lexicon import lexicon_of

LEXICON = lexicon_of([words_of("How many pencils are left? All of the following except one.")])


def spelled(words: Words) -> list[str]:
    """The words, which are not longer than a shape tells."""
    length = words.shape >> 1 & MOST_LENGTH
    return [words.lower[start : start + size].decode() for start, size in zip(words.start.tolist(), length.tolist(), strict=True)]


def found(text: str, lexicon: Lexicon = LEXICON) -> dict[str, float]:
    words = words_of(text)
    return dict(zip(NAMES, features(words, lexicon.classes_of(words), lexicon).tolist(), strict=True))


def slots(text: str) -> set[int]:
    words = words_of(text)
    return set(slots_of(words, LEXICON.classes_of(words) > 0, 1 << 17).tolist())


def test_words_are_runs_of_letters_runs_of_digits_and_single_signs() -> None:
    words = words_of("It's 1,250 Élan-vital…\n\tQ7?")
    assert spelled(words) == ["it", "'", "s", "1", ",", "250", "Élan", "-", "vital…", "q", "7", "?"]
    assert words.kind[:6].tolist() == [LETTERS, SIGN, LETTERS, DIGITS, SIGN, DIGITS]
    assert [bool(shape & 1) for shape in words.shape] == [True, *[False] * 8, True, False, False]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("abcXYZé09", min_size=1, max_size=6), min_size=1, max_size=30))
def test_a_word_has_one_hash_wherever_it_stands(texts: list[str]) -> None:
    words = words_of(" ".join(texts))
    by_word: dict[str, set[int]] = {}
    for word, value in zip(spelled(words), words.hashes.tolist(), strict=True):
        by_word.setdefault(word, set()).add(value)
    assert all(len(values) == 1 for values in by_word.values())
    assert len({min(values) for values in by_word.values()}) == len(by_word)


def test_case_does_not_count_in_a_hash() -> None:
    assert hash_of("How") == hash_of("how") != hash_of("hows")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200))
def test_any_text_has_all_features_and_each_slot_once(text: str) -> None:
    words = words_of(text)
    classes = LEXICON.classes_of(words)
    values = features(words, classes, LEXICON)
    assert values.shape == (len(NAMES),)
    assert np.isfinite(values).all()
    places = slots_of(words, classes > 0, 1 << 12)
    assert len(set(places.tolist())) == len(places)
    assert not len(places) or places.max() < 1 << 12


def test_how_often_a_piece_occurs_does_not_count() -> None:
    once = slots("why is it so? ")
    assert slots("why is it so? why is it so? ") - once == slots("so? why is it so? ") - once
    assert len(once) > 20


def test_rare_words_of_one_length_are_put_alike() -> None:
    def alike(left: str, right: str) -> float:
        ours, theirs = slots(left), slots(right)
        return len(ours & theirs) / len(ours | theirs)

    assert alike("how many zebras", "how many wombat") > alike("how many zebras", "how are zebra so") > 0


def test_features_count_what_their_names_say() -> None:
    values = found("How many of the 12 boxes and 12 bags hold 1998 pens? All of the following except one.\nA. x\nB. y\nC. z")
    assert values["numbers"] == pytest.approx(np.log1p(3))
    assert values["distinct_numbers"] == pytest.approx(np.log1p(2))
    assert values["longest_number"] == 4
    assert values["years_count"] == pytest.approx(np.log1p(1))
    assert values["options"] == pytest.approx(np.log1p(3))
    assert values["how_many"] == values["of_the_following"] == values["exception_count"] == pytest.approx(np.log1p(1))
    assert values["how_much"] == 0


def test_a_rare_word_is_rarer_than_a_common_one_and_no_word_is_the_rarest() -> None:
    assert found("the of and")["rarity"] < found("zebra pencil wombat")["rarity"]
    # A few slots are shared, so that not every word that nobody knows looks like one.
    nonsense = found("xqzvw qqkzj vvxqz wqxjj zzkqv jjxwq kkzqx")
    assert nonsense["rarest"] == pytest.approx(UNRANKED / RARITY_UNIT)
    assert nonsense["unranked_count"] > np.log1p(3)


def test_marked_words_are_found_by_their_hash() -> None:
    assert found("cannot")["negation_count"] == pytest.approx(np.log1p(1))
    assert LEXICON.classes.shape == (1 << CLASS_BITS,)
    assert LEXICON.rarity.shape == (1 << RARITY_BITS,)
    assert LEXICON.rarity[hash_of("the") >> (64 - RARITY_BITS)] < UNRANKED
    assert not LEXICON.kinds[0].any()


def test_different_values_are_counted() -> None:
    assert distinct(np.array([3, 1, 3, 2, 1])) == 3
    assert distinct(np.array([])) == 0


def test_of_a_long_text_both_ends_are_read() -> None:
    short = shortened("a" * 5000 + "b" * 5000)
    assert len(short) == 2 * HALF
    assert short[0] == "a"
    assert short[-1] == "b"
    widest = words_of("\U0001f916" * 2 * HALF)
    assert len(widest.raw) == 8 * HALF
    assert len(widest.hashes) == 1
