import tomllib

import pytest

from services.router.families import DATA, Declared, Families, read_declared, traits_of
from services.runtime.settings import SettingsError


@pytest.mark.parametrize(
    ("model", "tier"),
    [
        ("gpt-4o-mini", 3),
        ("gpt-4o-mini-2024-07-18", 3),
        ("gpt-4o", 4),
        ("gpt-4.1-nano", 2),
        ("o3", 5),
        ("claude-3-5-haiku-latest", 3),
        ("claude-sonnet-4-5-20250929", 5),
        ("models/gemini-2.5-pro", 5),
        ("meta-llama/Llama-3.3-70B-Instruct-Turbo", 3),
        ("llama3.1:8b", 2),
        ("llama-3.1-8b-instant", 2),
        ("qwen2.5:0.5b", 1),
        ("some/unheard-of-12B", 2),
        ("house-model", 0),
    ],
)
def test_tiers_follow_from_names(model: str, tier: int) -> None:
    assert traits_of(model).tier == tier


@pytest.mark.parametrize("model", ["text-embedding-3-small", "whisper-1", "dall-e-3", "omni-moderation-latest", "gpt-4o-realtime-preview"])
def test_what_does_not_chat_is_known(model: str) -> None:
    assert not traits_of(model).is_chat


def test_only_what_is_known_to_be_lacking_is_told() -> None:
    assert "vision" in traits_of("llama3.1:8b").lacks
    assert traits_of("llama-3.2-11b-vision-preview").lacks == traits_of("gpt-4o").lacks == traits_of("house").lacks == frozenset()


def test_every_family_and_size_has_a_reason() -> None:
    tables = tomllib.loads(DATA.read_text(encoding="utf-8"))
    for family in tables["family"]:
        assert family["why"].endswith(".") and family["names"]
        assert family.get("tier") in {None, 1, 2, 3, 4, 5}
        assert ("tier" in family) + family.get("by_size", False) + (not family.get("is_chat", True)) == 1, family["names"]
    assert [size["below"] for size in tables["size"]] == sorted(size["below"] for size in tables["size"])


def test_the_operator_knows_better() -> None:
    config = {"models": [{"provider": "lab", "model": "house", "tier": 5}, {"provider": "lab", "model": "gpt-4o", "context_tokens": 1000}]}
    families = Families(read_declared(config))
    assert families.traits(("lab", "house")).tier == 5
    assert families.traits(("other", "house")).tier == 0
    own = families.traits(("lab", "gpt-4o"))
    assert (own.tier, own.context_tokens) == (4, 1000)


def test_a_price_alone_declares_nothing() -> None:
    assert read_declared({"models": [{"provider": "lab", "model": "house", "input_usd_per_million": 1}]}) == {}
    assert read_declared({"models": [{"provider": "p", "model": "m", "tier": 1}]}) == {("p", "m"): Declared(1)}


def test_mistakes_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as raised:
        read_declared({"models": [{"provider": "lab", "tier": 9}, {"model": "m", "context_tokens": 0}]})
    assert len(raised.value.problems) == 4
