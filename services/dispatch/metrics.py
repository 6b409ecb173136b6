"""What dispatch measures."""

from functools import partial

from prometheus_client import Gauge

from services.dispatch.keys import KeyRing
from services.runtime.clock import Clock
from services.runtime.metrics import counters, histograms

CALLS = counters("joulegate_provider_calls", "Calls to providers that ended, by how.", ["provider", "outcome"])
FIRST_EVENT_SECONDS = histograms(
    "joulegate_provider_first_event_seconds",
    "From a call to the first event of its answer.",
    ["provider"],
    (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
HEDGES = counters("joulegate_hedges", "Second calls because a first event was late, by how they ended.", ["provider", "outcome"])
BREAKER_TRANSITIONS = counters(
    "joulegate_circuit_breaker_transitions", "Changes of the circuit breakers' states, by the new state.", ["provider", "state"]
)
MEASURED_JOULES = counters(
    "joulegate_dispatch_measured_joules",
    "What the machine's counters counted: for requests of its models, and while there were none.",
    ["account"],
)
LISTING_FAILURES = counters("joulegate_provider_listing_failures", "Attempts to list a provider's models that failed.", ["provider"])
KEY_USABLE = Gauge(
    "joulegate_provider_key_usable",
    "1 while calls may show a key, 0 while it is set aside as bad or empty. `key` is its place in the configuration.",
    ["provider", "key"],
)


def watch_keys(provider: str, keys: KeyRing, clock: Clock) -> None:
    """Shows the state of each key whenever it is asked for: keys come back by the passing of time alone."""
    for index in range(len(keys.keys)):
        KEY_USABLE.labels(provider, str(index)).set_function(partial(_usable, keys, index, clock))


def _usable(keys: KeyRing, index: int, clock: Clock) -> float:
    return float(keys.is_usable(index, clock.monotonic()))
