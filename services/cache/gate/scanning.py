"""Cuts a text into tokens: words, numbers, and literals that only their own spelling equals."""

import re
import unicodedata
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

# Most words of a text are those of others: what is known of one word costs more to find out than to remember.
REMEMBERED_WORDS = 8192


class Kind(IntEnum):
    """What a token is to the rules."""

    WORD = 0
    NUMBER = 1
    # Quotes, code spans, addresses, paths, identifiers: equal verbatim or not at all.
    LITERAL = 2
    # Characters that prose does not use: with one outside a literal, all is compared as code.
    OPERATOR = 3
    COMMA = 4
    COLON = 5
    STOP = 6


class Token(NamedTuple):
    """`form` is what rules compare; `raw` is as written."""

    kind: Kind
    form: str
    raw: str


_QUOTES = str.maketrans(
    {
        "“": '"', "”": '"', "„": '"', "‟": '"', "«": '"', "»": '"', "＂": '"', "″": '"',  # noqa: RUF001
        "‘": "'", "’": "'", "‚": "'", "‛": "'", "´": "'", "ʼ": "'",  # noqa: RUF001
        "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u200b": None, "\ufeff": None, "‑": "-", "‐": "-", "−": "-", "…": "...",  # noqa: RUF001
    }
)  # fmt: skip

_TOKEN = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<plain>[A-Za-z]+)(?:\ |(?=[,?.!]\ |[\ ?.!]*\Z))
  | (?P<span>```.*?```|~~~.*?~~~|`[^`\n]*`)
  | (?P<quote>"[^"]*"|(?<![\w'])'[^'\n]+'(?!\w))
  | (?P<address>(?:https?|ftp|wss?|file)://[^\s"'<>)]*[^\s"'<>).,;:!?]|www\.[^\s"'<>)]*[^\s"'<>).,;:!?]|[\w.+-]{1,64}+@[\w-]+(?:\.[\w-]+)+)
  | (?P<path>(?<![\w.)])(?:~|\.{1,2})?/[\w.-]+(?:/[\w.*-]*)*(?<![.])|[A-Za-z]:\\\S+|(?<![\w.])\*?\.[a-z]\w{0,4}\b(?!\.))
  | (?P<flag>(?<![\w-])--?[A-Za-z][\w-]*)
  | (?P<dotted>\b(?:[A-Za-z]\.){2,})
  | (?P<call>(?<!\w)[A-Za-z_$][\w$]*(?:(?:\.|::|->)[A-Za-z_]\w*)*\([^()\n]{0,80}\))
  | (?P<named>(?:°[CF]\b|[A-Za-z]\+\+|\b[A-Z]\#|\.NET\b|\b[A-Z]&[A-Z]\b|\bAT&T\b|\b[A-Z]\*(?=\W|\Z)))
  | (?P<identifier>(?<!\w)(?:[\w$]+(?:(?:\.|::|->)[A-Za-z_][\w$]*)+|\w*_\w*|\$[A-Za-z_]\w*))
  | (?P<number>(?:(?<![\w)])-)?[$€£¥₹]?(?:\d+(?:[.,:]\d+)*|(?<!\w)\.\d+)(?:[A-Za-z%°‰]+(?![\w-])|\ ?%|\ ?°[CF]\b)?(?![\w]))
  | (?P<mixed>(?:\d|[^\W\d_]++(?:-[^\W\d_]++){0,3}-?(?=\d))(?:[\w-]*\w)?)
  | (?P<word>[^\W\d_]+(?:['/][^\W\d_]+)*'?)
  | (?P<dash>[-–—]+)
  | (?P<comma>[,;()]|\.{3,})
  | (?P<colon>:)
  | (?P<stop>[.?!¿¡。？！؟]+)
  | (?P<other>.)
    """,  # noqa: RUF001
    re.VERBOSE | re.DOTALL,
)

_CAMEL = re.compile(r"[a-z]\w*[A-Z]|[A-Z]\w*[a-z]\w*[A-Z]")
# Two capitals at the start of a plural abbreviation or a name: PDFs, URLs.
_PLURAL_ABBREVIATION = re.compile(r"[A-Z]{2,}s\Z")


def clean(text: str) -> str:
    """One spelling for quotes, spaces and hyphens that keyboards and editors put in at will; composed letters."""
    return unicodedata.normalize("NFC", text).translate(_QUOTES)


def scan(text: str) -> list[Token]:
    """The tokens of a cleaned text, in order. A factorial's or a pattern's last mark is no full stop."""
    tokens: list[Token] = []
    end = len(text)
    for match in _TOKEN.finditer(text):
        group = match.lastgroup
        if group == "space":
            continue
        if group == "plain":
            tokens.append(_word(match["plain"]))
            continue
        raw = match.group()
        if group == "word":
            tokens.extend(_words(raw, text, match.end()))
        elif group == "number" or group == "mixed":
            tokens.append(Token(Kind.NUMBER, raw, raw))
        elif group == "dotted":
            plain = raw.replace(".", "")
            tokens.append(Token(Kind.WORD, plain if plain.isupper() else plain.lower(), plain))
        elif group == "named":
            tokens.append(Token(Kind.WORD, raw, raw))
        elif group == "quote":
            tokens.append(Token(Kind.LITERAL, '"' + raw[1:-1].strip() + '"', raw))
        elif group in _LITERAL_GROUPS:
            tokens.append(Token(Kind.LITERAL, raw, raw))
        else:
            tokens.extend(_mark(group, raw, text, match.start(), match.end() == end))
    return tokens


_LITERAL_GROUPS = frozenset(("span", "address", "path", "flag", "call", "identifier"))


@lru_cache(REMEMBERED_WORDS)
def _word(raw: str) -> Token:
    if raw[1:].islower() or raw.islower() or not _CAMEL.search(raw) or _PLURAL_ABBREVIATION.match(raw):
        return Token(Kind.WORD, raw.lower(), raw)
    # Case inside a word is spelling, not style.
    return Token(Kind.WORD, raw, raw)


def _words(raw: str, text: str, end: int) -> list[Token]:
    # A possessive plural's apostrophe, or a stray one.
    return [_word(raw.rstrip("'"))] if raw.rstrip("'") else []


def _mark(group: str | None, raw: str, text: str, start: int, is_last: bool) -> list[Token]:
    before = text[start - 1] if start else " "
    after = text[start + len(raw) : start + len(raw) + 1] or " "
    match group:
        case "stop":
            is_factorial = raw[0] == "!" and (before.isdigit() or (before.isalpha() and not text[max(0, start - 2) : start - 1].isalpha()))
            # In front of a word a mark negates, or belongs to a path; only Spanish opens sentences with one.
            is_prefix = raw[-1] not in "¿¡" and (after.isalnum() or after in "=_$([{<>*+^\\|/~&")
            is_operator = is_factorial or is_prefix or (len(raw) > 1 and before == " ")
            return [Token(Kind.OPERATOR if is_operator else Kind.STOP, raw if is_operator else raw[-1], raw)]
        case "dash":
            if before.isalnum() and after.isalpha() and len(raw) == 1:
                # A hyphen: both sides are tokens already.
                return []
            is_prose = not (_is_operand(text[:start].rstrip()[-2:]) or _is_operand(text[start + len(raw) :].lstrip()[:2][::-1]))
            return [Token(Kind.COMMA, ",", raw)] if is_prose else [Token(Kind.OPERATOR, raw, raw)]
        case "comma":
            # A bracket right behind a name calls or groups.
            if raw == "(" and (before.isalnum() or before in ")]\"'`_"):
                return [Token(Kind.OPERATOR, raw, raw)]
            # Apart from the word before it, or between variables, a mark is no pause.
            if raw in ",;" and ((before == " " and _IS_APART.search(text, 0, start)) or _parts_variables(text, start)):
                return [Token(Kind.OPERATOR, raw, raw)]
            return [Token(Kind.COMMA, "," if raw not in "()" else raw, raw)]
        case "colon":
            if before in ")]":
                return [Token(Kind.OPERATOR, raw, raw)]
            return [Token(Kind.COLON, ":", raw)]
        case _:
            if raw == "&" and before.isspace() and after.isspace():
                return [Token(Kind.WORD, "and", raw)]
            return [Token(Kind.OPERATOR, raw, raw)]


_IS_APART = re.compile(r"(?:[\w,;:.]|\A) \Z")
_VARIABLES = re.compile(r"(?<![^\W_])[^\W\d_][,;] ?[^\W\d_](?![^\W_])")


def _parts_variables(text: str, start: int) -> bool:
    """Whether a mark stands between two single letters."""
    return start > 0 and _VARIABLES.match(text, start - 1) is not None


def _is_operand(nearest: str) -> bool:
    """Whether what stands next to a dash is a number, a bracket or a variable; `nearest` ends at the dash."""
    mark = nearest[-1:]
    if mark.isdigit() or mark in (")", "]", "(", "["):
        return True
    # Letters that are words of some language are no variables.
    return mark.isalpha() and mark not in "aAiIoOeyàèé" and not nearest[:-1].isalnum()
