"""What a model's name says of it: its tier, what it is known to lack, and whether it chats at all (data/families.toml)."""

import fnmatch
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from services.runtime.settings import SettingsError
from services.runtime.table import Table

DATA: Final = Path(__file__).parent / "data" / "families.toml"
MAX_CONTEXT: Final = 10**9
# The keys of `[[models]]` that are for routing; the ledger, which reads the others, knows them all.
MODEL_KEYS: Final = ("tier", "context_tokens")
# No catalogue of models is longer; clients may name any.
_MOST_KEPT: Final = 8192
_PUNCTUATION = re.compile(r"[.:@_ ]+")
_SIZE = re.compile(r"(?<![a-z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)b(?![a-z0-9])")


@dataclass(frozen=True, slots=True)
class Traits:
    """What is known of a model; what is not, is no reason against it."""

    # 1 small to 5 frontier; 0: not known.
    tier: int = 0
    # Capabilities, in the words of provider listings.
    lacks: frozenset[str] = frozenset()
    is_chat: bool = True
    # 0: not known.
    context_tokens: int = 0
    # Why it is of its tier, for people.
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Family:
    pattern: re.Pattern[str]
    tier: int
    is_by_size: bool
    lacks: frozenset[str]
    is_chat: bool
    why: str


@dataclass(frozen=True, slots=True)
class _Size:
    below: float
    tier: int
    why: str


@dataclass(frozen=True, slots=True)
class Declared:
    """What joulegate.toml says of a model at a provider; 0: nothing."""

    tier: int = 0
    context_tokens: int = 0


class Families:
    """Tells traits by name."""

    def __init__(self, declared: Mapping[tuple[str, str], Declared] | None = None) -> None:
        self._declared = declared or {}
        self._known: dict[tuple[str, str], Traits] = {}

    def traits(self, target: tuple[str, str]) -> Traits:
        """Of a model at a provider, by the names of the provider and of the model."""
        known = self._known.get(target)
        if known is None:
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
            known = self._known[target] = self._looked_up(*target)
        return known

    def _looked_up(self, provider: str, model: str) -> Traits:
        by_name = traits_of(model)
        said = self._declared.get((provider, model))
        if said is None:
            return by_name
        why = "As joulegate.toml says." if said.tier else by_name.why
        # Who gives it a tier means it for chats.
        is_chat = by_name.is_chat or said.tier > 0
        return Traits(said.tier or by_name.tier, by_name.lacks, is_chat, said.context_tokens or by_name.context_tokens, why)


def traits_of(model: str) -> Traits:
    """What its name alone says."""
    families, sizes = _catalogue()
    own = model.lower().rpartition("/")[2][:256]
    spelled = _PUNCTUATION.sub("-", own)
    family = next(family for family in families if family.pattern.match(spelled))
    if not family.is_by_size:
        return Traits(family.tier, family.lacks, family.is_chat, why=family.why)
    found = _SIZE.search(own)
    if found is None:
        return Traits(0, family.lacks, family.is_chat)
    billions = float(found[2]) * int(found[1] or 1)
    size = next((size for size in sizes if billions < size.below), sizes[-1])
    return Traits(size.tier, family.lacks, family.is_chat, why=f"By its size: {billions:g} B. {size.why}")


@cache
def _catalogue() -> tuple[tuple[_Family, ...], tuple[_Size, ...]]:
    tables = tomllib.loads(DATA.read_text(encoding="utf-8"))
    families = tuple(
        _Family(
            re.compile("|".join(fnmatch.translate(name) for name in table["names"])),
            table.get("tier", 0),
            table.get("by_size", False),
            frozenset(table.get("lacks", ())),
            table.get("is_chat", True),
            table["why"],
        )
        for table in tables["family"]
    )
    return families, tuple(_Size(table["below"], table["tier"], table["why"]) for table in tables["size"])


def read_declared(config: Mapping[str, Any]) -> Mapping[tuple[str, str], Declared]:
    """The tiers and context lengths in `[[models]]` of joulegate.toml. Raises SettingsError with every problem."""
    problems: list[str] = []
    declared: dict[tuple[str, str], Declared] = {}
    entries = config.get("models", [])
    for place, members in enumerate(entries if isinstance(entries, list) else [], start=1):
        table = Table(members, f"[[models]] #{place}", problems)
        if not any(table.has(key) for key in MODEL_KEYS):
            continue
        provider, model = table.text("provider", is_needed=True), table.text("model", is_needed=True)
        said = Declared(
            tier=table.integer("tier", 1, 1, 5) if table.has("tier") else 0,
            context_tokens=table.integer("context_tokens", 1, 1, MAX_CONTEXT) if table.has("context_tokens") else 0,
        )
        if provider is not None and model is not None:
            declared[provider, model] = said
    if problems:
        raise SettingsError(problems)
    return declared
