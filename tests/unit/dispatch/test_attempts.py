"""Targets in order until one answers: what is told, what is waited for, what is counted."""

import asyncio

import pytest
import structlog
from prometheus_client import REGISTRY

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch.backend import Batch
from services.dispatch.breaker import BreakerPolicy, State
from services.dispatch.failure import Failure, Kind
from services.dispatch.figures import UNHEALTHY_AFTER
from services.dispatch.retry import RetryPolicy
from services.runtime.errors import GatewayError
from tests.unit.dispatch.scene import ANSWER, BAD, CUT, DOWN, EVENT, LIMITED, Scene, Script, ScriptedBackend


async def test_a_whole_answer_is_one_message() -> None:
    [response] = await Scene(ScriptedBackend(ANSWER)).run()
    assert (response.selected.target.provider, response.selected.attempt) == ("a", 1)
    assert len(response.events) == 1
    assert response.HasField("finished")


async def test_a_stream_is_selected_once_and_finished_last() -> None:
    script = [Batch([EVENT, EVENT], is_last=False), Batch([EVENT], is_last=False), Batch([], is_last=True)]
    responses = await Scene(ScriptedBackend(script)).run()
    assert [len(response.events) for response in responses] == [2, 1, 0]
    assert [response.HasField("selected") for response in responses] == [True, False, False]
    assert [response.HasField("finished") for response in responses] == [False, False, True]


async def test_failures_are_told_one_by_one_before_the_answer() -> None:
    scene = Scene(ScriptedBackend([DOWN], [DOWN]), ScriptedBackend(ANSWER))
    responses = await scene.run()
    assert scene.failed == [("a", 1, 503), ("a", 2, 503)]
    assert [len(response.failed_attempts) for response in responses] == [1, 0, 1, 0, 0]
    assert scene.begun == [("a", 2), ("b", 3)]
    assert (responses[-1].selected.target.provider, responses[-1].selected.attempt) == ("b", 3)
    assert scene.clock.slept == [0.05]


async def test_failures_are_told_before_the_final_error() -> None:
    scene = Scene(ScriptedBackend([DOWN], [DOWN]), ScriptedBackend([DOWN], [DOWN]))
    error = await scene.error()
    assert error.reason == ErrorReason.ERROR_REASON_PROVIDERS_EXHAUSTED
    assert scene.failed == [("a", 1, 503), ("a", 2, 503), ("b", 3, 503), ("b", 4, 503)]


async def test_a_bad_request_is_not_tried_elsewhere() -> None:
    scene = Scene(ScriptedBackend([BAD]), ScriptedBackend())
    error = await scene.error()
    assert (error.reason, error.http_status, error.metadata["param"]) == (ErrorReason.ERROR_REASON_PROVIDER_REJECTED, 400, "n")
    assert scene.failed == [("a", 1, 400)]


async def test_a_provider_is_waited_for_as_long_as_it_asks() -> None:
    scene = Scene(ScriptedBackend([LIMITED], ANSWER))
    await scene.run()
    assert scene.clock.slept == [3.0]


async def test_the_callers_deadline_is_not_slept_through() -> None:
    scene = Scene(ScriptedBackend([LIMITED]), ScriptedBackend(ANSWER))
    await scene.run(remaining_s=2.0)
    assert scene.clock.slept == []
    assert scene.responses[-1].selected.target.provider == "b"


async def test_after_the_first_event_nothing_is_tried_again() -> None:
    scene = Scene(ScriptedBackend([Batch([EVENT], is_last=False), CUT]), ScriptedBackend())
    error = await scene.error()
    assert (error.reason, error.metadata["provider"]) == (ErrorReason.ERROR_REASON_STREAM_CUT, "a")
    assert len(scene.responses) == 1
    assert scene.failed == []


async def test_an_answer_that_breaks_before_its_first_event_goes_to_the_next_target() -> None:
    scene = Scene(ScriptedBackend([CUT]), ScriptedBackend(ANSWER))
    await scene.run()
    assert scene.failed == [("a", 1, 0)]


async def test_every_call_is_closed_and_nothing_stays_in_flight() -> None:
    first, second = ScriptedBackend([DOWN], [DOWN]), ScriptedBackend(ANSWER)
    scene = Scene(first, second)
    await scene.run()
    assert all(answer.is_closed for answer in first.answers + second.answers)
    assert [provider.figures.in_flight_count for provider in scene.providers] == [0, 0]


async def test_leaving_closes_the_call_and_counts_neither_way() -> None:
    backend = ScriptedBackend([Batch([EVENT], is_last=False)])
    scene = Scene(backend)
    responses = scene.attempts.dispatch(pb.DispatchRequest(targets=[pb.Target(provider="a", model="m")]), {}, None)
    await anext(responses)
    assert scene.providers[0].figures.in_flight_count == 1
    await responses.aclose()
    figures = scene.providers[0].figures
    assert backend.answers[0].is_closed
    assert (figures.in_flight_count, figures.success_count, figures.failure_count) == (0, 0, 0)


async def test_health_changes_are_announced_both_ways() -> None:
    scene = Scene(ScriptedBackend(*[[DOWN]] * UNHEALTHY_AFTER, ANSWER), policy=RetryPolicy(attempts=UNHEALTHY_AFTER + 1))
    changes: list[bool] = []
    change = scene.roster.change
    async for _ in scene.attempts.dispatch(pb.DispatchRequest(targets=[pb.Target(provider="a", model="m")]), {}, None):
        changes.append(change.is_set())
        change = scene.roster.change
    # Between the failures each new begin is told.
    assert changes == [False, False, False, False, True, False, True]
    assert scene.roster.describe()[0].healthy


async def test_a_refused_request_is_no_mark_against_the_provider() -> None:
    scene = Scene(ScriptedBackend([BAD]))
    await scene.error()
    assert scene.providers[0].figures.failure_count == 0


async def test_the_last_error_has_none_of_the_vendors_words() -> None:
    scene = Scene(ScriptedBackend([DOWN], ANSWER))
    await scene.run()
    [described] = scene.roster.describe()
    assert (described.last_error, described.failure_count, described.success_count) == ("HTTP 503", 1, 1)
    assert described.HasField("time_to_first_event")
    assert described.last_success_time.seconds == 1000


DELICATE = BreakerPolicy(failures=1, open_s=10.0, probes=1)
ONCE = RetryPolicy(attempts=1)


async def test_an_open_circuit_is_passed_over_without_a_call() -> None:
    scene = Scene(ScriptedBackend([DOWN]), ScriptedBackend(ANSWER, ANSWER), policy=ONCE, breaker=DELICATE)
    await scene.run()
    scene.responses.clear()
    [begun, response] = await scene.run()
    assert (response.selected.target.provider, response.selected.attempt) == ("b", 1)
    assert begun.begun_attempts == [pb.BegunAttempt(target=pb.Target(provider="b", model="m"), attempt=1)]
    assert scene.failed == []


async def test_when_all_circuits_are_open_the_answer_is_immediate_and_says_when_to_come_back() -> None:
    scene = Scene(ScriptedBackend([DOWN]), ScriptedBackend([DOWN]), policy=ONCE, breaker=DELICATE)
    await scene.error()
    scene.clock.time += 4.0
    scene.responses.clear()
    error = await scene.error()
    assert (error.reason, error.http_status) == (ErrorReason.ERROR_REASON_PROVIDERS_EXHAUSTED, 503)
    assert (error.retry_after_s, error.metadata["code"]) == (6.0, "circuit_open")
    assert scene.responses == []


async def test_the_first_call_after_the_pause_goes_out_and_its_success_closes_the_circuit() -> None:
    scene = Scene(ScriptedBackend([DOWN], ANSWER, ANSWER), policy=ONCE, breaker=DELICATE)
    await scene.error()
    scene.clock.time += DELICATE.open_s
    [response] = (await scene.run())[-1:]
    assert response.selected.target.provider == "a"
    [(_, breaker)] = scene.providers[0].breakers
    assert [change.state for change in breaker.history] == [State.OPEN, State.HALF_OPEN, State.CLOSED]


async def test_while_a_probe_is_out_others_are_withheld_until_its_first_event() -> None:
    stream: Script = [Batch([EVENT], is_last=False), Batch([EVENT], is_last=True)]
    scene = Scene(ScriptedBackend([DOWN], stream, ANSWER), policy=ONCE, breaker=DELICATE)
    await scene.error()
    scene.clock.time += DELICATE.open_s
    breaker = scene.providers[0].breakers.of("m")
    ticket = breaker.begin(scene.clock.time)
    error = await scene.error()
    assert (error.http_status, error.retry_after_s) == (503, 1.0)
    breaker.abandoned(scene.clock.time, ticket)
    responses = scene.attempts.dispatch(pb.DispatchRequest(targets=[pb.Target(provider="a", model="m")]), {}, None)
    await anext(responses)
    assert breaker.state(scene.clock.time) is State.CLOSED
    await responses.aclose()


async def test_other_models_of_the_provider_are_not_withheld() -> None:
    scene = Scene(ScriptedBackend([DOWN], ANSWER), policy=ONCE, breaker=DELICATE)
    await scene.error()
    responses = scene.attempts.dispatch(pb.DispatchRequest(targets=[pb.Target(provider="a", model="other")]), {}, None)
    assert (await anext(responses)).selected.target.model == "other"
    await responses.aclose()


@pytest.mark.parametrize("failure", [BAD, LIMITED, Failure(Kind.REFUSED, "", http_status=404), Failure(Kind.REFUSED, "", http_status=403)])
async def test_what_does_not_speak_against_the_provider_leaves_its_circuit_closed(failure: Failure) -> None:
    scene = Scene(ScriptedBackend([failure]), policy=ONCE, breaker=DELICATE)
    await scene.error()
    [(_, breaker)] = scene.providers[0].breakers
    assert (breaker.state(scene.clock.time), breaker.call_count, breaker.failure_count) == (State.CLOSED, 1, 0)


async def test_a_cut_answer_speaks_against_the_provider() -> None:
    scene = Scene(ScriptedBackend([Batch([EVENT], is_last=False), CUT]), policy=ONCE, breaker=DELICATE)
    await scene.error()
    assert scene.providers[0].breakers.of("m").state(scene.clock.time) is State.OPEN


async def test_a_client_that_leaves_gives_the_probe_back() -> None:
    scene = Scene(ScriptedBackend([DOWN], [asyncio.Event()]), policy=ONCE, breaker=DELICATE)
    await scene.error()
    scene.clock.time += DELICATE.open_s
    waiting = asyncio.create_task(scene.run())
    await asyncio.sleep(0)
    breaker = scene.providers[0].breakers.of("m")
    assert (breaker.state(scene.clock.time), breaker.admits(scene.clock.time)) == (State.HALF_OPEN, False)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (breaker.state(scene.clock.time), breaker.admits(scene.clock.time)) == (State.HALF_OPEN, True)


async def test_changes_of_a_circuit_are_announced_logged_and_counted() -> None:
    scene = Scene(ScriptedBackend([DOWN], ANSWER), policy=ONCE, breaker=DELICATE)

    def counted(state: str) -> float:
        return REGISTRY.get_sample_value("joulegate_circuit_breaker_transitions_total", {"provider": "a", "state": state}) or 0.0

    before = [counted(state) for state in ("open", "half_open", "closed")]
    change = scene.roster.change
    with structlog.testing.capture_logs() as logged:
        await scene.error()
        assert change.is_set()
        scene.clock.time += DELICATE.open_s
        change = scene.roster.change
        await scene.run()
    assert change.is_set()
    assert [counted(state) for state in ("open", "half_open", "closed")] == [count + 1 for count in before]
    changes = [entry for entry in logged if entry["event"] == "circuit_changed"]
    assert [(entry["provider"], entry["model"], entry["state"]) for entry in changes] == [
        ("a", "m", "open"),
        ("a", "m", "half_open"),
        ("a", "m", "closed"),
    ]


UNSAYABLE = Failure(Kind.UNSUPPORTED, "the dialect has no word for logprobs", param="logprobs")


async def test_what_a_dialect_cannot_say_goes_to_the_next_target_and_is_no_call() -> None:
    scene = Scene(ScriptedBackend([UNSAYABLE]), ScriptedBackend(ANSWER))
    response = (await scene.run())[-1]
    assert (response.selected.target.provider, response.selected.attempt) == ("b", 1)
    assert scene.begun == [("", 1), ("b", 1)]
    assert (scene.failed, scene.providers[0].figures.failure_count) == ([], 0)


async def test_what_no_dialect_can_say_is_refused_by_name() -> None:
    scene = Scene(ScriptedBackend([UNSAYABLE]), ScriptedBackend([UNSAYABLE]))
    error = await scene.error()
    assert (error.reason, error.metadata["param"]) == (ErrorReason.ERROR_REASON_UNSUPPORTED_PARAMETER, "logprobs")
    assert (scene.failed, scene.begun) == ([], [("", 1), ("b", 1), ("", 1)])


async def test_repeats_end_with_their_budget_and_the_next_target_follows() -> None:
    scene = Scene(
        ScriptedBackend(*[[DOWN]] * 3), ScriptedBackend(ANSWER, ANSWER), policy=RetryPolicy(attempts=2, budget=0.0, budget_floor_per_s=0.1)
    )
    await scene.run()
    await scene.run()
    assert scene.failed == [("a", 1, 503), ("a", 2, 503), ("a", 1, 503)]


async def test_each_request_pays_its_share_into_the_budget() -> None:
    policy = RetryPolicy(attempts=2, budget=0.5, budget_floor_per_s=0.0)
    scene = Scene(ScriptedBackend(ANSWER, [DOWN], ANSWER), policy=policy)
    await scene.run()
    await scene.run()
    assert scene.failed == [("a", 1, 503)]


async def test_a_repeat_that_could_not_go_out_is_not_paid_for() -> None:
    policy = RetryPolicy(attempts=2, budget=0.0, budget_floor_per_s=0.1)
    scene = Scene(ScriptedBackend([DOWN]), ScriptedBackend([LIMITED], ANSWER), policy=policy, breaker=DELICATE)
    await scene.run()
    assert scene.failed == [("a", 1, 503), ("b", 2, 429)]
    assert scene.responses[-1].selected.attempt == 3


@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        ([], ErrorReason.ERROR_REASON_INVALID_REQUEST),
        (["nobody"], ErrorReason.ERROR_REASON_MODEL_NOT_FOUND),
        (["a", "nobody"], ErrorReason.ERROR_REASON_MODEL_NOT_FOUND),
    ],
)
async def test_targets_must_exist(targets: list[str], reason: ErrorReason.ValueType) -> None:
    scene = Scene(ScriptedBackend())
    request = pb.DispatchRequest(targets=[pb.Target(provider=name, model="m") for name in targets])
    with pytest.raises(GatewayError) as raised:
        await anext(scene.attempts.dispatch(request, {}, None))
    assert raised.value.reason == reason


async def test_no_more_calls_go_out_than_may_be_billed() -> None:
    first, second = ScriptedBackend([DOWN], [CUT]), ScriptedBackend(ANSWER)
    scene = Scene(first, second)
    with pytest.raises(GatewayError):
        await scene.run(max_calls=1)
    assert scene.failed == [("a", 1, 503), ("a", 2, 0)]
    assert not second.answers
