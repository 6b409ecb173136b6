"""What the router counts beyond its calls."""

from prometheus_client import Counter, Histogram

REQUESTS = Counter("joulegate_requests", "Requests answered, by how.", ["provider", "cache", "outcome"])
FIRST_EVENT_SECONDS = Histogram(
    "joulegate_first_event_seconds",
    "From a request's arrival to the first event of its answer.",
    ["provider"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
CACHE_FAULTS = Counter("joulegate_router_cache_faults", "Calls of the cache that failed and were taken as misses.", ["call"])
BOOK_BREAKS = Counter("joulegate_router_book_breaks", "Times the stream to the ledger broke.")
