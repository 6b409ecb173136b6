from pathlib import Path

from services.up import plan, settings
from services.up.plan import Child, Place

PLACE = Place(Path("/run/j"), 8000, {"router": 9464, "cache": 9465, "dispatch": 9466, "ledger": 9467, "all": 9470})
ENVIRONMENT = {"GRPC_LISTEN": "127.0.0.1:1", "METRICS_LISTEN": "127.0.0.1:2", "OPENAI_API_KEY": "k"}


def children(one_process: bool) -> list[Child]:
    loaded = settings.load({"DRAIN_SECONDS": "2.5", "JOULEGATE_DATA_DIR": "/data"})
    return plan.service_children(loaded, ENVIRONMENT, PLACE, one_process, lambda name: ["serve", name])


def test_each_service_is_told_where_the_others_are() -> None:
    for child in children(one_process=False):
        assert child.command == ("serve", child.name)
        assert child.environment["LEDGER_ADDRESS"] == "unix:/run/j/ledger.sock"
        assert child.environment["METRICS_LISTEN"] == f"127.0.0.1:{PLACE.metrics_ports[child.name]}"
        assert (child.environment["JOULEGATE_DATA_DIR"], child.environment["DRAIN_SECONDS"]) == ("/data", "2.5")


def test_environment_is_handed_on_but_for_addresses_of_one_process() -> None:
    environment = children(one_process=False)[0].environment
    assert environment["OPENAI_API_KEY"] == "k"
    assert "GRPC_LISTEN" not in environment


def test_services_leave_before_those_they_need() -> None:
    assert [child.name for child in children(one_process=False)] == ["router", "dispatch", "cache", "ledger"]


def test_one_process_is_at_every_address() -> None:
    (child,) = children(one_process=True)
    assert {child.environment[f"{name}_ADDRESS"] for name in ("ROUTER", "CACHE", "DISPATCH", "LEDGER")} == {"unix:/run/j/all.sock"}


def test_unmeasured_process_listens_nowhere() -> None:
    loaded = settings.load({})
    for child in plan.service_children(loaded, ENVIRONMENT, Place(Path("/run/j"), 8000, {}), False, lambda name: [name]):
        assert "METRICS_LISTEN" not in child.environment
