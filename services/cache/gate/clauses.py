"""From words to clauses: sentences without their politeness, each with the kind of answer it wants."""

from typing import NamedTuple

from services.cache.gate.grammar import Grammar
from services.cache.gate.scanning import Kind
from services.cache.gate.tables import words
from services.cache.gate.wording import Word

STATEMENT = "statement"
# How far from the start a question may begin behind a topic or a circumstance.
_LONGEST_FRONT = 9
_LONGEST_TOPIC = 4
# Of so few words what follows a topic may be a fragment too: "nuclear power: pros and cons".
_SHORT = 9
# After what is wrong instead of what is wanted.
_REMEDY = (", what should i do", ", what do i do", ", what can i do")
# Whom these are for goes without saying.
_FOR_ME = frozenset(("explain", "compose", "translate", "summarize", "recommend"))
# Behind these a polite word is what is asked about: "how do you say please".
_SPEAKING = words(
    "say says mean means spell write translate word pronounce and or to of the a use between dire decir sagen heißt dit dizer zeggen"
)
_QUESTION_WORDS = frozenset(("how", "what", "which", "who", "whom", "wie", "was", "comment", "cómo", "como", "come", "hoe", "wat"))


class Clause(NamedTuple):
    """A sentence: what it wants, its content, what stood in front of it, and whether "you" in it means anyone."""

    question: str
    # The words that told the question, as text.
    head: str
    words: list[Word]
    front: list[Word]
    is_topic: bool
    is_generic: bool


def clauses(words: list[Word], grammar: Grammar) -> list[Clause]:
    """The sentences of a text that ask or tell something."""
    found: list[list[Word]] = []
    for sentence in _sentences(words):
        rest = _bare(sentence, grammar)
        if not rest:
            continue
        if found and grammar.back_references.match(_text(rest)):
            found[-1] += [Word(",", ",", Kind.COMMA), *rest]
            continue
        found += _spliced(rest, grammar)
    return [_clause(sentence, grammar) for sentence in found]


def _spliced(words: list[Word], grammar: Grammar) -> list[list[Word]]:
    """Two sentences for "my flight was late, can I get a refund": what is told and what is asked."""
    if words[0].form not in grammar.first_person or grammar.has_tail(_text(words)):
        return [words]
    for index, word in enumerate(words):
        if word.kind is Kind.COMMA and index > 2 and _framed(_bare(words[index + 1 :], grammar), grammar)[0] != STATEMENT:
            return [words[:index], _bare(words[index + 1 :], grammar)]
    return [words]


def _sentences(words: list[Word]) -> list[list[Word]]:
    sentences: list[list[Word]] = [[]]
    for word in words:
        if word.kind is Kind.STOP:
            sentences.append([])
        else:
            sentences[-1].append(word)
    return [sentence for sentence in sentences if sentence]


def _text(words: list[Word]) -> str:
    return " ".join([word.form for word in words])


def _bare(words: list[Word], grammar: Grammar) -> list[Word]:
    """A sentence without polite words at its ends."""
    openers, closers = grammar.openers, grammar.closers
    text = _text(words)
    for _ in range(12):
        match = openers.match(text)
        if match is None or match.end() == 0:
            break
        count = match.group().rstrip().count(" ") + 1
        words = words[count:]
        text = _text(words)
    for _ in range(6):
        match = closers.search(text)
        if match is None:
            break
        before = text[: match.start()].rpartition(" ")[0] if text[: match.start()].endswith(" ") else ""
        if before.rpartition(" ")[2] in _SPEAKING:
            break
        words = words[: len(words) - match.group().count(" ") - 1]
        text = _text(words)
    return words


def _clause(words: list[Word], grammar: Grammar) -> Clause:
    question, head, rest = _framed(words, grammar)
    front: list[Word] = []
    is_topic = False
    split = _front(rest if rest and head and words[0] is rest[0] else words, grammar)
    if split is not None:
        before, behind, is_bare = split
        if question == STATEMENT or words[0] is before[0]:
            inner = _framed(_bare(behind, grammar), grammar)
            if head and rest and words[0] is rest[0]:
                inner = question, head, behind
            if inner[0] != STATEMENT or (is_bare and len(words) < _SHORT):
                front, is_topic = before, is_bare
                question, head, rest = inner
    is_generic = not grammar.anyone.isdisjoint(head.split())
    if is_generic and "you" in head.split() and any(word.form in grammar.first_person for word in rest):
        # Who speaks of their own asks of another's: "how do you use my data".
        return Clause(f"{question}:you", head, rest, front, is_topic, False)
    return Clause(question, head, rest, front, is_topic, is_generic)


def _front(words: list[Word], grammar: Grammar) -> tuple[list[Word], list[Word], bool] | None:
    """What stands in front of a question, the question, and whether it is a bare topic: "In Python, how", "git: how"."""
    if not words:
        return None
    starts_with_link = words[0].form in grammar.links and words[0].form not in _QUESTION_WORDS
    if starts_with_link and len(words) > 1 and words[1].form in _QUESTION_WORDS:
        return None
    for index, word in enumerate(words[:_LONGEST_FRONT]):
        if word.kind is Kind.COLON and 0 < index <= _LONGEST_TOPIC:
            return words[:index], words[index + 1 :], True
        if word.kind is Kind.COMMA and index and (starts_with_link or index <= 2):
            return words[:index], words[index + 1 :], not starts_with_link
    if starts_with_link:
        for index in range(2, min(_LONGEST_FRONT, len(words))):
            if words[index].form in _QUESTION_WORDS and words[index].form not in grammar.past:
                return words[:index], words[index:], False
    return None


def _framed(words: list[Word], grammar: Grammar) -> tuple[str, str, list[Word]]:
    """The question of a clause, the words that tell it, and the rest."""
    text = _text(words)
    for frame in grammar.tails if grammar.has_tail(text) else ():
        match = frame.shape.search(text)
        if match is not None and match.start() > 0:
            rest = words[: len(words) - _word_count(match.group())]
            while rest and rest[-1].kind is Kind.COMMA:
                rest = rest[:-1]
            wish = grammar.wishes.match(_text(rest))
            if wish is None and frame.question == "howto" and match.group().startswith(_REMEDY):
                return "remedy", match.group(), rest
            return frame.question, match.group(), rest[_word_count(wish.group()) :] if wish is not None else rest
    framed = grammar.frame(text)
    if framed is None:
        return STATEMENT, "", words
    question, head = framed
    rest = words[_word_count(head) :]
    # A letter to me is no letter for me.
    is_idle = len(rest) > 2 and rest[-1].form in ("me", "us") and rest[-2].form in (("for",) if question == "compose" else ("to", "for"))
    if question in _FOR_ME and is_idle:
        rest = rest[:-2]
    return question, head, rest


def _word_count(text: str) -> int:
    return len(text.split())
