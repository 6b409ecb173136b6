"""Keys in the JSON documents that clients of an earlier gateway know: camel case, money in US dollars."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec

from joulegate.ledger.v1.key_pb2 import KeyEnvironment
from services.ledger.api_key import PREFIXES, KeyTerms, KeyView, check, invalid
from services.runtime.errors import GatewayError

_NANO: Final = 10**9
_ENVIRONMENTS: Final = {
    "production": KeyEnvironment.KEY_ENVIRONMENT_PRODUCTION,
    "staging": KeyEnvironment.KEY_ENVIRONMENT_STAGING,
    "development": KeyEnvironment.KEY_ENVIRONMENT_DEVELOPMENT,
    "prod": KeyEnvironment.KEY_ENVIRONMENT_PRODUCTION,
    "stg": KeyEnvironment.KEY_ENVIRONMENT_STAGING,
    "dev": KeyEnvironment.KEY_ENVIRONMENT_DEVELOPMENT,
}
_NAMES: Final = {number: name for name, number in reversed(_ENVIRONMENTS.items())}
# What that gateway gave a key where nothing was said.
REQUESTS_PER_MINUTE: Final = 60
TOKENS_PER_MINUTE: Final = 100_000


class _NewKey(msgspec.Struct, rename="camel"):
    name: str
    environment: str | None = None
    team: str = ""
    organisation: str = ""
    tier: str = ""
    allowed_models: tuple[str, ...] = ()
    expires_at: datetime | None = None
    monthly_token_budget: int | None = None
    monthly_cost_budget_usd: Decimal | None = None
    rate_limit_rpm: int | None = None
    rate_limit_tpm: int | None = None


# By the field of KeyTerms.
_MEMBERS: Final = {
    "allowed_models": "allowedModels",
    "expires_ns": "expiresAt",
    "monthly_token_budget": "monthlyTokenBudget",
    "monthly_cost_budget_nano_usd": "monthlyCostBudgetUsd",
    "requests_per_minute": "rateLimitRpm",
    "tokens_per_minute": "rateLimitTpm",
}
_KNOWN: Final = frozenset(field.encode_name for field in msgspec.structs.fields(_NewKey))
_decoder: Final = msgspec.json.Decoder(_NewKey)
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Wanted(NamedTuple):
    """What a document asks for, checked."""

    environment: int
    terms: KeyTerms
    warnings: list[str]


def read(body: bytes) -> Wanted:
    """The key that a document asks for. Raises GatewayError INVALID_REQUEST."""
    try:
        given = _decoder.decode(body)
        members = _members.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError) as error:
        raise invalid(f"the body is not a key: {error}", _param(str(error))) from None
    environment = _ENVIRONMENTS.get((given.environment or "development").lower())
    if environment is None:
        raise invalid("environment: must be production, staging or development", "environment")
    terms = KeyTerms(
        name=given.name,
        team=given.team,
        organisation=given.organisation,
        tier=given.tier,
        allowed_models=given.allowed_models,
        expires_ns=None if given.expires_at is None else _nanoseconds(given.expires_at),
        monthly_token_budget=given.monthly_token_budget,
        monthly_cost_budget_nano_usd=None if given.monthly_cost_budget_usd is None else _nano_usd(given.monthly_cost_budget_usd),
        requests_per_minute=REQUESTS_PER_MINUTE if given.rate_limit_rpm is None else given.rate_limit_rpm,
        tokens_per_minute=TOKENS_PER_MINUTE if given.rate_limit_tpm is None else given.rate_limit_tpm,
    )
    try:
        check(terms, environment)
    except GatewayError as error:
        field = error.metadata["param"]
        member = _MEMBERS.get(field, field)
        raise invalid(error.message.replace(field, member, 1), member) from None
    return Wanted(environment, terms, [f"{member[:64]}: unknown, ignored" for member in members if member not in _KNOWN])


def created(view: KeyView, text: str, said: list[str]) -> dict[str, Any]:
    """The document of a new key: the only one with its text."""
    shown = document(view) | {"key": text}
    return shown | {"warnings": said} if said else shown


def document(view: KeyView) -> dict[str, Any]:
    """A key as it is shown; of its text only what every key of its environment begins with."""
    key, usage = view
    terms = key.terms
    cost = terms.monthly_cost_budget_nano_usd
    return {
        "id": key.key_id,
        "key": PREFIXES[KeyEnvironment.ValueType(key.environment)] + "…",
        "name": terms.name,
        "environment": _NAMES[KeyEnvironment.ValueType(key.environment)],
        "enabled": terms.enabled and key.revoked_ns is None,
        "monthlyTokenBudget": terms.monthly_token_budget,
        "monthlyCostBudgetUsd": None if cost is None else cost / _NANO,
        "rateLimitRpm": terms.requests_per_minute,
        "rateLimitTpm": terms.tokens_per_minute,
        "tokensUsedThisMonth": usage.tokens,
        "costUsedThisMonthUsd": usage.cost_nano_usd / _NANO,
        "lastUsedAt": _time(usage.last_used_ns),
        "team": terms.team,
        "organisation": terms.organisation,
        "tier": terms.tier,
        "allowedModels": terms.allowed_models,
        "createdAt": _time(key.created_ns),
        "expiresAt": _time(terms.expires_ns),
    }


def encode(shown: Any) -> bytes:
    return json.dumps(shown).encode("ascii")


def _param(problem: str) -> str:
    """The member that msgspec names, as in "Expected `int`, got `str` - at `$.rateLimitRpm`"."""
    return problem.rpartition("`$.")[2].partition("`")[0].partition("[")[0] if "`$." in problem else ""


def _nano_usd(usd: Decimal) -> int:
    # Compared before it is multiplied out: an exponent may be anything.
    if not usd.is_finite() or not 0 <= usd <= _NANO:
        raise invalid(f"monthlyCostBudgetUsd: must be between 0 and {_NANO}", "monthlyCostBudgetUsd")
    return int((usd * _NANO).to_integral_value())


def _nanoseconds(time: datetime) -> int:
    """Raises GatewayError for a time before 1970 or with no zone."""
    if time.tzinfo is None or time.timestamp() <= 0:
        raise invalid("expiresAt: must be a time after 1970 with its zone, as in 2027-01-01T00:00:00Z", "expiresAt")
    seconds = int(time.timestamp())
    if seconds > 9_223_372_035:
        raise invalid("expiresAt: must be before the year 2262", "expiresAt")
    return seconds * 10**9 + time.microsecond * 1000


def _time(nanoseconds: int | None) -> str | None:
    return None if nanoseconds is None else datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(timespec="milliseconds")
