"""What joulegate.toml says about money, energy and place: each provider's kind, address and zone, and figures that beat all others."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from services.runtime.settings import SettingsError

# A price above this is a slip of the pen, and sums of such would leave 64 bits.
MAX_USD_PER_MILLION = 100_000
# `tier` and `context_tokens` are for routing: the router reads them.
PRICE_KEYS = ("input_usd_per_million", "output_usd_per_million")
# A model that takes more for a token than a kettle for a cup of tea is a slip of the pen, too.
MAX_JOULES_PER_TOKEN = 100_000
ENERGY_KEYS = ("joules_per_output_token", "joules_per_input_token")
MODEL_KEYS = frozenset({"provider", "model", "tier", "context_tokens", *PRICE_KEYS, *ENERGY_KEYS})
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

    @property
    def host(self) -> str:
        """The host of its address, in lower case; empty when there is none."""
        try:
            return urlsplit(self.base_url).hostname or ""
        except ValueError:
            return ""

    @property
    def is_here(self) -> bool:
        """Whether its machine is one's own: a local kind, or an address that is not public."""
        return self.kind in LOCAL_KINDS or _is_private(self.host)


def _is_private(host: str) -> bool:
    if not host:
        return False
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        # Names without a dot are of the machine, or of its container network.
        return "." not in host or host.endswith((".local", ".internal", ".lan", ".localhost"))


@dataclass(frozen=True, slots=True)
class DeclaredPrice:
    """US dollars per million tokens."""

    input: Decimal
    output: Decimal


@dataclass(frozen=True, slots=True)
class DeclaredEnergy:
    """Joules at the meter. Without a figure of its own an input token takes a quarter of an output token."""

    joules_per_output_token: float
    joules_per_input_token: float | None = None


@dataclass(frozen=True, slots=True)
class Overrides:
    """The parts of joulegate.toml that the ledger reads; other keys belong to other services."""

    providers: Mapping[str, Provider] = field(default_factory=dict)
    prices: Mapping[tuple[str, str], DeclaredPrice] = field(default_factory=dict)
    energies: Mapping[tuple[str, str], DeclaredEnergy] = field(default_factory=dict)

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
    energies: dict[tuple[str, str], DeclaredEnergy] = {}
    for place, table in enumerate(config.get("models", []), start=1):
        where = f"[[models]] #{place}"
        try:
            price, energy = _price(_checked(table)), _energy(table)
            if price is not None:
                prices[_named(table)] = price
            if energy is not None:
                energies[_named(table)] = energy
        except ValueError as error:
            problems.append(f"{where}: {error}")
    if problems:
        raise SettingsError(problems)
    return Overrides(providers, prices, energies)


def _checked(table: Any) -> Mapping[str, Any]:
    if not isinstance(table, Mapping):
        raise ValueError("must be a table")
    unknown = sorted(table.keys() - MODEL_KEYS)
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}")
    return table


def _named(table: Mapping[str, Any]) -> tuple[str, str]:
    """The provider and the model that a table is about."""
    for key in ("provider", "model"):
        if not isinstance(table.get(key), str):
            raise ValueError(f"{key} is missing")
    return table["provider"], table["model"]


def _price(table: Mapping[str, Any]) -> DeclaredPrice | None:
    """The price in a [[models]] table; None when it has none."""
    given = [key for key in PRICE_KEYS if key in table]
    if not given:
        return None
    if len(given) == 1:
        raise ValueError(f"{given[0]} needs the other price beside it")
    for key in PRICE_KEYS:
        _check_number(table, key, MAX_USD_PER_MILLION)
    # Through text, so that 0.1 is a tenth.
    return DeclaredPrice(*(Decimal(str(table[key])) for key in PRICE_KEYS))


def _energy(table: Mapping[str, Any]) -> DeclaredEnergy | None:
    """The joules in a [[models]] table; None when it has none."""
    given = [key for key in ENERGY_KEYS if key in table]
    if not given:
        return None
    if ENERGY_KEYS[0] not in given:
        raise ValueError(f"{given[0]} needs {ENERGY_KEYS[0]} beside it")
    for key in given:
        _check_number(table, key, MAX_JOULES_PER_TOKEN)
    return DeclaredEnergy(*(float(table[key]) for key in given))


def _check_number(table: Mapping[str, Any], key: str, most: int) -> None:
    value = table[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise ValueError(f"{key} must be a number from 0 to {most}")
