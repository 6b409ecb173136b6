"""One of four providers becomes eight times slower: simulated with the code that keeps figures in dispatch and that ranks in routers.

Time and randomness are the simulation's. Each router has its own picture, a quarter of a second old at most, as the watch sends it.
"""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from random import Random

import pytest

from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch.demo import DemoBackend
from services.dispatch.feed import Feed
from services.dispatch.roster import Provider, Roster
from services.router.catalogue import Catalogue
from services.router.load import Load, Place
from services.router.ranking import Ranking
from services.router.strategies import Strategy
from services.runtime.clock import SystemClock

SEED = 20261121
NAMES = ("a", "b", "c", "d")
ROUTERS = 3
RATE_PER_S = 120.0
STEADY_S = 30.0
SLOW_FROM_S = 40.0
SLOW_UNTIL_S = 75.0
END_S = 110.0
SLOWDOWN = 8.0
RECOVERY_S = 5.0
SPACING_S = 0.25


@dataclass
class Request:
    """Where it went, when it came, and how long it took."""

    provider: str
    came: float
    took: float


@dataclass
class Simulation:
    """Requests come at random and take a time with a tail; `a` slows down at a moment, for calls that begin after it."""

    strategy: Strategy
    random: Random = field(default_factory=lambda: Random(SEED))
    now: float = 0.0
    done: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        providers = [Provider(name, "demo", DemoBackend(SystemClock()), [pb.Model(id="m")]) for name in NAMES]
        self._roster = Roster(providers, lambda: self.now)
        self._providers = {provider.name: provider for provider in providers}
        self._loads = [Load() for _ in range(ROUTERS)]
        self._ranking = Ranking(lambda: self.now, self.random.random)
        self._catalogues = [Catalogue(self._roster.describe(), load) for load in self._loads]
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers: Iterator[int] = count()

    def run(self) -> None:
        for load in self._loads:
            # Watches begin at different times.
            self._at(self.random.random() * SPACING_S, self._watch(load))
        self._at(0.0, self._arrive)
        while self._agenda:
            self.now, _, happens = heapq.heappop(self._agenda)
            if self.now > END_S:
                return
            happens()

    def p99_s(self, since: float, until: float) -> float:
        took = sorted(request.took for request in self.done if since <= request.came < until)
        return took[int(0.99 * len(took))]

    def shares(self, since: float, until: float) -> dict[str, float]:
        """Which part of the requests each provider got."""
        went = [request.provider for request in self.done if since <= request.came < until]
        return {name: went.count(name) / len(went) for name in NAMES}

    def _at(self, when: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (when, next(self._numbers), happens))

    def _watch(self, load: Load) -> Callable[[], None]:
        feed = Feed(self._roster, heartbeat_s=10.0)

        def tell() -> None:
            news = feed.next(self.now)
            if news is not None:
                load.tell(news.figures, self.now, is_whole=not news.figures_only)
            self._at(self.now + SPACING_S, tell)

        return tell

    def _arrive(self) -> None:
        self._at(self.now + self.random.expovariate(RATE_PER_S), self._arrive)
        router = self.random.randrange(ROUTERS)
        ranked = self._ranking.rank(self._catalogues[router].candidates("m"), self.strategy, streamed=True)
        name = ranked[0].provider.name
        figures = self._providers[name].figures.of("m")
        took = 0.2 * self.random.lognormvariate(0.0, 0.35)
        if name == "a" and SLOW_FROM_S <= self.now < SLOW_UNTIL_S:
            took *= SLOWDOWN
        request, place = Request(name, self.now, took), Place(ranked)
        figures.began()

        def end() -> None:
            figures.saw_first_event(self.now, took, is_whole=False)
            figures.succeeded(self.now, self.now)
            figures.ended()
            place.leave()
            self.done.append(request)

        self._at(self.now + took, end)


@pytest.fixture(scope="module")
def by_latency() -> Simulation:
    simulation = Simulation(Strategy.LATENCY)
    simulation.run()
    return simulation


def test_p99_is_back_within_five_seconds_and_stays(by_latency: Simulation) -> None:
    steady_s = by_latency.p99_s(SLOW_FROM_S - STEADY_S, SLOW_FROM_S)
    for since in (SLOW_FROM_S + RECOVERY_S, SLOW_FROM_S + 3 * RECOVERY_S, SLOW_FROM_S + 5 * RECOVERY_S):
        assert by_latency.p99_s(since, since + 10.0) < 2.5 * steady_s


def test_the_slow_one_is_asked_now_and_then_and_has_its_share_again_when_it_is_well(by_latency: Simulation) -> None:
    for share in by_latency.shares(0.0, SLOW_FROM_S).values():
        assert 0.2 < share < 0.3
    assert 0.0 < by_latency.shares(SLOW_FROM_S + RECOVERY_S, SLOW_UNTIL_S)["a"] < 0.01
    assert by_latency.shares(SLOW_UNTIL_S + 25.0, END_S)["a"] > 0.15


def test_without_the_figures_it_stays_slow() -> None:
    simulation = Simulation(Strategy.FALLBACK)
    simulation.run()
    steady_s = simulation.p99_s(SLOW_FROM_S - STEADY_S, SLOW_FROM_S)
    since = SLOW_FROM_S + RECOVERY_S
    assert simulation.p99_s(since, since + 10.0) > 5 * steady_s
