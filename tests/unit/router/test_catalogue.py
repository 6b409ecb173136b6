import pytest

from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.router.catalogue import Catalogue
from services.router.load import MAX_IDLE, Load
from services.runtime.identity import ANONYMOUS, Caller, ModelScope


def _provider(name: str, *models: str, healthy: bool = True, unlisted: bool = False) -> pb.Provider:
    return pb.Provider(name=name, healthy=healthy, accepts_unlisted_models=unlisted, models=[pb.Model(id=model) for model in models])


CATALOGUE = Catalogue([_provider("first", "small", "meta/large"), _provider("second", "small"), _provider("open", unlisted=True)])


def _names(model: str) -> list[tuple[str, str]]:
    return [(candidate.provider.name, candidate.model) for candidate in CATALOGUE.candidates(model)]


def test_a_model_is_served_by_every_provider_that_lists_it_in_order() -> None:
    assert _names("small") == [("first", "small"), ("second", "small")]


def test_a_candidate_is_told_although_idle_ones_were_forgotten_since_it_was_found() -> None:
    load = Load()
    catalogue = Catalogue([_provider("first", "small")], load)
    assert catalogue.candidates("small")[0] is catalogue.candidates("small")[0]
    for number in range(MAX_IDLE + 1):
        load.of("open", f"model-{number}")
    load.tell([pb.ModelFigures(provider="first", model="small", in_flight_count=4)], 0.0, is_whole=False)
    assert catalogue.candidates("small")[0].live.in_flight_count == 4


def test_a_provider_prefix_picks_that_provider() -> None:
    assert _names("second/small") == [("second", "small")]


def test_a_models_own_slash_is_not_a_provider_prefix() -> None:
    assert _names("meta/large") == [("first", "meta/large")]
    assert _names("first/meta/large") == [("first", "meta/large")]


def test_a_named_provider_that_lacks_the_model_is_not_replaced_by_another() -> None:
    assert _names("second/huge") == []


def test_an_unlisted_model_goes_to_providers_that_take_any() -> None:
    assert _names("brand-new") == [("open", "brand-new")]
    assert _names("open/brand-new") == [("open", "brand-new")]


def test_models_are_listed_once_with_their_providers() -> None:
    assert [(listed.model.id, listed.providers) for listed in CATALOGUE.models_for(ANONYMOUS)] == [
        ("small", ["first", "second"]),
        ("meta/large", ["first"]),
    ]
    found = CATALOGUE.model("second/small", ANONYMOUS)
    assert found is not None and found.model.id == "small"
    assert CATALOGUE.model("second/meta/large", ANONYMOUS) is None


@pytest.mark.parametrize(
    ("patterns", "listed"),
    [
        (["small"], {"small": ["first", "second"]}),
        (["second/*"], {"small": ["second"]}),
        (["meta/*"], {"meta/large": ["first"]}),
        (["first/*"], {"small": ["first"], "meta/large": ["first"]}),
        (["s*", "*e"], {"small": ["first", "second"], "meta/large": ["first"]}),
        (["f*"], {}),
        (["SMALL", "mall", "smal", "sma?", "secondsmall"], {}),
    ],
    ids=str,
)
def test_caller_sees_the_models_and_providers_that_it_may_use(patterns: list[str], listed: dict[str, list[str]]) -> None:
    caller = Caller("key_1", "key:key_1", ModelScope(patterns))
    assert {each.model.id: each.providers for each in CATALOGUE.models_for(caller)} == listed
    for name in ("small", "meta/large"):
        found = CATALOGUE.model(name, caller)
        assert (None if found is None else found.providers) == listed.get(name)
    for provider in ("first", "second"):
        assert (CATALOGUE.model(f"{provider}/small", caller) is not None) == (provider in listed.get("small", []))
