"""What the gate knows of a text."""

import re
import unicodedata
from dataclasses import dataclass

_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Analysis:
    """A text, taken apart once. Built from the text alone, so it need not be stored."""

    # The text without differences of spacing: equal ones are the same request.
    plain: str


def analyse(text: str) -> Analysis:
    """Takes a text apart. Never fails; costs time linear in its length."""
    return Analysis(_SPACE.sub(" ", unicodedata.normalize("NFC", text)).strip())
