"""A simulated fleet: providers with room for so many calls at a time, and routers that choose by the code that routers run.

Time and randomness are the simulation's. Dispatch is one; each router has its own picture of it, a quarter of a second old at most.
"""

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random

from joulegate.chat.v1 import chat_pb2
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch.demo import DemoBackend
from services.dispatch.feed import Feed
from services.dispatch.roster import Provider, Roster
from services.router.catalogue import Candidate, Catalogue
from services.router.complexity import Scorer
from services.router.families import Declared, Families
from services.router.forecast import Forecast
from services.router.learning import Explorer, Posteriors
from services.router.load import Load, Place
from services.router.output_lengths import OutputLengths
from services.router.policy import RoutingPolicy
from services.router.ranking import Ranking
from services.router.rates import Rate
from services.router.selection import Selection
from services.router.slate import Asked, Slates
from services.runtime.clock import SystemClock
from services.runtime.identity import ANONYMOUS

SPACING_S = 0.25
USUAL_S = 0.2
MODEL = "m"
# How a router picks, given what is known; None: as the router itself does.
Pick = Callable[[Sequence[Candidate]], Candidate]


@dataclass(frozen=True, slots=True)
class Site:
    """A provider: what a request costs there, and how many it answers at a time."""

    name: str
    rate: Callable[[float], Rate]
    slots: int = 1_000_000
    # How many times slower than usual it is, at a time.
    slowness: Callable[[float], float] = lambda now: 1.0
    tier: int = 3


@dataclass(frozen=True, slots=True)
class Request:
    """Where it went, when it came, and how long it took."""

    site: str
    came: float
    took: float


@dataclass
class _Queue:
    busy: int = 0
    waiting: list[Callable[[], None]] = field(default_factory=list)


@dataclass
class Fleet:
    """Requests come at random and take a time with a tail."""

    sites: Sequence[Site]
    policy: RoutingPolicy
    per_second: float
    routers: int = 6
    seed: int = 20261121
    pick: Pick | None = None
    now: float = 0.0
    done: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self._by_name = {site.name: site for site in self.sites}
        providers = [Provider(site.name, "openai", DemoBackend(SystemClock()), [pb.Model(id=MODEL)]) for site in self.sites]
        self._roster = Roster(providers, lambda: self.now)
        self._providers = {provider.name: provider for provider in providers}
        self._queues = {site.name: _Queue() for site in self.sites}
        self._loads = [Load() for _ in range(self.routers)]
        self._catalogues = [Catalogue(self._roster.describe(), load) for load in self._loads]
        self._routers = [self._router() for _ in range(self.routers)]
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers: Iterator[int] = count()

    @property
    def known(self) -> Mapping[tuple[str, str], Rate]:
        return {(site.name, MODEL): site.rate(self.now) for site in self.sites}

    def of(self, provider: str, model: str) -> Rate:
        """What a call costs there now."""
        return self._by_name[provider].rate(self.now)

    def run(self, seconds: float) -> None:
        for load in self._loads:
            # Watches begin at different times.
            self._at(self.random.random() * SPACING_S, self._watch(load))
        self._at(0.0, self._arrive)
        while self._agenda:
            self.now, _, happens = heapq.heappop(self._agenda)
            if self.now > seconds:
                return
            happens()

    def between(self, since: float, until: float) -> list[Request]:
        return [request for request in self.done if since <= request.came < until]

    def quantile_s(self, share: float, since: float, until: float) -> float:
        took = sorted(request.took for request in self.between(since, until))
        return took[int(share * len(took))]

    def shares(self, since: float, until: float) -> Mapping[str, float]:
        """Which part of the requests each site got."""
        went = [request.site for request in self.between(since, until)]
        return {site.name: went.count(site.name) / len(went) for site in self.sites}

    def _router(self) -> Selection:
        declared = {(site.name, MODEL): Declared(site.tier) for site in self.sites}
        ranking = Ranking(lambda: self.now, self.random.random)
        slates = Slates(self.policy, Families(declared), self)
        return Selection(
            slates, ranking, Forecast(self, OutputLengths()), Scorer.load(), Explorer(Posteriors(), self.random), lambda: self.now
        )

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

    def _chosen(self) -> Candidate:
        number = self.random.randrange(self.routers)
        if self.pick is not None:
            return self.pick(self._catalogues[number].candidates(MODEL))
        message = chat_pb2.Message(role=chat_pb2.ROLE_USER, text=str(self.random.random()))
        asked = Asked(chat_pb2.ChatRequest(model=MODEL, stream=True, messages=[message]), MODEL, ANONYMOUS)
        router = self._routers[number]
        return router.choose(router.gather(self._catalogues[number], asked)).ranked[0]

    def _arrive(self) -> None:
        self._at(self.now + self.random.expovariate(self.per_second), self._arrive)
        chosen = self._chosen()
        site, came = self._by_name[chosen.provider.name], self.now
        queue, figures = self._queues[site.name], self._providers[site.name].figures.of(MODEL)
        place = Place([chosen])
        figures.began()
        needs = USUAL_S * self.random.lognormvariate(0.0, 0.35)

        def begin() -> None:
            queue.busy += 1
            self._at(self.now + needs * site.slowness(self.now), end)

        def end() -> None:
            took = self.now - came
            figures.saw_first_event(self.now, took, is_whole=False)
            figures.succeeded(self.now, self.now)
            figures.ended()
            place.leave()
            self.done.append(Request(site.name, came, took))
            queue.busy -= 1
            if queue.waiting and queue.busy < site.slots:
                queue.waiting.pop(0)()

        if queue.busy < site.slots:
            begin()
        else:
            queue.waiting.append(begin)
