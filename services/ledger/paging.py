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
        return self.seal(_SEQUENCE.pack(before), request_id.encode())

    def read(self, token: str, request_id: str) -> int | None:
        """The position of a token; None when it is empty. Raises GatewayError for one that was not given out."""
        position = self.open(token, request_id.encode())
        return None if position is None else int(_SEQUENCE.unpack(position)[0])

    def seal(self, position: bytes, asked: bytes) -> str:
        """The token of any position in the answer to what was asked. What seals one kind of positions must not seal another."""
        return base64.urlsafe_b64encode(position + self._seal(position, asked)).decode("ascii")

    def open(self, token: str, asked: bytes) -> bytes | None:
        """The position of a token that was sealed; None when it is empty. Raises GatewayError for one that was not given out."""
        if not token:
            return None
        try:
            sealed = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error):
            sealed = b""
        position, seal = sealed[:-_SEAL_BYTES], sealed[-_SEAL_BYTES:]
        if not position or not hmac.compare_digest(seal, self._seal(position, asked)):
            raise GatewayError(ErrorReason.ERROR_REASON_INVALID_REQUEST, "page_token was not given out", {"param": "page_token"})
        return position

    def _seal(self, position: bytes, asked: bytes) -> bytes:
        # With its length: what ends the one must not begin the other.
        sealed = b"page" + len(position).to_bytes(4, "big") + position + asked
        return hmac.digest(self._secret, sealed, hashlib.sha256)[:_SEAL_BYTES]
