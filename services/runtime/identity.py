"""Who is calling: read from the credential that is presented, never from the body."""

import fnmatch
import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.runtime.errors import GatewayError


class ModelScope:
    """The models that a key may use: patterns for a model's own name or, with a slash, also for `provider/model`. Capitals count."""

    def __init__(self, patterns: Iterable[str]) -> None:
        listed = list(patterns)
        self.patterns = tuple(sorted(set(listed)))
        self._own = _any_of(listed)
        # `l*` is for models: it must not let in all that a provider called `lab` has.
        self._qualified = _any_of([pattern for pattern in listed if "/" in pattern])

    def allows(self, provider: str, model: str) -> bool:
        return self._own.match(model) is not None or self._qualified.match(f"{provider}/{model}") is not None


@dataclass(frozen=True, slots=True)
class Caller:
    """`key_id` marks the credential in the books; `tenant` owns what is cached for it. No `models`: all of them."""

    key_id: str
    tenant: str
    models: ModelScope | None = None

    def may_use(self, provider: str, model: str) -> bool:
        return self.models is None or self.models.allows(provider, model)


ANONYMOUS = Caller(key_id="", tenant="")


def credential(authorization: str | None, api_key: str | None) -> str | None:
    """What an `authorization` or `x-api-key` header presents; None: nothing."""
    return _bearer(authorization) or api_key


def digest_of(presented: str) -> bytes:
    """SHA-256: what a credential is known by inside."""
    return hashlib.sha256(presented.encode("utf-8", "surrogateescape")).digest()


def marked(digest: bytes) -> Caller:
    """A credential that nobody knows more of: different ones never share cached answers, even while nobody checks them."""
    mark = digest.hex()[:16]
    return Caller(key_id=mark, tenant=mark)


class StaticKey:
    """The one key of GATEWAY_API_KEY, or none."""

    def __init__(self, key: str | None) -> None:
        self._digest = None if key is None else digest_of(key)

    @property
    def is_set(self) -> bool:
        return self._digest is not None

    def matches(self, digest: bytes) -> bool:
        """In constant time."""
        return self._digest is not None and hmac.compare_digest(digest, self._digest)


class Identities:
    """Knows the static key, or lets everybody in. The ledger's keys are the router's affair."""

    def __init__(self, gateway_api_key: str | None, auth_required: bool) -> None:
        self._static_key = StaticKey(gateway_api_key)
        self._auth_required = auth_required or self._static_key.is_set

    def caller(self, authorization: str | None, api_key: str | None) -> Caller:
        """The caller behind an `authorization` or `x-api-key` header. Raises GatewayError INVALID_API_KEY."""
        presented = credential(authorization, api_key)
        if presented is None:
            if self._auth_required:
                raise missing_key()
            return ANONYMOUS
        digest = digest_of(presented)
        if self._auth_required and not self._static_key.matches(digest):
            raise refused_key("Incorrect API key provided.")
        return marked(digest)


def missing_key() -> GatewayError:
    return refused_key("Missing API key: send it as `Authorization: Bearer <key>`.")


def refused_key(message: str) -> GatewayError:
    return GatewayError(ErrorReason.ERROR_REASON_INVALID_API_KEY, message)


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    # Without any, one that nothing matches.
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns) or "(?!)")


def _bearer(authorization: str | None) -> str | None:
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None
