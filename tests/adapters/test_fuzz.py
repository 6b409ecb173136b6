"""Ten thousand spoiled answers per dialect, streamed and whole: each ends in an answer or in a clear failure, and none stops falsely."""

import random
from collections.abc import Callable

import pytest

from joulegate.chat.v1 import chat_pb2
from services.dispatch.adapters.base import Reply
from services.dispatch.failure import Failure, Kind
from tests.fakes.dialects import DIALECTS, Dialect

COUNT = 10_000
ASK = chat_pb2.ChatRequest(model="m", messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, text="Hi")])
ASK_STREAM = chat_pb2.ChatRequest(model="m", messages=ASK.messages, stream=True)
ALL = pytest.mark.parametrize("dialect", DIALECTS, ids=[dialect.kind for dialect in DIALECTS])
# What parsers stumble over: other types, numbers beyond every integer, lone surrogates, bytes that are no text, nesting.
BITS = [
    b"null",
    b"[]",
    b"{}",
    b'""',
    b"-1",
    b"1e999",
    b"9" * 30,
    b'"\\ud800"',
    b"\xff\xfe",
    b"[" * 300,
    b"\n\n",
    b"data: ",
    b"\x00",
    b"true",
    b"}",
]


def _truncate(body: bytes, dice: random.Random) -> bytes:
    return body[: dice.randrange(len(body))]


def _flip(body: bytes, dice: random.Random) -> bytes:
    spoiled = bytearray(body)
    for _ in range(dice.randint(1, 8)):
        spoiled[dice.randrange(len(body))] = dice.randrange(256)
    return bytes(spoiled)


def _cut_out(body: bytes, dice: random.Random) -> bytes:
    start = dice.randrange(len(body))
    return body[:start] + body[start + dice.randint(1, 60) :]


def _insert(body: bytes, dice: random.Random) -> bytes:
    start = dice.randrange(len(body))
    return body[:start] + dice.choice(BITS) + body[start:]


def _replace_value(body: bytes, dice: random.Random) -> bytes:
    """Another value after one of the colons."""
    colons = [index for index, byte in enumerate(body) if byte == ord(":")]
    start = dice.choice(colons) + 1
    ends = [end for end in (body.find(b",", start), body.find(b"}", start)) if end >= 0] or [len(body)]
    return body[:start] + dice.choice(BITS) + body[min(ends) :]


def _repeat(body: bytes, dice: random.Random) -> bytes:
    start, end = sorted((dice.randrange(len(body)), dice.randrange(len(body))))
    return body[:end] + body[start:]


SPOIL: list[Callable[[bytes, random.Random], bytes]] = [_truncate, _flip, _cut_out, _insert, _replace_value, _repeat]


def _read(dialect: Dialect, request: chat_pb2.ChatRequest, content_type: str, pieces: list[bytes]) -> tuple[set[int], Failure | None]:
    """The finish reasons that came out, and the failure that ended it. Anything but a Failure is the test's own end."""
    decoder = dialect.adapter.decoder(request, Reply(content_type, "id", 1))
    reasons: set[int] = set()

    def note(event: chat_pb2.ChatEvent) -> None:
        assert event.SerializeToString()
        reasons.update(choice.finish_reason for choice in event.chunk.choices if choice.finish_reason)
        reasons.update(choice.finish_reason for choice in event.completion.choices if choice.finish_reason)

    try:
        for piece in pieces:
            for event in decoder.feed(piece):
                note(event)
            if decoder.is_done:
                return reasons, None
        for event in decoder.close():
            note(event)
    except Failure as failure:
        assert failure.message and failure.kind in (Kind.BROKEN, Kind.REFUSED)
        return reasons, failure
    return reasons, None


def _pieces(body: bytes, dice: random.Random) -> list[bytes]:
    cuts = sorted(dice.randrange(len(body) + 1) for _ in range(dice.randrange(4)))
    return [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]


@ALL
@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "whole"])
def test_a_spoiled_answer_never_stops_falsely(dialect: Dialect, is_stream: bool) -> None:
    dice = random.Random(f"{dialect.kind} {is_stream}")
    parts = dialect.words.stream_parts("Hello", ", ", "world")
    if is_stream:
        request, content_type, body = ASK_STREAM, parts.content_type, parts.opening + b"".join(parts.pieces) + parts.ending
    else:
        request, content_type, body = ASK, "application/json", dialect.words.whole("Hello, world")
    outcomes = {"answer": 0, "failure": 0}
    for _ in range(COUNT // 2):
        spoil = dice.choice(SPOIL)
        spoiled = spoil(body, dice)
        reasons, failure = _read(dialect, request, content_type, _pieces(spoiled, dice))
        outcomes["failure" if failure else "answer"] += 1
        if chat_pb2.FINISH_REASON_STOP in reasons:
            assert dialect.stop_word in spoiled, spoiled
        if failure is None:
            assert spoil is not _truncate or dialect.stop_word in spoiled, spoiled
    # The spoiling is neither harmless nor always deadly, or it would test nothing.
    assert min(outcomes.values()) > COUNT // 50, outcomes


@ALL
def test_a_whole_stream_is_an_answer_that_stops(dialect: Dialect) -> None:
    parts = dialect.words.stream_parts("Hello")
    reasons, failure = _read(dialect, ASK_STREAM, parts.content_type, [parts.opening + parts.pieces[0] + parts.ending])
    assert (reasons, failure) == ({chat_pb2.FINISH_REASON_STOP}, None)


@ALL
def test_errors_of_any_content_are_clear_failures(dialect: Dialect) -> None:
    dice = random.Random(dialect.kind)
    body = dialect.words.error_body(500, "overloaded")
    for _ in range(1_000):
        failure = dialect.adapter.decode_error(500, dice.choice(SPOIL)(body, dice))
        assert failure.message and failure.http_status == 500


@ALL
def test_a_spoiled_list_of_models_is_a_list_or_a_failure(dialect: Dialect) -> None:
    dice = random.Random(dialect.kind)
    body = b'{"data":[{"id":"a","name":"models/a","model":"a","created":1}],"models":[{"id":"a","name":"models/a","model":"a"}]}'
    for _ in range(1_000):
        try:
            models = dialect.adapter.decode_models(dice.choice(SPOIL)(body, dice))
        except Failure as failure:
            assert failure.message
        else:
            assert all(model.SerializeToString() is not None for model in models)
