"""The end of a request as the books are told it, whoever gave the answer."""

from google.protobuf.timestamp_pb2 import Timestamp

from joulegate.chat.v1.receipt_pb2 import CacheStatus
from joulegate.ledger.v1 import ledger_service_pb2 as pb
from services.router.question import Question


def settlement_of(question: Question, create_time: Timestamp, status: CacheStatus.ValueType, lease_id: str = "") -> pb.Settlement:
    """The settlement of a request that began then, to be given its attempts; `lease_id` is of what a cached answer was counted under."""
    return pb.Settlement(
        request_id=question.request_id,
        create_time=create_time,
        key_id=question.caller.key_id,
        requested_model=question.model,
        streamed=question.wants_stream,
        cache_status=status,
        lease_id=lease_id,
    )
