"""Providers from the environment and from joulegate.toml."""

import tomllib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.dispatch.breaker import BreakerPolicy
from services.dispatch.catalog import PROVIDER_KEYS, Catalog, read_catalog, read_deployments
from services.dispatch.dialects import adapter_for
from services.dispatch.keys import Key
from services.dispatch.limits import ProviderLimits
from services.dispatch.policies import BREAKER_KEYS, LIMIT_KEYS, RETRY_KEYS, TIMEOUT_FIELDS
from services.dispatch.provider_spec import ProviderSpec
from services.dispatch.retry import RetryPolicy
from services.dispatch.settings import DispatchSettings
from services.runtime.secret import Secret
from services.runtime.settings import SettingsError, load

NO_OLLAMA = {"ENABLE_OLLAMA": "false"}
KEY = "sk-canary-123"


def catalog(environment: Mapping[str, str] = NO_OLLAMA, toml: str = "") -> Catalog:
    return read_catalog(load(DispatchSettings, environment), tomllib.loads(toml), environment)


def names(found: Catalog) -> list[str]:
    return [spec.name for spec in found.providers]


def keys(*texts: str) -> tuple[Key, ...]:
    return tuple(Key(Secret(text)) for text in texts)


def only(found: Catalog) -> ProviderSpec:
    return found.providers[0]


def problems(toml: str, environment: Mapping[str, str] = NO_OLLAMA) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        catalog(environment, toml)
    return raised.value.problems


def test_without_settings_there_is_the_demo_and_ollama_is_looked_for() -> None:
    found = catalog({})
    assert [(spec.name, spec.base_url, spec.is_certain) for spec in found.providers] == [
        ("ollama", "http://127.0.0.1:11434", False),
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
        ({"TOGETHER_API_KEY": KEY, "TOGETHER_BASE_URL": "http://127.0.0.1:9"}, "together", "http://127.0.0.1:9"),
        ({"MISTRAL_API_KEY": KEY}, "mistral", "https://api.mistral.ai/v1"),
        ({"MISTRAL_API_KEY": KEY, "MISTRAL_BASE_URL": "http://127.0.0.1:9"}, "mistral", "http://127.0.0.1:9/v1"),
        ({"DEEPSEEK_API_KEY": KEY}, "deepseek", "https://api.deepseek.com"),
        ({"XAI_API_KEY": KEY}, "xai", "https://api.x.ai/v1"),
        ({"OPENROUTER_API_KEY": KEY}, "openrouter", "https://openrouter.ai/api/v1"),
        ({"GITHUB_TOKEN": KEY}, "github", "https://models.github.ai/inference"),
    ],
)
def test_a_key_in_the_environment_enables_its_vendor(environment: dict[str, str], name: str, base_url: str) -> None:
    found = only(catalog(NO_OLLAMA | environment))
    assert (found.name, found.kind, found.base_url, found.keys, found.is_certain) == (name, "openai", base_url, keys(KEY), True)


def test_a_switch_turns_a_vendor_off() -> None:
    found = catalog(NO_OLLAMA | {"OPENAI_API_KEY": KEY, "ENABLE_OPENAI": "false"})
    assert names(found) == ["demo"]
    assert found.disabled["openai"] == "switched off"


def test_nonsense_about_a_vendor_that_is_not_used_stops_nothing() -> None:
    unused = {"AZURE_OPENAI_ENDPOINT": "https://x.test/?api-version=1", "AZURE_OPENAI_DEPLOYMENT_MAP": "?"}
    off = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "nowhere", "ENABLE_OPENAI": "false"}
    assert names(catalog(NO_OLLAMA | unused | off)) == ["demo"]
    assert problems("", NO_OLLAMA | unused | {"AZURE_OPENAI_API_KEY": KEY})[0].startswith("AZURE_OPENAI_ENDPOINT: ")


@pytest.mark.parametrize(
    ("host", "base_url"),
    [
        ("localhost", "http://localhost:11434"),
        ("127.0.0.1:9", "http://127.0.0.1:9"),
        ("0.0.0.0:9", "http://127.0.0.1:9"),
        ("http://gpu.test:80", "http://gpu.test:80"),
        ("https://gpu.test/ollama/", "https://gpu.test/ollama"),
        ("http://gpu.test:9/v1", "http://gpu.test:9"),
        ("http://gpu.test:9/api/", "http://gpu.test:9"),
        ("[::1]:9", "http://[::1]:9"),
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
    assert (found.name, found.base_url, found.keys, found.models) == ("lab", "http://127.0.0.1:9000/v1", keys(KEY), ("small", "large"))
    timeouts = found.timeouts
    assert (timeouts.connect_s, timeouts.first_byte_s, timeouts.idle_s, timeouts.total_s, timeouts.stream_total_s) == (1, 2.5, 3, 4, 4)


def test_a_provider_whose_key_is_missing_is_not_enabled() -> None:
    assert names(catalog(NO_OLLAMA | {"LAB_API_KEY": " , "}, LAB)) == ["demo"]
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
    assert (found.base_url, found.timeouts.total_s) == ("http://gpu.test:11434", 120)
    assert only(catalog(NO_OLLAMA, '[providers.gpu]\nkind = "ollama"')).base_url == "http://127.0.0.1:11434"


def test_a_variable_may_hold_several_keys() -> None:
    assert only(catalog(NO_OLLAMA | {"GROQ_API_KEY": "gsk-a, gsk-b,gsk-a,"})).keys == keys("gsk-a", "gsk-b")


KEYS = """
[providers.lab]
kind = "openai"
base_url = "http://127.0.0.1:9000/v1"
api_keys = [{ env = "LAB_KEY_1", weight = 2 }, { env = "LAB_KEY_2" }]
"""


def test_a_table_may_name_several_keys_with_their_shares() -> None:
    both = only(catalog(NO_OLLAMA | {"LAB_KEY_1": "k1,k2", "LAB_KEY_2": "k3"}, KEYS))
    assert both.keys == (Key(Secret("k1"), 2), Key(Secret("k2"), 2), Key(Secret("k3"), 1))
    assert only(catalog(NO_OLLAMA | {"LAB_KEY_2": "k3"}, KEYS)).keys == keys("k3")
    assert catalog(NO_OLLAMA, KEYS).disabled["lab"] == "LAB_KEY_1 and LAB_KEY_2 are not set"


def test_keys_that_a_table_names_count_instead_of_the_vendors_variable() -> None:
    toml = '[providers.openai]\napi_keys = [{ env = "TEAM_KEY" }]'
    assert only(catalog(NO_OLLAMA | {"OPENAI_API_KEY": KEY, "TEAM_KEY": "sk-team"}, toml)).keys == keys("sk-team")
    assert only(catalog(NO_OLLAMA | {"OPENAI_API_KEY": KEY}, toml)).keys == keys(KEY)


def test_breakers_are_read_for_all_and_for_one() -> None:
    toml = LAB + "breaker = { failures = 2 }\n[breaker]\nopen_seconds = 7\nfailure_rate = 0.25\nprobes = 1"
    found = {spec.name: spec.breaker for spec in catalog(NO_OLLAMA | {"LAB_API_KEY": KEY, "OPENAI_API_KEY": KEY}, toml).providers}
    assert found["openai"] == BreakerPolicy(failure_rate=0.25, open_s=7, probes=1)
    assert found["lab"] == BreakerPolicy(failures=2, failure_rate=0.25, open_s=7, probes=1)


def test_a_vendor_and_a_table_say_whose_words_are_spoken() -> None:
    found = catalog(NO_OLLAMA | {"MISTRAL_API_KEY": KEY, "OPENAI_API_KEY": KEY, "LAB_API_KEY": KEY}, LAB + 'variant = "groq"')
    assert {spec.name: spec.variant for spec in found.providers[:3]} == {"lab": "groq", "openai": "openai", "mistral": "mistral"}


AZURE = {"AZURE_OPENAI_API_KEY": KEY, "AZURE_OPENAI_ENDPOINT": "https://work.openai.azure.com/openai/"}


def test_azure_is_enabled_by_its_key_and_its_address_and_serves_what_is_deployed() -> None:
    terms = {"AZURE_OPENAI_API_VERSION": "2024-10-21", "AZURE_OPENAI_DEPLOYMENT_MAP": "gpt-4o=prod"}
    found = only(catalog(NO_OLLAMA | AZURE | terms))
    assert (found.name, found.kind, found.base_url, found.keys) == ("azure", "azure", "https://work.openai.azure.com", keys(KEY))
    assert (found.api_version, found.deployments, found.models) == ("2024-10-21", {"gpt-4o": "prod"}, ("gpt-4o",))
    assert catalog(NO_OLLAMA | {"AZURE_OPENAI_API_KEY": KEY}).disabled["azure"] == "AZURE_OPENAI_ENDPOINT is not set"


def test_a_table_of_kind_azure_says_its_terms_and_the_environment_wins() -> None:
    toml = """
    [providers.azure]
    base_url = "https://file.test"
    api_version = "2023-05-15"
    deployments = { large = "big" }
    """
    own = only(catalog(NO_OLLAMA | {"TEAM_KEY": KEY}, toml.replace("azure", "work") + 'kind = "azure"\napi_key_env = "TEAM_KEY"'))
    assert (own.base_url, own.api_version, own.deployments, own.models) == ("https://file.test", "2023-05-15", {"large": "big"}, ("large",))
    both = only(catalog(NO_OLLAMA | AZURE, toml))
    assert (both.base_url, both.api_version, both.deployments) == ("https://work.openai.azure.com", "2023-05-15", {"large": "big"})


@pytest.mark.parametrize("text", ["gpt-4o=prod, mini = small", '{"gpt-4o": "prod", "mini": "small"}'])
def test_deployments_are_read_in_both_ways_of_writing(text: str) -> None:
    assert read_deployments(text) == {"gpt-4o": "prod", "mini": "small"}


@pytest.mark.parametrize("text", [KEY, f"gpt={KEY},x=", '{"a": 3}', f'{{"a": "{KEY}"', '{"a": ["b"]}'])
def test_a_wrong_deployment_map_is_not_quoted(text: str) -> None:
    with pytest.raises(ValueError) as raised:
        read_deployments(text)
    assert KEY not in str(raised.value)


def test_the_sequence_comes_first_then_the_file_then_the_environment() -> None:
    environment = {"OPENAI_API_KEY": KEY, "GROQ_API_KEY": KEY, "LAB_API_KEY": KEY}
    other = '[providers.other]\nkind = "openai"\nbase_url = "http://127.0.0.1:9/v1"'
    assert names(catalog(environment, LAB + other)) == ["lab", "other", "openai", "groq", "ollama", "demo"]
    sequence = {"LLM_PROVIDER_SEQUENCE": "groq, nobody, other, groq"}
    assert names(catalog(environment | sequence, LAB + other)) == ["groq", "other", "lab", "openai", "ollama", "demo"]


def test_limits_are_read() -> None:
    found = only(catalog(NO_OLLAMA | {"LAB_API_KEY": KEY}, LAB + "limits = { requests_per_minute = 200, tokens_per_minute = 1e5 }"))
    assert found.limits == ProviderLimits(requests_per_minute=200, tokens_per_minute=100_000)


def test_retries_are_read() -> None:
    assert catalog().retry == RetryPolicy()
    assert catalog(toml="[retry]\nbudget = 0\nbudget_floor_per_second = 0.5").retry == RetryPolicy(budget=0, budget_floor_per_s=0.5)
    assert catalog(toml="[retry]\nattempts = 4").retry.attempts == 4


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ("providers = 3", "[providers]: must be a table"),
        ("[providers]\nlab = 3", "[providers.lab]: must be a table"),
        ('[providers."a/b"]\nkind = "openai"', "[providers.a/b]: this name cannot be used"),
        ('[providers.demo]\nkind = "openai"', "[providers.demo]: this name cannot be used"),
        ("[providers.lab]\nbase_url = 'http://x.test'", "[providers.lab]: kind must be one of "),
        ('[providers.lab]\nkind = ["openai"]', "[providers.lab]: kind must be one of "),
        ('[providers.lab]\nkind = "openai"', "[providers.lab]: the address must be an http or https URL"),
        ('[providers.lab]\nkind = "openai"\nbase_url = "ftp://x.test"', "[providers.lab]: the address must be"),
        ('[providers.lab]\nkind = "openai"\nbase_url = "http://x.test:99999"', "[providers.lab]: the address is not a URL"),
        ('[providers.lab]\nkind = "openai"\nbase_url = "http://[x.test"', "[providers.lab]: the address is not a URL"),
        ('[providers.lab]\nkind = "ollama"\nbase_url = "http://[x.test"', "[providers.lab]: the address is not a URL"),
        ('[providers.lab]\nkind = "openai"\nbase_url = 7', "[providers.lab]: base_url must be text"),
        (LAB.replace("zone", "zones"), "[providers.lab]: unknown key 'zones'"),
        (LAB.replace('["small", "large", "small"]', '["small", 3]'), "[providers.lab]: models must be a list of names"),
        (LAB.replace("connect", "conect"), "[providers.lab]: timeouts: unknown key 'conect'"),
        (LAB + "api_keys = [3]", "[providers.lab]: api_keys[0]: must be a table"),
        (LAB + "api_keys = [{ weight = 2 }]", "[providers.lab]: api_keys[0]: env must be text"),
        (LAB + 'api_keys = [{ env = "LAB_KEY_1" }]', "[providers.lab]: say either api_key_env or api_keys"),
        (KEYS.replace("weight = 2", "weight = 0"), "[providers.lab]: api_keys[0]: weight must be"),
        (KEYS.replace("weight", "wait"), "[providers.lab]: api_keys[0]: unknown key 'wait'"),
        (LAB + "limits = { requests_per_minute = 0 }", "[providers.lab]: limits: requests_per_minute must be a number above 0"),
        (LAB + "limits = { tokens = 3 }", "[providers.lab]: limits: unknown key 'tokens'"),
        ("[retry]\nbudget = -1", "[retry]: budget must be a number from 0 to 1"),
        (LAB + "breaker = { probes = 0 }", "[providers.lab]: breaker: probes must be"),
        (LAB + 'variant = "grok"', "[providers.lab]: variant must be one of deepseek, "),
        (LAB + 'api_version = "2024 10"', "[providers.lab]: api_version must be"),
        (LAB + "deployments = { a = 3 }", "[providers.lab]: deployments must be"),
        ("[breaker]\nfailure_rate = 1.5", "[breaker]: failure_rate must be a number above 0 to 1"),
        ("[breaker]\nopen = 3", "[breaker]: unknown key 'open'"),
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
    assert len(problems('[providers.a]\nkind = "grok"\n[providers.b]\nkind = "what"\n[retry]\nattempts = "x"')) == 3


@pytest.mark.parametrize(
    ("environment", "toml"),
    [
        ({"OPENAI_API_KEY": f"{KEY}\nX: y"}, ""),
        ({"LAB_API_KEY": f"{KEY}ü"}, LAB),
        ({"LAB_KEY_1": f"{KEY}ü"}, KEYS),
        ({"AZURE_OPENAI_API_KEY": "k", "AZURE_OPENAI_DEPLOYMENT_MAP": KEY}, ""),
        ({"AZURE_OPENAI_API_KEY": "k", "AZURE_OPENAI_API_VERSION": f"{KEY}/"}, ""),
        ({}, f"[providers.lab]\nkind = '{KEY}'"),
        ({}, f'[providers.lab]\nkind = "openai"\nbase_url = "http://x.test"\nbreaker = "{KEY}"'),
        ({"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": f"http://user:{KEY}@x.test/v1"}, ""),
        ({}, f'[providers.lab]\nkind = "openai"\nbase_url = "http://x.test/?key={KEY}"'),
        ({}, f'[providers.lab]\nkind = "openai"\nbase_url = "http://x.test:{KEY}"'),
    ],
)
def test_no_problem_shows_a_secret(environment: Mapping[str, str], toml: str) -> None:
    lines = problems(toml, NO_OLLAMA | dict(environment))
    assert lines
    assert not any(KEY in line for line in lines)


_KEYS = sorted({*PROVIDER_KEYS, *RETRY_KEYS, *BREAKER_KEYS, *LIMIT_KEYS, *TIMEOUT_FIELDS, "env", "weight", "lab", "azure", "openai"})
_ANYTHING = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.sampled_from(["", KEY, "openai", "azure", "ollama", "LAB_API_KEY", "http://x.test"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=6),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["providers", "retry", "breaker"]), _ANYTHING))
def test_whatever_the_file_says_it_is_read_or_its_mistakes_are_named(config: dict[str, Any]) -> None:
    environment = NO_OLLAMA | {"LAB_API_KEY": KEY}
    with suppress(SettingsError):
        for spec in read_catalog(load(DispatchSettings, environment), config, environment).providers:
            assert spec.kind == "demo" or adapter_for(spec).models_path
