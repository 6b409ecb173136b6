"""Which verbs of a clause are done to its subject: "can I be sued" is not "can I sue".

The forms of "be" carry nothing elsewhere and are left out of the content, so this is told before they are forgotten.
"""

from typing import NamedTuple

from services.cache.gate.clauses import Clause
from services.cache.gate.content import ADVICE, Item
from services.cache.gate.english_words import IRREGULAR, UNMARKED_PAST, VERBS
from services.cache.gate.structure import MEANS
from services.cache.gate.tables import words

_BE = words("is are was were be been being am 's")
# Irregular too, but nouns and auxiliaries.
_OTHER_FORMS = (frozenset(IRREGULAR.values()) - VERBS) | words("have do be")
# Within so few words a last verb belongs to the "be" in front.
_NEAR = 4


class Voice(NamedTuple):
    """Of a clause's participles those that are passive, and those that may be either: they describe, or who does it is told as well."""

    passive: frozenset[str] = frozenset()
    open: frozenset[str] = frozenset()

    def agrees(self, other: "Voice") -> bool:
        """Whether none of the same words is passive on one side and active on the other."""
        return self == other or (self.passive <= other.passive | other.open and other.passive <= self.passive | self.open)


_NO_VOICE = Voice()


def voice(clause: Clause, items: list[Item], question: str) -> Voice:
    """The voice of a clause with these items. One that the structure turns round, a passive with its agent, is open."""
    found = [(index, item) for index, item in enumerate(items) if item.is_participle or item.form in UNMARKED_PAST]
    if not found:
        return _NO_VOICE
    has_be = not _BE.isdisjoint(clause.head.split()) or any(word.form in _BE for word in (*clause.words, *clause.front))
    passive: set[str] = set()
    may_be_either: set[str] = set()
    for index, item in found:
        if not ((item.is_participle and item.form not in _OTHER_FORMS) or _may_be_participle(items, index)):
            continue
        if not has_be:
            # A fragment's participle describes: "foods recommended for athletes".
            if question == "fragment":
                may_be_either.add(item.form)
        elif (item.follows_be or index) and not item.starts_noun and not _is_turned(clause, items, index, question):
            passive.add(item.form)
        else:
            may_be_either.add(item.form)
    return Voice(frozenset(passive), frozenset(may_be_either))


def _may_be_participle(items: list[Item], index: int) -> bool:
    """Whether a verb of one form for all is a participle, as far as what stands before it tells: "be read", "is the man hurt"."""
    item = items[index]
    if item.form not in UNMARKED_PAST or item.is_gerund:
        return False
    return item.follows_be or (0 < index < _NEAR and index + 1 == len(items))


def _is_turned(clause: Clause, items: list[Item], index: int, question: str) -> bool:
    """Whether who does it is known: the agent behind "by", or in advice the asker, unless it is done to them."""
    if question in ADVICE:
        return index > 0
    if "by" in clause.head.split():
        return True
    return any(
        item.form == "by" and (at + 1 == len(items) or items[at + 1].form not in MEANS) for at, item in enumerate(items) if at > index
    )
