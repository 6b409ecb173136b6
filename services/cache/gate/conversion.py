"""Conversions of units and currencies, which are asked for in many ways: each is a number, a unit and a unit."""

from services.cache.gate.clauses import Clause
from services.cache.gate.english_words import PLAIN_UNITS, UNITS
from services.cache.gate.scanning import Kind
from services.cache.gate.structure import Segment
from services.cache.gate.tables import words

_ASKED_BY = frozenset(("convert", "how-many", "how-much", "what", "statement", "calculate", "whether"))
_UNITS = frozenset(UNITS.values()) | words(
    "dollar euro £ ¥ ₹ usd eur gbp jpy cad aud chf inr cny rupee yen franc peso yuan celsius fahrenheit kelvin byte bit kilobyte megabyte",
    "gigabyte terabyte acre hectare gallon pint quart cup tablespoon teaspoon ton tonne stone knot nautical light-year day week month year",
    "kilometer meter centimeter millimeter mile foot inch yard kilogram gram milligram pound ounce liter milliliter hour minute second",
)
_FILLER = words(
    "degree degrees",
    "in to into are is be there a an the of convert equal equals make makes worth as much how many do does from it how when converted",
)

_SIGNS = {"C": "celsius", "F": "fahrenheit", "°C": "celsius", "°F": "fahrenheit"}


def conversion(clause: Clause) -> list[Segment] | None:
    """What a clause asks to convert, and into what; None when it is about anything else."""
    if clause.question not in _ASKED_BY or clause.front:
        return None
    source: tuple[str, str] | None = None
    target: str | None = None
    found = clause.words
    index = 0
    while index < len(found):
        word = found[index]
        behind = index + 1
        if behind + 1 < len(found) and found[behind].form in ("degree", "degrees"):
            behind += 1
        unit = _unit(found[behind].form) if behind < len(found) else None
        if word.kind is Kind.NUMBER and unit is not None and source is None:
            source = (word.form, unit)
            index = behind + 1
            continue
        own = _unit(_SIGNS.get(word.raw, word.form)) if word.kind is Kind.WORD else None
        if own is not None and target is None:
            target = own
        elif word.kind is not Kind.WORD or word.form not in _FILLER:
            return None
        index += 1
    if source is None or target is None:
        return None
    return [("", source), ("to", (target,))]


def _unit(form: str) -> str | None:
    form = PLAIN_UNITS.get(form, form)
    for name in (form, form.removesuffix("s"), form.removesuffix("es")):
        if name in _UNITS:
            return name
    return "foot" if form == "feet" else None
