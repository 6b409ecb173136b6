"""What Anthropic answers: a message of blocks, whole or as events.

Text, thinking and calls have their places in OpenAI's message. Beside them, in `extra_json`: `thinking_blocks`, complete with signatures
(the name is LiteLLM's), `content_blocks`, those of any other type, such as what Anthropic's own tools did, and `citations`. In a stream
each of these blocks comes in one delta, once it is complete.
"""

from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import Raw

from joulegate.chat.v1 import chat_pb2
from services.dispatch.adapters.base import Reply
from services.dispatch.adapters.bodies import refusal, sse_events
from services.dispatch.adapters.events import CONTENT_FILTER, LENGTH, STOP, TOOL_CALLS, Chunks, extra
from services.dispatch.adapters.members import Members
from services.dispatch.failure import Failure, Kind
from services.wire.fields import encode, parse_object
from services.wire.sse import SseDecoder

_FINISH: Final = {
    "end_turn": STOP,
    "stop_sequence": STOP,
    "max_tokens": LENGTH,
    "model_context_window_exceeded": LENGTH,
    "tool_use": TOOL_CALLS,
    "refusal": CONTENT_FILTER,
}
# An error inside an answer of status 200 says only its type.
_STATUS_OF_TYPE: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_THOUGHTS: Final = frozenset({"thinking", "redacted_thinking"})
# What of an answer's own members goes back with the next turn.
KEEPSAKES: Final = frozenset({"caller", "content_blocks", "thinking_blocks"})


class _Delta(msgspec.Struct):
    type: str
    text: str = ""
    partial_json: str = ""
    thinking: str = ""
    signature: str = ""


class _News(msgspec.Struct, tag_field="type", tag="content_block_delta"):
    """What nearly every event of a stream is."""

    index: int
    delta: _Delta


_decode_news = msgspec.json.Decoder(_News).decode
_PLAIN_DELTAS: Final = frozenset({"text_delta", "input_json_delta", "thinking_delta", "signature_delta"})


def _news(document: bytes) -> _News:
    try:
        return _decode_news(document)
    except (ValueError, RecursionError):
        raise _broken("has a piece that makes no sense") from None


def _broken(what: str) -> Failure:
    return Failure(Kind.BROKEN, f"the provider's answer {what}")


def _refused(document: bytes) -> Failure:
    failure = refusal(document, 0)
    failure.http_status = _STATUS_OF_TYPE.get(failure.type, 0)
    return failure


def completion(body: bytes, reply: Reply) -> chat_pb2.ChatCompletion:
    """A whole answer."""
    answer = Members.parse(body)
    type = answer.text("type")
    if type == "error" or answer.raw("error") is not None:
        raise _refused(body)
    if type != "message":
        raise _broken("is no message")
    answer.skip("role")
    finish, finish_extra = _finish(answer)
    usage = _usage(answer.object("usage"))
    message = _message(answer.objects("content"))
    choice = chat_pb2.Choice(index=0, message=message, finish_reason=finish, extra_json=finish_extra)
    return chat_pb2.ChatCompletion(
        id=answer.text("id") or reply.id,
        created=reply.created,
        model=answer.text("model") or reply.model,
        choices=[choice],
        usage=usage,
        extra_json=answer.rest(),
    )


def _message(blocks: list[Members]) -> chat_pb2.Message:
    message = chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT)
    texts: list[str] = []
    reasoning: list[str] = []
    kept: dict[str, list[object]] = {}
    for block in blocks:
        whole = dict(block.all())
        type = block.text("type")
        if type == "text":
            texts.append(block.text("text"))
            kept.setdefault("citations", []).extend(citation.all() for citation in block.objects("citations"))
            if block.all():
                kept.setdefault("content_blocks", []).append(whole)
        elif type == "tool_use":
            message.tool_calls.append(_call(block, _text_of(block.raw("input"))))
        elif type in _THOUGHTS:
            reasoning.append(block.text("thinking"))
            kept.setdefault("thinking_blocks", []).append(whole)
        else:
            kept.setdefault("content_blocks", []).append(whole)
    if texts or not message.tool_calls:
        message.text = "".join(texts)
    if said := "".join(reasoning):
        message.reasoning_content = said
    message.extra_json = extra({name: values for name, values in kept.items() if values})
    return message


def _call(block: Members, arguments: str, index: int | None = None) -> chat_pb2.ToolCall:
    name, id = block.text("name"), block.text("id")
    if not name or not id:
        raise _broken("calls a tool without name or id")
    function = chat_pb2.FunctionCall(name=name, arguments=arguments)
    return chat_pb2.ToolCall(index=index, id=id, type="function", function=function, extra_json=block.rest())


def _text_of(raw: Raw | None) -> str:
    return "{}" if raw is None else bytes(raw).decode()


def _finish(answer: Members) -> tuple[chat_pb2.FinishReason.ValueType, bytes]:
    """The reason, and the choice's `extra_json`. A reason that OpenAI has no word for, such as `pause_turn`, is given as it is."""
    native = answer.text("stop_reason")
    if not native:
        raise _broken("ended without a reason")
    kept: dict[str, object] = {"native_finish_reason": native}
    for name in ("stop_sequence", "stop_details"):
        if (raw := answer.raw(name)) is not None:
            kept[name] = raw
    reason = _FINISH.get(native)
    if reason is None:
        return chat_pb2.FINISH_REASON_UNSPECIFIED, encode({"finish_reason": native, **kept})
    return reason, encode(kept)


def _usage(counts: Members) -> chat_pb2.Usage | None:
    """Anthropic's input excludes what the cache read and wrote, OpenAI's prompt includes them. Output includes thinking in both."""
    written_raw = counts.all().get("cache_creation_input_tokens")
    fresh, read, written = (counts.count(f"{name}input_tokens") for name in ("", "cache_read_", "cache_creation_"))
    output = counts.count("output_tokens")
    if fresh is None and output is None:
        return None
    details = counts.object("output_tokens_details")
    thought = details.count("thinking_tokens")
    prompt, output = (fresh or 0) + (read or 0) + (written or 0), output or 0
    by_time = counts.all().get("cache_creation")
    for_an_hour = counts.object("cache_creation").count("ephemeral_1h_input_tokens")
    kept: dict[str, object] = dict(counts.all())
    if written is not None:
        kept["cache_creation_input_tokens"] = written_raw
    if by_time is not None:
        kept["cache_creation"] = by_time
    if details.all():
        kept["output_tokens_details"] = details.all()
    return chat_pb2.Usage(
        prompt_tokens=prompt,
        completion_tokens=output,
        total_tokens=prompt + output,
        prompt_tokens_details=_prompt_details(read, written, for_an_hour),
        completion_tokens_details=None if thought is None else chat_pb2.CompletionTokensDetails(reasoning_tokens=thought),
        extra_json=extra({name: raw for name, raw in kept.items() if raw != Raw(b"null")}),
    )


def _prompt_details(read: int | None, written: int | None, for_an_hour: int | None) -> chat_pb2.PromptTokensDetails | None:
    """Absent when nothing is told of a prompt cache that was used."""
    if read is None and not written:
        return None
    return chat_pb2.PromptTokensDetails(cached_tokens=read, cache_write_tokens=written or None, cache_write_1h_tokens=for_an_hour or None)


class _Block:
    """A block of a stream that has begun and not ended. `call` is its place among the calls, -1 if it is none."""

    __slots__ = ("call", "json", "members", "signature", "text", "thinking", "type")

    def __init__(self, type: str, members: dict[str, Raw], call: int) -> None:
        self.type = type
        self.members = members
        self.call = call
        self.json: list[str] = []
        self.text: list[str] = []
        self.thinking: list[str] = []
        self.signature: list[str] = []

    def whole(self) -> dict[str, object]:
        """All members, with what the deltas added."""
        whole: dict[str, object] = dict(self.members)
        for name, pieces in (("text", self.text), ("thinking", self.thinking), ("signature", self.signature)):
            if pieces:
                whole[name] = Members({name: self.members[name]}).text(name) + "".join(pieces) if name in whole else "".join(pieces)
        if self.json and (said := "".join(self.json)).strip():
            try:
                whole["input"] = parse_object(said.encode())
            except ValueError:
                raise _broken("has a block whose input is no JSON object") from None
        return whole


class EventsDecoder:
    """A streamed answer. It is whole when `message_stop` came; the reason and the usage, which may be said in parts, are given then."""

    def __init__(self, reply: Reply) -> None:
        self.is_done = False
        self._sse = SseDecoder()
        self._chunks = Chunks(reply, reply.model)
        self._has_begun = False
        self._blocks: dict[int, _Block] = {}
        self._call_count = 0
        self._counts: dict[str, Raw] = {}
        self._end: dict[str, Raw] = {}
        self._end_rest: dict[str, Raw] = {}

    def feed(self, data: bytes) -> Iterator[chat_pb2.ChatEvent]:
        for event in sse_events(self._sse, data):
            if self.is_done:
                return
            yield from self._read(event.event, event.data)

    def close(self) -> Iterator[chat_pb2.ChatEvent]:
        # The last blank line may be missing; a piece of an event shows itself as no JSON.
        if self._sse.close():
            yield from self.feed(b"\n\n")
        if not self.is_done:
            raise Failure(Kind.BROKEN, "the stream ended before the answer was complete")

    def _read(self, name: str | None, document: bytes) -> Iterator[chat_pb2.ChatEvent]:
        if name == "content_block_delta":
            news = _news(document)
            if news.delta.type in _PLAIN_DELTAS:
                return self._piece(news)
        if name == "error":
            raise _refused(document)
        return self._rare(document)

    def _piece(self, news: _News) -> Iterator[chat_pb2.ChatEvent]:
        """Text, reasoning and arguments, which are passed on at once."""
        block, delta = self._block(news.index), news.delta
        if block.type == "text" and delta.type == "text_delta":
            if delta.text:
                yield self._chunks.text(delta.text)
        elif block.call >= 0 and delta.type == "input_json_delta":
            if delta.partial_json:
                block.json.append("")  # that there are some is all that is of interest later
                function = chat_pb2.FunctionCall(arguments=delta.partial_json)
                yield self._chunks.delta(chat_pb2.Message(tool_calls=[chat_pb2.ToolCall(index=block.call, function=function)]))
        elif delta.type == "thinking_delta":
            block.thinking.append(delta.thinking)
            if delta.thinking:
                yield self._chunks.delta(chat_pb2.Message(reasoning_content=delta.thinking))
        elif delta.type == "signature_delta":
            block.signature.append(delta.signature)
        elif delta.type == "input_json_delta":
            block.json.append(delta.partial_json)
        elif block.call < 0:
            block.text.append(delta.text)
        else:
            raise _broken("has text in the middle of a call")

    def _rare(self, document: bytes) -> Iterator[chat_pb2.ChatEvent]:
        """An event of another kind. Anthropic may add kinds, which say nothing to those who do not know them."""
        event = Members.parse(document)
        type = event.text("type")
        if type == "error":
            raise _refused(document)
        if not type:
            raise _broken("has an event without a type")
        if type == "message_start":
            yield self._start(event)
        elif type == "content_block_start":
            yield from self._begin(event)
        elif type == "content_block_delta":
            yield from self._odd_piece(event, document)
        elif type == "content_block_stop":
            index = event.count("index")
            self._block(-1 if index is None else index)
            yield from self._complete(self._blocks.pop(index or 0))
        elif type == "message_delta":
            said = event.object("delta")
            self._end |= {name: raw for name, raw in said.all().items() if raw != Raw(b"null")}
            self._add_counts(event)
            self._end_rest |= event.all()
        elif type == "message_stop":
            yield from self._stop()

    def _start(self, event: Members) -> chat_pb2.ChatEvent:
        if self._has_begun:
            raise _broken("begins twice")
        self._has_begun = True
        message = event.object("message")
        self._chunks.id = message.text("id") or self._chunks.id
        self._chunks.model = message.text("model") or self._chunks.model
        message.skip("type", "role", "content", "stop_reason", "stop_sequence", "stop_details")
        self._add_counts(message)
        opening = self._chunks.opening()
        opening.chunk.extra_json = message.rest()
        return opening

    def _begin(self, event: Members) -> Iterator[chat_pb2.ChatEvent]:
        index, begun = event.count("index"), event.object("content_block")
        if not self._has_begun or index is None or index in self._blocks:
            raise _broken("has a block out of its place")
        whole = dict(begun.all())
        type = begun.text("type")
        if not type:
            raise _broken("has a block without a type")
        if type == "tool_use":
            self._blocks[index] = _Block(type, whole, self._call_count)
            begun.skip("input")
            yield self._chunks.delta(chat_pb2.Message(tool_calls=[_call(begun, "", self._call_count)]))
            self._call_count += 1
            return
        self._blocks[index] = _Block(type, whole, -1)
        if type == "text" and (text := begun.text("text")):
            yield self._chunks.text(text)
        elif type == "thinking" and (thinking := begun.text("thinking")):
            yield self._chunks.delta(chat_pb2.Message(reasoning_content=thinking))

    def _odd_piece(self, event: Members, document: bytes) -> Iterator[chat_pb2.ChatEvent]:
        """A citation, or a piece of a kind that is not known, which goes through as it is; or a plain one without its event's name."""
        index, delta = event.count("index"), event.object("delta")
        self._block(-1 if index is None else index)
        whole = dict(delta.all())
        type = delta.text("type")
        if type in _PLAIN_DELTAS:
            yield from self._piece(_news(document))
        elif type == "citations_delta":
            yield self._beside({"citations": [delta.object("citation").all()]})
        else:
            yield self._beside({"content_deltas": [{"index": index, **whole}]})

    def _complete(self, block: _Block) -> Iterator[chat_pb2.ChatEvent]:
        if block.call >= 0:
            if not block.json:  # arguments that are none, or came with the beginning
                function = chat_pb2.FunctionCall(arguments=_text_of(Members(block.members).raw("input")))
                yield self._chunks.delta(chat_pb2.Message(tool_calls=[chat_pb2.ToolCall(index=block.call, function=function)]))
        elif block.type in _THOUGHTS:
            yield self._beside({"thinking_blocks": [block.whole()]})
        elif block.type == "text":
            if citations := Members(block.members).objects("citations"):
                yield self._beside({"citations": [citation.all() for citation in citations]})
        else:
            yield self._beside({"content_blocks": [block.whole()]})

    def _stop(self) -> Iterator[chat_pb2.ChatEvent]:
        if not self._has_begun or self._blocks:
            raise _broken("stops in the middle of a block")
        end = Members(self._end)
        reason, kept = _finish(end)
        usage = _usage(Members(self._counts))
        finish = self._chunks.finish(reason, "")
        finish.chunk.choices[0].extra_json = kept
        finish.chunk.extra_json = extra({**end.all(), **self._end_rest})
        self.is_done = True
        yield finish
        if usage is not None:
            yield self._chunks.usage(usage)

    def _add_counts(self, source: Members) -> None:
        """Counts are totals so far: a later one replaces an earlier one."""
        self._counts |= {name: raw for name, raw in source.object("usage").all().items() if raw != Raw(b"null")}

    def _block(self, index: int) -> _Block:
        block = self._blocks.get(index)
        if block is None:
            raise _broken("adds to a block that has not begun")
        return block

    def _beside(self, members: dict[str, object]) -> chat_pb2.ChatEvent:
        return self._chunks.delta(chat_pb2.Message(extra_json=encode(members)))
