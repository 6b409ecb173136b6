"""What the router expects of a call is what the ledger would book of it."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import grpc
import pytest

from joulegate.dispatch.v1 import dispatch_service_pb2 as dispatch_pb
from joulegate.dispatch.v1 import dispatch_service_pb2_grpc as dispatch_grpc
from joulegate.ledger.v1 import rates_service_pb2 as pb
from joulegate.ledger.v1 import rates_service_pb2_grpc as pb_grpc
from services.ledger.cost import Usage
from services.ledger.rate_servicer import MAX_MODELS, RateServicer
from services.router.provider_watch import watch_providers
from services.router.rates import REFRESH_S, Rates
from services.runtime.clock import SystemClock
from services.runtime.interceptors import Context
from tests.contract.channels import KINDS, new_mesh, serve
from tests.unit.ledger.samples import HeldClock, new_figurer

MODELS = ("gpt-4o", "gpt-4o-mini", "o3", "claude-sonnet-4-5", "nobody-knows-it")
NOW_S = 1_700_000_000.0


class Roster(dispatch_grpc.DispatchServiceServicer):
    """Two providers: one with a list of models, one that takes any."""

    async def WatchProviders(
        self, request: dispatch_pb.WatchProvidersRequest, context: Context
    ) -> AsyncIterator[dispatch_pb.WatchProvidersResponse]:
        models = [dispatch_pb.Model(id=name) for name in MODELS]
        providers = [
            dispatch_pb.Provider(name="openai", models=models),
            dispatch_pb.Provider(name="lab", accepts_unlisted_models=True),
        ]
        yield dispatch_pb.WatchProvidersResponse(providers=providers)
        await asyncio.Event().wait()

    async def ListProviders(self, request: dispatch_pb.ListProvidersRequest, context: Context) -> dispatch_pb.ListProvidersResponse:
        raise NotImplementedError

    async def Dispatch(self, request: dispatch_pb.DispatchRequest, context: Context) -> AsyncIterator[dispatch_pb.DispatchResponse]:
        raise NotImplementedError
        yield


class AwayServicer(pb_grpc.RatesServiceServicer):
    """A ledger that does not answer."""

    async def ListRates(self, request: pb.ListRatesRequest, context: Context) -> pb.ListRatesResponse:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        raise AssertionError


@asynccontextmanager
async def asked(servicer: pb_grpc.RatesServiceServicer, kind: str = "local") -> AsyncIterator[Rates]:
    mesh = new_mesh()
    pb_grpc.add_RatesServiceServicer_to_server(servicer, mesh.registry)
    dispatch_grpc.add_DispatchServiceServicer_to_server(Roster(), mesh.registry)
    async with serve(mesh, kind) as channel, watch_providers(dispatch_grpc.DispatchServiceStub(channel)) as watch:
        await watch.catalogue()
        yield Rates(pb_grpc.RatesServiceStub(channel), watch)


def real() -> RateServicer:
    return RateServicer(new_figurer(), ThreadPoolExecutor(1), HeldClock())


@pytest.mark.parametrize("kind", KINDS)
async def test_expected_money_joules_and_grams_are_those_that_are_booked(kind: str) -> None:
    figurer = new_figurer()
    async with asked(real(), kind) as rates:
        await rates.refresh(0.0)
        for model in MODELS:
            rate = rates.of("openai", model)
            assert rate is not None
            for usage in (Usage(1000, 0, 200, 0), Usage(1, 0, 0, 0), Usage(5000, 4000, 3, 0)):
                booked = figurer.of_attempt("openai", model, "", usage, NOW_S)
                inputs, cached, outputs = usage[:3]
                assert rate.cost_nano_usd(inputs, outputs, cached) == pytest.approx(booked.cost_nano_usd, abs=1)
                joules = rate.joules(inputs, outputs, cached)
                assert joules * 1e6 == pytest.approx(booked.energy.point, rel=1e-6, abs=2)
                assert rate.grams(joules) * 1e6 == pytest.approx(booked.carbon_micrograms, rel=1e-6, abs=2)
            assert (rate.cost_basis, rate.energy_basis, rate.zone) == (booked.cost_basis, booked.energy_basis, booked.zone)
        known = rates.of("openai", "gpt-4o")
        assert known is not None and known.context_tokens == 128_000


async def test_model_on_no_list_is_asked_for_once_somebody_wants_it() -> None:
    async with asked(real()) as rates:
        await rates.refresh(0.0)
        assert rates.of("lab", "its-own") is None
        await rates.refresh(1.0)
        assert rates.of("lab", "its-own") is not None
        # Still known after the next whole picture.
        await rates.refresh(1.0 + REFRESH_S)
        assert rates.of("lab", "its-own") is not None


async def test_ledger_that_is_away_leaves_what_was_known() -> None:
    async with asked(AwayServicer()) as rates:
        await rates.refresh(0.0)
        assert rates.of("openai", "gpt-4o") is None


async def test_too_many_models_at_once_are_refused() -> None:
    mesh = new_mesh()
    pb_grpc.add_RatesServiceServicer_to_server(RateServicer(new_figurer(), ThreadPoolExecutor(1), SystemClock()), mesh.registry)
    async with serve(mesh, "local") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await pb_grpc.RatesServiceStub(channel).ListRates(pb.ListRatesRequest(models=[pb.RatedModel()] * (MAX_MODELS + 1)))
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
