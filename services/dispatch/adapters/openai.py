"""OpenAI's chat completions, as OpenAI and most others speak it.

What differs from what the user sent: `model` is the target's; a streamed request always asks for usage, since the books need it, and the
router takes the usage chunk out again for a user who did not ask; and what this vendor spells otherwise (see `variants` and `spelling`).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from joulegate.chat.v1 import chat_pb2
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch.adapters.base import Reply, StreamDecoder, WireRequest
from services.dispatch.adapters.bills import BilledDecoder
from services.dispatch.adapters.bodies import WholeDecoder, json_or_none, listed, plain_text, sse_events, word
from services.dispatch.adapters.spelling import beside, read_message, read_reason, read_usage, spell_request, usage_of
from services.dispatch.adapters.variants import OPENAI, Variant
from services.dispatch.failure import Failure, Kind
from services.wire.errors import InvalidAnswer
from services.wire.fields import NULL, decode_members, encode
from services.wire.openai import decode_chunk, decode_completion
from services.wire.sse import SseDecoder

_HEADERS: Mapping[str, Mapping[str, str]] = {
    accept: {"content-type": "application/json", "accept": accept} for accept in ("application/json", "text/event-stream")
}

# An error inside an answer of status 200 carries its status in `code`, or only its type.
_STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
}


class OpenAIAdapter:
    """The dialect as one vendor speaks it."""

    def __init__(self, variant: Variant = OPENAI) -> None:
        self._variant = variant
        self.models_path = variant.models_path

    def authorization(self, key: str) -> Mapping[str, str]:
        return {"authorization": f"Bearer {key}"}

    def encode(self, request: chat_pb2.ChatRequest, model: str) -> WireRequest:
        members, warnings = spell_request(request, self._variant)
        members["model"] = model
        accept = "text/event-stream" if request.stream else "application/json"
        return WireRequest("/chat/completions", _HEADERS[accept], encode(members), warnings)

    def decoder(self, request: chat_pb2.ChatRequest, reply: Reply) -> StreamDecoder:
        # Some answer with JSON although a stream was asked for.
        is_whole = not request.stream or "json" in reply.content_type
        decoder = WholeDecoder(_completion) if is_whole else _ChunkDecoder(request.n or 1)
        bill = self._variant.bill
        return decoder if bill is None else BilledDecoder(decoder, bill)

    def decode_error(self, status: int, body: bytes) -> Failure:
        said = plain_text(body) or f"HTTP {status}"
        return _vendor_failure(json_or_none(body), status) or Failure(Kind.REFUSED, said, http_status=status)

    def decode_models(self, body: bytes) -> Sequence[pb.Model]:
        return [_model(entry) for entry in listed(body, "data", is_bare_allowed=True) if isinstance(entry.get("id"), str)]


def _completion(body: bytes) -> chat_pb2.ChatCompletion:
    try:
        completion = decode_completion(body)
    except InvalidAnswer as invalid:
        raise Failure(Kind.BROKEN, str(invalid)) from None
    _raise_error_member(completion.extra_json)
    if not completion.choices:
        raise Failure(Kind.BROKEN, "the provider's answer has no choices")
    for choice in completion.choices:
        read_message(choice.message)
        read_reason(choice)
    if completion.HasField("usage"):
        read_usage(completion.usage)
    return completion


class _ChunkDecoder:
    """Server-sent events. The stream is whole when `[DONE]` came, or the body ended after every choice had a finish reason."""

    def __init__(self, choice_count: int) -> None:
        self.is_done = False
        self._sse = SseDecoder()
        self._choice_count = choice_count
        self._seen: set[int] = set()
        self._finished: set[int] = set()
        # Whether thoughts came as parts of the content: the rest of the content is then a list too.
        self._has_thoughts = False

    def feed(self, data: bytes) -> Iterator[chat_pb2.ChatEvent]:
        for event in sse_events(self._sse, data):
            text = event.data.strip()
            if self.is_done or not text:
                continue
            if text == b"[DONE]":
                self.is_done = True
            elif event.event == "error":
                body = json_or_none(text)
                raise _vendor_failure(body, 0) or _vendor_failure({"error": body}, 0) or Failure(Kind.REFUSED, plain_text(text))
            else:
                yield self._chunk(text)

    def close(self) -> Iterator[chat_pb2.ChatEvent]:
        if self._sse.close():
            # The last blank line is often forgotten; a piece of an event shows itself as no JSON.
            yield from self.feed(b"\n\n")
        is_whole = len(self._finished) >= self._choice_count and self._finished == self._seen
        if not (self.is_done or is_whole):
            raise Failure(Kind.BROKEN, "the stream ended before the answer was complete")

    def _chunk(self, data: bytes) -> chat_pb2.ChatEvent:
        try:
            chunk = decode_chunk(data)
        except InvalidAnswer as invalid:
            raise Failure(Kind.BROKEN, str(invalid)) from None
        # The bytes are searched first: of the pieces of a text, hardly one needs more than reading.
        if b'"error"' in data:
            _raise_error_member(chunk.extra_json)
        if b'"x_groq"' in data:
            _read_beside(chunk)
        if b'"reasoning"' in data or b'"text"' in data or b'"thinking"' in data:
            for choice in chunk.choices:
                self._has_thoughts = read_message(choice.delta, self._has_thoughts)
        if b"_tokens" in data and chunk.HasField("usage"):
            read_usage(chunk.usage)
        for choice in chunk.choices:
            self._seen.add(choice.index)
            if choice.finish_reason:
                self._finished.add(choice.index)
            elif b"finish_reason" in choice.extra_json and _has_unknown_reason(choice):
                read_reason(choice)
                self._finished.add(choice.index)
        event = chat_pb2.ChatEvent()
        event.chunk.CopyFrom(chunk)
        return event


def _has_unknown_reason(choice: chat_pb2.ChunkChoice) -> bool:
    """Whether the codec kept a finish reason, other than null, because its type does not know the value."""
    return decode_members(choice.extra_json).get("finish_reason", NULL) != NULL


def _raise_error_member(extra_json: bytes) -> None:
    """Some say `{"error": ...}` or `{"object": "error", ...}` with status 200, in a body or in the middle of a stream."""
    if b'"error"' in extra_json and (failure := _vendor_failure(json_or_none(extra_json), 0)):
        raise failure


def _read_beside(chunk: chat_pb2.ChatCompletionChunk) -> None:
    groq = beside(chunk)
    if groq.get("error"):
        raise _vendor_failure(groq, 0) or Failure(Kind.REFUSED, "an error in the middle of the answer")
    if "usage" in groq and not chunk.HasField("usage") and (usage := usage_of(groq["usage"])):
        chunk.usage.CopyFrom(usage)


def _vendor_failure(body: Any, status: int) -> Failure | None:
    """The error in a decoded body, in any of the shapes vendors use; None when there is none."""
    if isinstance(body, list):
        body = body[0] if body else None
    if not isinstance(body, dict):
        return None
    error = body.get("error") or (body if status or body.get("object") == "error" else None)
    if isinstance(error, str):
        error = {"message": error, "type": body.get("type"), "code": body.get("code")}
    if not isinstance(error, dict):
        return None
    message = error.get("message") or error.get("detail")
    type, param, code = (word(error.get(name)) for name in ("type", "param", "code"))
    text = message if isinstance(message, str) else encode(message or body).decode()
    return Failure(Kind.REFUSED, text, http_status=status or _status_of(code, type), type=type, param=param, code=code)


def _status_of(code: str, type: str) -> int:
    if re.fullmatch(r"[45]\d\d", code):
        return int(code)
    return _STATUS_OF_TYPE.get(type) or _STATUS_OF_TYPE.get(code, 0)


def _model(entry: dict[str, Any]) -> pb.Model:
    created = entry.get("created")
    known = created if type(created) is int and 0 <= created < 1 << 63 else 0  # true is an int to isinstance
    return pb.Model(id=entry["id"], owned_by=word(entry.get("owned_by")), created=known)
