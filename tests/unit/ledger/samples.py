"""Records as routers send them, and a figurer over the real catalogues."""

from decimal import Decimal
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from joulegate.chat.v1.receipt_pb2 import CacheStatus
from joulegate.ledger.v1 import ledger_service_pb2 as pb
from joulegate.ledger.v1.entry_pb2 import Outcome, TokenCounts
from services.ledger import intake
from services.ledger.booking import Batch
from services.ledger.cost import Tariffs
from services.ledger.figures import Figurer
from services.ledger.overrides import DeclaredPrice, Overrides
from services.ledger.records import LetIn, OpenIntent, Row, settled_rows

BEGAN = Timestamp(seconds=1_700_000_000)
LATER = Timestamp(seconds=1_700_000_000, nanos=1)
UNKNOWN_PRICE = DeclaredPrice(Decimal(3), Decimal(15))


def new_figurer(overrides: Overrides | None = None, **given: Any) -> Figurer:
    overrides = overrides or Overrides()
    return Figurer(overrides, Tariffs(overrides, UNKNOWN_PRICE), **given)


def attempt(number: int = 1, outcome: Outcome.ValueType = Outcome.OUTCOME_FINISHED, **fields: Any) -> pb.Attempt:
    given: dict[str, Any] = {"provider": "openai", "model": "gpt-4o", "tokens": TokenCounts(input_tokens=100, output_tokens=40)}
    return pb.Attempt(attempt=number, outcome=outcome, **(given | fields))


def hit(**fields: Any) -> pb.Attempt:
    given: dict[str, Any] = {"saved_cost_nano_usd": 650_000, "saved_energy_microjoules": 90_000_000}
    return attempt(0, Outcome.OUTCOME_CACHE_HIT, **(given | fields))


def settlement(request_id: str, *attempts: pb.Attempt, **fields: Any) -> pb.Settlement:
    given: dict[str, Any] = {"create_time": BEGAN, "key_id": "k1", "requested_model": "auto", "cache_status": CacheStatus.CACHE_STATUS_MISS}
    return pb.Settlement(request_id=request_id, attempts=attempts or [attempt()], **(given | fields))


def intent(request_id: str, **fields: Any) -> pb.Intent:
    given: dict[str, Any] = {"create_time": BEGAN, "provider": "openai", "model": "gpt-4o"}
    given |= {"requested_model": "auto", "estimated_input_tokens": 100}
    return pb.Intent(request_id=request_id, **(given | fields))


def opened(record: pb.Intent) -> OpenIntent:
    """An intent without wishes, as it is kept."""
    read = intake.intent(record, "router")
    assert isinstance(read, LetIn)
    return read.intent


def settled_rows_of(record: pb.Settlement, figurer: Figurer) -> list[Row]:
    """What is booked of a settlement."""
    return settled_rows(intake.settlement(record), record.request_id, figurer)


def batch_of(*records: pb.Intent | pb.Settlement, router_id: str = "a") -> Batch:
    """What a router sends, to be committed together."""
    batch = Batch()
    batch.add(
        pb.BookRequest(
            intents=[record for record in records if isinstance(record, pb.Intent)],
            settlements=[record for record in records if isinstance(record, pb.Settlement)],
        ),
        router_id,
    )
    return batch


class HeldClock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def monotonic(self) -> float:
        return self.time

    def now(self) -> float:
        return self.time
