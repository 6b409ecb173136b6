"""What dispatch measures."""

from prometheus_client import Counter, Histogram

CALLS = Counter("joulegate_provider_calls", "Calls to providers that ended, by how.", ["provider", "outcome"])
FIRST_EVENT_SECONDS = Histogram(
    "joulegate_provider_first_event_seconds",
    "From a call to the first event of its answer.",
    ["provider"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
BREAKER_TRANSITIONS = Counter(
    "joulegate_circuit_breaker_transitions", "Changes of the circuit breakers' states, by the new state.", ["provider", "state"]
)
LISTING_FAILURES = Counter("joulegate_provider_listing_failures", "Attempts to list a provider's models that failed.", ["provider"])
