"""Operators see every breaker as it is at the moment of asking, and no name that a client made up to hurt."""

from prometheus_client import REGISTRY

from services.dispatch.breaker import BreakerPolicy, Breakers
from services.dispatch.breaker_gauge import MAX_LABEL, exported
from services.dispatch.roster import Provider, Roster
from tests.unit.dispatch.scene import FakeClock, ScriptedBackend


def shown() -> dict[str, float]:
    samples = [sample for family in REGISTRY.collect() for sample in family.samples]
    return {sample.labels["model"]: sample.value for sample in samples if sample.name == "joulegate_circuit_breaker_state"}


def test_states_are_those_of_the_moment() -> None:
    breakers, clock = Breakers(BreakerPolicy(failures=1, open_s=10.0)), FakeClock()
    breakers.of("good").succeeded(clock.time)
    breakers.of("bad").failed(clock.time)
    breakers.of("x" * (MAX_LABEL + 1))
    with exported(Roster([Provider("a", "openai", ScriptedBackend(), breakers=breakers)]), clock):
        assert shown() == {"good": 0, "bad": 2}
        clock.time += 10.0
        assert shown() == {"good": 0, "bad": 1}
    assert shown() == {}
