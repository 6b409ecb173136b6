"""CacheService over the answer cache."""

from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from joulegate.cache.v1 import cache_service_pb2 as pb
from joulegate.cache.v1 import cache_service_pb2_grpc as pb_grpc
from joulegate.cache.v1 import flight_pb2
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.cache.answer_cache import AnswerCache, Miss, Question
from services.cache.entry_filter import EntryFilter
from services.cache.flight_exchange import FlightExchange
from services.cache.lessons import Lessons
from services.cache.semantic_tier import Bounds
from services.runtime.errors import GatewayError

Context = grpc.aio.ServicerContext[Any, Any]


class CacheServicer(pb_grpc.CacheServiceServicer):
    """See cache_service.proto."""

    def __init__(self, cache: AnswerCache, lessons: Lessons, exchange: FlightExchange | None = None) -> None:
        self._cache = cache
        self._lessons = lessons
        # Without one, nobody says which router is to ask.
        self._exchange = exchange

    async def LookUp(self, request: pb.LookUpRequest, context: Context) -> pb.LookUpResponse:
        question = Question(
            key=request.key,
            wording=request.wording if request.wording.text else None,
            max_age_us=_microseconds(request.max_age) if request.HasField("max_age") else None,
            bounds=Bounds(request.min_similarity, request.max_error if request.HasField("max_error") else None),
            model=request.model,
        )
        # Before anything is awaited: whoever boards while the leader's answer is being stored must not lead anew.
        boarded = None if self._exchange is None else self._exchange.board(request)
        found = await self._cache.look_up(question)
        if isinstance(found, Miss):
            role = flight_pb2.FLIGHT_ROLE_UNSPECIFIED if boarded is None else boarded.role
            return pb.LookUpResponse(neighbours=found.neighbours, flight_role=role)
        if boarded is not None:
            boarded.give_up()
        response = pb.LookUpResponse(tier=found.tier, similarity=found.similarity)
        response.entry.ParseFromString(found.data)
        return response

    async def Store(self, request: pb.StoreRequest, context: Context) -> pb.StoreResponse:
        ttl_us = _microseconds(request.ttl) if request.HasField("ttl") else None
        wording = request.wording if request.wording.text else None
        try:
            stored = await self._cache.store(request.key, request.entry, ttl_us, wording, request.tags)
        finally:
            if request.flight_id and self._exchange is not None:
                self._exchange.stored(request.flight_id)
        self._lessons.compare(request.key, request.entry.completion, request.neighbours)
        return pb.StoreResponse(entry_id=stored)

    async def ReportEntry(self, request: pb.ReportEntryRequest, context: Context) -> pb.ReportEntryResponse:
        await self._lessons.report(request.tenant, request.entry_id, request.tier, is_right=request.is_right)
        return pb.ReportEntryResponse()

    async def InvalidateEntries(self, request: pb.InvalidateEntriesRequest, context: Context) -> pb.InvalidateEntriesResponse:
        if request.min_age.seconds < 0 or request.min_age.nanos < 0:
            raise GatewayError(ErrorReason.ERROR_REASON_INVALID_REQUEST, "min_age must not be negative")
        chosen = EntryFilter.from_request(request, self._cache.now_us())
        if chosen is None:
            raise GatewayError(ErrorReason.ERROR_REASON_INVALID_REQUEST, "say which entries, or `all`")
        return pb.InvalidateEntriesResponse(removed_count=await self._cache.invalidate(chosen))

    async def GetCacheStats(self, request: pb.GetCacheStatsRequest, context: Context) -> pb.GetCacheStatsResponse:
        return self._cache.stats()


def _microseconds(duration: Duration) -> int:
    return duration.seconds * 1_000_000 + duration.nanos // 1000
