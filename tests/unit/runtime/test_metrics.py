"""What is counted here reads as if prometheus-client had counted it."""

import re

import prometheus_client
import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from services.runtime import metrics

BOUNDS = (0.000_05, 0.5, 1, 2.5, 1e6)


def _text(collector: Collector) -> str:
    """What a scrape gives of one collector, but for when its series began."""
    REGISTRY.unregister(collector)
    registry = CollectorRegistry()
    registry.register(collector)
    return re.sub(r"(_created.*) .*", r"\1", generate_latest(registry).decode())


def test_counters_read_as_those_of_the_client() -> None:
    ours = metrics.counters("runtime_test_calls", "Calls, by what\ncame.", ["method", "code"])
    theirs = prometheus_client.Counter("runtime_test_their_calls", "Calls, by what\ncame.", ["method", "code"])
    for code, count in (("OK", 1), ('a "quoted"\\one', 3), ("OK", 2.5)):
        ours.labels("m", code).inc(count)
        theirs.labels("m", code).inc(count)
    ours.labels("m", "never")
    theirs.labels("m", "never")
    assert _text(ours) == _text(theirs).replace("their_", "")


def test_histograms_read_as_those_of_the_client() -> None:
    ours = metrics.histograms("runtime_test_seconds", "How long.", ["method"], BOUNDS)
    theirs = prometheus_client.Histogram("runtime_test_their_seconds", "How long.", ["method"], buckets=BOUNDS)
    for figure in (0, 0.000_05, 0.000_051, 1, 1.0001, 7, 2e6):
        ours.labels("m").observe(figure)
        theirs.labels("m").observe(figure)
    assert _text(ours) == _text(theirs).replace("their_", "")


def test_what_has_no_labels_is_shown_before_it_is_counted() -> None:
    metrics.counter("runtime_test_faults", "Faults.")
    metrics.histogram("runtime_test_sizes", "Sizes.", (1, 2))
    assert REGISTRY.get_sample_value("runtime_test_faults_total") == 0
    assert REGISTRY.get_sample_value("runtime_test_sizes_bucket", {"le": "+Inf"}) == 0


def test_a_name_is_taken_once_and_labels_need_all_their_values() -> None:
    family = metrics.counters("runtime_test_once", "Once.", ["method"])
    with pytest.raises(ValueError, match="Duplicated"):
        metrics.counter("runtime_test_once", "Twice.")
    with pytest.raises(ValueError, match="2 values for 1 labels"):
        family.labels("a", "b")
