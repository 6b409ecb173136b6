"""Which scopes have been found to give wrong semantic hits, and may give none for a while.

Hits are verified by sample, and callers report wrong ones. For each scope the outcomes are counted with a half-life, so that a scope comes
back by the passing of time: one that is braked gives no hits that could be verified. A scope is braked when a hit of it was wrong and the
upper end of Wilson's interval for its share of wrong hits (Wilson 1927; one-sided, 95 %) is above the limit: one wrong hit of few brakes,
one of many does not. Pure: `now` is seconds on any clock that does not jump.
"""

import math
from collections import OrderedDict
from typing import Final

# One-sided 95 %.
Z: Final = 1.645
HALF_LIFE_S: Final = 24 * 3600.0
# Below so many wrong hits, what is left of one has faded.
FADED: Final = 0.5
MAX_SCOPES: Final = 10_000


def wilson_upper(wrong: float, verified: float, z: float = Z) -> float:
    """The upper end of the interval for a share, of which `wrong` of `verified` were seen; 1 when nothing was."""
    if verified <= 0:
        return 1.0
    share = min(1.0, wrong / verified)
    centre = share + z * z / (2 * verified)
    spread = z * math.sqrt(share * (1 - share) / verified + z * z / (4 * verified * verified))
    return min(1.0, (centre + spread) / (1 + z * z / verified))


class _Tally:
    """Verified hits of a scope, faded to a moment."""

    __slots__ = ("at", "verified", "wrong")

    def __init__(self, at: float) -> None:
        self.at = at
        self.verified = 0.0
        self.wrong = 0.0

    def fade(self, now: float) -> None:
        if now > self.at:
            left = 0.5 ** ((now - self.at) / HALF_LIFE_S)
            self.verified *= left
            self.wrong *= left
            self.at = now


class Brake:
    """The tallies of the scopes that were verified latest; a scope that was never found wrong may be forgotten at no risk but one hit."""

    def __init__(self, limit: float, capacity: int = MAX_SCOPES) -> None:
        self._limit = limit
        self._capacity = capacity
        self._tallies: OrderedDict[str, _Tally] = OrderedDict()

    def note(self, scope: str, now: float, *, is_wrong: bool) -> None:
        """Counts a hit whose truth is known."""
        tally = self._tallies.get(scope)
        if tally is None:
            tally = self._tallies[scope] = _Tally(now)
            if len(self._tallies) > self._capacity:
                self._forget_one(now)
        self._tallies.move_to_end(scope)
        tally.fade(now)
        tally.verified += 1
        tally.wrong += is_wrong

    def holds(self, scope: str, now: float) -> bool:
        """Whether the scope may give no semantic hits."""
        tally = self._tallies.get(scope)
        if tally is None or tally.wrong == 0:
            return False
        tally.fade(now)
        return tally.wrong >= FADED and wilson_upper(tally.wrong, tally.verified) > self._limit

    def held_count(self, now: float) -> int:
        """How many scopes are braked."""
        return sum(self.holds(scope, now) for scope in self._tallies)

    def _forget_one(self, now: float) -> None:
        """The oldest that is not braked, among a few; else the oldest."""
        oldest = [scope for scope, _ in zip(self._tallies, range(16), strict=False)]
        harmless = next((scope for scope in oldest if not self.holds(scope, now)), oldest[0])
        del self._tallies[harmless]
