from services.up.restarts import ATTEMPTS, CALM_S, Restarts


def test_delays_double_up_to_ten_seconds() -> None:
    restarts = Restarts()
    assert [restarts.ended(now=0) for _ in range(8)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10]


def test_thousands_of_ends_are_still_ten_seconds_apart() -> None:
    restarts = Restarts()
    assert [restarts.ended(now=0) for _ in range(3000)][-1] == 10


def test_calm_while_starts_anew() -> None:
    restarts = Restarts()
    for _ in range(4):
        restarts.ended(now=0)
    restarts.became_healthy(now=100)
    assert restarts.ended(now=100 + CALM_S) == 0.2


def test_short_health_does_not_start_anew() -> None:
    restarts = Restarts()
    restarts.ended(now=0)
    restarts.became_healthy(now=100)
    assert restarts.ended(now=100 + CALM_S - 1) == 0.4
    assert restarts.ended(now=1000) == 0.8


def test_what_never_came_up_is_hopeless_after_its_attempts() -> None:
    restarts = Restarts()
    hopeless = []
    for _ in range(ATTEMPTS):
        restarts.ended(now=0)
        hopeless.append(restarts.is_hopeless)
    assert hopeless == [False, False, False, False, True]


def test_what_once_came_up_is_never_hopeless() -> None:
    restarts = Restarts()
    restarts.became_healthy(now=0)
    for _ in range(100):
        restarts.ended(now=1)
    assert not restarts.is_hopeless
