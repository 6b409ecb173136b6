"""Orders of candidates, with drawn numbers and time as arguments."""

from collections import Counter
from collections.abc import Sequence

import pytest

from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.router.catalogue import Candidate
from services.router.load import Live, Place
from services.router.ranking import Ranking
from services.router.strategies import Strategy

NOW = 1000.0


def candidate(
    name: str,
    *,
    healthy: bool = True,
    peak_s: float | None = None,
    average_s: float | None = None,
    in_flight: int = 0,
    retry_s: float = 0,
) -> Candidate:
    """One that was called before if anything is said of its figures."""
    live = Live()
    if peak_s is not None or in_flight or retry_s:
        told = pb.ModelFigures(provider=name, model="m", in_flight_count=in_flight)
        if peak_s is not None:
            told.peak_time_to_first_event.FromMilliseconds(int(peak_s * 1000))
        if average_s is not None:
            told.time_to_first_event.FromMilliseconds(int(average_s * 1000))
        if retry_s:
            told.retry_after.FromMilliseconds(int(retry_s * 1000))
        live.tell(told, NOW)
    return Candidate(pb.Provider(name=name, healthy=healthy), "m", live)


def names(
    candidates: Sequence[Candidate],
    strategy: Strategy = Strategy.FALLBACK,
    draws: Sequence[float] = (0.0, 0.0),
    preferred: str = "",
    now: float = NOW,
) -> list[str]:
    ranking = Ranking(lambda: now, iter(draws).__next__)
    return [one.provider.name for one in ranking.rank(candidates, strategy, streamed=True, preferred=[preferred] if preferred else [])]


def all_firsts(candidates: Sequence[Candidate], strategy: Strategy = Strategy.LATENCY) -> Counter[str]:
    """Who comes first, over every pair of draws from a grid."""
    grid = [(step + 0.5) / 12 for step in range(12)]
    return Counter(names(candidates, strategy, (one, other))[0] for one in grid for other in grid)


def test_fallback_keeps_the_sequence_and_puts_failing_ones_last() -> None:
    candidates = [candidate("ill", healthy=False), candidate("well"), candidate("fine")]
    assert names(candidates) == ["well", "fine", "ill"]
    ranking = Ranking(lambda: NOW, lambda: 0.0)
    assert ranking.explain([candidates[1]], Strategy.FALLBACK) == "well: first in sequence, of 1 candidate"
    assert "no healthy provider" in ranking.explain(candidates[:1], Strategy.FALLBACK)


def test_the_preferred_provider_comes_first_while_it_is_well() -> None:
    assert names([candidate("a"), candidate("b")], preferred="b") == ["b", "a"]
    assert names([candidate("a"), candidate("b", healthy=False)], preferred="b") == ["a", "b"]
    fast, slow = candidate("fast", peak_s=0.1), candidate("slow", peak_s=9)
    assert names([fast, slow], Strategy.LATENCY, preferred="slow") == ["slow", "fast"]


@pytest.mark.parametrize("strategy", Strategy)
def test_who_is_withheld_comes_last_the_soonest_back_before_others_and_then_returns(strategy: Strategy) -> None:
    candidates = [candidate("late", retry_s=30), candidate("soon", retry_s=5), candidate("well", peak_s=3, in_flight=9)]
    assert names(candidates, strategy) == ["well", "soon", "late"]
    assert set(names(candidates, strategy, now=NOW + 6)[:2]) == {"well", "soon"}


def test_a_half_open_breaker_gets_its_probe_at_its_place_whatever_the_providers_health_was() -> None:
    assert names([candidate("probed", healthy=False, peak_s=0.5), candidate("well", peak_s=0.5)]) == ["probed", "well"]


def test_latency_takes_the_better_of_two_and_ranks_the_rest_by_cost() -> None:
    candidates = [candidate("slow", peak_s=4), candidate("fast", peak_s=0.5), candidate("middle", peak_s=1)]
    assert names(candidates, Strategy.LATENCY, draws=(0.0, 0.9)) == ["middle", "fast", "slow"]
    firsts = all_firsts(candidates)
    assert firsts["slow"] == 0
    assert firsts["fast"] == 2 * firsts["middle"] > 0, "one of three pairs has no fast one in it"


def test_load_counts_as_much_as_latency() -> None:
    candidates = [candidate("busy", peak_s=0.5, in_flight=9), candidate("slow but free", peak_s=2)]
    assert set(all_firsts(candidates)) == {"slow but free"}


def test_each_pair_is_drawn_as_often_as_any_other() -> None:
    firsts = all_firsts([candidate(name, peak_s=1) for name in "abcd"])
    assert firsts == {"a": 36, "b": 36, "c": 36, "d": 36}


def test_who_fails_at_once_is_not_the_fastest() -> None:
    failing = candidate("failing", peak_s=10)  # as dispatch counts an error
    assert set(all_firsts([failing, candidate("slow", peak_s=3)])) == {"slow"}


def test_who_was_never_tried_gets_one_call_at_a_time() -> None:
    new, known = candidate("new"), candidate("known", peak_s=0.5)
    assert set(all_firsts([new, known])) == {"new"}
    new.live.began()
    assert set(all_firsts([new, known])) == {"known"}


def test_who_is_far_slower_is_left_out_however_busy_the_others_are() -> None:
    far = candidate("far", average_s=1.6, peak_s=1.6)
    near = [candidate(name, average_s=0.2, peak_s=0.4, in_flight=50) for name in "ab"]
    assert set(all_firsts([far, *near])) == {"a", "b"}
    assert names([far, *near], Strategy.LATENCY)[1] == "far", "it is still a good second"


def test_who_was_far_slower_gets_one_call_at_a_time_when_its_peak_has_come_down() -> None:
    far = candidate("far", average_s=1.6, peak_s=0.3)
    near = candidate("near", average_s=0.2, peak_s=0.3, in_flight=9)
    assert set(all_firsts([far, near])) == {"far"}
    far.live.began()
    assert set(all_firsts([far, near])) == {"near"}


def test_whole_answers_are_compared_with_whole_answers() -> None:
    told = pb.ModelFigures(provider="a", model="m")
    told.time_to_first_event.FromMilliseconds(100)
    told.time_to_answer.FromSeconds(9)
    live = Live()
    live.tell(told, NOW)
    assert (live.average_s(streamed=True), live.average_s(streamed=False)) == (0.1, 9.0)


def test_one_candidate_needs_no_draw() -> None:
    assert names([candidate("only", peak_s=1)], Strategy.LATENCY, draws=()) == ["only"]


def test_least_busy_goes_by_calls_that_are_out_and_then_by_sequence() -> None:
    candidates = [candidate("two", in_flight=2), candidate("first"), candidate("second")]
    assert names(candidates, Strategy.LEAST_BUSY) == ["first", "second", "two"]


def test_a_burst_between_two_messages_does_not_all_go_to_one() -> None:
    candidates = [candidate(name, peak_s=0.5) for name in "abcd"]
    ranking = Ranking(lambda: NOW, iter([((step * 7919) % 1000) / 1000 for step in range(400)]).__next__)
    for _ in range(100):
        ranked = ranking.rank(candidates, Strategy.LATENCY, streamed=True)
        Place(ranked)
    counts = [one.live.in_flight_count for one in candidates]
    assert sum(counts) == 100
    assert max(counts) <= 32


def test_a_request_counts_where_it_is_answered_until_it_ends() -> None:
    first, second = candidate("first"), candidate("second")
    place = Place([first, second])
    assert (first.live.in_flight_count, second.live.in_flight_count) == (1, 0)
    place.move("second", "m")
    assert (first.live.in_flight_count, second.live.in_flight_count) == (0, 1)
    place.leave()
    assert (first.live.in_flight_count, second.live.in_flight_count) == (0, 0)
