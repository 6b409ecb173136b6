"""OpenAI's chat completions JSON and the messages of joulegate.chat.v1, both ways, losing nothing.

`encode(decode(body))` is the same JSON as `body`, with every number's text as it was, provided that what OpenAI's schema requires is there;
members that the schema requires of an answer are written even when a provider left them out. Requests are read strictly, answers leniently.
Lone surrogates, which JSON's grammar lets pass but no UTF-8 text can hold, make a document invalid.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import DecodeError, Raw

from joulegate.chat.v1 import chat_pb2
from services.wire.errors import InvalidAnswer, InvalidRequest
from services.wire.fields import (
    MOST_LEVELS,
    Field,
    Shape,
    Unfit,
    compile_shape,
    decode_elements,
    encode,
    many,
    parse_object,
    string,
    wrong_type,
)

# What OpenAI's schema requires, with its value when unset. The order is the order of writing.
_ALWAYS: Mapping[str, Mapping[str, Any]] = {
    "ChatRequest": {"model": "", "messages": ()},
    "ChatCompletion": {"id": "", "object": "chat.completion", "created": 0, "model": "", "choices": ()},
    "ChatCompletionChunk": {"id": "", "object": "chat.completion.chunk", "created": 0, "model": "", "choices": ()},
    "Choice": {"index": 0, "message": {}, "finish_reason": None},
    "ChunkChoice": {"index": 0, "delta": {}, "finish_reason": None},
    "Usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
}


def _content() -> Field:
    """`Message.content`: a string or an array of parts."""
    reader, write = many(compile_shape(chat_pb2.ContentPart.DESCRIPTOR, _ALWAYS, {}))
    read_parts = reader("parts", True)
    assert write is not None

    def read(raw: Raw, values: dict[str, Any], strict: bool) -> bool:
        first = memoryview(raw)[0]
        if first == ord('"'):
            values["text"] = string(raw)
        elif first == ord("["):
            parts: dict[str, Any] = {}
            read_parts(raw, parts, strict)
            values["parts"] = parts
        else:
            raise wrong_type("a string or an array of objects", raw)
        return True

    return Field(read, {"text": None, "parts": lambda content: write(content.parts)})


def _stop() -> Field:
    """`ChatRequest.stop`: a string or an array of strings."""

    def read(raw: Raw, values: dict[str, Any], strict: bool) -> bool:
        if memoryview(raw)[0] == ord('"'):
            values["stop"] = {"sequences": [string(raw)], "is_string": True}
            return True
        try:
            values["stop"] = {"sequences": [string(element) for element in decode_elements(raw)]}
        except (DecodeError, Unfit):
            raise wrong_type("a string or an array of strings", raw) from None
        return True

    def write(stop: chat_pb2.StopSequences) -> str | list[str]:
        return stop.sequences[0] if stop.is_string and stop.sequences else list(stop.sequences)

    return Field(read, {"stop": write})


_SPECIAL = {"Message.content": _content(), "ChatRequest.stop": _stop()}

_REQUEST = compile_shape(chat_pb2.ChatRequest.DESCRIPTOR, _ALWAYS, _SPECIAL)
_COMPLETION = compile_shape(chat_pb2.ChatCompletion.DESCRIPTOR, _ALWAYS, _SPECIAL)
_CHUNK = compile_shape(chat_pb2.ChatCompletionChunk.DESCRIPTOR, _ALWAYS, _SPECIAL)


def decode_request(body: bytes) -> chat_pb2.ChatRequest:
    """The request of a body. `InvalidRequest` where OpenAI's API would refuse its form; what parameters mean is not judged."""
    try:
        members = parse_object(body)
    except ValueError:
        raise InvalidRequest(
            f"We could not parse the JSON body of your request: a JSON object in UTF-8 is expected, of {MOST_LEVELS} levels at most."
        ) from None
    try:
        values = _REQUEST.read(members, strict=True)
    except Unfit as unfit:
        raise InvalidRequest(f"Invalid value for '{unfit.path}': {unfit.problem}", unfit.path) from None
    _require(values)
    return chat_pb2.ChatRequest(**values)


def _require(values: Mapping[str, Any]) -> None:
    if not values.get("model"):
        raise InvalidRequest("You must provide a model parameter.", "model")
    if "messages" not in values:
        raise InvalidRequest("Missing required parameter: 'messages'.", "messages")
    if not values["messages"]:
        raise InvalidRequest("Invalid value for 'messages': expected at least one message, but got an empty array instead.", "messages")
    for index, message in enumerate(values["messages"]):
        if "role" not in message:
            param = f"messages[{index}].role"
            raise InvalidRequest(f"Missing required parameter: '{param}'.", param)


def request_members(request: chat_pb2.ChatRequest) -> dict[str, Any]:
    """The JSON object of a request, as values that msgspec encodes."""
    return _REQUEST.write(request)


def encode_request(request: chat_pb2.ChatRequest) -> bytes:
    """The body for an OpenAI-compatible provider."""
    return encode(request_members(request))


def checked_request(request: chat_pb2.ChatRequest) -> chat_pb2.ChatRequest:
    """A request that did not come through `decode_request`, as if it had; `InvalidRequest` likewise.

    A typed client fills `extra_json` itself: it could be no JSON, or say `max_tokens` where the typed field says less.
    """
    try:
        body = encode_request(request)
    except (ValueError, RecursionError):
        raise InvalidRequest("An extra_json of the request is not a JSON object.") from None
    return decode_request(body)


def decode_completion(body: bytes) -> chat_pb2.ChatCompletion:
    """A whole answer. `InvalidAnswer` only if it is no JSON object."""
    return chat_pb2.ChatCompletion(**_read_answer(_COMPLETION, body))


def decode_chunk(data: bytes) -> chat_pb2.ChatCompletionChunk:
    """One chunk of a streamed answer. `InvalidAnswer` only if it is no JSON object."""
    return chat_pb2.ChatCompletionChunk(**_read_answer(_CHUNK, data))


def _read_answer(shape: Shape, document: bytes) -> dict[str, Any]:
    try:
        members = parse_object(document)
    except ValueError:
        raise InvalidAnswer("the provider's answer is not a JSON object in UTF-8") from None
    return shape.read(members, strict=False)


def encode_completion(completion: chat_pb2.ChatCompletion, *, additions: Mapping[str, bytes] | None = None) -> bytes:
    """The body of a whole answer. `additions` are further members as JSON text; they win."""
    members = _COMPLETION.write(completion)
    if additions:
        members.update((name, Raw(text)) for name, text in additions.items())
    return encode(members)


def encode_chunk(chunk: chat_pb2.ChatCompletionChunk, *, with_usage: bool = True, additions: Mapping[str, bytes] | None = None) -> bytes:
    """The data of one event. Without usage there is no such member at all, as OpenAI streams when it was not asked for."""
    members = _CHUNK.write(chunk)
    if not with_usage:
        members.pop("usage", None)
    if additions:
        members.update((name, Raw(text)) for name, text in additions.items())
    return encode(members)
