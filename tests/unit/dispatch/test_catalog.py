"""Providers from the environment and from joulegate.toml."""

import tomllib
from collections.abc import Mapping

import pytest

from services.dispatch.catalog import Catalog, ProviderSpec, read_catalog
from services.dispatch.secret import Secret
from services.dispatch.settings import DispatchSettings
from services.runtime.settings import SettingsError, load

NO_OLLAMA = {"ENABLE_OLLAMA": "false"}
KEY = "sk-canary-123"


def catalog(environment: Mapping[str, str] = NO_OLLAMA, toml: str = "") -> Catalog:
    return read_catalog(load(DispatchSettings, environment), tomllib.loads(toml), environment)


def names(found: Catalog) -> list[str]:
    return [spec.name for spec in found.providers]


def only(found: Catalog) -> ProviderSpec:
    return found.providers[0]


def problems(toml: str, environment: Mapping[str, str] = NO_OLLAMA) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        catalog(environment, toml)
    return raised.value.problems


def test_without_settings_there_is_the_demo_and_ollama_is_looked_for() -> None:
    found = catalog({})
    assert [(spec.name, spec.base_url, spec.is_certain) for spec in found.providers] == [
        ("ollama", "http://127.0.0.1:11434/v1", False),
        ("demo", "", True),
    ]


def test_the_demo_can_be_switched_off() -> None:
    assert names(catalog(NO_OLLAMA | {"ENABLE_DEMO": "false"})) == []


@pytest.mark.parametrize(
    ("environment", "name", "base_url"),
    [
        ({"OPENAI_API_KEY": KEY}, "openai", "https://api.openai.com/v1"),
        ({"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "http://127.0.0.1:9/v1/"}, "openai", "http://127.0.0.1:9/v1"),
        ({"GROQ_API_KEY": KEY}, "groq", "https://api.groq.com/openai/v1"),
        ({"GROQ_API_KEY": KEY, "GROQ_BASE_URL": "https://groq.test"}, "groq", "https://groq.test/openai/v1"),
        ({"GROQ_API_KEY": KEY, "GROQ_BASE_URL": "http://127.0.0.1:9/v1"}, "groq", "http://127.0.0.1:9/v1"),
        ({"TOGETHER_API_KEY": KEY}, "together", "https://api.together.xyz/v1"),
        ({"GITHUB_TOKEN": KEY}, "github", "https://models.github.ai/inference"),
    ],
)
def test_a_key_in_the_environment_enables_its_vendor(environment: dict[str, str], name: str, base_url: str) -> None:
    found = only(catalog(NO_OLLAMA | environment))
    assert (found.name, found.kind, found.base_url, found.secret, found.is_certain) == (name, "openai", base_url, Secret(KEY), True)


def test_a_switch_turns_a_vendor_off() -> None:
    found = catalog(NO_OLLAMA | {"OPENAI_API_KEY": KEY, "ENABLE_OPENAI": "false"})
    assert names(found) == ["demo"]
    assert found.disabled["openai"] == "switched off"


@pytest.mark.parametrize(
    ("host", "base_url"),
    [
        ("localhost", "http://localhost:11434/v1"),
        ("127.0.0.1:9", "http://127.0.0.1:9/v1"),
        ("0.0.0.0:9", "http://127.0.0.1:9/v1"),
        ("http://gpu.test:80", "http://gpu.test:80/v1"),
        ("https://gpu.test/ollama/", "https://gpu.test/ollama/v1"),
        ("http://gpu.test:9/v1", "http://gpu.test:9/v1"),
        ("[::1]:9", "http://[::1]:9/v1"),
    ],
)
def test_ollama_is_found_where_its_variable_says(host: str, base_url: str) -> None:
    found = only(catalog({"OLLAMA_HOST": host}))
    assert (found.name, found.kind, found.base_url, found.is_certain) == ("ollama", "ollama", base_url, True)


def test_the_seeds_timeouts_are_the_defaults() -> None:
    found = catalog({"OPENAI_API_KEY": KEY, "GROQ_API_KEY": KEY, "TOGETHER_API_KEY": KEY})
    assert {spec.name: (spec.timeouts.total_s, spec.timeouts.first_byte_s) for spec in found.providers[:4]} == {
        "openai": (60, 10),
        "groq": (30, 5),
        "together": (60, 10),
        "ollama": (120, 30),
    }


LAB = """
[providers.lab]
kind = "openai"
base_url = "http://127.0.0.1:9000/v1"
api_key_env = "LAB_API_KEY"
models = ["small", "large", "small"]
zone = "FRA"
timeouts = { connect = 1, first_byte = 2.5, idle = 3, total = 4 }
"""


def test_a_table_of_the_file_is_a_provider() -> None:
    found = only(catalog(NO_OLLAMA | {"LAB_API_KEY": KEY}, LAB))
    assert (found.name, found.base_url, found.secret, found.models) == ("lab", "http://127.0.0.1:9000/v1", Secret(KEY), ("small", "large"))
    timeouts = found.timeouts
    assert (timeouts.connect_s, timeouts.first_byte_s, timeouts.idle_s, timeouts.total_s, timeouts.stream_total_s) == (1, 2.5, 3, 4, 4)


def test_a_provider_whose_key_is_missing_is_not_enabled() -> None:
    found = catalog(NO_OLLAMA, LAB)
    assert (names(found), found.disabled) == (["demo"], {"ollama": "switched off", "lab": "LAB_API_KEY is not set"})


def test_a_switch_works_for_providers_of_the_file() -> None:
    toml = '[providers.my-lab]\nkind = "openai"\nbase_url = "http://127.0.0.1:9/v1"'
    assert names(catalog(NO_OLLAMA, toml)) == ["my-lab", "demo"]
    assert names(catalog(NO_OLLAMA | {"ENABLE_MY_LAB": "no"}, toml)) == ["demo"]
    assert problems(toml, NO_OLLAMA | {"ENABLE_MY_LAB": "perhaps"}) == ["ENABLE_MY_LAB: say true or false"]


def test_a_table_named_after_a_vendor_changes_it_and_the_environment_wins() -> None:
    toml = '[providers.openai]\nbase_url = "http://file.test/v1"\nmodels = ["m"]\ntimeouts = { first_byte = 99 }'
    from_file = only(catalog(NO_OLLAMA | {"OPENAI_API_KEY": KEY}, toml))
    assert (from_file.base_url, from_file.models, from_file.timeouts.first_byte_s) == ("http://file.test/v1", ("m",), 99)
    from_both = only(catalog(NO_OLLAMA | {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "http://env.test/v1"}, toml))
    assert (from_both.base_url, from_both.models) == ("http://env.test/v1", ("m",))


def test_a_table_named_after_a_vendor_does_not_make_up_a_key() -> None:
    found = catalog(NO_OLLAMA, "[providers.openai]\ntimeouts = { first_byte = 99 }")
    assert names(found) == ["demo"]
    assert found.disabled["openai"] == "it has no key"


def test_ollamas_of_the_file_have_ollamas_defaults() -> None:
    found = only(catalog(NO_OLLAMA, '[providers.gpu]\nkind = "ollama"\nbase_url = "http://gpu.test:11434"'))
    assert (found.base_url, found.timeouts.total_s) == ("http://gpu.test:11434/v1", 120)
    assert only(catalog(NO_OLLAMA, '[providers.gpu]\nkind = "ollama"')).base_url == "http://127.0.0.1:11434/v1"


def test_the_sequence_comes_first_then_the_file_then_the_environment() -> None:
    environment = {"OPENAI_API_KEY": KEY, "GROQ_API_KEY": KEY, "LAB_API_KEY": KEY}
    other = '[providers.other]\nkind = "openai"\nbase_url = "http://127.0.0.1:9/v1"'
    assert names(catalog(environment, LAB + other)) == ["lab", "other", "openai", "groq", "ollama", "demo"]
    sequence = {"LLM_PROVIDER_SEQUENCE": "groq, nobody, other, groq"}
    assert names(catalog(environment | sequence, LAB + other)) == ["groq", "other", "lab", "openai", "ollama", "demo"]


def test_retries_are_read() -> None:
    assert catalog().retry.attempts == 2
    assert catalog(toml="[retry]\nattempts = 4").retry.attempts == 4


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ("providers = 3", "[providers]: must be a table"),
        ("[providers]\nlab = 3", "[providers.lab]: must be a table"),
        ('[providers."a/b"]\nkind = "openai"', "[providers.a/b]: this name cannot be used"),
        ('[providers.demo]\nkind = "openai"', "[providers.demo]: this name cannot be used"),
        ("[providers.lab]\nbase_url = 'http://x.test'", "[providers.lab]: kind must be one of ollama, openai"),
        ('[providers.lab]\nkind = ["openai"]', "[providers.lab]: kind must be one of ollama, openai"),
        ('[providers.lab]\nkind = "anthropic"', "[providers.lab]: kind 'anthropic' is not supported yet"),
        ('[providers.lab]\nkind = "openai"', "[providers.lab]: the address must be an http or https URL"),
        ('[providers.lab]\nkind = "openai"\nbase_url = "ftp://x.test"', "[providers.lab]: the address must be"),
        ('[providers.lab]\nkind = "openai"\nbase_url = "http://x.test:99999"', "[providers.lab]: the address is not a URL"),
        ('[providers.lab]\nkind = "openai"\nbase_url = "http://[x.test"', "[providers.lab]: the address is not a URL"),
        ('[providers.lab]\nkind = "ollama"\nbase_url = "http://[x.test"', "[providers.lab]: the address is not a URL"),
        ('[providers.lab]\nkind = "openai"\nbase_url = 7', "[providers.lab]: base_url must be text"),
        (LAB.replace("zone", "zones"), "[providers.lab]: unknown key 'zones'"),
        (LAB.replace('["small", "large", "small"]', '["small", 3]'), "[providers.lab]: models must be a list of names"),
        (LAB.replace("connect", "conect"), "[providers.lab]: timeouts: unknown key 'conect'"),
        (LAB.replace("2.5", "0"), "[providers.lab]: timeouts: first_byte must be"),
        (LAB.replace("2.5", "true"), "[providers.lab]: timeouts: first_byte must be"),
        (LAB.replace("2.5", "nan"), "[providers.lab]: timeouts: first_byte must be"),
        ("[retry]\nattempts = 0", "[retry]: attempts must be"),
        ("[retry]\nattempts = true", "[retry]: attempts must be"),
        ("[retry]\ntries = 2", "[retry]: unknown key 'tries'"),
    ],
)
def test_mistakes_in_the_file_are_named(toml: str, problem: str) -> None:
    assert any(line.startswith(problem) for line in problems(toml, NO_OLLAMA | {"LAB_API_KEY": KEY}))


def test_all_problems_are_told_at_once() -> None:
    assert len(problems('[providers.a]\nkind = "cohere"\n[providers.b]\nkind = "what"\n[retry]\nattempts = "x"')) == 3


@pytest.mark.parametrize(
    ("environment", "toml"),
    [
        ({"OPENAI_API_KEY": f"{KEY}\nX: y"}, ""),
        ({"LAB_API_KEY": f"{KEY}ü"}, LAB),
        ({"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": f"http://user:{KEY}@x.test/v1"}, ""),
        ({}, f'[providers.lab]\nkind = "openai"\nbase_url = "http://x.test/?key={KEY}"'),
        ({}, f'[providers.lab]\nkind = "openai"\nbase_url = "http://x.test:{KEY}"'),
    ],
)
def test_no_problem_shows_a_secret(environment: Mapping[str, str], toml: str) -> None:
    lines = problems(toml, NO_OLLAMA | dict(environment))
    assert lines
    assert not any(KEY in line for line in lines)
