"""What the Romance grammars of the gate share."""

from collections.abc import Callable

_NO_PLURALS = frozenset(("plus", "moins", "mais", "menos", "dans", "sans", "sous", "vous", "nous", "depuis", "après", "jamais"))


def stem_of(endings: tuple[str, ...]) -> Callable[[str], str]:
    """A function that gives the stem of a verb by cutting off the first ending that fits."""

    def verb(word: str) -> str:
        for suffix in endings:
            if word.endswith(suffix) and len(word) - len(suffix) >= 3:
                return word[: -len(suffix)]
        return word

    return verb


def elided(heads: dict[str, str]) -> Callable[[str], list[str]]:
    """A function that writes out an elision: `l'eau` as `le eau`."""

    def expand(word: str) -> list[str]:
        head, mark, tail = word.partition("'")
        if not mark:
            return [word]
        return [heads[head], tail] if head in heads and tail else [word]

    return expand


def singular(word: str) -> str:
    """The singular of a plural in -s; the gender stays."""
    if word in _NO_PLURALS:
        return word
    if word.endswith(("ciones", "siones")):
        return word[:-5] + "ión"
    if len(word) > 4 and word.endswith("es") and word[-3] in "lnrdzj":
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] in "aeoéêiu" else word


def spelled(word: str) -> str:
    """The ending of an abstract noun with the accent that hurried writers leave out."""
    return word[:-4] + word[-4] + "ión" if word.endswith(("cion", "sion")) else word
