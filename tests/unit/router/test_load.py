"""What a router knows of a provider's load between two messages of dispatch."""

import pytest

from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.router.load import MAX_IDLE, Live, Load
from services.router.provider_watch import ProviderWatch


def figures(
    provider: str = "lab", *, in_flight: int = 0, stream_ms: int | None = None, whole_ms: int | None = None, retry_s: int = 0
) -> pb.ModelFigures:
    told = pb.ModelFigures(provider=provider, model="m", in_flight_count=in_flight)
    if stream_ms is not None:
        told.peak_time_to_first_event.FromMilliseconds(stream_ms)
    if whole_ms is not None:
        told.peak_time_to_answer.FromMilliseconds(whole_ms)
    if retry_s:
        told.retry_after.FromSeconds(retry_s)
    return told


def live(told: pb.ModelFigures) -> Live:
    """As told at the time 100."""
    found = Live()
    found.tell(told, 100)
    return found


def test_own_calls_since_the_last_message_are_added_and_those_before_are_not_counted_twice() -> None:
    found = Live()
    for _ in range(3):
        found.began()
    assert found.in_flight_count == 3
    found.tell(figures(in_flight=5), 100)
    assert found.in_flight_count == 5
    found.began()
    found.began()
    assert found.in_flight_count == 7
    found.ended()
    assert found.in_flight_count == 6


def test_a_call_that_dispatch_does_not_know_of_yet_counts() -> None:
    found = Live()
    found.began()
    found.tell(figures(in_flight=0), 100)
    assert found.in_flight_count == 1


def test_a_peak_goes_on_coming_down_while_nothing_is_told() -> None:
    found = live(figures(stream_ms=1000))
    assert found.peak_s(100, streamed=True) == 1.0
    assert found.peak_s(110, streamed=True) == pytest.approx(0.3679, abs=1e-3)


def test_each_kind_of_answer_has_its_peak_and_stands_in_for_the_other() -> None:
    both = live(figures(stream_ms=500, whole_ms=9000))
    assert (both.peak_s(100, streamed=True), both.peak_s(100, streamed=False)) == (0.5, 9.0)
    assert live(figures(stream_ms=500)).peak_s(100, streamed=False) == 0.5
    assert live(figures(whole_ms=9000)).peak_s(100, streamed=True) == 9.0


def test_the_cost_grows_with_every_call_that_is_out() -> None:
    found = live(figures(stream_ms=500, in_flight=3))
    assert found.cost_s(100, streamed=True) == 2.0


def test_who_was_never_tried_costs_nothing_until_somebody_tries() -> None:
    found = Live()
    assert found.cost_s(0, streamed=True) == 0
    found.began()
    assert found.cost_s(0, streamed=True) == 1.0


def test_what_is_withheld_comes_back_by_time_alone() -> None:
    found = live(figures(retry_s=30))
    assert (found.withheld_s(110), found.withheld_s(131)) == (20, 0)
    assert live(figures()).withheld_s(100) == 0


def test_the_whole_state_forgets_what_it_does_not_name_and_keeps_own_calls() -> None:
    load = Load()
    load.tell([figures("a", stream_ms=100), figures("b", stream_ms=200)], 100, is_whole=True)
    load.of("a", "m").began()
    load.tell([figures("b", stream_ms=300)], 101, is_whole=False)
    assert load.of("a", "m").told is not None
    load.tell([figures("b", stream_ms=300)], 102, is_whole=True)
    assert load.of("a", "m").told is None
    assert load.of("a", "m").in_flight_count == 1


def test_invented_models_do_not_pile_up() -> None:
    load = Load()
    busy = load.of("a", "busy")
    busy.began()
    for number in range(2 * MAX_IDLE):
        load.of("a", f"model-{number}")
    assert len(load._live) <= MAX_IDLE + 1
    assert load.of("a", "busy") is busy


def test_figures_alone_leave_the_catalogue_as_it_was() -> None:
    watch = ProviderWatch(None, lambda: 100.0)  # type: ignore[arg-type]
    watch._take_in(pb.WatchProvidersResponse(providers=[pb.Provider(name="lab", models=[pb.Model(id="m")])]))
    watch._take_in(pb.WatchProvidersResponse(figures=[figures(in_flight=4)], figures_only=True))
    [candidate] = watch.latest.candidates("m")
    assert candidate.live.in_flight_count == 4
    watch._take_in(pb.WatchProvidersResponse())
    assert watch.latest.candidates("m") == []
