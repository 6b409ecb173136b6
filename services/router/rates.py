"""What calls are going to cost: the ledger's rates of every model that can be chosen, asked for in the background and never waited for."""

import asyncio
import math
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import grpc

from joulegate.chat.v1.receipt_pb2 import CostBasis, EnergyBasis
from joulegate.ledger.v1 import rates_service_pb2 as pb
from joulegate.ledger.v1 import rates_service_pb2_grpc as pb_grpc
from services.router.catalogue import Catalogue
from services.router.provider_watch import ProviderWatch
from services.runtime import logs

log = logs.get(__name__)

# Prices change by the day, live carbon intensity by the quarter of an hour.
REFRESH_S: Final = 60.0
TICK_S: Final = 0.25
CHUNK: Final = 250
TIMEOUT_S: Final = 30.0
# Models that no list names are learned by being asked for. Clients choose names, so there must be a bound.
MAX_UNLISTED: Final = 1024
_JOULES_PER_KWH: Final = 3.6e6

Target = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Rate:
    """What a call of a model at a provider costs, as far as it is linear in tokens. A cached input token takes a tenth of the joules."""

    request_nano_usd: float
    input_nano_usd: float
    cached_input_nano_usd: float
    output_nano_usd: float
    cost_basis: CostBasis.ValueType
    # Low and high end, in joules, of a request, of an input token and of an output token.
    request_joules: tuple[float, float]
    input_joules: tuple[float, float]
    output_joules: tuple[float, float]
    energy_basis: EnergyBasis.ValueType
    grams_per_kwh: float
    zone: str
    # 0 when it is not known.
    context_tokens: int

    def cost_nano_usd(self, input_tokens: float, output_tokens: float, cached_input_tokens: float = 0) -> float:
        """Billionths of a US dollar."""
        fresh = input_tokens - cached_input_tokens
        inputs = fresh * self.input_nano_usd + cached_input_tokens * self.cached_input_nano_usd
        return self.request_nano_usd + inputs + output_tokens * self.output_nano_usd

    def joules(self, input_tokens: float, output_tokens: float, cached_input_tokens: float = 0) -> float:
        """The geometric mean of the ends, as the books take it."""
        fresh = input_tokens - 0.9 * cached_input_tokens
        low = self.request_joules[0] + fresh * self.input_joules[0] + output_tokens * self.output_joules[0]
        high = self.request_joules[1] + fresh * self.input_joules[1] + output_tokens * self.output_joules[1]
        return math.sqrt(low * high)

    def grams(self, joules: float) -> float:
        """Grams of CO2 equivalent for that much energy."""
        return joules / _JOULES_PER_KWH * self.grams_per_kwh


class Rates:
    """The newest rates. Made by `watch_rates`."""

    def __init__(self, stub: pb_grpc.RatesServiceStub, watch: ProviderWatch) -> None:
        self._stub = stub
        self._watch = watch
        self._rates: dict[Target, Rate] = {}
        self._unlisted: set[Target] = set()
        self._asked_of: Catalogue | None = None
        self._asked_at = -math.inf
        self._is_silent = False

    def of(self, provider: str, model: str) -> Rate | None:
        """The rate of a model at a provider; None when it is not known yet, in which case it is asked for."""
        rate = self._rates.get((provider, model))
        if rate is None and len(self._unlisted) < MAX_UNLISTED:
            self._unlisted.add((provider, model))
        return rate

    @property
    def known(self) -> Mapping[Target, Rate]:
        """All of them. Nobody changes it: newer ones are in another one."""
        return self._rates

    async def keep_fresh(self) -> None:
        """Runs until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self.refresh(loop.time())
            await asyncio.sleep(TICK_S)

    async def refresh(self, now: float) -> None:
        """Asks for what is new, and for everything when it is time. Without an answer the old rates hold. `now` is monotonic seconds."""
        catalogue, is_due = self._watch.latest, now - self._asked_at >= REFRESH_S
        if not is_due and catalogue is self._asked_of and self._unlisted <= self._rates.keys():
            return
        listed = {(provider.name, model.id) for provider in catalogue.providers for model in provider.models}
        wanted: Collection[Target] = listed | self._unlisted if is_due else (listed | self._unlisted) - self._rates.keys()
        if await self._ask(sorted(wanted)):
            self._asked_of = catalogue
            self._asked_at = now if is_due else self._asked_at
            self._unlisted -= listed
            self._rates = {target: rate for target, rate in self._rates.items() if target in listed or target in self._unlisted}

    async def _ask(self, targets: Sequence[Target]) -> bool:
        """Takes in the rates of these; whether the ledger said them."""
        try:
            for start in range(0, len(targets), CHUNK):
                chunk = targets[start : start + CHUNK]
                models = [pb.RatedModel(provider=provider, model=model) for provider, model in chunk]
                response = await self._stub.ListRates(pb.ListRatesRequest(models=models), timeout=TIMEOUT_S)
                self._rates = {**self._rates, **dict(zip(chunk, map(_rate, response.rates), strict=True))}
        except grpc.aio.AioRpcError as error:
            if not self._is_silent:
                # Before the first answer the ledger may only be starting.
                (log.warning if self._rates else log.info)("rates_unknown", reason=error.details())
            self._is_silent = True
            return False
        self._is_silent = False
        return True


def _rate(message: pb.Rate) -> Rate:
    return Rate(
        message.request_nano_usd,
        message.input_nano_usd,
        message.cached_input_nano_usd,
        message.output_nano_usd,
        message.cost_basis,
        _span(message.request_joules),
        _span(message.input_joules),
        _span(message.output_joules),
        message.energy_basis,
        message.grams_per_kwh,
        message.zone,
        message.context_tokens,
    )


def _span(joules: pb.Joules) -> tuple[float, float]:
    return joules.low, joules.high


@asynccontextmanager
async def watch_rates(stub: pb_grpc.RatesServiceStub, watch: ProviderWatch) -> AsyncIterator[Rates]:
    """Rates that keep themselves fresh while entered."""
    rates = Rates(stub, watch)
    keeper = asyncio.create_task(rates.keep_fresh())
    try:
        yield rates
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
