"""The tables that come with the ledger: `data/*.toml`, read once."""

import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def rows(file: str) -> Sequence[dict[str, Any]]:
    """The rows of `data/<file>.toml`, which is one array of tables of the same name as its last word."""
    text = files("services.ledger").joinpath("data", f"{file}.toml").read_text(encoding="utf-8")
    table: Sequence[dict[str, Any]] = tomllib.loads(text)[file.rpartition("_")[2]]
    return table
