"""What rows come to with the factors of now follows from the rows alone."""

from decimal import Decimal
from typing import Any

import pytest

from joulegate.ledger.v1.entry_pb2 import EnergyBoundary, Outcome, TokenCounts
from services.ledger.carbon import Grid
from services.ledger.engines import Place
from services.ledger.overrides import DeclaredEnergy, DeclaredPrice, Overrides
from services.ledger.records import Row, lost_row
from services.ledger.rederivation import amounts_now, amounts_of, compare, table
from services.ledger.store import open_books
from tests.unit.ledger.samples import attempt, hit, intent, new_figurer, opened, settled_rows_of, settlement
from tests.unit.ledger.test_migration import operator
from tests.unit.ledger.test_store import commit

__all__ = ["operator"]
ALL_TOKENS = TokenCounts(
    input_tokens=900,
    cached_input_tokens=100,
    output_tokens=400,
    reasoning_tokens=50,
    cache_write_tokens=300,
    cache_write_1h_tokens=100,
    input_audio_tokens=50,
    output_audio_tokens=60,
)
ATTEMPTS = [
    attempt(1, Outcome.OUTCOME_FAILED, tokens=TokenCounts()),
    attempt(2, provider="anthropic", model="claude-sonnet-4-5", tokens=ALL_TOKENS),
    attempt(3, model="gpt-4o", served_model="gpt-4o-mini", tokens=ALL_TOKENS),
    attempt(4, reported_cost_nano_usd=7),
    attempt(5, provider="lab", model="nobody-knows"),
    attempt(6, measured_energy_microjoules=5_000_000, measured_energy_boundary=EnergyBoundary.ENERGY_BOUNDARY_IT),
    attempt(7, Outcome.OUTCOME_FAILED, tokens=TokenCounts(), measured_energy_microjoules=3),
    attempt(8, Outcome.OUTCOME_TIMED_OUT),
    attempt(9, measured_energy_microjoules=70, measured_energy_boundary=EnergyBoundary.ENERGY_BOUNDARY_IT, is_energy_declared=True),
]


class Hour:
    """A live source that says the same of every place."""

    def at(self, grid: Grid, unix_s: float) -> Grid:
        return grid._replace(micrograms_per_kwh=123_456_789, is_live=True)


def rows_of(**given: Any) -> list[Row]:
    figurer = new_figurer(**given)
    lost = lost_row(opened(intent("lost")), figurer)
    return [*settled_rows_of(settlement("r", *ATTEMPTS), figurer), *settled_rows_of(settlement("h", hit()), figurer), lost]


@pytest.mark.parametrize("given", [{}, {"hours": Hour()}], ids=["annual", "live"])
def test_with_the_same_factors_all_rows_come_to_what_was_booked(given: dict[str, Any]) -> None:
    for row in rows_of(**given):
        assert amounts_now(row, new_figurer()) == amounts_of(row), row


def test_other_factors_change_what_rests_on_them_and_nothing_else() -> None:
    prices = {("openai", model): DeclaredPrice(Decimal(100), Decimal(100)) for model in ("gpt-4o", "gpt-4o-mini")}
    energies = {("openai", model): DeclaredEnergy(1000.0) for model in ("gpt-4o", "gpt-4o-mini")}
    now = new_figurer(Overrides(prices=prices, energies=energies))
    changed = {
        (row.request_id, row.attempt): tuple(a != b for a, b in zip(amounts_now(row, now), amounts_of(row), strict=True))
        for row in rows_of()
    }
    assert changed[("r", 3)] == changed[("r", 8)] == changed[("lost", 1)] == (True, True, True)
    # Billed; measured; of another provider; without work; from the cache.
    assert changed[("r", 4)] == (False, True, True)
    assert changed[("r", 6)] == changed[("r", 9)] == (True, False, False)
    assert changed[("r", 2)] == changed[("r", 5)] == changed[("r", 1)] == changed[("h", 0)] == (False, False, False)


def test_sums_are_by_provider_and_model_and_all_together() -> None:
    lines = [line.split("\t") for line in table(compare(rows_of(), new_figurer())).splitlines()]
    assert [line[:3] for line in lines] == [
        ["provider", "model", "rows"],
        ["anthropic", "claude-sonnet-4-5", "1"],
        ["lab", "nobody-knows", "1"],
        ["openai", "gpt-4o", "9"],
        ["all", "", "11"],
    ]
    assert lines[-1][3] == lines[-1][4] == str(sum(row.cost_nano_usd for row in rows_of()))


def test_operators_compare_and_change_nothing(operator: Any, place: Place, monkeypatch: Any, tmp_path: Any, capsys: Any) -> None:
    with open_books(place, "full") as (writer, reader):
        commit(writer, settlement("r", attempt(1, model="gpt-4o")))
        before = reader.entries(10)
        config = tmp_path / "joulegate.toml"
        config.write_text('[[models]]\nprovider = "openai"\nmodel = "gpt-4o"\ninput_usd_per_million = 1000\noutput_usd_per_million = 0\n')
        monkeypatch.setenv("JOULEGATE_CONFIG", str(config))
        assert operator("ledger", "rerate") == 0
        assert reader.entries(10) == before
    total = capsys.readouterr().out.splitlines()[-1].split("\t")
    assert total[:5] == ["all", "", "1", "650000", str(100 * 1_000_000)]
