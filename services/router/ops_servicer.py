"""Diagnostics in the JSON shapes that clients of earlier gateways know: `GET /` and `GET /health`."""

import json
from datetime import UTC, datetime
from importlib.metadata import version

import grpc
from google.api import httpbody_pb2

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.ledger.v1 import ledger_service_pb2 as ledger_pb
from joulegate.ledger.v1 import ledger_service_pb2_grpc as ledger_grpc
from joulegate.ops.v1 import ops_service_pb2 as pb
from joulegate.ops.v1 import ops_service_pb2_grpc as pb_grpc
from services.router.books import Books
from services.router.intake import Intake
from services.router.provider_watch import ProviderWatch
from services.runtime.clock import Clock
from services.runtime.errors import GatewayError
from services.runtime.interceptors import Context
from services.wire import provider_shapes

TOTALS_TIMEOUT_S = 2.0


class UnhealthyError(GatewayError):
    """503 with the health document as its body: monitors read it whatever the status."""

    def __init__(self, document: dict[str, object]) -> None:
        super().__init__(ErrorReason.ERROR_REASON_SERVICE_UNAVAILABLE, "unhealthy")
        self._document = document

    def openai_body(self) -> bytes:
        return json.dumps(self._document).encode("ascii")


class OpsServicer(pb_grpc.OpsServiceServicer):
    """See ops_service.proto."""

    def __init__(
        self,
        intake: Intake,
        watch: ProviderWatch,
        books: Books,
        ledger: ledger_grpc.LedgerServiceStub,
        clock: Clock,
        environment: str,
        cache_enabled: bool,
    ) -> None:
        self._intake = intake
        self._watch = watch
        self._books = books
        self._ledger = ledger
        self._clock = clock
        self._environment = environment
        self._cache_enabled = cache_enabled
        self._started_at = clock.monotonic()

    async def GetSummary(self, request: pb.GetSummaryRequest, context: Context) -> httpbody_pb2.HttpBody:
        await self._intake.caller(context)
        totals = (await self._ledger.GetTotals(ledger_pb.GetTotalsRequest(), timeout=TOTALS_TIMEOUT_S)).totals
        summary = {
            "message": "Joulegate counts joules",
            "version": version("joulegate"),
            "environment": self._environment,
            "requests_served": totals.request_count,
            "cache_hits": totals.cache_hit_count,
            "energy_spent_joules": totals.energy_microjoules / 1e6,
            "energy_saved_joules": totals.saved_energy_microjoules / 1e6,
            "cost_usd": totals.cost_nano_usd / 1e9,
            "cost_saved_usd": totals.saved_cost_nano_usd / 1e9,
            "carbon_grams": totals.carbon_micrograms / 1e6,
        }
        return httpbody_pb2.HttpBody(content_type="application/json", data=json.dumps(summary).encode())

    async def GetHealth(self, request: pb.GetHealthRequest, context: Context) -> httpbody_pb2.HttpBody:
        document = await self._health()
        if document["status"] == "unhealthy":
            raise UnhealthyError(document)
        return httpbody_pb2.HttpBody(content_type="application/json", data=json.dumps(document).encode())

    async def _health(self) -> dict[str, object]:
        providers = self._watch.latest.providers
        healthy = [provider.name for provider in providers if provider.healthy]
        if not healthy:
            status = "unhealthy"
        elif len(healthy) < len(providers) or not self._books.is_connected:
            status = "degraded"
        else:
            status = "healthy"
        return {
            "status": status,
            "version": version("joulegate"),
            "timestamp": datetime.fromtimestamp(self._clock.now(), UTC).isoformat(),
            "uptime_seconds": round(self._clock.monotonic() - self._started_at, 1),
            "active_providers": healthy,
            "total_requests": await self._total_requests(),
            "providers": {provider.name: provider_shapes.union(provider) for provider in providers},
            "ledger_connected": self._books.is_connected,
            "cache_enabled": self._cache_enabled,
            "rate_limiting_enabled": True,
        }

    async def _total_requests(self) -> int | None:
        try:
            response = await self._ledger.GetTotals(ledger_pb.GetTotalsRequest(), timeout=TOTALS_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return None
        return response.totals.request_count
