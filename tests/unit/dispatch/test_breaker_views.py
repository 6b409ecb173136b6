from google.protobuf.timestamp_pb2 import Timestamp

from joulegate.ops.v1 import breaker_pb2
from services.dispatch import breaker_views
from services.dispatch.breaker import MAX_HISTORY, BreakerPolicy, Breakers, State
from services.dispatch.breaker_views import Moment

# Monotonic 100 s is this moment of the year 2023.
EPOCH = 1_700_000_000.0
POLICY = BreakerPolicy(failures=2, open_s=30, probes=1)


def moment(monotonic: float) -> Moment:
    return Moment(monotonic, EPOCH + monotonic - 100)


def call(breakers: Breakers, model: str, at: float, *, works: bool) -> None:
    breaker = breakers.of(model)
    ticket = breaker.begin(at)
    (breaker.succeeded if works else breaker.failed)(at, ticket)


def one_open() -> Breakers:
    """`good` answered at 100 and 101 and then failed once; `bad` opened at 103."""
    breakers = Breakers(POLICY)
    for at, works in ((100, True), (101, True), (101.5, False)):
        call(breakers, "good", at, works=works)
    for at in (102, 103):
        call(breakers, "bad", at, works=False)
    return breakers


def test_a_provider_is_as_its_worst_model_and_counts_are_summed() -> None:
    assert breaker_views.administered(one_open(), moment(113)) == {
        "state": "open",
        "total_calls": 5,
        "total_successes": 2,
        "total_failures": 3,
        "failure_count": 2,
        "success_count": 0,
        "failure_rate": 0.6,
        "last_failure_time": EPOCH + 3,
        "last_success_time": EPOCH + 1,
        "time_since_last_failure": 10,
        "recovery_timeout": 30,
        "history": [{"time": EPOCH + 3, "model": "bad", "state": "open"}],
        "models": {"good": "closed", "bad": "open"},
    }


def test_a_provider_that_was_never_called_is_closed_without_times() -> None:
    view = breaker_views.administered(Breakers(POLICY), moment(100))
    assert (view["state"], view["total_calls"], view["failure_rate"], view["history"], view["models"]) == ("closed", 0, 0.0, [], {})
    assert (view["last_failure_time"], view["last_success_time"], view["time_since_last_failure"]) == (None, None, None)
    assert breaker_views.listed(Breakers(POLICY), moment(100)) == {"state": "closed", "failureCount": 0, "lastFailureTime": None}
    assert breaker_views.worst_state(Breakers(POLICY), 100) is None


def test_half_open_comes_by_itself_and_each_shape_has_its_own_word_for_it() -> None:
    breakers = one_open()
    at = moment(133)
    assert breaker_views.worst_state(breakers, at.monotonic) is State.HALF_OPEN
    assert breaker_views.administered(breakers, at)["state"] == "half_open"
    assert breaker_views.listed(breakers, at) == {"state": "half-open", "failureCount": 2, "lastFailureTime": (1_700_000_000 + 3) * 1000}
    assert breaker_views.message("lab", "bad", breakers.of("bad"), at).state == breaker_pb2.BREAKER_STATE_HALF_OPEN


def test_successes_of_probes_are_counted_until_they_have_closed_the_breaker() -> None:
    breakers = Breakers(BreakerPolicy(failures=1, open_s=30, probes=2))
    call(breakers, "m", 100, works=False)
    call(breakers, "m", 130, works=True)
    assert breaker_views.administered(breakers, moment(131))["success_count"] == 1
    call(breakers, "m", 132, works=False)
    assert breaker_views.administered(breakers, moment(162))["success_count"] == 0
    for at in (163, 164):
        call(breakers, "m", at, works=True)
    view = breaker_views.administered(breakers, moment(165))
    assert (view["state"], view["success_count"]) == ("closed", 0)


def test_the_typed_breaker_says_when_the_next_probe_may_go_out() -> None:
    breaker = one_open().of("bad")
    view = breaker_views.message("lab", "bad", breaker, moment(113), with_history=True)
    assert view == breaker_pb2.Breaker(
        provider="lab",
        model="bad",
        state=breaker_pb2.BREAKER_STATE_OPEN,
        call_count=2,
        failure_count=2,
        consecutive_failure_count=2,
        failure_rate=1.0,
        last_failure_time=Timestamp(seconds=1_700_000_003),
        retry_time=Timestamp(seconds=1_700_000_033),
        history=[breaker_pb2.BreakerChange(time=Timestamp(seconds=1_700_000_003), state=breaker_pb2.BREAKER_STATE_OPEN)],
    )
    assert not breaker_views.message("lab", "bad", breaker, moment(113)).history


def test_history_is_in_the_order_of_time_and_bounded() -> None:
    breakers = Breakers(BreakerPolicy(failures=1, open_s=1, probes=1))
    for step in range(MAX_HISTORY):
        for model in ("a", "b"):
            call(breakers, model, 100 + 2 * step, works=False)
    history = breaker_views.administered(breakers, moment(1000))["history"]
    times = [change["time"] for change in history]
    assert (len(times), times) == (MAX_HISTORY, sorted(times))
    assert {change["model"] for change in history} == {"a", "b"}
