"""Routing, explained."""

from google.protobuf import duration_pb2

from joulegate.router.v1 import router_service_pb2 as pb
from joulegate.router.v1 import router_service_pb2_grpc as pb_grpc
from services.router.catalogue import Candidate
from services.router.intake import Intake
from services.router.pipeline import usable_candidates
from services.router.provider_watch import ProviderWatch
from services.router.ranking import Ranking
from services.runtime.interceptors import Context


class RouterServicer(pb_grpc.RouterServiceServicer):
    """See router_service.proto."""

    def __init__(self, intake: Intake, watch: ProviderWatch, ranking: Ranking) -> None:
        self._intake = intake
        self._watch = watch
        self._ranking = ranking

    async def RankCandidates(self, request: pb.RankCandidatesRequest, context: Context) -> pb.RankCandidatesResponse:
        caller = await self._intake.caller(context)
        asked, strategy = request.request, self._intake.default_strategy
        candidates = usable_candidates(await self._watch.catalogue(), asked.model, caller)
        ranked = self._ranking.rank(candidates, strategy, streamed=asked.stream)
        return pb.RankCandidatesResponse(
            candidates=[_described(candidate) for candidate in ranked], explanation=self._ranking.explain(ranked, strategy)
        )


def _described(candidate: Candidate) -> pb.Candidate:
    expected: duration_pb2.Duration | None = None
    told = candidate.live.told
    if told is not None and told.HasField("time_to_first_event"):
        expected = told.time_to_first_event
    elif candidate.provider.HasField("time_to_first_event"):
        expected = candidate.provider.time_to_first_event
    return pb.Candidate(provider=candidate.provider.name, model=candidate.model, expected_time_to_first_token=expected)
