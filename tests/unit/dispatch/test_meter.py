"""What counters count is shared among requests, and none of it gets lost."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulegate.ledger.v1.entry_pb2 import EnergyBoundary
from services.dispatch import counters
from services.dispatch.addresses import is_this_machine
from services.dispatch.counters import CountersError, DeclaredWatts, Nvml, Powercap, open_counters
from services.dispatch.meter import Meter, Share
from services.dispatch.metering import Metering

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.integers(0, 10_000)),
        st.tuples(st.just("end"), st.integers(0, 5)),
        st.tuples(st.just("produce"), st.integers(0, 500)),
        st.tuples(st.just("spend"), st.integers(0, 10**9)),
    ),
    max_size=60,
)


@given(STEPS)
def test_requests_and_the_idle_account_together_have_what_was_counted(steps: list[tuple[str, int]]) -> None:
    meter, counted = Meter(), 0
    shares: list[Share] = []
    for kind, number in steps:
        if kind == "begin":
            shares.append(meter.begin(number))
        elif kind == "spend":
            meter.spend(number)
            counted += number
        elif shares:
            share = shares[number % len(shares)]
            share.produce(number) if kind == "produce" else meter.end(share)
    assert sum(share.microjoules for share in shares) + meter.idle_microjoules == counted
    assert all(share.microjoules >= 0 for share in shares)


def test_slice_is_shared_by_what_was_produced_in_it_and_by_a_quarter_of_prompts_that_wait() -> None:
    meter = Meter()
    meter.spend(5)
    one, two = meter.begin(400), meter.begin(100)
    one.produce(10)
    meter.spend(1400)
    assert (one.microjoules, two.microjoules) == (400, 1000)
    two.produce(30)
    one.produce(10)
    meter.spend(400)
    assert (one.microjoules, two.microjoules) == (500, 1300)
    # Nobody has anything to show for it.
    meter.spend(10)
    meter.end(one)
    meter.end(one)
    meter.spend(7)
    meter.end(two)
    meter.spend(1)
    assert (one.microjoules, two.microjoules, meter.idle_microjoules) == (505, 1312, 6)


def zone(folder: Path, place: str, name: str, microjoules: int) -> Path:
    zone = folder / place
    zone.mkdir(parents=True)
    (zone / "name").write_text(f"{name}\n")
    (zone / "max_energy_range_uj").write_text("1000\n")
    (zone / "energy_uj").write_text(f"{microjoules}\n")
    return zone / "energy_uj"


def test_processors_and_memory_are_counted_and_their_parts_are_not_counted_twice(tmp_path: Path) -> None:
    files = [
        zone(tmp_path, place, name, 900)
        for place, name in (("rapl:0", "package-0"), ("rapl:1", "package-1"), ("rapl:0:0", "core"), ("rapl:0:1", "dram"))
    ]
    powercap = Powercap(tmp_path)
    for file, now in zip(files, (950, 100, 999, 901), strict=True):
        file.write_text(str(now))
    # The second one has begun anew.
    assert powercap.read() == 50 + 200 + 1
    assert powercap.read() == 0


def test_the_platform_has_all_in_it(tmp_path: Path) -> None:
    platform, package = zone(tmp_path, "rapl:1", "psys", 0), zone(tmp_path, "rapl:0", "package-0", 0)
    powercap = Powercap(tmp_path)
    platform.write_text("10")
    package.write_text("7")
    assert powercap.read() == 10


def test_cards_are_counted_in_millijoules() -> None:
    totals = [500, 9000]
    library = SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetTotalEnergyConsumption=lambda card: totals[card],
    )
    cards = Nvml(library)
    totals[:] = [507, 3]
    assert cards.read() == 7000 + 3000
    library.nvmlDeviceGetCount = lambda: 0
    with pytest.raises(CountersError, match="no cards"):
        Nvml(library)


def test_counters_that_are_not_there_are_an_error_that_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    for names, why in (
        ("powercap", "no counters of processors"),
        ("nvml", "pynvml is not installed"),
        ("sun", "neither powercap nor nvml"),
    ):
        with pytest.raises(CountersError, match=why):
            open_counters([names], tmp_path)
    zone(tmp_path, "rapl:0", "package-0", 0).write_text("much")
    with pytest.raises(CountersError, match="not a number"):
        open_counters([counters.POWERCAP], tmp_path)


def test_counters_that_fail_give_no_figures_any_more(tmp_path: Path) -> None:
    file = zone(tmp_path, "rapl:0", "package-0", 0)
    metering = Metering([Powercap(tmp_path)], EnergyBoundary.ENERGY_BOUNDARY_IT)
    before, after = metering.begin(1), metering.begin(1)
    file.write_text("600")
    assert metering.end(before) == 300
    file.unlink()
    assert metering.end(after) is None
    assert metering.end(metering.begin(1)) is None


def test_stated_watts_are_shared_by_who_is_in_flight_and_nobody_else_draws_them() -> None:
    now = 50.0
    metering = Metering([DeclaredWatts(200.0, lambda: now)], EnergyBoundary.ENERGY_BOUNDARY_IT, is_declared=True)
    now += 1000.0
    alone = metering.begin(100)
    now += 1.0
    beside = metering.begin(100)
    now += 2.0
    assert metering.end(alone) == 200_000_000 + 200_000_000
    now += 0.5
    assert metering.end(beside) == 200_000_000 + 100_000_000
    now += 1000.0
    metering.tick()
    assert metering.meter.idle_microjoules == 0
    assert metering.meter.shared_microjoules == 700_000_000


@given(st.lists(st.floats(1e-4, 0.3), min_size=1, max_size=50))
def test_no_part_of_stated_watts_is_lost_by_reading_often(steps: list[float]) -> None:
    now = 0.0
    watts = DeclaredWatts(37.7, lambda: now)
    read = 0
    for step in steps:
        now += step
        read += watts.read()
    assert abs(read - now * 37.7e6) <= 1


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:11434", True),
        ("http://localhost:8000/v1", True),
        ("http://[::1]:1/", True),
        ("http://ollama:11434", False),
        ("http://10.0.0.7:8000", False),
        ("https://api.openai.com/v1", False),
        ("", False),
    ],
)
def test_only_ones_own_address_is_this_machine(url: str, expected: bool) -> None:
    assert is_this_machine(url) is expected
