"""Routing, explained."""

from google.protobuf import duration_pb2

from joulegate.router.v1 import router_service_pb2 as pb
from joulegate.router.v1 import router_service_pb2_grpc as pb_grpc
from services.router.catalogue import Candidate
from services.router.intake import Intake
from services.router.pipeline import model_not_found
from services.router.provider_watch import ProviderWatch
from services.router.ranking import explain, rank
from services.runtime.interceptors import Context


class RouterServicer(pb_grpc.RouterServiceServicer):
    """See router_service.proto."""

    def __init__(self, intake: Intake, watch: ProviderWatch) -> None:
        self._intake = intake
        self._watch = watch

    async def RankCandidates(self, request: pb.RankCandidatesRequest, context: Context) -> pb.RankCandidatesResponse:
        self._intake.caller(context)
        ranked = rank((await self._watch.catalogue()).candidates(request.request.model))
        if not ranked:
            raise model_not_found(request.request.model)
        return pb.RankCandidatesResponse(candidates=[_described(candidate) for candidate in ranked], explanation=explain(ranked))


def _described(candidate: Candidate) -> pb.Candidate:
    expected: duration_pb2.Duration | None = None
    if candidate.provider.HasField("time_to_first_event"):
        expected = candidate.provider.time_to_first_event
    return pb.Candidate(provider=candidate.provider.name, model=candidate.model, expected_time_to_first_token=expected)
