"""Lists of models are kept in the background."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from joulegate.chat.v1 import chat_pb2
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch.backend import Answer
from services.dispatch.failure import Failure, Kind
from services.dispatch.listing import INTERVAL_S, keep_listed, refresh
from services.dispatch.roster import Provider, Roster

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


async def test_a_configured_list_is_not_asked_for() -> None:
    asked, configured = ListingBackend([SMALL], [SMALL]), ListingBackend()
    roster = Roster([Provider("a", "openai", asked), Provider("b", "openai", configured, [LARGE])])
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await keep_listed(roster, sleep)
    assert (asked.count, configured.count, waits) == (2, 0, [INTERVAL_S, INTERVAL_S])
    assert [model.id for model in roster.describe()[1].models] == ["large"]
    assert not roster.describe()[1].accepts_unlisted_models
