"""What Prometheus sees of the cache."""

from collections.abc import Mapping

from prometheus_client import Gauge

from services.runtime.metrics import counter, counters, histogram

# The tenants that hold most have metrics of their own; the others share one.
SHOWN_TENANTS = 16
OTHERS = "others"

LOOK_UPS = counters("joulegate_cache_look_ups", "Look-ups, by result.", ["result"])
LOOK_UP_SECONDS = histogram(
    "joulegate_cache_look_up_seconds",
    "Time in the cache for one look-up.",
    (0.000_005, 0.000_01, 0.000_02, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.002_5, 0.005, 0.02, 0.1),
)
EMBEDDING_SECONDS = histogram(
    "joulegate_cache_embedding_seconds",
    "Time for the vector of one text that was not in memory.",
    (0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
)
EMBEDDING_FAULTS = counter(
    "joulegate_cache_embedding_faults", "Texts that went without the semantic tier because they had no vector in time."
)
REJECTS = counters("joulegate_cache_gate_rejects", "Candidates of the semantic tier that were refused, by the rule.", ["rule"])
STORES = counter("joulegate_cache_stores", "Answers kept.")
EVICTIONS = counter("joulegate_cache_evictions", "Entries that left before they expired, to make room.")
FAULTS = counter("joulegate_cache_store_faults", "Faults of the durable store, and writes dropped for want of room in its queue.")
ENTRIES = Gauge("joulegate_cache_entries", "Entries in memory.")
SEMANTIC_ENTRIES = Gauge("joulegate_cache_semantic_entries", "Entries in memory that can serve other words than their own.")
SIZE_BYTES = Gauge("joulegate_cache_size_bytes", "The size of all entries: answers as serialized, words, vectors.")
TENANT_ENTRIES = Gauge("joulegate_cache_tenant_entries", "Entries by tenant, the largest ones. The label is a digest.", ["tenant"])
TENANT_BYTES = Gauge("joulegate_cache_tenant_size_bytes", "Size of entries by tenant, the largest ones. The label is a digest.", ["tenant"])
COMPARISONS = counters("joulegate_cache_comparisons", "New answers held against kept ones, by what came out.", ["of", "verdict"])
REPORTS = counters("joulegate_cache_reports", "What callers said of answers that were served.", ["verdict"])
QUARANTINES = counter("joulegate_cache_quarantines", "Entries that serve no other words any more, because they were wrong for some.")
BRAKED_SCOPES = Gauge("joulegate_cache_braked_scopes", "Scopes that give no semantic hits for a while.")
QUEUE_LENGTH = Gauge("joulegate_cache_store_queue_length", "Changes that the durable store has yet to be told.")


def show_tenants(holdings: Mapping[str, tuple[int, int]]) -> None:
    """Entries and bytes by tenant: `SHOWN_TENANTS` of them, and the sum of the others."""
    ordered = sorted(holdings.items(), key=lambda item: -item[1][1])
    shown, others = ordered[:SHOWN_TENANTS], ordered[SHOWN_TENANTS:]
    for gauge, part in ((TENANT_ENTRIES, 0), (TENANT_BYTES, 1)):
        gauge.clear()
        for tenant, held in shown:
            gauge.labels(tenant[:12]).set(held[part])
        if others:
            gauge.labels(OTHERS).set(sum(held[part] for _, held in others))


FLIGHT_ROUTERS = Gauge("joulegate_cache_flight_routers", "Routers that share answers on their way.")
FLIGHT_RELAYS = Gauge("joulegate_cache_flight_relays", "Routers that follow an answer on its way to another router.")
FLIGHT_PROMOTIONS = counter("joulegate_cache_flight_promotions", "Routers that were told to lead because the leader was gone.")
