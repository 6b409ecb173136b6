"""ProvidersService over gRPC: what dispatch shows of its providers to clients, and of their breakers to operators."""

import json
from typing import Any

from google.api.httpbody_pb2 import HttpBody

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.ops.v1 import breaker_pb2
from joulegate.ops.v1 import providers_service_pb2 as pb
from joulegate.ops.v1 import providers_service_pb2_grpc as pb_grpc
from services.dispatch import breaker_views
from services.dispatch.breaker import Breaker
from services.dispatch.breaker_views import Moment
from services.dispatch.roster import Provider, Roster
from services.runtime import logs
from services.runtime.admin_key import AdminKey
from services.runtime.clock import Clock
from services.runtime.errors import GatewayError
from services.runtime.identity import Identities
from services.runtime.interceptors import Context, metadata_value
from services.wire import provider_shapes

log = logs.get(__name__)


class UnknownProviderError(GatewayError):
    """404 with the body that the path's earlier clients know."""

    def __init__(self, name: str, detail: Any) -> None:
        super().__init__(ErrorReason.ERROR_REASON_NOT_FOUND, f"there is no provider {name!r}", {"provider": name})
        self._document = {"detail": detail}

    def openai_body(self) -> bytes:
        return json.dumps(self._document).encode("ascii")


class ProvidersServicer(pb_grpc.ProvidersServiceServicer):
    """See providers_service.proto."""

    def __init__(self, roster: Roster, identities: Identities, admin_key: AdminKey, clock: Clock) -> None:
        self._roster = roster
        self._identities = identities
        self._admin_key = admin_key
        self._clock = clock

    async def ListBreakers(self, request: pb.ListBreakersRequest, context: Context) -> pb.ListBreakersResponse:
        self._check_operator(context)
        providers = [self._named(request.provider)] if request.provider else self._present()
        at = self._moment()
        views = (
            breaker_views.message(each.name, model, breaker, at)
            for each in providers
            for model, breaker in breaker_views.by_model(each.breakers)
        )
        return pb.ListBreakersResponse(breakers=views)

    async def GetBreaker(self, request: pb.GetBreakerRequest, context: Context) -> pb.GetBreakerResponse:
        self._check_operator(context)
        provider = self._named(request.provider)
        breaker = _called(provider, request.model)
        view = breaker_views.message(provider.name, request.model, breaker, self._moment(), with_history=True)
        return pb.GetBreakerResponse(breaker=view)

    async def ResetBreaker(self, request: pb.ResetBreakerRequest, context: Context) -> pb.ResetBreakerResponse:
        self._check_operator(context)
        provider = self._named(request.provider)
        return pb.ResetBreakerResponse(breakers=self._reset(provider, request.model))

    async def ListProviderStatuses(self, request: pb.ListProviderStatusesRequest, context: Context) -> HttpBody:
        self._check_caller(context)
        return _json({provider.name: provider_shapes.status(provider) for provider in self._roster.describe()})

    async def ListProviderSummaries(self, request: pb.ListProviderSummariesRequest, context: Context) -> HttpBody:
        self._check_caller(context)
        return _json([provider_shapes.summary(provider) for provider in self._roster.describe()])

    async def ListProviders(self, request: pb.ListProvidersRequest, context: Context) -> HttpBody:
        self._check_caller(context)
        providers = [provider_shapes.listed(provider) for provider in self._roster.describe()]
        return _json({"providers": providers, "total": len(providers)})

    async def GetProviderHealth(self, request: pb.GetProviderHealthRequest, context: Context) -> HttpBody:
        self._check_caller(context)
        provider = self._roster.find(request.provider)
        if provider is None:
            message = f"Provider '{request.provider}' not found"
            raise UnknownProviderError(request.provider, {"error": "not_found", "message": message})
        return _json(provider_shapes.health(provider.describe(self._clock.monotonic())))

    async def ListCircuitBreakers(self, request: pb.ListCircuitBreakersRequest, context: Context) -> HttpBody:
        self._check_caller(context)
        return _json({provider.name: breaker_views.listed(provider.breakers, self._moment()) for provider in self._present()})

    async def GetCircuitBreaker(self, request: pb.GetCircuitBreakerRequest, context: Context) -> HttpBody:
        self._check_operator(context)
        return _json(breaker_views.administered(self._administered(request.provider).breakers, self._moment()))

    async def ResetCircuitBreaker(self, request: pb.ResetCircuitBreakerRequest, context: Context) -> HttpBody:
        self._check_operator(context)
        provider = self._administered(request.provider)
        self._reset(provider, "")
        return _json({"message": f"Circuit breaker reset for {provider.name}"})

    def _check_caller(self, context: Context) -> None:
        self._identities.caller(metadata_value(context, "authorization"), metadata_value(context, "x-api-key"))

    def _check_operator(self, context: Context) -> None:
        self._admin_key.check(metadata_value(context, "authorization"))

    def _present(self) -> list[Provider]:
        return [provider for provider in self._roster if provider.is_present]

    def _named(self, name: str) -> Provider:
        provider = self._roster.find(name)
        if provider is None:
            raise _not_found(f"there is no provider {name!r}")
        return provider

    def _administered(self, name: str) -> Provider:
        provider = self._roster.find(name)
        if provider is None:
            raise UnknownProviderError(name, "Provider not found")
        return provider

    def _reset(self, provider: Provider, model: str) -> list[breaker_pb2.Breaker]:
        """Of all models where none is named."""
        chosen = [(model, _called(provider, model))] if model else breaker_views.by_model(provider.breakers)
        for _, breaker in chosen:
            breaker.reset()
        log.info("breakers_reset", provider=provider.name, models=[name for name, _ in chosen])
        self._roster.touch()
        return [breaker_views.message(provider.name, name, breaker, self._moment()) for name, breaker in chosen]

    def _moment(self) -> Moment:
        return Moment(self._clock.monotonic(), self._clock.now())


def _called(provider: Provider, model: str) -> Breaker:
    breaker = provider.breakers.find(model)
    if breaker is None:
        raise _not_found(f"{provider.name} has not been called for a model {model!r}")
    return breaker


def _not_found(message: str) -> GatewayError:
    return GatewayError(ErrorReason.ERROR_REASON_NOT_FOUND, message)


def _json(document: Any) -> HttpBody:
    return HttpBody(content_type="application/json", data=json.dumps(document).encode("ascii"))
