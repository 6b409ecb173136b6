"""Lists of models are kept in the background."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from joulegate.chat.v1 import chat_pb2
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch.backend import Answer
from services.dispatch.breaker import BreakerPolicy, Breakers, State
from services.dispatch.failure import Failure, Kind
from services.dispatch.listing import CHECKS_PER_LISTING, keep_listed, refresh
from services.dispatch.roster import Provider, Roster
from tests.unit.dispatch.hands import Hands

SMALL, LARGE = pb.Model(id="small"), pb.Model(id="large")
DOWN = Failure(Kind.UNREACHABLE, "down")


class ListingBackend:
    def __init__(self, *listings: Sequence[pb.Model] | Failure) -> None:
        self._listings = list(listings)
        self.count = 0

    def call(self, request: chat_pb2.ChatRequest, model: str, headers: Mapping[str, str]) -> Answer:
        raise NotImplementedError

    async def list_models(self) -> Sequence[pb.Model]:
        self.count += 1
        listing = self._listings.pop(0)
        if isinstance(listing, Failure):
            raise listing
        return listing


def scene(*listings: Sequence[pb.Model] | Failure, is_present: bool = True) -> tuple[Provider, Roster]:
    provider = Provider("a", "openai", ListingBackend(*listings), is_present=is_present)
    return provider, Roster([provider])


async def test_until_a_listing_came_anything_may_be_asked_for() -> None:
    provider, roster = scene([SMALL])
    assert roster.describe()[0].accepts_unlisted_models
    change = roster.change
    await refresh(provider, roster)
    [described] = roster.describe()
    assert ([model.id for model in described.models], described.accepts_unlisted_models) == (["small"], False)
    assert change.is_set()


async def test_a_failed_listing_keeps_the_old_one_and_opens_the_door() -> None:
    provider, roster = scene([SMALL], DOWN)
    await refresh(provider, roster)
    await refresh(provider, roster)
    [described] = roster.describe()
    assert ([model.id for model in described.models], described.accepts_unlisted_models) == (["small"], True)


async def test_only_changes_are_announced() -> None:
    provider, roster = scene([SMALL], [SMALL], [SMALL, LARGE])
    await refresh(provider, roster)
    change = roster.change
    await refresh(provider, roster)
    assert not change.is_set()
    await refresh(provider, roster)
    assert change.is_set()


async def test_one_that_is_only_looked_for_appears_when_found() -> None:
    provider, roster = scene(DOWN, [SMALL], is_present=False)
    await refresh(provider, roster)
    assert (roster.describe(), roster.find("a")) == ([], None)
    await refresh(provider, roster)
    assert [described.name for described in roster.describe()] == ["a"]
    assert roster.find("a") is provider


async def after_checks(roster: Roster, count: int) -> list[float]:
    """Runs until so many checks are done; gives the waits after each."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == count:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await keep_listed(roster, sleep)
    return waits


async def test_lists_are_asked_for_every_minute_and_a_configured_one_is_not() -> None:
    asked, configured = ListingBackend([SMALL], [SMALL]), ListingBackend()
    roster = Roster([Provider("a", "openai", asked), Provider("b", "openai", configured, [LARGE])])
    assert sum(await after_checks(roster, CHECKS_PER_LISTING)) == 60
    assert (asked.count, configured.count) == (1, 0)
    await after_checks(roster, 1)
    assert asked.count == 2
    assert [model.id for model in roster.describe()[1].models] == ["large"]
    assert not roster.describe()[1].accepts_unlisted_models


class Ill:
    """A provider whose breaker for `m` is open, at the time 1000; `models` is its configured list."""

    def __init__(self, *listings: Sequence[pb.Model] | Failure, models: Sequence[pb.Model] = ()) -> None:
        self.hands = Hands()
        self.backend = ListingBackend(*listings)
        self.provider = Provider("a", "openai", self.backend, models, breakers=Breakers(BreakerPolicy(failures=1, open_s=30, probes=2)))
        self.roster = Roster([self.provider], self.hands.monotonic)
        self.breaker = self.provider.breakers.of("m")
        self.breaker.failed(1000, self.breaker.begin(1000))

    def is_in(self, state: State) -> bool:
        return self.breaker.state(self.hands.time) is state


@pytest.mark.parametrize("models", [(), (LARGE,)], ids=["lists by itself", "configured"])
async def test_who_is_not_well_is_asked_at_every_check_and_who_is_again_is_not(models: Sequence[pb.Model]) -> None:
    ill = Ill(*[[SMALL]] * 9, models=models)
    await after_checks(ill.roster, 3)
    assert ill.backend.count == 3
    assert [model.id for model in ill.provider.models] == [model.id for model in models or [SMALL]]
    ill.breaker.reset()
    await after_checks(ill.roster, 3)
    assert ill.backend.count == (3 if models else 4)


@pytest.mark.parametrize("again", [[SMALL], Failure(Kind.REFUSED, "no list here", http_status=404)], ids=["a list", "no list"])
async def test_who_can_be_reached_again_gets_its_probe_at_once_and_has_to_pass_it(again: Sequence[pb.Model] | Failure) -> None:
    ill = Ill(DOWN, again, [SMALL])
    await after_checks(ill.roster, 1)
    assert ill.is_in(State.OPEN)
    change = ill.roster.change
    await after_checks(ill.roster, 1)
    assert ill.is_in(State.HALF_OPEN)
    assert change.is_set(), "routers are told"
    await after_checks(ill.roster, 1)
    assert ill.is_in(State.HALF_OPEN), "a list closes nothing"
    ill.breaker.failed(1001, ill.breaker.begin(1001))
    assert ill.is_in(State.OPEN)


async def test_a_list_that_came_all_along_brings_no_probe_sooner() -> None:
    ill = Ill([SMALL], [SMALL], [SMALL])
    await after_checks(ill.roster, 3)
    assert ill.is_in(State.OPEN)


@pytest.mark.parametrize("failure", [DOWN, Failure(Kind.REFUSED, "oops", http_status=503), Failure(Kind.TIMEOUT, "silence")])
async def test_an_outage_that_the_list_shares_is_remembered(failure: Failure) -> None:
    ill = Ill(failure, [SMALL])
    await after_checks(ill.roster, 2)
    assert ill.is_in(State.HALF_OPEN)
