"""Whether every difference between two texts is explained."""

from collections import Counter

from services.cache.gate.analysis import Analysis
from services.cache.gate.rule import Rule
from services.cache.gate.structure import TECHNOLOGY, TOPIC, Segment

# Questions that one answer fits, though neither is the other.
_SAME_ANSWER = frozenset(
    frozenset(pair)
    for pair in (
        ("can", "possible"), ("can", "permitted"), ("can", "okay"), ("permitted", "okay"),
        ("can-other", "possible"), ("can-other", "permitted"), ("can-other", "okay"),
        ("what", "fragment"), ("like", "fragment"), ("when", "when:date"), ("what", "value"),
    )
)  # fmt: skip
_YEAR = frozenset(("when", "when:year"))
_TIME = frozenset(("when", "when:time"))
# In a longer text a last word apart is hardly a name.
_LONGEST_CALL = 10
_RECKONED = frozenset(("what", "calculate"))
_TIMED = frozenset(("open", "close", "start", "end", "arrive", "depart", "leave", "serve"))
# Ways to ask what something is, when it is no more than a name.
_CONCEPT = frozenset(frozenset(("what", other)) for other in ("explain", "meaning", "fragment"))
# Where a noun behind the preposition may as well stand before the other noun: a list in Python, a Python list.
_ATTRIBUTIVE = frozenset(("in", "for", "on", "about", TOPIC, TECHNOLOGY))
# What a topic in front of a question may be related to it by.
_TOPICAL = frozenset(("in", "on", "with", "for", "using", "at", "about", TECHNOLOGY))
# Where "on" and "about" name the same subject.
_ABOUT = frozenset(("compose", "recommend", "explain", "summarize"))


def compare(asked: Analysis, kept: Analysis) -> Rule | None:
    """None when the answer to `kept` may serve `asked`, else the first rule that refuses. Symmetric; every text passes against itself."""
    if asked.plain == kept.plain:
        return None
    if not (asked.language and kept.language) and (asked.is_long or kept.is_long):
        return Rule.LENGTH
    if asked.language != kept.language:
        return Rule.LANGUAGE
    if not asked.language:
        return Rule.WORDS
    if asked.payload != kept.payload or asked.literals != kept.literals:
        return Rule.LITERAL
    if asked.numbers != kept.numbers:
        return Rule.NUMBER
    if asked.negations != kept.negations:
        return Rule.NEGATION
    if asked.words != kept.words:
        return Rule.CASE if _fold(asked.words) == _fold(kept.words) else Rule.WORDS
    if asked.questions != kept.questions and not _have_same_answer(asked, kept):
        return Rule.QUESTION
    if asked.tense != kept.tense and not _is_dated_fragment(asked, kept):
        return Rule.TENSE
    if not (asked.gerunds.isdisjoint(kept.participles) and asked.participles.isdisjoint(kept.gerunds)):
        return Rule.TENSE
    if not (asked.attributes.isdisjoint(kept.actions) and asked.actions.isdisjoint(kept.attributes)):
        return Rule.ORDER
    if not all(one.agrees(other) for one, other in zip(asked.voices, kept.voices, strict=False)):
        return Rule.ORDER
    if asked.amount != kept.amount and asked.amount and kept.amount:
        return Rule.NUMBER
    if asked.persons != kept.persons:
        return Rule.PERSON
    if asked.agreement and not _agree(dict(asked.agreement), kept.agreement):
        return Rule.WORDS
    return _structure(asked, kept)


def _agree(asked: dict[str, frozenset[str]], kept: tuple[tuple[str, frozenset[str]], ...]) -> bool:
    return not any(noun in asked and asked[noun].isdisjoint(reading) for noun, reading in kept)


def _fold(forms: tuple[str, ...]) -> list[str]:
    return sorted(form.casefold() for form in forms)


def _have_same_answer(asked: Analysis, kept: Analysis) -> bool:
    if len(asked.questions) != len(kept.questions) or asked.payload:
        return False
    for one, other in zip(asked.questions, kept.questions, strict=True):
        pair = frozenset((one, other))
        if one == other or pair in _SAME_ANSWER:
            continue
        # Of the past "when" asks for the year; of what opens and closes, for the time of day.
        if pair == _YEAR and asked.tense == "past":
            continue
        if pair == _RECKONED and asked.numbers:
            continue
        if pair == _TIME and not _TIMED.isdisjoint(asked.words):
            continue
        if not (asked.is_concept and kept.is_concept and pair in _CONCEPT):
            return False
    return True


def _is_dated_fragment(asked: Analysis, kept: Analysis) -> bool:
    """Whether one has no verb to tell the time by, but a number that does."""
    return bool(asked.numbers) and "fragment" in (*asked.questions, *kept.questions)


def _structure(asked: Analysis, kept: Analysis) -> Rule | None:
    one, other = asked.segments, kept.segments
    if one == other or _flat(one) == _flat(other):
        return None
    if asked.is_long or kept.is_long or len(asked.questions) > 1:
        return None if _is_front_moved(one, other) else Rule.ORDER
    left, right = _unmatched(one, other)
    if not left and not right:
        return None if _moves_safely(one) and _core(one) == _core(other) else Rule.ORDER
    if len(left) == 1 and len(right) == 1:
        return _one_differs(left[0], right[0], frozenset((asked.questions[0], kept.questions[0])))
    if len(left) + len(right) == 3 and (_is_attribute(left, right) or _is_attribute(right, left)):
        return None
    is_linked = all(link for link, _ in (*left, *right))
    return Rule.DIRECTION if is_linked or Counter(link for link, _ in left) != Counter(link for link, _ in right) else Rule.ORDER


def _flat(parts: tuple[Segment, ...]) -> list[str]:
    flat = [form for link, forms in parts for form in ((link, *forms) if link not in ("", ",") else forms)]
    if len(parts) > 1 and len(flat) < _LONGEST_CALL and parts[-1][0] == "," and len(parts[-1][1]) == 1:
        # Whom one speaks to, and not of: "how do I cook, Tom".
        flat.insert(-1, ",")
    return flat


def _unmatched(one: tuple[Segment, ...], other: tuple[Segment, ...]) -> tuple[list[Segment], list[Segment]]:
    right = [(link if link != "," else "", forms) for link, forms in other]
    left = []
    for link, forms in one:
        part = (link if link != "," else "", forms)
        if part in right:
            right.remove(part)
        else:
            left.append(part)
    return left, right


def _moves_safely(parts: tuple[Segment, ...]) -> bool:
    """Whether each preposition is there once: then a segment that moved still says the same."""
    links = [link for link, _ in parts if link]
    return len(links) == len(set(links))


def _core(parts: tuple[Segment, ...]) -> list[tuple[str, ...]]:
    """What no preposition lets move."""
    return [forms for link, forms in parts if link in ("", ",")]


def _is_front_moved(one: tuple[Segment, ...], other: tuple[Segment, ...]) -> bool:
    """Whether one segment with a preposition changed its end of the text, and nothing else."""
    return len(one) == len(other) > 1 and (
        (one[0][0] != "" and one[1:] + one[:1] == other) or (other[0][0] != "" and other[1:] + other[:1] == one)
    )


def _one_differs(one: Segment, other: Segment, questions: frozenset[str]) -> Rule | None:
    links = {one[0], other[0]}
    if one[1] == other[1]:
        if TOPIC in links and links <= _TOPICAL | {TOPIC}:
            return None
        return None if links == {"on", "about"} and questions <= _ABOUT else Rule.DIRECTION
    if one[0] != other[0]:
        return Rule.DIRECTION
    return Rule.ORDER


def _is_attribute(apart: list[Segment], joined: list[Segment]) -> bool:
    """Whether a noun behind a preposition on one side stands before another noun on the other."""
    if len(apart) != 2 or len(joined) != 1:
        return False
    link, forms = joined[0]
    for (head_link, head), (link_behind, behind) in (apart, apart[::-1]):
        if head_link != link or link_behind not in _ATTRIBUTIVE:
            continue
        last = len(head) + (link_behind == TOPIC)
        if any(head[:at] + behind + head[at:] == forms for at in range(last)):
            return True
    return False
