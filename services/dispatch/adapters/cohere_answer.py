"""What Cohere answers: a message of blocks, or the events that build one."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec
from msgspec import DecodeError, Raw

from joulegate.chat.v1 import chat_pb2
from services.dispatch.adapters.base import Reply
from services.dispatch.adapters.bodies import refusal, sse_events
from services.dispatch.adapters.events import LENGTH, STOP, TOOL_CALLS, Chunks, native_finish
from services.dispatch.adapters.members import Members
from services.dispatch.failure import Failure, Kind
from services.wire.fields import encode
from services.wire.sse import SseDecoder

_FINISH: Final[Mapping[str, chat_pb2.FinishReason.ValueType]] = {
    "COMPLETE": STOP,
    "STOP_SEQUENCE": STOP,
    "MAX_TOKENS": LENGTH,
    "TOOL_CALL": TOOL_CALLS,
}
# These end an answer that is none. The statuses are those of the same errors before an answer.
_ERRORS: Final = {"ERROR": 500, "TIMEOUT": 504}
_decode_logprobs: Final[Callable[[Raw], list[float]]] = msgspec.json.Decoder(list[float]).decode


def completion(body: bytes, reply: Reply) -> chat_pb2.ChatCompletion:
    """A whole answer."""
    answer = Members.parse(body)
    native = answer.text("finish_reason")
    if not native:
        raise _failure(body, answer, "the provider's answer ended without a reason")
    reason, choice_extra = _finish(native, answer)
    message = _message(answer.object("message"))
    choice = chat_pb2.Choice(index=0, message=message, finish_reason=reason, logprobs_json=_logprobs(answer.objects("logprobs")))
    choice.extra_json = choice_extra
    return chat_pb2.ChatCompletion(
        id=answer.text("id") or reply.id,
        created=reply.created,
        model=reply.model,
        choices=[choice],
        usage=_usage(answer.object("usage")),
        extra_json=answer.rest(),
    )


def _message(said: Members) -> chat_pb2.Message:
    texts: list[str] = []
    thoughts: list[str] = []
    foreign: list[dict[str, Any]] = []
    for block in said.objects("content"):
        match block.text("type"):
            case "text":
                texts.append(block.text("text"))
            case "thinking":
                thoughts.append(block.text("thinking"))
            case type:
                foreign.append({"type": type} | block.all())
    said.skip("role")
    if plan := said.text("tool_plan"):
        thoughts.append(plan)
    message = chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, tool_calls=[_call(call) for call in said.objects("tool_calls")])
    if texts:
        message.text = "".join(texts)
    if thoughts:
        message.reasoning_content = "\n".join(thoughts)
    rest = said.all() | ({"content_blocks": foreign} if foreign else {})
    message.extra_json = encode(rest) if rest else b""
    return message


def _call(call: Members, index: int | None = None) -> chat_pb2.ToolCall:
    function = call.object("function")
    return chat_pb2.ToolCall(
        index=index,
        id=call.text("id"),
        type=call.text("type") or "function",
        function=chat_pb2.FunctionCall(name=function.text("name"), arguments=function.text("arguments"), extra_json=function.rest()),
        extra_json=call.rest(),
    )


class EventsDecoder:
    """A streamed answer. It is whole when `message-end` came."""

    def __init__(self, reply: Reply) -> None:
        self.is_done = False
        self._sse = SseDecoder()
        self._chunks = Chunks(reply, reply.model)
        # The place of each call among all, by Cohere's own index.
        self._calls: dict[int, int] = {}

    def feed(self, data: bytes) -> Iterator[chat_pb2.ChatEvent]:
        for event in sse_events(self._sse, data):
            if not self.is_done and event.data.strip():
                yield from self._events(event.data)

    def close(self) -> Iterator[chat_pb2.ChatEvent]:
        if self._sse.close():
            # The last blank line may be missing; a piece of an event shows itself as no JSON.
            yield from self.feed(b"\n\n")
        if not self.is_done:
            raise Failure(Kind.BROKEN, "the stream ended before the answer was complete")

    def _events(self, data: bytes) -> Iterable[chat_pb2.ChatEvent]:
        event = Members.parse(data)
        match event.text("type"):
            case "content-delta" | "content-start":
                return self._content(event)
            case "tool-call-delta":
                return self._arguments(event)
            case "tool-call-start":
                return self._call(event)
            case "tool-plan-delta":
                return self._plan(event)
            case "citation-start":
                return self._citation(event)
            case "message-start":
                return self._start(event)
            case "message-end":
                return self._end(event)
            case "" | "error":
                raise _failure(data, event, "an event of the stream has no type")
        # Ends of blocks, and what is for debugging, say nothing that a client of OpenAI's API waits for.
        return ()

    def _start(self, event: Members) -> Iterator[chat_pb2.ChatEvent]:
        self._chunks.id = event.text("id") or self._chunks.id
        yield self._chunks.opening()

    def _content(self, event: Members) -> Iterator[chat_pb2.ChatEvent]:
        content = event.object("delta").object("message").object("content")
        text, thinking = content.text("text"), content.text("thinking")
        logprobs = _logprobs([event.object("logprobs")]) if event.has("logprobs") else None
        if thinking:
            yield self._chunks.delta(chat_pb2.Message(reasoning_content=thinking))
        if text or logprobs:
            news = self._chunks.text(text)
            if logprobs is not None:
                news.chunk.choices[0].logprobs_json = logprobs
            yield news

    def _plan(self, event: Members) -> Iterator[chat_pb2.ChatEvent]:
        if plan := event.object("delta").object("message").text("tool_plan"):
            yield self._chunks.delta(chat_pb2.Message(reasoning_content=plan))

    def _call(self, event: Members) -> Iterator[chat_pb2.ChatEvent]:
        place = self._calls.setdefault(event.count("index") or 0, len(self._calls))
        call = _call(event.object("delta").object("message").object("tool_calls"), place)
        if not (call.id and call.function.name):
            raise Failure(Kind.BROKEN, "the provider's answer begins a call without an id or a name")
        yield self._chunks.delta(chat_pb2.Message(tool_calls=[call]))

    def _arguments(self, event: Members) -> Iterator[chat_pb2.ChatEvent]:
        place = self._calls.get(event.count("index") or 0)
        if place is None:
            raise Failure(Kind.BROKEN, "the provider's answer goes on with a call that it did not begin")
        function = event.object("delta").object("message").object("tool_calls").object("function")
        if piece := function.text("arguments"):
            call = chat_pb2.ToolCall(index=place, function=chat_pb2.FunctionCall(arguments=piece))
            yield self._chunks.delta(chat_pb2.Message(tool_calls=[call]))

    def _citation(self, event: Members) -> Iterator[chat_pb2.ChatEvent]:
        citation = event.object("delta").object("message").raw("citations")
        if citation is not None:
            yield self._chunks.delta(chat_pb2.Message(extra_json=encode({"citations": [citation]})))

    def _end(self, event: Members) -> Iterator[chat_pb2.ChatEvent]:
        delta = event.object("delta")
        native = delta.text("finish_reason")
        if not native:
            raise Failure(Kind.BROKEN, "the provider's answer ended without a reason")
        reason, choice_extra = _finish(native, delta)
        usage = _usage(delta.object("usage"))
        ending = self._chunks.finish(reason, "")
        ending.chunk.choices[0].extra_json = choice_extra
        ending.chunk.extra_json = delta.rest()
        yield ending
        if usage is not None:
            yield self._chunks.usage(usage)
        self.is_done = True


def _failure(document: bytes, answer: Members, otherwise: str) -> Failure:
    """What stands where an answer should: an error, whose message is a text, or nothing that makes sense."""
    said = answer.raw("message")
    if answer.has("error") or (said is not None and memoryview(said)[0] == ord('"')):
        return refusal(document, 500)
    return Failure(Kind.BROKEN, otherwise)


def _finish(native: str, said: Members) -> tuple[chat_pb2.FinishReason.ValueType, bytes]:
    """The reason, and the choice's `extra_json`. Raises Failure where the answer ended in an error."""
    if native in _ERRORS:
        message = said.text("error") or f"the provider ended its answer with {native}"
        raise Failure(Kind.REFUSED, message, http_status=_ERRORS[native], code=native)
    reason = _FINISH.get(native)
    if reason is None:
        return chat_pb2.FINISH_REASON_UNSPECIFIED, encode({"finish_reason": native, "native_finish_reason": native})
    return reason, native_finish(native)


def _usage(usage: Members) -> chat_pb2.Usage | None:
    """All tokens; those that are billed, which are fewer, stay under Cohere's name."""
    kept = usage.all().copy()
    tokens, billed = usage.object("tokens"), usage.object("billed_units")
    prompt, output = (_first(tokens.count(name), billed.count(name)) for name in ("input_tokens", "output_tokens"))
    if prompt is None and output is None:
        return None
    prompt, output = prompt or 0, output or 0
    cached = usage.count("cached_tokens")
    rest = {name: raw for name, raw in kept.items() if name not in ("tokens", "cached_tokens")}
    return chat_pb2.Usage(
        prompt_tokens=prompt,
        completion_tokens=output,
        total_tokens=prompt + output,
        prompt_tokens_details=None if cached is None else chat_pb2.PromptTokensDetails(cached_tokens=cached),
        extra_json=encode(rest) if rest else b"",
    )


def _first(count: int | None, otherwise: int | None) -> int | None:
    return otherwise if count is None else count


def _logprobs(items: list[Members]) -> bytes | None:
    """OpenAI's object of Cohere's list, whose items are pieces of text, mostly of one token; of several, the product counts."""
    content: list[dict[str, Any]] = []
    for item in items:
        raw, text = item.raw("logprobs"), item.text("text")
        if raw is None:
            continue
        try:
            logprob = sum(_decode_logprobs(raw))
        except DecodeError:
            raise Failure(Kind.BROKEN, "the provider's answer makes no sense: 'logprobs' is not a list of numbers") from None
        content.append({"token": text, "logprob": logprob, "bytes": list(text.encode()), "top_logprobs": []} | item.all())
    return encode({"content": content, "refusal": None}) if content else None
