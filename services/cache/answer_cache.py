"""The cache itself: which answer serves when, and what is kept for how long."""

from collections.abc import Callable

from joulegate.cache.v1 import cache_service_pb2 as pb
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.cache import metrics
from services.cache.completeness import shortcoming
from services.cache.counts import Counts
from services.cache.entry_filter import EntryFilter
from services.cache.hot_index import HotIndex
from services.cache.kept_entry import DIGEST_BYTES, KeptEntry, entry_id, mark
from services.cache.mirror import Mirror
from services.cache.settings import LONGEST_TTL_S, CacheSettings
from services.runtime.clock import Clock
from services.runtime.errors import GatewayError

# Answers that were stored together should not all expire together: each lives up to this share shorter than asked, never longer.
JITTER_SHARE = 0.05


class AnswerCache:
    """The exact tier: an answer serves the same request of the same tenant. `random` gives numbers in [0, 1)."""

    def __init__(
        self, settings: CacheSettings, index: HotIndex, mirror: Mirror, counts: Counts, clock: Clock, random: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._index = index
        self._mirror = mirror
        self._counts = counts
        self._clock = clock
        self._random = random

    def look_up(self, key: pb.EntryKey, max_age_us: int | None) -> bytes | None:
        """The serialized entry under a key, at most so old. None on a miss."""
        _check(key)
        started = self._clock.monotonic()
        kept = self._index.get(entry_id(key), self._now_us(), max_age_us) if self._settings.is_enabled else None
        if kept is None:
            self._counts.miss()
        else:
            self._counts.hit()
        metrics.LOOK_UP_SECONDS.observe(self._clock.monotonic() - started)
        return None if kept is None else kept.data

    def store(self, key: pb.EntryKey, entry: pb.Entry, ttl_us: int | None) -> str:
        """Keeps an answer; gives its id, empty when the cache is off. Raises GatewayError for an answer that is not fit to be kept."""
        _check(key)
        if not self._settings.is_enabled:
            return ""
        kept = self._kept(key, entry, ttl_us)
        expired = self._index.expire(kept.created_us)
        evicted = self._index.put(kept)
        self._mirror.write(kept, [*expired, *evicted])
        self._counts.stored()
        self._counts.evicted(len(evicted))
        self._show_size()
        return kept.entry_id

    async def invalidate(self, chosen: EntryFilter) -> int:
        """Removes entries from memory and from the store. Gives the number removed from memory, which the store mirrors."""
        if not chosen.is_satisfiable:
            return 0
        self._expire()
        removed_count = self._index.remove(chosen)
        self._show_size()
        await self._mirror.remove(chosen)
        return removed_count

    def stats(self) -> pb.GetCacheStatsResponse:
        self._expire()
        self._show_size()
        return pb.GetCacheStatsResponse(
            exact_hit_count=self._counts.exact_hits,
            miss_count=self._counts.misses,
            store_count=self._counts.stores,
            eviction_count=self._counts.evictions,
            entry_count=len(self._index),
            size_bytes=self._index.size_bytes,
            fault_count=self._counts.faults,
        )

    def _kept(self, key: pb.EntryKey, entry: pb.Entry, ttl_us: int | None) -> KeptEntry:
        problem = shortcoming(entry)
        if problem is not None:
            raise _invalid(problem)
        longest_us = int((self._settings.ttl_s if ttl_us is None else LONGEST_TTL_S) * 1e6)
        asked_us = longest_us if ttl_us is None else min(ttl_us, longest_us)
        if asked_us <= 0:
            raise _invalid("ttl must be above zero")
        now_us = self._now_us()
        expires_us = now_us + max(1, int(asked_us * (1 - JITTER_SHARE * self._random())))
        # A copy: the message belongs to the caller, who may share this process.
        own = pb.Entry()
        own.CopyFrom(entry)
        own.entry_id = entry_id(key)
        own.create_time.FromMicroseconds(now_us)
        own.expire_time.FromMicroseconds(expires_us)
        data = own.SerializeToString()
        if len(data) > self._settings.max_entry_bytes:
            raise _invalid(f"the answer takes {len(data)} bytes; at most {self._settings.max_entry_bytes} are kept")
        return KeptEntry(own.entry_id, mark(key.tenant), mark(key.namespace), mark(own.model), now_us, expires_us, data)

    def _expire(self) -> None:
        self._mirror.delete(self._index.expire(self._now_us()))

    def _show_size(self) -> None:
        metrics.ENTRIES.set(len(self._index))
        metrics.SIZE_BYTES.set(self._index.size_bytes)

    def _now_us(self) -> int:
        return int(self._clock.now() * 1e6)


def _check(key: pb.EntryKey) -> None:
    if len(key.digest) != DIGEST_BYTES:
        raise _invalid(f"a digest has {DIGEST_BYTES} bytes, not {len(key.digest)}")


def _invalid(message: str) -> GatewayError:
    return GatewayError(ErrorReason.ERROR_REASON_INVALID_REQUEST, message)
