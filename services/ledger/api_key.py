"""API keys: their text, what may be said of them, and how they change.

A key's text has 256 random bits, so its plain SHA-256 is all that has to be kept: what makes hashes slow on purpose, guessing, is hopeless
anyway. For the same reason finding a key by its digest tells nobody anything by the time that it takes.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.ledger.v1.key_pb2 import ApiKey, KeyEnvironment
from services.runtime.errors import GatewayError

PREFIXES: Final = {
    KeyEnvironment.KEY_ENVIRONMENT_PRODUCTION: "gw-prod-",
    KeyEnvironment.KEY_ENVIRONMENT_STAGING: "gw-stg-",
    KeyEnvironment.KEY_ENVIRONMENT_DEVELOPMENT: "gw-dev-",
}
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# As many of its letters as 256 bits take.
_LETTERS: Final = 43
_SECRET_BYTES: Final = 32
_ID_BYTES: Final = 8
MAX_NAME_CHARACTERS: Final = 200
MAX_PATTERNS: Final = 100
MAX_PATTERN_CHARACTERS: Final = 256
# More than anybody means: a million tokens for each of a million requests, and a billion dollars.
MAX_COUNT: Final = 10**12
MAX_BUDGET_NANO_USD: Final = 10**18
# What bounds the key's calls.
_BOUNDS: Final = ("tier", "monthly_token_budget", "monthly_cost_budget_nano_usd", "requests_per_minute", "tokens_per_minute")
_COUNTS: Final = ("monthly_token_budget", "requests_per_minute", "tokens_per_minute")
# Of the message: what an operator may change, by the field of KeyTerms.
_FIELDS: Final = {
    "name": "name",
    "team": "team",
    "organisation": "organisation",
    "tier": "tier",
    "allowed_models": "allowed_models",
    "enabled": "enabled",
    "expire_time": "expires_ns",
    **{name: name for name in _BOUNDS},
}
_MAX_SECONDS: Final = 9_223_372_035

Randomness = Callable[[int], bytes]


class KeyTerms(NamedTuple):
    """What an operator says of a key. Times are in nanoseconds since 1970; None: nothing said."""

    name: str
    team: str = ""
    organisation: str = ""
    tier: str = ""
    allowed_models: tuple[str, ...] = ()
    enabled: bool = True
    expires_ns: int | None = None
    monthly_token_budget: int | None = None
    monthly_cost_budget_nano_usd: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


class Key(NamedTuple):
    """A key as the ledger keeps it."""

    key_id: str
    digest: bytes
    environment: int
    created_ns: int
    revoked_ns: int | None
    terms: KeyTerms


class Usage(NamedTuple):
    """What the books say of a key: when its newest row began, and sums over the rows of this month."""

    last_used_ns: int | None
    tokens: int
    cost_nano_usd: int


class KeyView(NamedTuple):
    """A key as it is shown."""

    key: Key
    usage: Usage


UNUSED: Final = Usage(None, 0, 0)


def digest_of(text: str) -> bytes:
    """What is kept of a key's text."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def new_key(environment: int, terms: KeyTerms, created_ns: int, random_bytes: Randomness) -> tuple[Key, str]:
    """A key of these checked terms, and its text. An unspecified environment is development."""
    environment = environment or KeyEnvironment.KEY_ENVIRONMENT_DEVELOPMENT
    text = PREFIXES[KeyEnvironment.ValueType(environment)] + _letters(int.from_bytes(random_bytes(_SECRET_BYTES), "big"))
    return Key(f"key_{random_bytes(_ID_BYTES).hex()}", digest_of(text), environment, created_ns, None, terms), text


def _letters(number: int) -> str:
    digits = ""
    for _ in range(_LETTERS):
        number, digit = divmod(number, len(_ALPHABET))
        digits += _ALPHABET[digit]
    return digits


def terms_of(message: ApiKey) -> KeyTerms:
    """The terms in a message. Raises GatewayError INVALID_REQUEST for a time that is none; the rest is `check`'s."""
    return KeyTerms(
        name=message.name,
        team=message.team,
        organisation=message.organisation,
        tier=message.tier,
        allowed_models=tuple(message.allowed_models),
        enabled=message.enabled if message.HasField("enabled") else True,
        expires_ns=_nanoseconds(message.expire_time) if message.HasField("expire_time") else None,
        **{name: getattr(message, name) if message.HasField(name) else None for name in _BOUNDS if name != "tier"},  # type: ignore[arg-type]
    )


def amended(terms: KeyTerms, message: ApiKey, paths: Collection[str]) -> KeyTerms:
    """The terms with the fields at these paths taken from a message, or with those that are present in it when there are none.

    Raises GatewayError INVALID_REQUEST for a field that cannot be changed.
    """
    paths = paths or [field.name for field, _ in message.ListFields() if field.name in _FIELDS]
    for path in paths:
        if path not in _FIELDS:
            raise invalid(f"{path!r} cannot be changed; what can be: {', '.join(_FIELDS)}", "update_mask")
    given = terms_of(message)
    return terms._replace(**{_FIELDS[path]: getattr(given, _FIELDS[path]) for path in paths})


def check(terms: KeyTerms, environment: int = 0) -> None:
    """Raises GatewayError INVALID_REQUEST that names the first thing in `param` that no key can have."""
    for param, problem in _problems(terms, environment):
        raise invalid(f"{param}: {problem}", param)


def _problems(terms: KeyTerms, environment: int) -> Iterator[tuple[str, str]]:
    if not terms.name.strip():
        yield "name", "missing"
    for param in ("name", "team", "organisation", "tier"):
        text = getattr(terms, param)
        if len(text) > MAX_NAME_CHARACTERS or not (text.isprintable() or not text):
            yield param, f"at most {MAX_NAME_CHARACTERS} characters, all printable"
    if environment not in KeyEnvironment.values():
        yield "environment", "not one that there is"
    if len(terms.allowed_models) > MAX_PATTERNS:
        yield "allowed_models", f"more than {MAX_PATTERNS} patterns"
    if not all(0 < len(pattern) <= MAX_PATTERN_CHARACTERS and pattern.isprintable() for pattern in terms.allowed_models):
        yield "allowed_models", f"each pattern has 1 to {MAX_PATTERN_CHARACTERS} printable characters"
    for param in _COUNTS:
        if not 0 <= (getattr(terms, param) or 0) <= MAX_COUNT:
            yield param, f"must be between 0 and {MAX_COUNT}"
    if not 0 <= (terms.monthly_cost_budget_nano_usd or 0) <= MAX_BUDGET_NANO_USD:
        yield "monthly_cost_budget_nano_usd", f"must be between 0 and {MAX_BUDGET_NANO_USD} billionths of a US dollar"


def message_of(view: KeyView) -> ApiKey:
    """A key as it is shown."""
    key, usage = view
    terms = key.terms
    shown = ApiKey(
        key_id=key.key_id,
        name=terms.name,
        environment=KeyEnvironment.ValueType(key.environment),
        team=terms.team,
        organisation=terms.organisation,
        tier=terms.tier,
        allowed_models=terms.allowed_models,
        enabled=terms.enabled,
        monthly_token_budget=terms.monthly_token_budget,
        monthly_cost_budget_nano_usd=terms.monthly_cost_budget_nano_usd,
        requests_per_minute=terms.requests_per_minute,
        tokens_per_minute=terms.tokens_per_minute,
        tokens_used_this_month=usage.tokens,
        cost_nano_usd_this_month=usage.cost_nano_usd,
    )
    for time, nanoseconds in (
        (shown.create_time, key.created_ns),
        (shown.expire_time, terms.expires_ns),
        (shown.revoke_time, key.revoked_ns),
        (shown.last_use_time, usage.last_used_ns),
    ):
        if nanoseconds is not None:
            time.FromNanoseconds(nanoseconds)
    return shown


def columns_of(key: Key) -> dict[str, Any]:
    """A key as a row of its table."""
    fields = key._asdict() | key.terms._asdict()
    del fields["terms"]
    return fields | {"allowed_models": json.dumps(key.terms.allowed_models)}


def key_of_row(row: Any) -> Key:
    """The key that a row keeps."""
    terms = {name: getattr(row, name) for name in KeyTerms._fields}
    terms["allowed_models"] = tuple(json.loads(row.allowed_models))
    return Key(row.key_id, bytes(row.digest), row.environment, row.created_ns, row.revoked_ns, KeyTerms(**terms))


def invalid(message: str, param: str) -> GatewayError:
    return GatewayError(ErrorReason.ERROR_REASON_INVALID_REQUEST, message, {"param": param})


def _nanoseconds(time: Timestamp) -> int:
    if not (0 < time.seconds <= _MAX_SECONDS and 0 <= time.nanos < 1_000_000_000):
        raise invalid("expire_time: not a time since 1970", "expire_time")
    return time.ToNanoseconds()
