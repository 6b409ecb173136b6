"""A ledger's keys in a test's hands."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.ledger.v1 import key_service_pb2 as pb
from joulegate.ledger.v1 import key_service_pb2_grpc as pb_grpc
from joulegate.ledger.v1.key_pb2 import ApiKey
from services.runtime.errors import GatewayError

PATIENCE_S = 30
_GIVEN: dict[str, Any] = {"key_id": "key_1", "enabled": True}


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


class FakeKeys(pb_grpc.KeyServiceServicer):
    """Answers what it was given; `asked` counts questions. While `is_away` it answers none, and while `gate` is closed it waits."""

    def __init__(self, salt: bytes = b"salt") -> None:
        self.keys: dict[bytes, ApiKey] = {}
        self.asked: Counter[bytes] = Counter()
        self.is_away = False
        self.gate = asyncio.Event()
        self.gate.set()
        self._salt = salt
        self._news: asyncio.Queue[pb.WatchKeysResponse | None] = asyncio.Queue()

    def give(self, text: str, **fields: Any) -> ApiKey:
        key = self.keys[digest(text)] = ApiKey(**_GIVEN | fields)
        return key

    def tell(self, *texts: str) -> None:
        """Says that these keys changed."""
        self._news.put_nowait(pb.WatchKeysResponse(changed_digests=[digest(text) for text in texts]))

    def end_watch(self) -> None:
        self._news.put_nowait(None)

    async def ResolveKey(self, request: pb.ResolveKeyRequest, context: Any) -> pb.ResolveKeyResponse:
        self.asked[request.digest] += 1
        if self.is_away:
            raise GatewayError(ErrorReason.ERROR_REASON_SERVICE_UNAVAILABLE, "away")
        # Read before the wait, as a slow ledger would.
        key = self.keys.get(request.digest)
        await self.gate.wait()
        return pb.ResolveKeyResponse(key=key)

    async def WatchKeys(self, request: pb.WatchKeysRequest, context: Any) -> AsyncIterator[pb.WatchKeysResponse]:
        yield pb.WatchKeysResponse(anonymous_salt=self._salt)
        while (news := await self._news.get()) is not None:
            yield news
