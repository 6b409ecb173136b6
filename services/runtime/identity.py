"""Who is calling: read from the credential that is presented, never from the body."""

import hashlib
import hmac
from dataclasses import dataclass

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.runtime.errors import GatewayError


@dataclass(frozen=True, slots=True)
class Caller:
    """`key_id` marks the credential in the books; `tenant` owns what is cached for it."""

    key_id: str
    tenant: str


ANONYMOUS = Caller(key_id="", tenant="")


class Identities:
    """Knows one static key, or lets everybody in. API keys of the ledger will be resolved here."""

    def __init__(self, gateway_api_key: str | None, auth_required: bool) -> None:
        self._key = None if gateway_api_key is None else _digest(gateway_api_key)
        self._auth_required = auth_required or gateway_api_key is not None

    def caller(self, authorization: str | None, api_key: str | None) -> Caller:
        """The caller behind an `authorization` or `x-api-key` header. Raises GatewayError INVALID_API_KEY."""
        presented = _bearer(authorization) or api_key
        if presented is None:
            if self._auth_required:
                raise _refusal("Missing API key: send it as `Authorization: Bearer <key>`.")
            return ANONYMOUS
        digest = _digest(presented)
        if self._auth_required and (self._key is None or not hmac.compare_digest(digest, self._key)):
            raise _refusal("Incorrect API key provided.")
        # Different credentials never share cached answers, even while nobody checks them.
        mark = digest.hex()[:16]
        return Caller(key_id=mark, tenant=mark)


def _bearer(authorization: str | None) -> str | None:
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _refusal(message: str) -> GatewayError:
    return GatewayError(ErrorReason.ERROR_REASON_INVALID_API_KEY, message)
