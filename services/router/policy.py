"""What an operator decides about routing, as one value: it is read whole, with all its mistakes told at once, and swapped whole.

The document is what joulegate.toml holds under `[routing]`, and under `virtual_models` what it holds at `[virtual_models]`; as JSON it has
the same shape.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from services.router.learning import Learning
from services.router.prospect import RELAXATION, UNBOUND, Constraints, Floors
from services.router.strategies import PRESETS, STRATEGIES, Criterion, Strategy, Weights, named
from services.runtime.identity import ModelScope
from services.runtime.settings import SettingsError
from services.runtime.table import Table

MAX_WEIGHT: Final = 1000.0
TIERS: Final = range(1, 6)
# How many per cent of the best score count as nothing. As a logarithm.
NEAR_BEST: Final = 0.05
ROUTING_KEYS: Final = frozenset(
    {
        "constraints",
        "exclude_providers",
        "floors",
        "learning",
        "near_best",
        "prefer_providers",
        "provider_weights",
        "relax",
        "strategy",
        "virtual_models",
        "weights",
    }
)
VIRTUAL_KEYS: Final = frozenset({"constraints", "learning", "max_tier", "min_tier", "models", "exclude_models", "strategy", "weights"})
CONSTRAINT_KEYS: Final = frozenset({"max_latency_ms", "max_cost_usd", "max_carbon_g", "min_quality", "min_quality_of_best"})


@dataclass(frozen=True, slots=True)
class VirtualModel:
    """A name that stands for whichever real model suits a request best."""

    name: str
    strategy: Strategy = Strategy.BALANCED
    # None: those of the strategy.
    weights: Weights | None = None
    constraints: Constraints = UNBOUND
    # Patterns as in a key's allowed models; None: all.
    models: ModelScope | None = None
    excluded: ModelScope | None = None
    min_tier: int = TIERS[0]
    max_tier: int = TIERS[-1]
    # None: as the policy has it.
    learning: Learning | None = None

    def covers(self, provider: str, model: str) -> bool:
        """Whether it may stand for a model, as far as names go."""
        if self.excluded is not None and self.excluded.allows(provider, model):
            return False
        return self.models is None or self.models.allows(provider, model)


_OF_THE_BEST: Final = Constraints(min_quality_of_best=0.85)
VIRTUAL_MODELS: Final[Mapping[str, VirtualModel]] = {
    model.name: model
    for model in (
        VirtualModel("auto", Strategy.BALANCED, Weights(cost=0.5, energy=0.5), _OF_THE_BEST),
        VirtualModel("fast", Strategy.LATENCY, Weights(latency=1.0), min_tier=2),
        VirtualModel("cheap", Strategy.COST, Weights(cost=1.0)),
        VirtualModel("eco", Strategy.ECO, Weights(carbon=1.0), _OF_THE_BEST),
        VirtualModel("green", Strategy.ECO, Weights(carbon=1.0), _OF_THE_BEST),
        VirtualModel("quality", Strategy.QUALITY, Weights(quality=0.95, cost=0.05)),
    )
}


@dataclass(frozen=True, slots=True)
class RoutingPolicy:
    """How requests are routed that do not say otherwise, and what may be said."""

    strategy: Strategy = Strategy.FALLBACK
    # Of each strategy that weighs figures.
    weights: Mapping[Strategy, Weights] = field(default_factory=lambda: PRESETS)
    floors: Floors = field(default_factory=Floors)
    # For all requests; what a request asks for comes on top.
    constraints: Constraints = UNBOUND
    # Which bounds may be given up, the first one first.
    relaxation: tuple[Criterion, ...] = RELAXATION
    # Candidates so close to the best are as good: load decides among them.
    near_best: float = NEAR_BEST
    virtual_models: Mapping[str, VirtualModel] = field(default_factory=lambda: VIRTUAL_MODELS)
    # Shares in turns and in chances; 1 for a provider that is not named.
    provider_weights: Mapping[str, float] = field(default_factory=dict)
    prefer_providers: tuple[str, ...] = ()
    exclude_providers: frozenset[str] = frozenset()
    learning: Learning = Learning.SHADOW

    def learning_of(self, virtual: VirtualModel | None) -> Learning:
        """What is made of outcomes."""
        return self.learning if virtual is None or virtual.learning is None else virtual.learning

    def weights_of(self, strategy: Strategy, virtual: VirtualModel | None) -> Weights | None:
        """What counts how much; None for a strategy that weighs no figures."""
        if virtual is not None and virtual.strategy is strategy and virtual.weights is not None:
            return virtual.weights
        return self.weights.get(strategy)


def parse(document: Mapping[str, Any]) -> RoutingPolicy:
    """The policy in a document; what it does not say is as without one. Raises SettingsError with every problem."""
    problems: list[str] = []
    policy = _policy(Table(document, "[routing]", problems))
    policy = replace(policy, virtual_models=_virtual_models(document.get("virtual_models", {}), problems))
    if problems:
        raise SettingsError(problems)
    return policy


def configured(config: Mapping[str, Any], strategy: Strategy | None, weights: Weights | None) -> RoutingPolicy:
    """The policy of joulegate.toml under what the environment says. Raises SettingsError with every problem.

    Who sets weights and no strategy wants the one that they are for.
    """
    document = document_of(config)
    policy = parse(document)
    if weights is not None:
        policy = replace(policy, weights={**policy.weights, Strategy.ECO: weights})
        if "strategy" not in document:
            policy = replace(policy, strategy=Strategy.ECO)
    return policy if strategy is None else replace(policy, strategy=strategy)


def document_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What joulegate.toml says of routing, as one document."""
    table = config.get("routing", {})
    return {**table, "virtual_models": config.get("virtual_models", {})} if isinstance(table, Mapping) else {}


def _policy(table: Table) -> RoutingPolicy:
    table.only(ROUTING_KEYS)
    default = RoutingPolicy()
    strategy = _strategy(table, default.strategy)
    return RoutingPolicy(
        strategy=strategy,
        weights=_presets(table, strategy),
        floors=_floors(table.table("floors")),
        constraints=_constraints(table.table("constraints")),
        relaxation=_relaxation(table),
        near_best=table.number("near_best", default.near_best, 10, may_be_zero=True),
        provider_weights=_provider_weights(table.table("provider_weights")),
        prefer_providers=table.names("prefer_providers"),
        exclude_providers=frozenset(table.names("exclude_providers")),
        learning=_learning(table) or default.learning,
    )


def _strategy(table: Table, default: Strategy) -> Strategy:
    name = table.text("strategy")
    found = default if name is None else named(name)
    if found is None:
        table.problem(f"strategy must be one of {', '.join(STRATEGIES)}")
    return found or default


def _learning(table: Table) -> Learning | None:
    """None where it is not said, or, noted, not known."""
    said = table.text("learning")
    if said is None or said in set(Learning):
        return None if said is None else Learning(said)
    table.problem(f"learning must be one of {', '.join(Learning)}")
    return None


def _presets(table: Table, strategy: Strategy) -> Mapping[Strategy, Weights]:
    """`weights` holds a table for each strategy that it changes, or the weights of the policy's own strategy."""
    given = table.table("weights")
    flat = {criterion.value for criterion in Criterion}
    if given.items() and all(key in flat and not isinstance(value, Mapping) for key, value in given.items()):
        own = strategy if strategy in PRESETS else Strategy.BALANCED
        return {**PRESETS, own: _weights(given) or PRESETS[own]}
    given.only({weighed.value for weighed in PRESETS})
    return {name: (_weights(given.table(name)) if given.has(name) else None) or weights for name, weights in PRESETS.items()}


def _weights(table: Table) -> Weights | None:
    """None, noted, when they make no sense."""
    names = [known.name for known in fields(Weights)]
    table.only(names)
    given = {name: table.number(name, 0.0, MAX_WEIGHT, may_be_zero=True) for name in names if table.has(name)}
    if sum(given.values()) > 0:
        return Weights(**given)
    table.problem("at least one weight must be above 0")
    return None


def _floors(table: Table) -> Floors:
    default = Floors()
    names = [known.name for known in fields(Floors)]
    table.only(names)
    return replace(default, **{name: table.number(name, getattr(default, name), 1e6) for name in names if table.has(name)})


def _constraints(table: Table) -> Constraints:
    table.only(CONSTRAINT_KEYS)
    latency_ms = _bound(table, "max_latency_ms", 1e9)
    return Constraints(
        max_latency_s=None if latency_ms is None else latency_ms / 1000,
        max_cost_usd=_bound(table, "max_cost_usd", 1e6),
        max_carbon_g=_bound(table, "max_carbon_g", 1e9),
        min_quality=_bound(table, "min_quality", 1.0),
        min_quality_of_best=_bound(table, "min_quality_of_best", 1.0),
    )


def _bound(table: Table, key: str, most: float) -> float | None:
    return table.number(key, 0.0, most, may_be_zero=True) if table.has(key) else None


def _relaxation(table: Table) -> tuple[Criterion, ...]:
    if not table.has("relax"):
        return RELAXATION
    given = table.names("relax")
    known = {criterion.value for criterion in RELAXATION}
    if not known.issuperset(given):
        table.problem(f"relax must be a list of {', '.join(criterion.value for criterion in RELAXATION)}")
        return RELAXATION
    return tuple(Criterion(name) for name in given)


def _provider_weights(table: Table) -> Mapping[str, float]:
    return {name: table.number(name, 1.0, MAX_WEIGHT) for name, _ in table.items()}


def _virtual_models(members: Any, problems: list[str]) -> Mapping[str, VirtualModel]:
    tables = Table(members, "[virtual_models]", problems)
    given = {name: _virtual_model(name, Table(table, f"[virtual_models.{name}]", problems)) for name, table in tables.items()}
    return {**VIRTUAL_MODELS, **given}


def _virtual_model(name: str, table: Table) -> VirtualModel:
    """A table under a built-in name changes that one."""
    table.only(VIRTUAL_KEYS)
    default = VIRTUAL_MODELS.get(name) or VirtualModel(name)
    if not name or len(name) > 128 or not name.isprintable():
        table.problem("the name must be printable, of at most 128 characters")
    strategy = _strategy(table, default.strategy)
    own = default.weights if strategy is default.strategy else None
    weights = _weights(table.table("weights")) if table.has("weights") else own
    models, excluded = table.names("models"), table.names("exclude_models")
    lowest = table.integer("min_tier", default.min_tier, TIERS[0], TIERS[-1])
    highest = table.integer("max_tier", default.max_tier, TIERS[0], TIERS[-1])
    if lowest > highest:
        table.problem("min_tier must not be above max_tier")
    return VirtualModel(
        name=name,
        strategy=strategy,
        weights=weights,
        constraints=_constraints(table.table("constraints")) if table.has("constraints") else default.constraints,
        models=ModelScope(models) if models else None,
        excluded=ModelScope(excluded) if excluded else None,
        min_tier=lowest,
        max_tier=highest,
        learning=_learning(table),
    )
