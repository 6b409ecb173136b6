"""What a watcher of the providers is told next: the whole picture when that has changed, else the figures that have."""

from collections.abc import Iterator
from typing import Any

from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch import breaker_views
from services.dispatch.breaker import State
from services.dispatch.figures import Latency, ModelFigures
from services.dispatch.roster import Provider, Roster, duration


class Feed:
    """One watcher's. It costs little to ask when nothing has happened; lists of models are long, and go out only when they must."""

    def __init__(self, roster: Roster, heartbeat_s: float) -> None:
        self._roster = roster
        self._heartbeat_s = heartbeat_s
        self._picture: list[Any] | None = None
        self._whole_at = 0.0
        # What was told of each model: the version of its figures, and the state of its breaker.
        self._told: dict[tuple[str, str], tuple[int, State]] = {}

    def next(self, now: float) -> pb.WatchProvidersResponse | None:
        """The next message, at `now` in monotonic seconds; None when there is no news."""
        picture = [_picture(provider, now) for provider in self._roster if provider.is_present]
        if picture != self._picture or now >= self._whole_at + self._heartbeat_s:
            self._picture, self._whole_at = picture, now
            self._told.clear()
            return pb.WatchProvidersResponse(providers=self._roster.describe(), figures=self._news(now))
        figures = list(self._news(now))
        return pb.WatchProvidersResponse(figures=figures, figures_only=True) if figures else None

    def _news(self, now: float) -> Iterator[pb.ModelFigures]:
        for provider in self._roster:
            for model, figures in provider.figures.models():
                breaker = provider.breakers.find(model)
                state = State.CLOSED if breaker is None else breaker.state(now)
                known = (figures.version, state)
                if self._told.get((provider.name, model)) != known:
                    self._told[provider.name, model] = known
                    yield describe(provider, model, figures, now)


def describe(provider: Provider, model: str, figures: ModelFigures, now: float) -> pb.ModelFigures:
    """A model's figures as they are at `now`."""
    breaker = provider.breakers.find(model)
    state = State.CLOSED if breaker is None else breaker.state(now)
    wait_s = provider.limiter.wait_s(now, model=model)
    if breaker is not None and state is State.OPEN and breaker.retry_at is not None:
        wait_s = max(wait_s, breaker.retry_at - now)
    message = pb.ModelFigures(
        provider=provider.name,
        model=model,
        in_flight_count=figures.in_flight_count,
        success_odds=figures.success_odds(now),
        breaker_state=breaker_views.STATES[state],
    )
    if figures.between_tokens_s is not None:
        message.time_between_tokens.CopyFrom(duration(figures.between_tokens_s))
    _time(figures.streamed, now, message.time_to_first_event, message.peak_time_to_first_event, message.time_to_first_event_p95)
    _time(figures.whole, now, message.time_to_answer, message.peak_time_to_answer, message.time_to_answer_p95)
    if wait_s > 0:
        message.retry_after.CopyFrom(duration(wait_s))
    return message


def _time(latency: Latency, now: float, average: Any, peak: Any, p95: Any) -> None:
    """Fills the messages in; without a value they stay unset."""
    for message, seconds in ((average, latency.average_s), (peak, latency.peak_s(now)), (p95, latency.p95_s())):
        if seconds is not None:
            message.CopyFrom(duration(seconds))


def _picture(provider: Provider, now: float) -> tuple[Any, ...]:
    """What a change of must be told at once. Lists of models are equal at once while they are the same."""
    state = breaker_views.worst_state(provider.breakers, now)
    return (provider.name, provider.models, provider.accepts_unlisted_models, provider.figures.is_healthy, state)
