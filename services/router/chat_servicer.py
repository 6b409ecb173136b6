"""The typed face: the same pipeline for gRPC clients."""

from collections.abc import AsyncIterator

from joulegate.chat.v1 import chat_pb2
from joulegate.chat.v1 import chat_service_pb2 as pb
from joulegate.chat.v1 import chat_service_pb2_grpc as pb_grpc
from services.router import rendering
from services.router.answer import Events
from services.router.intake import Intake
from services.router.openai_servicer import whole_completion
from services.router.pipeline import Pipeline
from services.runtime.interceptors import Context
from services.wire.assemble import chunks_of


class ChatServicer(pb_grpc.ChatServiceServicer):
    """See chat_service.proto."""

    def __init__(self, intake: Intake, pipeline: Pipeline) -> None:
        self._intake = intake
        self._pipeline = pipeline

    async def CompleteChat(self, request: pb.CompleteChatRequest, context: Context) -> pb.CompleteChatResponse:
        question = await self._intake.from_message(request.request, wants_stream=False, context=context)
        async with self._pipeline.answer(question) as answer:
            completion = await whole_completion(answer)
            receipt = await answer.receipt()
            await context.send_initial_metadata(rendering.source_headers(question, answer.source))
            return pb.CompleteChatResponse(completion=completion, receipt=receipt)

    async def StreamChat(self, request: pb.StreamChatRequest, context: Context) -> AsyncIterator[pb.StreamChatResponse]:
        question = await self._intake.from_message(request.request, wants_stream=True, context=context)
        async with self._pipeline.answer(question) as answer:
            await context.send_initial_metadata(rendering.source_headers(question, answer.source))
            async for events in answer.batches():
                yield pb.StreamChatResponse(chunks=_chunks(events))
            yield pb.StreamChatResponse(receipt=await answer.receipt())


def _chunks(events: Events) -> list[chat_pb2.ChatCompletionChunk]:
    chunks: list[chat_pb2.ChatCompletionChunk] = []
    for event in events:
        chunks += [event.chunk] if event.HasField("chunk") else chunks_of(event.completion, with_usage=True)
    return chunks
