"""FeedbackService: how good answers were, told to routing and to the cache."""

from typing import Final

from joulegate.cache.v1 import cache_service_pb2 as cache_pb
from joulegate.cache.v1 import cache_service_pb2_grpc as cache_grpc
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.router.v1 import feedback_service_pb2 as pb
from joulegate.router.v1 import feedback_service_pb2_grpc as pb_grpc
from services.router.intake import Intake
from services.router.lessons import Lessons
from services.router.near_cache import NearCache
from services.runtime.errors import GatewayError
from services.runtime.interceptors import Context

# The cache waits for its store.
CACHE_TIMEOUT_S: Final = 10.0
# A cached answer with a score from here on is right.
RIGHT: Final = 0.5


class FeedbackServicer(pb_grpc.FeedbackServiceServicer):
    """See feedback_service.proto."""

    def __init__(self, intake: Intake, lessons: Lessons, cache: cache_grpc.CacheServiceStub, near_cache: NearCache) -> None:
        self._intake = intake
        self._lessons = lessons
        self._cache = cache
        self._near_cache = near_cache

    async def Report(self, request: pb.ReportRequest, context: Context) -> pb.ReportResponse:
        tenant = (await self._intake.caller(context)).tenant
        if not request.HasField("score") or not 0.0 <= request.score <= 1.0:
            raise GatewayError(ErrorReason.ERROR_REASON_INVALID_REQUEST, "score must be a number from 0 to 1", {"param": "score"})
        answered = self._lessons.report(request.request_id, tenant, request.score)
        if answered is None:
            raise GatewayError(ErrorReason.ERROR_REASON_NOT_FOUND, "no recent answer of yours has this request_id", {"param": "request_id"})
        if answered.entry_id and not answered.is_reported:
            await self._tell_cache(tenant, answered.entry_id, answered.tier, request.score >= RIGHT)
        is_first = not answered.is_reported
        return pb.ReportResponse(learnt=is_first and answered.arm is not None, cache_told=is_first and bool(answered.entry_id))

    async def _tell_cache(self, tenant: str, entry_id: str, tier: cache_pb.Tier.ValueType, is_right: bool) -> None:
        report = cache_pb.ReportEntryRequest(tenant=tenant, entry_id=entry_id, tier=tier, is_right=is_right)
        if is_right:
            await self._cache.ReportEntry(report, timeout=CACHE_TIMEOUT_S)
            return
        self._near_cache.forget(tenant)
        await self._cache.ReportEntry(report, timeout=CACHE_TIMEOUT_S)
        # What was on its way here when the cache was told may be what was wrong.
        self._near_cache.forget(tenant)
