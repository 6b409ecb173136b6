"""Errors are values with a reason; one table says what each reason is to gRPC, to HTTP and to an OpenAI client.

A `GatewayError` crosses gRPC as google.rpc.Status with ErrorInfo (reason, domain, metadata) and RetryInfo, and is the same value again on
the other side, whichever channel carried it. At the edge it is written as OpenAI's error object (services/runtime/interceptors.py).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from joulegate.chat.v1.error_reason_pb2 import ErrorReason

DOMAIN: Final = "joulegate.dev"
MAX_MESSAGE: Final = 1000
STATUS_DETAILS_KEY: Final = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class ErrorShape:
    """What a reason looks like from outside."""

    grpc_code: grpc.StatusCode
    http_status: int
    type: str
    code: str | None


_INVALID: Final = "invalid_request_error"
_SERVER: Final = "server_error"
_ERR = ErrorReason

ERROR_TABLE: Final[Mapping[ErrorReason.ValueType, ErrorShape]] = {
    _ERR.ERROR_REASON_INVALID_REQUEST: ErrorShape(grpc.StatusCode.INVALID_ARGUMENT, 400, _INVALID, None),
    _ERR.ERROR_REASON_UNSUPPORTED_PARAMETER: ErrorShape(grpc.StatusCode.INVALID_ARGUMENT, 400, _INVALID, "unsupported_parameter"),
    _ERR.ERROR_REASON_REQUEST_TOO_LARGE: ErrorShape(grpc.StatusCode.OUT_OF_RANGE, 413, _INVALID, "request_too_large"),
    _ERR.ERROR_REASON_INVALID_API_KEY: ErrorShape(grpc.StatusCode.UNAUTHENTICATED, 401, "authentication_error", "invalid_api_key"),
    _ERR.ERROR_REASON_PERMISSION_DENIED: ErrorShape(grpc.StatusCode.PERMISSION_DENIED, 403, "permission_error", "permission_denied"),
    _ERR.ERROR_REASON_MODEL_NOT_FOUND: ErrorShape(grpc.StatusCode.NOT_FOUND, 404, _INVALID, "model_not_found"),
    _ERR.ERROR_REASON_NOT_FOUND: ErrorShape(grpc.StatusCode.NOT_FOUND, 404, _INVALID, "not_found"),
    _ERR.ERROR_REASON_RATE_LIMITED: ErrorShape(grpc.StatusCode.RESOURCE_EXHAUSTED, 429, "rate_limit_error", "rate_limit_exceeded"),
    _ERR.ERROR_REASON_BUDGET_EXHAUSTED: ErrorShape(grpc.StatusCode.RESOURCE_EXHAUSTED, 429, "budget_exceeded", "insufficient_quota"),
    _ERR.ERROR_REASON_NOT_CACHED: ErrorShape(grpc.StatusCode.FAILED_PRECONDITION, 504, _INVALID, "not_cached"),
    _ERR.ERROR_REASON_PROVIDER_REJECTED: ErrorShape(grpc.StatusCode.INVALID_ARGUMENT, 400, _INVALID, None),
    _ERR.ERROR_REASON_PROVIDER_RATE_LIMITED: ErrorShape(
        grpc.StatusCode.RESOURCE_EXHAUSTED, 429, "rate_limit_error", "provider_rate_limit_exceeded"
    ),
    _ERR.ERROR_REASON_PROVIDERS_EXHAUSTED: ErrorShape(grpc.StatusCode.UNAVAILABLE, 502, "all_providers_failed", "all_providers_failed"),
    _ERR.ERROR_REASON_PROVIDER_TIMEOUT: ErrorShape(grpc.StatusCode.DEADLINE_EXCEEDED, 504, _SERVER, "provider_timeout"),
    _ERR.ERROR_REASON_STREAM_CUT: ErrorShape(grpc.StatusCode.UNAVAILABLE, 502, _SERVER, "stream_cut"),
    _ERR.ERROR_REASON_LEDGER_UNAVAILABLE: ErrorShape(grpc.StatusCode.UNAVAILABLE, 503, _SERVER, "ledger_unavailable"),
    _ERR.ERROR_REASON_SERVICE_UNAVAILABLE: ErrorShape(grpc.StatusCode.UNAVAILABLE, 503, _SERVER, "service_unavailable"),
    _ERR.ERROR_REASON_DEADLINE_EXCEEDED: ErrorShape(grpc.StatusCode.DEADLINE_EXCEEDED, 504, _SERVER, "deadline_exceeded"),
    _ERR.ERROR_REASON_CANCELLED: ErrorShape(grpc.StatusCode.CANCELLED, 499, _INVALID, "client_closed_request"),
    _ERR.ERROR_REASON_INTERNAL: ErrorShape(grpc.StatusCode.INTERNAL, 500, _SERVER, "internal_error"),
    _ERR.ERROR_REASON_UNIMPLEMENTED: ErrorShape(grpc.StatusCode.UNIMPLEMENTED, 501, _INVALID, "unimplemented"),
    _ERR.ERROR_REASON_CONFLICT: ErrorShape(grpc.StatusCode.ABORTED, 409, _INVALID, "conflict"),
}

# A status that carries no ErrorInfo of ours came from gRPC itself or from a stranger: read it by its code.
_REASON_OF_CODE: Final[Mapping[grpc.StatusCode, ErrorReason.ValueType]] = {
    grpc.StatusCode.INVALID_ARGUMENT: _ERR.ERROR_REASON_INVALID_REQUEST,
    grpc.StatusCode.UNAUTHENTICATED: _ERR.ERROR_REASON_INVALID_API_KEY,
    grpc.StatusCode.PERMISSION_DENIED: _ERR.ERROR_REASON_PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND: _ERR.ERROR_REASON_NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED: _ERR.ERROR_REASON_RATE_LIMITED,
    grpc.StatusCode.UNAVAILABLE: _ERR.ERROR_REASON_SERVICE_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: _ERR.ERROR_REASON_DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED: _ERR.ERROR_REASON_CANCELLED,
    grpc.StatusCode.UNIMPLEMENTED: _ERR.ERROR_REASON_UNIMPLEMENTED,
}
_CODE_BY_NUMBER: Final = {code.value[0]: code for code in grpc.StatusCode}
_HTTP_STATUS = re.compile(r"[45]\d\d")


class GatewayError(Exception):
    """A failure with a reason. `metadata` may override `type`, `code`, `param` and `http_status` of the OpenAI error."""

    def __init__(
        self,
        reason: ErrorReason.ValueType,
        message: str,
        metadata: Mapping[str, str] | None = None,
        *,
        retry_after_s: float | None = None,
    ) -> None:
        # The message travels three times in one set of trailers, which gRPC bounds: keep it well below.
        self.message = message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"
        super().__init__(self.message)
        self.reason = reason
        self.metadata: Mapping[str, str] = metadata or {}
        self.retry_after_s = retry_after_s
        # Of the response at the edge; they do not travel inside the mesh.
        self.headers: Sequence[tuple[str, str]] = ()

    def with_headers(self, headers: Sequence[tuple[str, str]]) -> "GatewayError":
        """The same error with further headers: one error may be told to several clients."""
        error = GatewayError(self.reason, self.message, self.metadata, retry_after_s=self.retry_after_s)
        error.headers = [*self.headers, *headers]
        return error

    @property
    def shape(self) -> ErrorShape:
        return ERROR_TABLE[self.reason]

    @property
    def http_status(self) -> int:
        """The HTTP status of the answer, the provider's own where it was kept."""
        kept = self.metadata.get("http_status", "")
        return int(kept) if _HTTP_STATUS.fullmatch(kept) else self.shape.http_status

    def openai_body(self) -> bytes:
        """OpenAI's error object as ASCII JSON, fit for gRPC metadata."""
        metadata, shape = self.metadata, self.shape
        error = {
            "message": self.message,
            "type": metadata.get("type") or shape.type,
            "param": metadata.get("param") or None,
            "code": metadata.get("code") or shape.code,
        }
        return json.dumps({"error": error}).encode("ascii")

    def to_status(self) -> status_pb2.Status:
        """The error as google.rpc.Status."""
        info = error_details_pb2.ErrorInfo(reason=ErrorReason.Name(self.reason), domain=DOMAIN, metadata=self.metadata)
        details = [_packed(info)]
        if self.retry_after_s is not None:
            delay = duration_pb2.Duration()
            delay.FromMicroseconds(round(self.retry_after_s * 1e6))
            details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
        return status_pb2.Status(code=self.shape.grpc_code.value[0], message=self.message, details=details)

    @classmethod
    def from_status(cls, status: status_pb2.Status) -> "GatewayError":
        """The error that `to_status` wrote, or the nearest reading of a foreign status."""
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        retry_after_s = None
        for detail in status.details:
            if detail.Is(info.DESCRIPTOR):
                detail.Unpack(info)
            elif detail.Is(retry.DESCRIPTOR):
                detail.Unpack(retry)
                retry_after_s = retry.retry_delay.ToMicroseconds() / 1e6
        if info.domain == DOMAIN and info.reason in ErrorReason.keys():  # noqa: SIM118 - an enum wrapper, not a dict
            return cls(ErrorReason.Value(info.reason), status.message, dict(info.metadata), retry_after_s=retry_after_s)
        code = _CODE_BY_NUMBER.get(status.code, grpc.StatusCode.UNKNOWN)
        return cls(_REASON_OF_CODE.get(code, _ERR.ERROR_REASON_INTERNAL), status.message, retry_after_s=retry_after_s)

    @classmethod
    def from_rpc(cls, error: grpc.aio.AioRpcError) -> "GatewayError":
        """The error that a failed call carries."""
        for key, value in error.trailing_metadata() or ():
            if key == STATUS_DETAILS_KEY and isinstance(value, bytes):
                return cls.from_status(status_pb2.Status.FromString(value))
        return cls.from_status(status_pb2.Status(code=error.code().value[0], message=error.details() or ""))


def _packed(message: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def status_code(number: int) -> grpc.StatusCode:
    """The gRPC status code of a google.rpc.Code."""
    return _CODE_BY_NUMBER.get(number, grpc.StatusCode.UNKNOWN)


def code_name(number: int) -> str:
    """`UNAVAILABLE` and the like."""
    return code_pb2.Code.Name(number) if number in code_pb2.Code.values() else str(number)
