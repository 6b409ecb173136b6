"""From what routers report to rows of the books: checks records, and writes one row for each attempt."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from joulegate.chat.v1 import receipt_pb2
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.chat.v1.receipt_pb2 import CacheStatus, CostBasis, EnergyBasis
from joulegate.ledger.v1 import entry_pb2
from joulegate.ledger.v1 import ledger_service_pb2 as pb
from joulegate.ledger.v1.entry_pb2 import Outcome
from services.ledger.budgets import Amounts
from services.ledger.cost import Usage
from services.ledger.energy import MAX_MICROJOULES, NOTHING, Energy
from services.ledger.figures import NOTHING_TOLD, Figurer, Figures, Told
from services.ledger.request_key import RequestKey
from services.runtime.errors import GatewayError

# A lost request whose answer had no bound is booked with more than nearly every answer has.
LOST_OUTPUT_TOKENS: Final = 4096
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
_FAILED: Final = Outcome.OUTCOME_FAILED
_LOST: Final = Outcome.OUTCOME_LOST
_CACHE_HIT: Final = Outcome.OUTCOME_CACHE_HIT
_UNKNOWN: Final = CostBasis.COST_BASIS_UNKNOWN
_COUNTS: Final = tuple(field.name for field in entry_pb2.TokenCounts.DESCRIPTOR.fields if field.type == field.TYPE_INT64)
_MAX_SECONDS: Final = 9_223_372_035  # in the year 2262: nanoseconds up to it fit 64 bits


class Row(NamedTuple):
    """One row of the books: the fields of Entry, with the time in nanoseconds since 1970."""

    request_id: str
    attempt: int
    created_ns: int
    key_id: str
    provider: str
    requested_model: str
    model: str
    outcome: int
    streamed: bool
    cache_status: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    tokens_estimated: bool
    cost_nano_usd: int
    cost_basis: int
    energy_low_microjoules: int
    energy_microjoules: int
    energy_high_microjoules: int
    energy_basis: int
    saved_cost_nano_usd: int
    saved_energy_microjoules: int
    carbon_micrograms: int
    zone: str
    # What a row has gets longer at its end only, or all hashes would change.
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    input_audio_tokens: int = 0
    output_audio_tokens: int = 0
    served_model: str = ""
    list_cost_nano_usd: int = 0
    reported_cost_nano_usd: int | None = None
    energy_boundary: int = 0
    estimated_energy_microjoules: int = 0
    carbon_signal: int = 0
    factors_version: str = ""
    saved_carbon_micrograms: int = 0
    gateway_energy_microjoules: int = 0

    @property
    def is_hit(self) -> bool:
        return self.attempt == 0

    @property
    def is_lost(self) -> bool:
        return self.outcome == _LOST


class Saved(NamedTuple):
    """What a cached answer did not cost, use and emit."""

    nano_usd: int
    microjoules: int
    micrograms: int


NOTHING_SAVED: Final = Saved(0, 0, 0)


class OpenIntent(NamedTuple):
    """An intent that waits for its settlement."""

    request_id: str
    router_id: str
    created_ns: int
    key_id: str
    requested_model: str
    provider: str
    model: str
    streamed: bool
    estimated_input_tokens: int
    max_output_tokens: int
    # What was granted: how often providers may be called, for how many answers each, and what is held for it.
    call_count: int = 1
    answer_count: int = 1
    held_nano_usd: int = 0
    held_tokens: int = 0
    held_microjoules: int = 0
    held_micrograms: int = 0
    # Where the caller's rate counts it.
    rate_tick: int = 0
    # When what is held is booked as lost, in nanoseconds since 1970; 0: only when its router is gone.
    expires_ns: int = 0

    @property
    def key(self) -> RequestKey:
        return RequestKey(self.request_id, self.created_ns)

    @property
    def held(self) -> Amounts:
        return Amounts(self.held_nano_usd, self.held_tokens, self.held_microjoules, self.held_micrograms)

    def holding(self, amounts: Amounts, **others: Any) -> "OpenIntent":
        """With these amounts held, and other fields as given."""
        nano_usd, tokens, microjoules, micrograms = amounts
        return self._replace(**others, held_nano_usd=nano_usd, held_tokens=tokens, held_microjoules=microjoules, held_micrograms=micrograms)

    def under_lease(self, amounts: Amounts, rate_tick: int) -> "OpenIntent":
        """As its router let it in: with these amounts held, until its router is gone. Each request under a lease comes by here."""
        return OpenIntent._make((*self[:_HELD], *amounts, rate_tick, self.expires_ns))


_HELD: Final = OpenIntent._fields.index("held_nano_usd")
# The fields of what a request holds, in the order of amounts.
HELD: Final = OpenIntent._fields[_HELD : _HELD + len(Amounts._fields)]


class Asked(NamedTuple):
    """An intent that wishes to be let in: its router may try these (provider, model) pairs, and would like a lease."""

    intent: OpenIntent
    targets: tuple[tuple[str, str], ...]
    wants_lease: bool
    # For an answer from the cache.
    holds_nothing: bool = False


def check(request: pb.BookRequest) -> None:
    """Raises GatewayError (INVALID_REQUEST) naming the first record that cannot be booked, in `param` and `request_id`."""
    for place, intent in enumerate(request.intents):
        for problem in _intent_problems(intent):
            raise _refusal(f"intents[{place}].{problem}", intent.request_id)
    for place, settlement in enumerate(request.settlements):
        for problem in _settlement_problems(settlement):
            raise _refusal(f"settlements[{place}].{problem}", settlement.request_id)
    for place, release in enumerate(request.releases):
        for problem in _header_problems(release.request_id, release.create_time):
            raise _refusal(f"releases[{place}].{problem}", release.request_id)
    for place, extension in enumerate(request.extensions):
        for problem in _header_problems(extension.request_id, extension.create_time):
            raise _refusal(f"extensions[{place}].{problem}", extension.request_id)


def _refusal(problem: str, request_id: str) -> GatewayError:
    shown = request_id[:MAX_ID_CHARACTERS]
    return GatewayError(
        ErrorReason.ERROR_REASON_INVALID_REQUEST,
        f"record of request {shown!r}: {problem}",
        {"param": problem.partition(":")[0], "request_id": shown},
    )


def _intent_problems(intent: pb.Intent) -> Iterator[str]:
    yield from _header_problems(intent.request_id, intent.create_time)
    if not 0 <= intent.estimated_input_tokens <= MAX_TOKENS:
        yield f"estimated_input_tokens: {intent.estimated_input_tokens} is not a count"
    if intent.max_output_tokens < 0:
        yield f"max_output_tokens: {intent.max_output_tokens} is not a bound"
    held, wishes = intent.held, intent.wishes
    if not all(0 <= amount <= MAX_HELD for amount in (held.nano_usd, held.tokens, held.microjoules, held.micrograms)):
        yield "held: not amounts"
    if not intent.HasField("wishes"):
        return
    if not (0 if wishes.holds_nothing else 1) <= len(wishes.targets) <= MAX_TARGETS:
        yield f"wishes.targets: {len(wishes.targets)} of them"
    if not 0 <= wishes.answer_count <= MAX_ANSWERS:
        yield f"wishes.answer_count: {wishes.answer_count} is not a number of answers"
    if not 0 <= wishes.call_count <= MAX_ATTEMPTS:
        yield f"wishes.call_count: {wishes.call_count} is not a number of calls"


def _settlement_problems(settlement: pb.Settlement) -> Iterator[str]:
    yield from _header_problems(settlement.request_id, settlement.create_time)
    attempts = settlement.attempts
    if not 0 <= settlement.gateway_cpu_nanos <= MAX_CPU_NANOS:
        yield f"gateway_cpu_nanos: {settlement.gateway_cpu_nanos} is not a time of a core"
    if not 1 <= len(attempts) <= MAX_ATTEMPTS:
        yield f"attempts: {len(attempts)} of them"
    if len(attempts) > 1 and len({attempt.attempt for attempt in attempts}) < len(attempts):
        yield "attempts: two have the same number"
    for place, attempt in enumerate(attempts):
        for problem in _attempt_problems(attempt):
            yield f"attempts[{place}].{problem}"


def _header_problems(request_id: str, create_time: Timestamp) -> Iterator[str]:
    if not 0 < len(request_id) <= MAX_ID_CHARACTERS or "\0" in request_id:
        yield "request_id: missing or not an id"
    # Part of what names the request, so there is no doing without it.
    if not (0 <= create_time.seconds <= _MAX_SECONDS and 0 <= create_time.nanos < 1_000_000_000 and create_time.ToNanoseconds()):
        yield "create_time: missing, or not a time since 1970"


def _attempt_problems(attempt: pb.Attempt) -> Iterator[str]:
    tokens = attempt.tokens
    if attempt.attempt < 0:
        yield f"attempt: {attempt.attempt} is not a number of an attempt"
    if attempt.outcome == _UNSPECIFIED or attempt.outcome == _LOST:
        yield "outcome: missing, or one that only the ledger gives"
    if attempt.outcome == _CACHE_HIT and attempt.attempt != 0:
        yield f"attempt: {attempt.attempt} for a cache hit, which is 0"
    counts = _usage(tokens)
    if min(counts) < 0 or max(counts) > MAX_TOKENS:
        for name in _COUNTS:
            if not 0 <= getattr(tokens, name) <= MAX_TOKENS:
                yield f"tokens.{name}: {getattr(tokens, name)} is not a count"
    if not (0 <= attempt.saved_cost_nano_usd <= MAX_NANO_USD and 0 <= attempt.saved_energy_microjoules <= MAX_MICROJOULES):
        yield "saved_cost_nano_usd, saved_energy_microjoules: not amounts"
    if not 0 <= attempt.reported_cost_nano_usd <= MAX_NANO_USD:
        yield f"reported_cost_nano_usd: {attempt.reported_cost_nano_usd} is not an amount"
    if not 0 <= attempt.measured_energy_microjoules <= MAX_MICROJOULES:
        yield f"measured_energy_microjoules: {attempt.measured_energy_microjoules} is not an amount"


def open_intent(intent: pb.Intent, router_id: str) -> OpenIntent:
    """A checked intent as it is stored."""
    return OpenIntent(
        intent.request_id,
        router_id,
        intent.create_time.ToNanoseconds(),
        text_of(intent.key_id),
        text_of(intent.requested_model),
        text_of(intent.provider),
        text_of(intent.model),
        intent.streamed,
        intent.estimated_input_tokens,
        min(intent.max_output_tokens, MAX_TOKENS),
    )


def asked(intent: pb.Intent, router_id: str) -> Asked:
    """A checked intent with wishes."""
    wishes = intent.wishes
    opened = open_intent(intent, router_id)._replace(call_count=wishes.call_count or 1, answer_count=wishes.answer_count or 1)
    targets = dict.fromkeys((text_of(target.provider), text_of(target.model)) for target in wishes.targets)
    return Asked(opened, tuple(targets), wishes.wants_lease, wishes.holds_nothing)


def held_by(intent: pb.Intent) -> Amounts:
    """What a checked intent takes of its lease."""
    held = intent.held
    return Amounts(held.nano_usd, held.tokens, held.microjoules, held.micrograms)


def taken(rows: Iterable[Row]) -> Amounts:
    """What budgets count of rows: calls of providers."""
    nano_usd = tokens = microjoules = micrograms = 0
    for row in rows:
        if not row.is_hit:
            nano_usd += row.cost_nano_usd
            tokens += row.input_tokens + row.output_tokens
            microjoules += row.energy_microjoules
            micrograms += row.carbon_micrograms
    return Amounts(nano_usd, tokens, microjoules, micrograms)


def settled_rows(settlement: pb.Settlement, request_id: str, figurer: Figurer) -> list[Row]:
    """The rows of a checked settlement, by attempt, under the id that the request has in the books."""
    created_ns = settlement.create_time.ToNanoseconds()
    key_id, requested_model = text_of(settlement.key_id), text_of(settlement.requested_model)
    attempts = sorted(settlement.attempts, key=lambda attempt: attempt.attempt)
    own = figurer.gateway_microjoules(settlement.gateway_cpu_nanos)
    return [
        _row(
            (request_id, attempt.attempt, created_ns, key_id),
            (text_of(attempt.provider), requested_model, text_of(attempt.model), text_of(attempt.served_model)),
            (attempt.outcome, settlement.streamed, settlement.cache_status),
            _usage(attempt.tokens),
            attempt.tokens.estimated,
            _figures(attempt, figurer, created_ns / 1e9),
            _saved(attempt, figurer, created_ns / 1e9),
            own if attempt is attempts[-1] else 0,
        )
        for attempt in attempts
    ]


def lost_row(intent: OpenIntent, figurer: Figurer) -> Row:
    """The row of a request whose router died: what it may have taken, on the safe side."""
    output_tokens = (intent.max_output_tokens or LOST_OUTPUT_TOKENS) * intent.answer_count
    # A router that let the request in by itself says only how many tokens it held.
    input_tokens = max(intent.call_count * intent.estimated_input_tokens, intent.held_tokens - output_tokens)
    usage = Usage(input_tokens, 0, output_tokens, 0)
    figures = figurer.of_attempt(intent.provider, intent.model, "", usage, intent.created_ns / 1e9)
    if any(intent.held):
        figures = _in_full(figures, intent.held)
    return _row(
        (intent.request_id, 1, intent.created_ns, intent.key_id),
        (intent.provider, intent.requested_model, intent.model, ""),
        # An intent does not say how the cache was asked.
        (_LOST, intent.streamed, CacheStatus.CACHE_STATUS_UNSPECIFIED),
        usage,
        True,
        figures,
        NOTHING_SAVED,
    )


def _in_full(figures: Figures, held: Amounts) -> Figures:
    """All that was held, which another target than the first may have taken: nobody else must get it before the truth is known."""
    low, point, high = figures.energy
    point = max(point, held.microjoules)
    return figures._replace(
        cost_nano_usd=max(figures.cost_nano_usd, held.nano_usd),
        energy=Energy(low, point, max(high, point)),
        carbon_micrograms=max(figures.carbon_micrograms, held.micrograms),
    )


def _figures(attempt: pb.Attempt, figurer: Figurer, unix_s: float) -> Figures:
    if attempt.attempt == 0:
        return figurer.of_hit(unix_s)
    usage = _usage(attempt.tokens)
    told = _told(attempt)
    figures = figurer.of_attempt(text_of(attempt.provider), text_of(attempt.model), text_of(attempt.served_model), usage, unix_s, told)
    return figures if told.microjoules is not None else without_work(figures, attempt.outcome, usage)


def without_work(figures: Figures, outcome: int, usage: Usage) -> Figures:
    """The figures of a call, without energy if it was refused before any work or never reached a provider."""
    if outcome == _FAILED and not usage.input_tokens and not usage.output_tokens:
        return figures._replace(energy=NOTHING, carbon_micrograms=0, estimated_microjoules=0)
    return figures


def _told(attempt: pb.Attempt) -> Told:
    reported = attempt.reported_cost_nano_usd if attempt.HasField("reported_cost_nano_usd") else None
    if not attempt.HasField("measured_energy_microjoules"):
        return NOTHING_TOLD if reported is None else Told(reported)
    basis = EnergyBasis.ENERGY_BASIS_DECLARED if attempt.is_energy_declared else EnergyBasis.ENERGY_BASIS_MEASURED
    return Told(reported, attempt.measured_energy_microjoules, attempt.measured_energy_boundary, basis)


def _saved(attempt: pb.Attempt, figurer: Figurer, unix_s: float) -> Saved:
    """What a hit saved: in energy and carbon what the answer took when it was made, less the look-up, and never less than nothing."""
    if attempt.attempt:
        return NOTHING_SAVED
    microjoules = attempt.saved_energy_microjoules
    micrograms = figurer.carbon_of(text_of(attempt.provider), text_of(attempt.model), microjoules, unix_s)
    own = figurer.of_hit(unix_s)
    return Saved(attempt.saved_cost_nano_usd, max(0, microjoules - own.energy.point), max(0, micrograms - own.carbon_micrograms))


def _row(
    identity: tuple[str, int, int, str],
    target: tuple[str, str, str, str],
    manner: tuple[int, bool, int],
    usage: Usage,
    tokens_estimated: bool,
    figures: Figures,
    saved: Saved,
    own_microjoules: int = 0,
) -> Row:
    """Puts the parts in the order of the columns."""
    request_id, attempt, created_ns, key_id = identity
    provider, requested_model, model, served_model = target
    low, point, high = figures.energy
    return Row(
        request_id,
        attempt,
        created_ns,
        key_id,
        provider,
        requested_model,
        model,
        *manner,
        *usage[:4],
        tokens_estimated,
        figures.cost_nano_usd,
        figures.cost_basis,
        low,
        point,
        high,
        figures.energy_basis,
        saved.nano_usd,
        saved.microjoules,
        figures.carbon_micrograms,
        figures.zone,
        *usage[4:],
        served_model,
        figures.list_cost_nano_usd,
        figures.reported_cost_nano_usd,
        figures.boundary,
        figures.estimated_microjoules,
        figures.signal,
        figures.factors_version,
        saved.micrograms,
        own_microjoules,
    )


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


def acknowledgement(request_id: str, rows: Sequence[Row]) -> pb.SettlementAck:
    """The answer to a settlement of that id, which is booked as these rows. They are in the order of their attempts."""
    cost = low = point = high = own = 0
    basis = rows[-1].cost_basis
    for row in rows:
        cost += row.cost_nano_usd
        low += row.energy_low_microjoules
        point += row.energy_microjoules
        high += row.energy_high_microjoules
        own += row.gateway_energy_microjoules
        if row.cost_basis == _UNKNOWN:
            # A sum is as uncertain as its worst part.
            basis = _UNKNOWN
    energy_basis = EnergyBasis.ValueType(rows[-1].energy_basis)
    return pb.SettlementAck(
        request_id=request_id,
        cost_nano_usd=cost,
        cost_basis=CostBasis.ValueType(basis),
        energy=receipt_pb2.Energy(low_microjoules=low, microjoules=point, high_microjoules=high, basis=energy_basis),
        gateway_energy_microjoules=own,
    )


def entry(row: Row) -> entry_pb2.Entry:
    """A row as it is shown."""
    fields = row._asdict()
    created = Timestamp()
    created.FromNanoseconds(fields.pop("created_ns"))
    low, high = carbon_ends(row)
    return entry_pb2.Entry(create_time=created, carbon_low_micrograms=low, carbon_high_micrograms=high, **fields)


def carbon_ends(row: Row) -> tuple[int, int]:
    """Micrograms of carbon at the low and the high end of the energy."""
    point = max(1, row.energy_microjoules)
    low, high = (
        (2 * row.carbon_micrograms * end + point) // (2 * point) for end in (row.energy_low_microjoules, row.energy_high_microjoules)
    )
    return low, high


def text_of(value: str) -> str:
    """Names come from clients and providers: bounded, and without the one character that PostgreSQL does not keep."""
    return value[:MAX_TEXT_CHARACTERS].replace("\0", "")
