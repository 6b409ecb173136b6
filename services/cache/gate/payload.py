"""Tells an instruction from the text that it is about: that text is compared as it stands."""

import re
from typing import NamedTuple

from services.cache.gate.english_words import VERBS

_SPACES = re.compile(r"(?<=\S)[ \t\f\v]+")
# Where no sentence pauses a mark is spoken of: "the difference between , and ;".
_SPACE_BEFORE_MARK = re.compile(
    r" (?=[,;]\s|[?!.]+(?:\Z|\s+[A-ZÀ-Þ¿¡]))(?<=\w )"
    r"(?<!\b(?:an|or|in|of|is|to|as|et|ou|en|do|by|no) )(?<!\b(?:and|the|und|for|use|did|der|das|les|but|not) )(?<!\b[aeoy] )"
    r"(?<!with )(?<!oder )(?<!mean )(?<!does )(?<!between )"
)
_COLON = re.compile(r":(?=[\s\"'`])|：")  # noqa: RUF001
_BRIEF = 4
_GREETING = re.compile(
    r"(?:hi|hello|hey|dear|thanks|thank you|many thanks|please|cheers|best|kind regards|regards|hallo|danke|vielen dank|bitte"
    r"|bonjour|merci"
    r"|hola|gracias|por favor|ciao|grazie|olá|obrigad[oa]|dank je|bedankt)\b[^?]*",
    re.IGNORECASE,
)
# An instruction that speaks of a text to come.
_POINTER = re.compile(
    r"\b(?:summari[sz]e|summary|translat\w*|rewrite|correct|proofread|paraphrase|rephrase|classify|extract|analy[sz]e|continue|complete"
    r"|shorten|expand|improve|edit|review|format|simplify|spell|debug|refactor|reply|respond|sentiment|grammar|following|text|sentence"
    r"|paragraph|e-?mail|passage|article|code|function|snippet|quote|phrase|message|document|essay|list|query|statement|riddle|problem"
    r"|explain|fix|this|these|below|poem|story|json|sql|csv|log|error|übersetz\w*|fasse|zusammen\w*|korrigier\w*|folgende\w*"
    r"|satz|traduis\w*"
    r"|traduire|résume\w*|corrige\w*|phrase|suivante?|texte|traduce|traduzca|resume|resuma|siguiente|frase|texto|traduci"
    r"|riassumi|seguente"
    r"|testo|traduza|resuma|corrija|seguinte|vertaal|vat|volgende|zin|tekst)\b",
    re.IGNORECASE,
)


# What asks, and not merely names a topic ("git: how do I", "a quick question: where is").
_ASKS = re.compile(
    r"(?:(?:can|could|would|will) you |please )?"
    r"(?:what|which|who|whose|where|when|why|how|is|are|was|were|does|do|did|has|have|can|could|should|would"
    r"|(?P<verb>[a-z]+))\b",
    re.IGNORECASE,
)
# Of an error, whose message follows: "why do I get ValueError: ...".
_NAME = re.compile(r"[a-z][A-Z]\w*\Z")
# A question behind a colon is asked; anything else there is what is spoken of.
_QUESTION = re.compile(
    r"[\"']?(?:please |can you |could you )?"
    r"(?:how|what|which|who|whose|where|when|why|is|are|does|do|did|can|could|should|would|may|will|if)\b",
    re.IGNORECASE,
)


_REQUEST = re.compile(r"(?:[\w ]+[,!.] ?)?(?:can|could|would|will) you\b.*\b(?:this|these|following|below)\b", re.IGNORECASE)


class Request(NamedTuple):
    """An instruction and the text it is about, empty when there is none."""

    instruction: str
    payload: str


def plain(text: str) -> str:
    """A text without differences of spacing that carry nothing. Lines and their indentation stay: code lives by them."""
    if "\n" not in text:
        return _SPACE_BEFORE_MARK.sub("", " ".join(text.split()))
    lines = [_SPACES.sub(" ", line.rstrip()) for line in text.split("\n")]
    while lines and not lines[0].strip():
        lines.pop(0)
    while lines and not lines[-1].strip():
        lines.pop()
    return "\n".join(lines)


def split(text: str) -> Request:
    """Parts a plain text. Of several lines the one that asks is the instruction; within a line, what stands before a colon."""
    if "\n" in text:
        return _split_lines(text)
    match = _COLON.search(text)
    if match is None:
        return _split_request(text)
    before, after = text[: match.start()], text[match.end() :].strip()
    if not after or text.count('"', 0, match.start()) % 2:
        return Request(text, "")
    if not _POINTER.search(before) and (not _asks(before) or _QUESTION.match(after) or _NAME.search(before)):
        return Request(text, "")
    return Request(before, after)


def _asks(text: str) -> bool:
    match = _ASKS.match(text)
    return match is not None and (match["verb"] is None or match["verb"].lower() in VERBS)


def _split_request(text: str) -> Request:
    """Parts "can you translate this? ..." behind its mark: a request for what follows, which is no question itself."""
    before, mark, after = text.partition("? ")
    if not mark or "?" in after or not _POINTER.search(before) or not _REQUEST.match(before):
        return Request(text, "")
    return Request(before, after.strip())


def _split_lines(text: str) -> Request:
    lines = text.split("\n")
    while len(lines) > 1 and (not lines[0].strip() or (len(lines[0].split()) <= _BRIEF and _GREETING.fullmatch(lines[0].strip(" ,.!")))):
        lines.pop(0)
    while len(lines) > 1 and (not lines[-1].strip() or (len(lines[-1].split()) <= _BRIEF and _GREETING.fullmatch(lines[-1].strip(" ,.!")))):
        lines.pop()
    if len(lines) == 1:
        return split(lines[0].strip())
    if lines[-1].rstrip().endswith("?") and not lines[0].rstrip().endswith(("?", ":")):
        return Request(lines[-1].strip(), "\n".join(lines[:-1]).strip("\n"))
    first, rest = lines[0].strip(), "\n".join(lines[1:]).strip("\n")
    head, colon, tail = first.partition(": ")
    if colon and _POINTER.search(head):
        return Request(head, f"{tail}\n{rest}")
    return Request(first.removesuffix(":"), rest)
