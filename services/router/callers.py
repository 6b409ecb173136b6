"""Tells callers from each other: by the ledger's keys, by the static key, or, where nobody is refused, by whatever they present.

Text that cannot be a key of the ledger's is never asked for, and text that can be is asked for once at a time. An anonymous caller is
marked in the books by a keyed hash of its address, whose key the ledger keeps; what is cached for anonymous callers they share.
"""

import asyncio
import hashlib
import ipaddress
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import grpc

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.ledger.v1 import key_service_pb2 as pb
from joulegate.ledger.v1 import key_service_pb2_grpc as pb_grpc
from services.router import metrics
from services.router.key_cache import Kept, KeyCache, standing_of
from services.runtime import logs
from services.runtime.clock import Clock
from services.runtime.errors import GatewayError
from services.runtime.identity import ANONYMOUS, Caller, StaticKey, credential, digest_of, marked, missing_key, refused_key

log = logs.get(__name__)

RETRY_S: Final = 0.2
# How long a ledger that did not answer is not asked for keys that were known before.
AWAY_S: Final = 2.0
# Keys that are asked for at once. Beyond it somebody makes them up, and those that are not known yet have to wait.
MAX_ASKED: Final = 256
MAX_ADDRESSES: Final = 10_000
_KEY = re.compile(r"gw-(?:prod|stg|dev)-[0-9A-Za-z]{43}")
# Of an IPv6 address: what one customer of a provider has. An IPv4 address is shorter.
_PREFIX_BYTES: Final = 8


class Callers:
    """Made by `open_callers`, which keeps it told of changes."""

    def __init__(self, static_key: StaticKey, auth_required: bool, keys: pb_grpc.KeyServiceStub, clock: Clock, wait_s: float) -> None:
        self._static_key = static_key
        self._demands_key = auth_required or static_key.is_set
        self._keys = keys
        self._clock = clock
        self._wait_s = wait_s
        self._cache = KeyCache()
        self._asked: dict[bytes, asyncio.Task[Kept | GatewayError]] = {}
        self._away_until = 0.0
        self._salt = b""
        self._anonymous: OrderedDict[str, Caller] = OrderedDict()

    async def caller(self, headers: Mapping[str, str]) -> Caller:
        """Who sends these headers. Raises GatewayError INVALID_API_KEY, or LEDGER_UNAVAILABLE when a key cannot be asked for."""
        presented = credential(headers.get("authorization"), headers.get("x-api-key"))
        if presented is None:
            if self._demands_key:
                raise missing_key()
            return self._anonymous_at(headers.get("x-forwarded-for", ""))
        digest = digest_of(presented)
        if self._static_key.matches(digest):
            return marked(digest)
        if _KEY.fullmatch(presented) is not None:
            kept = self._cache.fresh(digest, self._clock.monotonic()) or await self._ask(digest)
            if (standing := kept.standing) is not None:
                if standing.refusal:
                    raise refused_key(standing.refusal)
                if self._clock.now() >= standing.expires_at:
                    raise refused_key("This API key has expired.")
                return standing.caller
        if self._demands_key:
            raise refused_key("Incorrect API key provided.")
        return marked(digest)

    async def keep_watching(self) -> None:
        """Runs until cancelled."""
        while True:
            try:
                async for response in self._keys.WatchKeys(pb.WatchKeysRequest()):
                    self._take_in(response)
            except grpc.aio.AioRpcError as error:
                log.debug("key_watch_broke", reason=error.details())
            self._cache.is_watched = False
            await asyncio.sleep(RETRY_S)

    def _take_in(self, response: pb.WatchKeysResponse) -> None:
        if not self._cache.is_watched:
            self._cache.is_watched = True
            self._cache.age(self._clock.monotonic())
            self._away_until = 0.0
        if response.anonymous_salt and response.anonymous_salt != self._salt:
            self._salt = response.anonymous_salt
            self._anonymous.clear()
        if response.changed_digests:
            self._cache.drop(response.changed_digests)

    async def _ask(self, digest: bytes) -> Kept:
        task = self._asked.get(digest)
        if task is None:
            is_flooded, now = len(self._asked) >= MAX_ASKED, self._clock.monotonic()
            kept = self._cache.stale(digest, now) if is_flooded or now < self._away_until else None
            if kept is not None:
                return kept
            if is_flooded:
                metrics.KEY_QUESTIONS.labels("refused").inc()
                message = "Too many unknown API keys are presented at once. Try again shortly."
                raise GatewayError(ErrorReason.ERROR_REASON_SERVICE_UNAVAILABLE, message, retry_after_s=1)
            task = self._asked[digest] = asyncio.create_task(self._answer(digest))
            task.add_done_callback(lambda _: self._asked.pop(digest, None))
        # Others wait for it, too: one that leaves must not take it along.
        answer = await asyncio.shield(task)
        if isinstance(answer, GatewayError):
            raise GatewayError(answer.reason, answer.message, retry_after_s=answer.retry_after_s)
        return answer

    async def _answer(self, digest: bytes) -> Kept | GatewayError:
        """What the ledger says of a key, or said not long ago when it cannot be asked; or why there is no answer."""
        deadline = self._clock.monotonic() + self._wait_s
        while True:
            epoch = self._cache.epoch
            try:
                response = await self._keys.ResolveKey(pb.ResolveKeyRequest(digest=digest), timeout=self._wait_s)
            except grpc.aio.AioRpcError:
                now = self._clock.monotonic()
                kept = self._cache.stale(digest, now)
                if kept is not None:
                    # A ledger that hangs must not hold up each request until its time is over.
                    self._away_until = now + AWAY_S
                    metrics.KEY_QUESTIONS.labels("stale").inc()
                    return kept
                if now + RETRY_S >= deadline:
                    metrics.KEY_QUESTIONS.labels("failed").inc()
                    message = "The ledger cannot be asked about this API key. Try again shortly."
                    return GatewayError(ErrorReason.ERROR_REASON_LEDGER_UNAVAILABLE, message, retry_after_s=1)
                await asyncio.sleep(RETRY_S)
                continue
            standing = standing_of(response.key) if response.HasField("key") else None
            metrics.KEY_QUESTIONS.labels("unknown" if standing is None else "known").inc()
            return self._cache.put(digest, standing, self._clock.monotonic(), epoch)

    def _anonymous_at(self, forwarded_for: str) -> Caller:
        """The anonymous caller at the address that Envoy has seen: the last one; those before it are what the client says."""
        address = forwarded_for.rpartition(",")[2].strip()
        caller = self._anonymous.get(address)
        if caller is None:
            mark = _mark(address, self._salt)
            caller = self._anonymous[address] = Caller(key_id=mark, tenant=ANONYMOUS.tenant) if mark else ANONYMOUS
            if len(self._anonymous) > MAX_ADDRESSES:
                self._anonymous.popitem(last=False)
        return caller


def _mark(address: str, salt: bytes) -> str:
    """What stands for an address in the books; empty for what is none, and before the salt is known."""
    if not salt:
        return ""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv6Address):
        parsed = parsed.ipv4_mapped or parsed
    place = parsed.packed[:_PREFIX_BYTES]
    return "anon_" + hashlib.blake2b(place, key=salt, digest_size=8).hexdigest()


@asynccontextmanager
async def open_callers(
    static_key: StaticKey, auth_required: bool, keys: pb_grpc.KeyServiceStub, clock: Clock, wait_s: float
) -> AsyncIterator[Callers]:
    """Callers that hear of changes while entered."""
    callers = Callers(static_key, auth_required, keys, clock, wait_s)
    keeper = asyncio.create_task(callers.keep_watching())
    try:
        yield callers
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
