import json

import grpc
import pytest
from google.rpc import status_pb2

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.runtime.errors import ERROR_TABLE, MAX_MESSAGE, GatewayError

# Envoy's transcoder maps codes to HTTP by the same well-known table; where ours says otherwise, `x-http-status` carries it.
REASONS = [reason for reason in ErrorReason.values() if reason != ErrorReason.ERROR_REASON_UNSPECIFIED]


def test_every_reason_has_a_row_in_the_table() -> None:
    assert set(ERROR_TABLE) == set(REASONS)


@pytest.mark.parametrize("reason", REASONS)
def test_an_error_survives_its_way_through_a_status(reason: ErrorReason.ValueType) -> None:
    error = GatewayError(reason, "why", {"param": "p"}, retry_after_s=0.25)
    again = GatewayError.from_status(error.to_status())
    assert (again.reason, again.message, dict(again.metadata), again.retry_after_s) == (reason, "why", {"param": "p"}, 0.25)
    assert 400 <= again.http_status <= 504


def test_the_openai_object_is_ascii_and_takes_the_providers_own_words() -> None:
    error = GatewayError(
        ErrorReason.ERROR_REASON_PROVIDER_REJECTED, "zu groß", {"type": "t", "code": "c", "param": "n", "http_status": "422"}
    )
    body = error.openai_body()
    assert body.isascii()
    assert json.loads(body) == {"error": {"message": "zu groß", "type": "t", "param": "n", "code": "c"}}
    assert error.http_status == 422


@pytest.mark.parametrize("status", ["200", "999", "abc", ""])
def test_a_kept_http_status_that_is_no_error_is_not_believed(status: str) -> None:
    assert GatewayError(ErrorReason.ERROR_REASON_PROVIDER_REJECTED, "m", {"http_status": status}).http_status == 400


def test_a_foreign_status_is_read_by_its_code() -> None:
    status = status_pb2.Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message="connection refused")
    assert GatewayError.from_status(status).reason == ErrorReason.ERROR_REASON_SERVICE_UNAVAILABLE


def test_long_messages_are_cut_to_what_trailers_hold() -> None:
    assert len(GatewayError(ErrorReason.ERROR_REASON_INTERNAL, "x" * 100_000).message) == MAX_MESSAGE
