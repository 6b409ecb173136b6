"""What to do about a failure: try the same target again, go on to the next, or stop; and what to say when none is left."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from google.rpc import code_pb2

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.dispatch.failure import CALLLESS, Failure, Kind
from services.runtime.errors import GatewayError

_OVERLOADED = frozenset({408, 409, 429})
# Our key is bad there, our account is empty, or the model is not there: that is between the gateway and this provider.
_NOT_HERE = frozenset({401, 402, 403, 404})
# Beside 5xx. Not 403: some say it of what this caller asks.
_SERVES_NOBODY = frozenset({0, 401, 402, 408})
_TIMEOUTS = frozenset({Kind.TIMEOUT, Kind.LATE})
# Codes of calls without an event whose prompt was read, as the books take it.
_READ = frozenset({code_pb2.DEADLINE_EXCEEDED, code_pb2.DATA_LOSS, code_pb2.CANCELLED})
_CODE_OF_STATUS: Mapping[int, code_pb2.Code.ValueType] = {
    401: code_pb2.UNAUTHENTICATED,
    403: code_pb2.PERMISSION_DENIED,
    404: code_pb2.NOT_FOUND,
    408: code_pb2.DEADLINE_EXCEEDED,
    409: code_pb2.ABORTED,
    429: code_pb2.RESOURCE_EXHAUSTED,
}


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how fast. Delays are in seconds."""

    attempts: int = 2
    base_s: float = 0.1
    most_s: float = 2.0
    # A provider that asks for more patience than this is left for the next one.
    patience_s: float = 5.0
    # Repeats that all requests together may make (retry_budget.py): this share of the requests, and so many a second in any case.
    budget: float = 0.2
    budget_floor_per_s: float = 1.0

    def backoff_s(self, tries: int, jitter: float) -> float:
        """The wait after so many tries: exponential with full jitter, so that clients that failed together do not come back together."""
        return jitter * min(self.most_s, self.base_s * 2.0 ** (tries - 1))


@dataclass(frozen=True, slots=True)
class Again:
    """The same target, after a wait."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Next:
    """The next target."""


@dataclass(frozen=True, slots=True)
class Stop:
    """No target would take this request."""


Decision = Again | Next | Stop


def decide(failure: Failure, tries: int, policy: RetryPolicy, jitter: float, remaining_s: float | None) -> Decision:
    """What follows the failure of a target's `tries`-th call.

    `jitter` is within [0, 1); `remaining_s` is what the caller's deadline leaves, None for no end.
    """
    if is_callers_fault(failure):
        return Stop()
    if tries >= policy.attempts or not _is_passing(failure):
        return Next()
    asked_s = failure.retry_after_s or 0.0
    delay_s = max(policy.backoff_s(tries, jitter), asked_s)
    if asked_s > policy.patience_s or (remaining_s is not None and delay_s >= remaining_s):
        return Next()
    return Again(delay_s)


def is_callers_fault(failure: Failure) -> bool:
    """Whether the request itself was refused, as any provider would."""
    return 400 <= failure.http_status < 500 and failure.http_status not in _OVERLOADED | _NOT_HERE


def counts_against_health(failure: Failure) -> bool:
    """Whether it says that nobody would be served. A provider's limits and a caller's faults do not say it, a gateway's bad key does."""
    if failure.kind is Kind.REFUSED:
        return failure.http_status >= 500 or failure.http_status in _SERVES_NOBODY
    return failure.kind not in CALLLESS


def may_be_billed(failure: Failure) -> bool:
    """Whether the provider may have read the prompt before the call failed."""
    return failure.kind not in CALLLESS and status_code(failure) in _READ


def _is_passing(failure: Failure) -> bool:
    """Whether the same call may succeed a moment later."""
    if failure.kind is Kind.REFUSED:
        return failure.http_status in _OVERLOADED or failure.http_status >= 500 or failure.http_status == 0
    return failure.kind in (Kind.UNREACHABLE, Kind.TIMEOUT)


def rejected(provider: str, failure: Failure) -> GatewayError:
    """The error when a provider refused the request for good: the vendor's own words."""
    return GatewayError(ErrorReason.ERROR_REASON_PROVIDER_REJECTED, failure.message, _vendor_metadata(provider, failure))


def exhausted(failures: Sequence[tuple[str, Failure]]) -> GatewayError:
    """The error when no target is left, from each target's last failure, in order."""
    called = [(provider, failure) for provider, failure in failures if failure.kind not in CALLLESS]
    if not called:
        return _not_called(failures)
    provider, last = called[-1]
    was_asked_of_all = not any(failure.kind is Kind.WITHHELD for _, failure in failures)
    failures = called
    if was_asked_of_all and len(failures) == 1 and _is_unknown_model(last):
        return GatewayError(ErrorReason.ERROR_REASON_MODEL_NOT_FOUND, last.message, _vendor_metadata(provider, last))
    if all(failure.http_status == 429 for _, failure in failures):
        waits = [failure.retry_after_s for _, failure in failures if failure.retry_after_s is not None]
        return GatewayError(
            ErrorReason.ERROR_REASON_PROVIDER_RATE_LIMITED,
            f"{provider} is over its rate limit: {last.message}",
            {"provider": provider},
            retry_after_s=min(waits, default=1.0),
        )
    if all(failure.kind in _TIMEOUTS for _, failure in failures):
        return GatewayError(ErrorReason.ERROR_REASON_PROVIDER_TIMEOUT, f"{provider}: {last.message}", {"provider": provider})
    return GatewayError(
        ErrorReason.ERROR_REASON_PROVIDERS_EXHAUSTED,
        f"every provider failed; the last was {provider}: {last.message}",
        {"provider": provider},
    )


def _not_called(failures: Sequence[tuple[str, Failure]]) -> GatewayError:
    """The error when no target was called: what would be the first to change, or what none of them can do."""
    withheld = [(provider, failure) for provider, failure in failures if failure.kind is Kind.WITHHELD]
    if not withheld:
        provider, failure = failures[0]
        return GatewayError(ErrorReason.ERROR_REASON_UNSUPPORTED_PARAMETER, failure.message, {"provider": provider, "param": failure.param})
    provider, soonest = min(withheld, key=lambda one: one[1].retry_after_s or 0.0)
    if soonest.http_status == 429:
        reason, metadata = ErrorReason.ERROR_REASON_PROVIDER_RATE_LIMITED, {"provider": provider}
    else:
        reason = ErrorReason.ERROR_REASON_PROVIDERS_EXHAUSTED
        metadata = {"provider": provider, "http_status": "503", "code": "circuit_open"}
    message = f"no provider can be called now; the first to come back is {provider}: {soonest.message}"
    return GatewayError(reason, message, metadata, retry_after_s=soonest.retry_after_s)


def cut(provider: str, failure: Failure) -> GatewayError:
    """The error when an answer ended after its first event and before its last."""
    is_late = failure.kind in _TIMEOUTS
    reason = ErrorReason.ERROR_REASON_PROVIDER_TIMEOUT if is_late else ErrorReason.ERROR_REASON_STREAM_CUT
    return GatewayError(reason, f"{provider}: {failure.message}", {"provider": provider})


def _is_unknown_model(failure: Failure) -> bool:
    return failure.http_status == 404 and (failure.code == "model_not_found" or "model" in failure.message.lower())


def _vendor_metadata(provider: str, failure: Failure) -> dict[str, str]:
    words = {"type": failure.type, "param": failure.param, "code": failure.code}
    return {"provider": provider, "http_status": str(failure.http_status)} | {name: word for name, word in words.items() if word}


def status_code(failure: Failure) -> int:
    """The google.rpc.Code of a failure."""
    code = code_pb2.UNAVAILABLE
    if failure.kind in _TIMEOUTS:
        code = code_pb2.DEADLINE_EXCEEDED
    elif failure.kind is Kind.BROKEN:
        code = code_pb2.DATA_LOSS
    elif failure.kind is Kind.SUPERSEDED:
        code = code_pb2.CANCELLED
    elif 400 <= failure.http_status < 500:
        code = _CODE_OF_STATUS.get(failure.http_status, code_pb2.INVALID_ARGUMENT)
    return int(code)


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """What the provider asks to wait: `retry-after-ms`, or `retry-after` in seconds or as a date. None when it does not say."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return _wait(float(milliseconds) / 1000)
        text = headers.get("retry-after")
        if not text:
            return None
        return _wait(float(text) if text[:1].isdigit() else parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def _wait(seconds: float) -> float | None:
    # A day is for ever here; NaN and infinity fail the comparison.
    return max(0.0, seconds) if seconds < 86_400 else None
