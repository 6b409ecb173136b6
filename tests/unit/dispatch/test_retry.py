"""Decisions after a failure, as a table; what the caller is told in the end; Retry-After."""

import pytest

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.dispatch.failure import Failure, Kind
from services.dispatch.retry import (
    Again,
    Decision,
    Next,
    RetryPolicy,
    Stop,
    counts_against_health,
    cut,
    decide,
    exhausted,
    rejected,
    retry_after_s,
    status_code,
)

POLICY = RetryPolicy(attempts=3, base_s=1.0, most_s=8.0, patience_s=5.0)
AGAIN, NEXT, STOP = Again(0.5), Next(), Stop()


def refused(status: int, **words: str) -> Failure:
    return Failure(Kind.REFUSED, "no", http_status=status, **words)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        *((refused(status), AGAIN) for status in (408, 409, 429, 500, 502, 503, 504, 529)),
        *((refused(status), NEXT) for status in (301, 307, 401, 402, 403, 404)),
        *((refused(status), STOP) for status in (400, 405, 413, 415, 422)),
        (refused(0), AGAIN),
        (Failure(Kind.UNREACHABLE, ""), AGAIN),
        (Failure(Kind.TIMEOUT, ""), AGAIN),
        (Failure(Kind.LATE, ""), NEXT),
        (Failure(Kind.BROKEN, ""), NEXT),
    ],
    ids=lambda value: f"{value.kind.name}-{value.http_status}" if isinstance(value, Failure) else type(value).__name__,
)
def test_what_follows_a_first_failure(failure: Failure, expected: Decision) -> None:
    assert decide(failure, 1, POLICY, 0.5, None) == expected


def test_a_target_gets_its_attempts_and_no_more() -> None:
    assert [type(decide(refused(503), tries, POLICY, 0.5, None)) for tries in (1, 2, 3)] == [Again, Again, Next]


def test_backoff_doubles_up_to_a_bound_with_full_jitter() -> None:
    assert [POLICY.backoff_s(tries, 1.0) for tries in (1, 2, 3, 4, 5, 10)] == [1, 2, 4, 8, 8, 8]
    assert POLICY.backoff_s(3, 0.0) == 0
    assert POLICY.backoff_s(3, 0.25) == 1


@pytest.mark.parametrize(
    ("asked_s", "remaining_s", "expected"),
    [
        (3.0, None, Again(3.0)),
        (0.1, None, Again(0.5)),
        (5.0, None, Again(5.0)),
        (5.1, None, NEXT),
        (3.0, 3.0, NEXT),
        (3.0, 3.1, Again(3.0)),
        (None, 0.5, NEXT),
        (None, -1.0, NEXT),
    ],
)
def test_waits_are_the_providers_within_patience_and_deadline(asked_s: float | None, remaining_s: float | None, expected: Decision) -> None:
    failure = Failure(Kind.REFUSED, "", http_status=429, retry_after_s=asked_s)
    assert decide(failure, 1, POLICY, 0.5, remaining_s) == expected


def limited(wait_s: float | None) -> Failure:
    return Failure(Kind.REFUSED, "slow down", http_status=429, retry_after_s=wait_s)


@pytest.mark.parametrize(
    ("failures", "reason", "http_status"),
    [
        ([limited(7.0), limited(3.0)], ErrorReason.ERROR_REASON_PROVIDER_RATE_LIMITED, 429),
        ([limited(None)], ErrorReason.ERROR_REASON_PROVIDER_RATE_LIMITED, 429),
        ([limited(None), refused(503)], ErrorReason.ERROR_REASON_PROVIDERS_EXHAUSTED, 502),
        ([Failure(Kind.TIMEOUT, ""), Failure(Kind.LATE, "")], ErrorReason.ERROR_REASON_PROVIDER_TIMEOUT, 504),
        ([Failure(Kind.TIMEOUT, ""), Failure(Kind.UNREACHABLE, "")], ErrorReason.ERROR_REASON_PROVIDERS_EXHAUSTED, 502),
        ([refused(401)], ErrorReason.ERROR_REASON_PROVIDERS_EXHAUSTED, 502),
        ([refused(403)], ErrorReason.ERROR_REASON_PROVIDERS_EXHAUSTED, 502),
        ([refused(404)], ErrorReason.ERROR_REASON_PROVIDERS_EXHAUSTED, 502),
        ([refused(404, code="model_not_found")], ErrorReason.ERROR_REASON_MODEL_NOT_FOUND, 404),
        ([refused(404, code="model_not_found")] * 2, ErrorReason.ERROR_REASON_PROVIDERS_EXHAUSTED, 502),
        ([refused(503), refused(404, code="model_not_found")], ErrorReason.ERROR_REASON_PROVIDERS_EXHAUSTED, 502),
    ],
)
def test_what_the_caller_is_told_when_no_target_is_left(failures: list[Failure], reason: ErrorReason.ValueType, http_status: int) -> None:
    error = exhausted([(f"p{index}", failure) for index, failure in enumerate(failures)])
    assert (error.reason, error.http_status) == (reason, http_status)
    assert error.metadata["provider"] == f"p{len(failures) - 1}"


def test_the_shortest_of_the_asked_waits_is_told() -> None:
    assert exhausted([("a", limited(7.0)), ("b", limited(3.0)), ("c", limited(None))]).retry_after_s == 3.0


def withheld(status: int, wait_s: float) -> Failure:
    return Failure(Kind.WITHHELD, "not now", http_status=status, retry_after_s=wait_s)


@pytest.mark.parametrize(
    ("failures", "reason", "http_status", "wait_s", "provider"),
    [
        ([withheld(503, 9.0), withheld(503, 4.0)], ErrorReason.ERROR_REASON_PROVIDERS_EXHAUSTED, 503, 4.0, "p1"),
        ([withheld(429, 3.0)], ErrorReason.ERROR_REASON_PROVIDER_RATE_LIMITED, 429, 3.0, "p0"),
        # Who comes back first decides.
        ([withheld(429, 3.0), withheld(503, 4.0)], ErrorReason.ERROR_REASON_PROVIDER_RATE_LIMITED, 429, 3.0, "p0"),
        ([withheld(429, 5.0), withheld(503, 4.0)], ErrorReason.ERROR_REASON_PROVIDERS_EXHAUSTED, 503, 4.0, "p1"),
        ([Failure(Kind.UNSUPPORTED, "", param="seed"), withheld(503, 4.0)], ErrorReason.ERROR_REASON_PROVIDERS_EXHAUSTED, 503, 4.0, "p1"),
        # Who was called says more than who was not.
        ([refused(500), withheld(503, 4.0)], ErrorReason.ERROR_REASON_PROVIDERS_EXHAUSTED, 502, None, "p0"),
        ([limited(7.0), withheld(503, 4.0)], ErrorReason.ERROR_REASON_PROVIDER_RATE_LIMITED, 429, 7.0, "p0"),
        # Another may have had the model.
        ([refused(404, code="model_not_found"), withheld(503, 4.0)], ErrorReason.ERROR_REASON_PROVIDERS_EXHAUSTED, 502, None, "p0"),
    ],
)
def test_what_the_caller_is_told_when_calls_were_withheld(
    failures: list[Failure], reason: ErrorReason.ValueType, http_status: int, wait_s: float | None, provider: str
) -> None:
    error = exhausted([(f"p{index}", failure) for index, failure in enumerate(failures)])
    assert (error.reason, error.http_status, error.retry_after_s, error.metadata["provider"]) == (reason, http_status, wait_s, provider)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        *((refused(status), True) for status in (500, 502, 503, 504, 529, 408, 401, 402, 0)),
        *((refused(status), False) for status in (400, 403, 404, 409, 422, 429)),
        *((Failure(kind, ""), True) for kind in (Kind.UNREACHABLE, Kind.TIMEOUT, Kind.LATE, Kind.BROKEN)),
        (Failure(Kind.UNSUPPORTED, ""), False),
        (withheld(503, 1.0), False),
    ],
    ids=lambda value: f"{value.kind.name}-{value.http_status}" if isinstance(value, Failure) else str(value),
)
def test_what_speaks_against_a_providers_health(failure: Failure, expected: bool) -> None:
    assert counts_against_health(failure) is expected


def test_a_rejection_keeps_the_vendors_status_and_words() -> None:
    error = rejected("lab", refused(422, type="t", code="c", param="p"))
    assert (error.message, error.http_status) == ("no", 422)
    assert error.metadata == {"provider": "lab", "http_status": "422", "type": "t", "code": "c", "param": "p"}


def test_a_cut_says_whether_it_was_a_timeout() -> None:
    assert cut("lab", Failure(Kind.BROKEN, "x")).reason == ErrorReason.ERROR_REASON_STREAM_CUT
    assert cut("lab", refused(500)).reason == ErrorReason.ERROR_REASON_STREAM_CUT
    assert cut("lab", Failure(Kind.LATE, "x")).reason == ErrorReason.ERROR_REASON_PROVIDER_TIMEOUT


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (refused(400), 3),
        (refused(401), 16),
        (refused(403), 7),
        (refused(404), 5),
        (refused(408), 4),
        (refused(429), 8),
        (refused(503), 14),
        (Failure(Kind.TIMEOUT, ""), 4),
        (Failure(Kind.UNREACHABLE, ""), 14),
    ],
)
def test_failed_attempts_carry_a_google_code(failure: Failure, code: int) -> None:
    assert status_code(failure) == code


NOW = 1_445_412_480.0  # Wed, 21 Oct 2015 07:28:00 GMT


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "2", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:27:00 GMT"}, 0.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after-ms": "nan"}, None),
    ],
)
def test_retry_after_in_all_its_forms(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_s(headers, NOW) == expected
