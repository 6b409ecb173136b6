"""What Prometheus sees of the cache."""

from prometheus_client import Counter, Gauge, Histogram

LOOK_UPS = Counter("joulegate_cache_look_ups", "Look-ups, by result.", ["result"])
LOOK_UP_SECONDS = Histogram(
    "joulegate_cache_look_up_seconds",
    "Time in the cache for one look-up.",
    buckets=(0.000_005, 0.000_01, 0.000_02, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.005, 0.02),
)
STORES = Counter("joulegate_cache_stores", "Answers kept.")
EVICTIONS = Counter("joulegate_cache_evictions", "Entries that left before they expired, to make room.")
FAULTS = Counter("joulegate_cache_store_faults", "Faults of the durable store, and writes dropped for want of room in its queue.")
ENTRIES = Gauge("joulegate_cache_entries", "Entries in memory.")
SIZE_BYTES = Gauge("joulegate_cache_size_bytes", "Their size, as serialized.")
QUEUE_LENGTH = Gauge("joulegate_cache_store_queue_length", "Changes that the durable store has yet to be told.")
