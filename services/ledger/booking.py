"""What a batch of records changes in the books, given what they already say: the one place that makes every record count once."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from joulegate.ledger.v1 import ledger_service_pb2 as pb
from services.ledger.figures import Figurer
from services.ledger.records import OpenIntent, Row, acknowledgement, lost_row, settled_rows
from services.ledger.request_key import RequestKey, key_of


@dataclass(slots=True)
class Batch:
    """Checked records that are to be committed together, routers that will not come back for theirs, and routers that are here."""

    intents: list[OpenIntent] = field(default_factory=list)
    settlements: list[pb.Settlement] = field(default_factory=list)
    gone_routers: list[str] = field(default_factory=list)
    present_routers: list[str] = field(default_factory=list)

    def keys(self) -> list[RequestKey]:
        return [intent.key for intent in self.intents] + [key_of(settlement) for settlement in self.settlements]

    def __len__(self) -> int:
        return len(self.intents) + len(self.settlements)


class Known(NamedTuple):
    """What the books say about the requests of a batch."""

    # The id of each in the books; all other ids here are such.
    ids: Mapping[RequestKey, str]
    rows: Mapping[str, Sequence[Row]]
    open_ids: Collection[str]
    orphans: Sequence[OpenIntent]


class Totals(NamedTuple):
    """Exact sums over rows; as a difference they may be negative."""

    request_count: int = 0
    entry_count: int = 0
    cache_hit_count: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nano_usd: int = 0
    saved_cost_nano_usd: int = 0
    energy_microjoules: int = 0
    saved_energy_microjoules: int = 0
    carbon_micrograms: int = 0

    def plus(self, other: "Totals", sign: int = 1) -> "Totals":
        return Totals(*(mine + sign * theirs for mine, theirs in zip(self, other, strict=True)))


class Changes(NamedTuple):
    """What to write, and what to answer."""

    rows: Sequence[Row]
    opened: Sequence[OpenIntent]
    closed_ids: Collection[str]
    # Requests whose LOST rows give way to what really happened.
    corrected_ids: Collection[str]
    totals: Totals
    acknowledgements: Mapping[RequestKey, pb.SettlementAck]


def decide(batch: Batch, known: Known, figurer: Figurer) -> Changes:
    """Books each request once: the first settlement counts, a repeated one is answered with what was booked, a LOST row gives way."""
    rows: list[Row] = []
    acknowledgements: dict[RequestKey, pb.SettlementAck] = {}
    corrected: list[str] = []
    for settlement in batch.settlements:
        key = key_of(settlement)
        if key in acknowledgements:
            continue
        request_id = known.ids[key]
        booked = known.rows.get(request_id, ())
        if booked and not booked[0].is_lost:
            acknowledgements[key] = acknowledgement(key.request_id, booked)
            continue
        fresh = settled_rows(settlement, request_id, figurer)
        acknowledgements[key] = acknowledgement(key.request_id, fresh)
        rows += fresh
        if booked:
            corrected.append(request_id)
    settled = {known.ids[key] for key in acknowledgements}
    rows += [
        lost_row(orphan, figurer) for orphan in known.orphans if orphan.request_id not in settled and orphan.request_id not in known.rows
    ]
    totals = sum_of(rows)
    for request_id in corrected:
        totals = totals.plus(sum_of(known.rows[request_id]), sign=-1)
    # An intent that is repeated after its request was booked must not open it again.
    opened = {
        request_id: intent._replace(request_id=request_id)
        for intent in batch.intents
        if not ((request_id := known.ids[intent.key]) in settled or request_id in known.rows or request_id in known.open_ids)
    }
    closed = {request_id for request_id in settled if request_id in known.open_ids}
    closed.update(orphan.request_id for orphan in known.orphans)
    return Changes(rows, list(opened.values()), closed, corrected, totals, acknowledgements)


def sum_of(rows: Iterable[Row]) -> Totals:
    """The sums over whole requests."""
    totals = [0] * 9
    request_ids = set()
    for row in rows:
        request_ids.add(row.request_id)
        totals[0] += 1
        totals[1] += row.is_hit
        totals[2] += row.input_tokens
        totals[3] += row.output_tokens
        totals[4] += row.cost_nano_usd
        totals[5] += row.saved_cost_nano_usd
        totals[6] += row.energy_microjoules
        totals[7] += row.saved_energy_microjoules
        totals[8] += row.carbon_micrograms
    return Totals(len(request_ids), *totals)
