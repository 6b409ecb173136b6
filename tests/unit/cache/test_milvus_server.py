"""The store and what caches share, on a real Milvus server. MILVUS_TEST_URI names one; its collections of the test are dropped.

The `milvus` package holds a server that starts without containers. It listens on all addresses, so run it and this test in a network
namespace: `unshare -n sh -c 'ip link set lo up; milvus-server --data DIR --proxy-port 19530 & … pytest …'`.
"""

import os
import time
import uuid
from collections.abc import Iterator

import pytest

from joulegate.cache.v1 import cache_service_pb2 as pb
from services.cache.embedders.hashing import HashEmbedder
from services.cache.entry_filter import EntryFilter
from services.cache.kept_entry import KeptEntry, mark
from services.cache.milvus_store import MilvusStore
from services.cache.removal_watch import KEPT_US
from services.cache.rows import PIECE_BYTES
from services.wire.fingerprint import entry_id
from tests.unit.cache.samples import SECOND_US, kept, key, tell, wording
from tests.unit.cache.two_caches import two_caches

URI = os.environ.get("MILVUS_TEST_URI")
TTL_US = 1000 * SECOND_US
NOW_US = time.time_ns() // 1000
pytestmark = pytest.mark.skipif(URI is None, reason="MILVUS_TEST_URI names no Milvus server")


@pytest.fixture
def space() -> Iterator[str]:
    name = uuid.uuid4().hex
    yield name
    store = store_of(name)
    store.open()
    store._client.drop_collection(store._collection)
    store.close()


def store_of(space: str, dimension: int = HashEmbedder.dimension, origin: str = "") -> MilvusStore:
    return MilvusStore(str(URI), None, space, dimension, origin)


def contents(store: MilvusStore) -> set[KeptEntry]:
    heads = store.heads(0)
    return set(store.read([row_id for row_id, _ in heads])) if heads else set()


def until(store: MilvusStore, expected: set[KeptEntry]) -> None:
    """Reads may lag behind writes: the client waits for the server with each."""
    for _ in range(1000):
        if (found := contents(store)) == expected:
            return
    raise AssertionError(found)


def test_entries_come_back_whole_and_leave_by_filter(space: str) -> None:
    store = store_of(space, 3)
    store.open()
    worded = kept(1, size=3 * PIECE_BYTES, ttl_us=TTL_US, microjoules=7, tags=("faq", "de"), wording=wording("s" * 40, 1, 2, -3))
    plain = kept(2, model="small", created_us=9, ttl_us=TTL_US)
    tell(store, worded, plain, now_us=NOW_US)
    until(store, {worded, plain})
    tell(store, EntryFilter(tag=mark("faq")), now_us=NOW_US)
    until(store, {plain})
    tell(store, EntryFilter(created_until_us=9), now_us=NOW_US)
    until(store, set())
    store.close()


def test_removals_are_told_to_others_for_a_while(space: str) -> None:
    one, other = store_of(space, origin=f"{space}-one"), store_of(space, origin=f"{space}-other")
    one.open()
    other.open()
    chosen = [EntryFilter(tenant=mark(space), tag=mark("faq"), created_until_us=7), EntryFilter(entry_id=mark(space))]
    tell(one, *chosen, now_us=NOW_US)
    told = [removal for removal in other.removals(NOW_US) if removal.chosen in chosen]
    assert {(removal.chosen, removal.at_us) for removal in told} == {(each, NOW_US) for each in chosen}
    assert len({removal.removal_id for removal in told}) == 2
    assert [removal for removal in other.removals(NOW_US + 1) if removal.chosen in chosen] == []
    assert [removal for removal in one.removals(0) if removal.chosen in chosen] == []
    other.sweep(NOW_US + KEPT_US)
    assert [removal for removal in other.removals(0) if removal.chosen in chosen] == []
    one.close()
    other.close()


async def test_caches_on_one_server_find_each_others_answers(space: str) -> None:
    async with two_caches(lambda: store_of(space)) as (one, other):
        await one.keep(1, "how do i boil an egg")
        await other.until_tier(2, "how do i boil one egg", pb.TIER_SEMANTIC)
        await other.until_tier(1, "how do i boil an egg", pb.TIER_EXACT)
        assert (one.counts.faults, other.counts.faults) == (0, 0)


async def test_what_one_cache_removes_leaves_the_memory_of_another(space: str) -> None:
    async with two_caches(lambda: store_of(space, origin=uuid.uuid4().hex), watches=True) as (one, other):
        # The server has removals of all times, and whoever watches asks for those of its own.
        one.clock.seconds = other.clock.seconds = time.time()
        for number, text in ((1, "how do i boil an egg"), (2, "what is a joule")):
            await one.keep(number, text)
            await other.until_tier(number, text, pb.TIER_EXACT)
        await one.cache.invalidate(EntryFilter(entry_id=entry_id(key(1))))
        await other.until_tier(1, "how do i boil an egg", None)
        assert await other.tier(2, "what is a joule") == pb.TIER_EXACT
        assert (one.counts.faults, other.counts.faults) == (0, 0)
