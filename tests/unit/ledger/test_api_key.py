"""What a key is, what may be said of one, and how it is shown."""

import json
import re
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.ledger.v1.key_pb2 import ApiKey, KeyEnvironment
from services.ledger import api_key, key_documents
from services.ledger.api_key import Key, KeyTerms, KeyView, Usage, columns_of, digest_of, new_key
from services.runtime.errors import GatewayError

PRODUCTION = KeyEnvironment.KEY_ENVIRONMENT_PRODUCTION
NOW_NS = 1_700_000_000 * 10**9
TERMS = KeyTerms("robot", "red", "acme", "gold", ("gpt-*", "lab/small"), True, NOW_NS, 10, 20, 30, 40)


def zeros(count: int) -> bytes:
    return bytes(count)


def ones(count: int) -> bytes:
    return b"\xff" * count


@pytest.mark.parametrize(("environment", "prefix"), [(0, "gw-dev-"), *((number, prefix) for number, prefix in api_key.PREFIXES.items())])
def test_text_says_its_environment_and_has_all_random_bits(environment: int, prefix: str) -> None:
    texts = [new_key(environment, TERMS, NOW_NS, random)[1] for random in (zeros, ones)]
    assert [re.fullmatch(prefix + "[0-9A-Za-z]{43}", text) is not None for text in texts] == [True, True]
    # One bit less is another text: none is thrown away.
    almost = new_key(environment, TERMS, NOW_NS, lambda count: b"\x7f" + b"\xff" * (count - 1))[1]
    assert len({*texts, almost}) == 3


def test_only_a_digest_of_the_text_is_kept() -> None:
    key, text = new_key(PRODUCTION, TERMS, NOW_NS, ones)
    kept = json.dumps(columns_of(key), default=str) + str(key)
    assert text not in kept and text.removeprefix("gw-prod-") not in kept
    assert key.digest == digest_of(text) != digest_of(text + " ")


def test_row_gives_the_key_back() -> None:
    key, _ = new_key(PRODUCTION, TERMS, NOW_NS, ones)
    row = type("Row", (), columns_of(key))
    assert api_key.key_of_row(row) == key


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"name": ""}, "name"),
        ({"name": " "}, "name"),
        ({"name": "n" * 201}, "name"),
        ({"team": "a\nb"}, "team"),
        ({"organisation": "a\0"}, "organisation"),
        ({"allowed_models": ("",)}, "allowed_models"),
        ({"allowed_models": ("m" * 257,)}, "allowed_models"),
        ({"allowed_models": ("m",) * 101}, "allowed_models"),
        ({"monthly_token_budget": -1}, "monthly_token_budget"),
        ({"requests_per_minute": 10**12 + 1}, "requests_per_minute"),
        ({"tokens_per_minute": -5}, "tokens_per_minute"),
        ({"monthly_cost_budget_nano_usd": -1}, "monthly_cost_budget_nano_usd"),
        ({"monthly_cost_budget_nano_usd": 10**18 + 1}, "monthly_cost_budget_nano_usd"),
    ],
    ids=str,
)
def test_what_no_key_can_have_is_refused_by_name(change: dict[str, Any], param: str) -> None:
    api_key.check(TERMS)
    with pytest.raises(GatewayError) as raised:
        api_key.check(TERMS._replace(**change))
    assert (raised.value.reason, raised.value.metadata["param"]) == (ErrorReason.ERROR_REASON_INVALID_REQUEST, param)


def test_environment_that_there_is_not_is_refused() -> None:
    with pytest.raises(GatewayError, match="environment"):
        api_key.check(TERMS, 7)


@pytest.mark.parametrize("time", [Timestamp(seconds=-1), Timestamp(), Timestamp(seconds=10**12), Timestamp(seconds=1, nanos=-1)])
def test_time_that_is_none_is_refused(time: Timestamp) -> None:
    with pytest.raises(GatewayError, match="expire_time"):
        api_key.terms_of(ApiKey(name="n", expire_time=time))


def test_mask_changes_and_clears_what_it_names_and_nothing_else() -> None:
    message = ApiKey(name="other", enabled=False, team="ignored")
    changed = api_key.amended(TERMS, message, ["name", "enabled", "expire_time", "monthly_token_budget", "allowed_models"])
    assert changed == TERMS._replace(name="other", enabled=False, expires_ns=None, monthly_token_budget=None, allowed_models=())


def test_without_a_mask_what_is_present_is_changed() -> None:
    changed = api_key.amended(TERMS, ApiKey(key_id="key_1", enabled=False, requests_per_minute=0), [])
    assert changed == TERMS._replace(enabled=False, requests_per_minute=0)


@pytest.mark.parametrize("path", ["environment", "key_id", "digest", "create_time", "nothing"])
def test_field_that_cannot_be_changed_is_refused(path: str) -> None:
    with pytest.raises(GatewayError, match="cannot be changed"):
        api_key.amended(TERMS, ApiKey(name="n"), ["name", path])


def test_message_shows_everything_but_the_text() -> None:
    key, text = new_key(PRODUCTION, TERMS, NOW_NS, ones)
    shown = api_key.message_of(KeyView(key._replace(revoked_ns=NOW_NS + 1), Usage(NOW_NS + 2, 3, 4)))
    assert api_key.terms_of(shown) == TERMS
    assert (shown.key_id, shown.environment, shown.create_time.ToNanoseconds()) == (key.key_id, PRODUCTION, NOW_NS)
    assert (shown.revoke_time.ToNanoseconds(), shown.last_use_time.ToNanoseconds()) == (NOW_NS + 1, NOW_NS + 2)
    assert (shown.tokens_used_this_month, shown.cost_nano_usd_this_month) == (3, 4)
    assert text[8:] not in str(shown) and key.digest not in shown.SerializeToString()


def read(**members: Any) -> key_documents.Wanted:
    return key_documents.read(json.dumps({"name": "robot"} | members).encode())


def test_smallest_document_asks_for_a_development_key_with_the_usual_limits() -> None:
    assert read() == (KeyEnvironment.KEY_ENVIRONMENT_DEVELOPMENT, KeyTerms("robot", requests_per_minute=60, tokens_per_minute=100_000), [])


def test_whole_document_is_read_and_says_what_has_no_effect() -> None:
    members = {"environment": "production", "team": "red", "organisation": "acme", "tier": "gold", "allowedModels": ["gpt-*"]}
    limits = {"monthlyTokenBudget": 1000, "monthlyCostBudgetUsd": 12.345678901, "rateLimitRpm": 7, "rateLimitTpm": 8}
    wanted = read(**members, **limits, expiresAt="2033-05-18T03:33:20.5Z", colour="red")
    expires_ns = 2_000_000_000_500_000_000
    terms = KeyTerms("robot", "red", "acme", "gold", ("gpt-*",), True, expires_ns, 1000, 12_345_678_901, 7, 8)
    assert (wanted.environment, wanted.terms) == (PRODUCTION, terms)
    assert wanted.warnings == ["colour: unknown, ignored"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", ""),
        (b"[]", ""),
        (b"{}", ""),
        (b'{"name": "\xff"}', ""),
        (b'{"name": "\\ud800"}', ""),
        (b'{"name": 7}', "name"),
        (b'{"name": ""}', "name"),
        (b'{"name": "n", "environment": "moon"}', "environment"),
        (b'{"name": "n", "rateLimitRpm": "7"}', "rateLimitRpm"),
        (b'{"name": "n", "rateLimitRpm": -7}', "rateLimitRpm"),
        (b'{"name": "n", "rateLimitRpm": 1e400}', "rateLimitRpm"),
        (b'{"name": "n", "monthlyTokenBudget": 99999999999999999999999}', "monthlyTokenBudget"),
        (b'{"name": "n", "monthlyCostBudgetUsd": -0.01}', "monthlyCostBudgetUsd"),
        (b'{"name": "n", "monthlyCostBudgetUsd": 1e999999999}', "monthlyCostBudgetUsd"),
        (b'{"name": "n", "monthlyCostBudgetUsd": "NaN"}', "monthlyCostBudgetUsd"),
        (b'{"name": "n", "allowedModels": "gpt-4o"}', "allowedModels"),
        (b'{"name": "n", "allowedModels": [""]}', "allowedModels"),
        (b'{"name": "n", "expiresAt": "tomorrow"}', "expiresAt"),
        (b'{"name": "n", "expiresAt": "2033-05-18T03:33:20"}', "expiresAt"),
        (b'{"name": "n", "expiresAt": "0001-01-01T00:00:00Z"}', "expiresAt"),
        (b'{"name": "n", "expiresAt": "9999-01-01T00:00:00Z"}', "expiresAt"),
    ],
    ids=str,
)
def test_document_that_is_no_key_is_refused_by_member(body: bytes, param: str) -> None:
    with pytest.raises(GatewayError) as raised:
        key_documents.read(body)
    assert raised.value.reason == ErrorReason.ERROR_REASON_INVALID_REQUEST
    assert raised.value.metadata["param"] == param


def test_document_has_the_members_that_earlier_clients_know() -> None:
    key = Key("key_1", b"", PRODUCTION, NOW_NS, None, TERMS._replace(monthly_cost_budget_nano_usd=2_500_000_000))
    shown = json.loads(key_documents.encode(key_documents.document(KeyView(key, Usage(NOW_NS + 5 * 10**6, 3, 4_000_000)))))
    expected = {
        "id": "key_1",
        "key": "gw-prod-…",
        "name": "robot",
        "environment": "production",
        "enabled": True,
        "monthlyTokenBudget": 10,
        "monthlyCostBudgetUsd": 2.5,
        "rateLimitRpm": 30,
        "rateLimitTpm": 40,
        "tokensUsedThisMonth": 3,
        "costUsedThisMonthUsd": 0.004,
        "lastUsedAt": "2023-11-14T22:13:20.005+00:00",
    }
    assert {member: shown[member] for member in expected} == expected
    assert key_documents.created(KeyView(key, api_key.UNUSED), "gw-prod-x", ["w"])["key"] == "gw-prod-x"
    assert "warnings" not in key_documents.created(KeyView(key, api_key.UNUSED), "gw-prod-x", [])
