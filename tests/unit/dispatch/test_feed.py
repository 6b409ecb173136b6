"""What a watcher is told and when, with time as an argument."""

import pytest

from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from joulegate.ops.v1 import breaker_pb2
from services.dispatch.breaker import BreakerPolicy, Breakers
from services.dispatch.demo import DemoBackend
from services.dispatch.feed import Feed
from services.dispatch.limits import Limiter, ProviderLimits
from services.dispatch.roster import Provider, Roster
from tests.unit.dispatch.hands import Hands

HEARTBEAT_S = 10.0


class Watched:
    """A provider `lab` with one model, and one watcher that has had its first picture."""

    def __init__(self, limits: ProviderLimits | None = None) -> None:
        self.clock = Hands()
        policy = BreakerPolicy(failures=1, open_s=30)
        self.lab = Provider(
            "lab",
            "openai",
            DemoBackend(self.clock),
            [pb.Model(id="m")],
            breakers=Breakers(policy),
            limiter=Limiter(limits or ProviderLimits()),
        )
        self.figures = self.lab.figures.of("m")
        self.feed = Feed(Roster([self.lab], self.clock.monotonic), HEARTBEAT_S)
        self.first = self.news()

    def news(self, after_s: float = 0.0) -> pb.WatchProvidersResponse | None:
        self.clock.time += after_s
        return self.feed.next(self.clock.time)

    def told(self, after_s: float = 0.0) -> pb.ModelFigures:
        """The figures of the next message, which has nothing else."""
        news = self.news(after_s)
        assert news is not None
        assert (news.figures_only, list(news.providers)) == (True, [])
        [figures] = news.figures
        return figures


def test_the_first_message_is_the_whole_picture_and_then_there_is_silence() -> None:
    watched = Watched()
    assert watched.first is not None
    assert [provider.name for provider in watched.first.providers] == ["lab"]
    assert not watched.first.figures_only
    assert watched.news(after_s=HEARTBEAT_S - 0.1) is None
    beat = watched.news(after_s=0.1)
    assert beat is not None
    assert len(beat.providers) == len(beat.figures) == 1


def test_figures_travel_without_the_lists_of_models() -> None:
    watched = Watched()
    watched.figures.began()
    assert watched.told().in_flight_count == 1
    watched.figures.saw_first_event(watched.clock.time, 2.0, is_whole=False)
    watched.figures.streamed_tokens(11, 0.5)
    told = watched.told()
    assert (told.provider, told.model, told.success_odds) == ("lab", "m", 20)
    assert told.time_to_first_event.ToMilliseconds() == told.peak_time_to_first_event.ToMilliseconds() == 2000
    assert told.time_between_tokens.ToMilliseconds() == 50
    assert not (told.HasField("time_to_answer") or told.HasField("peak_time_to_answer") or told.HasField("retry_after"))
    assert watched.news() is None


def test_a_peak_is_told_as_of_its_sending() -> None:
    watched = Watched()
    watched.figures.saw_first_event(watched.clock.time, 2.0, is_whole=True)
    assert watched.told(after_s=5).peak_time_to_answer.ToMilliseconds() == pytest.approx(2000 * 0.6065, abs=2)


def test_a_breaker_is_told_when_it_opens_and_when_time_half_opens_it() -> None:
    watched = Watched()
    breaker = watched.lab.breakers.of("m")
    breaker.failed(watched.clock.time, breaker.begin(watched.clock.time))
    opened = watched.news()
    assert opened is not None
    assert opened.providers[0].breaker_state == opened.figures[0].breaker_state == breaker_pb2.BREAKER_STATE_OPEN
    assert opened.figures[0].retry_after.seconds == 30
    assert watched.news(after_s=9) is None
    half_open = watched.news(after_s=21)
    assert half_open is not None
    assert half_open.figures[0].breaker_state == breaker_pb2.BREAKER_STATE_HALF_OPEN
    assert not half_open.figures[0].HasField("retry_after")


def test_a_second_breaker_of_a_provider_is_told_by_its_figures() -> None:
    watched = Watched()
    for model in ("m", "other"):
        watched.lab.figures.of(model)
        breaker = watched.lab.breakers.of(model)
        breaker.failed(watched.clock.time, breaker.begin(watched.clock.time))
        if model == "m":
            watched.news()
        watched.clock.time += 1
    assert (watched.told().model, watched.news()) == ("other", None)
    # The first is half-open by time, while the provider's worst is still open.
    watched.feed.next(watched.clock.time + 20)
    half_open = watched.told(after_s=28.5)
    assert (half_open.model, half_open.breaker_state) == ("m", breaker_pb2.BREAKER_STATE_HALF_OPEN)


def test_a_limit_that_is_used_up_is_told() -> None:
    watched = Watched(ProviderLimits(requests_per_minute=1))
    watched.figures.began()
    watched.lab.limiter.take(watched.clock.time)
    assert watched.told(after_s=5).retry_after.seconds == 55


def test_a_change_of_models_or_health_is_the_whole_picture() -> None:
    watched = Watched()
    watched.lab.models = [pb.Model(id="m")]
    assert watched.news() is None, "an equal list is no change"
    watched.lab.models = [pb.Model(id="m"), pb.Model(id="n")]
    news = watched.news()
    assert news is not None
    assert len(news.providers[0].models) == 2
    watched.lab.is_present = False
    gone = watched.news()
    assert gone is not None
    assert not gone.providers
    assert not gone.figures_only
