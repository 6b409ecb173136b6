"""Live figures of a provider."""

from services.dispatch.figures import UNHEALTHY_AFTER, Figures


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
