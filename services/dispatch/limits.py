"""How many calls a provider takes: the limits that are configured, and those that its answers teach.

Own limits hold for the provider as a whole. Requests are counted exactly: never more than the limit in any window of its length. Tokens are
a bucket that fills evenly, as vendors count them: a call takes what it may need, and gets back what it did not. Learned limits hold for
a key and a model: a limit with nothing left keeps calls back until it starts anew, but no longer than a minute, since vendors mean
different things by a reset (empty window, full bucket, a day's end) and one call finds out.

Pure: `now` is monotonic seconds.
"""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from math import inf
from typing import Final

from joulegate.chat.v1 import chat_pb2
from services.dispatch.keys import KeyRing
from services.dispatch.rate_headers import Quota, Rates, period_s

MINUTE_S: Final = 60.0
MAX_LEARNED: Final = 1024
# For a limit that is used up and does not say until when.
UNSAID_S: Final = 1.0
BYTES_PER_TOKEN: Final = 3.3


@dataclass(frozen=True, slots=True)
class ProviderLimits:
    """What is configured; None: no limit."""

    requests_per_second: float | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


NO_LIMITS: Final = ProviderLimits()


def estimate_tokens(request: chat_pb2.ChatRequest) -> int:
    """What a call may take: the prompt by its length, and all that it may answer where that is bounded."""
    characters = 0
    for message in request.messages:
        characters += len(message.text)
        for part in message.parts.parts:
            characters += len(part.text)
    return int(characters / BYTES_PER_TOKEN) + 1 + max(0, request.max_completion_tokens or request.max_tokens)


class Limiter:
    """The limits of one provider. `wait_s`, or its parts, asks, `take` goes out, `learn` reads the answer, `settle` gives back."""

    def __init__(self, limits: ProviderLimits = NO_LIMITS, keys: KeyRing | None = None) -> None:
        self.keys = keys or KeyRing()
        bounds = ((limits.requests_per_second, 1.0), (limits.requests_per_minute, MINUTE_S))
        self._windows = [_Window(limit, span_s) for limit, span_s in bounds if limit is not None]
        self._bucket = None if limits.tokens_per_minute is None else _Bucket(limits.tokens_per_minute)
        self._counts_tokens = self._bucket is not None
        self._learned: dict[tuple[int, str], _Learned] = {}

    def estimate(self, request: chat_pb2.ChatRequest) -> int:
        """The tokens to ask for; 0 where nobody counts them."""
        return estimate_tokens(request) if self._counts_tokens else 0

    def wait_s(self, now: float, tokens: int = 0, model: str = "") -> float:
        """How long until a call may go out; 0: now."""
        return max(self.own_wait_s(now, tokens), self._keys_wait_s(now, tokens, model))

    def own_wait_s(self, now: float, tokens: int = 0) -> float:
        """How long the limits that are configured keep a call back, whichever key it shows."""
        wait_s = 0.0
        for window in self._windows:
            wait_s = max(wait_s, window.wait_s(now))
        return wait_s if self._bucket is None else max(wait_s, self._bucket.wait_s(now, tokens))

    def choose(self, now: float, draw: float, tokens: int, model: str, tried: Collection[int] = ()) -> int | None:
        """The key of the next call, by `draw` in [0, 1); see KeyRing. None: none may be used."""
        full = [index for index in self.keys.indexes if self._learned_wait_s(now, tokens, index, model) > 0] if self._learned else []
        return self.keys.choose(now, draw, model, tried, full)

    def requests_left(self, now: float) -> int | None:
        """How many calls may still go out, by the tightest limit of requests that is known now; None when none is."""
        left = [window.left(now) for window in self._windows]
        left += [max(0, int(amount)) for learned in self._learned.values() for amount in learned.requests(now)]
        return min(left, default=None)

    def take(self, now: float, tokens: int = 0, model: str = "", key: int = 0) -> None:
        """Counts a call that goes out."""
        for window in self._windows:
            window.take(now)
        if self._bucket is not None:
            self._bucket.take(now, tokens)
        if learned := self._learned.get((key, model)):
            learned.take(tokens)

    def settle(self, now: float, reserved: int, used: int) -> None:
        """Gives back, or takes what was not foreseen, once a call says what it really took."""
        if self._bucket is not None:
            self._bucket.take(now, used - reserved)

    def learn(self, now: float, rates: Rates, model: str = "", key: int = 0) -> None:
        """Takes in what an answer's headers said."""
        if not rates:
            return
        learned = self._learned.pop((key, model), None) or _Learned()
        # Clients may name any model.
        if len(self._learned) >= MAX_LEARNED:
            del self._learned[next(iter(self._learned))]
        self._learned[key, model] = learned
        learned.learn(now, rates)
        self._counts_tokens = self._counts_tokens or any(quota is Quota.TOKENS for quota, _ in rates)

    def _keys_wait_s(self, now: float, tokens: int, model: str) -> float:
        """0 as long as a key may be used, be it one that is set aside by guess alone."""
        if self.choose(now, 0.0, tokens, model) is not None:
            return 0.0
        return min(
            max(self.keys.firm_wait_s(index, now, model), self._learned_wait_s(now, tokens, index, model)) for index in self.keys.indexes
        )

    def _learned_wait_s(self, now: float, tokens: int, index: int, model: str) -> float:
        learned = self._learned.get((index, model))
        return 0.0 if learned is None else learned.wait_s(now, tokens)


class _Window:
    """Never more than `limit` calls within `span_s`: the times of so many last calls."""

    __slots__ = ("_count", "_span_s", "_times")

    def __init__(self, limit: float, span_s: float) -> None:
        # Below one call in the span, the span of one call.
        self._count = max(1, int(limit))
        self._span_s = span_s if limit >= 1 else span_s / limit
        self._times: deque[float] = deque(maxlen=self._count)

    def wait_s(self, now: float) -> float:
        if len(self._times) < self._count:
            return 0.0
        return max(0.0, self._times[0] + self._span_s - now)

    def left(self, now: float) -> int:
        return self._count - sum(time + self._span_s > now for time in self._times)

    def take(self, now: float) -> None:
        self._times.append(now)


class _Bucket:
    """Tokens that fill up evenly, a minute's worth at most. It can be in debt: what an answer takes is known when it is there."""

    __slots__ = ("_at", "_level", "_most")

    def __init__(self, per_minute: float) -> None:
        self._most = per_minute
        self._level = per_minute
        self._at = 0.0

    def wait_s(self, now: float, tokens: int) -> float:
        self._fill(now)
        # What is larger than the bucket goes out when that is full: else it never would.
        missing = min(float(tokens), self._most) - self._level
        if self._level <= 0:
            missing = max(missing, 1.0 - self._level)
        return max(0.0, missing) * MINUTE_S / self._most

    def take(self, now: float, tokens: int) -> None:
        self._fill(now)
        self._level = min(self._most, self._level - tokens)

    def _fill(self, now: float) -> None:
        if now > self._at:
            self._level = min(self._most, self._level + (now - self._at) * self._most / MINUTE_S)
            self._at = now


@dataclass(slots=True)
class _Left:
    """What is left of one limit, and until when that holds."""

    amount: float
    most: float
    until: float


class _Learned:
    """What is left, for one key and model, of each limit that the provider told of."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left: dict[tuple[Quota, str], _Left] = {}

    def learn(self, now: float, rates: Rates) -> None:
        for (quota, period), rate in rates.items():
            if rate.remaining is None:
                continue
            reset_s = rate.reset_s if rate.reset_s is not None else period_s(period) or UNSAID_S
            most = inf if rate.limit is None else rate.limit
            self._left[quota, period] = _Left(rate.remaining, most, now + min(MINUTE_S, reset_s))

    def take(self, tokens: int) -> None:
        for (quota, _), left in self._left.items():
            if quota is Quota.REQUESTS:
                left.amount -= 1
            elif quota is Quota.TOKENS:
                left.amount -= tokens

    def wait_s(self, now: float, tokens: int) -> float:
        wait_s = 0.0
        for (quota, _), left in self._left.items():
            # How the estimate divides into input and output is not known: of those, only having none keeps a call back.
            needed = max(1.0, min(tokens, left.most)) if quota is Quota.TOKENS else 1.0
            if left.until > now and left.amount < needed:
                wait_s = max(wait_s, left.until - now)
        return wait_s

    def requests(self, now: float) -> list[float]:
        """What is left of the limits of requests that hold still."""
        return [left.amount for (quota, _), left in self._left.items() if quota is Quota.REQUESTS and left.until > now]
