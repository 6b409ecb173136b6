"""Pictures of providers for tests that choose among them: names, figures and rates in one line each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from google.protobuf.duration_pb2 import Duration

from joulegate.chat.v1 import chat_pb2, receipt_pb2
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.router.catalogue import Catalogue
from services.router.complexity import Scorer
from services.router.decision import Decision
from services.router.families import Declared, Families
from services.router.forecast import Forecast
from services.router.learning import Explorer, Posteriors
from services.router.load import Load
from services.router.output_lengths import OutputLengths
from services.router.policy import RoutingPolicy
from services.router.prospect import Column, Figure, Prospect
from services.router.ranking import Ranking
from services.router.rates import Rate
from services.router.selection import Selection
from services.router.slate import Asked, Slates
from services.router.wishes import NO_WISHES, Wishes
from services.runtime.identity import ANONYMOUS, Caller

NOW = 1000.0


@dataclass(frozen=True, slots=True)
class Served:
    """A model at a provider; None: not known."""

    provider: str
    model: str
    # US dollars per million tokens, in and out alike.
    usd: float | None = None
    joules_per_token: float | None = None
    grams_per_kwh: float = 400.0
    tier: int = 0
    seconds: float | None = None
    in_flight: int = 0
    context_tokens: int = 0
    capabilities: Sequence[str] = ()
    kind: str = "openai"
    zone: str = "WOR"
    healthy: bool = True


class Known(list[Prospect]):
    """Prospects that are known already."""

    def figures(self, name: Figure) -> Column:
        return [getattr(prospect, name) for prospect in self]


@dataclass
class Scene:
    """A router's choosing over what is served."""

    served: Sequence[Served]
    policy: RoutingPolicy = field(default_factory=RoutingPolicy)
    now: float = NOW
    # A router that has just started does not know them yet.
    knows_rates: bool = True

    def __post_init__(self) -> None:
        self.lengths = OutputLengths()
        self.load = Load()
        self.load.tell(figures_of(self.served), NOW, is_whole=True)
        self.catalogue = Catalogue(providers_of(self.served), self.load)
        rates = _Rates({(one.provider, one.model): rate(one) for one in self.served} if self.knows_rates else {})
        declared = {(one.provider, one.model): Declared(one.tier) for one in self.served if one.tier}
        ranking = Ranking(lambda: self.now, Random(7).random)
        slates = Slates(self.policy, Families(declared), rates)
        self.posteriors = Posteriors()
        learner = Explorer(self.posteriors, Random(11))
        self.selection = Selection(slates, ranking, Forecast(rates, self.lengths), Scorer.load(), learner, lambda: self.now)

    def decide(
        self, model: str, wishes: Wishes = NO_WISHES, caller: Caller = ANONYMOUS, wants_figures: bool = False, **members: Any
    ) -> Decision:
        messages = members.pop("messages", [chat_pb2.Message(role=chat_pb2.ROLE_USER, text="How much is a joule?")])
        request = chat_pb2.ChatRequest(model=model, messages=messages, **members)
        asked = Asked(request, model, caller, wishes, wants_figures, may_explore=wishes.may_explore)
        return self.selection.choose(self.selection.gather(self.catalogue, asked))

    def first(self, model: str, wishes: Wishes = NO_WISHES, **members: Any) -> str:
        """`provider/model` of the one that is tried first."""
        return "/".join(self.decide(model, wishes, **members).ranked[0].target)

    def order(self, model: str, wishes: Wishes = NO_WISHES, **members: Any) -> list[str]:
        """The providers, in the order in which they are tried."""
        return [candidate.provider.name for candidate in self.decide(model, wishes, **members).tried]


@dataclass(frozen=True, slots=True)
class _Rates:
    known: Mapping[tuple[str, str], Rate]

    def of(self, provider: str, model: str) -> Rate | None:
        return self.known.get((provider, model))


def rate(served: Served) -> Rate:
    nano = (served.usd or 0.0) * 1000
    joules = served.joules_per_token or 0.0
    return Rate(
        request_nano_usd=0,
        input_nano_usd=nano,
        cached_input_nano_usd=nano / 10,
        output_nano_usd=nano,
        cost_basis=receipt_pb2.COST_BASIS_UNKNOWN if served.usd is None else receipt_pb2.COST_BASIS_LIST,
        request_joules=(0, 0),
        input_joules=(joules, joules),
        output_joules=(joules, joules),
        energy_basis=receipt_pb2.ENERGY_BASIS_DEFAULT if served.joules_per_token is None else receipt_pb2.ENERGY_BASIS_BENCHMARK,
        grams_per_kwh=served.grams_per_kwh,
        zone=served.zone,
        context_tokens=served.context_tokens,
    )


def providers_of(served: Iterable[Served]) -> list[pb.Provider]:
    providers: dict[str, pb.Provider] = {}
    for one in served:
        provider = providers.setdefault(
            one.provider, pb.Provider(name=one.provider, kind=one.kind, healthy=one.healthy, capabilities=one.capabilities)
        )
        provider.models.add(id=one.model)
    return list(providers.values())


def figures_of(served: Iterable[Served]) -> list[pb.ModelFigures]:
    figures = []
    for one in served:
        if one.seconds is None and not one.in_flight:
            continue
        told = pb.ModelFigures(provider=one.provider, model=one.model, in_flight_count=one.in_flight, success_odds=20)
        if one.seconds is not None:
            for message in (told.time_to_first_event, told.peak_time_to_first_event, told.time_to_first_event_p95):
                message.CopyFrom(_duration(one.seconds))
            for message in (told.time_to_answer, told.peak_time_to_answer, told.time_to_answer_p95):
                message.CopyFrom(_duration(one.seconds))
        figures.append(told)
    return figures


def _duration(seconds: float) -> Duration:
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
