from prometheus_client import REGISTRY

from services.dispatch.keys import Key, KeyRing
from services.dispatch.metrics import watch_keys
from services.runtime.secret import Secret
from tests.unit.dispatch.hands import Hands


def test_keys_are_shown_by_place_and_never_by_text() -> None:
    clock, keys = Hands(), KeyRing([Key(Secret("canary-a")), Key(Secret("canary-b"))])
    watch_keys("keyed", keys, clock)
    keys.refused(1, "m", clock.time, 401)

    def shown() -> dict[str, float]:
        samples = [sample for family in REGISTRY.collect() for sample in family.samples if sample.labels.get("provider") == "keyed"]
        assert "canary" not in repr(samples)
        return {sample.labels["key"]: sample.value for sample in samples}

    assert shown() == {"0": 1.0, "1": 0.0}
    clock.time += 60
    assert shown() == {"0": 1.0, "1": 1.0}
