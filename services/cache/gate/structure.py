"""Who does what to whom, as far as word order and prepositions tell: segments, each a preposition with the words behind it.

A segment may move as a whole ("in Python, how do I sort a list"); words may not leave theirs. What English says in two ways is put in one:
"the limit of a pod" as "pod limit", "was written by Austen" as "Austen wrote".
"""

from services.cache.gate.content import Item
from services.cache.gate.grammar import Grammar
from services.cache.gate.scanning import Kind
from services.cache.gate.tables import words

Segment = tuple[str, tuple[str, ...]]

TOPIC = "topic"
TECHNOLOGY = "@"
_TECHNOLOGY_LINKS = frozenset(("in", "with", "using", "on", "by", TOPIC))
# A measure or a container is no part of what it holds: a cup of tea is no tea cup.
_CONTAINERS = words(
    "cup glass bottle box bag can jar plate bowl pack packet pound gram kilogram ounce liter slice piece pair sort kind type"
    " list form part",
    "number amount group set bunch lack most one all some each any many much few rid lot plenty half quarter third percent way name",
    # Names: the University of Washington is not Washington University.
    "university college institute bank king queen prince princess duke church house bay gulf isle tower republic museum temple school",
    "battle department ministry order",
    "because instead think dream consist speak talk hear capable full aware afraid proud die",
)
# What stands behind these is another clause, and another verb.
_SUBORDINATING = words("if when unless while because although before after since until so where why how what who once then")
# Means rather than agents behind "by".
MEANS = words(
    "default hand email mail phone law january february march april may june july august september october november december"
    " monday tuesday",
    "wednesday thursday friday saturday sunday car train bus boat foot",
)


def segments(items: list[Item], question: str, grammar: Grammar) -> list[Segment]:
    """The segments of a content, in order, the first without a link."""
    found, _ = _split(items, 0, grammar)
    if grammar.code == "en":
        found = _active(found, question, grammar)
    named = [(_technology(link, tuple(item.form for item in part), grammar), tuple(item.form for item in part)) for link, part in found]
    return _commuted([part for part in named if part[1] or part[0] not in ("", ",")], question, grammar)


def _technology(link: str, forms: tuple[str, ...], grammar: Grammar) -> str:
    return TECHNOLOGY if link in _TECHNOLOGY_LINKS and len(forms) == 1 and forms[0] in grammar.technologies else link


def _split(items: list[Item], start: int, grammar: Grammar) -> tuple[list[tuple[str, list[Item]]], int]:
    found: list[tuple[str, list[Item]]] = [("", [])]
    index = start
    while index < len(items):
        item = items[index]
        index += 1
        if item.kind in (Kind.COMMA, Kind.COLON):
            if found[-1][1] or found[-1][0]:
                found.append((",", []))
            continue
        link = grammar.links.get(item.form) if item.kind is Kind.WORD else None
        if link is None:
            found[-1][1].append(item)
            continue
        if link == "of" and grammar.inverts_of and _is_head(found[-1][1]):
            index = _invert(items, index, found[-1][1], grammar)
            continue
        if found[-1] == (",", []):
            found.pop()
        found.append((link, []))
    return found, index


def _is_head(part: list[Item]) -> bool:
    return bool(part) and part[-1].kind is Kind.WORD and part[-1].form not in _CONTAINERS


def _noun_start(part: list[Item], grammar: Grammar) -> int:
    for index in range(len(part) - 1, -1, -1):
        if part[index].starts_noun:
            return index
    return 1 if len(part) > 1 and part[0].form in grammar.verbs else 0


def _invert(items: list[Item], index: int, part: list[Item], grammar: Grammar) -> int:
    """Puts the noun behind "of" before the noun in front of it; gives where it ends."""
    inner: list[Item] = []
    while index < len(items) and items[index].kind not in (Kind.COMMA, Kind.COLON):
        link = grammar.links.get(items[index].form) if items[index].kind is Kind.WORD else None
        if link == "of" and _is_head(inner):
            index = _invert(items, index + 1, inner, grammar)
            continue
        if link is not None:
            break
        inner.append(items[index])
        index += 1
    at = _noun_start(part, grammar)
    # What follows an adjective or adverb belongs to the head; only the first noun of a chain starts anew.
    part[at:at] = inner
    return index


def _active(found: list[tuple[str, list[Item]]], question: str, grammar: Grammar) -> list[tuple[str, list[Item]]]:
    """A passive clause as an active one: who does it, the verb, what it is done to."""
    if question in ("howto", "who"):
        return _verb_first(found, question, grammar)
    core = found[0][1]
    at = next((index for index, item in enumerate(core) if item.is_participle and item.form in grammar.verbs and index), None)
    is_passive = at is not None and (question == "whether" or core[at].follows_be)
    if at is None or not is_passive or at + 1 < len(core) or len(found) < 2:
        return found
    link, agent = found[1]
    if link != "by" or not agent or agent[0].kind is not Kind.WORD or agent[0].form in MEANS:
        return found
    return [("", [*agent, core[at], *core[:at]]), *found[2:]]


def _verb_first(found: list[tuple[str, list[Item]]], question: str, grammar: Grammar) -> list[tuple[str, list[Item]]]:
    """Puts the participle of a passive without an agent where the active verb would stand: "a list be reversed", "X was written"."""
    for number, (link, part) in enumerate(found):
        if link in _SUBORDINATING:
            break
        for index, item in enumerate(part):
            if not (item.is_participle and item.follows_be and item.form in grammar.verbs and (index or number)):
                continue
            rest = [*found[:number], (link, part[:index] + part[index + 1 :]), *found[number + 1 :]]
            if question == "who":
                rest = [entry for entry in rest if entry != ("by", [])]
            return [("", [item, *rest[0][1]]), *rest[1:]]
    return found


def _commuted(found: list[Segment], question: str, grammar: Grammar) -> list[Segment]:
    """One order for what may be told in either: "A and B"."""
    if question == "difference":
        found = [("and" if link in ("from", "vs", "to", "with") else link, forms) for link, forms in found]
    if found and found[0][1][:1] == ("compare",) and len(found) == 2 and found[1][0] in ("with", "to", "against"):
        found = [found[0], ("and", found[1][1])]
    if question == "how-far" and len(found) == 2 and all(link in ("", "between", "from", "to", "and") for link, _ in found):
        first, second = sorted(forms for _, forms in found)
        return [("", first), ("and", second)]
    if question == "translate":
        found = [("to" if link in ("in", "into") else link, forms) for link, forms in found]
    if found and found[0][1][:1] in (("turn",), ("convert",), ("transform",)) and any(link == "into" for link, _ in found):
        found = [("", ("convert", *found[0][1][1:])), *[("to" if link == "into" else link, forms) for link, forms in found[1:]]]
    for index in range(1, len(found)):
        link, forms = found[index]
        if link not in ("and", "or", "vs"):
            continue
        before_link, before = found[index - 1]
        if question == "difference" or link == "vs":
            if before > forms:
                found[index - 1], found[index] = (before_link, forms), (link, before)
        elif link == "or" and before and forms and before[-1] in grammar.verbs and forms[0] in grammar.verbs and before[-1] > forms[0]:
            found[index - 1], found[index] = (before_link, (*before[:-1], forms[0])), (link, (before[-1], *forms[1:]))
        elif len(forms) == 1 and before and _commutes(before[-1], grammar) and _commutes(forms[0], grammar) and before[-1] > forms[0]:
            found[index - 1], found[index] = (before_link, (*before[:-1], forms[0])), (link, (before[-1],))
    return found


def _commutes(form: str, grammar: Grammar) -> bool:
    return form.isalpha() and form not in grammar.verbs
