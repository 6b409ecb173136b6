"""Addresses as vendors' pages, SDKs and people write them."""

import pytest

from services.dispatch import addresses


@pytest.mark.parametrize(
    ("kind", "written", "used"),
    [
        ("openai", "https://x.test/v1/", "https://x.test/v1"),
        ("openai", "https://x.test", "https://x.test"),
        ("anthropic", "https://x.test/v1/", "https://x.test"),
        ("anthropic", "https://x.test/proxy", "https://x.test/proxy"),
        ("gemini", "https://x.test/v1beta", "https://x.test"),
        ("gemini", "https://x.test/v1beta/openai/", "https://x.test"),
        ("gemini", "https://x.test/v1", "https://x.test"),
        ("cohere", "https://x.test/v2", "https://x.test"),
        ("cohere", "https://x.test/v1/", "https://x.test"),
        ("azure", "https://x.test/openai/v1/", "https://x.test"),
        ("azure", "https://x.test/openai/deployments", "https://x.test"),
        ("azure", "https://x.test/openai", "https://x.test"),
        ("ollama", "gpu.test", "http://gpu.test:11434"),
        ("ollama", "http://gpu.test/api", "http://gpu.test"),
        ("ollama", "https://gpu.test/ollama/v1", "https://gpu.test/ollama"),
    ],
)
def test_what_a_dialects_paths_bring_is_dropped(kind: str, written: str, used: str) -> None:
    assert addresses.normal(kind, written) == used
    assert addresses.problem(used) is None


@pytest.mark.parametrize(
    ("written", "used"),
    [
        ("https://x.test", "https://x.test/v1"),
        ("https://x.test/", "https://x.test/v1"),
        ("https://x.test:8/own", "https://x.test:8/own"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_bare_address_gets_the_path_that_its_vendors_sdk_adds(written: str, used: str) -> None:
    assert addresses.with_path(written, "/v1") == used


@pytest.mark.parametrize(
    "url", ["", "x.test", "ftp://x.test", "https://", "https://x.test:0", "https://x.test:z", "https://k@x.test", "https://x.test?k"]
)
def test_what_is_no_address_is_not_quoted(url: str) -> None:
    said = addresses.problem(url)
    assert said is not None
    assert not url or url not in said
