"""What the cache has done since start: for GetCacheStats and, at the same time, for Prometheus."""

from collections import Counter
from functools import cache

from joulegate.cache.v1 import cache_service_pb2 as pb
from services.cache import metrics

# Callers choose the names of models: beyond so many they are counted together.
MAX_MODELS = 256
OTHER = "other"

_HITS = {pb.TIER_EXACT: metrics.LOOK_UPS.labels("hit_exact"), pb.TIER_SEMANTIC: metrics.LOOK_UPS.labels("hit_semantic")}
_MISSES = metrics.LOOK_UPS.labels("miss")
# To look a label up takes longer than to count.
_rejects = cache(metrics.REJECTS.labels)


class Counts:
    """Counters of one cache."""

    __slots__ = ("embedding_faults", "evictions", "faults", "hits", "hits_by_model", "misses", "misses_by_model", "rejects", "stores")

    def __init__(self) -> None:
        self.misses = self.stores = self.evictions = self.faults = self.embedding_faults = 0
        self.hits: Counter[int] = Counter()
        self.hits_by_model: Counter[str] = Counter()
        self.misses_by_model: Counter[str] = Counter()
        # By the gate's rule.
        self.rejects: Counter[str] = Counter()

    def hit(self, tier: "pb.Tier.ValueType", model: str) -> None:
        self.hits[tier] += 1
        _HITS[tier].inc()
        _count(self.hits_by_model, model)

    def miss(self, model: str) -> None:
        self.misses += 1
        _MISSES.inc()
        _count(self.misses_by_model, model)

    def rejected(self, rule: str, count: int = 1) -> None:
        self.rejects[rule] += count
        _rejects(rule).inc(count)

    def stored(self) -> None:
        self.stores += 1
        metrics.STORES.inc()

    def evicted(self, count: int) -> None:
        self.evictions += count
        metrics.EVICTIONS.inc(count)

    def fault(self, count: int = 1) -> None:
        self.faults += count
        metrics.FAULTS.inc(count)

    def embedding_fault(self) -> None:
        self.embedding_faults += 1
        metrics.EMBEDDING_FAULTS.inc()


def _count(counter: Counter[str], model: str) -> None:
    # Nobody says the model of a call that is not a request's.
    if model:
        counter[model if model in counter or len(counter) < MAX_MODELS else OTHER] += 1
