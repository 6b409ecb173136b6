"""A scope that gave wrong hits gives none for a while."""

from hypothesis import given
from hypothesis import strategies as st

from services.cache.brake import HALF_LIFE_S, Brake, wilson_upper

SCOPE, OTHER = "a" * 40, "b" * 40


def test_one_wrong_hit_of_few_brakes_its_scope_only() -> None:
    brake = Brake(limit=0.02)
    brake.note(SCOPE, 0.0, is_wrong=True)
    assert brake.holds(SCOPE, 0.0) and not brake.holds(OTHER, 0.0)
    assert brake.held_count(0.0) == 1


def test_one_wrong_hit_of_many_does_not() -> None:
    brake = Brake(limit=0.02)
    for number in range(1000):
        brake.note(SCOPE, 0.0, is_wrong=number == 500)
    assert not brake.holds(SCOPE, 0.0)


def test_right_hits_never_brake() -> None:
    brake = Brake(limit=0.0)
    brake.note(SCOPE, 0.0, is_wrong=False)
    assert not brake.holds(SCOPE, 0.0)


def test_braked_scope_comes_back_by_time_alone() -> None:
    brake = Brake(limit=0.02)
    brake.note(SCOPE, 0.0, is_wrong=True)
    assert brake.holds(SCOPE, HALF_LIFE_S * 0.9)
    assert not brake.holds(SCOPE, HALF_LIFE_S * 1.1)


def test_flood_of_scopes_does_not_free_a_braked_one() -> None:
    brake = Brake(limit=0.02, capacity=8)
    brake.note(SCOPE, 0.0, is_wrong=True)
    for number in range(100):
        brake.note(f"{number:040d}", 0.0, is_wrong=False)
    assert brake.holds(SCOPE, 0.0)


def test_wilsons_interval_is_the_published_one() -> None:
    # 10 of 100 at z = 1.96: 0.0552 to 0.1744 (Newcombe 1998, method 3).
    assert round(wilson_upper(10, 100, 1.96), 4) == 0.1744
    assert wilson_upper(0, 0) == 1.0


@given(st.integers(0, 50), st.integers(0, 50))
def test_bound_is_above_the_share_and_falls_with_evidence(wrong: int, right: int) -> None:
    verified = wrong + right
    bound = wilson_upper(wrong, verified)
    assert 0 <= bound <= 1
    if verified:
        assert bound >= wrong / verified - 1e-12
        assert wilson_upper(wrong * 4, verified * 4) <= bound + 1e-12
