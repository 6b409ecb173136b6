"""What Gemini answers, whole or one event of a stream: the same object, whose members become messages, finish reasons and usage."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from joulegate.chat.v1 import chat_pb2
from services.dispatch.adapters.base import Reply
from services.dispatch.adapters.bodies import json_or_none, word
from services.dispatch.adapters.events import CONTENT_FILTER, LENGTH, STOP, TOOL_CALLS, extra
from services.dispatch.failure import Failure, Kind
from services.wire.fields import encode, parse_object

Json = dict[str, Any]

# The reasons that OpenAI has a word for. The others, such as MALFORMED_FUNCTION_CALL, are given as they are, in lower case.
_REASONS: Mapping[str, chat_pb2.FinishReason.ValueType] = {
    "STOP": STOP,
    "MAX_TOKENS": LENGTH,
    "CONTINUATION": LENGTH,
    "SAFETY": CONTENT_FILTER,
    "RECITATION": CONTENT_FILTER,
    "LANGUAGE": CONTENT_FILTER,
    "BLOCKLIST": CONTENT_FILTER,
    "PROHIBITED_CONTENT": CONTENT_FILTER,
    "SPII": CONTENT_FILTER,
    "IMAGE_SAFETY": CONTENT_FILTER,
    "IMAGE_PROHIBITED_CONTENT": CONTENT_FILTER,
    "IMAGE_RECITATION": CONTENT_FILTER,
    "ESCALATION": CONTENT_FILTER,
    "MODEL_ARMOR": CONTENT_FILTER,
    "PUP_LIMITED_DISABLED": CONTENT_FILTER,
}
# Protobuf's way to say nothing.
_NOT_SAID = frozenset({"", "FINISH_REASON_UNSPECIFIED", "BLOCK_REASON_UNSPECIFIED", "BLOCKED_REASON_UNSPECIFIED"})

TYPED_OF_ANSWER = frozenset({"candidates", "usageMetadata", "modelVersion", "responseId"})
_TYPED_OF_CANDIDATE = frozenset({"content", "finishReason", "index", "logprobsResult"})
_PLAIN_CANDIDATE = _TYPED_OF_CANDIDATE - {"logprobsResult"}
_COUNTS = ("promptTokenCount", "toolUsePromptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "cachedContentTokenCount")
_TYPED_OF_USAGE = frozenset(_COUNTS) - {"toolUsePromptTokenCount"} | {"totalTokenCount"}

# An answer with more objects and lists than this may nest deeper than whoever reads its parts again can follow.
_MANY_BRACKETS = 200
_MOST_CANDIDATES = 1024
# Google says 400 where others say 401, which is what keys are set aside for.
_BAD_KEY = "API_KEY_INVALID"
_DELAY = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")

_decode = msgspec.json.Decoder().decode


def broken(what: str) -> Failure:
    """The failure of an answer that makes no sense."""
    return Failure(Kind.BROKEN, f"the provider's answer {what}")


def read_answer(document: bytes) -> Json:
    """The object of an answer or an event. Raises the failure that it tells of instead."""
    try:
        if document.count(b"{") + document.count(b"[") > _MANY_BRACKETS:
            parse_object(document)
        answer = _decode(document)
    except (ValueError, RecursionError):
        raise broken("is not JSON in UTF-8") from None
    if (isinstance(answer, list) or (isinstance(answer, dict) and "error" in answer)) and (failure := vendor_failure(answer, 0)):
        raise failure
    return as_object(answer, "is not a JSON object")


def as_object(value: Any, otherwise: str) -> Json:
    if not isinstance(value, dict):
        raise broken(otherwise)
    return value


def candidates_of(answer: Json) -> list[tuple[int, Json]]:
    """The candidates with their indexes; protobuf leaves a zero out."""
    candidates = answer.get("candidates")
    if candidates is None:
        return []
    if not isinstance(candidates, list):
        raise broken("has candidates that are no list")
    found = []
    for candidate in candidates:
        index = as_object(candidate, "has a candidate that is no object").get("index", 0)
        if type(index) is not int or not 0 <= index < _MOST_CANDIDATES:
            raise broken("has a candidate with an impossible index")
        found.append((index, candidate))
    return found


class Messages:
    """Makes messages, whole or deltas, of candidates' parts. It counts their calls, which have no ids of their own in older versions."""

    def __init__(self, reply: Reply) -> None:
        self._reply_id = reply.id
        self._calls: dict[int, int] = {}

    def has_calls(self, index: int) -> bool:
        """Whether a candidate has called a function."""
        return index in self._calls

    def read(self, index: int, candidate: Json, *, is_delta: bool) -> chat_pb2.Message | None:
        """What the candidate says; None when that is nothing at all."""
        content = candidate.get("content")
        if content is None:
            return None
        content = as_object(content, "has content that is no object")
        parts = content.get("parts")
        if parts is None:
            parts = []
        elif not isinstance(parts, list):
            raise broken("has parts that are no list")
        if len(parts) == 1 and len(content) <= 2 and isinstance(parts[0], dict) and len(parts[0]) == 1:
            text = parts[0].get("text")
            if isinstance(text, str):  # nearly every event of a stream
                return chat_pb2.Message(text=text) if text else None
        said = _Said({name: value for name, value in content.items() if name not in ("parts", "role")})
        for part in parts:
            self._read_part(index, as_object(part, "has a part that is no object"), said, is_delta=is_delta)
        return said.message()

    def _read_part(self, index: int, part: Json, said: "_Said", *, is_delta: bool) -> None:
        rest = dict(part)
        call, blob, text = rest.pop("functionCall", None), rest.pop("inlineData", None), rest.pop("text", None)
        is_thought, signature = rest.pop("thought", None) is True, rest.pop("thoughtSignature", None)
        signed = {} if signature is None else {"extra_content": {"google": {"thought_signature": signature}}}
        if call is not None:
            call = as_object(call, "has a function call that is no object")
            said.calls.append(self._call(index, call, signed | rest, is_delta=is_delta))
        elif isinstance(text, str):
            (said.thoughts if is_thought else said.texts).append(text)
            said.extra |= signed | rest
        elif isinstance(blob, dict) and word(blob.get("mimeType")).startswith("image/"):
            url = f"data:{blob['mimeType']};base64,{word(blob.get('data'))}"
            said.add("images", {"type": "image_url", "image_url": {"url": url}} | signed | rest)
        elif set(part) <= {"thought", "thoughtSignature"}:
            said.extra |= signed
        else:
            said.add("parts", part)

    def _call(self, index: int, call: Json, extras: Json, *, is_delta: bool) -> chat_pb2.ToolCall:
        number = self._calls.get(index, 0)
        self._calls[index] = number + 1
        rest = dict(call)
        id, name, args = rest.pop("id", None), rest.pop("name", None), rest.pop("args", None)
        if not isinstance(name, str):
            raise broken("has a function call without a name")
        if not isinstance(args, dict | None):
            raise broken("has arguments of a function call that are no object")
        if not isinstance(id, str) or not id:
            id = "call_" + hashlib.sha256(f"{self._reply_id}/{index}/{number}".encode()).hexdigest()[:24]
        return chat_pb2.ToolCall(
            index=number if is_delta else None,
            id=id,
            type="function",
            function=chat_pb2.FunctionCall(name=name, arguments=encode(args or {}).decode(), extra_json=extra(rest)),
            extra_json=extra(extras),
        )


class _Said:
    """The parts of one message, sorted by what OpenAI calls them."""

    def __init__(self, extras: Json) -> None:
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self.calls: list[chat_pb2.ToolCall] = []
        self.extra = extras

    def add(self, name: str, value: Json) -> None:
        """Adds to a list that OpenAI's messages do not have: `images`, as OpenRouter names them, or parts of unknown kinds."""
        self.extra[name] = [*self.extra.get(name, ()), value]

    def message(self) -> chat_pb2.Message | None:
        text, thoughts = "".join(self.texts), "".join(self.thoughts)
        if not (text or thoughts or self.calls or self.extra):
            return None
        message = chat_pb2.Message(reasoning_content=thoughts or None, tool_calls=self.calls, extra_json=extra(self.extra))
        if text:
            message.text = text
        return message


def finish_word(candidate: Json) -> str:
    """Why the candidate ended, in Gemini's word; empty when it has not."""
    reason = candidate.get("finishReason")
    if reason is None:
        return ""
    if not isinstance(reason, str):
        raise broken("has a finish reason that is no word")
    return "" if reason in _NOT_SAID else reason


def finish(reason: str, has_calls: bool, extras: Json) -> dict[str, Any]:
    """The members of a choice that has ended: OpenAI's word, and the vendor's beside it."""
    extras = extras | {"native_finish_reason": reason}
    known = TOOL_CALLS if has_calls and reason == "STOP" else _REASONS.get(reason)
    if known is None:
        extras["finish_reason"] = reason.lower()
    return {"finish_reason": known, "extra_json": extra(extras)}


def block_word(answer: Json) -> str:
    """Why the prompt was not answered, in Gemini's word; empty when it was."""
    feedback = answer.get("promptFeedback")
    reason = feedback.get("blockReason") if isinstance(feedback, dict) else None
    return "" if not isinstance(reason, str) or reason in _NOT_SAID else reason


def blocked_text(answer: Json) -> str:
    """What a user whose prompt was blocked is told, as a refusal."""
    said = answer["promptFeedback"].get("blockReasonMessage")
    return said if isinstance(said, str) and said else f"The prompt was blocked: {block_word(answer)}."


def candidate_extras(candidate: Json) -> Json:
    """What a choice has no typed field for, such as grounding and safety ratings."""
    if candidate.keys() <= _PLAIN_CANDIDATE:
        return {}
    extras = {name: value for name, value in candidate.items() if name not in _TYPED_OF_CANDIDATE}
    logprobs = candidate.get("logprobsResult")
    if logprobs is not None and read_logprobs(candidate) is None:
        extras["logprobsResult"] = logprobs
    return extras


def answer_extras(answer: Json) -> Json:
    """What a chunk or completion has no typed field for."""
    return {name: value for name, value in answer.items() if name not in TYPED_OF_ANSWER}


def read_logprobs(candidate: Json) -> bytes | None:
    """The log probabilities in OpenAI's shape; None when there are none, or of an unknown shape."""
    result = candidate.get("logprobsResult")
    if not isinstance(result, dict) or not isinstance(result.get("chosenCandidates"), list):
        return None
    tops = result.get("topCandidates")
    tops = tops if isinstance(tops, list) else []
    content = []
    for position, chosen in enumerate(result["chosenCandidates"]):
        top = tops[position].get("candidates") if position < len(tops) and isinstance(tops[position], dict) else None
        tokens = [_token(one) for one in (chosen, *(top if isinstance(top, list) else ()))]
        content.append({**tokens[0], "top_logprobs": tokens[1:]})
    rest = {name: value for name, value in result.items() if name not in ("chosenCandidates", "topCandidates")}
    return encode({"content": content, "refusal": None, **rest})


def _token(value: Any) -> Json:
    rest = dict(as_object(value, "has a log probability that is no object"))
    token, logprob = word(rest.pop("token", None)), rest.pop("logProbability", 0.0)
    return {"token": token, "logprob": logprob, "bytes": list(token.encode()), **rest}


def read_usage(answer: Json) -> chat_pb2.Usage | None:
    """The tokens of an answer as OpenAI counts them: completions include thoughts, prompts include what tools put in."""
    metadata = answer.get("usageMetadata")
    if metadata is None:
        return None
    counts = as_object(metadata, "has usage that is no object")
    prompt, tools, candidates, thoughts, cached = (_count(counts, name) for name in _COUNTS)
    usage = chat_pb2.Usage(
        prompt_tokens=prompt + tools,
        completion_tokens=candidates + thoughts,
        total_tokens=prompt + tools + candidates + thoughts,
    )
    if "cachedContentTokenCount" in counts:
        usage.prompt_tokens_details.cached_tokens = cached
    if "thoughtsTokenCount" in counts:
        usage.completion_tokens_details.reasoning_tokens = thoughts
    if heard := _audio(counts, "promptTokensDetails"):
        usage.prompt_tokens_details.audio_tokens = heard
    if spoken := _audio(counts, "candidatesTokensDetails"):
        usage.completion_tokens_details.audio_tokens = spoken
    extras = {name: value for name, value in counts.items() if name not in _TYPED_OF_USAGE}
    if counts.get("totalTokenCount", usage.total_tokens) != usage.total_tokens:
        extras["totalTokenCount"] = counts["totalTokenCount"]
    usage.extra_json = extra(extras)
    return usage


def _audio(counts: Json, name: str) -> int:
    """Tokens of sound in a list by modality; 0 where there is none, or something else."""
    listed = counts.get(name)
    parts = [part for part in listed if isinstance(part, dict)] if isinstance(listed, list) else []
    return sum(_count(part, "tokenCount") for part in parts if part.get("modality") == "AUDIO")


def _count(counts: Json, name: str) -> int:
    value = counts.get(name)
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value < 1 << 60:
        raise broken("has an impossible count of tokens")
    return value


def vendor_failure(body: Any, status: int) -> Failure | None:
    """The error in a decoded body, alone or in a list; None when there is none."""
    if isinstance(body, list):
        body = body[0] if body else None
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict):
        return None
    code, message, listed = error.get("code"), error.get("message"), error.get("details")
    details = [detail for detail in listed if isinstance(detail, dict)] if isinstance(listed, list) else []
    if not status and isinstance(code, int) and 400 <= code <= 599:
        status = code
    reason = next((word(detail["reason"]) for detail in details if detail.get("reason")), "")
    if reason == _BAD_KEY:
        status = 401
    return Failure(
        Kind.REFUSED,
        message if isinstance(message, str) and message else encode(error).decode(),
        http_status=status,
        type=word(error.get("status")),
        param=_field_at_fault(details),
        code=reason or word(code),
        retry_after_s=_delay_s(details),
    )


def failure_text(text: bytes) -> Failure | None:
    """The error that some text is; None when it is none."""
    return vendor_failure(json_or_none(text), 0)


def _field_at_fault(details: list[Json]) -> str:
    for detail in details:
        violations = detail.get("fieldViolations")
        if isinstance(violations, list) and violations and isinstance(violations[0], dict):
            return word(violations[0].get("field"))
    return ""


def _delay_s(details: list[Json]) -> float | None:
    """What google.rpc.RetryInfo says, in seconds."""
    for detail in details:
        said = _DELAY.fullmatch(word(detail.get("retryDelay")))
        if said:
            return float(said[1])
    return None
