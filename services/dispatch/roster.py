"""The enabled providers, in order of preference, with what is known of each."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch import breaker_views, metrics
from services.dispatch.backend import Backend
from services.dispatch.breaker import Breakers, State
from services.dispatch.figures import TIMEOUT_S, Figures
from services.dispatch.limits import Limiter
from services.dispatch.metering import Metering


class Provider:
    """One provider: who answers for it, its models and its figures."""

    def __init__(
        self,
        name: str,
        kind: str,
        backend: Backend,
        models: Sequence[pb.Model] = (),
        *,
        is_present: bool = True,
        breakers: Breakers | None = None,
        limiter: Limiter | None = None,
        timeout_s: float = TIMEOUT_S,
        capabilities: Sequence[str] = (),
        metering: Metering | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.backend = backend
        # An error counts as a call that took `timeout_s`.
        self.figures = Figures(timeout_s=timeout_s)
        self.breakers = breakers or Breakers()
        self.limiter = limiter or Limiter()
        self.capabilities = capabilities
        # Where its models run on this machine, and that has counters.
        self.metering = metering
        self.models = models
        # Without a configured list, models are asked from the provider; until it answered, any may be there.
        self.is_listed_by_itself = not models
        self.accepts_unlisted_models = not models
        # False for one that is only looked for, until it is found.
        self.is_present = is_present
        # Whether its last list of models, or whatever it said instead, came through.
        self.is_reachable = True
        self.calls = {outcome: metrics.CALLS.labels(name, outcome) for outcome in ("success", "failure", "rejected", "cancelled")}
        self.first_event_seconds = metrics.FIRST_EVENT_SECONDS.labels(name)

    def is_well(self, now: float) -> bool:
        """Whether it does its work, as far as calls show."""
        return self.figures.is_healthy and all(breaker.state(now) is State.CLOSED for _, breaker in self.breakers)

    def describe(self, now: float) -> pb.Provider:
        """As it is at `now`, in monotonic seconds."""
        figures = self.figures
        provider = pb.Provider(
            name=self.name,
            kind=self.kind,
            healthy=figures.is_healthy,
            models=self.models,
            accepts_unlisted_models=self.accepts_unlisted_models,
            success_count=figures.success_count,
            failure_count=figures.failure_count,
            last_error=figures.last_error,
            in_flight_count=figures.in_flight_count,
            time_to_first_event=_duration(figures.first_event_s),
            time_to_first_event_p50=_duration(figures.first_event.value_s(0.50)),
            time_to_first_event_p95=_duration(figures.first_event.value_s(0.95)),
            time_to_first_event_p99=_duration(figures.first_event.value_s(0.99)),
            remaining_request_count=self.limiter.requests_left(now),
            capabilities=self.capabilities,
        )
        state = breaker_views.worst_state(self.breakers, now)
        if state is not None:
            provider.breaker_state = breaker_views.STATES[state]
        if figures.last_success_time is not None:
            provider.last_success_time.CopyFrom(Timestamp(seconds=int(figures.last_success_time)))
        return provider


def duration(seconds: float) -> Duration:
    """A message for a span of time."""
    nanos = round(seconds * 1e9)
    return Duration(seconds=nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)


def _duration(seconds: float | None) -> Duration | None:
    return None if seconds is None else duration(seconds)


class Roster:
    """All providers. Whoever changes what a watcher must learn at once, models or health, calls `touch`."""

    def __init__(self, providers: Iterable[Provider], now: Callable[[], float] = time.monotonic) -> None:
        self._providers = {provider.name: provider for provider in providers}
        # Monotonic seconds.
        self.now = now
        self._change = asyncio.Event()

    def __iter__(self) -> Iterator[Provider]:
        return iter(self._providers.values())

    def find(self, name: str) -> Provider | None:
        provider = self._providers.get(name)
        return provider if provider is not None and provider.is_present else None

    def describe(self) -> list[pb.Provider]:
        now = self.now()
        return [provider.describe(now) for provider in self._providers.values() if provider.is_present]

    @property
    def change(self) -> asyncio.Event:
        """Set at the next change. Take it before `describe`, and no change is missed."""
        return self._change

    def touch(self) -> None:
        self._change.set()
        self._change = asyncio.Event()
