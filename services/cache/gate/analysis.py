"""What the gate knows of a text: taken apart once, compared many times."""

from dataclasses import dataclass
from itertools import pairwise

from services.cache.gate import payload
from services.cache.gate.clauses import STATEMENT, Clause, clauses
from services.cache.gate.content import ADVICE, AGENTS, MAKERS, NAMED, VERDICTS, Item, content
from services.cache.gate.conversion import conversion
from services.cache.gate.courtesy import bare, without_smiley
from services.cache.gate.english_words import UNMARKED_PAST, VERBS
from services.cache.gate.grammar import Grammar
from services.cache.gate.language import grammar_of
from services.cache.gate.mention import speaks_of_wording
from services.cache.gate.scanning import Kind, clean, scan
from services.cache.gate.structure import TOPIC, Segment, segments
from services.cache.gate.voice import Voice, voice
from services.cache.gate.wording import Word, normalise

# A longer text is compared as it stands: its analysis would cost more than it could save.
MAX_CHARS = 4000
_LONGEST_INSTRUCTION = 800
# Of more sentences or words than a question has only equal order passes.
_LONGEST_QUESTION = 14
_LONGEST_CONCEPT = 3
_ORDERS = frozenset(("compose", "recommend"))
_LEAVES = {"okay": "okay", "possible": "possible", "fine": "okay"}


@dataclass(frozen=True, slots=True)
class Analysis:
    """A text in the terms of the rules. Built from the text alone, so it need not be stored."""

    # The text without differences of spacing.
    plain: str
    # Of the language whose tables were used; empty when the text is only compared as it stands.
    language: str = ""
    # The text that an instruction is about.
    payload: str = ""
    # Kinds of answer wanted, one for each sentence.
    questions: tuple[str, ...] = ()
    tense: str = ""
    literals: tuple[str, ...] = ()
    # In order of size, not of place.
    numbers: tuple[str, ...] = ()
    negations: tuple[str, ...] = ()
    persons: tuple[str, ...] = ()
    # Content words in their base form, sorted.
    words: tuple[str, ...] = ()
    segments: tuple[Segment, ...] = ()
    # Verbs written with -ing and with -ed: boiling water is not boiled water.
    gerunds: frozenset[str] = frozenset()
    participles: frozenset[str] = frozenset()
    # Those in -ing behind an article, and those before one: to stop a running job is not to stop running a job.
    attributes: frozenset[str] = frozenset()
    actions: frozenset[str] = frozenset()
    voices: tuple[Voice, ...] = ()
    # Whether one is to be made, or several, of the first sentence that orders any: "a name", "names".
    amount: str = ""
    # Nouns with what their articles show of case and gender.
    agreement: tuple[tuple[str, frozenset[str]], ...] = ()
    # A noun alone, so that to explain it and to say what it is are one.
    is_concept: bool = False
    # Long or of many sentences: nothing may move.
    is_long: bool = False


def analyse(text: str) -> Analysis:
    """Takes a text apart. Never fails; costs time linear in its length."""
    if len(text) > MAX_CHARS:
        return Analysis(text, is_long=True)
    plain = without_smiley(payload.plain(clean(text)))
    request = payload.split(plain)
    if len(request.instruction) > _LONGEST_INSTRUCTION:
        return Analysis(plain, is_long=True)
    tokens = scan(request.instruction)
    grammar = grammar_of(tokens)
    if grammar is None:
        return Analysis(bare(plain))
    words = normalise(tokens, grammar)
    found = clauses(words, grammar)
    if not found:
        return Analysis(bare(plain))
    if any(token.kind is Kind.OPERATOR for token in tokens) or (
        not request.payload and speaks_of_wording(plain, (token.form for token in tokens))
    ):
        marks = tuple(token.raw for token in tokens[:-1] if token.kind is Kind.STOP)
        return _as_written(plain, request.payload, found, marks, grammar)
    return _of_prose(plain, request.payload, found, grammar)


def _as_written(plain: str, about: str, found: list[Clause], marks: tuple[str, ...], grammar: Grammar) -> Analysis:
    """A text with code or a formula in it, or about wording: beyond the way it asks, everything must be equal as written."""
    rest = [word for clause in found for word in _unfronted(clause)]
    is_value = not any(word.kind is Kind.WORD for word in rest)
    question = "value" if is_value and len(found) == 1 else ""
    if question and rest[-1].form == "=":
        rest.pop()
    return Analysis(
        plain,
        grammar.code,
        about,
        questions=(question,) if question else tuple(clause.question for clause in found),
        literals=(
            *(word.raw if number or not _is_order(found[0], word) else word.form for number, word in enumerate(rest) if word.raw),
            *marks,
        ),
    )


def _unfronted(clause: Clause) -> list[Word]:
    """What stands in front with a preposition may as well stand behind: "in Python, what is x or y"."""
    if not clause.front or clause.is_topic:
        return [*clause.front, *clause.words]
    first, *others = clause.front
    return [*clause.words, first._replace(raw=first.form), *others]


def _is_order(clause: Clause, word: Word) -> bool:
    """Whether a sentence starts with a verb that politeness may come before: its capital says nothing."""
    return clause.question == STATEMENT and not clause.front and word.form in VERBS and word.raw.istitle()


def _of_prose(plain: str, about: str, found: list[Clause], grammar: Grammar) -> Analysis:
    questions: list[str] = []
    parts: list[Segment] = []
    described: list[Item] = []
    literals: list[str] = []
    voices: list[Voice] = []
    tense = amount = ""
    is_concept = False
    for clause in found:
        converted = conversion(clause)
        if converted is not None:
            questions.append("convert")
            parts += converted
            continue
        items = content(clause, clause.words, grammar, has_payload=bool(about))
        question, items = _question(clause, items, grammar)
        questions.append(question)
        # The verb that is asked about may take any form.
        described += items[1:] if question in ADVICE else items
        tense = tense or _tense(clause, question, grammar)
        if question in _ORDERS:
            amount = amount or _amount(clause, grammar)
        front = content(clause, clause.front, grammar) if clause.front else []
        if grammar.code == "en":
            voices.append(voice(clause, [*items, *front], question))
        literals += [item.form for item in (*items, *front) if item.kind is Kind.LITERAL]
        own = segments(items, question, grammar)
        is_concept = len(found) == 1 and not front and _is_concept(clause, items, own)
        parts += _with_front(own, segments(front, question, grammar), clause, grammar) if front else own
    forms = _forms(parts, found)
    if not forms and not about:
        # All of it was a way to ask: then the way to ask is what it is about.
        return Analysis(bare(plain))
    return Analysis(
        plain,
        grammar.code,
        about,
        questions=tuple(questions),
        tense=tense,
        literals=tuple(literals),
        numbers=tuple(sorted(form for form in forms if any(map(str.isdigit, form)))),
        negations=_negations(forms, grammar),
        persons=tuple(sorted(_person(form, grammar) for form in forms if form in grammar.first_person or form in grammar.second_person)),
        words=tuple(sorted(forms)),
        segments=tuple(parts),
        gerunds=frozenset(item.form for item in described if item.is_gerund),
        participles=frozenset(item.form for item in described if item.is_participle),
        attributes=frozenset(item.form for item in described if item.is_gerund and item.starts_noun),
        actions=frozenset(
            item.form for item, following in pairwise(described) if item.is_gerund and not item.starts_noun and following.starts_noun
        ),
        voices=tuple(voices),
        amount=amount,
        agreement=_agreement(found, grammar),
        is_concept=is_concept,
        is_long=len(found) > 2 or len(forms) > _LONGEST_QUESTION,
    )


def _with_front(own: list[Segment], moved: list[Segment], clause: Clause, grammar: Grammar) -> list[Segment]:
    """A clause's segments with those of what stands in front of it."""
    together = own + [(TOPIC if clause.is_topic and link == "" else link, forms) for link, forms in moved]
    return [("@" if link == TOPIC and len(forms) == 1 and forms[0] in grammar.technologies else link, forms) for link, forms in together]


def _forms(parts: list[Segment], found: list[Clause]) -> list[str]:
    forms = [form for _, part in parts for form in part]
    if len(forms) == 1 and any(word.form == "the" for word in found[0].words):
        # A certain one, of a noun that says what the rest is: "what is the matter", "what is matter".
        forms.append("the")
    return forms


def _amount(clause: Clause, grammar: Grammar) -> str:
    if clause.words and clause.words[0].form in ("a", "an"):
        return "one"
    for word in clause.words:
        if word.form in grammar.links:
            break
        if word.form.endswith("s") and grammar.base(word.form) != word.form:
            return "several"
    return ""


def _agreement(found: list[Clause], grammar: Grammar) -> tuple[tuple[str, frozenset[str]], ...]:
    shown: dict[str, frozenset[str]] = {}
    for clause in found if grammar.agreement else ():
        for word, noun in pairwise((*clause.front, *clause.words)):
            reading = grammar.agreement.get(word.form)
            # An elided article shows neither.
            if reading is not None and noun.kind is Kind.WORD and "'" not in word.raw:
                form = grammar.base(noun.form)
                shown[form] = shown.get(form, frozenset()) | reading
    return tuple(shown.items())


def _is_concept(clause: Clause, items: list[Item], own: list[Segment]) -> bool:
    if len(own) != 1 or len(own[0][1]) > _LONGEST_CONCEPT:
        return False
    return not any(item.starts_noun for item in items[:1] if "the " in f" {clause.head} ")


def _question(clause: Clause, items: list[Item], grammar: Grammar) -> tuple[str, list[Item]]:
    """The question, made finer by the content."""
    question = clause.question
    if question in ("who", "what", STATEMENT) and len(items) > 2 and items[0].form in AGENTS and items[1].form == "of":
        return "who", [Item(AGENTS[items[0].form], Kind.WORD), *items[2:]]
    if (
        question in ("what", "calculate", "how-much", STATEMENT)
        and items
        and all(item.kind is Kind.NUMBER or item.form in ("of", "percent") for item in items)
    ):
        return "value", items
    if question == STATEMENT and items and len(items) < 8 and (items[0].form not in grammar.verbs or items[0].is_gerund):
        question = "fragment"
    if question in ("fragment", "what") and len(items) > 3 and [item.form for item in items[1:3]] == ["translation", "of"]:
        return "translate", [*items[3:], Item("to", Kind.WORD), items[0]]
    forms = [item.form for item in items]
    if question == "fragment" and "vs" in forms and sum(form in grammar.links for form in forms) == 1:
        return "difference", items
    if question == "compose" and items and forms[0] in NAMED and clause.head.startswith(("give", "i ")):
        return "what", items
    if question == "what":
        return question, _possessed(_superlative_first(items, grammar), grammar)
    if question == "whether":
        return _ability(items) or (question, _verdict_last(items))
    return question, items


def _superlative_first(items: list[Item], grammar: Grammar) -> list[Item]:
    """Puts "which planet is the largest" as "what is the largest planet"."""
    is_apart = len(items) > 1 and _is_superlative(items[1].form) and not _is_superlative(items[0].form)
    if is_apart and (len(items) == 2 or items[2].form in grammar.links):
        return [items[1], items[0], *items[2:]]
    return items


def _is_superlative(form: str) -> bool:
    return form in ("best", "worst") or (len(form) > 5 and form.endswith("est"))


def _possessed(items: list[Item], grammar: Grammar) -> list[Item]:
    """Puts "what effects does it have" as "what are the effects of it"."""
    for index, item in enumerate(items):
        if item.form in grammar.links or item.kind is Kind.COMMA:
            break
        if item.form == "have" and index > 1:
            return [items[0], Item("of", Kind.WORD), *items[1:index], *items[index + 1 :]]
    return items


def _ability(items: list[Item]) -> tuple[str, list[Item]] | None:
    """Reads "are dogs able to eat it" and "is it okay for dogs to eat it" as "can dogs eat it"."""
    forms = [item.form for item in items]
    if forms[:1] == ["it"] and forms[2:3] == ["for"] and forms[1] in _LEAVES and "to" in forms[4:]:
        at = forms.index("to", 4)
        return _LEAVES[forms[1]], [*items[3:at], *items[at + 1 :]]
    for at, form in enumerate(forms[:-2]):
        if at and form in ("able", "allow", "permit") and forms[at + 1] == "to":
            return ("possible" if form == "able" else "permitted"), [*items[:at], *items[at + 2 :]]
    return None


def _verdict_last(items: list[Item]) -> list[Item]:
    """Puts "is it safe to use it" and "is using it safe" in one order."""
    if len(items) > 3 and items[0].form == "it" and items[1].form in VERDICTS and items[2].form == "to":
        return [*items[3:], Item(",", Kind.COMMA), items[1]]
    if len(items) > 2 and items[0].is_gerund and items[-1].form in VERDICTS:
        return [*items[:-1], Item(",", Kind.COMMA), items[-1]]
    return items


def _tense(clause: Clause, question: str, grammar: Grammar) -> str:
    if question in ADVICE:
        return ""
    if question == "who" and clause.words and not MAKERS.isdisjoint(word.form for word in clause.words[:4]):
        return "past"
    said = clause.head.split()
    if said[:1] in (["has"], ["have"]):
        return "perfect"
    said += [word.form for word in clause.words]
    if not grammar.future.isdisjoint(said):
        return "future"
    if not grammar.past.isdisjoint(said):
        return "past"
    # Without an auxiliary the verb itself tells it: "who wrote it", but not "how are eggs boiled".
    if not grammar.present.isdisjoint(said):
        return ""
    if question in ("who", "what") and any(form in UNMARKED_PAST for form in said):
        return "past"
    return "past" if any(grammar.is_past(form) for form in said) else ""


def _negations(forms: list[str], grammar: Grammar) -> tuple[str, ...]:
    """Each negation with the word it stands before: what is denied matters as much as that something is."""
    found = []
    for index, form in enumerate(forms):
        if form in grammar.negations:
            following = next((other for other in forms[index + 1 :] if other not in grammar.negations), "")
            found.append(f"{grammar.negations[form]} {following}")
    return tuple(sorted(found))


def _person(form: str, grammar: Grammar) -> str:
    return "1" if form in grammar.first_person else "2"
