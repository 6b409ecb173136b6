"""What a request asks to be let in for, what becomes of its bound, and what its client is told."""

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from joulegate.chat.v1 import chat_pb2
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.ledger.v1 import budget_pb2
from joulegate.ledger.v1 import reservation_pb2 as pb
from services.router import tokens
from services.router.admission import (
    MOST_CALLS,
    bounded,
    calls_wanted,
    clamping,
    need_of,
    rate_headers,
    refusal,
    span,
    wait_s,
    wanted_output_tokens,
)
from services.router.leases import Standing
from services.wire.openai import decode_request, encode_request, request_members

TARGET = ("lab", "small")


def asked(**members: Any) -> chat_pb2.ChatRequest:
    messages = [chat_pb2.Message(role=chat_pb2.ROLE_USER, text="What is a joule?")]
    return chat_pb2.ChatRequest(model="small", messages=messages, **members)


@pytest.mark.parametrize(
    ("members", "wanted"),
    [
        ({}, 0),
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 8}, 8),
        ({"max_tokens": 7, "max_completion_tokens": 8}, 7),
        # Infinite for some, refused by others: no bound.
        ({"max_tokens": -1}, 0),
        ({"max_tokens": 0}, 0),
        ({"max_tokens": 10**15}, tokens.MOST_TOKENS),
    ],
)
def test_wanted_bound_is_the_least_that_is_one(members: dict[str, int], wanted: int) -> None:
    assert wanted_output_tokens(asked(**members)) == wanted


@pytest.mark.parametrize(
    ("members", "most", "sent"),
    [
        ({"max_tokens": 50}, 0, {"max_tokens": 50}),
        ({"max_tokens": 50}, 50, {"max_tokens": 50}),
        ({"max_tokens": 50}, 20, {"max_tokens": 20}),
        ({"max_completion_tokens": 50}, 20, {"max_completion_tokens": 20}),
        ({}, 20, {"max_completion_tokens": 20}),
        ({"max_tokens": -1}, 20, {"max_tokens": 20}),
        # A provider may heed either.
        ({"max_tokens": 50, "max_completion_tokens": 500}, 100, {"max_tokens": 50, "max_completion_tokens": 50}),
    ],
)
def test_bound_is_said_in_the_field_that_the_client_used(members: dict[str, int], most: int, sent: dict[str, int]) -> None:
    request = asked(**members)
    before = request.SerializeToString()
    said = request_members(bounded(request, most))
    assert {name: value for name, value in said.items() if name.startswith("max_")} == sent
    assert request.SerializeToString() == before


@pytest.mark.parametrize("written", [b'"max_tokens": 1e3', b'"max_completion_tokens": null', b'"max_tokens": 1000'])
def test_bound_wins_over_whatever_the_client_wrote(written: bytes) -> None:
    request = decode_request(b'{"model": "small", "top_k": 1e1, "messages": [{"role": "user", "content": "Hi"}], %b}' % written)
    sent = encode_request(bounded(request, 20))
    assert sent.count(b'"max_') == 1 and b'":20' in sent and b'"top_k":1e1' in sent


def test_client_is_told_of_a_bound_below_its_own() -> None:
    assert clamping(asked(max_tokens=50), 0) is None
    assert clamping(asked(max_tokens=50), 50) is None
    assert clamping(asked(max_tokens=50), 20) == "max_tokens: 20 instead of 50, which is what limits or budgets leave"
    assert "20 instead of no bound" in str(clamping(asked(), 20))


def test_need_is_of_all_answers_and_of_every_prompt_that_may_be_read() -> None:
    need = need_of(asked(n=3), [TARGET], 100)
    assert (list(need.targets), need.output_tokens, need.calls) == ([("lab", "small")], 300, 2)
    assert need.tokens == 2 * tokens.most_prompt_tokens(asked(n=3)) + 300
    assert calls_wanted([TARGET] * 10) == MOST_CALLS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "What is a joule?",
        "1234567890 " * 50,
        "{}[]();:!?" * 40,
        "ジュールとは何ですか。" * 20,
        "🧑‍🚒" * 30,
        "\n\t \x00" * 20,
        "aQ9x" * 100,
    ],
)
def test_upper_estimate_is_above_what_is_counted(text: str) -> None:
    tool = chat_pb2.Tool(type="function", function=chat_pb2.FunctionDefinition(name="f", parameters_json=b'{"type":"object"}'))
    for tools in ([], [tool] * 3):
        request = chat_pb2.ChatRequest(messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, text=text)] * 3, tools=tools)
        assert tokens.count_prompt(request) <= tokens.most_prompt_tokens(request)


def test_image_counts_as_an_image_and_not_as_its_bytes() -> None:
    url = "data:image/png;base64," + "A" * 10**6
    parts = chat_pb2.ContentParts(parts=[chat_pb2.ContentPart(type="image_url", image_url=chat_pb2.ImageUrl(url=url))])
    request = chat_pb2.ChatRequest(messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=parts)])
    assert tokens.MOST_PER_IMAGE <= tokens.most_prompt_tokens(request) < tokens.MOST_PER_IMAGE + 200


def test_full_budget_is_openais_lack_of_quota_with_what_and_until_when() -> None:
    budget = pb.BudgetDenial(
        budget_id="b-1",
        scope=budget_pb2.BUDGET_SCOPE_TEAM,
        measure=budget_pb2.BUDGET_MEASURE_JOULES,
        window=budget_pb2.BUDGET_WINDOW_DAY,
        reset_time=Timestamp(seconds=1_800_000_000),
    )
    denial = pb.Denial(budget=budget, message="The team's daily budget in joules is used up.", retry_after=Duration(seconds=3600))
    error = refusal(denial, wait_s(denial))
    assert (error.reason, error.http_status, error.retry_after_s) == (ErrorReason.ERROR_REASON_BUDGET_EXHAUSTED, 429, 3600)
    assert b'"type": "budget_exceeded"' in error.openai_body() and b'"code": "insufficient_quota"' in error.openai_body()
    assert error.metadata == {
        "budget": "b-1",
        "scope": "team",
        "measure": "joules",
        "window": "day",
        "reset_time": "2027-01-15T08:00:00+00:00",
    }
    assert ("x-should-retry", "false") in error.headers


def test_budget_that_running_requests_hold_is_worth_another_try() -> None:
    error = refusal(pb.Denial(budget=pb.BudgetDenial(), retry_after=Duration(seconds=1)), 1.0)
    assert not error.headers


def test_budget_that_never_has_room_names_no_time() -> None:
    denial = pb.Denial(budget=pb.BudgetDenial(budget_id="b"))
    error = refusal(denial, wait_s(denial))
    assert error.retry_after_s is None
    assert "reset_time" not in error.metadata and ("x-should-retry", "false") in error.headers


def test_too_fast_is_openais_rate_limit() -> None:
    error = refusal(pb.Denial(rate=pb.RateDenial(limit=pb.RATE_LIMIT_TOKENS_PER_MINUTE)), 0.0421)
    assert (error.reason, error.metadata, error.retry_after_s) == (
        *(ErrorReason.ERROR_REASON_RATE_LIMITED, {"limit": "tokens_per_minute"}),
        0.0421,
    )
    assert b'"code": "rate_limit_exceeded"' in error.openai_body()


def test_headers_are_openais_and_only_of_limits_that_there_are() -> None:
    standing = Standing(pb.RateStanding(limit=60, remaining=59, reset=Duration(seconds=60)), 0, 10.0)
    assert dict(rate_headers({"requests": standing, "tokens": None}, 10.5)) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "59.5s",
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *[(0, "0s"), (0.0001, "1ms"), (0.02, "20ms"), (1, "1s"), (1.5, "1.5s"), (59.9999, "1m0s"), (360, "6m0s"), (72.5, "1m12.5s")],
        (3600, "1h0m0s"),
    ],
)
def test_times_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert span(seconds) == text
