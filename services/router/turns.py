"""Turns among candidates, as even as they can be (smooth weighted round robin).

Each time, everybody's credit grows by its share; who has most goes first and pays what all got together. Shares of 5, 1 and 1 give
a a b a c a a, never five of one in a row.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from services.router.catalogue import Candidate

# Clients may name any model: who has not been asked for longest is forgotten.
MOST_KEPT: Final = 1024
_Target = tuple[str, str]


class Turns:
    """Whose turn it is, for each set of candidates."""

    def __init__(self) -> None:
        self._credits: dict[frozenset[_Target], dict[_Target, float]] = {}

    def order(self, candidates: Sequence[Candidate], shares: Mapping[str, float]) -> list[Candidate]:
        """The one whose turn it is, and the others as they would follow. Counts as a turn."""
        targets = [(candidate.provider.name, candidate.model) for candidate in candidates]
        key = frozenset(targets)
        credit = self._credits.pop(key, None) or dict.fromkeys(targets, 0.0)
        # At the end again: the first one in the dictionary is the one that is forgotten.
        self._credits[key] = credit
        if len(self._credits) > MOST_KEPT:
            del self._credits[next(iter(self._credits))]
        total = 0.0
        for target in targets:
            share = shares.get(target[0], 1.0)
            credit[target] += share
            total += share
        order = sorted(range(len(targets)), key=lambda place: -credit[targets[place]])
        if order:
            credit[targets[order[0]]] -= total
        return [candidates[place] for place in order]
