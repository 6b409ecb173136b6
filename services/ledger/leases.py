"""Allowances that routers spend by themselves, so that the usual request costs no round trip.

A lease is at most a twentieth of what is left and what its caller took in two seconds, and there is none when that is less than two
requests: whoever is near a limit, or slow, asks each time. What is in a lease counts as held, in the bucket of when it was given;
requests that are let in under it take their part over. Nothing is leased near midnight, when windows change.
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from services.ledger.budgets import NOTHING, Amounts
from services.ledger.windows import DAY, SECOND

LIFETIME_S: Final = 5
# A router counts from when it asked and returns what it does not need; if it cannot, this much later it cannot use it any more either.
MARGIN_S: Final = 10
# The lease of a caller whom nothing bounds. It is not kept: there is nothing to free.
UNLIMITED: Final = "unlimited"
SHARE: Final = 20
PACE_S: Final = 2.0
_MIDNIGHT: Final = (LIFETIME_S + 30) * SECOND


class Lease(NamedTuple):
    """What is left of an allowance. Times are in nanoseconds since 1970; what is not bounded is 0."""

    lease_id: str
    router_id: str
    key_id: str
    created_ns: int
    nano_usd: int
    tokens: int
    microjoules: int
    micrograms: int
    requests: int
    rate_tokens: int

    @property
    def left(self) -> Amounts:
        return Amounts(self.nano_usd, self.tokens, self.microjoules, self.micrograms)

    def without(self, taken: Amounts, requests: int, rate_tokens: int) -> "Lease":
        return Lease._make((*self[:_LEFT], *self.left.minus(taken), self.requests - requests, self.rate_tokens - rate_tokens))


_LEFT: Final = Lease._fields.index("nano_usd")


class KeptLeases:
    """All the leases that there are, where nobody else gives any."""

    def __init__(self, leases: Iterable[Lease]) -> None:
        self._leases = {lease.lease_id: lease for lease in leases}
        self._ids: dict[str, set[str]] = {}
        for lease in self._leases.values():
            self._ids.setdefault(lease.key_id, set()).add(lease.lease_id)

    def get(self, lease_id: str) -> Lease | None:
        return self._leases.get(lease_id)

    def these(self, lease_ids: Iterable[str]) -> dict[str, Lease]:
        return {lease_id: self._leases[lease_id] for lease_id in lease_ids if lease_id in self._leases}

    def of_keys(self, key_ids: Iterable[str]) -> dict[str, Lease]:
        return {lease_id: self._leases[lease_id] for key_id in key_ids for lease_id in self._ids.get(key_id, ())}

    def of_routers(self, router_ids: Collection[str]) -> dict[str, Lease]:
        return {lease.lease_id: lease for lease in self._leases.values() if lease.router_id in router_ids} if router_ids else {}

    def put(self, lease: Lease) -> None:
        self._leases[lease.lease_id] = lease
        self._ids.setdefault(lease.key_id, set()).add(lease.lease_id)

    def end(self, lease_id: str) -> None:
        lease = self._leases.pop(lease_id, None)
        if lease is not None:
            self._ids[lease.key_id].discard(lease_id)
            if not self._ids[lease.key_id]:
                del self._ids[lease.key_id]


@dataclass(slots=True)
class Pace:
    """What a caller takes in about two seconds: sums that fade."""

    at: int
    requests: float = 0.0
    amounts: tuple[float, ...] = (0.0,) * len(NOTHING)

    def note(self, now: int, amounts: Amounts) -> None:
        """A request at a moment of a clock in nanoseconds."""
        fading = math.exp(min(0, self.at - now) / SECOND / PACE_S)
        self.at = now
        self.requests = self.requests * fading + 1
        self.amounts = tuple([before * fading + more for before, more in zip(self.amounts, amounts, strict=True)])


def may_lease(now_ns: int) -> bool:
    """Whether windows stay what they are for long enough."""
    return _MIDNIGHT <= now_ns % DAY <= DAY - _MIDNIGHT


def share(left: int, recent: float, one: int) -> int | None:
    """How much of what is left to lease; None where that is not even two requests of this size."""
    amount = min(left // SHARE, math.ceil(recent))
    return amount if amount >= 2 * one else None
