"""Records as routers send them: each is read once, checked on the way, into what is booked. Raises what says how one cannot be."""

from collections.abc import Callable, Iterable
from typing import Final, NoReturn, TypeVar

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.chat.v1.receipt_pb2 import EnergyBasis
from joulegate.ledger.v1 import entry_pb2
from joulegate.ledger.v1 import ledger_service_pb2 as pb
from joulegate.ledger.v1.entry_pb2 import Outcome
from joulegate.ledger.v1.reservation_pb2 import Extension, Release, Wishes
from services.ledger.budgets import Amounts
from services.ledger.cost import Usage
from services.ledger.energy import MAX_MICROJOULES
from services.ledger.figures import NOTHING_TOLD, Told
from services.ledger.records import Asked, Attempt, LetIn, OpenIntent, Settled, Wished
from services.ledger.request_key import RequestKey
from services.runtime.errors import GatewayError

Record = TypeVar("Record", pb.Intent, pb.Settlement, Release, Extension)
Read = TypeVar("Read")

# Bounds that no honest record meets, so that every sum of figures fits 64 bits.
MAX_TOKENS: Final = 10**9
MAX_NANO_USD: Final = 10**15
MAX_HELD: Final = 10**16
# Three hours of a core.
MAX_CPU_NANOS: Final = 10**13
MAX_ATTEMPTS: Final = 1000
MAX_TARGETS: Final = 100
MAX_ANSWERS: Final = 1000
MAX_ID_CHARACTERS: Final = 256
MAX_TEXT_CHARACTERS: Final = 512
# Bound once: looking a name up in a protobuf enum takes longer than everything else about it.
_UNSPECIFIED: Final = Outcome.OUTCOME_UNSPECIFIED
_LOST: Final = Outcome.OUTCOME_LOST
_CACHE_HIT: Final = Outcome.OUTCOME_CACHE_HIT
_DECLARED: Final = EnergyBasis.ENERGY_BASIS_DECLARED
_MEASURED: Final = EnergyBasis.ENERGY_BASIS_MEASURED
_MAX_SECONDS: Final = 9_223_372_035  # in the year 2262: nanoseconds up to it fit 64 bits
_SECOND: Final = 10**9


class UnbookableError(ValueError):
    """What is wrong with a record: the field, a colon, and how."""


def each(kind: str, records: Iterable[Record], read: Callable[[Record], Read]) -> list[Read]:
    """What records of a kind say. Raises GatewayError (INVALID_REQUEST), which names the first that cannot be booked."""
    found = []
    for place, record in enumerate(records):
        try:
            found.append(read(record))
        except UnbookableError as error:
            raise _refusal(f"{kind}[{place}].{error}", record.request_id[:MAX_ID_CHARACTERS]) from None
    return found


def _refusal(problem: str, request_id: str) -> GatewayError:
    return GatewayError(
        ErrorReason.ERROR_REASON_INVALID_REQUEST,
        f"record of request {request_id!r}: {problem}",
        {"param": problem.partition(":")[0], "request_id": request_id},
    )


def intent(sent: pb.Intent, router_id: str) -> LetIn | Wished:
    """An intent; with its wishes when it has some."""
    key = key_of(sent)
    input_tokens, output_tokens = sent.estimated_input_tokens, sent.max_output_tokens
    if not 0 <= input_tokens <= MAX_TOKENS:
        _refuse(f"estimated_input_tokens: {input_tokens} is not a count")
    if output_tokens < 0:
        _refuse(f"max_output_tokens: {output_tokens} is not a bound")
    what = (
        *(key.request_id, router_id, key.created_ns, _text(sent.key_id), _text(sent.requested_model)),
        *(_text(sent.provider), _text(sent.model), sent.streamed, input_tokens, min(output_tokens, MAX_TOKENS)),
    )
    if sent.HasField("wishes"):
        return _wished(key, what, sent.wishes)
    held = sent.held
    wanted = Amounts(held.nano_usd, held.tokens, held.microjoules, held.micrograms)
    if min(wanted) < 0 or max(wanted) > MAX_HELD:
        _refuse("held: not amounts")
    return LetIn(key, OpenIntent(*what), sent.lease_id, wanted)


def _wished(key: RequestKey, what: tuple[str, str, int, str, str, str, str, bool, int, int], wishes: Wishes) -> Wished:
    sent, answers, calls, holds_nothing = wishes.targets, wishes.answer_count, wishes.call_count, wishes.holds_nothing
    if not (0 if holds_nothing else 1) <= len(sent) <= MAX_TARGETS:
        _refuse(f"wishes.targets: {len(sent)} of them")
    if not 0 <= answers <= MAX_ANSWERS:
        _refuse(f"wishes.answer_count: {answers} is not a number of answers")
    if not 0 <= calls <= MAX_ATTEMPTS:
        _refuse(f"wishes.call_count: {calls} is not a number of calls")
    targets = tuple(dict.fromkeys([(_text(target.provider), _text(target.model)) for target in sent]))
    return Wished(key, Asked(OpenIntent(*what, calls or 1, answers or 1), targets, wishes.wants_lease, holds_nothing))


def settlement(sent: pb.Settlement) -> Settled:
    """A settlement, its attempts in their order."""
    key = key_of(sent)
    cpu_nanos = sent.gateway_cpu_nanos
    if not 0 <= cpu_nanos <= MAX_CPU_NANOS:
        _refuse(f"gateway_cpu_nanos: {cpu_nanos} is not a time of a core")
    calls = list(sent.attempts)
    if not 1 <= len(calls) <= MAX_ATTEMPTS:
        _refuse(f"attempts: {len(calls)} of them")
    attempts = [_attempt(attempt, place) for place, attempt in enumerate(calls)]
    if len(attempts) > 1:
        if len({attempt.number for attempt in attempts}) < len(attempts):
            _refuse("attempts: two have the same number")
        attempts.sort(key=lambda attempt: attempt.number)
    names = (_text(sent.key_id), _text(sent.requested_model))
    return Settled(key, *names, sent.streamed, sent.cache_status, attempts, sent.lease_id, cpu_nanos)


def key_of(record: pb.Intent | pb.Settlement | Release | Extension) -> RequestKey:
    """Which request a record is of."""
    request_id, began = record.request_id, record.create_time
    if not 0 < len(request_id) <= MAX_ID_CHARACTERS or "\0" in request_id:
        _refuse("request_id: missing or not an id")
    seconds, nanos = began.seconds, began.nanos
    created_ns = seconds * _SECOND + nanos
    # Part of what names the request, so there is no doing without it.
    if not (0 <= seconds <= _MAX_SECONDS and 0 <= nanos < _SECOND and created_ns):
        _refuse("create_time: missing, or not a time since 1970")
    return RequestKey(request_id, created_ns)


def _attempt(attempt: pb.Attempt, place: int) -> Attempt:
    number, outcome, tokens = attempt.attempt, attempt.outcome, attempt.tokens
    if number < 0:
        _refuse(f"attempts[{place}].attempt: {number} is not a number of an attempt")
    if outcome in (_UNSPECIFIED, _LOST):
        _refuse(f"attempts[{place}].outcome: missing, or one that only the ledger gives")
    if outcome == _CACHE_HIT and number != 0:
        _refuse(f"attempts[{place}].attempt: {number} for a cache hit, which is 0")
    usage = _usage(tokens)
    if min(usage) < 0 or max(usage) > MAX_TOKENS:
        name, count = next((name, count) for name, count in usage._asdict().items() if not 0 <= count <= MAX_TOKENS)
        _refuse(f"attempts[{place}].tokens.{name}: {count} is not a count")
    saved_nano_usd, saved_microjoules = attempt.saved_cost_nano_usd, attempt.saved_energy_microjoules
    if not (0 <= saved_nano_usd <= MAX_NANO_USD and 0 <= saved_microjoules <= MAX_MICROJOULES):
        _refuse(f"attempts[{place}].saved_cost_nano_usd, saved_energy_microjoules: not amounts")
    names = (_text(attempt.provider), _text(attempt.model), _text(attempt.served_model))
    told = _told(attempt, place)
    return Attempt(number, *names, outcome, usage, tokens.estimated, saved_nano_usd, saved_microjoules, told)


def _told(attempt: pb.Attempt, place: int) -> Told:
    reported = attempt.reported_cost_nano_usd if attempt.HasField("reported_cost_nano_usd") else None
    if reported is not None and not 0 <= reported <= MAX_NANO_USD:
        _refuse(f"attempts[{place}].reported_cost_nano_usd: {reported} is not an amount")
    if not attempt.HasField("measured_energy_microjoules"):
        return NOTHING_TOLD if reported is None else Told(reported)
    measured = attempt.measured_energy_microjoules
    if not 0 <= measured <= MAX_MICROJOULES:
        _refuse(f"attempts[{place}].measured_energy_microjoules: {measured} is not an amount")
    return Told(reported, measured, attempt.measured_energy_boundary, _DECLARED if attempt.is_energy_declared else _MEASURED)


def _usage(tokens: entry_pb2.TokenCounts) -> Usage:
    return Usage(
        tokens.input_tokens,
        tokens.cached_input_tokens,
        tokens.output_tokens,
        tokens.reasoning_tokens,
        tokens.cache_write_tokens,
        tokens.cache_write_1h_tokens,
        tokens.input_audio_tokens,
        tokens.output_audio_tokens,
    )


def _text(value: str) -> str:
    """Names come from clients and providers: bounded, and without the one character that PostgreSQL does not keep."""
    if len(value) <= MAX_TEXT_CHARACTERS and "\0" not in value:
        return value
    return value[:MAX_TEXT_CHARACTERS].replace("\0", "")


def _refuse(problem: str) -> NoReturn:
    raise UnbookableError(problem)
