"""The operator's key, which every admin call must present."""

import hmac

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.runtime.errors import GatewayError


class AdminKey:
    """None: the admin API is switched off."""

    def __init__(self, key: str | None) -> None:
        self._key = key

    def check(self, authorization: str | None) -> None:
        """Raises GatewayError unless `authorization` is `Bearer` and the key. Takes the same time for every wrong key."""
        if self.is_presented(authorization):
            return
        if self._key is None:
            raise GatewayError(ErrorReason.ERROR_REASON_PERMISSION_DENIED, "the admin API is off: ADMIN_API_KEY is not set")
        raise GatewayError(ErrorReason.ERROR_REASON_INVALID_API_KEY, "the admin key is missing or wrong")

    def is_presented(self, authorization: str | None) -> bool:
        """Whether `authorization` is `Bearer` and the key, for methods that others may call too. Takes the same time likewise."""
        scheme, _, given = (authorization or "").partition(" ")
        return self._key is not None and scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._key.encode())
