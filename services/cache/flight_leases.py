"""Which router leads which answer on its way, and who follows it: singleflight over routers.

A router leads what it was the first to miss. That costs nothing: nobody is told until another router misses the same and follows. Each
follower is a relay of its own, from the leader's router through this service. A leader that is gone is replaced by one of its followers.
A lead that came to nothing is found out by its first follower: the router that had it says so, and the follower looks up again.
Pure: `now` is monotonic seconds, and what is to be said to whom is returned.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

# A router that says nothing for so long is taken for dead.
SILENCE_S = 10.0
# A lead ends by itself only when its router has forgotten it: nothing then depends on how soon.
LEASE_S = 900.0
MAX_LEASES = 200_000


@dataclass(frozen=True, slots=True)
class Want:
    """To a leader's router: hand an answer on."""

    router_id: str
    relay_id: int
    flight_id: bytes


@dataclass(frozen=True, slots=True)
class Unwant:
    """To a leader's router: nobody is there any more."""

    router_id: str
    relay_id: int


@dataclass(frozen=True, slots=True)
class Lead:
    """To a follower: the lead is yours. It follows no more."""

    relay_id: int


@dataclass(frozen=True, slots=True)
class LookAgain:
    """To a follower: there is nothing to follow. It follows no more."""

    relay_id: int


@dataclass(frozen=True, slots=True)
class Restart:
    """To a follower: another router answers, from the beginning."""

    relay_id: int


Order = Want | Unwant | Lead | LookAgain | Restart


@dataclass(slots=True)
class _Lease:
    router_id: str
    granted_at: float


@dataclass(slots=True)
class _Relay:
    flight_id: bytes
    leader_id: str
    follower_id: str


class FlightLeases:
    """The leads and relays of one cache service."""

    def __init__(self) -> None:
        # When each router was heard last.
        self._routers: dict[str, float] = {}
        self._leases: OrderedDict[bytes, _Lease] = OrderedDict()
        self._relays: dict[int, _Relay] = {}
        self._last_relay_id = 0

    def enter(self, router_id: str, now: float) -> list[Order]:
        """A router is there. What it led before it was away is led no more."""
        orders = self.leave(router_id)
        self._routers[router_id] = now
        return orders

    def hear(self, router_id: str, now: float) -> None:
        if router_id in self._routers:
            self._routers[router_id] = now

    def silent(self, now: float) -> list[str]:
        """Routers that ought to have said something."""
        return [router_id for router_id, heard_at in self._routers.items() if now - heard_at >= SILENCE_S]

    def leave(self, router_id: str) -> list[Order]:
        """A router is gone."""
        if self._routers.pop(router_id, None) is None:
            return []
        for flight_id in [flight_id for flight_id, lease in self._leases.items() if lease.router_id == router_id]:
            del self._leases[flight_id]
        orphans: defaultdict[bytes, list[int]] = defaultdict(list)
        for relay_id, relay in self._relays.items():
            if relay.leader_id == router_id:
                orphans[relay.flight_id].append(relay_id)
        return [order for flight_id, relay_ids in orphans.items() for order in self._replace(flight_id, relay_ids)]

    def is_led(self, flight_id: bytes) -> bool:
        return flight_id in self._leases

    def board(self, flight_id: bytes, router_id: str, now: float) -> bool | None:
        """Whether the router is to lead or, if false, to follow; None for a router that is not there."""
        if router_id not in self._routers:
            return None
        lease = self._leases.get(flight_id)
        if lease is not None and lease.router_id != router_id and now - lease.granted_at < LEASE_S:
            return False
        self._grant(flight_id, router_id, now)
        return True

    def follow(self, flight_id: bytes, router_id: str) -> tuple[int, list[Order]]:
        """A router wants an answer. Gives the mark of its relay."""
        self._last_relay_id += 1
        relay_id, lease = self._last_relay_id, self._leases.get(flight_id)
        if lease is None or lease.router_id == router_id:
            return relay_id, [LookAgain(relay_id)]
        self._relays[relay_id] = _Relay(flight_id, lease.router_id, router_id)
        return relay_id, [Want(lease.router_id, relay_id, flight_id)]

    def unfollow(self, relay_id: int) -> list[Order]:
        """A follower has left."""
        relay = self._relays.pop(relay_id, None)
        return [] if relay is None else [Unwant(relay.leader_id, relay_id)]

    def passes(self, relay_id: int, router_id: str, is_last: bool) -> bool:
        """Whether a part that a router sends has somebody to go to."""
        relay = self._relays.get(relay_id)
        if relay is None or relay.leader_id != router_id:
            return False
        if is_last:
            del self._relays[relay_id]
        return True

    def gone(self, relay_id: int, router_id: str) -> list[Order]:
        """The router does not have the answer that it was to hand on."""
        relay = self._relays.get(relay_id)
        if relay is None or relay.leader_id != router_id:
            return []
        del self._relays[relay_id]
        lease = self._leases.get(relay.flight_id)
        if lease is not None and lease.router_id == router_id:
            del self._leases[relay.flight_id]
        return [LookAgain(relay_id)]

    def stored(self, flight_id: bytes) -> None:
        """The answer is there for everybody. Who follows gets the rest of it all the same."""
        self._leases.pop(flight_id, None)

    def _grant(self, flight_id: bytes, router_id: str, now: float) -> None:
        # The latest stand last.
        self._leases.pop(flight_id, None)
        self._leases[flight_id] = _Lease(router_id, now)
        while len(self._leases) > MAX_LEASES or now - next(iter(self._leases.values())).granted_at >= LEASE_S:
            self._leases.popitem(last=False)

    def _replace(self, flight_id: bytes, relay_ids: list[int]) -> Iterator[Order]:
        """Finds those who followed a router that is gone another leader: who leads by now, else the first of them whose router is there."""
        lease = self._leases.get(flight_id)
        leader_id = None if lease is None else lease.router_id
        if leader_id is None:
            able = [relay_id for relay_id in relay_ids if self._relays[relay_id].follower_id in self._routers]
            if able:
                leader_id = self._relays[able[0]].follower_id
                self._leases[flight_id] = _Lease(leader_id, max(self._routers.values()))
        for relay_id in relay_ids:
            relay = self._relays[relay_id]
            if leader_id is None or relay.follower_id == leader_id:
                del self._relays[relay_id]
                yield Lead(relay_id)
            else:
                relay.leader_id = leader_id
                yield Restart(relay_id)
                yield Want(leader_id, relay_id, flight_id)
