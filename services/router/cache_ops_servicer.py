"""CacheOpsService: what the cache does, and its removals, for operators and for callers about their own."""

import json
from collections import Counter
from collections.abc import Awaitable
from typing import Any, TypeVar

import grpc
from google.api.httpbody_pb2 import HttpBody

from joulegate.cache.v1 import cache_service_pb2 as cache_pb
from joulegate.cache.v1 import cache_service_pb2_grpc as cache_grpc
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.ledger.v1 import ledger_service_pb2 as ledger_pb
from joulegate.ledger.v1 import ledger_service_pb2_grpc as ledger_grpc
from joulegate.ops.v1 import cache_ops_service_pb2 as pb
from joulegate.ops.v1 import cache_ops_service_pb2_grpc as pb_grpc
from services.router import cache_removal, warming
from services.router.intake import Intake
from services.router.near_cache import NearCache
from services.router.provider_watch import ProviderWatch
from services.router.question import PUBLIC_TENANT
from services.runtime import logs
from services.runtime.admin_key import AdminKey
from services.runtime.errors import GatewayError
from services.runtime.identity import ANONYMOUS
from services.runtime.interceptors import Context, metadata_value

log = logs.get(__name__)
T = TypeVar("T")

STATS_TIMEOUT_S = 5.0
# The cache waits for its store, so that no crash undoes a removal.
REMOVAL_TIMEOUT_S = 10.0
STORE_TIMEOUT_S = 10.0


class CacheUnavailableError(GatewayError):
    """503 with the body that the paths under /api/cache are known for."""

    def __init__(self) -> None:
        super().__init__(ErrorReason.ERROR_REASON_SERVICE_UNAVAILABLE, "the cache is not available")

    def openai_body(self) -> bytes:
        return b'{"error":"Cache not available"}'


class CacheOpsServicer(pb_grpc.CacheOpsServiceServicer):
    """See cache_ops_service.proto."""

    def __init__(
        self,
        intake: Intake,
        watch: ProviderWatch,
        cache: cache_grpc.CacheServiceStub,
        ledger: ledger_grpc.LedgerServiceStub,
        near_cache: NearCache,
        admin_key: AdminKey,
    ) -> None:
        self._intake = intake
        self._watch = watch
        self._cache = cache
        self._ledger = ledger
        self._near_cache = near_cache
        self._admin_key = admin_key

    async def GetCacheUse(self, request: pb.GetCacheUseRequest, context: Context) -> pb.GetCacheUseResponse:
        await self._tenant(context)
        stats = await self._stats()
        return pb.GetCacheUseResponse(
            enabled=stats.enabled,
            near_hit_count=self._near_cache.hits.total(),
            exact_hit_count=stats.exact_hit_count,
            semantic_hit_count=stats.semantic_hit_count,
            miss_count=stats.miss_count,
            store_count=stats.store_count,
            eviction_count=stats.eviction_count,
            entry_count=stats.entry_count,
            semantic_entry_count=stats.semantic_entry_count,
            size_bytes=stats.size_bytes,
            fault_count=stats.fault_count,
            reject_count_by_rule=stats.reject_count_by_rule,
        )

    async def RemoveEntries(self, request: pb.RemoveEntriesRequest, context: Context) -> pb.RemoveEntriesResponse:
        return pb.RemoveEntriesResponse(removed_count=await self._remove(request, await self._tenant(context)))

    async def GetCacheSavings(self, request: pb.GetCacheSavingsRequest, context: Context) -> HttpBody:
        await self._tenant(context)
        stats = await _available(self._stats())
        totals = (await self._ledger.GetTotals(ledger_pb.GetTotalsRequest(), timeout=STATS_TIMEOUT_S)).totals
        hits = self._hits(stats)
        return _json(
            {
                "hits": hits,
                "misses": stats.miss_count,
                "hitRate": _share(hits, stats.miss_count),
                "estimatedSavingsUsd": totals.saved_cost_nano_usd / 1e9,
                "totalEntries": stats.entry_count,
                "hitsByModel": Counter(stats.hit_count_by_model) + self._near_cache.hits,
                "missesByModel": dict(stats.miss_count_by_model),
            }
        )

    async def GetCacheState(self, request: pb.GetCacheStateRequest, context: Context) -> HttpBody:
        await self._tenant(context)
        stats = await self._stats()
        hits = self._hits(stats)
        return _json(
            {
                "enabled": stats.enabled,
                "size": stats.entry_count,
                "hits": hits,
                "misses": stats.miss_count,
                "hit_rate": _share(hits, stats.miss_count),
                "evictions": stats.eviction_count,
            }
        )

    async def PurgeCache(self, request: pb.PurgeCacheRequest, context: Context) -> HttpBody:
        tenant = await self._tenant(context)
        models = [listed.model.id for listed in (await self._watch.catalogue()).models_for(ANONYMOUS)]
        removals = cache_removal.from_body(request.body.data, models)
        return _json({"removed": sum([await _available(self._remove(removal, tenant)) for removal in removals])})

    async def ClearCache(self, request: pb.ClearCacheRequest, context: Context) -> HttpBody:
        tenant = await self._tenant(context)
        await self._remove(cache_removal.from_query(request, metadata_value(context, "x-envoy-original-path")), tenant)
        return _json({"status": "ok", "message": "Cache cleared"})

    async def WarmCache(self, request: pb.WarmCacheRequest, context: Context) -> HttpBody:
        self._admin_key.check(metadata_value(context, "authorization"))
        stored, refused = 0, []
        tenant = PUBLIC_TENANT if request.namespace in self._intake.public_namespaces else request.tenant
        for line in warming.read(request.body.data, tenant, request.namespace, request.model):
            reason = line.reason if isinstance(line, warming.Refused) else await _available(self._keep(line.store))
            if reason:
                refused.append({"line": line.number, "reason": reason})
            else:
                stored += 1
        log.info("cache_warmed", stored=stored, refused=len(refused))
        return _json({"stored": stored, "refused": refused})

    async def _keep(self, store: cache_pb.StoreRequest) -> str:
        """Why the cache does not keep an answer; empty when it does."""
        try:
            stored = await self._cache.Store(store, timeout=STORE_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            refusal = GatewayError.from_rpc(error)
            if refusal.reason != ErrorReason.ERROR_REASON_INVALID_REQUEST:
                raise
            return refusal.message
        return "" if stored.entry_id else "the cache is off"

    async def _tenant(self, context: Context) -> str | None:
        """Whose entries the caller may remove; None for an operator, who may remove everybody's. Raises GatewayError as chat does."""
        if self._admin_key.is_presented(metadata_value(context, "authorization")):
            return None
        return (await self._intake.caller(context)).tenant

    async def _remove(self, removal: pb.RemoveEntriesRequest, tenant: str | None) -> int:
        if tenant is not None and removal.HasField("tenant") and removal.tenant != tenant:
            raise GatewayError(ErrorReason.ERROR_REASON_PERMISSION_DENIED, "only an operator may remove the entries of another tenant")
        chosen = cache_pb.InvalidateEntriesRequest()
        for name in ("entry_id", "namespace", "model", "tag", "tenant"):
            if removal.HasField(name):
                setattr(chosen, name, getattr(removal, name))
        if removal.HasField("min_age"):
            chosen.min_age.CopyFrom(removal.min_age)
        if not (removal.all or chosen.ListFields()):
            raise GatewayError(ErrorReason.ERROR_REASON_INVALID_REQUEST, "say which entries, or `all`")
        if tenant is not None:
            chosen.tenant = tenant
        # `all` of the cache outweighs filters; here it is what is left when there are none.
        chosen.all = not chosen.ListFields()
        self._near_cache.forget(chosen.tenant if chosen.HasField("tenant") else None)
        removed_count = (await self._cache.InvalidateEntries(chosen, timeout=REMOVAL_TIMEOUT_S)).removed_count
        # What was on its way here when the cache was told may be what was removed.
        self._near_cache.forget(chosen.tenant if chosen.HasField("tenant") else None)
        log.info("cache_entries_removed", count=removed_count, by_operator=tenant is None)
        return int(removed_count)

    async def _stats(self) -> cache_pb.GetCacheStatsResponse:
        return await self._cache.GetCacheStats(cache_pb.GetCacheStatsRequest(), timeout=STATS_TIMEOUT_S)

    def _hits(self, stats: cache_pb.GetCacheStatsResponse) -> int:
        return self._near_cache.hits.total() + stats.exact_hit_count + stats.semantic_hit_count


async def _available(call: Awaitable[T]) -> T:
    """What a call of the cache gives. Raises CacheUnavailableError when it cannot be reached."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise CacheUnavailableError from None
        raise


def _share(hits: int, misses: int) -> float:
    return hits / (hits + misses) if hits else 0.0


def _json(document: Any) -> HttpBody:
    return HttpBody(content_type="application/json", data=json.dumps(document).encode("ascii"))
