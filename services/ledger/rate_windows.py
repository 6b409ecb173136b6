"""How fast a caller may be: a sliding log for what is allowed in any minute, and a bucket that refills.

The log has one entry for each hundredth of a second, rounded up, so it is at most that late and bounded whatever comes. An entry counts
until a minute has passed: no 60 seconds anywhere have more in them than is allowed. The bucket is the generic cell rate algorithm: all
that is kept is when it will be full again. Times are in nanoseconds of one clock.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from joulegate.ledger.v1.reservation_pb2 import RateLimit

SECOND: Final = 10**9
MINUTE: Final = 60 * SECOND
TICK: Final = SECOND // 100
_REQUESTS: Final = RateLimit.RATE_LIMIT_REQUESTS_PER_MINUTE
_TOKENS: Final = RateLimit.RATE_LIMIT_TOKENS_PER_MINUTE
_BUCKET: Final = RateLimit.RATE_LIMIT_BUCKET


class RateLimits(NamedTuple):
    """What a caller is bounded by; None: not by that. `capacity` requests at once, then `refill_per_s`."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    capacity: int | None = None
    refill_per_s: float | None = None

    @property
    def are_none(self) -> bool:
        return self.requests_per_minute is None and self.tokens_per_minute is None and self.capacity is None

    @property
    def interval(self) -> int:
        """In which one request comes back into the bucket."""
        return round(SECOND / (self.refill_per_s or 1))


class Refusal(NamedTuple):
    """Which limit is reached, and in how many nanoseconds it lets the same through; None: never."""

    limit: int
    wait: int | None


class Standing(NamedTuple):
    """Where a caller stands with a limit: `reset` nanoseconds until all of it is there again."""

    limit: int
    remaining: int
    reset: int


class _State(msgspec.Struct, array_like=True):
    entries: list[tuple[int, int, int]]
    full_at: int


@dataclass(slots=True)
class RateState:
    """One caller's recent past. `leased` are requests and tokens that routers may still use."""

    entries: deque[list[int]] = field(default_factory=deque)
    full_at: int = 0
    leased_requests: int = 0
    leased_tokens: int = 0
    _requests: int = 0
    _tokens: int = 0

    def refusal(self, limits: RateLimits, now: int, tokens: int, requests: int = 1) -> Refusal | None:
        """What keeps so much out at a moment."""
        self._forget(now)
        if limits.requests_per_minute is not None:
            excess = self._requests + self.leased_requests + requests - limits.requests_per_minute
            if excess > 0:
                return Refusal(_REQUESTS, self._wait(1, excess, now))
        if limits.capacity is not None and (wait := self._bucket_wait(limits, now, requests)) > 0:
            return Refusal(_BUCKET, wait if limits.capacity >= requests else None)
        if limits.tokens_per_minute is not None:
            excess = self._tokens + self.leased_tokens + tokens - limits.tokens_per_minute
            if excess > 0:
                return Refusal(_TOKENS, self._wait(2, excess, now))
        return None

    def take(self, now: int, tokens: int) -> int:
        """Counts a request that was let in, and gives where, for `correct`. The bucket is filled apart."""
        tick = -(-now // TICK) * TICK
        if not self.entries or self.entries[-1][0] < tick:
            self.entries.append([tick, 0, 0])
        self.entries[-1][1] += 1
        self.entries[-1][2] += tokens
        self._requests += 1
        self._tokens += tokens
        return self.entries[-1][0]

    def fill(self, limits: RateLimits, now: int, requests: int) -> None:
        """Takes requests out of the bucket, or gives back those that are negative."""
        if limits.capacity is not None:
            self.full_at = max(self.full_at, now) + requests * limits.interval

    def correct(self, tick: int, tokens: int) -> None:
        """Adds tokens, or takes some back, where something was let in, as long as that counts."""
        for entry in reversed(self.entries):
            if entry[0] == tick:
                entry[2] += tokens
                self._tokens += tokens
            if entry[0] <= tick:
                return

    def standing(self, limits: RateLimits, now: int) -> tuple[Standing | None, Standing | None]:
        """Where the caller stands with requests and with tokens."""
        self._forget(now)
        reset = max(0, self.entries[-1][0] + MINUTE - now) if self.entries else 0
        requests = tokens = None
        if limits.requests_per_minute is not None:
            left = limits.requests_per_minute - self._requests - self.leased_requests
            requests = Standing(limits.requests_per_minute, max(0, left), reset)
        if limits.capacity is not None:
            until_full = max(0, self.full_at - now)
            left = max(0, limits.capacity - -(-until_full // limits.interval))
            if requests is None or left < requests.remaining:
                requests = Standing(limits.capacity, left, until_full)
        if limits.tokens_per_minute is not None:
            tokens = Standing(limits.tokens_per_minute, max(0, limits.tokens_per_minute - self._tokens - self.leased_tokens), reset)
        return requests, tokens

    def is_idle(self, now: int) -> bool:
        """Whether it is as good as a new one."""
        self._forget(now)
        return not (self.entries or self.leased_requests or self.leased_tokens) and self.full_at <= now

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(_State([(tick, requests, tokens) for tick, requests, tokens in self.entries], self.full_at))

    def _forget(self, now: int) -> None:
        while self.entries and self.entries[0][0] + MINUTE <= now:
            _, requests, tokens = self.entries.popleft()
            self._requests -= requests
            self._tokens -= tokens

    def _wait(self, which: int, excess: int, now: int) -> int | None:
        for entry in self.entries:
            excess -= entry[which]
            if excess <= 0:
                return entry[0] + MINUTE - now
        # What leases hold comes back within seconds; what is more than the limit never fits.
        leased = self.leased_requests if which == 1 else self.leased_tokens
        return SECOND if leased >= excess else None

    def _bucket_wait(self, limits: RateLimits, now: int, requests: int) -> int:
        assert limits.capacity is not None
        # A clock that was ahead for a while must not keep the caller out.
        self.full_at = min(self.full_at, now + limits.capacity * limits.interval)
        return max(self.full_at, now) + requests * limits.interval - now - limits.capacity * limits.interval


def decode(state: bytes, now: int) -> RateState:
    """What `encode` wrote. Nothing in it is later than now, whatever its writer's clock said."""
    kept = msgspec.msgpack.decode(state, type=_State)
    return restored(((min(tick, now), requests, tokens) for tick, requests, tokens in kept.entries), kept.full_at)


def restored(entries: Iterable[tuple[int, int, int]], full_at: int = 0) -> RateState:
    """A state of these entries (when, requests, tokens), which are in the order of time."""
    state = RateState(full_at=full_at)
    for tick, requests, tokens in entries:
        rounded = -(-tick // TICK) * TICK
        if state.entries and state.entries[-1][0] == rounded:
            state.entries[-1][1] += requests
            state.entries[-1][2] += tokens
        else:
            state.entries.append([rounded, requests, tokens])
        state._requests += requests
        state._tokens += tokens
    return state
