"""The course of a request through its targets."""

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch.failure import Failure, Kind
from services.dispatch.plan import Plan
from services.dispatch.retry import RetryPolicy

A, B = pb.Target(provider="a", model="m"), pb.Target(provider="b", model="m")
DOWN = Failure(Kind.REFUSED, "down", http_status=503)
SLOW = Failure(Kind.TIMEOUT, "no answer in time")

OPEN = Failure(Kind.WITHHELD, "open", http_status=503, retry_after_s=7.0)


def course(plan: Plan, *failures: Failure, may_repeat: bool = True) -> list[tuple[str, int, float]]:
    steps = []
    for failure in failures:
        target = plan.target
        assert target is not None
        if failure.kind is Kind.WITHHELD:
            plan.passed_over(failure)
            continue
        steps.append((target.provider, plan.begin(), plan.delay_s))
        plan.failed(target, failure, 1.0, None, lambda: may_repeat)
    return steps


def test_each_target_gets_its_attempts_in_order_and_only_repeats_wait() -> None:
    plan = Plan([A, B], RetryPolicy(attempts=2, base_s=1.0))
    assert course(plan, DOWN, DOWN, DOWN, DOWN) == [("a", 1, 0.0), ("a", 2, 1.0), ("b", 3, 0.0), ("b", 4, 1.0)]
    assert plan.target is None
    assert plan.error.reason == ErrorReason.ERROR_REASON_PROVIDERS_EXHAUSTED


def test_a_bad_request_ends_it_at_once() -> None:
    plan = Plan([A, B], RetryPolicy())
    course(plan, Failure(Kind.REFUSED, "bad", http_status=400))
    assert plan.target is None
    assert plan.error.reason == ErrorReason.ERROR_REASON_PROVIDER_REJECTED


def test_a_bad_key_costs_one_call() -> None:
    plan = Plan([A, B], RetryPolicy(attempts=3))
    assert course(plan, Failure(Kind.REFUSED, "", http_status=401), DOWN) == [("a", 1, 0.0), ("b", 2, 0.0)]


def test_the_last_failure_of_each_target_decides_the_error() -> None:
    limited = Failure(Kind.REFUSED, "", http_status=429)
    plan = Plan([A, B], RetryPolicy(attempts=2))
    course(plan, DOWN, limited, DOWN, limited)
    assert plan.error.reason == ErrorReason.ERROR_REASON_PROVIDER_RATE_LIMITED


def test_without_leave_to_repeat_the_next_target_follows() -> None:
    plan = Plan([A, B], RetryPolicy(attempts=3))
    assert course(plan, DOWN, DOWN, may_repeat=False) == [("a", 1, 0.0), ("b", 2, 0.0)]
    assert plan.target is None


def test_leave_is_only_asked_for_a_repeat() -> None:
    asked = []

    def may_repeat() -> bool:
        asked.append(plan.target)
        return True

    plan = Plan([A, B], RetryPolicy(attempts=2))
    for failure in (DOWN, DOWN, Failure(Kind.REFUSED, "", http_status=401)):
        plan.begin()
        assert plan.target is not None
        plan.failed(plan.target, failure, 1.0, None, may_repeat)
    assert asked == [A]


def test_what_was_not_called_is_not_counted() -> None:
    plan = Plan([A, B], RetryPolicy())
    assert course(plan, Failure(Kind.UNSUPPORTED, "", param="seed"), DOWN) == [("a", 1, 0.0), ("b", 1, 0.0)]


def test_a_target_that_is_withheld_after_a_failure_is_remembered_for_the_failure() -> None:
    plan = Plan([A], RetryPolicy(attempts=2))
    course(plan, DOWN, OPEN)
    assert (plan.error.http_status, plan.error.message) == (502, "every provider failed; the last was a: down")


def test_targets_withheld_from_the_start_are_no_failure_of_theirs() -> None:
    plan = Plan([A, B], RetryPolicy())
    assert course(plan, OPEN, OPEN) == []
    assert (plan.error.http_status, plan.error.retry_after_s) == (503, 7.0)


def test_only_the_first_call_to_the_first_target_goes_without_saying() -> None:
    plan = Plan([A, B], RetryPolicy(attempts=2))
    said = [plan.goes_without_saying]
    course(plan, DOWN)
    said.append(plan.goes_without_saying)
    withheld = Plan([A, B], RetryPolicy())
    course(withheld, OPEN)
    said.append(withheld.goes_without_saying)
    assert said == [True, False, False]


def rival_of(plan: Plan) -> pb.Target:
    rival = next(plan.rivals())
    plan.set_apart(rival)
    return rival


def test_rivals_are_other_providers_in_order() -> None:
    targets = [A, pb.Target(provider="a", model="other"), B, pb.Target(provider="c", model="m")]
    assert [target.provider for target in Plan(targets, RetryPolicy()).rivals()] == ["b", "c"]


def test_a_rival_has_one_call_and_the_present_target_its_repeats() -> None:
    plan = Plan([A, B], RetryPolicy(attempts=2, base_s=1.0))
    assert plan.begin() == 1
    rival = rival_of(plan)
    assert plan.begin() == 2
    plan.failed(rival, DOWN, 1.0, None, lambda: True)
    assert course(plan, DOWN, DOWN) == [("a", 3, 0.0), ("a", 4, 1.0)]
    assert plan.target is None
    assert plan.error.message.endswith("the last was a: down")


def test_a_refusal_of_the_rivals_is_everybodys() -> None:
    plan = Plan([A, B], RetryPolicy())
    plan.begin()
    rival = rival_of(plan)
    plan.failed(rival, Failure(Kind.REFUSED, "bad", http_status=400), 1.0, None, lambda: True)
    assert plan.target is None
    assert (plan.error.reason, plan.error.metadata["provider"]) == (ErrorReason.ERROR_REASON_PROVIDER_REJECTED, "b")


def test_calls_that_may_be_billed_are_bounded_over_all_targets_and_repeats() -> None:
    plan = Plan([A, B], RetryPolicy(attempts=2), max_calls=3)
    assert [step[:2] for step in course(plan, SLOW, SLOW, SLOW)] == [("a", 1), ("a", 2), ("b", 3)]
    assert plan.target is None
    assert plan.error.reason == ErrorReason.ERROR_REASON_PROVIDER_TIMEOUT


def test_call_that_nobody_bills_leaves_room_for_the_next() -> None:
    plan = Plan([A, B], RetryPolicy(attempts=2), max_calls=1)
    unsupported = Failure(Kind.UNSUPPORTED, "no", param="n")
    assert [step[0] for step in course(plan, DOWN, unsupported, DOWN, SLOW)] == ["a", "a", "b", "b"]
    assert plan.target is None


def test_no_rival_is_called_when_no_call_is_left_for_it() -> None:
    plan = Plan([A, B], RetryPolicy(), max_calls=1)
    plan.begin()
    assert list(plan.rivals()) == []
    wider = Plan([A, B], RetryPolicy(), max_calls=2)
    wider.begin()
    assert list(wider.rivals()) == [B]


def test_failures_of_two_calls_side_by_side_are_both_counted() -> None:
    plan = Plan([A, B], RetryPolicy(attempts=2), max_calls=2)
    for target in (A, B):
        plan.begin()
        if target is B:
            plan.set_apart(B)
    plan.failed(A, SLOW, 1.0, None, lambda: True)
    plan.failed(B, SLOW, 1.0, None, lambda: True)
    assert plan.target is None
    assert plan.error.reason == ErrorReason.ERROR_REASON_PROVIDER_TIMEOUT
