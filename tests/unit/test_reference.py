import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from services import provider_reference, reference
from services.dispatch import catalog, policies
from services.dispatch.settings import DispatchSettings
from services.dispatch.vendors import VENDORS, variables_of
from services.ledger import limits
from services.ledger.overrides import read_overrides
from services.router import families, policy
from services.runtime.config_file import TABLES
from services.runtime.settings import Variable, load, variables

ROOT = Path(__file__).parents[2]
SETTINGS = [variable for process in reference.PROCESSES for variable in variables(process.settings)]
SETTINGS += [variable for vendor in VENDORS for variable in variables_of(vendor)]


@pytest.mark.parametrize(("name", "written"), [("configuration", reference.document), ("providers", provider_reference.document)])
def test_pages_are_what_the_code_says(name: str, written: Callable[[], str]) -> None:
    page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert page == written(), f"docs/{name}.md is stale: run `make docs` and commit it"


@pytest.mark.parametrize("variable", SETTINGS, ids=lambda variable: variable.name)
def test_each_setting_has_a_meaning(variable: Variable) -> None:
    assert variable.meaning.endswith("."), f"{variable.name} needs a sentence that says what it means"
    assert "\n" not in variable.meaning


def test_no_service_is_forgotten() -> None:
    modules = [import_module(f"services.{file.parent.name}.settings") for file in (ROOT / "services").glob("*/settings.py")]
    classes = {value for module in modules for name, value in vars(module).items() if isinstance(value, type) and name.endswith("Settings")}
    assert classes <= {process.settings for process in reference.PROCESSES}


def test_file_is_documented_as_it_is_read() -> None:
    assert reference.PROVIDER_KEYS.keys() == catalog.PROVIDER_KEYS
    assert reference.TIMEOUT_KEYS.keys() == policies.TIMEOUT_FIELDS.keys()
    assert reference.RETRY_KEYS.keys() == policies.RETRY_KEYS
    assert reference.BREAKER_KEYS.keys() == policies.BREAKER_KEYS
    assert reference.LIMIT_KEYS.keys() == policies.LIMIT_KEYS
    assert reference.ROUTING_KEYS.keys() | {"virtual_models"} == policy.ROUTING_KEYS
    assert reference.CONSTRAINT_KEYS.keys() == policy.CONSTRAINT_KEYS
    assert reference.VIRTUAL_KEYS.keys() == policy.VIRTUAL_KEYS
    assert {"providers", "models", "retry", "breaker", "routing", "virtual_models", "tiers"} == TABLES


def test_example_is_accepted_and_uses_every_key() -> None:
    example = tomllib.loads(reference.EXAMPLE)
    environment = dict.fromkeys(("LAB_KEY_1", "LAB_KEY_2", "WORK_API_KEY"), "secret")
    read = catalog.read_catalog(load(DispatchSettings, {}), example, environment)
    overrides = read_overrides(example)
    assert [provider.name for provider in read.providers[:2]] == ["lab", "work"] and not read.disabled
    assert overrides.provider("lab").zone == "FRA" and ("lab", "large") in overrides.prices
    assert set().union(*example["providers"].values()) == reference.PROVIDER_KEYS.keys()
    assert example["providers"]["lab"]["timeouts"].keys() == reference.TIMEOUT_KEYS.keys()
    assert example["providers"]["lab"]["limits"].keys() == reference.LIMIT_KEYS.keys()
    assert example["models"][0].keys() == reference.MODEL_KEYS.keys()
    assert example["routing"].keys() == reference.ROUTING_KEYS.keys()
    assert example["virtual_models"]["house"].keys() == reference.VIRTUAL_KEYS.keys()
    assert example["virtual_models"]["house"]["constraints"].keys() == reference.CONSTRAINT_KEYS.keys()
    routing = policy.configured(example, None, None)
    assert routing.virtual_models["house"].min_tier == 2 and routing.provider_weights == {"lab": 3}
    assert families.read_declared(example)["lab", "large"] == families.Declared(4, 128000)
    assert example["retry"].keys() == reference.RETRY_KEYS.keys()
    assert example["breaker"].keys() == reference.BREAKER_KEYS.keys()
    assert example["tiers"]["gold"].keys() == reference.TIER_KEYS.keys()
    assert limits.read_tiers(example)["gold"].requests_per_minute == 600


def test_pages_are_written_into_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reference.main([str(tmp_path)]) == 0
    assert (tmp_path / "configuration.md").read_text(encoding="utf-8") == reference.document()
    assert (tmp_path / "providers.md").read_text(encoding="utf-8") == provider_reference.document()
    assert reference.main(["--help"]) == reference.main([]) == 2
    assert "FOLDER" in capsys.readouterr().err
