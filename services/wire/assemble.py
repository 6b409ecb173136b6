"""A stream's chunks into one answer, and an answer into the chunks of a natural stream."""

import re
from collections.abc import Iterable, Iterator

from google.protobuf.message import Message
from msgspec import Raw

from joulegate.chat.v1 import chat_pb2
from services.wire.fields import NULL, decode_elements, decode_members, decode_string, encode

# Members of chunks that a whole answer does not have: padding against traffic analysis, and the name of the chunk's type.
_STREAM_ONLY = frozenset({"obfuscation", "object"})

# Unmodelled texts that come in pieces: visible reasoning as OpenRouter names it, the older function_call's arguments, spoken audio.
_GROWING_TEXTS = frozenset({"reasoning", "arguments", "data", "transcript"})

# At most six words of at most 32 characters each, so that scripts without spaces come in pieces too. Nothing is lost between matches.
_PIECE = re.compile(r"(?:\s*+\S{1,32}+){1,6}|\s++")


class CompletionAssembler:
    """Folds the chunks of one stream, in order. Chunks are kept, so they must not change afterwards."""

    def __init__(self) -> None:
        self._id = ""
        self._created = 0
        self._model = ""
        self._usage: chat_pb2.Usage | None = None
        self._extra: dict[str, Raw] = {}
        self._choices: dict[int, _Choice] = {}

    def add(self, chunk: chat_pb2.ChatCompletionChunk) -> None:
        """Takes the next chunk."""
        self._id = self._id or chunk.id
        self._created = self._created or chunk.created
        self._model = chunk.model or self._model
        if chunk.HasField("usage"):
            self._usage = chunk.usage
        if chunk.extra_json:
            self._extra.update(decode_members(chunk.extra_json))
        for choice in chunk.choices:
            self._choices.setdefault(choice.index, _Choice()).add(choice)

    @property
    def is_complete(self) -> bool:
        """Whether there is a choice, and every choice seen has a finish reason."""
        return bool(self._choices) and all(choice.is_finished for choice in self._choices.values())

    def completion(self) -> chat_pb2.ChatCompletion:
        """The answer as far as it has come."""
        completion = chat_pb2.ChatCompletion(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=[choice.whole(index) for index, choice in sorted(self._choices.items())],
            usage=self._usage,
        )
        hidden = _STREAM_ONLY | _set_members(completion)
        extra = {name: raw for name, raw in self._extra.items() if name not in hidden and (name != "usage" or raw != NULL)}
        if extra:
            completion.extra_json = encode(extra)
        return completion


class _Pieces:
    """The unmodelled members of one object, each as the pieces that came."""

    def __init__(self) -> None:
        self._members: dict[str, list[Raw]] = {}

    def add(self, extra_json: bytes) -> None:
        if extra_json:
            for name, raw in decode_members(extra_json).items():
                self._members.setdefault(name, []).append(raw)

    def has(self, name: str) -> bool:
        return any(raw != NULL for raw in self._members.get(name, ()))

    def json(self, typed: Iterable[str]) -> bytes:
        """What `extra_json` says of the whole, without the names that typed fields hold: one chunk's null must not hide them."""
        members = {name: _joined(name, pieces) for name, pieces in self._members.items() if name not in typed}
        return encode(members) if members else b""


class _Choice:
    """One choice's pieces."""

    def __init__(self) -> None:
        self._deltas: list[chat_pb2.Message] = []
        self._logprobs: list[Raw] = []
        self._finish_reason = chat_pb2.FINISH_REASON_UNSPECIFIED
        self._extra = _Pieces()

    def add(self, choice: chat_pb2.ChunkChoice) -> None:
        self._deltas.append(choice.delta)
        self._finish_reason = choice.finish_reason or self._finish_reason
        if choice.HasField("logprobs_json"):
            self._logprobs.append(Raw(choice.logprobs_json))
        self._extra.add(choice.extra_json)

    @property
    def is_finished(self) -> bool:
        return bool(self._finish_reason) or self._extra.has("finish_reason")

    def whole(self, index: int) -> chat_pb2.Choice:
        choice = chat_pb2.Choice(index=index, message=_whole_message(self._deltas), finish_reason=self._finish_reason)
        if self._logprobs:
            choice.logprobs_json = bytes(_joined("logprobs", self._logprobs))
        choice.extra_json = self._extra.json(typed={"delta", *_set_members(choice)})
        return choice


def _set_members(message: Message) -> set[str]:
    """The JSON names of the fields that are set."""
    names = {field.name.removesuffix("_json") for field, _ in message.ListFields()}
    return names | {"content"} if names & {"text", "parts"} else names


def _whole_message(deltas: Iterable[chat_pb2.Message]) -> chat_pb2.Message:
    whole = chat_pb2.Message()
    contents: list[chat_pb2.Message] = []
    growing: dict[str, list[str]] = {}
    calls: list[chat_pb2.ToolCall] = []
    extra = _Pieces()
    for delta in deltas:
        for field, value in delta.ListFields():
            match field.name:
                case "text" | "parts":
                    contents.append(delta)
                case "refusal" | "reasoning_content":
                    growing.setdefault(field.name, []).append(value)
                case "tool_calls":
                    calls.extend(value)
                case "extra_json":
                    extra.add(value)
                case _:
                    setattr(whole, field.name, value)
    for name, texts in growing.items():
        setattr(whole, name, "".join(texts))
    _set_content(whole, contents)
    whole.tool_calls.extend(_whole_call(pieces) for pieces in _by_call(calls))
    whole.extra_json = extra.json(typed=_set_members(whole))
    return whole


def _set_content(whole: chat_pb2.Message, deltas: list[chat_pb2.Message]) -> None:
    """A string if all came as strings; else parts, with the strings as text parts between them."""
    if not any(delta.HasField("parts") for delta in deltas):
        if deltas:
            whole.text = "".join(delta.text for delta in deltas)
        return
    whole.parts.SetInParent()
    parts = whole.parts.parts
    follows_text = False
    for delta in deltas:
        if delta.HasField("parts"):
            parts.extend(delta.parts.parts)
            follows_text = False
        elif delta.text:
            if not follows_text:
                parts.add(type="text", text="")
            parts[-1].text += delta.text
            follows_text = True


def _by_call(deltas: Iterable[chat_pb2.ToolCall]) -> Iterator[list[chat_pb2.ToolCall]]:
    """The deltas of each call. Where a provider gives no index, an id opens a new call."""
    calls: dict[int, list[chat_pb2.ToolCall]] = {}
    last = -1
    for delta in deltas:
        if delta.HasField("index"):
            last = delta.index
        elif delta.id or not calls:
            last = max(calls, default=-1) + 1
        calls.setdefault(last, []).append(delta)
    return (pieces for _, pieces in sorted(calls.items()))


def _whole_call(deltas: list[chat_pb2.ToolCall]) -> chat_pb2.ToolCall:
    """Ids and names come whole, some providers repeat them as empty strings; only arguments grow."""
    whole = chat_pb2.ToolCall()
    arguments: list[str] = []
    extra, function_extra = _Pieces(), _Pieces()
    for delta in deltas:
        if delta.id:
            whole.id = delta.id
        if delta.type:
            whole.type = delta.type
        extra.add(delta.extra_json)
        if delta.HasField("function"):
            whole.function.SetInParent()
            if delta.function.name:
                whole.function.name = delta.function.name
            if delta.function.HasField("arguments"):
                arguments.append(delta.function.arguments)
            function_extra.add(delta.function.extra_json)
    if arguments:
        whole.function.arguments = "".join(arguments)
    if whole.HasField("function"):
        whole.function.extra_json = function_extra.json(typed=_set_members(whole.function))
    whole.extra_json = extra.json(typed={"index", *_set_members(whole)})
    return whole


def _joined(name: str, pieces: list[Raw], is_nested: bool = False) -> Raw:
    """One value from its pieces: arrays are appended, objects merged one level deep, growing texts joined; of others the last counts."""
    pieces = [piece for piece in pieces if piece != NULL] or pieces[-1:]
    if len(pieces) == 1:
        return pieces[0]
    kinds = {memoryview(piece)[0] for piece in pieces}
    if kinds == {ord("[")}:
        return Raw(encode([element for piece in pieces for element in decode_elements(piece)]))
    if kinds == {ord("{")} and not is_nested:
        members: dict[str, list[Raw]] = {}
        for piece in pieces:
            for member, raw in decode_members(piece).items():
                members.setdefault(member, []).append(raw)
        return Raw(encode({member: _joined(member, raws, is_nested=True) for member, raws in members.items()}))
    if kinds == {ord('"')} and name in _GROWING_TEXTS:
        return Raw(encode("".join(map(decode_string, pieces))))
    return pieces[-1]


def chunks_of(completion: chat_pb2.ChatCompletion, *, with_usage: bool) -> list[chat_pb2.ChatCompletionChunk]:
    """The stream that would have given `completion`; with usage it ends with the chunk of no choices."""
    head = chat_pb2.ChatCompletionChunk(id=completion.id, created=completion.created, model=completion.model)
    extra = {name: raw for name, raw in decode_members(completion.extra_json or b"{}").items() if name not in _STREAM_ONLY}
    if extra:
        head.extra_json = encode(extra)
    chunks = []
    for choice in completion.choices:
        for piece in _chunk_choices(choice):
            chunk = chat_pb2.ChatCompletionChunk()
            chunk.CopyFrom(head)
            chunk.choices.append(piece)
            chunks.append(chunk)
    if with_usage and completion.HasField("usage"):
        head.usage.CopyFrom(completion.usage)
        chunks.append(head)
    return chunks


def _chunk_choices(choice: chat_pb2.Choice) -> Iterator[chat_pb2.ChunkChoice]:
    """First the role, with the token probabilities, which do not follow our word boundaries; last the reason to finish."""
    first, *others = _deltas(choice.message)
    opening = chat_pb2.ChunkChoice(index=choice.index, delta=first)
    if choice.HasField("logprobs_json"):
        opening.logprobs_json = choice.logprobs_json
    yield opening
    for delta in others:
        yield chat_pb2.ChunkChoice(index=choice.index, delta=delta)
    closing = chat_pb2.ChunkChoice(index=choice.index, finish_reason=choice.finish_reason, extra_json=choice.extra_json)
    closing.delta.SetInParent()
    yield closing


def _deltas(message: chat_pb2.Message) -> Iterator[chat_pb2.Message]:
    head = chat_pb2.Message(role=message.role, extra_json=message.extra_json)
    for field, value in message.ListFields():
        if field.name in ("name", "tool_call_id"):
            setattr(head, field.name, value)
        elif field.name in ("text", "refusal", "reasoning_content"):
            setattr(head, field.name, "")
    yield head
    for name in ("reasoning_content", "text", "refusal"):
        for piece in _PIECE.findall(getattr(message, name)):
            yield chat_pb2.Message(**{name: piece})
    if message.HasField("parts"):
        yield chat_pb2.Message(parts=message.parts)
    for index, call in enumerate(message.tool_calls):
        opening = chat_pb2.ToolCall()
        opening.CopyFrom(call)
        opening.index = index
        if call.function.arguments:
            opening.function.arguments = ""
        yield chat_pb2.Message(tool_calls=[opening])
        if call.function.arguments:
            arguments = chat_pb2.FunctionCall(arguments=call.function.arguments)
            yield chat_pb2.Message(tool_calls=[chat_pb2.ToolCall(index=index, function=arguments)])
