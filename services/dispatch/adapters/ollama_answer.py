"""What an Ollama answers: one JSON object, or one per line, the last of which says that it is done."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from msgspec import Raw

from joulegate.chat.v1 import chat_pb2
from services.dispatch.adapters.base import Reply
from services.dispatch.adapters.bodies import refusal
from services.dispatch.adapters.events import LENGTH, STOP, TOOL_CALLS, Chunks, native_finish
from services.dispatch.adapters.members import Members
from services.dispatch.failure import Failure, Kind
from services.wire.fields import decode_string, encode
from services.wire.ndjson import LineDecoder, LineTooLarge

# An error inside an answer says no status. The same error before an answer has this one.
_STATUS: Final = 500
_DURATIONS: Final = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")
# What OpenAI's schema requires of a token's probability.
_LOGPROB: Final = {"bytes": Raw(b"null"), "top_logprobs": Raw(b"[]")}
# A model that is loaded or put away on request has nothing to say, and has said it.
_FINISH: Final = {"stop": STOP, "length": LENGTH, "load": STOP, "unload": STOP}


def created_of(timestamp: str, otherwise: int) -> int:
    """Seconds since 1970 of a time such as 2025-01-31T08:30:00.123456789Z; one without a zone is in UTC."""
    try:
        time = datetime.fromisoformat(timestamp)
        return max(0, int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()))
    except (ValueError, OverflowError):
        return otherwise


def completion(body: bytes, reply: Reply) -> chat_pb2.ChatCompletion:
    """A whole answer."""
    answer = _answer(body)
    if not answer.truth("done"):
        raise Failure(Kind.BROKEN, "the provider's answer is not complete")
    said = answer.object("message")
    message = chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT)
    said.skip("role")
    message.text = said.text("content")
    if thinking := said.text("thinking"):
        message.reasoning_content = thinking
    message.tool_calls.extend(_calls(said, reply.id, None))
    message.extra_json = said.rest()
    choice = chat_pb2.Choice(index=0, message=message, logprobs_json=_logprobs(answer))
    choice.finish_reason, choice.extra_json = _finish(answer, bool(message.tool_calls))
    return chat_pb2.ChatCompletion(
        id=reply.id,
        created=created_of(answer.text("created_at"), reply.created),
        model=answer.text("model"),
        usage=_usage(answer),
        choices=[choice],
        extra_json=answer.rest(),
    )


class LinesDecoder:
    """A streamed answer. It is whole when a line said that it is done."""

    def __init__(self, reply: Reply) -> None:
        self.is_done = False
        self._lines = LineDecoder()
        self._reply = reply
        self._chunks = Chunks(reply, reply.model)
        self._has_begun = False
        self._call_count = 0

    def feed(self, data: bytes) -> Iterator[chat_pb2.ChatEvent]:
        try:
            lines = self._lines.feed(data)
        except LineTooLarge as problem:
            raise Failure(Kind.BROKEN, str(problem)) from None
        for line in lines:
            if not self.is_done:
                yield from self._events(line)

    def close(self) -> Iterator[chat_pb2.ChatEvent]:
        # The last line end may be missing; a piece of a line shows itself as no JSON.
        yield from self.feed(b"\n")
        if not self.is_done:
            raise Failure(Kind.BROKEN, "the stream ended before the answer was complete")

    def _events(self, line: bytes) -> Iterator[chat_pb2.ChatEvent]:
        answer = _answer(line)
        is_last = answer.truth("done")
        if self._has_begun:
            answer.skip("created_at", "model")
        else:
            self._chunks.created = created_of(answer.text("created_at"), self._reply.created)
            self._chunks.model = answer.text("model") or self._reply.model
            self._has_begun = True
            yield self._chunks.opening()
        if is_last:
            yield from self._end(answer)
            return
        event, rest = self._news(answer), answer.rest()
        if event is None and rest:
            event = self._chunks.delta(chat_pb2.Message())
        if event is not None:
            event.chunk.extra_json = rest
            yield event

    def _news(self, answer: Members) -> chat_pb2.ChatEvent | None:
        """What a line adds to the message; None for nothing."""
        said = answer.object("message")
        said.skip("role")
        text, thinking = said.text("content"), said.text("thinking")
        calls = _calls(said, self._reply.id, self._call_count)
        self._call_count += len(calls)
        rest, logprobs = said.rest(), _logprobs(answer)
        if text and not (thinking or calls or rest or logprobs):
            return self._chunks.text(text)
        if not (text or thinking or calls or rest or logprobs):
            return None
        delta = chat_pb2.Message(tool_calls=calls, extra_json=rest)
        if text:
            delta.text = text
        if thinking:
            delta.reasoning_content = thinking
        event = self._chunks.delta(delta)
        if logprobs is not None:
            event.chunk.choices[0].logprobs_json = logprobs
        return event

    def _end(self, answer: Members) -> Iterator[chat_pb2.ChatEvent]:
        if (event := self._news(answer)) is not None:
            yield event
        reason, native = _finish(answer, self._call_count > 0)
        usage = _usage(answer)
        event = self._chunks.finish(reason, "")
        event.chunk.choices[0].extra_json = native
        event.chunk.extra_json = answer.rest()
        yield event
        if usage is not None:
            yield self._chunks.usage(usage)
        self.is_done = True


def _answer(document: bytes) -> Members:
    """An object of an answer. An error may stand in its place, even in the middle of a stream."""
    answer = Members.parse(document)
    if answer.raw("error") is not None:
        raise refusal(document, _STATUS)
    return answer


def _calls(said: Members, id: str, first_index: int | None) -> list[chat_pb2.ToolCall]:
    """The calls of a message, each of them whole; in a stream with the place that each has among all calls."""
    calls = []
    for place, call in enumerate(said.objects("tool_calls"), start=first_index or 0):
        function = call.object("function")
        name, arguments = function.text("name"), function.raw("arguments") or Raw(b"{}")
        if not name:
            raise Failure(Kind.BROKEN, "the provider's answer calls a function without a name")
        function.skip("index")  # the place within its line: not the place among all
        calls.append(
            chat_pb2.ToolCall(
                index=None if first_index is None else place,
                id=call.text("id") or f"call_{id.removeprefix('chatcmpl-')}_{place}",
                type=call.text("type") or "function",
                function=chat_pb2.FunctionCall(name=name, arguments=_text_of(arguments), extra_json=function.rest()),
                extra_json=call.rest(),
            )
        )
    return calls


def _text_of(arguments: Raw) -> str:
    """Arguments are an object here and text at OpenAI; some that imitate Ollama send the text."""
    try:
        return decode_string(arguments) if memoryview(arguments)[0] == ord('"') else bytes(arguments).decode()
    except ValueError:
        raise Failure(Kind.BROKEN, "the provider's answer makes no sense: 'arguments' is no text") from None


def _logprobs(answer: Members) -> bytes | None:
    """OpenAI's object of the list that Ollama gives; the elements are alike."""
    if not answer.has("logprobs"):
        return None
    elements = [_LOGPROB | element.all() for element in answer.objects("logprobs")]
    return encode({"content": elements, "refusal": None})


def _finish(answer: Members, has_calls: bool) -> tuple[chat_pb2.FinishReason.ValueType, bytes]:
    """The reason, and the choice's `extra_json`. Ollama has no word of its own for an end at calls."""
    native = answer.text("done_reason")
    if not native:
        raise Failure(Kind.BROKEN, "the provider's answer ended without a reason")
    reason = _FINISH.get(native)
    if reason is None:
        return chat_pb2.FINISH_REASON_UNSPECIFIED, encode({"finish_reason": native, "native_finish_reason": native})
    return (TOOL_CALLS if reason == STOP and has_calls else reason), native_finish(native)


def _usage(answer: Members) -> chat_pb2.Usage | None:
    """The counts, with the durations, in nanoseconds, under Ollama's own names. A prompt that was kept from before may have no count."""
    prompt, output = answer.count("prompt_eval_count"), answer.count("eval_count")
    if prompt is None and output is None:
        return None
    durations = {name: raw for name in _DURATIONS if (raw := answer.raw(name)) is not None}
    prompt, output = prompt or 0, output or 0
    return chat_pb2.Usage(
        prompt_tokens=prompt,
        completion_tokens=output,
        total_tokens=prompt + output,
        extra_json=encode(durations) if durations else b"",
    )
