"""What joulegate.toml says about money and place: each provider's kind, address and zone, and prices that beat the catalogue."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from services.runtime.settings import SettingsError

# A price above this is a slip of the pen, and sums of such would leave 64 bits.
MAX_USD_PER_MILLION = 100_000
# `tier` and `context_tokens` are for routing, which does not read them yet.
MODEL_KEYS = frozenset({"provider", "model", "tier", "input_usd_per_million", "output_usd_per_million", "context_tokens"})
LOCAL_KINDS = frozenset({"ollama", "demo"})


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider as far as the books care. `kind` is the protocol it speaks, which for all but OpenAI's names the vendor too."""

    name: str
    kind: str
    base_url: str = ""
    zone: str = ""

    @property
    def is_local(self) -> bool:
        """Whether nobody sends a bill."""
        return self.kind in LOCAL_KINDS


@dataclass(frozen=True, slots=True)
class DeclaredPrice:
    """US dollars per million tokens."""

    input: Decimal
    output: Decimal


@dataclass(frozen=True, slots=True)
class Overrides:
    """The parts of joulegate.toml that the ledger reads; other keys belong to other services."""

    providers: Mapping[str, Provider] = field(default_factory=dict)
    prices: Mapping[tuple[str, str], DeclaredPrice] = field(default_factory=dict)

    def provider(self, name: str) -> Provider:
        """The provider; one that is not in the file is of the kind that it is called."""
        return self.providers.get(name) or Provider(name, name)


def read_overrides(config: Mapping[str, Any]) -> Overrides:
    """Reads a parsed joulegate.toml. Raises SettingsError with every problem."""
    problems: list[str] = []
    providers: dict[str, Provider] = {}
    tables = config.get("providers", {})
    for name, table in tables.items() if isinstance(tables, Mapping) else ():
        if not isinstance(table, Mapping):
            problems.append(f"[providers] {name}: must be a table")
            continue
        texts = {key: table.get(key, default) for key, default in (("kind", name), ("base_url", ""), ("zone", ""))}
        wrong = [key for key, value in texts.items() if not isinstance(value, str)]
        problems += [f"[providers.{name}] {key}: must be text" for key in wrong]
        if not wrong:
            providers[name] = Provider(name, **texts)
    prices: dict[tuple[str, str], DeclaredPrice] = {}
    for place, table in enumerate(config.get("models", []), start=1):
        where = f"[[models]] #{place}"
        try:
            price = _price(table)
        except ValueError as error:
            problems.append(f"{where}: {error}")
            continue
        if price is not None:
            prices[table["provider"], table["model"]] = price
    if problems:
        raise SettingsError(problems)
    return Overrides(providers, prices)


def _price(table: Any) -> DeclaredPrice | None:
    """The price in a [[models]] table; None when it has none."""
    if not isinstance(table, Mapping):
        raise ValueError("must be a table")
    unknown = sorted(table.keys() - MODEL_KEYS)
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}")
    keys = ("input_usd_per_million", "output_usd_per_million")
    given = [key for key in keys if key in table]
    if not given:
        return None
    if len(given) == 1:
        raise ValueError(f"{given[0]} needs the other price beside it")
    for key in ("provider", "model"):
        if not isinstance(table.get(key), str):
            raise ValueError(f"{key} is missing")
    for key in keys:
        value = table[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_USD_PER_MILLION:
            raise ValueError(f"{key} must be a number from 0 to {MAX_USD_PER_MILLION}")
    # Through text, so that 0.1 is a tenth.
    return DeclaredPrice(*(Decimal(str(table[key])) for key in keys))
