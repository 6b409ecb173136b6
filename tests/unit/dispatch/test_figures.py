"""Live figures of a provider."""

from math import e

import pytest

from services.dispatch.figures import MAX_MODELS, UNHEALTHY_AFTER, Figures, Latency, ModelFigures


def test_failures_in_a_row_make_unhealthy_and_one_success_heals() -> None:
    figures = Figures()
    for _ in range(UNHEALTHY_AFTER - 1):
        figures.failed("HTTP 503")
    assert figures.is_healthy
    figures.failed("HTTP 502")
    assert not figures.is_healthy
    assert (figures.failure_count, figures.last_error) == (UNHEALTHY_AFTER, "HTTP 502")
    figures.succeeded(100.0)
    assert figures.is_healthy
    assert (figures.success_count, figures.last_success_time) == (1, 100.0)


def test_the_average_starts_at_the_first_value_and_follows_slowly() -> None:
    figures = Figures()
    figures.saw_first_event(1.0)
    assert figures.first_event_s == 1.0
    figures.saw_first_event(2.0)
    assert figures.first_event_s == 1.2


def test_a_providers_quantiles_are_over_all_its_models() -> None:
    figures = Figures()
    for number in range(20):
        figures.of(f"m{number % 2}").saw_first_event(0, 0.1 if number < 18 else 5.0, is_whole=number % 3 == 0)
    assert figures.first_event.value_s(0.5) == pytest.approx(0.1, rel=0.1)
    assert figures.first_event.value_s(0.99) == pytest.approx(5.0, rel=0.1)


def model() -> ModelFigures:
    return Figures(timeout_s=10).of("m")


def test_a_peak_rises_at_once_and_comes_down_over_ten_seconds() -> None:
    latency = Latency()
    latency.took(0, 0.1)
    latency.took(1, 8.0)
    assert latency.peak_s(1) == 8.0
    assert latency.peak_s(11) == pytest.approx(8.0 / e)
    latency.took(11, 0.1)
    assert latency.peak_s(11) == pytest.approx(8.0 / e + 0.1 * (1 - 1 / e))


def test_an_error_counts_as_the_timeout_and_not_into_the_average() -> None:
    figures = model()
    figures.saw_first_event(0, 0.1, is_whole=False)
    figures.failed(1, "HTTP 503")
    assert figures.peak_s(1) == 10
    assert figures.first_event_s == 0.1


def test_whole_answers_are_timed_apart_from_streams() -> None:
    figures = model()
    figures.saw_first_event(0, 20.0, is_whole=True)
    assert (figures.first_event_s, figures.peak_s(0), figures.first_event_p95_s()) == (20.0, 20.0, None)
    figures.saw_first_event(0, 0.3, is_whole=False)
    assert (figures.first_event_s, figures.peak_s(0), figures.whole.average_s) == (0.3, 0.3, 20.0)


@pytest.mark.parametrize("seconds", [0.0005, 0.02, 0.3, 7.0, 120.0])
def test_the_quantile_is_a_tenth_too_long_at_most(seconds: float) -> None:
    latency = Latency()
    for _ in range(19):
        latency.took(0, seconds)
    assert latency.p95_s() is None
    latency.took(0, seconds)
    p95_s = latency.p95_s()
    assert p95_s is not None
    assert max(seconds, 0.001) <= p95_s * 1.0001 <= max(seconds, 0.001) * 1.101


def test_the_quantile_leaves_the_slowest_twentieth_out_and_forgets() -> None:
    latency = Latency()
    for number in range(100):
        latency.took(0, 5.0 if number % 25 == 0 else 0.1)
    assert latency.p95_s() == pytest.approx(0.1, rel=0.1)
    for _ in range(100):
        latency.took(0, 5.0)
    assert latency.p95_s() == pytest.approx(5, rel=0.1)
    for _ in range(4000):
        latency.took(0, 0.1)
    assert latency.p95_s() == pytest.approx(0.1, rel=0.1)


def test_odds_fall_with_failures_and_come_back_with_time() -> None:
    figures = model()
    assert figures.success_odds(0) == 20
    for _ in range(3):
        figures.failed(0, "HTTP 503")
    assert figures.success_odds(0) == 5
    assert 18 < figures.success_odds(300) < 20
    for _ in range(60):
        figures.succeeded(300, 0)
    assert figures.success_odds(300) > 70


def test_the_time_between_tokens_is_the_streams_less_its_first() -> None:
    figures = model()
    figures.streamed_tokens(1, 0.0)
    assert figures.between_tokens_s is None
    figures.streamed_tokens(11, 0.5)
    assert figures.between_tokens_s == pytest.approx(0.05)


def test_what_happens_to_a_model_counts_for_its_provider() -> None:
    provider = Figures()
    one, other = provider.of("one"), provider.of("other")
    one.began()
    other.began()
    assert (one.in_flight_count, provider.in_flight_count) == (1, 2)
    one.failed(0, "HTTP 503")
    other.saw_first_event(0, 0.4, is_whole=True)
    other.succeeded(0, 1_700_000_000)
    other.ended()
    assert (provider.success_count, provider.failure_count, provider.first_event_s) == (1, 1, 0.4)
    assert (provider.in_flight_count, provider.last_success_time, provider.is_healthy) == (1, 1_700_000_000, True)


def test_every_change_can_be_seen() -> None:
    provider = Figures()
    figures = provider.of("m")
    versions = [figures.version]
    for happens in (
        figures.began,
        lambda: figures.saw_first_event(0, 1, is_whole=True),
        lambda: figures.failed(0, "no"),
        figures.ended,
    ):
        happens()
        versions.append(figures.version)
    assert versions == sorted(set(versions))
    assert provider.version == figures.version


def test_figures_of_invented_models_do_not_pile_up() -> None:
    provider = Figures()
    used = provider.of("used")
    for number in range(2 * MAX_MODELS):
        provider.of(f"model-{number}")
        assert provider.of("used") is used
    assert len(list(provider.models())) == MAX_MODELS
