import pytest

from services.router.controls import CacheControls, cache_controls
from services.runtime.errors import GatewayError


@pytest.mark.parametrize(
    ("headers", "extensions", "expected"),
    [
        ({}, {}, CacheControls()),
        ({"cache-control": "no-cache"}, {}, CacheControls(may_read=False)),
        ({"cache-control": "No-Store"}, {}, CacheControls(may_read=False, may_write=False)),
        ({"cache-control": "max-age=60, only-if-cached"}, {}, CacheControls(max_age_s=60, only_if_cached=True)),
        ({"x-cache-ttl": "5", "x-cache-namespace": "faq"}, {}, CacheControls(ttl_s=5, namespace="faq")),
        ({}, {"x-cache": False}, CacheControls(may_read=False, may_write=False)),
        ({}, {"skip_cache": True}, CacheControls(may_read=False, may_write=False)),
        ({}, {"x-cache": True, "skip_cache": False}, CacheControls()),
        ({"x-cache-mode": "OFF"}, {}, CacheControls(may_read=False, may_write=False)),
        ({"x-cache-mode": "exact"}, {}, CacheControls()),
        ({"x-cache-mode": "semantic"}, {}, CacheControls(may_reword=True)),
        ({"x-cache-mode": "semantic", "x-cache-threshold": "0.975"}, {}, CacheControls(may_reword=True, min_similarity=0.975)),
        ({"x-cache-max-error": "0.02"}, {}, CacheControls(max_error=0.02)),
        ({"x-cache-max-error": "0"}, {}, CacheControls()),
        ({"x-cache-tags": " faq,, de ,faq"}, {}, CacheControls(tags=("faq", "de"))),
    ],
)
def test_controls_are_read(headers: dict[str, str], extensions: dict[str, object], expected: CacheControls) -> None:
    assert cache_controls(headers, extensions, cache_enabled=True) == expected


def test_a_switched_off_cache_is_neither_read_nor_written() -> None:
    controls = cache_controls({}, {}, cache_enabled=False)
    assert not controls.may_read and not controls.may_write


@pytest.mark.parametrize(
    ("headers", "param"),
    [
        ({"cache-control": "max-age=soon"}, "cache-control"),
        ({"cache-control": "max-age=-1"}, "cache-control"),
        ({"x-cache-ttl": "1.5"}, "x-cache-ttl"),
        ({"x-cache-namespace": "n" * 129}, "x-cache-namespace"),
        ({"x-cache-mode": "fuzzy"}, "x-cache-mode"),
        ({"x-cache-mode": ""}, "x-cache-mode"),
        ({"x-cache-threshold": "1.01"}, "x-cache-threshold"),
        ({"x-cache-max-error": "0.6"}, "x-cache-max-error"),
        ({"x-cache-threshold": "-0.5"}, "x-cache-threshold"),
        ({"x-cache-threshold": "high"}, "x-cache-threshold"),
        ({"x-cache-threshold": "nan"}, "x-cache-threshold"),
        ({"x-cache-tags": "t" * 129}, "x-cache-tags"),
        ({"x-cache-tags": ",".join(map(str, range(9)))}, "x-cache-tags"),
    ],
)
def test_nonsense_is_refused_by_name(headers: dict[str, str], param: str) -> None:
    with pytest.raises(GatewayError) as raised:
        cache_controls(headers, {}, cache_enabled=True)
    assert raised.value.metadata["param"] == param
