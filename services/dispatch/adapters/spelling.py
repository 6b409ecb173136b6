"""OpenAI's words as others spell them: requests by the table of `variants`, answers by what they themselves say.

Reasoning that is called `reasoning`, or stands among the parts of the content, is `reasoning_content` here, as most clients expect it.
What it was called stays beside it. Usage means what it means at OpenAI: completion tokens include those of reasoning.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from joulegate.chat.v1 import chat_pb2
from services.dispatch.adapters.bodies import json_or_none, word
from services.dispatch.adapters.question import Question
from services.dispatch.adapters.variants import Variant
from services.wire.errors import InvalidAnswer
from services.wire.fields import NULL, decode_members, encode
from services.wire.openai import decode_chunk, request_members

# Finish reasons that others say for one of OpenAI's.
_REASONS: Final[Mapping[str, chat_pb2.FinishReason.ValueType]] = {
    "eos": chat_pb2.FINISH_REASON_STOP,
    "model_length": chat_pb2.FINISH_REASON_LENGTH,
}
# What some say beside the details.
_COUNTS_BESIDE: Final[Mapping[Literal["cached_tokens", "cache_write_tokens"], Sequence[str]]] = {
    "cached_tokens": ("prompt_cache_hit_tokens", "cached_tokens"),
    "cache_write_tokens": ("cache_creation_input_tokens",),
}


def spell_request(request: chat_pb2.ChatRequest, variant: Variant) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The members of a request for a vendor, but for `model`, and what was left out. Raises Failure for what it cannot say."""
    question = Question(request, variant.title) if variant.known is not None else None
    if question is None:
        members = request_members(request)
    else:
        members = {name: question.take(name) for name in sorted(variant.known or ()) if question.has(name)}
        members |= question.rest()
        if request.stream:
            members["stream"] = True
    for name, new in variant.renamed.items():
        if name in members:
            members[new] = members.pop(name)
    if not variant.has_stream_options:
        # Whether a client sees the usage is the router's affair.
        members.pop("stream_options", None)
    elif request.stream:
        options = members.get("stream_options")
        members["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    if variant.has_messages_as_openai:
        return members, question.warnings if question is not None else ()
    messages = members.get("messages")
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        _spell_message(message, variant)
        if question is None:
            continue
        if variant.has_flat_parts and isinstance(parts := message.get("content"), list):
            message["content"] = [_flat(part, f"messages[{index}].content[{place}]", question) for place, part in enumerate(parts)]
        if not variant.has_user_names and message.get("role") != "tool" and message.pop("name", None) is not None:
            question.leave_out(f"messages[{index}].name")
    return members, question.warnings if question is not None else ()


def _spell_message(message: dict[str, Any], variant: Variant) -> None:
    if message.get("role") == "developer" and not variant.has_developer_role:
        message["role"] = "system"
    said = message.get("reasoning_content")
    if said is None or variant.reasoning == "reasoning_content":
        return
    del message["reasoning_content"]
    if variant.reasoning == "reasoning":
        message.setdefault("reasoning", said)
        return
    message.pop("reasoning", None)
    content = message.get("content")
    rest = content if isinstance(content, list) else [{"type": "text", "text": content}] if content else []
    # Parts that say it already came back as they were given.
    if not any(isinstance(part, dict) and part.get("type") == "thinking" for part in rest):
        message["content"] = [{"type": "thinking", "thinking": [{"type": "text", "text": said}]}, *rest]


def _flat(part: Any, where: str, question: Question) -> Any:
    """A part of a message without the object around its audio or its file's id. Raises Failure for a file that comes along."""
    match part:
        case {"type": "input_audio", "input_audio": {"data": data}}:
            return part | {"input_audio": data}
        case {"type": "file", "file": {"file_id": str(file_id)}}:
            return {name: value for name, value in part.items() if name != "file"} | {"file_id": file_id}
        case {"type": "file", "file": _}:
            raise question.refusal(where, "with its content instead of its id has no counterpart")
    return part


def read_message(message: chat_pb2.Message, has_thoughts: bool = False) -> bool:
    """Finds the reasoning in a message, or in a delta after one that had thoughts; says whether thoughts came as parts of the content."""
    if message.extra_json and b'"reasoning"' in message.extra_json and not message.HasField("reasoning_content"):
        reasoning = json_or_none(decode_members(message.extra_json).get("reasoning", NULL))
        if isinstance(reasoning, str):
            message.reasoning_content = reasoning
    if message.HasField("parts"):
        has_thoughts = has_thoughts or any(part.type == "thinking" for part in message.parts.parts)
        if has_thoughts:
            _read_parts(message)
    return has_thoughts


def _read_parts(message: chat_pb2.Message) -> None:
    """Content with thoughts in it, as Mistral's reasoning models answer: they go apart, and the text is what is left."""
    parts = message.parts.parts
    if not all(part.type == "thinking" or (part.type == "text" and not part.extra_json) for part in parts):
        return
    thoughts = "".join(_thought(part.extra_json) for part in parts if part.type == "thinking")
    text = "".join(part.text for part in parts if part.type == "text")
    if thoughts:
        message.reasoning_content = thoughts
    message.text = text


def _thought(extra_json: bytes) -> str:
    pieces = json_or_none(decode_members(extra_json).get("thinking", NULL)) if extra_json else None
    if isinstance(pieces, str):
        return pieces
    texts = [piece.get("text") for piece in pieces if isinstance(piece, dict)] if isinstance(pieces, list) else []
    return "".join(text for text in texts if isinstance(text, str))


def read_reason(choice: chat_pb2.Choice | chat_pb2.ChunkChoice) -> None:
    """Translates a finish reason that is not OpenAI's; the vendor's word is kept as `native_finish_reason`."""
    if b'"finish_reason"' not in choice.extra_json:
        return
    members: dict[str, Any] = dict(decode_members(choice.extra_json))
    native = word(json_or_none(members.get("finish_reason", NULL)))
    if (reason := _REASONS.get(native)) is not None:
        del members["finish_reason"]
        choice.finish_reason = reason
        choice.extra_json = encode({"native_finish_reason": native} | members)


def read_usage(usage: chat_pb2.Usage) -> None:
    """Counts as OpenAI counts."""
    thought = usage.completion_tokens_details.reasoning_tokens if usage.HasField("completion_tokens_details") else 0
    # xAI's completion tokens are those after the reasoning; its own total tells.
    if thought > 0 and usage.total_tokens == usage.prompt_tokens + usage.completion_tokens + thought:
        usage.completion_tokens += thought
    if not usage.extra_json:
        return
    for field, names in _COUNTS_BESIDE.items():
        if usage.prompt_tokens_details.HasField(field):
            continue
        counts = decode_members(usage.extra_json)
        found = next((count for name in names if type(count := json_or_none(counts.get(name, NULL))) is int), None)
        if found is not None and 0 <= found <= usage.prompt_tokens:
            setattr(usage.prompt_tokens_details, field, found)


def beside(chunk: chat_pb2.ChatCompletionChunk) -> Mapping[str, Any]:
    """Groq's `x_groq`, where a stream's usage and errors may stand."""
    found = json_or_none(decode_members(chunk.extra_json).get("x_groq", NULL)) if b'"x_groq"' in chunk.extra_json else None
    return found if isinstance(found, dict) else {}


def usage_of(counts: Any) -> chat_pb2.Usage | None:
    """Usage that does not stand where usage stands; None when it makes no sense."""
    try:
        found = decode_chunk(encode({"usage": counts}))
    except InvalidAnswer:
        return None
    return found.usage if found.HasField("usage") else None
