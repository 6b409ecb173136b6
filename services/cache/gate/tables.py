"""Tables of words as text, since that is how they are read and reviewed."""

from collections.abc import Callable


def words(*lines: str) -> frozenset[str]:
    """A set of words."""
    return frozenset(word for line in lines for word in line.split())


def pairs(*lines: str) -> dict[str, str]:
    """`word=meaning` pairs as a mapping; `_` stands for a space in the meaning."""
    return {word: meaning.replace("_", " ") for line in lines for word, meaning in (pair.split("=") for pair in line.split())}


def groups(*lines: str) -> dict[str, str]:
    """Lines of interchangeable words as a mapping of each to the first of its line."""
    return {word: line.split()[0] for line in lines for word in line.split()[1:]}


def readings(*lines: str) -> dict[str, frozenset[str]]:
    """Lines `reading: word word` as a mapping of each word to all its readings."""
    table: dict[str, frozenset[str]] = {}
    for line in lines:
        reading, _, found = line.partition(":")
        table |= {word: table.get(word, frozenset()) | {reading} for word in found.split()}
    return table


def phrases(*lines: str) -> dict[str, dict[tuple[str, ...], str]]:
    """Lines `meaning: phrase, phrase` as a mapping by first word, longest phrase first."""
    table: dict[str, dict[tuple[str, ...], str]] = {}
    found = [(tuple(phrase.split()), line.partition(":")[0].strip()) for line in lines for phrase in line.partition(":")[2].split(",")]
    for phrase, meaning in sorted(found, key=lambda entry: -len(entry[0])):
        table.setdefault(phrase[0], {})[phrase] = meaning
    return table


def numerals(line: str) -> dict[str, int]:
    """Number words from zero upwards."""
    return {word: number for number, word in enumerate(line.split())}


def stemmed(synonyms: dict[str, str], verb: Callable[[str], str]) -> dict[str, str]:
    """Synonyms by the stems of their words."""
    return {verb(word): verb(meaning) for word, meaning in synonyms.items()}
