"""RatesService over gRPC: what calls are going to cost, for routers that choose among them."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Final

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.ledger.v1 import rates_service_pb2 as pb
from joulegate.ledger.v1 import rates_service_pb2_grpc as pb_grpc
from services.ledger.cost import MILLION, Rate
from services.ledger.energy import Span
from services.ledger.figures import Figurer, Rates
from services.runtime.clock import Clock
from services.runtime.errors import GatewayError
from services.runtime.interceptors import Context

MAX_MODELS: Final = 500


class RateServicer(pb_grpc.RatesServiceServicer):
    """See rates_service.proto. The catalogues are searched on `thread`."""

    def __init__(self, figurer: Figurer, thread: Executor, clock: Clock) -> None:
        self._figurer = figurer
        self._thread = thread
        self._clock = clock

    async def ListRates(self, request: pb.ListRatesRequest, context: Context) -> pb.ListRatesResponse:
        if len(request.models) > MAX_MODELS:
            raise GatewayError(ErrorReason.ERROR_REASON_INVALID_REQUEST, f"models: {len(request.models)} of them, at most {MAX_MODELS}")
        found = asyncio.get_running_loop().run_in_executor(self._thread, self._find, request.models, self._clock.now())
        return pb.ListRatesResponse(rates=map(rate_message, await found))

    def _find(self, models: Sequence[pb.RatedModel], unix_s: float) -> list[Rates]:
        return [self._figurer.rates(each.provider, each.model, unix_s) for each in models]


def rate_message(rates: Rates) -> pb.Rate:
    """The rates of a model as they travel."""
    price, energy = rates.price, rates.energy
    return pb.Rate(
        request_nano_usd=_each(price.request),
        input_nano_usd=_each(price.input),
        cached_input_nano_usd=_each(price.cached_input or price.input),
        output_nano_usd=_each(price.output),
        cost_basis=rates.cost_basis,
        request_joules=_joules(energy.fixed),
        input_joules=_joules(energy.per_input),
        output_joules=_joules(energy.per_output),
        energy_basis=energy.basis,
        grams_per_kwh=rates.grid.micrograms_per_kwh / 1e6,
        zone=rates.grid.zone,
        context_tokens=rates.context_tokens,
    )


def _each(rate: Rate | None) -> float:
    """Nano-dollars for one unit."""
    return 0.0 if rate is None else rate.base / MILLION


def _joules(span: Span) -> pb.Joules:
    return pb.Joules(low=span.low, high=span.high)
