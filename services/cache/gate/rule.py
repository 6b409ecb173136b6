"""The rules of the gate, by the name under which a refusal is counted."""

from enum import StrEnum


class Rule(StrEnum):
    """Why a kept answer may not serve. Values are metric labels: stable, and few."""

    LANGUAGE = "language"
    LENGTH = "length"
    LITERAL = "literal"
    NUMBER = "number"
    QUESTION = "question"
    NEGATION = "negation"
    TENSE = "tense"
    PERSON = "person"
    CASE = "case"
    WORDS = "words"
    DIRECTION = "direction"
    ORDER = "order"
