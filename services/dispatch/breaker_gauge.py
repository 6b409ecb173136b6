"""The state of every circuit breaker as a metric, read when it is asked for: half-open comes with time, and calls pay nothing for it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.dispatch.roster import Roster
from services.runtime.clock import Clock

# Clients may name any model: a name beyond this is no model's.
MAX_LABEL: Final = 128


class _BreakerStates(Collector):
    def __init__(self, roster: Roster, clock: Clock) -> None:
        self._roster = roster
        self._clock = clock

    def describe(self) -> Iterable[Metric]:
        return [self._family()]

    def collect(self) -> Iterator[Metric]:
        family, now = self._family(), self._clock.monotonic()
        for provider in self._roster:
            for model, breaker in provider.breakers:
                if len(model) <= MAX_LABEL:
                    family.add_metric([provider.name, model], breaker.state(now))
        yield family

    @staticmethod
    def _family() -> GaugeMetricFamily:
        words = "0 closed, 1 half-open, 2 open; of models that have been called."
        return GaugeMetricFamily("joulegate_circuit_breaker_state", words, labels=["provider", "model"])


@contextmanager
def exported(roster: Roster, clock: Clock) -> Iterator[None]:
    """The breakers of this roster are among the metrics while entered."""
    states = _BreakerStates(roster, clock)
    REGISTRY.register(states)
    try:
        yield
    finally:
        REGISTRY.unregister(states)
