"""What every process measures of its calls, how all of them count, and the Prometheus listener that shows it.

prometheus-client's own counters and histograms check their labels and search their buckets at every step. On the path of each request that
is dear, so what counts here is a number or a list of them, and the client asks for it when it is scraped.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from threading import Lock
from time import time
from typing import Any, Final, Generic, TypeVar

from prometheus_client import REGISTRY, start_http_server
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric, Sample
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from services.runtime.settings import host_and_port

INFINITY: Final = float("inf")


class Counter:
    """What only grows. Any thread may count: a lock keeps each step whole."""

    __slots__ = ("_created", "_lock", "_value")

    def __init__(self) -> None:
        self._lock = Lock()
        self._value = 0.0
        self._created = time()

    def inc(self, amount: float = 1) -> None:
        with self._lock:
            self._value += amount

    def show(self, family: CounterMetricFamily, labels: Sequence[str]) -> None:
        family.add_metric(labels, self._value, self._created)


class Histogram:
    """How often a figure was at most each of some ascending bounds. Any thread may count."""

    __slots__ = ("_bounds", "_counts", "_created", "_lock", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._lock = Lock()
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._created = time()

    def observe(self, figure: float) -> None:
        place = bisect_left(self._bounds, figure)
        with self._lock:
            self._counts[place] += 1
            self._sum += figure

    def show(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        with self._lock:
            counts, total = list(accumulate(self._counts)), self._sum
        bounds = map(floatToGoString, (*self._bounds, INFINITY))
        family.add_metric(labels, list(zip(bounds, counts, strict=True)), total)
        # The client's own histograms show it, its interface for others has no word for it.
        named = family.samples[-1].labels
        family.samples.append(Sample(f"{family.name}_created", named, self._created))


Kind = TypeVar("Kind", Counter, Histogram)


class Family(Collector, Generic[Kind]):
    """All that is counted under one name, by the values of its labels. Whoever counts often keeps what `labels` gave."""

    def __init__(self, names: Sequence[str], blank: Callable[[], Any], new: Callable[[], Kind]) -> None:
        self._names = names
        self._blank = blank
        self._new: Callable[[], Kind] = new
        self._lock = Lock()
        self._members: dict[tuple[str, ...], Kind] = {}
        REGISTRY.register(self)

    def labels(self, *values: str) -> Kind:
        """What is counted under these values, in the order of the labels' names. ValueError when they are not as many."""
        member = self._members.get(values)
        if member is None:
            if len(values) != len(self._names):
                raise ValueError(f"{len(values)} values for {len(self._names)} labels")
            with self._lock:
                member = self._members.setdefault(values, self._new())
        return member

    def describe(self) -> list[Metric]:
        return [self._blank()]

    def collect(self) -> list[Metric]:
        family = self._blank()
        with self._lock:
            members = list(self._members.items())
        for values, member in members:
            member.show(family, values)
        return [family]


def counters(name: str, documentation: str, labels: Sequence[str]) -> Family[Counter]:
    """Counters under one name, shown with `_total` after it."""
    return Family(labels, lambda: CounterMetricFamily(name, documentation, labels=labels), Counter)


def counter(name: str, documentation: str) -> Counter:
    """The only one of its name."""
    return counters(name, documentation, ()).labels()


def histograms(name: str, documentation: str, labels: Sequence[str], bounds: Sequence[float]) -> Family[Histogram]:
    """Histograms under one name; bounds ascend."""
    return Family(labels, lambda: HistogramMetricFamily(name, documentation, labels=labels), lambda: Histogram(bounds))


def histogram(name: str, documentation: str, bounds: Sequence[float]) -> Histogram:
    """The only one of its name."""
    return histograms(name, documentation, (), bounds).labels()


CALLS = counters("joulegate_rpc_server_handled", "Calls handled, by method and gRPC status.", ["method", "code"])
CALL_SECONDS = histograms(
    "joulegate_rpc_server_seconds",
    "From a call's arrival to its end.",
    ["method"],
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)


@contextmanager
def listener(address: str | None) -> Iterator[str | None]:
    """Serves /metrics on `host:port` while entered; gives the address that was bound (port 0 takes any). None: no listener."""
    if address is None:
        yield None
        return
    host, port = host_and_port(address)
    server, thread = start_http_server(port, addr=host)
    try:
        yield f"{address.rpartition(':')[0]}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
