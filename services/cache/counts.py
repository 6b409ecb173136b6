"""What the cache has done since start: for GetCacheStats and, at the same time, for Prometheus."""

from services.cache import metrics

_HITS = metrics.LOOK_UPS.labels("hit_exact")
_MISSES = metrics.LOOK_UPS.labels("miss")


class Counts:
    """Counters of one cache."""

    __slots__ = ("evictions", "exact_hits", "faults", "misses", "stores")

    def __init__(self) -> None:
        self.exact_hits = self.misses = self.stores = self.evictions = self.faults = 0

    def hit(self) -> None:
        self.exact_hits += 1
        _HITS.inc()

    def miss(self) -> None:
        self.misses += 1
        _MISSES.inc()

    def stored(self) -> None:
        self.stores += 1
        metrics.STORES.inc()

    def evicted(self, count: int) -> None:
        self.evictions += count
        metrics.EVICTIONS.inc(count)

    def fault(self, count: int = 1) -> None:
        self.faults += count
        metrics.FAULTS.inc(count)
