"""Two caches over one store that both can reach, for tests of what they share."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from joulegate.cache.v1 import cache_service_pb2 as pb
from services.cache.answer_cache import AnswerCache, Hit, Question
from services.cache.brake import Brake
from services.cache.counts import Counts
from services.cache.embedders.hashing import HashEmbedder
from services.cache.embedding_queue import EmbeddingQueue
from services.cache.entry_filter import EntryFilter
from services.cache.hot_index import HotIndex
from services.cache.lessons import Lessons
from services.cache.mirror import Mirror, Pace
from services.cache.removal_watch import RemovalWatch
from services.cache.semantic_tier import SemanticTier
from services.cache.shared_reads import SharedReads
from tests.unit.cache.samples import HeldClock, answer, key, settings_of

PATIENCE_S = 30


@dataclass
class OneCache:
    """One of them, with what it counts."""

    cache: AnswerCache
    lessons: Lessons
    shared: SharedReads
    counts: Counts
    clock: HeldClock

    async def keep(self, number: int, text: str) -> None:
        await self.cache.store(key(number), answer(text), None, wording_of(text))
        # What was queued is written when an invalidation is.
        await self.cache.invalidate(EntryFilter(tenant="0" * 32))

    async def tier(self, number: int, text: str) -> "pb.Tier.ValueType | None":
        hit = await self.cache.look_up(Question(key(number), wording_of(text)))
        return hit.tier if isinstance(hit, Hit) else None

    async def until_tier(self, number: int, text: str, tier: "pb.Tier.ValueType | None") -> None:
        """A cluster shows what was written a moment later, and is connected to at the first lookup."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.tier(number, text) != tier:
                self.clock.seconds += 1
                await asyncio.sleep(0.01)


def wording_of(text: str) -> pb.Wording:
    return pb.Wording(scope=bytes(32), text=text)


@asynccontextmanager
async def two_caches(
    new_store: Callable[[], Any], deadline_s: float = PATIENCE_S, *, watches: bool = False
) -> AsyncIterator[tuple[OneCache, OneCache]]:
    """`new_store` makes a connection of its own for each that writes or reads. The second one `watches` for the removals of the first."""
    async with AsyncExitStack() as stack:
        one, other = await _cache(stack, new_store, deadline_s), await _cache(stack, new_store, deadline_s)
        if watches:
            await stack.enter_async_context(RemovalWatch(other.shared, other.cache, other.clock, poll_s=0.01))
        yield one, other


async def _cache(stack: AsyncExitStack, new_store: Callable[[], Any], deadline_s: float) -> OneCache:
    settings, clock, counts, embedder = settings_of(), HeldClock(), Counts(), HashEmbedder()
    index = HotIndex(settings.max_entries, settings.max_bytes)
    pace = Pace(window_s=0.001, retry_s=(0.001, 0.01), removal_s=PATIENCE_S)
    mirror = await stack.enter_async_context(Mirror(new_store(), index, counts, clock, pace, is_warming=False))
    queue = EmbeddingQueue(embedder, PATIENCE_S, counts, clock)
    lessons = Lessons(index, mirror, Brake(0.5), clock)
    accept = functools.partial(lambda asked, kept: None)
    semantic = SemanticTier(queue, embedder.fingerprint, index, accept, lessons, embedder.floor, 8, counts, is_lone=False)
    shared = SharedReads(new_store(), 8, counts, clock, deadline_s)
    stack.push_async_callback(shared.close)
    return OneCache(AnswerCache(settings, index, mirror, counts, clock, lambda: 0.0, semantic, shared), lessons, shared, counts, clock)
