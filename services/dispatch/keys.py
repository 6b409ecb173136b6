"""The keys of one provider, and which of them a call shows.

A key that is refused is set aside, so that one bad or exhausted key does not stop the others: one that is bad or out of money for all
models and long, one that may not or not now use a model for that model, as rates are counted per model by most vendors. How long is the
provider's word where it has one, else a guess that grows. A guess only puts a key behind the others: when all are set aside, the one that
comes back soonest is used all the same, for else one hiccup of a vendor's login would be a minute without it. The provider's word holds,
and so does a guess about a rate once several in a row were right: a limit does not go away by being run into.

Pure: `now` is monotonic seconds.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from services.runtime.secret import Secret

# The key itself is at fault: unknown, or its account is empty.
_BAD: Final = frozenset({401, 402})
REFUSALS: Final = _BAD | {403, 429}
# A vendor that answers 429 for an empty account says so by its code.
_EMPTY: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached", "insufficient_balance"})
LONG_S: Final = 60.0
LONGEST_S: Final = 960.0
SHORT_S: Final = 1.0
SHORT_AT_MOST_S: Final = 60.0
# Refusals for the rate in a row, each after the pause that the one before was given.
FIRM_AFTER: Final = 3
MAX_PAUSES: Final = 1024
_ALL_MODELS: Final = ""


@dataclass(frozen=True, slots=True)
class Key:
    """One key and its share of the calls, relative to the others."""

    secret: Secret
    weight: float = 1.0


@dataclass(slots=True)
class _Pause:
    until: float
    # In a row, without a success in between.
    times: int
    # Whether nothing goes out before its end.
    is_firm: bool


class KeyRing:
    """Keys by index. A provider without a key has one index too, for what is known of the address."""

    def __init__(self, keys: Sequence[Key] = ()) -> None:
        self.keys = tuple(keys)
        self.indexes: Sequence[int] = range(max(1, len(self.keys)))
        self._pauses: dict[tuple[int, str], _Pause] = {}

    def is_usable(self, index: int, now: float, model: str = _ALL_MODELS) -> bool:
        """Whether the key is not set aside, for this model or for all."""
        return not self._pauses or self._back_at(index, model, now) <= now

    def usable_count(self, now: float, model: str = _ALL_MODELS) -> int:
        """How many keys are not set aside."""
        return sum(self.is_usable(index, now, model) for index in self.indexes)

    def choose(self, now: float, draw: float, model: str, tried: Collection[int] = (), full: Collection[int] = ()) -> int | None:
        """The key of the next call, by weight; `draw` is in [0, 1). None: there is none.

        Keys that are `full` have reached a limit. For a call that was refused with the keys `tried`, only a usable key will do.
        """
        indexes = [index for index in self.indexes if index not in tried and index not in full] if tried or full else self.indexes
        usable = [index for index in indexes if self.is_usable(index, now, model)] if self._pauses else indexes
        if usable:
            return usable[0] if len(usable) == 1 else self._weighted(usable, draw)
        guessed = [index for index in indexes if not self.firm_wait_s(index, now, model)]
        if tried or not guessed:
            return None
        return min(guessed, key=lambda index: self._back_at(index, model, now))

    def firm_wait_s(self, index: int, now: float, model: str = _ALL_MODELS) -> float:
        """For how long none of this key's calls may go out."""
        if not self._pauses:
            return 0.0
        found = (self._pauses.get((index, _ALL_MODELS)), self._pauses.get((index, model)))
        return max((pause.until - now for pause in found if pause is not None and pause.is_firm and pause.until > now), default=0.0)

    def wait_s(self, now: float, model: str = _ALL_MODELS) -> float:
        """Until the first key is back from whatever set it aside; 0 when one is there."""
        return max(0.0, min(self._back_at(index, model, now) for index in self.indexes) - now)

    def refused(self, index: int, model: str, now: float, http_status: int, retry_after_s: float | None = None, code: str = "") -> None:
        """Sets a key aside after one of REFUSALS."""
        is_bad = http_status in _BAD or code in _EMPTY
        scope = (index, _ALL_MODELS if is_bad else model)
        pause = self._pauses.get(scope)
        if pause is None:
            pause = self._pauses[scope] = _Pause(now, 0, is_firm=False)
            self._forget_some(now)
        # Calls that went out together are refused together: that is one refusal.
        if pause.until <= now:
            pause.times += 1
            pause.is_firm = False
        if retry_after_s is not None and not is_bad:
            pause.until, pause.is_firm = max(pause.until, now + retry_after_s), True
        elif pause.until <= now:
            is_rate = http_status == 429 and not is_bad
            least, most = (SHORT_S, SHORT_AT_MOST_S) if is_rate else (LONG_S, LONGEST_S)
            pause.until = now + min(most, least * 2.0 ** min(pause.times - 1, 16))
            pause.is_firm = is_rate and pause.times >= FIRM_AFTER

    def accepted(self, index: int, model: str, now: float) -> None:
        """The provider took a call with this key: it is good again, but for what the provider said of a time still to come."""
        if not self._pauses:
            return
        for scope in ((index, _ALL_MODELS), (index, model)):
            pause = self._pauses.get(scope)
            if pause is not None and not (pause.is_firm and pause.until > now):
                del self._pauses[scope]

    def redact(self, text: str) -> str:
        """`text` without any of the keys in it."""
        for key in self.keys:
            text = key.secret.redact(text)
        return text

    def _weighted(self, indexes: Sequence[int], draw: float) -> int:
        left = draw * sum(self.keys[index].weight for index in indexes)
        for index in indexes:
            left -= self.keys[index].weight
            if left < 0:
                return index
        return indexes[-1]

    def _back_at(self, index: int, model: str, now: float) -> float:
        found = (self._pauses.get((index, _ALL_MODELS)), self._pauses.get((index, model)))
        return max((pause.until for pause in found if pause is not None), default=now)

    def _forget_some(self, now: float) -> None:
        """Clients may name any model."""
        if len(self._pauses) <= MAX_PAUSES:
            return
        for scope in [scope for scope, pause in self._pauses.items() if pause.until < now]:
            del self._pauses[scope]
        while len(self._pauses) > MAX_PAUSES:
            del self._pauses[next(iter(self._pauses))]
