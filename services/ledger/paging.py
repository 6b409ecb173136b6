"""Page tokens: where a list of rows goes on, sealed so that only tokens that were given out are taken."""

import base64
import binascii
import hashlib
import hmac
import struct
from typing import Final

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.runtime.errors import GatewayError

DEFAULT_SIZE: Final = 50
MAX_SIZE: Final = 1000
_SEAL_BYTES: Final = 12
_SEQUENCE: Final = struct.Struct(">q")


def page_size(asked: int) -> int:
    """The rows to give. Raises GatewayError for a negative number."""
    if asked < 0:
        raise GatewayError(ErrorReason.ERROR_REASON_INVALID_REQUEST, "page_size must not be negative", {"param": "page_size"})
    return min(asked or DEFAULT_SIZE, MAX_SIZE)


class PageTokens:
    """Seals positions with a secret. A token is good for the filter that it was given out for, also after a restart."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def write(self, before: int, request_id: str) -> str:
        position = _SEQUENCE.pack(before)
        return base64.urlsafe_b64encode(position + self._seal(position, request_id)).decode("ascii")

    def read(self, token: str, request_id: str) -> int | None:
        """The position of a token; None when it is empty. Raises GatewayError for one that was not given out."""
        if not token:
            return None
        try:
            sealed = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error):
            sealed = b""
        position = sealed[: _SEQUENCE.size]
        if len(position) < _SEQUENCE.size or not hmac.compare_digest(sealed[_SEQUENCE.size :], self._seal(position, request_id)):
            raise GatewayError(ErrorReason.ERROR_REASON_INVALID_REQUEST, "page_token was not given out", {"param": "page_token"})
        return int(_SEQUENCE.unpack(position)[0])

    def _seal(self, position: bytes, request_id: str) -> bytes:
        return hmac.digest(self._secret, b"page" + position + request_id.encode(), hashlib.sha256)[:_SEAL_BYTES]
