"""From a clause to its content: base forms, one word for each meaning, without what the question already says."""

from functools import lru_cache
from typing import NamedTuple

from services.cache.gate.clauses import Clause
from services.cache.gate.english_words import IRREGULAR
from services.cache.gate.grammar import Grammar
from services.cache.gate.scanning import REMEMBERED_WORDS, Kind
from services.cache.gate.tables import words
from services.cache.gate.wording import Word

# Questions about a way to act: the asker, and when they ask, carry nothing.
ADVICE = frozenset(("howto", "can", "possible", "permitted", "okay", "need", "should", "remedy"))
# What a question already says.
_SAID = {
    "difference": words("difference differ different distinction"),
    "meaning": words("mean meaning stand definition define"),
    "cost": words("cost price much"),
    "how-long": words("take long duration"),
    "how-far": words("distance away far"),
    "how-heavy": words("weigh weight"),
    "where": words("locate situated location"),
    "translate": words("translate translation say"),
    "like": words("like"),
    "how-many": words("there"),
    "when": words("year"),
    "summarize": words("summary"),
}  # fmt: skip
# Of these the deed lies in the past, however one asks.
MAKERS = words("author inventor composer painter creator discoverer founder architect")
# What one asks to be given when one asks what it is.
NAMED = words("synonym antonym example recipe formula definition alternative substitute")
# Point at the text that follows, and say nothing when there is one.
_POINTERS = words("this following below")
# Verdicts on what someone does: "is it safe to do it", "is doing it safe".
VERDICTS = words(
    "safe unsafe dangerous legal illegal healthy unhealthy good bad okay normal common rare hard easy expensive cheap useful"
    " useless harmful",
    "risky rude ethical wise worth possible impossible necessary haram halal sinful wrong polite acceptable",
)
# Empty between words only.
_RELATIVES = words("please kindly really actually truly indeed basically literally that which do does did be been ein eine das que che")
_FINAL_MODALS = words("kann können könnte soll sollte muss müssen darf kan kunnen moet moeten mag")
_MODALS = words("peux peut dois doit should can could would will must may might")
_PRONOUNS = words("je on nous i we you he she it they one")
# Quantifiers that say nothing in these questions.
# Questions about words, where any word may be the one.
_OF_WORDS = frozenset(("meaning", "translate"))
_EXISTENCE = words("there")
_IDLE = {"howto": words("any"), "whether": words("any"), "how-many": words("any")}
# Beside these a function word is spoken of, not used: "the difference between is and are".
_COORDINATORS = words("and or vs between und oder zwischen et ou entre y e o tra fra en of tussen")
# Of a measure, what I need to do is what I do; but how long I have to do it is how long I may wait.
_ANYONE = words("i we you one")
_NEEDING = ["i", "need", "to"]
# Of these any article tells, whatever follows: "few", "a few"; "plus cher", "le plus cher".
_QUANTITIES = words(
    "few little más menos mejor peor mayor menor mais melhor pior maior più meno migliore peggiore maggiore minore plus moins meilleur"
    " meilleure pire mieux"
)
# Nouns for who does it, that ask for the same as the verb.
AGENTS = {
    "author": "write", "writer": "write", "inventor": "invent", "founder": "found", "director": "direct", "composer": "compose",
    "painter": "paint", "creator": "create", "discoverer": "discover", "owner": "own", "winner": "win", "designer": "design",
    "architect": "design", "producer": "produce", "developer": "develop", "singer": "sing", "builder": "build",
}  # fmt: skip


class Item(NamedTuple):
    """A word of the content. `starts_noun`: an article stood before it; `follows_be`: a form of "be" did."""

    form: str
    kind: Kind
    starts_noun: bool = False
    # Written without a capital.
    is_lower: bool = False
    # Written with -ing.
    is_gerund: bool = False
    follows_be: bool = False
    is_participle: bool = False


def content(clause: Clause, source: list[Word], grammar: Grammar, has_payload: bool = False) -> list[Item]:
    """The content of a clause, or of what stood in front of it."""
    found = _particles(_base_items(source, grammar), grammar)
    found = _uninverted(_phrased(found, grammar), clause.question)
    said = _SAID.get(clause.question.partition(":")[0], frozenset())
    idle = _IDLE.get(clause.question, frozenset())
    is_advice = clause.question in ADVICE
    kept: list[Item] = []
    starts_noun = follows_be = False
    for index, item in enumerate(found):
        form = item.form
        if item.kind is not Kind.WORD:
            kept.append(item._replace(starts_noun=True) if starts_noun else item)
            starts_noun = follows_be = False
            continue
        is_function = form in grammar.empty or form in grammar.articles
        if is_function and _is_spoken_of(found, index, said if clause.question in _OF_WORDS else frozenset(), grammar):
            is_last = index + 1 == len(found)
            kept.append(Item("do" if is_last and form == "does" and clause.question != "difference" else form, Kind.WORD))
            continue
        if form in grammar.articles:
            starts_noun = True
            continue
        is_person = form in grammar.first_person and (is_advice or clause.is_generic)
        if is_person and index > 0 and (index + 1 == len(found) or found[index + 1].form in grammar.links):
            kept.append(item)
            continue
        if is_person:
            starts_noun = True
            continue
        if form in grammar.second_person and clause.is_generic:
            starts_noun = True
            continue
        if form in grammar.empty or form in said:
            follows_be = follows_be or form in ("be", "get", "is", "are", "was", "were", "been", "being")
            continue
        if has_payload and (form in _POINTERS or (form == "follow" and item.is_gerund and starts_noun)):
            continue
        if form in idle and (clause.question != "whether" or found[0].form in _EXISTENCE or clause.head.endswith(" there")):
            continue
        meaning = grammar.synonyms.get(form, form)
        if starts_noun and form in grammar.counted and _ends_noun(found, index, grammar):
            meaning = f"a-{meaning}"
        # Far quicker than _replace.
        kept.append(
            Item(
                meaning,
                item.kind,
                starts_noun,
                item.is_lower,
                item.is_gerund,
                follows_be or item.follows_be,
                item.is_participle,
            )
        )
        starts_noun = follows_be = False
    return _verb_led(kept, grammar) if is_advice and kept and grammar.code != "en" else kept


def _is_spoken_of(items: list[Item], index: int, said: frozenset[str], grammar: Grammar) -> bool:
    """Whether a function word is the subject itself, and so carries all the meaning there is."""
    following = items[index + 1].form if index + 1 < len(items) else ""
    if following in said or following in _COORDINATORS or (index and items[index - 1].form in _COORDINATORS and following in grammar.links):
        return True
    if index and items[index - 1].form in _COORDINATORS and not following:
        return True
    is_alone = not following or following in grammar.links
    if is_alone and index and items[index - 1].form in grammar.links:
        return True
    return is_alone and (items[index].form in _RELATIVES or items[index].form in grammar.articles)


def _ends_noun(items: list[Item], index: int, grammar: Grammar) -> bool:
    """Whether no other noun follows that takes the article to itself: "a chicken", but not "a chicken soup"."""
    following = items[index + 1] if index + 1 < len(items) else None
    if following is None or following.kind is not Kind.WORD or items[index].form in _QUANTITIES:
        return True
    return following.form in grammar.links or following.form == "'s" or following.form in grammar.verbs


def _verb_led(items: list[Item], grammar: Grammar) -> list[Item]:
    """Puts the verb that is asked about first, as its stem: "Passwort ändern", "ändere Passwort"."""
    if not grammar.is_verb_final:
        return [_stem(items[0], grammar), *items[1:]]
    while len(items) > 1 and items[-1].form in _FINAL_MODALS:
        items = items[:-1]
    if len(items) > 2 and items[-2].form in _FINAL_MODALS:
        items = [*items[:-2], items[-1]]
    last = items[-1]
    if len(items) > 1 and last.form in grammar.verb_prefixes and items[0].is_lower:
        return [items[0]._replace(form=last.form + grammar.verb(items[0].form)), *items[1:-1]]
    if len(items) > 1 and last.is_lower and last.kind is Kind.WORD and (last.form.endswith("n") or not items[0].is_lower):
        items = [last, *items[:-1]]
    return [_stem(items[0], grammar), *items[1:]]


def _stem(item: Item, grammar: Grammar) -> Item:
    if item.kind is not Kind.WORD:
        return item
    stem = grammar.verb(item.form)
    return item._replace(form=grammar.verb_synonyms.get(stem, stem))


def _uninverted(items: list[Item], question: str) -> list[Item]:
    """The order of an embedded question: "I should wear" for "should I wear". Of a measure, what I should do is what I do."""
    for index, item in enumerate(items[:-1]):
        if item.form in _MODALS and items[index + 1].form in _PRONOUNS:
            # Of others what they should do and what they do are two things.
            is_idle = item.form == "should" and question.startswith("how-") and items[index + 1].form in _ANYONE
            subject = items[index + 1]
            subject = subject._replace(form="i") if subject.form == "one" else subject
            return [*items[:index], subject, *([] if is_idle else [item]), *items[index + 2 :]]
    if question in ("how-long", "how-often") and len(items) > 3 and [item.form for item in items[1:4]] == _NEEDING:
        return [items[1], *items[4:]]
    return items


def _base_items(source: list[Word], grammar: Grammar) -> list[Item]:
    return [_base_item(word, grammar) for word in source]


@lru_cache(REMEMBERED_WORDS)
def _base_item(word: Word, grammar: Grammar) -> Item:
    if word.kind is Kind.LITERAL:
        return Item(word.raw, Kind.LITERAL)
    form = word.form
    if word.kind is not Kind.WORD:
        return Item(form, word.kind)
    if word.raw in grammar.polite:
        return Item(word.raw, Kind.WORD)
    if form in grammar.empty or form in grammar.articles or form in grammar.links:
        return Item(form, Kind.WORD, is_lower=True)
    lemma = grammar.base(form) if form.islower() else form
    return Item(
        lemma,
        Kind.WORD,
        is_lower=word.raw.islower(),
        is_gerund=form.endswith("ing"),
        is_participle=form.endswith("ed") or (form != lemma and form in IRREGULAR),
    )


def _particles(items: list[Item], grammar: Grammar) -> list[Item]:
    """Puts a particle that stands behind the object next to its verb: "turn it on"."""
    if not grammar.particle_verbs:
        return items
    for index, item in enumerate(items):
        if item.form not in grammar.particle_verbs or item.kind is not Kind.WORD:
            continue
        for position in range(index + 2, min(index + 7, len(items))):
            form = items[position].form
            if form in grammar.particles and (
                position + 1 == len(items) or items[position + 1].form in grammar.links or items[position + 1].kind is Kind.COMMA
            ):
                return [*items[: index + 1], items[position], *items[index + 1 : position], *items[position + 1 :]]
            if form in grammar.links:
                break
    return items


def _phrased(items: list[Item], grammar: Grammar) -> list[Item]:
    """One word for each phrase that means one."""
    table = grammar.phrases
    forms = tuple(item.form for item in items)
    found: list[Item] = []
    index = 0
    while index < len(items):
        item = items[index]
        choices = table.get(item.form)
        if choices is not None:
            for phrase, meaning in choices.items():
                length = len(phrase)
                if forms[index : index + length] == phrase:
                    found.extend(Item(part, Kind.WORD, is_participle=item.is_participle) for part in meaning.split())
                    index += length
                    break
            else:
                found.append(item)
                index += 1
            continue
        found.append(item)
        index += 1
    return found
