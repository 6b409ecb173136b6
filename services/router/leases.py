"""What the ledger has said of callers, and what it lets this router decide by itself: a lease is an allowance for one caller, for seconds.

Nothing that is taken of a lease is put back: what a request turned out not to need returns to its budgets when the ledger books it, and the
next lease is cut from that. So a router never lets in more than its leases say, whatever becomes of the requests. Pure: `now` is monotonic
seconds.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from joulegate.ledger.v1 import reservation_pb2 as pb

# Callers without a key are told apart by address, and there may be any number of those.
CAPACITY: Final = 10_000
# Leases of one caller: for different models, as a rule.
MAX_LEASES: Final = 4
# How long a caller without a limit on requests is known as such; changes are told earlier, unless the ledger that knows of them is another.
KNOWN_S: Final = 30.0
# An answer to a wish for a lease may be lost with its request.
ASKING_S: Final = 1.0
# A lease of many requests is renewed when half of it is gone, or so long before its end, while the other half lets requests in.
MANY_REQUESTS: Final = 16
RENEW_S: Final = 1.0
_MILLION: Final = 1_000_000

Target = tuple[str, str]


class Need(NamedTuple):
    """What a request may take at most. `output_tokens` are those of all its answers; each of the calls reads the prompt."""

    targets: Sequence[Target]
    input_tokens: int
    output_tokens: int
    calls: int

    @property
    def tokens(self) -> int:
        return self.calls * self.input_tokens + self.output_tokens


class _Bound(NamedTuple):
    """What a call of a target is booked with at most: money, energy and carbon, each fixed, by input and by output."""

    fixed: Sequence[int]
    by_input: Sequence[int]
    by_output: Sequence[int]
    max_input_tokens: int

    def of(self, need: Need) -> list[int]:
        return [
            need.calls * (fixed - (-need.input_tokens * by_input // _MILLION)) - (-need.output_tokens * by_output // _MILLION)
            for fixed, by_input, by_output in zip(self.fixed, self.by_input, self.by_output, strict=True)
        ]


class Lease:
    """What is left of an allowance. It may be used before `until`."""

    __slots__ = (
        "_bounds",
        "_costs",
        "_count",
        "_halves",
        "_is_open",
        "_is_short",
        "_rate_tokens",
        "_requests",
        "_tokens",
        "lease_id",
        "unbounded_output_tokens",
        "until",
    )

    def __init__(self, message: pb.Lease, asked_at: float) -> None:
        self.lease_id = message.lease_id
        self.until = asked_at + message.lifetime.ToMicroseconds() / 1e6
        self.unbounded_output_tokens = message.unbounded_output_tokens
        self._requests = _bounded(message, "requests")
        self._tokens = _bounded(message, "tokens")
        self._rate_tokens = _bounded(message, "rate_tokens")
        self._costs = [_bounded(message, name) for name in ("nano_usd", "microjoules", "micrograms")]
        self._halves = [left / 2 if left < math.inf else -math.inf for left in self._left()]
        # Requests that were let in, and whether there was no room for another.
        self._count = 0
        self._is_short = False
        # Whether what a request may take of its targets does not matter.
        self._is_open = math.inf == self._tokens == self._rate_tokens == min(self._costs)
        self._bounds: Mapping[Target, _Bound] = {(target.provider, target.model): _bound(target) for target in message.targets}

    @property
    def is_open(self) -> bool:
        """Whether a request may take any amount."""
        return self._is_open

    @property
    def is_bounded(self) -> bool:
        """Whether there is anything to give back."""
        return not self._is_open or self._requests < math.inf

    def is_low(self, now: float) -> bool:
        """Whether one that was for many requests has come half-way, or close to its end."""
        if 2 * self._count < MANY_REQUESTS:
            return False
        return now >= self.until - RENEW_S or any(left < half for left, half in zip(self._left(), self._halves, strict=True))

    def is_spent(self, now: float) -> bool:
        """Whether so little is left that a request did not fit."""
        return self._is_short and self.is_low(now)

    def _left(self) -> Sequence[float]:
        return (self._requests, self._tokens, self._rate_tokens, *self._costs)

    def take_request(self) -> bool:
        """Takes a request that calls nobody; whether there was one left."""
        if self._requests < 1:
            self._is_short = True
            return False
        self._requests -= 1
        self._count += 1
        return True

    def take(self, need: Need) -> pb.Amounts | None:
        """Takes a request with all that it may need; None, and nothing is taken, when that is not there or not known."""
        if self._is_open:
            return _NOTHING if self.take_request() else None
        tokens = need.tokens
        if tokens > self._tokens or tokens > self._rate_tokens or self._requests < 1:
            self._is_short = True
            return None
        costs = self._worst(need)
        if costs is None and math.inf == min(self._costs):
            costs = [0, 0, 0]
        if costs is None:
            return None
        if any(cost > left for cost, left in zip(costs, self._costs, strict=True)):
            self._is_short = True
            return None
        self.take_request()
        self._tokens -= tokens
        self._rate_tokens -= tokens
        self._costs = [left - cost for cost, left in zip(costs, self._costs, strict=True)]
        return pb.Amounts(nano_usd=costs[0], tokens=tokens, microjoules=costs[1], micrograms=costs[2])

    def _worst(self, need: Need) -> list[int] | None:
        """The most of money, energy and carbon over all targets; None when there is no bound for one of them."""
        worst = [0, 0, 0]
        for target in need.targets:
            bound = self._bounds.get(target)
            if bound is None or need.input_tokens > bound.max_input_tokens:
                return None
            worst = list(map(max, worst, bound.of(need)))
        return worst


_NOTHING: Final = pb.Amounts()
_NO_LEASE: Final = pb.Lease()


def _bounded(message: pb.Lease, name: str) -> float:
    """An amount, exact as the integer that it is; infinite when it is not limited."""
    return getattr(message, name) if message.HasField(name) else math.inf  # type: ignore[arg-type]


def _bound(target: pb.PricedTarget) -> _Bound:
    parts = (target.fixed, target.per_million_input_tokens, target.per_million_output_tokens)
    fixed, by_input, by_output = ((part.nano_usd, part.microjoules, part.micrograms) for part in parts)
    return _Bound(fixed, by_input, by_output, target.max_input_tokens)


class Standing:
    """Where a caller stands with one limit, as far as this router knows."""

    __slots__ = ("_full_at", "_reset_s", "limit", "remaining")

    def __init__(self, message: pb.RateStanding, leased: int, now: float) -> None:
        self.limit = message.limit
        # What a lease has set aside for this router is there yet.
        self.remaining = min(message.limit, message.remaining + leased)
        self._reset_s = message.reset.ToMicroseconds() / 1e6
        self._full_at = now + self._reset_s

    def took(self, count: int, now: float) -> None:
        """Notes what was taken under a lease."""
        self.remaining = max(0, self.remaining - count)
        self._full_at = max(self._full_at, now + self._reset_s)

    def reset_s(self, now: float) -> float:
        """Until everything is there again."""
        return max(0.0, self._full_at - now)


class Account:
    """What is known of one caller."""

    __slots__ = ("_asked_at", "_denial", "_denied_until", "_leases", "_renews_at", "_unlimited_until", "requests", "returned", "tokens")

    def __init__(self, returned: list[str]) -> None:
        self.requests: Standing | None = None
        self.tokens: Standing | None = None
        # Ids of leases that are not used any more; of all accounts together.
        self.returned = returned
        self._leases: list[Lease] = []
        self._asked_at = -math.inf
        self._renews_at = -math.inf
        self._denial: pb.Denial | None = None
        self._denied_until = -math.inf
        self._unlimited_until = -math.inf

    def leases(self, now: float) -> Sequence[Lease]:
        """Those that may be used, newest first."""
        if self._leases and self._leases[-1].until <= now:
            self._drop(lambda lease: lease.until > now)
        return self._leases

    def counts_requests(self, now: float) -> bool:
        """Whether an answer from the cache has to be counted, as far as is known."""
        return now >= self._unlimited_until

    def denial(self, now: float) -> tuple[pb.Denial, float] | None:
        """A refusal for too many requests that still holds, and how long it will."""
        return (self._denial, self._denied_until - now) if self._denial is not None and now < self._denied_until else None

    def asks(self, now: float) -> bool:
        """Whether to wish for a lease now: one at a time."""
        if now - self._asked_at < ASKING_S:
            return False
        self._asked_at = now
        return True

    def renews(self, now: float) -> bool:
        """Whether the next request is to ask for a lease although there still is one: so few wait when that is used up."""
        if now < self._renews_at or now - self._asked_at < ASKING_S:
            return False
        leases = self.leases(now)
        return bool(leases) and all(lease.is_low(now) for lease in leases)

    def granted(self, grant: pb.Grant, asked_at: float, now: float, *, is_current: bool) -> None:
        """Takes in what a grant says; its lease only if it was not revoked meanwhile."""
        self._asked_at = -math.inf
        self._denial = None
        self._stands(grant.rates, now, grant.lease)
        if not grant.rates.HasField("requests"):
            self._unlimited_until = now + KNOWN_S
        if not grant.HasField("lease"):
            self._renews_at = now + ASKING_S
        elif is_current:
            self._leases.insert(0, Lease(grant.lease, asked_at))
            self._leases.sort(key=lambda lease: -lease.until)
            kept = self._leases[:MAX_LEASES]
            self._drop(lambda lease: lease in kept)

    def denied(self, denial: pb.Denial, now: float, *, was_renewal: bool = False) -> None:
        """Takes in what a denial says. Requests come back with time alone, so until then nobody has to be asked again.

        What was to renew a lease says nothing of those that are let in under the old one.
        """
        self._asked_at = -math.inf
        self._renews_at = now + ASKING_S
        if was_renewal:
            return
        self._stands(denial.rates, now, _NO_LEASE)
        if denial.HasField("rate") and denial.rate.limit != pb.RATE_LIMIT_TOKENS_PER_MINUTE:
            self._denial, self._denied_until = denial, now + denial.retry_after.ToMicroseconds() / 1e6

    def _stands(self, rates: pb.RateStatus, now: float, lease: pb.Lease) -> None:
        self.requests = Standing(rates.requests, lease.requests, now) if rates.HasField("requests") else None
        self.tokens = Standing(rates.tokens, lease.rate_tokens, now) if rates.HasField("tokens") else None

    def goes_on_with(self, lease: Lease, now: float) -> None:
        """Gives back the older leases that are spent, now that this one lets in."""
        if lease is not self._leases[-1]:
            older = self._leases[self._leases.index(lease) + 1 :]
            self._drop(lambda each: each not in older or not each.is_spent(now))

    def give_up(self) -> None:
        """Uses no lease any more."""
        self._drop(lambda lease: False)

    def _drop(self, stays: Callable[[Lease], bool]) -> None:
        self.returned += [lease.lease_id for lease in self._leases if lease.is_bounded and not stays(lease)]
        self._leases = [lease for lease in self._leases if stays(lease)]


class Accounts:
    """The callers that were here last."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._returned: list[str] = []
        # Counts revocations: a lease that was asked for before one may come after it.
        self.epoch = 0

    def of(self, key_id: str) -> Account:
        """A caller's account, new where there is none."""
        account = self._accounts.get(key_id)
        if account is None:
            account = self._accounts[key_id] = Account(self._returned)
            if len(self._accounts) > self._capacity:
                self._accounts.popitem(last=False)[1].give_up()
        else:
            self._accounts.move_to_end(key_id)
        return account

    def revoke(self) -> None:
        """Forgets everything: keys, budgets or limits have changed, or nobody will tell when they do."""
        self.epoch += 1
        self._accounts.clear()
        self._returned.clear()

    def returned(self, now: float) -> Sequence[str]:
        """Leases to be given back: those that have come to their end unnoticed, too. Each is told once."""
        for account in self._accounts.values():
            account.leases(now)
        returned, self._returned[:] = list(self._returned), []
        return returned

    def give_up(self) -> Sequence[str]:
        """All leases, which are not used any more."""
        for account in self._accounts.values():
            account.give_up()
        return self.returned(math.inf)
