"""What is booked of requests, and the rows of the books: one for each attempt."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from joulegate.chat.v1.receipt_pb2 import CacheStatus, CostBasis, EnergyBasis
from joulegate.ledger.v1 import entry_pb2
from joulegate.ledger.v1 import ledger_service_pb2 as pb
from joulegate.ledger.v1.entry_pb2 import Outcome
from services.ledger.budgets import Amounts
from services.ledger.cost import Usage
from services.ledger.energy import NOTHING, Energy
from services.ledger.figures import Figurer, Figures, Told
from services.ledger.request_key import RequestKey

# A lost request whose answer had no bound is booked with more than nearly every answer has.
LOST_OUTPUT_TOKENS: Final = 4096
# Bound once: looking a name up in a protobuf enum takes longer than everything else about it.
_FAILED: Final = Outcome.OUTCOME_FAILED
_LOST: Final = Outcome.OUTCOME_LOST
_UNKNOWN: Final = CostBasis.COST_BASIS_UNKNOWN


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

    def granted(self, output_tokens: int, calls: int, held: Amounts, rate_tick: int, expires_ns: int) -> "OpenIntent":
        """As the ledger lets it in: so many calls, so long an answer, with these amounts held."""
        return OpenIntent._make((*self[:_BOUND], output_tokens, calls, self.answer_count, *held, rate_tick, expires_ns))

    def under_lease(self, amounts: Amounts, rate_tick: int) -> "OpenIntent":
        """As its router let it in: with these amounts held, until its router is gone. Each request under a lease comes by here."""
        return OpenIntent._make((*self[:_HELD], *amounts, rate_tick, self.expires_ns))


_BOUND: Final = OpenIntent._fields.index("max_output_tokens")
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


class Wished(NamedTuple):
    """What was asked, and for which request."""

    key: RequestKey
    asked: Asked


class LetIn(NamedTuple):
    """An intent that its router has let in by itself, under a lease if it names one, and what it takes of that."""

    key: RequestKey
    intent: OpenIntent
    lease_id: str
    wanted: Amounts


class Attempt(NamedTuple):
    """One call of a provider, or the serving of a cached answer, as its router tells of it."""

    number: int
    provider: str
    model: str
    served_model: str
    outcome: int
    usage: Usage
    is_estimated: bool
    saved_nano_usd: int
    saved_microjoules: int
    told: Told


class Settled(NamedTuple):
    """The end of a request: its attempts, by their numbers."""

    key: RequestKey
    key_id: str
    requested_model: str
    streamed: bool
    cache_status: int
    attempts: Sequence[Attempt]
    lease_id: str
    gateway_cpu_nanos: int


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


def settled_rows(settled: Settled, request_id: str, figurer: Figurer) -> list[Row]:
    """The rows of a settlement, by attempt, under the id that the request has in the books."""
    key, key_id, requested_model, streamed, cache_status, attempts, _, cpu_nanos = settled
    created_ns = key.created_ns
    unix_s = created_ns / 1e9
    own = figurer.gateway_microjoules(cpu_nanos)
    last = attempts[-1]
    return [
        _row(
            (request_id, attempt.number, created_ns, key_id),
            (attempt.provider, requested_model, attempt.model),
            (attempt.outcome, streamed, cache_status),
            attempt.usage,
            attempt.is_estimated,
            _figures(attempt, figurer, unix_s),
            NOTHING_SAVED if attempt.number else _saved(attempt, figurer, unix_s),
            attempt.served_model,
            own if attempt is last else 0,
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
        (intent.provider, intent.requested_model, intent.model),
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


def _figures(attempt: Attempt, figurer: Figurer, unix_s: float) -> Figures:
    if attempt.number == 0:
        return figurer.of_hit(unix_s)
    _, provider, model, served_model, outcome, usage, _, _, _, told = attempt
    figures = figurer.of_attempt(provider, model, served_model, usage, unix_s, told)
    return figures if told.microjoules is not None else without_work(figures, outcome, usage)


def without_work(figures: Figures, outcome: int, usage: Usage) -> Figures:
    """The figures of a call, without energy if it was refused before any work or never reached a provider."""
    if outcome == _FAILED and not usage.input_tokens and not usage.output_tokens:
        return figures._replace(energy=NOTHING, carbon_micrograms=0, estimated_microjoules=0)
    return figures


def _saved(hit: Attempt, figurer: Figurer, unix_s: float) -> Saved:
    """What a hit saved: in energy and carbon what the answer took when it was made, less the look-up, and never less than nothing."""
    microjoules = hit.saved_microjoules
    micrograms = figurer.carbon_of(hit.provider, hit.model, microjoules, unix_s)
    own = figurer.of_hit(unix_s)
    return Saved(hit.saved_nano_usd, max(0, microjoules - own.energy.point), max(0, micrograms - own.carbon_micrograms))


def _row(
    identity: tuple[str, int, int, str],
    target: tuple[str, str, str],
    manner: tuple[int, bool, int],
    usage: Usage,
    tokens_estimated: bool,
    figures: Figures,
    saved: Saved,
    served_model: str = "",
    own_microjoules: int = 0,
) -> Row:
    """Puts the parts in the order of the columns."""
    nano_usd, basis, energy, energy_basis, micrograms, zone, listed, reported, boundary, estimated, signal, version = figures
    return Row(
        *identity,
        *target,
        *manner,
        *usage[:4],
        tokens_estimated,
        nano_usd,
        basis,
        *energy,
        energy_basis,
        saved.nano_usd,
        saved.microjoules,
        micrograms,
        zone,
        *usage[4:],
        served_model,
        listed,
        reported,
        boundary,
        estimated,
        signal,
        version,
        saved.micrograms,
        own_microjoules,
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
    said = pb.SettlementAck(
        request_id=request_id, cost_nano_usd=cost, cost_basis=CostBasis.ValueType(basis), gateway_energy_microjoules=own
    )
    # In its place: a message that is made apart is copied.
    energy = said.energy
    energy.low_microjoules, energy.microjoules, energy.high_microjoules = low, point, high
    energy.basis = EnergyBasis.ValueType(rows[-1].energy_basis)
    return said


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
