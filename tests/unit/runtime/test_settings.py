from dataclasses import dataclass
from pathlib import Path

import pytest

from services.runtime import settings
from services.runtime.app import RuntimeSettings, load_all
from services.runtime.config_file import read_config
from services.runtime.settings import SettingsError, setting


@dataclass(frozen=True, slots=True)
class Example:
    count: int = setting("COUNT", settings.integer(1, 10), "3", "How many.")
    share: float = setting("SHARE", settings.number(least=0, above=-1), "0.5", "How much.")
    on: bool = setting("ON", settings.boolean, "true", "Whether.")
    where: str | None = setting("WHERE", settings.address, None, "Where.")


def test_defaults_stand_where_nothing_is_set_and_empty_means_unset() -> None:
    assert settings.load(Example, {"COUNT": ""}) == Example(3, 0.5, True, None)


def test_values_are_parsed() -> None:
    assert settings.load(Example, {"COUNT": "10", "SHARE": "1", "ON": "No", "WHERE": "unix:/x"}) == Example(10, 1.0, False, "unix:/x")


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(SettingsError) as raised:
        load_all([Example, RuntimeSettings], {"COUNT": "11", "SHARE": "nan", "ON": "maybe", "WHERE": "host", "DRAIN_SECONDS": "-1"})
    names = [problem.split("=")[0] for problem in raised.value.problems]
    assert names == ["COUNT", "SHARE", "ON", "WHERE", "DRAIN_SECONDS"]


def test_the_environment_wins_over_the_env_file_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=file\nB=file\n")
    merged = settings.read_environment({"JOULEGATE_CONFIG": str(tmp_path / "joulegate.toml"), "A": "process"})
    assert (merged["A"], merged["B"]) == ("process", "file")


def test_a_configuration_file_with_unknown_tables_or_bad_toml_or_missing_is_refused(tmp_path: Path) -> None:
    assert read_config(None) == {}
    config = tmp_path / "joulegate.toml"
    with pytest.raises(SettingsError):
        read_config(config)
    config.write_text("[provider.x]\n")
    with pytest.raises(SettingsError, match="unknown table 'provider'"):
        read_config(config)
    config.write_text("[providers")
    with pytest.raises(SettingsError):
        read_config(config)
    config.write_text("[providers.x]\nkind = 'openai'\n")
    assert read_config(config)["providers"]["x"]["kind"] == "openai"


@pytest.mark.parametrize("value", ["http://127.0.0.1:9000", "https://api.example.com/v1/"])
def test_web_address_loses_its_last_slash(value: str) -> None:
    assert settings.http_address(value) == value.rstrip("/")


@pytest.mark.parametrize("value", ["api.example.com", "ftp://x", "http://", "http://x?y=z", "http://x y"])
def test_what_is_no_web_address_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="http"):
        settings.http_address(value)


@pytest.mark.parametrize(
    ("address", "host"), [("127.0.0.1:80", "127.0.0.1"), ("router:80", "router"), ("[::1]:80", "::1"), ("[::]:80", "::")]
)
def test_address_is_taken_apart(address: str, host: str) -> None:
    assert settings.host_and_port(settings.address(address)) == (host, 80)
