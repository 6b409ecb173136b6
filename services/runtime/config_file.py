"""joulegate.toml: providers, models, prices and zones. Each service reads its own tables; an unknown table stops the start."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.runtime.settings import SettingsError

TABLES = frozenset({"providers", "models", "breaker", "retry", "routing", "virtual_models", "tiers"})


def read_config(config: Path | None) -> Mapping[str, Any]:
    """The parsed file; empty when there is none.

    Raises SettingsError for a file that is named but missing, not TOML, or has unknown tables.
    """
    if config is None:
        return {}
    try:
        tables = tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError([f"JOULEGATE_CONFIG={str(config)!r}: {error}"]) from error
    unknown = sorted(tables.keys() - TABLES)
    if unknown:
        raise SettingsError([f"{config}: unknown table {name!r}" for name in unknown])
    return tables
