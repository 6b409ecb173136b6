"""What the dialects share in reading bodies: whole answers, text that should be JSON, and errors that are pages."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from joulegate.chat.v1 import chat_pb2
from services.dispatch.failure import Failure, Kind
from services.wire.sse import EventTooLarge, SseDecoder, SseEvent

MAX_COMPLETION_BYTES = 64 * 1024 * 1024
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)


class WholeDecoder:
    """A JSON body. `decode` makes the completion of it and raises Failure when it is none."""

    is_done = False

    def __init__(self, decode: Callable[[bytes], chat_pb2.ChatCompletion]) -> None:
        self._decode = decode
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[chat_pb2.ChatEvent]:
        self._size += len(data)
        if self._size > MAX_COMPLETION_BYTES:
            raise Failure(Kind.BROKEN, f"the answer is larger than {MAX_COMPLETION_BYTES} bytes")
        self._pieces.append(data)
        return iter(())

    def close(self) -> Iterator[chat_pb2.ChatEvent]:
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        event = chat_pb2.ChatEvent()
        event.completion.CopyFrom(self._decode(body))
        return iter((event,))


def sse_events(decoder: SseDecoder, data: bytes) -> list[SseEvent]:
    """The events that `data` completes. Raises Failure for one that outgrows its bound."""
    try:
        return decoder.feed(data)
    except EventTooLarge as problem:
        raise Failure(Kind.BROKEN, str(problem)) from None


def listed(body: bytes, member: str, *, is_bare_allowed: bool = False) -> list[dict[str, Any]]:
    """The objects of a list of models: a member of the body or, where that is allowed, all of it. Raises Failure for anything else."""
    document = json_or_none(body)
    entries = document.get(member) if isinstance(document, dict) else document if is_bare_allowed else None
    if not isinstance(entries, list):
        raise Failure(Kind.BROKEN, "the list of models is not one")
    return [entry for entry in entries if isinstance(entry, dict)]


def json_or_none(document: bytes) -> Any:
    """The decoded document; None when it is no JSON."""
    try:
        return msgspec.json.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def plain_text(body: bytes) -> str:
    """A body that is not JSON, for humans: of a page only its title."""
    text = body.decode("utf-8", "replace").strip()
    if text.startswith("<"):
        title = _TITLE.search(text)
        text = title.group(1) if title else ""
    return " ".join(text.split())


def word(value: Any) -> str:
    """A vendor's type or code, whichever way it is written; empty for anything else."""
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else ""


def refusal(body: bytes, status: int) -> Failure:
    """The error that a body is, whatever its shape: the vendor's message and words where it has them, else its text."""
    said = json_or_none(body)
    if isinstance(said, list):
        said = said[0] if said else None
    error = (said.get("error") or said) if isinstance(said, dict) else said
    if not isinstance(error, dict):
        error = {"message": error}
    texts = (text for name in ("message", "detail") if isinstance(text := error.get(name), str) and text.strip())
    type, param, code = (word(error.get(name)) for name in ("type", "param", "code"))
    message = next(texts, "") or plain_text(body) or f"HTTP {status}"
    return Failure(Kind.REFUSED, message, http_status=status, type=type, param=param, code=code)
