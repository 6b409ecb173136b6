"""The built-in provider `demo`: deterministic text that says what it is, so that every feature can be tried without a key.

It behaves as a real provider does towards its caller: chunks, usage, finish reasons, `n`, `stop` and token limits. A token is a word.
"""

import asyncio
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence

from joulegate.chat.v1 import chat_pb2
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch.backend import Batch
from services.dispatch.failure import Failure, Kind
from services.runtime.clock import Clock

MODEL = "demo"
# Of the question, in the answer.
MAX_ECHO = 400
MAX_CHOICES = 128
_WORDS_PER_CHUNK = 4
_WORD = re.compile(r"\S+\s*")
_MODEL = pb.Model(id=MODEL, owned_by="joulegate")


class DemoBackend:
    """Answers from the last user message alone."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def call(self, request: chat_pb2.ChatRequest, model: str, headers: Mapping[str, str]) -> "DemoAnswer":
        return DemoAnswer(request, model, int(self._clock.now()))

    async def list_models(self) -> Sequence[pb.Model]:
        return [_MODEL]


class DemoAnswer:
    """One answer, a batch at a time."""

    warnings = ()

    def __init__(self, request: chat_pb2.ChatRequest, model: str, created: int) -> None:
        self._request = request
        self._model = model
        self._created = created
        self._events: Iterator[chat_pb2.ChatEvent] | None = None
        self._ahead: chat_pb2.ChatEvent | None = None

    async def read(self) -> Batch:
        # Others get their turn between chunks, as they do while a real provider thinks.
        await asyncio.sleep(0)
        if self._events is None:
            self._events = answer(self._request, self._model, self._created)
            self._ahead = next(self._events)
        event, self._ahead = self._ahead, next(self._events, None)
        assert event is not None
        return Batch((event,), is_last=self._ahead is None)

    def close(self) -> None:
        pass


def answer(request: chat_pb2.ChatRequest, model: str, created: int) -> Iterator[chat_pb2.ChatEvent]:
    """The events of an answer. Raises Failure, as a real provider would, for another model or an impossible `n`."""
    if model != MODEL:
        raise Failure(
            Kind.REFUSED, f"The model '{model}' does not exist.", http_status=404, type="invalid_request_error", code="model_not_found"
        )
    count = request.n if request.HasField("n") else 1
    if not 1 <= count <= MAX_CHOICES:
        raise Failure(Kind.REFUSED, f"n must be between 1 and {MAX_CHOICES}.", http_status=400, type="invalid_request_error", param="n")
    texts = [_limited(f"{_text(request)}{f' (choice {index})' if index else ''}", request) for index in range(count)]
    prompt = sum(len(_text_of(message).split()) for message in request.messages)
    completion = sum(len(text.split()) for text, _ in texts)
    usage = chat_pb2.Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)
    identity = f"chatcmpl-demo-{_digest(request)}"
    if request.stream:
        yield from _chunks(texts, usage, identity, created)
        return
    choices = [
        chat_pb2.Choice(index=index, message=chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, text=text), finish_reason=reason)
        for index, (text, reason) in enumerate(texts)
    ]
    yield chat_pb2.ChatEvent(completion=chat_pb2.ChatCompletion(id=identity, created=created, model=MODEL, choices=choices, usage=usage))


_Limited = tuple[str, chat_pb2.FinishReason.ValueType]


def _chunks(texts: Sequence[_Limited], usage: chat_pb2.Usage, identity: str, created: int) -> Iterator[chat_pb2.ChatEvent]:
    def chunk(*choices: chat_pb2.ChunkChoice, usage: chat_pb2.Usage | None = None) -> chat_pb2.ChatEvent:
        return chat_pb2.ChatEvent(
            chunk=chat_pb2.ChatCompletionChunk(id=identity, created=created, model=MODEL, choices=choices, usage=usage)
        )

    for index, (text, reason) in enumerate(texts):
        yield chunk(chat_pb2.ChunkChoice(index=index, delta=chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, text="")))
        words = _WORD.findall(text)
        for start in range(0, len(words), _WORDS_PER_CHUNK):
            piece = "".join(words[start : start + _WORDS_PER_CHUNK])
            yield chunk(chat_pb2.ChunkChoice(index=index, delta=chat_pb2.Message(text=piece)))
        yield chunk(chat_pb2.ChunkChoice(index=index, delta=chat_pb2.Message(), finish_reason=reason))
    yield chunk(usage=usage)


def _text(request: chat_pb2.ChatRequest) -> str:
    asked = next((_text_of(message) for message in reversed(request.messages) if message.role == chat_pb2.ROLE_USER), "")
    asked = " ".join(asked.split())
    if len(asked) > MAX_ECHO:
        asked = asked[: MAX_ECHO - 1] + "…"
    return (
        f"This is Joulegate's demo provider: no model has read your message ({_digest(request)}). "
        f"You said: {asked or 'nothing'} "
        "Set a provider's key, or run Ollama, to get real answers."
    )


def _text_of(message: chat_pb2.Message) -> str:
    if message.HasField("parts"):
        return " ".join(part.text for part in message.parts.parts if part.HasField("text"))
    return message.text


def _digest(request: chat_pb2.ChatRequest) -> str:
    """Tells questions apart: different conversations must not look alike in demonstrations of the cache."""
    said = "\x00".join(_text_of(message) for message in request.messages)
    return hashlib.blake2b(f"{request.seed}\x00{said}".encode(), digest_size=4).hexdigest()


def _limited(text: str, request: chat_pb2.ChatRequest) -> _Limited:
    """The text up to the first stop sequence and the token limit, whichever comes first."""
    reason = chat_pb2.FINISH_REASON_STOP
    for sequence in request.stop.sequences:
        if sequence:
            text = text.partition(sequence)[0]
    limits = [getattr(request, name) for name in ("max_tokens", "max_completion_tokens") if request.HasField(name)]
    words = _WORD.findall(text)
    if limits and len(words) > (limit := max(0, min(limits))):
        text, reason = "".join(words[:limit]).rstrip(), chat_pb2.FINISH_REASON_LENGTH
    return text, reason
