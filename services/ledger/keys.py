"""The ledger's keys: makes and changes them, finds them for routers, and tells routers which ones to forget.

A change is told by the ledger that made it at once; where several share the books, each asks every second whether another has made one.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from datetime import UTC, datetime
from typing import Final, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.ledger.v1.key_pb2 import ApiKey
from services.ledger.api_key import (
    UNUSED,
    Key,
    KeyTerms,
    KeyView,
    Randomness,
    amended,
    check,
    digest_of,
    invalid,
    new_key,
)
from services.ledger.key_store import KeyReader, KeyWriter
from services.runtime import logs
from services.runtime.clock import Clock
from services.runtime.errors import GatewayError

log = logs.get(__name__)

T = TypeVar("T")
POLL_S: Final = 1.0
SALT_BYTES: Final = 32


async def _tell_nobody() -> None:
    """Where there are no routers with leases."""


class KeyThreads:
    """Where questions wait: changes, what operators see, and what routers ask each on their own, so that none holds another up."""

    def __init__(self, writing: Executor, viewing: Executor, finding: Executor) -> None:
        self.writing = writing
        self.viewing = viewing
        self.finding = finding


class Keys:
    """Everything about keys. `viewer` and `finder` are readers with connections of their own."""

    def __init__(
        self,
        writer: KeyWriter,
        viewer: KeyReader,
        finder: KeyReader,
        threads: KeyThreads,
        clock: Clock,
        random_bytes: Randomness = secrets.token_bytes,
        changed: Callable[[], Awaitable[None]] = _tell_nobody,
    ) -> None:
        self._writer = writer
        self._viewer = viewer
        self._finder = finder
        self._threads = threads
        self._clock = clock
        self._random_bytes = random_bytes
        # Called after each change of a key.
        self._changed = changed
        self._salt: bytes | None = None
        self._watchers: set[asyncio.Queue[list[bytes] | None]] = set()
        self._is_draining = False

    async def create(self, environment: int, terms: KeyTerms) -> tuple[KeyView, str]:
        """A new key, and its text. Raises GatewayError for terms that no key can have."""
        check(terms, environment)
        now_ns = self._now_ns()
        _check_expiry(terms, now_ns)
        key, text = new_key(environment, terms, now_ns, self._random_bytes)
        await self._ask(self._threads.writing, lambda: self._writer.insert(key))
        self._tell([key.digest])
        log.info("key_created", key_id=key.key_id)
        return KeyView(key, UNUSED), text

    async def get(self, key_id: str) -> KeyView:
        """Raises GatewayError NOT_FOUND."""
        view = await self._ask(self._threads.viewing, lambda: self._viewer.view(key_id, self._month_ns()))
        if view is None:
            raise _not_found()
        return view

    async def page(self, limit: int | None, before: int | None = None, *, show_revoked: bool = False) -> list[tuple[int, KeyView]]:
        """Keys with their sequence numbers, newest first."""
        month_ns = self._month_ns()
        return await self._ask(self._threads.viewing, lambda: self._viewer.views(limit, before, month_ns, show_revoked=show_revoked))

    async def update(self, message: ApiKey, paths: list[str]) -> KeyView:
        """The key with what the paths name changed. Raises GatewayError, NOT_FOUND among others."""
        now_ns = self._now_ns()

        def change(key: Key) -> Key:
            if key.revoked_ns is not None:
                raise invalid("the key is revoked, which is for good", "key_id")
            terms = amended(key.terms, message, paths)
            check(terms, key.environment)
            if terms.expires_ns != key.terms.expires_ns:
                _check_expiry(terms, now_ns)
            return key._replace(terms=terms)

        await self._change(lambda: self._writer.change(message.key_id, change, now_ns))
        return await self.get(message.key_id)

    async def revoke(self, key_id: str) -> KeyView:
        """The key, which is refused from now on. Raises GatewayError NOT_FOUND."""
        await self._change(lambda: self._writer.change(key_id, self._revoked, self._now_ns()))
        return await self.get(key_id)

    async def delete(self, id_or_text: str) -> bool:
        """Revokes the key of that id or text; whether there was one to revoke."""
        digest, now_ns = digest_of(id_or_text), self._now_ns()
        for act in (
            lambda: self._writer.change(id_or_text, self._revoked, now_ns),
            lambda: self._writer.change_by_digest(digest, self._revoked, now_ns),
        ):
            try:
                before, _ = await self._change(act)
            except GatewayError as error:
                if error.reason != ErrorReason.ERROR_REASON_NOT_FOUND:
                    raise
            else:
                return before.revoked_ns is None
        return False

    async def find(self, digest: bytes) -> Key | None:
        """The key of a text, for routers."""
        return await self._ask(self._threads.finding, lambda: self._finder.by_digest(digest))

    async def salt(self) -> bytes:
        """What addresses of anonymous callers are hashed with."""
        if self._salt is None:
            self._salt = await self._ask(self._threads.writing, lambda: self._writer.salt(self._random_bytes(SALT_BYTES)))
        return self._salt

    async def changes(self) -> AsyncIterator[list[bytes]]:
        """Digests of keys that change from now on, as they do; an empty list first. Ends when the ledger drains."""
        queue: asyncio.Queue[list[bytes] | None] = asyncio.Queue()
        self._watchers.add(queue)
        try:
            yield []
            while not self._is_draining and (digests := await queue.get()) is not None:
                yield digests
        finally:
            self._watchers.discard(queue)

    def drain(self) -> None:
        """Ends what watches."""
        self._is_draining = True
        for queue in self._watchers:
            queue.put_nowait(None)

    async def follow(self, seen: int) -> None:
        """Tells what other ledgers change after the revision `seen`, for ever; returns at once where there are none."""
        while self._writer.is_shared:
            try:
                seen, digests = await self._ask(self._threads.viewing, lambda since=seen: self._viewer.changes(since))  # type: ignore[misc]
                self._tell(digests)
            except GatewayError:
                # Said by whoever needs the books; it is asked again soon.
                log.debug("key_changes_unknown")
            await asyncio.sleep(POLL_S)

    async def _change(self, change: Callable[[], tuple[Key, Key] | None]) -> tuple[Key, Key]:
        changed = await self._ask(self._threads.writing, change)
        if changed is None:
            raise _not_found()
        before, after = changed
        if after != before:
            self._tell([after.digest])
            await self._changed()
            log.info("key_changed", key_id=after.key_id, revoked=after.revoked_ns is not None, enabled=after.terms.enabled)
        return changed

    def _revoked(self, key: Key) -> Key:
        return key if key.revoked_ns is not None else key._replace(revoked_ns=self._now_ns())

    def _tell(self, digests: list[bytes]) -> None:
        if digests:
            for queue in self._watchers:
                queue.put_nowait(digests)

    def _now_ns(self) -> int:
        return int(self._clock.now() * 1e9)

    def _month_ns(self) -> int:
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        return int(datetime(now.year, now.month, 1, tzinfo=UTC).timestamp()) * 10**9

    @staticmethod
    async def _ask(thread: Executor, question: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, question)
        except SQLAlchemyError as error:
            # Its words hold the values of the statement.
            log.error("keys_unavailable", error=type(error).__name__)
            raise GatewayError(ErrorReason.ERROR_REASON_LEDGER_UNAVAILABLE, "the keys cannot be read or written", retry_after_s=1) from None


def _check_expiry(terms: KeyTerms, now_ns: int) -> None:
    if terms.expires_ns is not None and terms.expires_ns <= now_ns:
        raise invalid("expire_time: is in the past; to refuse the key now, disable or revoke it", "expire_time")


def _not_found() -> GatewayError:
    # Whatever was asked for is not repeated: it may be the text of a key.
    return GatewayError(ErrorReason.ERROR_REASON_NOT_FOUND, "there is no such key")
