"""Reports: what a request for sums over the books asks, and how its answer is written."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from joulegate.ledger.v1 import admin_service_pb2 as pb
from joulegate.ledger.v1.report_pb2 import DerivedAmounts, Grouping, Interval, RederivedRow, ReportRow
from services.ledger.api_key import invalid
from services.ledger.rederivation import Compared

DEFAULT_NS: Final = 30 * 86_400 * 10**9
MAX_SUM: Final = 2**63 - 1
# By grouping: the field of ReportRow.
FIELDS: Final = {
    Grouping.GROUPING_KEY: "key_id",
    Grouping.GROUPING_TEAM: "team",
    Grouping.GROUPING_ORGANISATION: "organisation",
    Grouping.GROUPING_MODEL: "model",
    Grouping.GROUPING_PROVIDER: "provider",
    Grouping.GROUPING_ZONE: "zone",
    Grouping.GROUPING_OUTCOME: "outcome",
}
_MAX_SECONDS: Final = 9_223_372_035  # in the year 2262: nanoseconds up to it fit 64 bits


class Sums(NamedTuple):
    """Exact sums over the rows of one group."""

    request_count: int
    attempt_count: int
    cache_hit_count: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_nano_usd: int
    energy_low_microjoules: int
    energy_microjoules: int
    energy_high_microjoules: int
    carbon_micrograms: int
    saved_cost_nano_usd: int
    saved_energy_microjoules: int
    saved_carbon_micrograms: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    input_audio_tokens: int
    output_audio_tokens: int
    gateway_energy_microjoules: int


# What names a group: the second at which its interval begins, if there are intervals, then a value for each grouping.
Group = tuple[int | str, ...]


class Question(NamedTuple):
    """What a report is about. Rows from `start_ns` on and before `end_ns`, in nanoseconds since 1970; empty filters let all pass."""

    start_ns: int
    end_ns: int
    fields: tuple[str, ...] = ()
    interval: int = Interval.INTERVAL_UNSPECIFIED
    key_id: str = ""
    provider: str = ""
    model: str = ""


class Position(NamedTuple):
    """Where the next page goes on: what the first one was about, the newest row that it counted, and the last group that was given."""

    start_ns: int
    end_ns: int
    newest: int
    group: Group


_positions: Final = msgspec.json.Decoder(Position)


def question(request: pb.GetReportRequest, now: float) -> Question:
    """What is asked, `now` in seconds since 1970. Raises GatewayError (INVALID_REQUEST) naming a field that is wrong."""
    end_ns = nanoseconds(request.end_time, "end_time") if request.HasField("end_time") else int(now * 10**9)
    start_ns = nanoseconds(request.start_time, "start_time") if request.HasField("start_time") else max(0, end_ns - DEFAULT_NS)
    if start_ns >= end_ns:
        raise invalid("start_time: must be before end_time, which is now when it is not given", "start_time")
    for grouping in request.group_by:
        if grouping not in FIELDS:
            raise invalid(f"group_by: {grouping} is none of {', '.join(map(Grouping.Name, FIELDS))}", "group_by")
    if request.interval not in Interval.values():
        raise invalid(f"interval: {request.interval} is none of {', '.join(Interval.keys()[1:])}", "interval")
    for field in ("key_id", "provider", "model"):
        if "\0" in getattr(request, field):
            raise invalid(f"{field}: must not have a zero character", field)
    fields = tuple(FIELDS[grouping] for grouping in dict.fromkeys(request.group_by))
    return Question(start_ns, end_ns, fields, request.interval, request.key_id, request.provider, request.model)


def same_report(request: pb.GetReportRequest) -> bytes:
    """All of a request but the page: a page token is good for that only."""
    asked = pb.GetReportRequest()
    asked.CopyFrom(request)
    asked.ClearField("page_size")
    asked.ClearField("page_token")
    return asked.SerializeToString(deterministic=True)


def write_position(position: Position) -> bytes:
    return msgspec.json.encode(position)


def read_position(data: bytes) -> Position:
    return _positions.decode(data)


def response(asked: Question, groups: Sequence[tuple[Group, Sums]], next_page_token: str) -> pb.GetReportResponse:
    """A page. Raises GatewayError when a sum is more than its field holds."""
    rows = [_row(asked, group, sums) for group, sums in groups]
    return pb.GetReportResponse(start_time=_time(asked.start_ns), end_time=_time(asked.end_ns), rows=rows, next_page_token=next_page_token)


def _row(asked: Question, group: Group, sums: Sums) -> ReportRow:
    _check_sums(sums._asdict())
    names = ("interval_start_time",) if asked.interval else ()
    named: dict[str, Any] = dict(zip(names + asked.fields, group, strict=True))
    if asked.interval:
        named["interval_start_time"] = Timestamp(seconds=int(group[0]))
    return ReportRow(**named, **sums._asdict())


def rederived(asked: Question, factors_version: str, compared: Compared) -> pb.GetRederivedReportResponse:
    """The comparison of rows with what they come to now. Raises GatewayError when a sum is more than its field holds."""
    rows = []
    for (provider, model), each in sorted(compared.items()):
        _check_sums({**each.booked._asdict(), **{f"{name} of now": value for name, value in each.now._asdict().items()}})
        booked, now = (DerivedAmounts(**amounts._asdict()) for amounts in (each.booked, each.now))
        rows.append(RederivedRow(provider=provider, model=model, row_count=each.rows, booked=booked, now=now))
    return pb.GetRederivedReportResponse(
        start_time=_time(asked.start_ns), end_time=_time(asked.end_ns), factors_version=factors_version, rows=rows
    )


def _check_sums(sums: Mapping[str, int]) -> None:
    for name, value in sums.items():
        if value > MAX_SUM:
            raise invalid(f"start_time: the sum of {name} over that time is more than 64 bits hold; ask for less of it", "start_time")


def _time(since_1970_ns: int) -> Timestamp:
    time = Timestamp()
    time.FromNanoseconds(since_1970_ns)
    return time


def nanoseconds(time: Timestamp, field: str) -> int:
    """A time of a request. Raises GatewayError (INVALID_REQUEST) naming the field when it is none."""
    if not (0 <= time.seconds <= _MAX_SECONDS and 0 <= time.nanos < 10**9):
        raise invalid(f"{field}: must be a time from 1970 to 2262, as in 2026-01-31T00:00:00Z", field)
    return time.ToNanoseconds()
