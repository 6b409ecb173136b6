"""Support for a feature is what a dialect does with its sample."""

import pytest

from services.dispatch.adapters.openai import OpenAIAdapter
from services.dispatch.adapters.variants import VARIANTS
from services.dispatch.features import CAPABILITIES, FEATURES, Feature, Support, capabilities, request_for, support, supports
from tests.fakes.dialects import DIALECTS, Dialect


@pytest.mark.parametrize(
    ("sample", "found"),
    [({"seed": 7}, Support.FULL), ({"user": "al"}, Support.LEFT_OUT), ({"logit_bias": {"1": 2}}, Support.REFUSED)],
)
def test_a_dialect_says_a_sample_or_warns_or_refuses(sample: dict[str, object], found: Support) -> None:
    assert support(OpenAIAdapter(VARIANTS["mistral"]), "m", Feature("it", sample)) is found


def test_openai_is_asked_for_all_of_it() -> None:
    assert set(supports(OpenAIAdapter(), "m")) == {Support.FULL}


@pytest.mark.parametrize("dialect", DIALECTS, ids=[dialect.kind for dialect in DIALECTS])
@pytest.mark.parametrize("name", ["`system` messages", "several turns", "tools", "results of several tools", "JSON schema", "`max_tokens`"])
def test_what_agents_need_is_said_in_every_dialect(dialect: Dialect, name: str) -> None:
    feature = next(each for each in FEATURES if each.name == name)
    assert support(dialect.adapter, "model", feature) is Support.FULL


def test_samples_are_requests_of_openais_api() -> None:
    for feature in FEATURES:
        unknown = request_for(feature).extra_json
        # What the typed request does not know is OpenAI's all the same, but for the one that shows the opposite.
        assert (b"top_k" in unknown) == (feature.name == "the vendor's own parameters")


def test_capabilities_are_the_features_that_a_dialect_says_in_full() -> None:
    assert capabilities(OpenAIAdapter(), "m") == ["chat", *CAPABILITIES]
    ollama = next(dialect.adapter for dialect in DIALECTS if dialect.kind == "ollama")
    assert set(CAPABILITIES) - set(capabilities(ollama, "m")) == {"audio"}
