"""What a request asks to be let in for, what it may do once it is, and what its client is told. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from joulegate.chat.v1 import chat_pb2
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.ledger.v1 import budget_pb2
from joulegate.ledger.v1 import reservation_pb2 as pb
from services.router import tokens
from services.router.leases import Need, Standing, Target
from services.runtime.errors import GatewayError
from services.wire.fields import without_extra

# Calls that are paid for in advance: one for each target and one more, for a repeat or a second call beside the first. Refused calls do not
# count, so only providers that time out, or cut their answers before the first event, use them up.
MOST_CALLS: Final = 4
MOST_ANSWERS: Final = 128
_BOUNDS: Final = ("max_completion_tokens", "max_tokens")
# OpenAI's clients wait no longer than this, and would try a spent budget again and again, but for a header that they heed.
PATIENCE_S: Final = 60.0
_NO_RETRY: Final = ("x-should-retry", "false")

Headers = Sequence[tuple[str, str]]


def wanted_output_tokens(request: chat_pb2.ChatRequest) -> int:
    """The bound that the client set on each answer; 0 when there is none. What is no bound, as -1, is none: some take it for infinite."""
    newer, older = request.max_completion_tokens, request.max_tokens
    if newer <= 0 or 0 < older < newer:
        newer = older
    return min(max(0, newer), tokens.MOST_TOKENS)


def answers_of(request: chat_pb2.ChatRequest) -> int:
    """How many answers one call gives."""
    return min(max(1, request.n), MOST_ANSWERS)


def calls_wanted(targets: Sequence[Target]) -> int:
    return min(len(targets) + 1, MOST_CALLS)


def need_of(request: chat_pb2.ChatRequest, targets: Sequence[Target], output_tokens: int) -> Need:
    """What a request may need with so many tokens in each answer."""
    return Need(targets, tokens.most_prompt_tokens(request), answers_of(request) * output_tokens, calls_wanted(targets))


def bounded(request: chat_pb2.ChatRequest, most: int) -> chat_pb2.ChatRequest:
    """The request with at most so many tokens in each answer; 0: as it is. In the field that the client used, or in OpenAI's newer one.

    A copy only where something changes.
    """
    if most <= 0:
        return request
    bound = min(wanted_output_tokens(request) or most, most)
    names = [name for name in _BOUNDS if request.HasField(name)]
    if names and all(0 < getattr(request, name) <= bound for name in names):
        return request
    changed = chat_pb2.ChatRequest()
    changed.CopyFrom(request)
    for name in names or _BOUNDS[:1]:
        setattr(changed, name, bound)
    # There it may stand as the client wrote it, or as null, and it would win.
    changed.extra_json = without_extra(request.extra_json, _BOUNDS)
    return changed


def clamping(request: chat_pb2.ChatRequest, most: int) -> str | None:
    """What the client is told when its answers are bounded by less than it asked for."""
    wanted = wanted_output_tokens(request)
    if most <= 0 or 0 < wanted <= most:
        return None
    name = next((name for name in _BOUNDS if request.HasField(name)), _BOUNDS[0])
    return f"{name}: {most} instead of {wanted or 'no bound'}, which is what limits or budgets leave"


def refusal(denial: pb.Denial, retry_after_s: float | None) -> GatewayError:
    """The error for a request that was not let in; it may never be, and then there is no time to wait for."""
    if denial.HasField("rate"):
        limit = pb.RateLimit.Name(denial.rate.limit).removeprefix("RATE_LIMIT_").lower()
        message = denial.message or "Too many requests."
        return GatewayError(ErrorReason.ERROR_REASON_RATE_LIMITED, message, {"limit": limit}, retry_after_s=retry_after_s)
    if denial.HasField("price"):
        target = denial.price.target
        message = denial.message or "No price is known of this model."
        return GatewayError(ErrorReason.ERROR_REASON_PERMISSION_DENIED, message, {"provider": target.provider, "model": target.model})
    budget = denial.budget
    message, metadata = denial.message or "A budget is used up.", dict(_budget_metadata(budget))
    error = GatewayError(ErrorReason.ERROR_REASON_BUDGET_EXHAUSTED, message, metadata, retry_after_s=retry_after_s)
    if retry_after_s is None or retry_after_s > PATIENCE_S:
        error.headers = [_NO_RETRY]
    return error


def wait_s(denial: pb.Denial) -> float | None:
    """How long to wait before it makes sense to ask again; None for ever."""
    return denial.retry_after.ToMicroseconds() / 1e6 if denial.HasField("retry_after") else None


def _budget_metadata(budget: pb.BudgetDenial) -> Iterator[tuple[str, str]]:
    yield "budget", budget.budget_id
    yield "scope", budget_pb2.BudgetScope.Name(budget.scope).removeprefix("BUDGET_SCOPE_").lower()
    yield "measure", budget_pb2.BudgetMeasure.Name(budget.measure).removeprefix("BUDGET_MEASURE_").lower()
    yield "window", budget_pb2.BudgetWindow.Name(budget.window).removeprefix("BUDGET_WINDOW_").lower()
    if budget.HasField("reset_time"):
        yield "reset_time", datetime.fromtimestamp(budget.reset_time.seconds, UTC).isoformat()


def rate_headers(standings: Mapping[str, Standing | None], now: float) -> Headers:
    """OpenAI's headers for those limits that there are. The names are `requests` and `tokens`."""
    return [
        header
        for name, standing in standings.items()
        if standing is not None
        for header in (
            (f"x-ratelimit-limit-{name}", str(standing.limit)),
            (f"x-ratelimit-remaining-{name}", str(standing.remaining)),
            (f"x-ratelimit-reset-{name}", span(standing.reset_s(now))),
        )
    ]


def span(seconds: float) -> str:
    """A time as OpenAI writes it: `0s`, `20ms`, `1.5s`, `6m0s`, `1h0m0s`. Rounded up to milliseconds."""
    milliseconds = -int(-seconds * 1000 // 1)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    text = f"{rest / 1000:g}s"
    if minutes:
        hours, minutes = divmod(minutes, 60)
        text = f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"
    return text
