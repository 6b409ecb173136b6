"""Money, joules and carbon of past rows by the present prices, coefficients and tables, which rows have the quantities for.

What was billed, and what a counter said, stays. Where a live source told of the grid at the hour, its figure is taken back out of the row.
What the cache saved is not made anew: it was made of the answer's row, by the factors of then.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from joulegate.chat.v1.receipt_pb2 import EnergyBasis
from joulegate.ledger.v1.entry_pb2 import CarbonSignal, EnergyBoundary
from services.ledger.cost import Usage
from services.ledger.figures import Figurer, Told
from services.ledger.records import Row, without_work


class Amounts(NamedTuple):
    """What is made of quantities."""

    cost_nano_usd: int = 0
    energy_microjoules: int = 0
    carbon_micrograms: int = 0

    def plus(self, other: "Amounts") -> "Amounts":
        return Amounts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Comparison(NamedTuple):
    """Sums over rows as they were booked, and as they would be now."""

    rows: int = 0
    booked: Amounts = Amounts()
    now: Amounts = Amounts()

    def plus(self, other: "Comparison") -> "Comparison":
        return Comparison(self.rows + other.rows, self.booked.plus(other.booked), self.now.plus(other.now))


# By provider and model.
Compared = Mapping[tuple[str, str], Comparison]


def amounts_of(row: Row) -> Amounts:
    """As they are booked."""
    return Amounts(row.cost_nano_usd, row.energy_microjoules, row.carbon_micrograms)


def amounts_now(row: Row, figurer: Figurer) -> Amounts:
    """As they would be booked with the factors of the figurer, which is to know no live source."""
    unix_s = row.created_ns / 1e9
    if row.is_hit:
        figures = figurer.of_hit(unix_s)
    else:
        usage = Usage(*(getattr(row, name) for name in Usage._fields))
        figures = figurer.of_attempt(row.provider, row.model, row.served_model, usage, unix_s, _told(row))
        if not _is_energy_told(row):
            figures = without_work(figures, row.outcome, usage)
    carbon = figures.carbon_micrograms
    if row.carbon_signal == CarbonSignal.CARBON_SIGNAL_LIVE_AVERAGE and row.energy_microjoules:
        carbon = (2 * row.carbon_micrograms * figures.energy.point + row.energy_microjoules) // (2 * row.energy_microjoules)
    return Amounts(figures.cost_nano_usd, figures.energy.point, carbon)


def compare(rows: Iterable[Row], figurer: Figurer) -> Compared:
    """What rows come to now."""
    found: dict[tuple[str, str], Comparison] = {}
    for row in rows:
        key = row.provider, row.model
        found[key] = found.get(key, Comparison()).plus(Comparison(1, amounts_of(row), amounts_now(row, figurer)))
    return found


def merged(one: Compared, other: Compared) -> Compared:
    """Both together."""
    return {**one, **{key: one.get(key, Comparison()).plus(each) for key, each in other.items()}}


def table(compared: Compared) -> str:
    """The comparison for people and for spreadsheets: tab-separated, in the books' whole units, all together at the end."""
    names = [f"{name}{when}" for name in Amounts._fields for when in ("", "_now")]
    lines = ["\t".join(("provider", "model", "rows", *names))]
    total = Comparison()
    for (provider, model), each in sorted(compared.items()):
        total = total.plus(each)
        lines.append(_line(provider, model, each))
    return "\n".join([*lines, _line("all", "", total)])


def _line(provider: str, model: str, each: Comparison) -> str:
    numbers = (str(number) for pair in zip(each.booked, each.now, strict=True) for number in pair)
    # Names come from clients.
    cells = ("".join(char if char.isprintable() else "?" for char in name) for name in (provider, model))
    return "\t".join((*cells, str(each.rows), *numbers))


def _told(row: Row) -> Told:
    if not _is_energy_told(row):
        return Told(row.reported_cost_nano_usd)
    boundary, basis = EnergyBoundary.ValueType(row.energy_boundary), EnergyBasis.ValueType(row.energy_basis)
    return Told(row.reported_cost_nano_usd, row.energy_microjoules, boundary, basis)


def _is_energy_told(row: Row) -> bool:
    """Whether the energy is not made of tokens: stated watts are of a machine, stated joules for a token of the meter."""
    is_by_watts = row.energy_basis == EnergyBasis.ENERGY_BASIS_DECLARED and row.energy_boundary == EnergyBoundary.ENERGY_BOUNDARY_IT
    return is_by_watts or row.energy_basis == EnergyBasis.ENERGY_BASIS_MEASURED
