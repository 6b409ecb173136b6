"""Routing, explained."""

from dataclasses import replace

import msgspec
from google.api import httpbody_pb2

from joulegate.router.v1 import router_service_pb2 as pb
from joulegate.router.v1 import router_service_pb2_grpc as pb_grpc
from services.router import explanation
from services.router.decision import Decision
from services.router.intake import Intake
from services.router.provider_watch import ProviderWatch
from services.router.question import Question
from services.router.selection import Selection
from services.runtime.interceptors import Context


class RouterServicer(pb_grpc.RouterServiceServicer):
    """See router_service.proto."""

    def __init__(self, intake: Intake, watch: ProviderWatch, selection: Selection) -> None:
        self._intake = intake
        self._watch = watch
        self._selection = selection

    async def RankCandidates(self, request: pb.RankCandidatesRequest, context: Context) -> pb.RankCandidatesResponse:
        question = await self._intake.from_message(request.request, wants_stream=request.request.stream, context=context)
        return explanation.message(await self._decision(question))

    async def ExplainRoute(self, request: pb.ExplainRouteRequest, context: Context) -> httpbody_pb2.HttpBody:
        question = await self._intake.from_json(request.body.data, context)
        document = explanation.document(await self._decision(question))
        return httpbody_pb2.HttpBody(content_type="application/json", data=msgspec.json.encode(document))

    async def _decision(self, question: Question) -> Decision:
        # Nobody is asked, so nothing would be learnt.
        asked = replace(question.asked, wants_figures=True, may_explore=False)
        return self._selection.choose(self._selection.gather(await self._watch.catalogue(), asked))
