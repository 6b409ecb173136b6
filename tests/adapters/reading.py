"""How tests have a dialect read an answer, in any chunking, and keep a case in golden files."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from hypothesis import strategies as st

from joulegate.chat.v1 import chat_pb2
from services.dispatch.adapters.base import Adapter, Reply
from services.dispatch.failure import Failure
from services.wire.openai import decode_request, encode_chunk, encode_completion
from tests.adapters.golden import check, pretty

REPLY_ID = "chatcmpl-0"
CREATED = 1_700_000_000

# Any small JSON. Few letters: drawing from all of Unicode takes seconds in a fresh checkout.
_TEXTS = st.text("aé\0\U0001f600", max_size=3)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_TEXTS, inner, max_size=2),
    max_leaves=4,
)

Result = tuple[list[chat_pb2.ChatEvent], Failure | None]


def request_of(body: dict[str, Any]) -> chat_pb2.ChatRequest:
    """The request of an OpenAI-shaped body; model and messages may be left out."""
    return decode_request(json.dumps({"model": "lab/small", "messages": [{"role": "user", "content": "Hi"}]} | body).encode())


def read(adapter: Adapter, request: chat_pb2.ChatRequest, pieces: Sequence[bytes], content_type: str) -> Result:
    """The events of an answer, and the failure that ended it."""
    decoder = adapter.decoder(request, Reply(content_type, REPLY_ID, CREATED, "small"))
    events: list[chat_pb2.ChatEvent] = []

    def all_events() -> Iterator[chat_pb2.ChatEvent]:
        for piece in pieces:
            yield from decoder.feed(piece)
            if decoder.is_done:
                return
        yield from decoder.close()

    try:
        events.extend(all_events())
    except Failure as failure:
        return events, failure
    return events, None


def chunkings(body: bytes) -> list[list[bytes]]:
    """Whole, byte by byte, in thirds."""
    third = len(body) // 3
    return [[body], [body[i : i + 1] for i in range(len(body))], [body[:third], body[third : 2 * third], body[2 * third :]]]


def json_of(event: chat_pb2.ChatEvent) -> Any:
    """An event as a client of OpenAI's API would see it."""
    return json.loads(encode_chunk(event.chunk) if event.HasField("chunk") else encode_completion(event.completion))


def read_all(adapter: Adapter, request: chat_pb2.ChatRequest, body: bytes, content_type: str) -> tuple[list[Any], dict[str, Any] | None]:
    """The events and the failure as JSON, which must be the same in each chunking."""
    results: list[tuple[list[Any], dict[str, Any] | None]] = []
    for pieces in chunkings(body):
        events, failure = read(adapter, request, pieces, content_type)
        results.append(([json_of(event) for event in events], None if failure is None else _failure_json(failure)))
    assert all(result == results[0] for result in results)
    return results[0]


def _failure_json(failure: Failure) -> dict[str, Any]:
    words = {"http_status": failure.http_status, "type": failure.type, "param": failure.param, "code": failure.code}
    return {"kind": failure.kind.name, "message": failure.message} | {name: word for name, word in words.items() if word}


def check_case(folder: Path, adapter: Adapter, body: dict[str, Any], answer: bytes, content_type: str) -> None:
    """A request, what is sent for it, the vendor's answer, and what becomes of that."""
    request = request_of(body)
    wire = adapter.encode(request, "small")
    sent = {"path": wire.path, "body": json.loads(wire.body)} | ({"warnings": list(wire.warnings)} if wire.warnings else {})
    events, failure = read_all(adapter, request, answer, content_type)
    check(folder / "request.json", pretty(body))
    check(folder / "wire.json", pretty(sent))
    check(folder / ("stream.txt" if request.stream else "answer.json"), answer.decode())
    check(folder / "events.json", pretty([*events, *([{"failure": failure}] if failure else [])]))


def delta_fields(events: Sequence[chat_pb2.ChatEvent]) -> list[dict[str, Any]]:
    """The deltas of a stream's choices, as far as they are typed."""
    return [MessageToDict(choice.delta, preserving_proto_field_name=True) for event in events for choice in event.chunk.choices]
