"""Lines of questions and answers become entries under the keys that requests look them up by."""

import json
from typing import Any

import pytest

from joulegate.cache.v1 import cache_service_pb2 as cache_pb
from services.router.warming import Known, Refused, read
from services.wire import openai
from services.wire.fingerprint import exact_digest

ASKED = {"model": "small", "messages": [{"role": "user", "content": "What is a joule?"}]}


def lines(*members: Any) -> bytes:
    return b"\n".join(json.dumps(each).encode() for each in members)


def only(*members: Any) -> cache_pb.StoreRequest:
    [known] = read(lines(*members), "team:red", "faq", "small")
    assert isinstance(known, Known)
    return known.store


def test_question_and_answer_are_found_by_the_request_that_asks_it() -> None:
    entry = only({"question": "What is a joule?", "answer": "A watt second.", "ttl": 60, "tags": ["units"]})
    assert entry.key == cache_pb.EntryKey(
        tenant="team:red", namespace="faq", digest=exact_digest(openai.decode_request(json.dumps(ASKED).encode()))
    )
    assert entry.entry.completion.choices[0].message.text == "A watt second."
    assert (entry.wording.text, entry.ttl.seconds, list(entry.tags)) == ("What is a joule?", 60, ["units"])


def test_whole_requests_and_completions_are_taken_as_they_are() -> None:
    completion = {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "small-1",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi."}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }
    entry = only(ASKED | {"temperature": 0, "completion": completion})
    assert entry.key.digest == exact_digest(openai.decode_request(json.dumps(ASKED | {"temperature": 0}).encode()))
    assert (entry.entry.completion.usage.completion_tokens, entry.entry.model) == (2, "small")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (lines({"question": "x"}), "answer"),
        (lines({"question": "x", "answer": ""}), "answer"),
        (lines({"question": "x", "answer": "y", "completion": {}}), "answer"),
        (lines({"question": 1, "answer": "y"}), "question"),
        (lines(ASKED | {"question": "x", "answer": "y"}), "question"),
        (lines({"answer": "y"}), "messages"),
        (lines({"question": "x", "answer": "y", "ttl": 0}), "ttl"),
        (lines({"question": "x", "answer": "y", "tags": ["t"] * 9}), "tags"),
        (lines({"question": "x", "answer": "y", "tags": "t"}), "tags"),
        (lines({"question": "x", "completion": 5}), ""),
    ],
)
def test_line_that_makes_no_entry_says_why_and_spoils_no_other(line: bytes, reason: str) -> None:
    good = lines({"question": "x", "answer": "y"})
    first, refused, last = read(good + b"\n" + line + b"\n\n" + good, "", "", "small")
    assert isinstance(first, Known) and isinstance(last, Known)
    assert isinstance(refused, Refused)
    assert (first.number, refused.number, last.number) == (1, 2, 4)
    assert reason in refused.reason


def test_line_without_a_model_needs_one_from_the_caller() -> None:
    [refused] = read(lines({"question": "x", "answer": "y"}), "", "", "")
    assert isinstance(refused, Refused) and "model" in refused.reason
