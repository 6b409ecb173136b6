"""Whether a request is let in: as much of what it wishes as fits into all its budgets and limits at once, or nothing.

Near a limit fewer calls of providers are granted first, then a shorter answer, but none that is shorter than a sixteenth of what was
wanted; after that the request is refused and told which budget is in its way. Tokens per minute do not shorten answers for a moment's
sake: who is too fast waits.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from joulegate.chat.v1.receipt_pb2 import CostBasis
from joulegate.ledger.v1 import reservation_pb2 as pb
from joulegate.ledger.v1.budget_pb2 import BudgetMeasure, BudgetScope, BudgetWindow, OnExhausted
from services.ledger import worst_case
from services.ledger.budgets import NOTHING, Amounts, Budget, Shortage, measure_name
from services.ledger.figures import Figurer, Rates
from services.ledger.funds import Funds
from services.ledger.leases import LIFETIME_S, UNLIMITED, Lease, Pace, may_lease, share
from services.ledger.rate_windows import RateLimits, Refusal, Standing
from services.ledger.records import LOST_OUTPUT_TOKENS, Asked, OpenIntent
from services.ledger.windows import SECOND
from services.ledger.worst_case import Size

HOLD_S: Final = 3600
# Of the answer that was wanted, and of any.
LEAST_SHARE: Final = 16
LEAST_OUTPUT_TOKENS: Final = 16
# Room that only running requests take may be there in a moment.
HELD_RETRY_S: Final = 1
# Where tokens are among amounts.
_TOKENS: Final = BudgetMeasure.BUDGET_MEASURE_TOKENS - 1
_NAMES_OF_SCOPES: Final = {
    BudgetScope.BUDGET_SCOPE_KEY: "this API key's",
    BudgetScope.BUDGET_SCOPE_TEAM: "the team's",
    BudgetScope.BUDGET_SCOPE_ORGANISATION: "the organisation's",
    BudgetScope.BUDGET_SCOPE_GLOBAL: "the gateway's",
}
_NAMES_OF_WINDOWS: Final = {BudgetWindow.BUDGET_WINDOW_DAY: "daily", BudgetWindow.BUDGET_WINDOW_MONTH: "monthly"}


class Granted(NamedTuple):
    """An intent that is open from now on, and the answer to it."""

    intent: OpenIntent
    answer: pb.Grant


class _Fit(NamedTuple):
    calls: int
    output_tokens: int
    amounts: Amounts


def reserve(asked: Asked, funds: Funds, figurer: Figurer) -> Granted | pb.Grant | pb.Denial:
    """Lets a request in, or says why not. Only who is let in changes anything. Without an intent, there is nothing to wait for."""
    if figurer.denies_unpriced:
        # Under a lease a router would decide by itself.
        asked = asked._replace(wants_lease=False)
    if asked.holds_nothing:
        return _counted(asked, funds)
    intent = asked.intent
    limits = funds.limits(intent.key_id)
    rooms = funds.sheet.rooms(intent.key_id, intent.created_ns)
    bound = intent.max_output_tokens
    is_bounded = bound > 0 or limits.tokens_per_minute is not None or any(room is not None for room in rooms)
    wanted = bound or (funds.unbounded_output_tokens if is_bounded else LOST_OUTPUT_TOKENS)
    rates = [figurer.rates(*target, intent.created_ns / 1e9) for target in asked.targets]
    unpriced = unpriced_of(asked.targets, rates) if figurer.denies_unpriced else None
    if unpriced is not None:
        return _unpriced(intent, funds, *unpriced)
    size = Size(intent.estimated_input_tokens, intent.answer_count)

    def worst(calls: int, output_tokens: int) -> Amounts:
        return worst_case.amounts(rates, size, calls, output_tokens)

    fit = _fit(worst, intent.call_count, wanted, _caps(rooms, limits.tokens_per_minute))
    if fit is None:
        return _denied(intent, funds, limits, worst(1, _least(wanted)))
    state = funds.rates.get(intent.key_id)
    if state is not None and (refusal := state.refusal(limits, funds.tick, fit.amounts.tokens)) is not None:
        return _too_fast(intent, funds, refusal)
    funds.sheet.hold_checked(intent.key_id, intent.created_ns, fit.amounts)
    if state is not None:
        state.fill(limits, funds.tick, 1)
    opened = intent.granted(
        fit.output_tokens if is_bounded else 0,
        fit.calls,
        fit.amounts,
        funds.count(intent.key_id, fit.amounts.tokens),
        funds.now_ns + HOLD_S * SECOND,
    )
    pace = funds.note_pace(intent.key_id, fit.amounts)
    lease = _lease(asked, funds, fit.amounts, pace, rates) if asked.wants_lease else None
    answer = grant_of(opened)
    _show(answer, funds, intent.key_id)
    if lease is not None:
        answer.lease.CopyFrom(lease)
    return Granted(opened, answer)


def presumed(intent: OpenIntent, figurer: Figurer, unbounded_output_tokens: int) -> Amounts:
    """What a request holds that was let in while nothing bounded its caller, now that something does: what its first call may take."""
    rates = figurer.rates(intent.provider, intent.model, intent.created_ns / 1e9)
    size = Size(intent.estimated_input_tokens, intent.answer_count)
    return worst_case.amounts([rates], size, intent.call_count, intent.max_output_tokens or unbounded_output_tokens)


def unpriced_of(targets: Sequence[tuple[str, str]], rates: Sequence[Rates]) -> tuple[str, str] | None:
    """The first target that nobody knows a price of."""
    return next((target for target, rate in zip(targets, rates, strict=True) if rate.cost_basis == CostBasis.COST_BASIS_UNKNOWN), None)


def _unpriced(intent: OpenIntent, funds: Funds, provider: str, model: str) -> pb.Denial:
    denial = _denial(intent, funds, None)
    denial.price.target.provider, denial.price.target.model = provider, model
    denial.message = f"No price is known of {model!r} at {provider!r}, and requests that may go there are refused."
    return denial


def _counted(asked: Asked, funds: Funds) -> pb.Grant | pb.Denial:
    """Counts an answer from the cache: no budget is in its way, and there is nothing that could be lost."""
    intent = asked.intent
    limits = funds.limits(intent.key_id)
    state = funds.rates.get(intent.key_id)
    if state is not None:
        refusal = state.refusal(limits._replace(tokens_per_minute=None), funds.tick, 0)
        if refusal is not None:
            return _too_fast(intent, funds, refusal)
        state.fill(limits, funds.tick, 1)
        funds.count(intent.key_id, 0)
    pace = funds.note_pace(intent.key_id, NOTHING)
    lease = _lease(asked, funds, NOTHING, pace, ()) if asked.wants_lease else None
    answer = pb.Grant(lease=lease)
    _show(answer, funds, intent.key_id)
    return answer


def grant_of(intent: OpenIntent) -> pb.Grant:
    """The grant of a request that was let in."""
    answer = pb.Grant(request_id=intent.request_id, max_output_tokens=intent.max_output_tokens, call_count=intent.call_count)
    # In its place: a message that is made apart is copied.
    held = answer.held
    held.nano_usd, held.tokens, held.microjoules, held.micrograms = intent.held
    return answer


def _caps(rooms: Sequence[int | None], per_minute: int | None) -> Sequence[int | None]:
    """What may be held of each measure. What a minute's limit never lets through is no use, however long one waits."""
    if per_minute is None:
        return rooms
    room = rooms[_TOKENS]
    return [*rooms[:_TOKENS], per_minute if room is None else min(room, per_minute), *rooms[_TOKENS + 1 :]]


def _fit(worst: Callable[[int, int], Amounts], calls: int, wanted: int, caps: Sequence[int | None]) -> _Fit | None:
    def fitting(calls: int, output_tokens: int) -> _Fit | None:
        amounts = worst(calls, output_tokens)
        for amount, cap in zip(amounts, caps, strict=True):
            if cap is not None and amount > cap:
                return None
        return _Fit(calls, output_tokens, amounts)

    if (all_of_it := fitting(calls, wanted)) is not None:
        return all_of_it
    # More calls take more, and longer answers do: both are found by halving.
    if calls > 1 and (best := _most(lambda count: fitting(count, wanted), 1, calls - 1)) is not None:
        return best
    return _most(lambda output_tokens: fitting(1, output_tokens), _least(wanted), wanted)


def _most(fitting: Callable[[int], _Fit | None], least: int, most: int) -> _Fit | None:
    best = fitting(least)
    if best is None:
        return None
    while least < most:
        middle = (least + most + 1) // 2
        found = fitting(middle)
        if found is None:
            most = middle - 1
        else:
            best, least = found, middle
    return best


def _least(wanted: int) -> int:
    return min(wanted, max(LEAST_OUTPUT_TOKENS, -(-wanted // LEAST_SHARE)))


def _denied(intent: OpenIntent, funds: Funds, limits: RateLimits, least: Amounts) -> pb.Denial:
    short = funds.sheet.shortage(intent.key_id, intent.created_ns, least)
    if short is not None:
        return _exhausted(intent, funds, short)
    # Only the tokens of a minute are left to be in the way, and those for good.
    denial = _denial(intent, funds, None)
    denial.rate.limit = pb.RateLimit.RATE_LIMIT_TOKENS_PER_MINUTE
    denial.message = f"The request takes {least.tokens} tokens at least, and {limits.tokens_per_minute} a minute are allowed."
    return denial


def _exhausted(intent: OpenIntent, funds: Funds, short: Shortage) -> pb.Denial:
    budget, free_at = short.budget, short.free_at_ns
    wait = None if free_at is None else max(SECOND // 1000, free_at - funds.now_ns)
    denial = _denial(intent, funds, HELD_RETRY_S * SECOND if short.is_held_only else wait)
    denial.budget.budget_id = budget.budget_id
    denial.budget.scope = BudgetScope.ValueType(budget.scope)
    denial.budget.measure = BudgetMeasure.ValueType(budget.measure)
    denial.budget.window = BudgetWindow.ValueType(budget.window_kind)
    if free_at is not None:
        denial.budget.reset_time.CopyFrom(_time(free_at))
    if budget.on_exhausted == OnExhausted.ON_EXHAUSTED_DOWNGRADE:
        denial.budget.downgrade_model = budget.downgrade_model
    denial.message = _sentence(budget, short)
    return denial


def _sentence(budget: Budget, short: Shortage) -> str:
    window = _NAMES_OF_WINDOWS.get(budget.window_kind) or f"{budget.rolling_s} s"  # type: ignore[call-overload]
    scope = _NAMES_OF_SCOPES[BudgetScope.ValueType(budget.scope)]
    measure = measure_name(budget.measure).replace("gco2e", "gCO2e")
    said = f"This request does not fit into what is left of {scope} {window} budget in {measure}"
    if short.free_at_ns is None:
        return f"{said}, and never will."
    if short.is_held_only:
        return f"{said} while other requests are running."
    return f"{said}; there is room again at {datetime.fromtimestamp(short.free_at_ns // SECOND, UTC):%Y-%m-%dT%H:%M:%SZ}."


def _too_fast(intent: OpenIntent, funds: Funds, refusal: Refusal) -> pb.Denial:
    denial = _denial(intent, funds, refusal.wait)
    denial.rate.limit = pb.RateLimit.ValueType(refusal.limit)
    what = "tokens" if refusal.limit == pb.RateLimit.RATE_LIMIT_TOKENS_PER_MINUTE else "requests"
    denial.message = f"Rate limit reached: too many {what}."
    return denial


def _denial(intent: OpenIntent, funds: Funds, wait: int | None) -> pb.Denial:
    denial = pb.Denial(request_id=intent.request_id)
    _show(denial, funds, intent.key_id)
    if wait is not None:
        denial.retry_after.CopyFrom(_duration(wait))
    return denial


def _show(answer: pb.Grant | pb.Denial, funds: Funds, key_id: str) -> None:
    """Tells where the caller stands with its limits."""
    rates, state = answer.rates, funds.rates.get(key_id)
    rates.SetInParent()
    if state is None:
        return
    requests, tokens = state.standing(funds.limits(key_id), funds.tick)
    if requests is not None:
        _set_standing(rates.requests, requests)
    if tokens is not None:
        _set_standing(rates.tokens, tokens)


def _set_standing(shown: pb.RateStanding, standing: Standing) -> None:
    shown.limit, shown.remaining, until_reset = standing
    reset = shown.reset
    reset.seconds, reset.nanos = divmod(until_reset, SECOND)


def _lease(asked: Asked, funds: Funds, one: Amounts, pace: Pace, rates: Sequence[Rates]) -> pb.Lease | None:
    """An allowance for more requests like this one."""
    key_id = asked.intent.key_id
    limits = funds.limits(key_id)
    rooms = funds.sheet.rooms(key_id, funds.now_ns)
    message = pb.Lease(lease_id=UNLIMITED, key_id=key_id, lifetime=Duration(seconds=LIFETIME_S))
    if limits.are_none and all(room is None for room in rooms):
        return message
    if not may_lease(funds.now_ns):
        return None
    bounded = _bounded(funds, key_id, one, pace, rooms)
    if asked.holds_nothing:
        # Further answers from the cache are all that can be told of.
        bounded |= {name: (0, 0.0, 0) for name in bounded if name != "requests"}
    shares = {name: share(*each) for name, each in bounded.items()}
    given = {name: amount for name, amount in shares.items() if amount is not None}
    if len(given) < len(shares):
        return None
    lease = Lease(funds.new_lease_id(), asked.intent.router_id, key_id, funds.now_ns, **dict.fromkeys(Lease._fields[4:], 0) | given)
    _set_aside(lease, funds)
    message.lease_id = lease.lease_id
    for name, amount in given.items():
        setattr(message, name, amount)
    message.targets.extend(worst_case.line(*target, rate) for target, rate in zip(asked.targets, rates, strict=True))
    if len(given) > ("requests" in given):
        message.unbounded_output_tokens = funds.unbounded_output_tokens
    return message


def _bounded(funds: Funds, key_id: str, one: Amounts, pace: Pace, rooms: Sequence[int | None]) -> dict[str, tuple[int, float, int]]:
    """What bounds a caller, by the field of its lease: what is left, what it took of late, and what one request takes."""
    bounded = {
        name: (room, recent, each)
        for name, room, recent, each in zip(NOTHING._fields, rooms, pace.amounts, one, strict=True)
        if room is not None
    }
    state = funds.rates.get(key_id)
    if state is not None:
        requests, tokens = state.standing(funds.limits(key_id), funds.tick)
        if requests is not None:
            bounded["requests"] = (requests.remaining, pace.requests, 1)
        if tokens is not None:
            bounded["rate_tokens"] = (tokens.remaining, pace.amounts[_TOKENS], one.tokens)
    return bounded


def _set_aside(lease: Lease, funds: Funds) -> None:
    funds.sheet.hold_checked(lease.key_id, lease.created_ns, lease.left)
    state = funds.rates.get(lease.key_id)
    if state is not None:
        state.leased_requests += lease.requests
        state.leased_tokens += lease.rate_tokens
        state.fill(funds.limits(lease.key_id), funds.tick, lease.requests)
    funds.put(lease)


def _duration(nanoseconds: int) -> Duration:
    return Duration(seconds=nanoseconds // SECOND, nanos=nanoseconds % SECOND)


def _time(nanoseconds: int) -> Timestamp:
    return Timestamp(seconds=nanoseconds // SECOND, nanos=nanoseconds % SECOND)
