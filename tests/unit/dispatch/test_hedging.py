"""A second provider is called when the first event is late: who answers, what is told and closed, and how often it may happen."""

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2
from prometheus_client import REGISTRY

from joulegate.chat.v1 import chat_pb2
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch import hedging
from services.dispatch.backend import Batch
from services.dispatch.breaker import BreakerPolicy
from services.dispatch.failure import Failure, Kind
from services.dispatch.figures import Figures
from services.dispatch.hedging import MOST_SAVED, SHARE, HedgeBudget
from services.dispatch.retry import RetryPolicy
from tests.fakes.virtual_time import VirtualClock, run
from tests.unit.dispatch.scene import ANSWER, BAD, DOWN, EVENT, Scene, Script, ScriptedBackend

AFTER_1_S = pb.Hedge(after=Duration(seconds=1))
ONCE = RetryPolicy(attempts=1)


def after(seconds: float, *steps: Batch | Failure) -> Script:
    return [seconds, *(steps or ANSWER)]


def scene(*backends: ScriptedBackend, breaker: BreakerPolicy | None = None) -> Scene:
    return Scene(*backends, policy=ONCE, breaker=breaker or BreakerPolicy(), virtual=VirtualClock())


def ran(scene: Scene, max_calls: int = 0) -> tuple[list[pb.DispatchResponse], float]:
    """The responses, and how long they took."""

    async def main() -> float:
        await scene.run(hedge=AFTER_1_S, max_calls=max_calls)
        return asyncio.get_running_loop().time()

    took = _in_virtual_time(main())
    return scene.responses, took


def _in_virtual_time(main: Coroutine[Any, Any, Any]) -> Any:
    results = []

    async def keep() -> None:
        results.append(await main)

    run(keep())
    return results[0]


def cancelled(responses: list[pb.DispatchResponse]) -> list[tuple[str, int]]:
    failed = [one for response in responses for one in response.failed_attempts]
    return [(one.target.provider, one.attempt) for one in failed if one.code == code_pb2.CANCELLED]


def test_the_second_answers_when_the_first_is_late_and_the_first_is_broken_off() -> None:
    late, quick = ScriptedBackend(after(60.0)), ScriptedBackend(after(0.5, Batch([EVENT], False), Batch([EVENT], True)))
    these = scene(late, quick)
    responses, took = ran(these)
    assert took == 1.5
    assert these.begun == [("b", 2)]
    selected = responses[1]
    assert (selected.selected.target.provider, selected.selected.attempt) == ("b", 2)
    # Told with the first event, so that it is booked whatever comes.
    assert cancelled([selected]) == [("a", 1)]
    assert [len(response.events) for response in responses] == [0, 1, 1]
    assert late.answers[0].is_closed


def test_the_loser_is_closed_before_the_winners_first_event_is_told() -> None:
    late, quick = ScriptedBackend(after(60.0)), ScriptedBackend(after(0.5, Batch([EVENT], False), Batch([EVENT], True)))
    these = scene(late, quick)

    async def main() -> None:
        async for response in these.attempts.dispatch(these.request(AFTER_1_S), {}, None):
            if response.HasField("selected"):
                assert late.answers[0].is_closed
                assert these.providers[0].figures.in_flight_count == 0

    run(main())


def test_who_was_overtaken_does_not_seem_quick() -> None:
    late, quick = ScriptedBackend(ANSWER, after(60.0)), ScriptedBackend(after(0.5))
    these = scene(late, quick)

    async def main() -> None:
        await these.run()
        await these.run(hedge=AFTER_1_S)
        peak_s = these.providers[0].figures.of("m").whole.peak_s(asyncio.get_running_loop().time())
        assert peak_s == 1.5

    run(main())


def test_the_first_may_still_be_the_first() -> None:
    these = scene(ScriptedBackend(after(1.2)), ScriptedBackend(after(9.0)))
    responses, took = ran(these)
    assert took == 1.2
    assert (responses[-1].selected.target.provider, responses[-1].selected.attempt) == ("a", 1)
    assert (these.begun, cancelled(responses)) == ([("b", 2)], [("b", 2)])


def test_in_time_means_alone() -> None:
    spare = ScriptedBackend()
    responses, _ = ran(scene(ScriptedBackend(after(0.9)), spare))
    assert len(responses) == 1
    assert spare.answers == []


def test_what_stalls_after_its_first_event_has_no_rival() -> None:
    spare = ScriptedBackend()
    _, took = ran(scene(ScriptedBackend([Batch([EVENT], False), 30.0, Batch([], True)]), spare))
    assert (took, spare.answers) == (30.0, [])


def test_without_a_wish_nobody_is_called_twice() -> None:
    these = scene(ScriptedBackend(after(60.0)), ScriptedBackend())
    run(these.run())
    assert these.begun == []


def test_when_both_fail_the_next_target_follows_without_another_rival() -> None:
    earlier = [ANSWER] * 60  # enough to pay for two
    these = scene(
        ScriptedBackend(*earlier, after(3.0, DOWN)), ScriptedBackend(after(1.0, DOWN)), ScriptedBackend(after(5.0)), ScriptedBackend()
    )

    async def main() -> float:
        for _ in earlier:
            await these.run()
        these.responses.clear()
        await these.run(hedge=AFTER_1_S)
        return asyncio.get_running_loop().time()

    took = _in_virtual_time(main())
    assert these.failed == [("b", 2, 503), ("a", 1, 503)]
    assert these.begun == [("b", 2), ("c", 3)]
    assert (these.responses[-1].selected.target.provider, took) == ("c", 8.0)


def test_when_all_fail_each_is_told_once() -> None:
    these = scene(ScriptedBackend(after(3.0, DOWN)), ScriptedBackend(after(4.0, DOWN)))
    error = _in_virtual_time(these.error(hedge=AFTER_1_S))
    assert error.reason == ErrorReason.ERROR_REASON_PROVIDERS_EXHAUSTED
    assert these.failed == [("a", 1, 503), ("b", 2, 503)]


def test_a_failure_of_one_leaves_the_other_running_and_is_told_at_once() -> None:
    these = scene(ScriptedBackend(after(2.0, DOWN)), ScriptedBackend(after(9.0)))
    responses, took = ran(these)
    assert these.failed == [("a", 1, 503)]
    assert [bool(response.failed_attempts) for response in responses] == [False, True, False]
    assert (responses[-1].selected.target.provider, took) == ("b", 10.0)


def test_what_one_refuses_the_other_is_not_waited_for() -> None:
    late = ScriptedBackend(after(60.0))
    these = scene(late, ScriptedBackend(after(0.1, BAD)))
    error = _in_virtual_time(these.error(hedge=AFTER_1_S))
    assert (error.reason, error.metadata["provider"]) == (ErrorReason.ERROR_REASON_PROVIDER_REJECTED, "b")
    assert these.failed == [("b", 2, 400), ("a", 1, 0)]
    assert cancelled(these.responses) == [("a", 1)]
    assert late.answers[0].is_closed


def test_a_rival_that_needs_no_call_is_taken_back() -> None:
    these = scene(ScriptedBackend(after(3.0)), ScriptedBackend([Failure(Kind.UNSUPPORTED, "", param="seed")]))
    responses, _ = ran(these)
    assert (these.begun, these.failed) == ([("b", 2), ("", 2)], [])
    assert responses[-1].selected.target.provider == "a"


def test_a_rival_goes_out_only_after_it_was_told() -> None:
    spare = ScriptedBackend(after(60.0))
    these = scene(ScriptedBackend(after(1.5)), spare)

    async def main() -> None:
        responses = these.attempts.dispatch(these.request(AFTER_1_S), {}, None)
        assert (await anext(responses)).begun_attempts
        # As long as it is not read, the first may still begin; then the second is never called.
        await asyncio.sleep(1.0)
        assert (await anext(responses)).selected.target.provider == "a"
        await responses.aclose()

    run(main())
    assert spare.answers[0].is_closed
    assert not spare.answers[0].is_read
    assert these.providers[1].figures.in_flight_count == 0


def test_a_rival_with_an_open_circuit_is_passed_over() -> None:
    shut = ScriptedBackend()
    these = scene(ScriptedBackend(after(60.0)), shut, ScriptedBackend(ANSWER), breaker=BreakerPolicy(failures=1))
    these.providers[1].breakers.of("m").failed(0.0)
    ran(these)
    assert these.begun == [("c", 2)]
    assert shut.answers == []


def test_another_model_of_the_same_provider_is_no_rival() -> None:
    these = scene(ScriptedBackend(after(5.0)))
    these.providers.append(these.providers[0])
    ran(these)
    assert these.begun == []


def test_a_client_that_leaves_ends_both() -> None:
    backends = ScriptedBackend(after(60.0)), ScriptedBackend(after(60.0))
    these = scene(*backends)

    async def main() -> None:
        asking = asyncio.create_task(these.run(hedge=AFTER_1_S))
        await asyncio.sleep(2.0)
        assert [provider.figures.in_flight_count for provider in these.providers] == [1, 1]
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    run(main())
    assert [backend.answers[0].is_closed for backend in backends] == [True, True]
    assert [provider.figures.in_flight_count for provider in these.providers] == [0, 0]
    assert [provider.breakers.of("m").failure_count for provider in these.providers] == [0, 0]


def test_a_reader_that_stops_reading_ends_the_winner() -> None:
    quick = ScriptedBackend(after(0.5, Batch([EVENT], False), Batch([EVENT], True)))
    these = scene(ScriptedBackend(after(60.0)), quick)

    async def main() -> None:
        responses = these.attempts.dispatch(these.request(AFTER_1_S), {}, None)
        async for response in responses:
            if response.HasField("selected"):
                break
        await responses.aclose()
        assert quick.answers[0].is_closed

    run(main())


def test_a_probe_that_is_overtaken_gives_its_slot_back() -> None:
    these = scene(ScriptedBackend(after(60.0)), ScriptedBackend(ANSWER), breaker=BreakerPolicy(failures=1, open_s=0.0, probes=1))
    breaker = these.providers[0].breakers.of("m")
    breaker.failed(0.0)
    ran(these)
    assert breaker.admits(2.0)


def test_second_calls_are_a_fiftieth_of_the_requests_at_most() -> None:
    requests = 500
    these = scene(ScriptedBackend(*[after(2.0)] * requests), ScriptedBackend(*[after(0.1)] * requests))

    async def main() -> None:
        for _ in range(requests):
            await these.run(hedge=AFTER_1_S)

    run(main())
    assert 0.9 * SHARE * requests <= len(these.begun) <= SHARE * requests + 1


def test_how_second_calls_ended_is_counted() -> None:
    def counted(outcome: str) -> float:
        return REGISTRY.get_sample_value("joulegate_hedges_total", {"provider": "b", "outcome": outcome}) or 0.0

    before = {outcome: counted(outcome) for outcome in ("won", "lost", "failed")}
    ran(scene(ScriptedBackend(after(60.0)), ScriptedBackend(ANSWER)))
    ran(scene(ScriptedBackend(after(2.0)), ScriptedBackend(after(60.0))))
    ran(scene(ScriptedBackend(after(2.0)), ScriptedBackend([0.1, DOWN])))
    assert {outcome: counted(outcome) - count for outcome, count in before.items()} == {"won": 1, "lost": 1, "failed": 1}


def test_what_is_saved_up_is_bounded() -> None:
    budget = HedgeBudget()
    for _ in range(100_000):
        budget.deposit()
    assert sum(budget.take() for _ in range(1000)) == MOST_SAVED


def test_a_share_of_nothing_switches_it_off() -> None:
    budget = HedgeBudget(0.0)
    budget.deposit()
    assert not budget.take()


@pytest.mark.parametrize("streams", [True, False])
def test_unsaid_the_wait_is_what_most_first_events_of_the_kind_take(streams: bool) -> None:
    figures = Figures().of("m")
    request = pb.DispatchRequest(request=chat_pb2.ChatRequest(stream=streams), hedge=pb.Hedge())
    assert hedging.delay_s(request, figures) is None
    for _ in range(100):
        figures.saw_first_event(0.0, 1.0, is_whole=False)
        figures.saw_first_event(0.0, 20.0, is_whole=True)
    assert hedging.delay_s(request, figures) == pytest.approx(1.0 if streams else 20.0, rel=0.11)


def test_a_said_wait_wins_and_is_never_below_nothing() -> None:
    figures = Figures().of("m")
    for seconds, expected in ((0.25, 0.25), (-1.0, 0.0)):
        after = Duration()
        after.FromTimedelta(timedelta(seconds=seconds))
        assert hedging.delay_s(pb.DispatchRequest(hedge=pb.Hedge(after=after)), figures) == expected
    assert hedging.delay_s(pb.DispatchRequest(), figures) is None


def test_no_second_call_where_only_one_may_be_billed() -> None:
    these = scene(ScriptedBackend(after(1.2)), ScriptedBackend(after(0.1)))
    responses, took = ran(these, max_calls=1)
    assert (took, these.begun, cancelled(responses)) == (1.2, [], [])
    assert responses[-1].selected.target.provider == "a"
