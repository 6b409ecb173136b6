"""Which prices, coefficients and grids figures are made with, named by the digest of all of them: what is equal has one name."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Final

from services.ledger.overrides import DeclaredPrice, Overrides

_TABLES: Final = ("families", "homes", "measured_runs", "open_weights", "regions")
# What the tables are used by. A change of words in them makes another version, too, which is the smaller evil.
_MODULES: Final = ("aliases", "carbon", "catalogue", "cost", "energy", "ladder", "regression", "weights")
_CATALOGUES: Final = {"genai-prices": ("genai_prices", "data.py"), "ecologits": ("ecologits", "data/models.json")}
_MIXES: Final = ("ecologits", "data/electricity_mixes.json")
_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class FactorSet:
    """A version, and what is in it, as JSON."""

    version: str
    document: str


def factor_set(overrides: Overrides, unknown: DeclaredPrice | None, gateway_place: str, watts_per_core: float) -> FactorSet:
    """The set that figures are made with under these settings."""
    parts = {
        **_shipped(),
        "joulegate.toml": _stated(overrides),
        "unknown_price": "" if unknown is None else f"{unknown.input} {unknown.output}",
        "gateway_zone": gateway_place,
        "gateway_watts_per_core": f"{watts_per_core:g}",
    }
    document = json.dumps(parts, sort_keys=True)
    return FactorSet(_digest(document.encode()), document)


@cache
def _shipped() -> Mapping[str, str]:
    """The digests of what comes with the program."""
    own = files("services.ledger")
    found = {f"{name} {version(name)}": _file(*place) for name, place in _CATALOGUES.items()}
    return {
        **found,
        "electricity mixes": _file(*_MIXES),
        "tables": _digest(b"\0".join(own.joinpath("data", f"{name}.toml").read_bytes() for name in _TABLES)),
        "models": _digest(b"\0".join(own.joinpath(f"{name}.py").read_bytes() for name in _MODULES)),
    }


def _file(package: str, path: str) -> str:
    return _digest(files(package).joinpath(path).read_bytes())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_DIGITS]


def _stated(overrides: Overrides) -> str:
    """The digest of what joulegate.toml says, in whichever order it says it."""
    said = {field.name: sorted(map(repr, getattr(overrides, field.name).items())) for field in fields(overrides)}
    return _digest(json.dumps(said, sort_keys=True).encode())
