"""Headers as the vendors' documentation and answers show them."""

import pytest

from services.dispatch.rate_headers import Quota, Rate, Rates, read_rates

NOW = 1_700_000_000.0
REQUESTS, TOKENS = (Quota.REQUESTS, ""), (Quota.TOKENS, "")

VENDORS: dict[str, tuple[dict[str, str], Rates]] = {
    "openai": (
        {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-limit-tokens": "150000",
            "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-remaining-tokens": "149984",
            "x-ratelimit-reset-requests": "1s",
            "x-ratelimit-reset-tokens": "6m0s",
        },
        {REQUESTS: Rate(60, 59, 1), TOKENS: Rate(150_000, 149_984, 360)},
    ),
    "groq": (
        {"X-RateLimit-Remaining-Requests": "0", "x-ratelimit-reset-requests": "2m59.56s", "x-ratelimit-reset-tokens": "7.66s"},
        {REQUESTS: Rate(None, 0, 179.56), TOKENS: Rate(None, None, 7.66)},
    ),
    "anthropic": (
        {
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "0",
            "anthropic-ratelimit-requests-reset": "2023-11-14T22:13:50Z",
            "anthropic-ratelimit-tokens-remaining": "1000",
            "anthropic-ratelimit-input-tokens-remaining": "700",
            "anthropic-ratelimit-input-tokens-reset": "2023-11-14T22:13:30+00:00",
            "anthropic-ratelimit-output-tokens-remaining": "300",
        },
        {
            REQUESTS: Rate(50, 0, 30),
            TOKENS: Rate(None, 1000, None),
            (Quota.INPUT_TOKENS, ""): Rate(None, 700, 10),
            (Quota.OUTPUT_TOKENS, ""): Rate(None, 300, None),
        },
    ),
    "azure": (
        {"x-ratelimit-remaining-requests": "9", "x-ratelimit-remaining-tokens": "9000", "x-ratelimit-reset-tokens": "12"},
        {REQUESTS: Rate(None, 9, None), TOKENS: Rate(None, 9000, 12)},
    ),
    "github": (
        {"x-ratelimit-limit": "5000", "x-ratelimit-remaining": "4999", "x-ratelimit-reset": "1700000060"},
        {REQUESTS: Rate(5000, 4999, 60)},
    ),
    "openrouter": ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1700000005000"}, {REQUESTS: Rate(None, 0, 5)}),
    "together": (
        {"x-ratelimit-limit": "10", "x-ratelimit-remaining": "9", "x-ratelimit-reset": "1", "x-tokenlimit-remaining": "3000"},
        {REQUESTS: Rate(10, 9, 1), TOKENS: Rate(None, 3000, None)},
    ),
    "mistral": (
        {"x-ratelimit-remaining-req-minute": "3", "x-ratelimit-limit-tokens-minute": "500", "x-ratelimit-remaining-tokens-minute": "0"},
        {(Quota.REQUESTS, "minute"): Rate(None, 3, None), (Quota.TOKENS, "minute"): Rate(500, 0, None)},
    ),
    "cerebras": (
        {"x-ratelimit-remaining-requests-day": "0", "x-ratelimit-reset-requests-day": "33011.38"},
        {(Quota.REQUESTS, "day"): Rate(None, 0, 33011.38)},
    ),
    "three fields": (
        {"ratelimit-limit": "100, 100;w=60", "ratelimit-remaining": "0", "ratelimit-reset": "30"},
        {REQUESTS: Rate(100, 0, 30)},
    ),
    "one field": ({"ratelimit": "limit=100, remaining=50, reset=30"}, {REQUESTS: Rate(100, 50, 30)}),
    "one structured field": ({"ratelimit": '"default";r=0;t=7'}, {REQUESTS: Rate(None, 0, 7)}),
    "none": ({"content-type": "application/json", "retry-after": "7", "x-request-id": "limit-9"}, {}),
}


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_vendors_headers_are_read(vendor: str) -> None:
    headers, expected = VENDORS[vendor]
    rates = read_rates(headers, NOW)
    assert rates.keys() == expected.keys()
    for key, rate in expected.items():
        assert (rates[key].limit, rates[key].remaining) == (rate.limit, rate.remaining)
        assert rates[key].reset_s == (None if rate.reset_s is None else pytest.approx(rate.reset_s))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20ms", 0.02), ("1s", 1), ("1m", 60), ("6m0s", 360), ("1h2m3.5s", 3723.5), ("2d", 172_800), ("1m20ms", 60.02), ("59.5", 59.5)],
)
def test_a_reset_is_read_in_every_form(text: str, seconds: float) -> None:
    rate = read_rates({"x-ratelimit-reset-tokens": text}, NOW)[TOKENS]
    assert rate.reset_s == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "nan", "inf", "-1", "1e99", "9" * 400, "2023-13-45T00:00:00Z", "2023-11-14T22:13:30", "ms"])
def test_a_reset_that_makes_no_sense_is_left_out(text: str) -> None:
    assert not read_rates({"x-ratelimit-reset-requests": text}, NOW)


@pytest.mark.parametrize("text", ["", "many", "nan", "1e5", "0x10"])
def test_an_amount_that_makes_no_sense_is_left_out(text: str) -> None:
    assert not read_rates({"x-ratelimit-remaining-requests": text}, NOW)


def test_a_reset_that_is_past_is_now() -> None:
    assert read_rates({"anthropic-ratelimit-tokens-reset": "2001-01-01T00:00:00Z"}, NOW)[TOKENS].reset_s == 0
