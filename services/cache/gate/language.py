"""Which language a text is in, by its function words."""

from services.cache.gate.dutch import DUTCH
from services.cache.gate.english import ENGLISH
from services.cache.gate.french import FRENCH
from services.cache.gate.german import GERMAN
from services.cache.gate.grammar import Grammar
from services.cache.gate.italian import ITALIAN
from services.cache.gate.portuguese import PORTUGUESE
from services.cache.gate.scanning import Kind, Token
from services.cache.gate.spanish import SPANISH
from services.cache.gate.tables import words

GRAMMARS: tuple[Grammar, ...] = (ENGLISH, GERMAN, FRENCH, SPANISH, ITALIAN, PORTUGUESE, DUTCH)
# Which of them a word speaks for.
_MARKED = {
    word: tuple(number for number, grammar in enumerate(GRAMMARS) if word in grammar.marks)
    for word in frozenset().union(*(grammar.marks for grammar in GRAMMARS))
}
# English words that are words of other languages too, and that its rules let go of: alone they do not make a text English.
_SHARED = words("a an do does i is me was we")
# No language with a table here but English, which borrows, is written with later letters; and each has a mark at least so often.
_LAST_WESTERN = "ÿ"
_WORDS_PER_MARK = 4
# Of the letters of a text; above it no table here fits.
_FOREIGN_SHARE = 0.3


def grammar_of(tokens: list[Token]) -> Grammar | None:
    """The grammar of a text; None when it is in no language known here, so that it is only compared as it stands."""
    found = [token.form for token in tokens if token.kind is Kind.WORD]
    if not found:
        return ENGLISH if tokens else None
    is_ascii = all(map(str.isascii, found))
    if is_ascii and len(found) == 1:
        return ENGLISH
    if not is_ascii and sum(not form.isascii() and not _is_latin(form) for form in found) > _FOREIGN_SHARE * len(found):
        return None
    counts = [0] * len(GRAMMARS)
    for form in found:
        for number in _MARKED.get(form, ()):
            counts[number] += 1
    best = max(counts)
    if best == 0:
        return ENGLISH if is_ascii else None
    grammar = GRAMMARS[counts.index(best)]
    if grammar is ENGLISH and _speaks_english(found):
        return grammar
    if best * _WORDS_PER_MARK < len(found) or any(letter > _LAST_WESTERN and letter not in "œŒ" for form in found for letter in form):
        return None
    if grammar is not ENGLISH:
        return grammar
    others = [other for other, count in zip(GRAMMARS[1:], counts[1:], strict=True) if count == best]
    return others[0] if len(others) == 1 and best > 1 else None


def _speaks_english(found: list[str]) -> bool:
    """Whether any word is English only: a mark that no other language shares, or a verb."""
    return any(form not in _SHARED and (form in ENGLISH.marks or ENGLISH.base(form) in ENGLISH.verbs) for form in found)


def _is_latin(form: str) -> bool:
    return all(letter < "\u0250" or "\u1e00" <= letter < "\u1f00" or not letter.isalpha() for letter in form)
