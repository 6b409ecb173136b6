"""The cache itself: which answer serves when, and what is kept for how long."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp

from joulegate.cache.v1 import cache_service_pb2 as pb
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.cache import metrics
from services.cache.completeness import shortcoming
from services.cache.counts import Counts
from services.cache.entry_filter import EntryFilter
from services.cache.hot_index import HotIndex
from services.cache.kept_entry import DIGEST_BYTES, KeptEntry, KeptWording, mark
from services.cache.mirror import Mirror
from services.cache.rows import MAX_TAGS
from services.cache.semantic_tier import Bounds, SemanticTier
from services.cache.settings import LONGEST_TTL_S, CacheSettings
from services.cache.shared_reads import SharedReads
from services.runtime.clock import Clock
from services.runtime.errors import GatewayError
from services.wire.fingerprint import entry_id

# Answers that were stored together should not all expire together: each lives up to this share shorter than asked, never longer.
JITTER_SHARE = 0.05
MAX_TAG_BYTES = 128
# Sums over tenants cost time, and nobody reads them more often.
TENANTS_SHOWN_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Question:
    """What is looked up: a request, and perhaps its words."""

    key: pb.EntryKey
    wording: pb.Wording | None = None
    # The oldest answer that will do; None: any.
    max_age_us: int | None = None
    # What will do of other words.
    bounds: Bounds = field(default_factory=Bounds)
    # For counts.
    model: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry that serves, serialized."""

    data: bytes
    tier: pb.Tier.ValueType
    similarity: float


@dataclass(frozen=True, slots=True)
class Miss:
    """No entry serves. `neighbours` are to be compared with the answer that is made instead."""

    neighbours: Sequence[pb.Neighbour] = ()


class AnswerCache:
    """An answer serves the same request of the same tenant, and other wordings of it where there is a semantic tier.

    `random` gives numbers in [0, 1).
    """

    def __init__(
        self,
        settings: CacheSettings,
        index: HotIndex,
        mirror: Mirror,
        counts: Counts,
        clock: Clock,
        random: Callable[[], float],
        semantic: SemanticTier | None = None,
        shared: SharedReads | None = None,
    ) -> None:
        self._settings = settings
        self._index = index
        self._mirror = mirror
        self._counts = counts
        self._clock = clock
        self._random = random
        self._semantic = semantic
        self._shared = shared
        self._tenants_shown_at = -math.inf
        # Read when somebody looks: setting them took as long as finding an entry.
        metrics.ENTRIES.set_function(lambda: len(index))
        metrics.SEMANTIC_ENTRIES.set_function(lambda: index.semantic_count)
        metrics.SIZE_BYTES.set_function(lambda: index.size_bytes)

    async def look_up(self, question: Question) -> Hit | Miss:
        """The answer to a question."""
        _check(question.key, question.wording)
        _check_bounds(question.bounds)
        started = self._clock.monotonic()
        found = await self._find(question) if self._settings.is_enabled else Miss()
        if isinstance(found, Miss):
            self._counts.miss(question.model)
        else:
            self._counts.hit(found.tier, question.model)
        metrics.LOOK_UP_SECONDS.observe(self._clock.monotonic() - started)
        return found

    async def store(
        self, key: pb.EntryKey, entry: pb.Entry, ttl_us: int | None, wording: pb.Wording | None = None, tags: Sequence[str] = ()
    ) -> str:
        """Keeps an answer; gives its id, empty when the cache is off. Raises GatewayError for an answer that is not fit to be kept."""
        _check(key, wording)
        if not self._settings.is_enabled:
            return ""
        kept = await self._kept(key, entry, ttl_us, wording, _marks(tags))
        expired = self._index.expire(kept.created_us)
        evicted = self._index.put(kept)
        self._mirror.write(kept, [*expired, *evicted])
        self._counts.stored()
        self._counts.evicted(len(evicted))
        self._show_tenants()
        return kept.entry_id

    async def invalidate(self, chosen: EntryFilter) -> int:
        """Removes entries from memory and from the store. Gives the number removed from memory, which the store mirrors."""
        if not chosen.is_satisfiable:
            return 0
        self._expire()
        removed_count = self._index.remove(chosen)
        self._show_tenants()
        if self._shared is not None:
            self._shared.note_removal(chosen)
        await self._mirror.remove(chosen)
        return removed_count

    def forget(self, chosen: EntryFilter) -> None:
        """Removes from memory what another cache was told to remove: the store knows."""
        self._mirror.forget(chosen)
        self._index.remove(chosen)
        self._show_tenants()
        if self._shared is not None:
            self._shared.note_removal(chosen)

    def stats(self) -> pb.GetCacheStatsResponse:
        self._expire()
        self._show_tenants()
        counts = self._counts
        return pb.GetCacheStatsResponse(
            enabled=self._settings.is_enabled,
            exact_hit_count=counts.hits[pb.TIER_EXACT],
            semantic_hit_count=counts.hits[pb.TIER_SEMANTIC],
            miss_count=counts.misses,
            store_count=counts.stores,
            eviction_count=counts.evictions,
            entry_count=len(self._index),
            semantic_entry_count=self._index.semantic_count,
            size_bytes=self._index.size_bytes,
            fault_count=counts.faults + counts.embedding_faults,
            embedding_fault_count=counts.embedding_faults,
            hit_count_by_model=counts.hits_by_model,
            miss_count_by_model=counts.misses_by_model,
            reject_count_by_rule=counts.rejects,
        )

    def now_us(self) -> int:
        """Microseconds since 1970-01-01 UTC."""
        return int(self._clock.now() * 1e6)

    async def _find(self, question: Question) -> Hit | Miss:
        found = await self._find_here(question)
        if isinstance(found, Miss) and self._shared is not None and await self._fetch(question, self._shared):
            return await self._find_here(question)
        return found

    async def _fetch(self, question: Question, shared: SharedReads) -> bool:
        """Takes in what other caches have written and may serve. Whether that was anything new."""
        wording = await self._wording(question.key, question.wording)
        is_new = False
        for kept in await shared.find(entry_id(question.key), wording):
            if kept.expires_us <= self.now_us() or kept.entry_id in self._index or self._mirror.supersedes(kept):
                continue
            self._mirror.delete(self._index.put(kept))
            is_new = True
        return is_new

    async def _find_here(self, question: Question) -> Hit | Miss:
        kept = self._index.get(entry_id(question.key), self.now_us(), question.max_age_us)
        if kept is not None:
            return Hit(kept.data, pb.TIER_EXACT, 1.0)
        if self._semantic is None or question.wording is None:
            return Miss()
        found = await self._semantic.find(question.key, question.wording, self.now_us, question.max_age_us, question.bounds)
        return Miss(found.neighbours) if found.kept is None else Hit(found.kept.data, pb.TIER_SEMANTIC, found.similarity)

    async def _kept(
        self, key: pb.EntryKey, entry: pb.Entry, ttl_us: int | None, wording: pb.Wording | None, tags: tuple[str, ...]
    ) -> KeptEntry:
        problem = shortcoming(entry)
        if problem is not None:
            raise _invalid(problem)
        longest_us = int((self._settings.ttl_s if ttl_us is None else LONGEST_TTL_S) * 1e6)
        asked_us = longest_us if ttl_us is None else min(ttl_us, longest_us)
        if asked_us <= 0:
            raise _invalid("ttl must be above zero")
        kept_wording = await self._wording(key, wording)
        now_us = self.now_us()
        expires_us = now_us + max(1, int(asked_us * (1 - JITTER_SHARE * self._random())))
        # A copy: the message belongs to the caller, who may share this process.
        own = pb.Entry()
        own.CopyFrom(entry)
        own.entry_id = entry_id(key)
        _set(own.create_time, now_us)
        _set(own.expire_time, expires_us)
        data = own.SerializeToString()
        if len(data) > self._settings.max_entry_bytes:
            raise _invalid(f"the answer takes {len(data)} bytes; at most {self._settings.max_entry_bytes} are kept")
        return KeptEntry(
            entry_id=own.entry_id,
            tenant=mark(key.tenant),
            namespace=mark(key.namespace),
            model=mark(own.model),
            created_us=now_us,
            expires_us=expires_us,
            data=data,
            microjoules=entry.energy_microjoules,
            tags=tags,
            wording=kept_wording,
        )

    async def _wording(self, key: pb.EntryKey, wording: pb.Wording | None) -> KeptWording | None:
        return None if self._semantic is None or wording is None else await self._semantic.kept_wording(key, wording)

    def _expire(self) -> None:
        self._mirror.delete(self._index.expire(self.now_us()))

    def _show_tenants(self) -> None:
        now = self._clock.monotonic()
        if now - self._tenants_shown_at >= TENANTS_SHOWN_EVERY_S:
            self._tenants_shown_at = now
            metrics.show_tenants(self._index.holdings())


def _set(moment: Timestamp, time_us: int) -> None:
    """As `FromMicroseconds`, which takes several times as long."""
    moment.seconds, moment.nanos = time_us // 1_000_000, time_us % 1_000_000 * 1000


def _check(key: pb.EntryKey, wording: pb.Wording | None) -> None:
    for digest in [key.digest] if wording is None else [key.digest, wording.scope]:
        if len(digest) != DIGEST_BYTES:
            raise _invalid(f"a digest has {DIGEST_BYTES} bytes, not {len(digest)}")


def _check_bounds(bounds: Bounds) -> None:
    if not 0 <= bounds.min_similarity <= 1:
        raise _invalid("min_similarity must be between 0 and 1")
    if bounds.max_error is not None and not 0 < bounds.max_error < 1:
        raise _invalid("max_error must be above 0 and below 1")


def _marks(tags: Sequence[str]) -> tuple[str, ...]:
    if not tags:
        return ()
    distinct = list(dict.fromkeys(tags))
    if len(distinct) > MAX_TAGS or any(len(tag.encode()) > MAX_TAG_BYTES for tag in distinct):
        raise _invalid(f"an entry has at most {MAX_TAGS} tags, of at most {MAX_TAG_BYTES} bytes each")
    return tuple(map(mark, distinct))


def _invalid(message: str) -> GatewayError:
    return GatewayError(ErrorReason.ERROR_REASON_INVALID_REQUEST, message)
