"""Versions of the routing policy: keeps them, and tells routers of new ones.

A version is told by the ledger that stored it at once; where several share the books, each looks for another's twice a second, so that all
routers have it within one.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from typing import Final, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.ledger.policy_store import PolicyStore, PolicyVersion
from services.runtime import logs
from services.runtime.clock import Clock
from services.runtime.errors import GatewayError

log = logs.get(__name__)

T = TypeVar("T")
POLL_S: Final = 0.4
MAX_DOCUMENT_BYTES: Final = 256 * 1024
MAX_COMMENT: Final = 500


class Policies:
    """`thread` is where the store is asked."""

    def __init__(self, store: PolicyStore, thread: Executor, clock: Clock) -> None:
        self._store = store
        self._thread = thread
        self._clock = clock
        self._newest: PolicyVersion | None = None
        self._watchers: set[asyncio.Queue[PolicyVersion | None]] = set()
        self._is_draining = False

    async def load(self) -> None:
        """Reads which version is in force. To be called once, before anything else."""
        self._newest = await self._ask(self._store.newest)

    async def add(self, document: str, comment: str, expected: int | None) -> PolicyVersion:
        """A new version. Raises GatewayError when it is too large, or when `expected` is not the newest one."""
        if len(document.encode()) > MAX_DOCUMENT_BYTES:
            raise _invalid(f"document: longer than {MAX_DOCUMENT_BYTES} bytes")
        if len(comment) > MAX_COMMENT or "\0" in comment + document:
            raise _invalid(f"comment: longer than {MAX_COMMENT} characters, or not text")
        created_ns = int(self._clock.now() * 1e9)
        added = await self._ask(lambda: self._store.add(document, created_ns, comment, expected))
        if added is None:
            raise GatewayError(
                ErrorReason.ERROR_REASON_CONFLICT, f"the policy has changed since version {expected}: read it again, then change it"
            )
        log.info("policy_stored", version=added.version)
        self._tell(added)
        return added

    async def get(self, version: int) -> PolicyVersion:
        """Raises GatewayError NOT_FOUND."""
        found = await self._ask(lambda: self._store.get(version))
        if found is None:
            raise GatewayError(ErrorReason.ERROR_REASON_NOT_FOUND, f"there is no version {version} of the policy")
        return found

    async def page(self, limit: int, before: int | None) -> list[PolicyVersion]:
        """Versions below `before`, newest first."""
        return await self._ask(lambda: self._store.page(limit, before))

    async def versions(self) -> AsyncIterator[PolicyVersion | None]:
        """The newest version, None when there is none, and newer ones as they come. Ends when the ledger drains."""
        queue: asyncio.Queue[PolicyVersion | None] = asyncio.Queue()
        self._watchers.add(queue)
        try:
            yield self._newest
            while not self._is_draining and (newer := await queue.get()) is not None:
                yield newer
        finally:
            self._watchers.discard(queue)

    async def follow(self) -> None:
        """Tells what other ledgers store, for ever; returns at once where there are none."""
        while self._store.is_shared:
            try:
                newest = await self._ask(self._store.newest)
                if newest is not None:
                    self._tell(newest)
            except GatewayError:
                # Said by whoever needs the books; it is asked again soon.
                log.debug("policies_unknown")
            await asyncio.sleep(POLL_S)

    def drain(self) -> None:
        """Ends what watches."""
        self._is_draining = True
        for queue in self._watchers:
            queue.put_nowait(None)

    def _tell(self, version: PolicyVersion) -> None:
        if self._newest is not None and version.version <= self._newest.version:
            return
        self._newest = version
        for queue in self._watchers:
            queue.put_nowait(version)

    async def _ask(self, question: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, question)
        except SQLAlchemyError as error:
            log.error("policies_unavailable", error=type(error).__name__)
            raise GatewayError(ErrorReason.ERROR_REASON_LEDGER_UNAVAILABLE, "policies cannot be read or written", retry_after_s=1) from None


def _invalid(message: str) -> GatewayError:
    return GatewayError(ErrorReason.ERROR_REASON_INVALID_REQUEST, message, {"param": message.partition(":")[0]})
