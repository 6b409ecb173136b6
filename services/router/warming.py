"""Answers that are known before anybody asks: lines of questions and answers, as entries for the cache. Pure.

A line is a JSON object. The question is `messages`, or `question` for the text of one message, beside any other member of a chat request,
of which `model` may come from the caller. The answer is `answer`, a text, or `completion`, a whole one as OpenAI writes it. `ttl` says for
how many seconds it may serve, `tags` what it can be removed by.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from joulegate.cache.v1 import cache_service_pb2 as cache_pb
from joulegate.chat.v1 import chat_pb2
from services.router.controls import MAX_TAG_BYTES, MAX_TAGS, CacheControls
from services.router.question import wording
from services.wire import openai
from services.wire.errors import InvalidAnswer, InvalidRequest
from services.wire.fingerprint import exact_digest

MAX_TTL_S: Final = 10**9
# Who is said to have answered.
PROVIDER: Final = "warmed"
_OWN: Final = ("question", "answer", "completion", "ttl", "tags")
_decode = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode


class Refused(NamedTuple):
    """A line that makes no entry, counted from 1, and why."""

    number: int
    reason: str


class Known(NamedTuple):
    """A line, counted from 1, and the entry that it makes."""

    number: int
    store: cache_pb.StoreRequest


class _LineError(Exception):
    """What is wrong with a line, for whoever wrote it."""


def read(body: bytes, tenant: str, namespace: str, model: str) -> Iterator[Known | Refused]:
    """What each line asks for; empty lines ask for nothing. `model` is for lines that name none."""
    for number, line in enumerate(body.splitlines(), 1):
        if line.strip():
            try:
                yield Known(number, _entry(line, tenant, namespace, model))
            except (_LineError, InvalidRequest) as error:
                yield Refused(number, str(error))


def _entry(line: bytes, tenant: str, namespace: str, model: str) -> cache_pb.StoreRequest:
    try:
        members = _decode.decode(line)
    except msgspec.DecodeError as error:
        raise _LineError(f"not a JSON object: {error}") from None
    own: dict[str, Any] = {name: _value(members.pop(name)) for name in _OWN if name in members}
    if "question" in own:
        if "messages" in members or not isinstance(own["question"], str):
            raise _LineError("question must be text, and stands in place of messages")
        members["messages"] = msgspec.Raw(_encode([{"role": "user", "content": own["question"]}]))
    if "model" not in members and model:
        members["model"] = msgspec.Raw(_encode(model))
    request = openai.decode_request(_encode(members))
    entry = cache_pb.Entry(completion=_completion(own, request.model), provider=PROVIDER, model=request.model)
    words = wording(request, CacheControls(may_reword=True))
    key = cache_pb.EntryKey(tenant=tenant, namespace=namespace, digest=exact_digest(request))
    store = cache_pb.StoreRequest(key=key, entry=entry, wording=words, tags=_tags(own.get("tags", [])))
    if "ttl" in own:
        ttl = own["ttl"]
        if not isinstance(ttl, int) or isinstance(ttl, bool) or not 0 < ttl <= MAX_TTL_S:
            raise _LineError("ttl must be a whole number of seconds above 0")
        store.ttl.seconds = ttl
    return store


def _value(raw: msgspec.Raw) -> Any:
    return msgspec.json.decode(raw)


def _completion(own: Mapping[str, Any], model: str) -> chat_pb2.ChatCompletion:
    if ("answer" in own) == ("completion" in own):
        raise _LineError("one of answer and completion is needed")
    if "completion" in own:
        try:
            return openai.decode_completion(_encode(own["completion"]))
        except InvalidAnswer:
            raise _LineError("completion must be a chat completion as OpenAI writes it") from None
    if not isinstance(own["answer"], str) or not own["answer"]:
        raise _LineError("answer must be text")
    message = chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, text=own["answer"])
    choice = chat_pb2.Choice(message=message, finish_reason=chat_pb2.FINISH_REASON_STOP)
    return chat_pb2.ChatCompletion(model=model, choices=[choice])


def _tags(given: Any) -> list[str]:
    if not isinstance(given, list) or not all(isinstance(tag, str) for tag in given):
        raise _LineError("tags must be a list of texts")
    if len(given) > MAX_TAGS or any(len(tag.encode()) > MAX_TAG_BYTES for tag in given):
        raise _LineError(f"at most {MAX_TAGS} tags, of at most {MAX_TAG_BYTES} bytes each")
    return given
