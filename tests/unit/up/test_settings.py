import pytest

from services.runtime.settings import SettingsError
from services.up import settings


def test_defaults_are_private() -> None:
    loaded = settings.load({})
    assert (loaded.host, loaded.port, loaded.cors_origins, loaded.reachable_host) == ("127.0.0.1", 8000, (), "127.0.0.1")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::"])
def test_public_host_needs_keys(host: str) -> None:
    with pytest.raises(SettingsError, match="GATEWAY_API_KEY, or ALLOW_ANONYMOUS=true"):
        settings.load({"HOST": host})
    assert settings.load({"HOST": host, "AUTH_REQUIRED": "true"}).host == host
    assert settings.load({"HOST": host, "GATEWAY_API_KEY": "k"}).demands_key
    assert settings.load({"HOST": host, "ALLOW_ANONYMOUS": "true"}).host == host


@pytest.mark.parametrize(
    ("host", "reachable"),
    [("localhost", "127.0.0.1"), ("::1", "[::1]"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("127.0.0.9", "127.0.0.9")],
)
def test_url_names_an_address_that_this_machine_reaches(host: str, reachable: str) -> None:
    assert settings.load({"HOST": host, "AUTH_REQUIRED": "true"}).reachable_host == reachable


def test_origins_are_a_list() -> None:
    assert settings.load({"CORS_ORIGINS": "https://a.example, http://b:3000"}).cors_origins == ("https://a.example", "http://b:3000")
    assert settings.load({"CORS_ORIGINS": "*"}).cors_origins == ("*",)


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        settings.load({"HOST": "nowhere", "PORT": "70000", "CORS_ORIGINS": "a.example", "DRAIN_SECONDS": "-1"})
    assert [problem.partition("=")[0] for problem in caught.value.problems] == ["HOST", "PORT", "CORS_ORIGINS", "DRAIN_SECONDS"]
