"""What a batch of records changes in the books, given what they already say: the one place that makes every record count once."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from joulegate.ledger.v1 import ledger_service_pb2 as pb
from joulegate.ledger.v1 import reservation_pb2
from services.ledger import intake
from services.ledger.budgets import NOTHING, Alert
from services.ledger.figures import Figurer
from services.ledger.funds import Funds
from services.ledger.leases import UNLIMITED
from services.ledger.records import LetIn, OpenIntent, Row, Settled, Wished, acknowledgement, lost_row, settled_rows
from services.ledger.request_key import RequestKey
from services.ledger.reserving import Granted, grant_of, presumed, reserve


@dataclass(slots=True)
class Batch:
    """Checked records that are to be committed together, routers that will not come back for theirs, and routers that are here."""

    intents: list[LetIn] = field(default_factory=list)
    asked: list[Wished] = field(default_factory=list)
    settlements: list[Settled] = field(default_factory=list)
    releases: list[RequestKey] = field(default_factory=list)
    extensions: list[RequestKey] = field(default_factory=list)
    ended_lease_ids: list[str] = field(default_factory=list)
    gone_routers: list[str] = field(default_factory=list)
    present_routers: list[str] = field(default_factory=list)
    # Whether holds are looked for whose time is over.
    expires_holds: bool = False

    def add(self, request: pb.BookRequest, router_id: str) -> None:
        """Adds what a router has sent. Raises GatewayError (INVALID_REQUEST) naming the first record that cannot be booked."""
        for read in intake.each("intents", request.intents, lambda intent: intake.intent(intent, router_id)):
            if isinstance(read, Wished):
                self.asked.append(read)
            else:
                self.intents.append(read)
        self.settlements += intake.each("settlements", request.settlements, intake.settlement)
        self.releases += intake.each("releases", request.releases, intake.key_of)
        self.extensions += intake.each("extensions", request.extensions, intake.key_of)
        self.ended_lease_ids += request.returned_lease_ids

    def take(self, other: "Batch") -> None:
        """Adds all that is in another one."""
        self.intents += other.intents
        self.asked += other.asked
        self.settlements += other.settlements
        self.releases += other.releases
        self.extensions += other.extensions
        self.ended_lease_ids += other.ended_lease_ids
        self.gone_routers += other.gone_routers
        self.present_routers += other.present_routers
        self.expires_holds |= other.expires_holds

    def keys(self) -> list[RequestKey]:
        """Which requests the records are of, in their order."""
        begun = [let_in.key for let_in in self.intents] + [asked.key for asked in self.asked]
        return begun + [settled.key for settled in self.settlements] + self.releases + self.extensions

    def callers(self) -> set[str]:
        """Those whom new requests are of."""
        callers = {let_in.intent.key_id for let_in in self.intents} | {asked.intent.key_id for _, asked in self.asked}
        return callers | {settled.key_id for settled in self.settlements}

    def lease_ids(self) -> set[str]:
        ids = {let_in.lease_id for let_in in self.intents} | {settled.lease_id for settled in self.settlements}
        return (ids | set(self.ended_lease_ids)) - {"", UNLIMITED}

    @property
    def changes_anything(self) -> bool:
        return bool(self.extensions) or self.changes_balances

    @property
    def changes_balances(self) -> bool:
        return bool(len(self) or self.ended_lease_ids or self.gone_routers or self.expires_holds)

    def __len__(self) -> int:
        return len(self.intents) + len(self.asked) + len(self.settlements) + len(self.releases)


class Known(NamedTuple):
    """What the books say about the requests of a batch."""

    # The id of each in the books; all other ids here are such.
    ids: Mapping[RequestKey, str]
    rows: Mapping[str, Sequence[Row]]
    open: Mapping[str, OpenIntent]
    # Open, and booked as lost now.
    orphans: Sequence[OpenIntent]
    funds: Funds


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
    # By what was asked with wishes.
    answers: Mapping[RequestKey, reservation_pb2.Grant | reservation_pb2.Denial]
    extended_ids: Collection[str]
    funds: Funds
    alerts: Sequence[Alert]


def decide(batch: Batch, known: Known, figurer: Figurer) -> Changes:
    """Books each request once: the first settlement counts, a repeated one is answered with what was booked, a LOST row gives way."""
    funds = known.funds
    opened = _let_in(batch, known, figurer)
    rows: list[Row] = []
    acknowledgements: dict[RequestKey, pb.SettlementAck] = {}
    corrected: list[str] = []
    # Requests that are over: settled, released or lost.
    over: set[str] = set()

    def end(request_id: str, fresh: Sequence[Row]) -> None:
        over.add(request_id)
        funds.book(known.rows.get(request_id, ()), fresh, opened.pop(request_id, None) or known.open.get(request_id))

    for settled in batch.settlements:
        key = settled.key
        if key in acknowledgements:
            continue
        request_id = known.ids[key]
        booked = known.rows.get(request_id, ())
        if booked and not booked[0].is_lost:
            acknowledgements[key] = acknowledgement(key.request_id, booked)
            continue
        fresh = settled_rows(settled, request_id, figurer)
        acknowledgements[key] = acknowledgement(key.request_id, fresh)
        rows += fresh
        if booked:
            corrected.append(request_id)
        if settled.lease_id and request_id not in known.open:
            funds.use_lease(settled.lease_id, settled.key_id, NOTHING)
            funds.count(settled.key_id, 0)
        end(request_id, fresh)
    asked_ids = {known.ids[key] for key, _ in batch.asked}
    for key in batch.releases:
        request_id = known.ids[key]
        if request_id not in over and (request_id in opened or request_id in known.open):
            end(request_id, ())
        elif request_id in asked_ids:
            # It is decided on below, and must not be opened any more.
            over.add(request_id)
    for orphan in known.orphans:
        if orphan.request_id not in over and orphan.request_id not in known.rows:
            rows.append(lost_row(orphan, figurer))
            end(orphan.request_id, rows[-1:])
    for lease_id in batch.ended_lease_ids:
        funds.end_lease(lease_id)
    totals = sum_of(rows)
    for request_id in corrected:
        totals = totals.plus(sum_of(known.rows[request_id]), sign=-1)
    answers = _answers(batch, known, figurer, opened, over)
    closed = {request_id for request_id in over if request_id in known.open} | {orphan.request_id for orphan in known.orphans}
    extended = {known.ids[key] for key in batch.extensions} & known.open.keys() - closed
    return Changes(rows, list(opened.values()), closed, corrected, totals, acknowledgements, answers, extended, funds, funds.alerts())


def _let_in(batch: Batch, known: Known, figurer: Figurer) -> dict[str, OpenIntent]:
    """The intents that open a request. One that is repeated after its request was booked must not open it again."""
    funds = known.funds
    opened: dict[str, OpenIntent] = {}
    for key, intent, lease_id, wanted in batch.intents:
        request_id = known.ids[key]
        if not (request_id in opened or request_id in known.rows or request_id in known.open):
            under_id = intent if intent.request_id == request_id else intent._replace(request_id=request_id)
            if not any(wanted) and funds.has_budgets(intent.key_id):
                # Its router had not heard of them yet.
                wanted = presumed(intent, figurer, funds.unbounded_output_tokens)
            opened[request_id] = funds.take_up(under_id, lease_id, wanted)
    return opened


def _answers(
    batch: Batch, known: Known, figurer: Figurer, opened: dict[str, OpenIntent], over: Collection[str]
) -> dict[RequestKey, reservation_pb2.Grant | reservation_pb2.Denial]:
    """Decides on what is asked with wishes, once the rest of the batch has made room, and adds what is granted to what is opened."""
    answers: dict[RequestKey, reservation_pb2.Grant | reservation_pb2.Denial] = {}
    for key, asked in batch.asked:
        request_id = known.ids[key]
        before = opened.get(request_id) or known.open.get(request_id)
        if before is None and (request_id in over or request_id in known.rows):
            # It has its end already: nobody waits for this any more.
            before = asked.intent
            if request_id not in known.rows:
                known.funds.count(before.key_id, 0)
        answer = grant_of(before) if before is not None else reserve(asked, known.funds, figurer)
        if isinstance(answer, Granted):
            opened[request_id] = answer.intent if request_id == key.request_id else answer.intent._replace(request_id=request_id)
            answer = answer.answer
        answer.request_id = key.request_id
        answers[key] = answer
    return answers


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
