"""Keeps the catalogue as fresh as dispatch tells it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from joulegate.dispatch.v1 import dispatch_service_pb2_grpc as pb_grpc
from services.router.catalogue import Catalogue
from services.runtime import logs
from services.runtime.errors import GatewayError

log = logs.get(__name__)

RETRY_S = 0.2
FIRST_PICTURE_S = 5.0


class ProviderWatch:
    """The newest catalogue. It outlives dispatch: what was served is still known while dispatch restarts."""

    def __init__(self, stub: pb_grpc.DispatchServiceStub) -> None:
        self._stub = stub
        self._catalogue = Catalogue()
        self._seen = asyncio.Event()

    @property
    def latest(self) -> Catalogue:
        """The newest picture; empty before the first."""
        return self._catalogue

    async def catalogue(self) -> Catalogue:
        """The newest picture, waiting for the first. Raises SERVICE_UNAVAILABLE when there is none in time."""
        if not self._seen.is_set():
            try:
                await asyncio.wait_for(self._seen.wait(), FIRST_PICTURE_S)
            except TimeoutError:
                raise GatewayError(
                    ErrorReason.ERROR_REASON_SERVICE_UNAVAILABLE, "Dispatch cannot be reached. Try again shortly.", retry_after_s=1
                ) from None
        return self._catalogue

    async def keep_watching(self) -> None:
        """Runs until cancelled."""
        while True:
            try:
                async for response in self._stub.WatchProviders(pb.WatchProvidersRequest()):
                    self._catalogue = Catalogue(response.providers)
                    self._seen.set()
            except grpc.aio.AioRpcError as error:
                log.debug("provider_watch_broke", reason=error.details())
            await asyncio.sleep(RETRY_S)


@asynccontextmanager
async def watch_providers(stub: pb_grpc.DispatchServiceStub) -> AsyncIterator[ProviderWatch]:
    """A watch that runs while entered."""
    watch = ProviderWatch(stub)
    keeper = asyncio.create_task(watch.keep_watching())
    try:
        yield watch
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
