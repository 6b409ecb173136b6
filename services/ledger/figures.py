"""What an attempt cost in money, joules and carbon: the three models of a (provider, model), found once and then applied to tokens."""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Final, NamedTuple

from joulegate.chat.v1.receipt_pb2 import CostBasis, EnergyBasis
from joulegate.ledger.v1.entry_pb2 import CarbonSignal, EnergyBoundary
from services.ledger import carbon, energy
from services.ledger.carbon import WORLD, Always, Grid, Hours
from services.ledger.cost import Price, Tariff, Tariffs, Usage, context_tokens
from services.ledger.energy import Energy, EnergyModel
from services.ledger.ladder import Ladder
from services.ledger.overrides import Overrides
from services.runtime import lookup
from services.runtime.own_cpu import NO_CPU

# Models that are remembered. Clients choose names, so there must be a bound; what falls out costs a millisecond to find again.
REMEMBERED: Final = 4096
_ALWAYS: Final = Always()


class Figures(NamedTuple):
    """The figures of one row."""

    cost_nano_usd: int
    cost_basis: CostBasis.ValueType
    energy: Energy
    energy_basis: EnergyBasis.ValueType
    carbon_micrograms: int
    zone: str
    # Also where the provider told what it billed.
    list_cost_nano_usd: int
    reported_cost_nano_usd: int | None
    boundary: EnergyBoundary.ValueType
    # The model's point, also where a counter was read.
    estimated_microjoules: int
    signal: CarbonSignal.ValueType
    factors_version: str


class Told(NamedTuple):
    """What a provider, or who asked it, tells of a call: billionths of a dollar and microjoules. None: nothing."""

    nano_usd: int | None = None
    microjoules: int | None = None
    boundary: EnergyBoundary.ValueType = EnergyBoundary.ENERGY_BOUNDARY_UNSPECIFIED
    # What the microjoules rest on.
    energy_basis: EnergyBasis.ValueType = EnergyBasis.ENERGY_BASIS_MEASURED


NOTHING_TOLD: Final = Told()


class Rates(NamedTuple):
    """What the figures of a call are made of, at one moment."""

    price: Price
    cost_basis: CostBasis.ValueType
    energy: EnergyModel
    grid: Grid
    # 0 when it is not known.
    context_tokens: int


class _Model(NamedTuple):
    tariff: Tariff
    energy: EnergyModel
    grid: Grid
    context_tokens: int


class Figurer:
    """Turns usage into figures. Not for the event loop: the first use loads two catalogues, a new model takes milliseconds."""

    def __init__(
        self, overrides: Overrides, tariffs: Tariffs, gateway_place: str = WORLD, hours: Hours = _ALWAYS, version: str = ""
    ) -> None:
        # Names the factors in the rows.
        self.version = version
        # Whether requests are let in only where all their targets have a price.
        self.denies_unpriced = False
        # What a core of the gateway's machines draws while it works, and what of the ledger's own time falls to a request.
        self.watts_per_core = 0.0
        self.own_cpu = NO_CPU
        self._overrides = overrides
        self._tariffs = tariffs
        self._gateway_place = gateway_place
        self._hours = hours
        self._ladder = Ladder(overrides)
        self._model = lru_cache(maxsize=REMEMBERED)(self._find)

    def warm(self, models: Sequence[tuple[str, str]]) -> None:
        """Finds these (provider, model) pairs before they are needed, and loads the catalogues even when there are none."""
        self.of_hit(0)
        for provider, model in (*models, ("openai", "gpt-4o-mini")):
            self._model(provider, model, "")

    def of_attempt(self, provider: str, model: str, served_model: str, usage: Usage, unix_s: float, told: Told = NOTHING_TOLD) -> Figures:
        """Figures of a call of a provider at a time. What the provider billed, and what a counter said, beat what we compute."""
        found = self._model(provider, model, served_model)
        listed, basis = found.tariff.at(unix_s).nano_usd(usage), found.tariff.basis
        cost = listed
        if told.nano_usd is not None:
            cost, basis = told.nano_usd, CostBasis.COST_BASIS_REPORTED
        used, energy_basis, boundary = found.energy.of(usage), found.energy.basis, found.energy.boundary
        estimated = used.point
        if told.microjoules is not None:
            used, energy_basis, boundary = Energy(*[told.microjoules] * 3), told.energy_basis, told.boundary
        grid = self._hours.at(found.grid, unix_s)
        money, place = (cost, basis), (grid.micrograms(used.point), grid.zone)
        return Figures(*money, used, energy_basis, *place, listed, told.nano_usd, boundary, estimated, grid.signal, self.version)

    def rates(self, provider: str, model: str, unix_s: float) -> Rates:
        """What a call would be booked by, were it made now."""
        found = self._model(provider, model, "")
        grid = self._hours.at(found.grid, unix_s)
        return Rates(found.tariff.at(unix_s), found.tariff.basis, found.energy, grid, found.context_tokens)

    def carbon_of(self, provider: str, model: str, microjoules: int, unix_s: float) -> int:
        """Micrograms of CO2 equivalent for that much energy in the provider's grid at a time."""
        return self._hours.at(self._model(provider, model, "").grid, unix_s).micrograms(microjoules)

    def gateway_microjoules(self, cpu_nanos: int) -> int:
        """What the gateway took for a request that ends now: that much time of a core, and the ledger's."""
        return round((cpu_nanos + self.own_cpu.take_ns()) * self.watts_per_core / 1000)

    def of_hit(self, unix_s: float) -> Figures:
        """Figures of serving a cached answer at a time: no provider, no bill, only our own lookup."""
        grid = self._hours.at(self._gateway_grid, unix_s)
        point, free = energy.LOOKUP.point, CostBasis.COST_BASIS_FREE
        place = (grid.micrograms(point), grid.zone)
        return Figures(0, free, energy.LOOKUP, lookup.BASIS, *place, 0, None, energy.HERE, point, grid.signal, self.version)

    @cached_property
    def _gateway_grid(self) -> Grid:
        return carbon.grid_at(self._gateway_place) or carbon.world()

    def _find(self, provider_name: str, model: str, served_model: str) -> _Model:
        provider = self._overrides.provider(provider_name)
        names = list(dict.fromkeys(name for name in (served_model, model) if name))
        tariff = self._tariffs.tariff(provider_name, names)
        grid = carbon.grid_of(provider, self._gateway_place)
        return _Model(tariff, self._ladder.find(provider, names, tariff), grid, context_tokens(provider, names))
