"""Google Gemini's `generateContent` and `streamGenerateContent`, as the Developer API (v1beta) speaks them.

Its answers keep what OpenAI has no word for: signatures of thoughts are at `extra_content.google.thought_signature` of a message or a tool
call, as on Google's own OpenAI-compatible endpoint, and go back from there; images are at `images`; parts of other kinds at `parts`.
A prompt that was blocked is answered by a refusal with `content_filter`, since its tokens were counted all the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from joulegate.chat.v1 import chat_pb2
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch.adapters import gemini_request
from services.dispatch.adapters.base import Reply, StreamDecoder, WireRequest
from services.dispatch.adapters.bodies import WholeDecoder, json_or_none, listed, plain_text, sse_events
from services.dispatch.adapters.events import CONTENT_FILTER, Chunks, extra
from services.dispatch.adapters.gemini_answer import (
    TYPED_OF_ANSWER,
    Json,
    Messages,
    answer_extras,
    block_word,
    blocked_text,
    broken,
    candidate_extras,
    candidates_of,
    failure_text,
    finish,
    finish_word,
    read_answer,
    read_logprobs,
    read_usage,
    vendor_failure,
)
from services.dispatch.adapters.question import Question
from services.dispatch.failure import Failure, Kind
from services.wire.fields import encode
from services.wire.sse import SseDecoder

_HEADERS: Mapping[str, Mapping[str, str]] = {
    accept: {"content-type": "application/json", "accept": accept} for accept in ("application/json", "text/event-stream")
}
_MAX_TAIL_BYTES = 16 * 1024


class GeminiAdapter:
    """The dialect; it has no state."""

    models_path = "/v1beta/models?pageSize=1000"

    def authorization(self, key: str) -> Mapping[str, str]:
        return {"x-goog-api-key": key}

    def encode(self, request: chat_pb2.ChatRequest, model: str) -> WireRequest:
        question = Question(request, "Gemini", frozenset({"extra_content"}))
        body = gemini_request.members(question, model)
        method = "streamGenerateContent?alt=sse" if request.stream else "generateContent"
        accept = "text/event-stream" if request.stream else "application/json"
        return WireRequest(f"/v1beta/{_resource(model)}:{method}", _HEADERS[accept], encode(body), question.warnings)

    def decoder(self, request: chat_pb2.ChatRequest, reply: Reply) -> StreamDecoder:
        if not request.stream or "json" in reply.content_type:
            return WholeDecoder(lambda body: _completion(body, reply))
        return _EventDecoder(reply, request.n or 1)

    def decode_error(self, status: int, body: bytes) -> Failure:
        said = plain_text(body) or f"HTTP {status}"
        return vendor_failure(json_or_none(body), status) or Failure(Kind.REFUSED, said, http_status=status)

    def decode_models(self, body: bytes) -> Sequence[pb.Model]:
        entries = listed(body, "models")
        return [pb.Model(id=entry["name"].removeprefix("models/"), owned_by="google") for entry in entries if _can_chat(entry)]


def _resource(model: str) -> str:
    """The path of a model, which may be said with the collection it is in."""
    collection, slash, name = model.partition("/")
    if not slash or collection not in ("models", "tunedModels"):
        collection, name = "models", model
    return f"{collection}/{quote(name, safe='')}"


def _can_chat(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        return False
    methods = entry.get("supportedGenerationMethods")
    return isinstance(methods, list) and "generateContent" in methods


def _completion(body: bytes, reply: Reply) -> chat_pb2.ChatCompletion:
    answer = read_answer(body)
    messages = Messages(reply)
    choices = [_choice(index, candidate, messages) for index, candidate in candidates_of(answer)]
    if not choices:
        if not block_word(answer):
            raise broken("has no candidates")
        refusal = chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, refusal=blocked_text(answer))
        ending = extra({"native_finish_reason": block_word(answer)})
        choices = [chat_pb2.Choice(message=refusal, finish_reason=CONTENT_FILTER, extra_json=ending)]
    id, model = answer.get("responseId"), answer.get("modelVersion")
    return chat_pb2.ChatCompletion(
        id=id if isinstance(id, str) and id else reply.id,
        created=reply.created,
        model=model if isinstance(model, str) and model else reply.model,
        choices=choices,
        usage=read_usage(answer),
        extra_json=extra(answer_extras(answer)),
    )


def _choice(index: int, candidate: Json, messages: Messages) -> chat_pb2.Choice:
    message = messages.read(index, candidate, is_delta=False) or chat_pb2.Message(text="")
    message.role = chat_pb2.ROLE_ASSISTANT
    reason = finish_word(candidate)
    if not reason:
        raise broken("ended before it was complete")
    ending = finish(reason, messages.has_calls(index), candidate_extras(candidate))
    return chat_pb2.Choice(index=index, message=message, logprobs_json=read_logprobs(candidate), **ending)


class _EventDecoder:
    """Server-sent events, each an answer with a piece of it.

    There is no end mark but a finish reason for every candidate; some versions repeat theirs on every event, so it counts at the end only.
    """

    is_done = False

    def __init__(self, reply: Reply, candidate_count: int) -> None:
        self._sse = SseDecoder()
        self._tail = b""
        self._candidate_count = candidate_count
        self._chunks = Chunks(reply, reply.model)
        self._messages = Messages(reply)
        self._reasons: dict[int, str] = {}
        # What came with no delta to stand beside.
        self._left: dict[int, Json] = {}
        self._left_of_answer: Json = {}
        # The last event that counted tokens: each counts all so far.
        self._counted: Json = {}
        self._blocked: Json | None = None

    def feed(self, data: bytes) -> Iterator[chat_pb2.ChatEvent]:
        self._tail = b"" if data.endswith((b"\n\n", b"\r\n\r\n")) else (self._tail + data)[-_MAX_TAIL_BYTES:]
        for event in sse_events(self._sse, data):
            text = event.data.strip()
            if text:
                yield from self._read(read_answer(text))

    def close(self) -> Iterator[chat_pb2.ChatEvent]:
        tail = self._tail
        if self._sse.close():
            yield from self.feed(b"\n\n")
        if self._blocked is not None and not self._reasons:
            refusal = chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, refusal=blocked_text(self._blocked))
            yield self._chunk(chat_pb2.ChunkChoice(delta=refusal))
            yield self._chunks.finish(CONTENT_FILTER, block_word(self._blocked))
        elif len(self._reasons) < self._candidate_count or not all(self._reasons.values()):
            # An error after the headers may come without the dress of an event.
            error = failure_text(tail.replace(b"\r\n", b"\n").rpartition(b"\n\n")[2])
            raise error or Failure(Kind.BROKEN, "the stream ended before the answer was complete")
        usage = read_usage(self._counted)
        for index, reason in sorted(self._reasons.items()):
            ending = finish(reason, self._messages.has_calls(index), self._left.get(index, {}))
            yield self._chunk(chat_pb2.ChunkChoice(index=index, delta=chat_pb2.Message(), **ending))
        if usage is not None:
            yield self._chunks.usage(usage)

    def _read(self, answer: Json) -> Iterator[chat_pb2.ChatEvent]:
        id, model = answer.get("responseId"), answer.get("modelVersion")
        if isinstance(id, str) and id:
            self._chunks.id = id
        if isinstance(model, str) and model:
            self._chunks.model = model
        if answer.get("usageMetadata") is not None:
            self._counted = answer
        if not answer.keys() <= TYPED_OF_ANSWER:
            self._left_of_answer |= answer_extras(answer)
            self._blocked = answer if block_word(answer) else self._blocked
        for index, candidate in candidates_of(answer):
            yield from self._read_candidate(index, candidate)

    def _read_candidate(self, index: int, candidate: Json) -> Iterator[chat_pb2.ChatEvent]:
        delta = self._messages.read(index, candidate, is_delta=True)
        is_first = index not in self._reasons
        reason = finish_word(candidate)
        if reason or is_first:
            self._reasons[index] = reason
        if is_first:
            delta = delta or chat_pb2.Message(text="")
            delta.role = chat_pb2.ROLE_ASSISTANT
        extras = candidate_extras(candidate)
        logprobs = read_logprobs(candidate)
        if delta is None and logprobs is None:
            self._left[index] = self._left.get(index, {}) | extras
            return
        choice = chat_pb2.ChunkChoice(index=index, delta=delta or chat_pb2.Message(), logprobs_json=logprobs, extra_json=extra(extras))
        yield self._chunk(choice)

    def _chunk(self, choice: chat_pb2.ChunkChoice) -> chat_pb2.ChatEvent:
        event = chat_pb2.ChatEvent(
            chunk=chat_pb2.ChatCompletionChunk(id=self._chunks.id, created=self._chunks.created, model=self._chunks.model, choices=[choice])
        )
        if self._left_of_answer:
            event.chunk.extra_json = extra(self._left_of_answer)
            self._left_of_answer = {}
        return event
