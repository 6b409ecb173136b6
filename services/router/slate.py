"""Who can serve a request, and may: real models and virtual ones, less what is excluded and what is known to be unable."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from joulegate.chat.v1 import chat_pb2
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.dispatch.v1 import dispatch_service_pb2 as dispatch_pb
from services.router.catalogue import Candidate, Catalogue, ListedModel
from services.router.complexity import Complexity
from services.router.decision import Rejected
from services.router.demand import Demand
from services.router.families import Families, Traits
from services.router.forecast import RateSource
from services.router.policy import RoutingPolicy, VirtualModel
from services.router.prospect import UNBOUND, Constraints
from services.router.rates import Rate
from services.router.wishes import NO_WISHES, Wishes
from services.runtime.errors import GatewayError
from services.runtime.identity import Caller

DEMO: Final = "demo"
OWNER: Final = "joulegate"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be routed, for whom, and how."""

    request: chat_pb2.ChatRequest
    # As the caller named it.
    model: str
    caller: Caller
    wishes: Wishes = NO_WISHES
    wants_figures: bool = False
    # Where they are known already.
    demand: Demand | None = None
    complexity: Complexity | None = None
    # Whether another one of those near the best may answer, to learn about it.
    may_explore: bool = False

    def new_demand(self) -> Demand:
        """What is asked of whoever answers."""
        return self.demand or Demand(self.request, self.wishes.required)


@dataclass(frozen=True, slots=True)
class Slate:
    """The candidates of a request, in the configured order, and the policy that they were found by."""

    asked: Asked
    policy: RoutingPolicy
    candidates: Sequence[Candidate]
    virtual: VirtualModel | None = None
    rejected: tuple[Rejected, ...] = ()
    # The policy's, the virtual model's and the request's, all of which hold.
    constraints: Constraints = UNBOUND
    # None where there is nothing to choose and nothing to tell.
    demand: Demand | None = None


@dataclass(slots=True)
class _Pool:
    """What a virtual model stands for."""

    candidates: list[Candidate]
    # The shortest of their contexts, in tokens, by the rates that it was looked up in; 0: none is known.
    least_context: int = 0
    rates: Mapping[tuple[str, str], Rate] | None = None


@dataclass(slots=True)
class _Pools:
    """What virtual models stand for, as long as the picture and the policy are the same."""

    catalogue: Catalogue
    policy: RoutingPolicy
    by_name: dict[str, _Pool] = field(default_factory=dict)


class Slates:
    """Finds candidates by the policy of the moment. A slate that was gathered keeps the one that it was gathered by."""

    def __init__(self, policy: RoutingPolicy, families: Families, rates: RateSource) -> None:
        self.policy = policy
        self._families = families
        self._rates = rates
        self._pools = _Pools(Catalogue(), policy)

    def gather(self, catalogue: Catalogue, asked: Asked) -> Slate:
        """Raises GatewayError when nobody can serve the model, or none of them may be asked."""
        policy, wishes = self.policy, asked.wishes
        virtual = self.virtual_model(catalogue, asked.model)
        usable = self._usable(catalogue, asked, virtual)
        left, rejected = _less(usable, self._is_barred(wishes.excluded | policy.exclude_providers, wishes.zones))
        if not left:
            raise nobody_left(asked.model, "every provider that serves it is excluded, or not known to be in the zones asked for")
        constraints = policy.constraints.within(wishes.constraints)
        if virtual is not None:
            constraints = constraints.within(virtual.constraints)
        is_only = len(left) == 1 and virtual is None
        if is_only and not wishes.required and not asked.wants_figures and not constraints.are_set:
            return Slate(asked, policy, left, virtual, rejected, constraints)
        demand = asked.new_demand()
        suits_all = virtual is not None and self._suits_all(self._pool(catalogue, virtual), demand)
        able, unable = _less(left, None if suits_all else self._is_unable(demand))
        if not able:
            if virtual is not None or wishes.required:
                why = f"of those that serve it, none has what the request needs ({unable[-1].reason})"
                raise nobody_left(asked.model, why)
            # Of a model that was named, its provider knows best, and is asked.
            able, unable = left, ()
        return Slate(asked, policy, able, virtual, (*rejected, *unable), constraints, demand)

    def virtual_model(self, catalogue: Catalogue, name: str) -> VirtualModel | None:
        """The virtual model of that name; a real one wins."""
        virtual = self.policy.virtual_models.get(name)
        return None if virtual is None or catalogue.serves(name) else virtual

    def may_have(self, asked: Asked, provider: str, model: str) -> bool:
        """Whether an answer of that model will do, for this caller and for what was asked."""
        if provider in asked.wishes.excluded or provider in self.policy.exclude_providers:
            return False
        return asked.caller.may_use(provider, model) or (
            asked.model in self.policy.virtual_models and asked.caller.may_use("", asked.model)
        )

    def listed(self, catalogue: Catalogue, caller: Caller) -> list[ListedModel]:
        """The virtual models that stand for something this caller may use, with the providers of what they stand for."""
        return [found for name in self.policy.virtual_models if (found := self.listed_as(catalogue, name, caller)) is not None]

    def listed_as(self, catalogue: Catalogue, name: str, caller: Caller) -> ListedModel | None:
        """A virtual model by its name; None when there is none for this caller."""
        virtual = self.virtual_model(catalogue, name)
        pool = [] if virtual is None else _permitted(self._pool(catalogue, virtual).candidates, caller, name)
        if not pool:
            return None
        return ListedModel(dispatch_pb.Model(id=name, owned_by=OWNER), list(dict.fromkeys(candidate.provider.name for candidate in pool)))

    def traits(self, candidates: Sequence[Candidate]) -> list[Traits]:
        """What is known of the candidates' models."""
        traits_of = self._families.traits
        return [traits_of(candidate.target) for candidate in candidates]

    def _usable(self, catalogue: Catalogue, asked: Asked, virtual: VirtualModel | None) -> list[Candidate]:
        candidates = catalogue.candidates(asked.model) if virtual is None else self._pool(catalogue, virtual).candidates
        if not candidates:
            raise model_not_found(asked.model)
        usable = _permitted(candidates, asked.caller, asked.model if virtual is not None else None)
        if not usable:
            # As OpenAI says it of a project that lacks a model.
            raise GatewayError(
                ErrorReason.ERROR_REASON_PERMISSION_DENIED,
                f"This API key does not have access to model '{asked.model}'.",
                {"type": "invalid_request_error", "code": "model_not_found", "model": asked.model[:200], "param": "model"},
            )
        return usable

    def _pool(self, catalogue: Catalogue, virtual: VirtualModel) -> _Pool:
        pools = self._pools
        if pools.catalogue is not catalogue or pools.policy is not self.policy:
            pools = self._pools = _Pools(catalogue, self.policy)
        pool = pools.by_name.get(virtual.name)
        if pool is None:
            meant = [candidate for candidate in catalogue.everything() if self._is_meant(virtual, candidate)]
            # The demonstration is no answer where there are models.
            pool = _Pool([candidate for candidate in meant if candidate.provider.kind != DEMO] or meant)
            pools.by_name[virtual.name] = pool
        return pool

    def _suits_all(self, pool: _Pool, demand: Demand) -> bool:
        """Whether there is no need to ask each one: the request wants nothing special, and fits into the shortest context."""
        if demand.needs:
            return False
        rates = self._rates.known
        if pool.rates is not rates:
            pool.rates = rates
            pool.least_context = min(filter(None, map(self._context_tokens, pool.candidates)), default=0)
        return not pool.least_context or not demand.exceeds(pool.least_context)

    def _context_tokens(self, candidate: Candidate) -> int:
        """0: not known."""
        context = self._families.traits(candidate.target).context_tokens
        rate = None if context else self._rates.of(*candidate.target)
        return context if rate is None else rate.context_tokens

    def _is_meant(self, virtual: VirtualModel, candidate: Candidate) -> bool:
        traits = self._families.traits(candidate.target)
        if not traits.is_chat or not virtual.covers(*candidate.target):
            return False
        return traits.tier == 0 or virtual.min_tier <= traits.tier <= virtual.max_tier

    def _is_barred(self, excluded: frozenset[str], zones: frozenset[str]) -> Callable[[Candidate], str] | None:
        """Tells who may not be asked at all; None when everybody may."""
        if not excluded and not zones:
            return None

        def why_not(candidate: Candidate) -> str:
            if candidate.provider.name in excluded:
                return "excluded"
            # A place that is not known is no place in particular: where data may not leave a zone, that is a reason against it.
            rate = self._rates.of(*candidate.target) if zones else None
            return "zone" if zones and (rate is None or rate.zone.upper() not in zones) else ""

        return why_not

    def _is_unable(self, demand: Demand) -> Callable[[Candidate], str]:
        """Tells why a candidate is known not to be able to do what is asked; empty when it is not known."""
        needs = demand.needs

        def why_not(candidate: Candidate) -> str:
            if needs:
                traits, said = self._families.traits(candidate.target), candidate.provider.capabilities
                # A provider that tells no capabilities may have any.
                lacking = next((need for need in needs if need in traits.lacks or (said and need not in said)), None)
                if lacking is not None:
                    return f"lacks:{lacking}"
            context = self._context_tokens(candidate)
            return "context" if context and demand.exceeds(context) else ""

        return why_not


def _permitted(candidates: list[Candidate], caller: Caller, virtual_name: str | None) -> list[Candidate]:
    """Those that the caller may use: all, if it may use the virtual model that stands for them."""
    if caller.models is None or (virtual_name is not None and caller.may_use("", virtual_name)):
        return candidates
    return [candidate for candidate in candidates if caller.may_use(*candidate.target)]


def _less(candidates: Sequence[Candidate], why_not: Callable[[Candidate], str] | None) -> tuple[Sequence[Candidate], tuple[Rejected, ...]]:
    """Those for whom there is no reason against them, and the others."""
    reasons = [] if why_not is None else list(map(why_not, candidates))
    if not any(reasons):
        return candidates, ()
    rejected = [Rejected(candidate, reason) for candidate, reason in zip(candidates, reasons, strict=True) if reason]
    return [candidate for candidate, reason in zip(candidates, reasons, strict=True) if not reason], tuple(rejected)


def model_not_found(model: str) -> GatewayError:
    """The error for a model that no enabled provider serves."""
    message = f"The model '{model}' does not exist: no enabled provider serves it."
    return GatewayError(ErrorReason.ERROR_REASON_MODEL_NOT_FOUND, message, {"model": model[:200], "param": "model"})


def nobody_left(model: str, why: str) -> GatewayError:
    """The error for a request whose own conditions leave nobody who could answer it."""
    message = f"Nobody is left to ask for '{model[:200]}': {why}."
    return GatewayError(ErrorReason.ERROR_REASON_INVALID_REQUEST, message, {"model": model[:200], "param": "routing"})
