"""What the cache makes of answers that turn out wrong, through CacheService."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from joulegate.cache.v1 import cache_service_pb2 as pb
from services.cache.verified import MIN_OBSERVATIONS
from tests.contract.test_cache import KEPT_WORDS, OTHER_WORDS, Harness, refuses_not, serving, words
from tests.unit.cache.samples import answer, key

# A third wording, which is not asked before a lesson was learned.
MORE_WORDS = "how do i boil one egg please"
DENIED = "how do i not boil an egg"


@pytest.fixture
async def cache() -> AsyncIterator[Harness]:
    async with serving("local") as harness:
        yield harness


async def served(cache: Harness, number: int = 2) -> pb.LookUpResponse:
    """A semantic hit of the entry under key 1."""
    response = await cache.stub.LookUp(pb.LookUpRequest(key=key(number), wording=words(OTHER_WORDS)))
    assert response.tier == pb.TIER_SEMANTIC
    return response


async def compare(cache: Harness, found: pb.LookUpResponse, text: str, number: int = 2, **neighbour: Any) -> None:
    """Stores what a provider said when it was asked all the same."""
    judged = pb.Neighbour(entry_id=found.entry.entry_id, similarity=found.similarity, **({"served": True} | neighbour))
    await cache.stub.Store(pb.StoreRequest(key=key(number), entry=answer(text), neighbours=[judged]))


async def test_entry_that_was_wrong_for_other_words_serves_only_its_own(cache: Harness) -> None:
    await cache.keep(key(1), answer("For 8 minutes."), words=words(KEPT_WORDS))
    await compare(cache, await served(cache), "For 3 minutes.")
    assert await cache.found(key(3), words(MORE_WORDS)) is None
    assert await cache.text_at(key(1)) == "For 8 minutes."
    await cache.settle()
    [kept] = [kept for kept in cache.store.whole().values() if b"For 8 minutes." in kept.data]
    assert kept.wording is None


async def test_scope_of_a_wrong_hit_gives_no_others_and_other_scopes_do(cache: Harness) -> None:
    await cache.keep(key(1), answer("For 8 minutes."), words=words(KEPT_WORDS))
    await compare(cache, await served(cache), "For 3 minutes.")
    await cache.keep(key(4), answer("Slowly."), words=words(KEPT_WORDS))
    assert await cache.found(key(3), words(OTHER_WORDS)) is None
    await cache.keep(key(5), answer("Slowly."), words=words(KEPT_WORDS, scope=2))
    assert await cache.found(key(6), words(OTHER_WORDS, scope=2)) is not None
    stats = await cache.stub.GetCacheStats(pb.GetCacheStatsRequest())
    assert stats.reject_count_by_rule["braked"] == 1


async def test_answer_in_other_words_that_says_the_same_or_nothing_certain_changes_nothing(cache: Harness) -> None:
    await cache.keep(key(1), answer("For 8 minutes."), words=words(KEPT_WORDS))
    await compare(cache, await served(cache), "for 8 minutes")
    await compare(cache, await served(cache, 7), "Place it in a pan that is filled with cold water and wait until it boils; more or less.")
    assert await cache.found(key(3), words(MORE_WORDS)) is not None


async def test_entry_of_another_tenant_is_not_judged(cache: Harness) -> None:
    await cache.keep(key(1), answer("For 8 minutes."), words=words(KEPT_WORDS))
    found = await served(cache)
    judged = pb.Neighbour(entry_id=found.entry.entry_id, similarity=0.9, served=True)
    await cache.stub.Store(pb.StoreRequest(key=key(2, "emca"), entry=answer("For 3 minutes."), neighbours=[judged]))
    assert await cache.found(key(3), words(MORE_WORDS)) is not None


async def test_wrong_answer_that_is_reported_leaves_the_tier_that_served_it(cache: Harness) -> None:
    await cache.keep(key(1), words=words(KEPT_WORDS))
    found = await served(cache)
    report = pb.ReportEntryRequest(tenant="acme", entry_id=found.entry.entry_id, tier=pb.TIER_SEMANTIC)
    await cache.stub.ReportEntry(report)
    assert await cache.found(key(3), words(MORE_WORDS)) is None
    assert await cache.text_at(key(1)) == "Hello."
    report.tier = pb.TIER_EXACT
    await cache.stub.ReportEntry(report)
    assert await cache.text_at(key(1)) is None


async def test_entry_that_a_tenant_does_not_have_cannot_be_reported(cache: Harness) -> None:
    entry_id = await cache.keep(key(1))
    for tenant, reported in (("emca", entry_id), ("acme", "0" * 40)):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await cache.stub.ReportEntry(pb.ReportEntryRequest(tenant=tenant, entry_id=reported))
        assert raised.value.code() == grpc.StatusCode.NOT_FOUND
    assert await cache.text_at(key(1)) == "Hello."


async def test_refused_entry_serves_within_an_error_bound_once_it_has_proved_right(cache: Harness) -> None:
    assert refuses_not(DENIED, KEPT_WORDS) is not None
    await cache.keep(key(1), words=words(KEPT_WORDS))
    request = pb.LookUpRequest(key=key(2), wording=words(DENIED), max_error=0.3)
    for number in range(10, 10 + 4 * MIN_OBSERVATIONS):
        found = await cache.stub.LookUp(request)
        if found.HasField("entry"):
            break
        [neighbour] = found.neighbours
        await cache.stub.Store(pb.StoreRequest(key=key(number), entry=answer("hello"), neighbours=[neighbour]))
    assert found.tier == pb.TIER_SEMANTIC
    assert number >= 10 + MIN_OBSERVATIONS
    # Whoever sets no bound gets nothing that the gate refuses.
    assert await cache.found(key(3), words(DENIED)) is None


async def test_bounds_that_make_no_sense_are_refused(cache: Harness) -> None:
    for max_error in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await cache.stub.LookUp(pb.LookUpRequest(key=key(), wording=words(KEPT_WORDS), max_error=max_error))
        assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    neighbours = [pb.Neighbour(entry_id="0" * 40)] * 9
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await cache.stub.Store(pb.StoreRequest(key=key(), entry=answer(), neighbours=neighbours))
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
