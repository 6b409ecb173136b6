"""Leads in any order of events: never two routers lead what nobody lost, and whoever follows is told how it goes on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.flight_leases import LEASE_S, SILENCE_S, FlightLeases, Lead, LookAgain, Order, Restart, Unwant, Want

FLIGHT = b"flight"
A, B, C = "router-a", "router-b", "router-c"


def there(*routers: str) -> FlightLeases:
    leases = FlightLeases()
    for router in routers:
        leases.enter(router, 0.0)
    return leases


def test_first_to_miss_leads_and_others_follow() -> None:
    leases = there(A, B)
    assert [leases.board(FLIGHT, router, 0.0) for router in (A, B, A, B)] == [True, False, True, False]
    assert leases.board(b"another", B, 0.0)
    relay, orders = leases.follow(FLIGHT, B)
    assert orders == [Want(A, relay, FLIGHT)]
    assert leases.passes(relay, A, is_last=False)
    assert not leases.passes(relay, B, is_last=False)
    assert leases.passes(relay, A, is_last=True)
    assert leases.unfollow(relay) == []


def test_router_that_is_not_there_is_told_nothing() -> None:
    assert there(A).board(FLIGHT, B, 0.0) is None


def test_stored_answer_ends_the_lead_and_not_the_relay() -> None:
    leases = there(A, B)
    leases.board(FLIGHT, A, 0.0)
    relay, _ = leases.follow(FLIGHT, B)
    leases.stored(FLIGHT)
    assert leases.passes(relay, A, is_last=False)
    late, orders = leases.follow(FLIGHT, B)
    assert orders == [LookAgain(late)]
    assert leases.board(FLIGHT, B, 0.0)


def test_lead_that_came_to_nothing_is_free_for_the_next() -> None:
    leases = there(A, B)
    leases.board(FLIGHT, A, 0.0)
    relay, _ = leases.follow(FLIGHT, B)
    assert leases.gone(relay, B) == []
    assert leases.gone(relay, A) == [LookAgain(relay)]
    assert leases.board(FLIGHT, B, 0.0)


def test_lead_of_a_router_that_is_gone_goes_to_one_follower_and_the_others_follow_that() -> None:
    leases = there(A, B, C)
    leases.board(FLIGHT, A, 0.0)
    first, _ = leases.follow(FLIGHT, B)
    second, _ = leases.follow(FLIGHT, C)
    assert leases.leave(A) == [Lead(first), Restart(second), Want(B, second, FLIGHT)]
    assert leases.board(FLIGHT, C, 0.0) is False
    assert leases.passes(second, B, is_last=False)
    assert not leases.passes(second, A, is_last=False)
    assert leases.leave(A) == []


def test_followers_without_any_router_that_is_there_each_lead() -> None:
    leases = there(A)
    leases.board(FLIGHT, A, 0.0)
    relays = [leases.follow(FLIGHT, router)[0] for router in (B, C)]
    assert leases.leave(A) == [Lead(relay) for relay in relays]


def test_follower_that_leaves_is_no_longer_wanted() -> None:
    leases = there(A, B)
    leases.board(FLIGHT, A, 0.0)
    relay, _ = leases.follow(FLIGHT, B)
    assert leases.unfollow(relay) == [Unwant(A, relay)]
    assert leases.leave(A) == []


def test_silence_is_noticed_and_speech_heard() -> None:
    leases = there(A, B)
    leases.hear(A, SILENCE_S - 1)
    assert leases.silent(SILENCE_S) == [B]


def test_forgotten_lead_ends_by_itself() -> None:
    leases = there(A, B)
    leases.board(FLIGHT, A, 0.0)
    assert leases.board(FLIGHT, B, LEASE_S - 1) is False
    assert leases.board(FLIGHT, B, LEASE_S)


def test_number_of_leads_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.cache.flight_leases.MAX_LEASES", 3)
    leases = there(A, B)
    for number in range(4):
        leases.board(b"%d" % number, A, 0.0)
    assert [leases.is_led(b"%d" % number) for number in range(4)] == [False, True, True, True]


class Followers:
    """What each follower was told, as a router would take it."""

    def __init__(self) -> None:
        self.leases = FlightLeases()
        # Where each router's flight comes from: `asks`, or the mark of its relay.
        self.asking: dict[str, bool] = {}
        self.relays: dict[str, int] = {}
        self.wanted: dict[int, str] = {}

    def heed(self, orders: list[Order]) -> None:
        for order in orders:
            match order:
                case Want(router, relay, _) if router in self.asking:
                    self.wanted[relay] = router
                case Want(router, relay, _):
                    self.heed(self.leases.gone(relay, router))
                case Unwant(_, relay):
                    self.wanted.pop(relay, None)
                case Lead(relay) | LookAgain(relay):
                    self.wanted.pop(relay, None)
                    [router] = [name for name, mark in self.relays.items() if mark == relay]
                    del self.relays[router]
                    if isinstance(order, Lead):
                        self.asking[router] = True
                case Restart(relay):
                    assert relay in self.relays.values()

    def miss(self, router: str) -> None:
        """A request of a router that has no such flight yet."""
        if router in self.asking or router in self.relays:
            return
        role = self.leases.board(FLIGHT, router, 0.0)
        if role is not False:
            self.asking[router] = True
            return
        relay, orders = self.leases.follow(FLIGHT, router)
        self.relays[router] = relay
        self.heed(orders)

    def answered(self, router: str, is_stored: bool) -> None:
        """The router's own call has ended."""
        if self.asking.pop(router, None) is None:
            return
        for relay in [relay for relay, leader in self.wanted.items() if leader == router]:
            self.heed([] if is_stored else self.leases.gone(relay, router))
            if is_stored and self.leases.passes(relay, router, is_last=True):
                del self.wanted[relay]
                self.relays = {name: mark for name, mark in self.relays.items() if mark != relay}
        if is_stored:
            self.leases.stored(FLIGHT)

    def die(self, router: str) -> None:
        self.asking.pop(router, None)
        relay = self.relays.pop(router, None)
        if relay is not None:
            self.heed(self.leases.unfollow(relay))
        self.heed(self.leases.leave(router))


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.sampled_from(["enter", "miss", "miss", "miss", "stored", "failed", "die"]))))
def test_there_is_one_leader_whom_all_others_follow(steps: list[tuple[str, str]]) -> None:
    followers = Followers()
    for router in (A, B, C):
        followers.leases.enter(router, 0.0)
    alive = {A, B, C}
    for router, step in steps:
        match step:
            case "enter" if router not in alive:
                alive.add(router)
                followers.heed(followers.leases.enter(router, 0.0))
            case "miss" if router in alive:
                followers.miss(router)
            case "stored" | "failed":
                followers.answered(router, step == "stored")
            case "die":
                alive.discard(router)
                followers.die(router)
        assert len(followers.asking) <= 1
        # Each follower hears from somebody who asks: nobody waits for ever.
        for relay in followers.relays.values():
            assert followers.wanted[relay] in followers.asking
