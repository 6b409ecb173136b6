"""Whether every difference between two texts is explained."""

from services.cache.gate.analysis import Analysis
from services.cache.gate.rule import Rule


def compare(asked: Analysis, kept: Analysis) -> Rule | None:
    """None when the answer to `kept` may serve `asked`, else the first rule that refuses. Symmetric; every text passes against itself."""
    if asked.plain == kept.plain:
        return None
    return Rule.WORDS
