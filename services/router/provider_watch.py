"""Keeps the catalogue, and the figures of what is in it, as fresh as dispatch tells them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from joulegate.dispatch.v1 import dispatch_service_pb2_grpc as pb_grpc
from services.router.catalogue import Catalogue
from services.router.load import Load
from services.runtime import logs
from services.runtime.errors import GatewayError

log = logs.get(__name__)

RETRY_S = 0.2
FIRST_PICTURE_S = 5.0


class ProviderWatch:
    """The newest catalogue. It outlives dispatch: what was served is still known while dispatch restarts."""

    def __init__(self, stub: pb_grpc.DispatchServiceStub, now: Callable[[], float] = time.monotonic) -> None:
        self._stub = stub
        self._now = now
        self._load = Load()
        self._catalogue = Catalogue(load=self._load)
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
                    self._take_in(response)
            except grpc.aio.AioRpcError as error:
                log.debug("provider_watch_broke", reason=error.details())
            await asyncio.sleep(RETRY_S)

    def _take_in(self, response: pb.WatchProvidersResponse) -> None:
        self._load.tell(response.figures, self._now(), is_whole=not response.figures_only)
        if not response.figures_only:
            self._catalogue = Catalogue(response.providers, self._load)
            self._seen.set()


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
