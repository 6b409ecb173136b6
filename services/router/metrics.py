"""What the router counts beyond its calls."""

from functools import cache

from prometheus_client import Gauge

from joulegate.chat.v1 import receipt_pb2
from joulegate.ledger.v1 import entry_pb2
from services.runtime.metrics import Counter, Histogram, counter, counters, histograms

REQUESTS = counters("joulegate_requests", "Requests answered, by how.", ["provider", "cache", "outcome"])
FIRST_EVENT_SECONDS = histograms(
    "joulegate_first_event_seconds",
    "From a request's arrival to the first event of its answer.",
    ["provider"],
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
FLIGHTS = Gauge("joulegate_router_flights", "Calls that identical requests can still join.")
FLIGHT_LISTENERS = Gauge("joulegate_router_flight_listeners", "Requests that these calls are made for.")
FLIGHT_PROMOTIONS = counter("joulegate_router_flight_promotions", "Times a follower took over from a leader that failed.")
CACHE_FAULTS = counters("joulegate_router_cache_faults", "Calls of the cache that failed and were taken as misses.", ["call"])
VERIFICATIONS = counters("joulegate_router_verifications", "Answers to other words that were asked anew for comparison.", ["result"])
POLICY_VERSION = Gauge("joulegate_router_policy_version", "Version of the routing policy in force; 0 is what is configured.")
DECISIONS_DROPPED = counter("joulegate_router_decisions_dropped", "Routing decisions that ROUTING_LOG should hold and does not.")
PROPOSALS = counters(
    "joulegate_router_proposals", "Routed requests by whether learning would have taken another of the near best.", ["choice"]
)
EXPLORED = counter("joulegate_router_explored", "Requests that went to another of the near best, to learn how well it answers.")
REPORTS = counters("joulegate_router_reports", "First reports about answers, by who had answered.", ["source"])
FAILURE_SIGNALS = counters("joulegate_router_failure_signals", "Answers that ended badly, by how.", ["signal"])
KEY_QUESTIONS = counters("joulegate_router_key_questions", "Keys that were not known and asked of the ledger, by result.", ["result"])
ADMISSIONS = counters(
    "joulegate_router_admissions",
    "Requests let in or kept out: `lease` by this router alone, `granted` and `denied` by the ledger, `uncounted` hits while it was away.",
    ["result"],
)
ADMITTED_BY_LEASE = ADMISSIONS.labels("lease")
BOOK_BREAKS = counter("joulegate_router_book_breaks", "Times the stream to the ledger broke.")


# The text of labels is made once for each.


@cache
def requests(provider: str, cache_status: receipt_pb2.CacheStatus.ValueType, outcome: entry_pb2.Outcome.ValueType) -> Counter:
    """The counter of requests that ended like this."""
    status = receipt_pb2.CacheStatus.Name(cache_status).removeprefix("CACHE_STATUS_").lower()
    return REQUESTS.labels(provider, status, entry_pb2.Outcome.Name(outcome).removeprefix("OUTCOME_").lower())


@cache
def first_event_seconds(provider: str) -> Histogram:
    """From a request's arrival to the first event of this provider's answer."""
    return FIRST_EVENT_SECONDS.labels(provider)
