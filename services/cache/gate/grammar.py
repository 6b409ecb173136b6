"""What the gate must know of a language; the tables of each are in modules of their own."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Frame:
    """A way to put a question. `shape` matches at one end of a clause; what it leaves is the content."""

    question: str
    shape: re.Pattern[str]


# Compared by identity: there is one of each language.
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grammar:
    """Tables of one language. Patterns match lower-case words with one space between them; a comma is a word."""

    code: str
    # Words that tell the language.
    marks: frozenset[str]
    # What is said for politeness or to open a question, at the start and at the end of a sentence.
    openers: re.Pattern[str]
    closers: re.Pattern[str]
    frames: tuple[Frame, ...]
    # `X, how?`: at the end of a clause that says what is wanted.
    tails: tuple[Frame, ...]
    # What stands before X in `I want to X, how?`.
    wishes: re.Pattern[str]
    # A second sentence that asks for nothing but the first: "How do I do that?"
    back_references: re.Pattern[str]
    articles: frozenset[str]
    # Words that are another thing with an article than without: "a chicken", "a few", "le plus".
    counted: frozenset[str] = frozenset()
    # The cases or genders that articles show, as letters: the same noun with articles that have none in common does another thing
    # ("der Hund", "den Hund") or is another ("el capital", "la capital").
    agreement: dict[str, frozenset[str]] = field(default_factory=dict)
    # Pronouns that a capital makes polite, and another person: "Sie", "sie".
    polite: frozenset[str] = frozenset()
    # Words without content of their own: the sense of the clause is in its question and tense.
    empty: frozenset[str]
    # Prepositions and conjunctions, by one name for each meaning.
    links: dict[str, str]
    negations: dict[str, str]
    # The asker: without weight in "how do I", with it elsewhere.
    first_person: frozenset[str]
    second_person: frozenset[str]
    # Subjects of a question that mean anyone: "how do you", "wie macht man".
    anyone: frozenset[str]
    past: frozenset[str]
    present: frozenset[str]
    future: frozenset[str]
    # Whether a verb form tells the past without an auxiliary.
    is_past: Callable[[str], bool]
    # The base form of an inflected word.
    base: Callable[[str], str]
    # The words that a contraction stands for.
    expand: Callable[[str], list[str]]
    # One spelling of a word.
    normal: Callable[[str], str]
    numbers: dict[str, int]
    ordinals: dict[str, int]
    words: dict[str, str] = field(default_factory=dict)
    synonyms: dict[str, str] = field(default_factory=dict)
    # The same for the stems of verbs.
    verb_synonyms: dict[str, str] = field(default_factory=dict)
    phrases: dict[str, dict[tuple[str, ...], str]] = field(default_factory=dict)
    particles: frozenset[str] = frozenset()
    particle_verbs: frozenset[str] = frozenset()
    capitonyms: frozenset[str] = frozenset()
    technologies: frozenset[str] = frozenset()
    verbs: frozenset[str] = frozenset()
    # Whether "A of B" is said as "B A" too.
    inverts_of: bool = False
    # The stem of the verb that a question about a way to act starts with.
    verb: Callable[[str], str] = str
    # What a verb may part with: "setze ... zurück".
    verb_prefixes: frozenset[str] = frozenset()
    # Whether a verb may stand at the end of its clause, its prefix apart.
    is_verb_final: bool = False
    # All frames at once, each in a group of its own; and all tails.
    _any_frame: re.Pattern[str] = field(init=False)
    _any_tail: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_any_frame", re.compile("|".join(f"({frame.shape.pattern})" for frame in self.frames)))
        # From the last word backwards; a search would try each letter.
        tails = "|".join(frame.shape.pattern for frame in self.tails)
        object.__setattr__(self, "_any_tail", re.compile(f"(?s:.* )?(?:{tails})"))

    def frame(self, text: str) -> tuple[str, str] | None:
        """The question of the first frame that a clause starts with, and the words that it matches."""
        match = self._any_frame.match(text)
        return None if match is None or match.lastindex is None else (self.frames[match.lastindex - 1].question, match.group())

    def has_tail(self, text: str) -> bool:
        """Whether a clause ends with any of the tails."""
        return self._any_tail.match(text) is not None


def pattern(*alternatives: str) -> re.Pattern[str]:
    """Matches whole words at the start of a clause."""
    return re.compile(rf"(?:{'|'.join(alternatives)})(?:(?= |\Z)|(?<= ))")


def ending(*alternatives: str) -> re.Pattern[str]:
    """Matches whole words at the end of a clause."""
    return re.compile(rf"(?:\A|(?<= ))(?:{'|'.join(alternatives)})\Z")
