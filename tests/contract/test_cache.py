"""CacheService as its proto describes it, on every kind of channel, with a store in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from joulegate.cache.v1 import cache_service_pb2 as pb
from joulegate.cache.v1 import cache_service_pb2_grpc as pb_grpc
from joulegate.cache.v1.flight_service_pb2_grpc import FlightServiceStub, add_FlightServiceServicer_to_server
from joulegate.chat.v1 import chat_pb2
from services.cache.answer_cache import AnswerCache, Hit, Question
from services.cache.brake import Brake
from services.cache.counts import Counts
from services.cache.embedders.hashing import HashEmbedder
from services.cache.embedding_queue import EmbeddingQueue
from services.cache.flight_exchange import FlightExchange
from services.cache.flight_servicer import FlightServicer
from services.cache.hot_index import HotIndex
from services.cache.lessons import Lessons
from services.cache.mirror import Mirror, Pace
from services.cache.semantic_tier import SemanticTier
from services.cache.servicer import CacheServicer
from tests.contract import channels
from tests.unit.cache.memory_store import MemoryStore
from tests.unit.cache.samples import HeldClock, answer, key, settings_of


class Harness:
    def __init__(self, channel: grpc.aio.Channel, clock: HeldClock, store: MemoryStore, draining: asyncio.Event) -> None:
        self.stub = pb_grpc.CacheServiceStub(channel)
        self.flights = FlightServiceStub(channel)
        self.draining = draining
        self.clock = clock
        self.store = store

    async def keep(
        self,
        where: pb.EntryKey,
        entry: pb.Entry | None = None,
        ttl_s: float | None = None,
        words: pb.Wording | None = None,
        tags: tuple[str, ...] = (),
    ) -> str:
        request = pb.StoreRequest(key=where, entry=entry or answer(), wording=words, tags=tags)
        if ttl_s is not None:
            request.ttl.CopyFrom(_duration(ttl_s))
        return (await self.stub.Store(request)).entry_id

    async def text_at(self, where: pb.EntryKey, max_age_s: float | None = None) -> str | None:
        """The answer's text, or None on a miss."""
        request = pb.LookUpRequest(key=where)
        if max_age_s is not None:
            request.max_age.CopyFrom(_duration(max_age_s))
        response = await self.stub.LookUp(request)
        return response.entry.completion.choices[0].message.text if response.HasField("entry") else None

    async def found(self, where: pb.EntryKey, words: pb.Wording, **members: Any) -> tuple[str, pb.Tier.ValueType, float] | None:
        """The answer's text, how it was found and how near it was; None on a miss."""
        response = await self.stub.LookUp(pb.LookUpRequest(key=where, wording=words, **members))
        if not response.HasField("entry"):
            return None
        return response.entry.completion.choices[0].message.text, response.tier, response.similarity

    async def settle(self) -> None:
        """An invalidation is acknowledged when the store was told, and with it what was queued."""
        await self.stub.InvalidateEntries(pb.InvalidateEntriesRequest(tenant="nobody"))

    async def refusal(self, request: pb.StoreRequest) -> grpc.StatusCode:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.stub.Store(request)
        return raised.value.code()


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1e6))
    return duration


def refuses_not(asked: str, kept: str) -> str | None:
    """A gate of one rule."""
    return "negation" if ("not" in asked.split()) != ("not" in kept.split()) else None


def words(text: str, scope: int = 1) -> pb.Wording:
    return pb.Wording(scope=scope.to_bytes(32, "big"), text=text)


@asynccontextmanager
async def serving(kind: str = "grpc", **environment: str) -> AsyncIterator[Harness]:
    settings, clock, counts, store = settings_of(**environment), HeldClock(), Counts(), MemoryStore()
    index = HotIndex(settings.max_entries, settings.max_bytes)
    pace = Pace(window_s=0.001, retry_s=(0.001, 0.01), removal_s=1)
    embedder = HashEmbedder()
    queue = EmbeddingQueue(embedder, 10, counts, clock)
    mesh = channels.new_mesh()
    async with (
        Mirror(store, index, counts, clock, pace, settings.is_enabled) as mirror,
        FlightExchange(clock, mesh.draining) as exchange,
    ):
        lessons = Lessons(index, mirror, Brake(settings.max_wrong_share), clock)
        semantic = SemanticTier(queue, embedder.fingerprint, index, refuses_not, lessons, embedder.floor, settings.top_k, counts)
        cache = AnswerCache(settings, index, mirror, counts, clock, lambda: 0.0, semantic)
        pb_grpc.add_CacheServiceServicer_to_server(CacheServicer(cache, lessons, exchange), mesh.registry)
        add_FlightServiceServicer_to_server(FlightServicer(exchange), mesh.registry)
        async with channels.serve(mesh, kind) as channel:
            yield Harness(channel, clock, store, mesh.draining)


@pytest.fixture(params=channels.KINDS)
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    async with serving(request.param) as harness:
        yield harness


async def test_stored_answer_comes_back_whole(cache: Harness) -> None:
    entry_id = await cache.keep(key(), answer("Forty-two."), ttl_s=60)
    response = await cache.stub.LookUp(pb.LookUpRequest(key=key()))
    assert (response.tier, response.similarity) == (pb.TIER_EXACT, 1.0)
    entry = response.entry
    assert entry.entry_id == entry_id != ""
    assert entry.expire_time.ToMicroseconds() - entry.create_time.ToMicroseconds() == 60_000_000
    assert entry.create_time.ToMicroseconds() == int(cache.clock.seconds * 1e6)
    for name in ("entry_id", "create_time", "expire_time"):
        entry.ClearField(name)
    assert entry == answer("Forty-two.")


async def test_unknown_key_is_an_empty_response(cache: Harness) -> None:
    assert await cache.stub.LookUp(pb.LookUpRequest(key=key())) == pb.LookUpResponse()


@pytest.mark.parametrize("other", [key(1, "acme", "b"), key(1, "emca", "a"), key(2, "acme", "a"), key(1, "", "acmea"), key(1, "acmea", "")])
async def test_tenant_namespace_and_digest_must_all_match(cache: Harness, other: pb.EntryKey) -> None:
    await cache.keep(key(1, "acme", "a"))
    assert await cache.text_at(other) is None
    assert await cache.text_at(key(1, "acme", "a")) == "Hello."


async def test_anonymous_tenant_is_a_tenant_like_any_other(cache: Harness) -> None:
    await cache.keep(key(tenant=""))
    assert await cache.text_at(key(tenant="")) == "Hello."
    assert await cache.text_at(key(tenant="acme")) is None


async def test_concurrent_tenants_see_only_their_own_answers(cache: Harness) -> None:
    async def use(tenant: str) -> list[str | None]:
        seen = []
        for number in range(20):
            await cache.keep(key(number, tenant), answer(f"{tenant} {number}"))
            seen.append(await cache.text_at(key(number, tenant)))
        return seen

    tenants = [f"tenant-{number}" for number in range(8)]
    seen = await asyncio.gather(*map(use, tenants))
    assert seen == [[f"{tenant} {number}" for number in range(20)] for tenant in tenants]


async def test_newest_answer_wins_and_keeps_its_id(cache: Harness) -> None:
    first = await cache.keep(key(), answer("old"))
    assert await cache.keep(key(), answer("new")) == first
    assert await cache.text_at(key()) == "new"
    assert (await cache.stub.GetCacheStats(pb.GetCacheStatsRequest())).entry_count == 1


async def test_answer_serves_until_its_ttl_and_not_after(cache: Harness) -> None:
    await cache.keep(key(1), ttl_s=10)
    await cache.keep(key(2))
    cache.clock.seconds += 9.9
    assert await cache.text_at(key(1)) == "Hello."
    cache.clock.seconds += 0.2
    assert await cache.text_at(key(1)) is None
    assert await cache.text_at(key(2)) == "Hello."
    cache.clock.seconds += 3600
    assert await cache.text_at(key(2)) is None


async def test_max_age_hides_an_older_answer_from_who_asks_only(cache: Harness) -> None:
    await cache.keep(key(), ttl_s=100)
    cache.clock.seconds += 10
    assert await cache.text_at(key(), max_age_s=9.5) is None
    assert await cache.text_at(key(), max_age_s=10.5) == "Hello."
    assert await cache.text_at(key()) == "Hello."


@pytest.mark.parametrize("reason", [chat_pb2.FINISH_REASON_STOP, chat_pb2.FINISH_REASON_TOOL_CALLS, chat_pb2.FINISH_REASON_FUNCTION_CALL])
async def test_whole_answers_are_kept(cache: Harness, reason: chat_pb2.FinishReason.ValueType) -> None:
    assert await cache.keep(key(), answer(finish_reason=reason))


@pytest.mark.parametrize(
    "reason", [chat_pb2.FINISH_REASON_UNSPECIFIED, chat_pb2.FINISH_REASON_LENGTH, chat_pb2.FINISH_REASON_CONTENT_FILTER]
)
async def test_answer_with_an_unfinished_choice_is_refused(cache: Harness, reason: chat_pb2.FinishReason.ValueType) -> None:
    entry = answer()
    entry.completion.choices.add(index=1, finish_reason=reason)
    assert await cache.refusal(pb.StoreRequest(key=key(), entry=entry)) is grpc.StatusCode.INVALID_ARGUMENT
    assert await cache.text_at(key()) is None


async def test_answer_without_choices_is_refused(cache: Harness) -> None:
    assert await cache.refusal(pb.StoreRequest(key=key(), entry=pb.Entry(model="large"))) is grpc.StatusCode.INVALID_ARGUMENT


async def test_answer_that_is_too_large_is_refused(cache: Harness) -> None:
    assert await cache.refusal(pb.StoreRequest(key=key(), entry=answer("x" * (1 << 20)))) is grpc.StatusCode.INVALID_ARGUMENT
    assert await cache.keep(key(), answer("x" * ((1 << 20) - 200)))


async def test_answer_that_may_never_serve_is_refused(cache: Harness) -> None:
    assert await cache.refusal(pb.StoreRequest(key=key(), entry=answer(), ttl=Duration())) is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("digest", [b"", b"x" * 31, b"x" * 33])
async def test_digest_of_another_length_is_refused(cache: Harness, digest: bytes) -> None:
    where = pb.EntryKey(digest=digest)
    assert await cache.refusal(pb.StoreRequest(key=where, entry=answer())) is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await cache.stub.LookUp(pb.LookUpRequest(key=where))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


KEPT_WORDS = "how do i boil an egg"
OTHER_WORDS = "how do i boil one egg"


async def test_other_words_of_the_same_question_are_answered(cache: Harness) -> None:
    await cache.keep(key(1), words=words(KEPT_WORDS))
    found = await cache.found(key(2), words(OTHER_WORDS))
    assert found is not None
    assert found[:2] == ("Hello.", pb.TIER_SEMANTIC)
    assert 0.5 < found[2] < 1
    assert await cache.found(key(1), words(KEPT_WORDS)) == ("Hello.", pb.TIER_EXACT, 1.0)
    assert await cache.text_at(key(2)) is None
    stats = await cache.stub.GetCacheStats(pb.GetCacheStatsRequest())
    assert (stats.exact_hit_count, stats.semantic_hit_count, stats.miss_count, stats.semantic_entry_count) == (1, 1, 1, 1)


@pytest.mark.parametrize(("where", "scope"), [(key(2, "emca"), 1), (key(2, ""), 1), (key(2, "acme", "other"), 1), (key(2), 2)], ids=str)
async def test_words_serve_only_within_tenant_namespace_and_scope(cache: Harness, where: pb.EntryKey, scope: int) -> None:
    await cache.keep(key(1), words=words(KEPT_WORDS))
    assert await cache.found(where, words(KEPT_WORDS, scope)) is None
    assert await cache.found(key(2), words(KEPT_WORDS)) is not None


async def test_refused_neighbour_does_not_hide_the_next_and_is_counted(cache: Harness) -> None:
    await cache.keep(key(1), answer("refused"), words=words("do not boil the egg"))
    await cache.keep(key(2), answer("served"), words=words("boil the white egg please"))
    found = await cache.found(key(3), words("do boil the egg"))
    assert found is not None and found[0] == "served"
    stats = await cache.stub.GetCacheStats(pb.GetCacheStatsRequest())
    assert dict(stats.reject_count_by_rule) == {"negation": 1}


async def test_request_may_ask_for_more_likeness_but_not_for_less(cache: Harness) -> None:
    await cache.keep(key(1), words=words(KEPT_WORDS))
    assert await cache.found(key(2), words(OTHER_WORDS), min_similarity=0.99) is None
    assert await cache.found(key(2), words(OTHER_WORDS), min_similarity=0.6) is not None
    assert await cache.found(key(2), words("how do planes fly"), min_similarity=0.0) is None


async def test_only_so_many_neighbours_are_looked_at() -> None:
    async with serving(CACHE_TOP_K="2") as cache:
        for number, text in enumerate(("do not boil the egg", "do not boil the big egg", "boil one egg")):
            await cache.keep(key(number), words=words(text))
        assert await cache.found(key(9), words("do boil the egg")) is None


async def test_answer_that_is_stored_again_is_found_by_its_newest_words_only(cache: Harness) -> None:
    await cache.keep(key(1), words=words("planes in the sky"))
    await cache.keep(key(1), words=words(KEPT_WORDS))
    assert await cache.found(key(2), words("planes in the sky")) is None
    assert await cache.found(key(2), words(KEPT_WORDS)) is not None
    await cache.keep(key(1))
    assert await cache.found(key(2), words(KEPT_WORDS)) is None


async def test_words_respect_age_and_expiry(cache: Harness) -> None:
    await cache.keep(key(1), ttl_s=10, words=words(KEPT_WORDS))
    cache.clock.seconds += 5
    assert await cache.found(key(2), words(OTHER_WORDS), max_age=_duration(4)) is None
    assert await cache.found(key(2), words(OTHER_WORDS), max_age=_duration(6)) is not None
    cache.clock.seconds += 6
    assert await cache.found(key(2), words(OTHER_WORDS)) is None


async def test_invalidated_entry_is_found_by_words_no_more(cache: Harness) -> None:
    entry_id = await cache.keep(key(1), words=words(KEPT_WORDS))
    await cache.stub.InvalidateEntries(pb.InvalidateEntriesRequest(entry_id=entry_id))
    assert await cache.found(key(2), words(OTHER_WORDS)) is None


async def test_words_go_to_the_store_with_the_answer_and_the_vector_that_they_have(cache: Harness) -> None:
    first = await cache.keep(key(1), words=words(KEPT_WORDS), tags=("faq",))
    await cache.keep(key(2), words=words(OTHER_WORDS), tags=("faq",))
    await cache.settle()
    found = {entry.entry_id == first: entry for entry in cache.store.whole().values()}
    for is_first, text, vector_bytes in ((True, KEPT_WORDS, 0), (False, OTHER_WORDS, 4 * HashEmbedder.dimension)):
        wording = found[is_first].wording
        assert wording is not None
        # Nothing was to be compared with the first one.
        assert (wording.text, len(wording.vector), len(found[is_first].tags)) == (text, vector_bytes, 1)


@pytest.mark.parametrize(
    "request_",
    [
        pb.LookUpRequest(key=key(), wording=pb.Wording(scope=b"short", text="hi")),
        pb.LookUpRequest(key=key(), min_similarity=1.01),
        pb.LookUpRequest(key=key(), min_similarity=-0.1),
    ],
)
async def test_lookup_that_makes_no_sense_is_refused(cache: Harness, request_: pb.LookUpRequest) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await cache.stub.LookUp(request_)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("tags", [[f"tag {number}" for number in range(9)], ["x" * 129]])
async def test_too_many_or_too_long_tags_are_refused(cache: Harness, tags: list[str]) -> None:
    assert await cache.refusal(pb.StoreRequest(key=key(), entry=answer(), tags=tags)) is grpc.StatusCode.INVALID_ARGUMENT


async def test_counts_by_model_stay_few(cache: Harness) -> None:
    for number in range(300):
        await cache.stub.LookUp(pb.LookUpRequest(key=key(number), model=f"model-{number}"))
    misses = (await cache.stub.GetCacheStats(pb.GetCacheStatsRequest())).miss_count_by_model
    assert (len(misses), misses["model-0"], misses["other"]) == (257, 1, 44)


FILLED = {
    "a": (key(1, "acme", "x"), "large"),
    "b": (key(2, "acme", "y"), "small"),
    "c": (key(3, "emca", "x"), "large"),
    "d": (key(4, "", ""), "small"),
}
ENTRY_A = "the id of a"


@pytest.mark.parametrize(
    ("request_", "left"),
    [
        (pb.InvalidateEntriesRequest(tenant="acme"), "cd"),
        (pb.InvalidateEntriesRequest(tenant=""), "abc"),
        (pb.InvalidateEntriesRequest(namespace="x"), "bd"),
        (pb.InvalidateEntriesRequest(namespace=""), "abc"),
        (pb.InvalidateEntriesRequest(model="large"), "bd"),
        (pb.InvalidateEntriesRequest(tenant="acme", model="large"), "bcd"),
        (pb.InvalidateEntriesRequest(entry_id=ENTRY_A), "bcd"),
        (pb.InvalidateEntriesRequest(entry_id=ENTRY_A, tenant="emca"), "abcd"),
        (pb.InvalidateEntriesRequest(entry_id='" or row_id like "%'), "abcd"),
        (pb.InvalidateEntriesRequest(entry_id=""), "abcd"),
        (pb.InvalidateEntriesRequest(tag="tag of b"), "acd"),
        (pb.InvalidateEntriesRequest(tag="common", model="small"), "ac"),
        (pb.InvalidateEntriesRequest(tag="unknown"), "abcd"),
        (pb.InvalidateEntriesRequest(min_age=_duration(25)), "cd"),
        (pb.InvalidateEntriesRequest(min_age=_duration(0)), ""),
        (pb.InvalidateEntriesRequest(all=True), ""),
        (pb.InvalidateEntriesRequest(all=True, tenant="acme"), ""),
    ],
)
async def test_invalidation_removes_what_all_its_filters_match(cache: Harness, request_: pb.InvalidateEntriesRequest, left: str) -> None:
    ids = {}
    for name, (where, model) in FILLED.items():
        ids[name] = await cache.keep(where, answer(name, model), tags=("common", f"tag of {name}"))
        cache.clock.seconds += 9
    chosen = pb.InvalidateEntriesRequest()
    chosen.CopyFrom(request_)
    if chosen.entry_id == ENTRY_A:
        chosen.entry_id = ids["a"]
    assert (await cache.stub.InvalidateEntries(chosen)).removed_count == len(FILLED) - len(left)
    assert [name for name, (where, _) in FILLED.items() if await cache.text_at(where) is not None] == list(left)
    assert (await cache.stub.InvalidateEntries(chosen)).removed_count == 0
    # Nothing comes back after a restart.
    assert set(cache.store.whole()) <= {ids[name] for name in left}


async def test_text_that_is_no_entry_id_never_gets_into_the_store_s_filters(cache: Harness) -> None:
    await cache.keep(key())
    await cache.stub.InvalidateEntries(pb.InvalidateEntriesRequest(entry_id='" or row_id like "%'))
    await cache.settle()
    assert {chosen.entry_id for batch in cache.store.applied for chosen in batch.removals} == {None}


async def test_store_mirrors_memory_when_entries_are_evicted_or_expire() -> None:
    async with serving(CACHE_MAX_ENTRIES="2") as cache:
        ids = [await cache.keep(key(number), ttl_s=ttl_s) for number, ttl_s in enumerate((100, 10, 100))]
        await cache.settle()
        assert set(cache.store.whole()) == set(ids[1:])
        cache.clock.seconds += 20
        ids.append(await cache.keep(key(9)))
        await cache.settle()
        assert set(cache.store.whole()) == set(ids[2:])


async def test_invalidation_of_nothing_in_particular_is_refused(cache: Harness) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await cache.stub.InvalidateEntries(pb.InvalidateEntriesRequest())
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_stats_count_what_happened_and_only_what_can_serve() -> None:
    async with serving(CACHE_MAX_ENTRIES="2") as cache:
        for number in (1, 2, 3):
            await cache.keep(key(number), ttl_s=number * 10)
        await cache.text_at(key(1))
        await cache.text_at(key(2))
        await cache.text_at(key(3))
        stats = await cache.stub.GetCacheStats(pb.GetCacheStatsRequest())
        assert (stats.exact_hit_count, stats.miss_count, stats.store_count, stats.eviction_count) == (2, 1, 3, 1)
        assert (stats.entry_count, stats.semantic_hit_count, stats.fault_count) == (2, 0, 0)
        assert stats.size_bytes > 0
        cache.clock.seconds += 25
        stats = await cache.stub.GetCacheStats(pb.GetCacheStatsRequest())
        assert (stats.entry_count, stats.eviction_count) == (1, 1)


async def test_broken_store_is_a_miss_and_a_count_but_never_an_error(cache: Harness) -> None:
    cache.store.is_broken = True
    await cache.keep(key())
    assert await cache.text_at(key()) == "Hello."
    assert await cache.text_at(key(2)) is None
    async with asyncio.timeout(30):
        # Each turn yields to the mirror, also on the channel that has no socket.
        while (await cache.stub.GetCacheStats(pb.GetCacheStatsRequest())).fault_count == 0:
            await asyncio.sleep(0)
    assert (await cache.stub.InvalidateEntries(pb.InvalidateEntriesRequest(all=True))).removed_count == 1
    assert await cache.text_at(key()) is None


async def test_cache_that_is_off_keeps_nothing_and_always_misses() -> None:
    async with serving(CACHE_ENABLED="false") as cache:
        assert await cache.keep(key()) == ""
        assert await cache.text_at(key()) is None
        stats = await cache.stub.GetCacheStats(pb.GetCacheStatsRequest())
        assert (stats.entry_count, stats.store_count, stats.miss_count) == (0, 0, 1)
        assert cache.store.open_count == 0


async def test_answer_lives_shorter_by_jitter_but_never_longer() -> None:
    settings, clock, counts = settings_of(), HeldClock(), Counts()
    index = HotIndex(10, 1 << 20)
    lifetimes = []
    async with Mirror(MemoryStore(), index, counts, clock, is_warming=False) as mirror:
        for draw in (0.0, 0.5, 0.999):
            cache = AnswerCache(settings, index, mirror, counts, clock, lambda draw=draw: draw)  # type: ignore[misc]
            await cache.store(key(), answer(), 100_000_000)
            hit = await cache.look_up(Question(key()))
            assert isinstance(hit, Hit)
            entry = pb.Entry.FromString(hit.data)
            lifetimes.append(entry.expire_time.ToMicroseconds() - entry.create_time.ToMicroseconds())
    assert lifetimes == [100_000_000, 97_500_000, 95_005_000]
