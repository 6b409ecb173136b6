"""OpenAI's REST API: bytes in, bytes out."""

import json
import time
from collections.abc import AsyncIterator

from google.api import httpbody_pb2

from joulegate.chat.v1 import chat_pb2
from joulegate.openai.v1 import openai_service_pb2 as pb
from joulegate.openai.v1 import openai_service_pb2_grpc as pb_grpc
from services.router import rendering
from services.router.answer import Answer
from services.router.catalogue import ListedModel
from services.router.intake import Intake
from services.router.pipeline import Pipeline
from services.router.provider_watch import ProviderWatch
from services.router.question import Question
from services.router.slate import Slates, model_not_found
from services.runtime.interceptors import Context
from services.wire.assemble import CompletionAssembler

JSON = "application/json"
EVENT_STREAM = "text/event-stream; charset=utf-8"


class OpenAIServicer(pb_grpc.OpenAIServiceServicer):
    """See openai_service.proto."""

    def __init__(self, intake: Intake, pipeline: Pipeline, watch: ProviderWatch, slates: Slates) -> None:
        self._intake = intake
        self._pipeline = pipeline
        self._watch = watch
        self._slates = slates

    async def CreateChatCompletion(self, request: pb.CreateChatCompletionRequest, context: Context) -> AsyncIterator[httpbody_pb2.HttpBody]:
        question = await self._intake.from_json(request.body.data, context)
        async with self._pipeline.answer(question) as answer:
            if question.wants_stream:
                async for body in _streamed(question, answer, context):
                    yield body
            else:
                yield await _whole(question, answer, context)

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> httpbody_pb2.HttpBody:
        caller = await self._intake.caller(context)
        catalogue = await self._watch.catalogue()
        models = [*catalogue.models_for(caller), *self._slates.listed(catalogue, caller)]
        return _json({"object": "list", "data": [_model(listed) for listed in models]})

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> httpbody_pb2.HttpBody:
        caller = await self._intake.caller(context)
        catalogue = await self._watch.catalogue()
        listed = catalogue.model(request.model, caller) or self._slates.listed_as(catalogue, request.model, caller)
        if listed is None:
            raise model_not_found(request.model)
        return _json(_model(listed))


async def _whole(question: Question, answer: Answer, context: Context) -> httpbody_pb2.HttpBody:
    completion = await whole_completion(answer)
    receipt, source = await answer.receipt(), answer.source
    headers = rendering.source_headers(question, source) + rendering.figure_headers(receipt)
    await context.send_initial_metadata(headers)
    latency_s = time.monotonic() - question.arrived_at
    return httpbody_pb2.HttpBody(content_type=JSON, data=rendering.whole(completion, source, receipt, latency_s))


async def _streamed(question: Question, answer: Answer, context: Context) -> AsyncIterator[httpbody_pb2.HttpBody]:
    headers = [*rendering.source_headers(question, answer.source), ("cache-control", "no-cache")]
    await context.send_initial_metadata(headers)
    async for data in rendering.frames(answer, question.request.stream_options.include_usage):
        yield httpbody_pb2.HttpBody(content_type=EVENT_STREAM, data=data)


async def whole_completion(answer: Answer) -> chat_pb2.ChatCompletion:
    """All of an answer as one completion."""
    assembler: CompletionAssembler | None = None
    async for events in answer.batches():
        for event in events:
            if event.HasField("completion"):
                return event.completion
            assembler = assembler or CompletionAssembler()
            assembler.add(event.chunk)
    return (assembler or CompletionAssembler()).completion()


def _model(listed: ListedModel) -> dict[str, object]:
    model = listed.model
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by or listed.providers[0],
        "providers": listed.providers,
    }


def _json(document: object) -> httpbody_pb2.HttpBody:
    return httpbody_pb2.HttpBody(content_type=JSON, data=json.dumps(document).encode())
