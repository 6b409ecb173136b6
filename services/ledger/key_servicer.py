"""KeyService over gRPC: whose a key is, for routers."""

from collections.abc import AsyncIterator

from joulegate.ledger.v1 import key_service_pb2 as pb
from joulegate.ledger.v1 import key_service_pb2_grpc as pb_grpc
from services.ledger.api_key import UNUSED, KeyView, message_of
from services.ledger.keys import Keys
from services.runtime.interceptors import Context


class KeyServicer(pb_grpc.KeyServiceServicer):
    """See key_service.proto."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def ResolveKey(self, request: pb.ResolveKeyRequest, context: Context) -> pb.ResolveKeyResponse:
        key = await self._keys.find(request.digest)
        return pb.ResolveKeyResponse(key=None if key is None else message_of(KeyView(key, UNUSED)))

    async def WatchKeys(self, request: pb.WatchKeysRequest, context: Context) -> AsyncIterator[pb.WatchKeysResponse]:
        salt: bytes | None = await self._keys.salt()
        async for digests in self._keys.changes():
            yield pb.WatchKeysResponse(anonymous_salt=salt or b"", changed_digests=digests)
            salt = None
