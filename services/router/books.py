"""The router's end of the books: reservations, intents and settlements on one stream to the ledger, each held until it is acknowledged.

A break loses nothing: whatever was not acknowledged is sent again on the next stream, and the ledger books it once.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc.aio import EOF

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.ledger.v1 import ledger_service_pb2 as pb
from joulegate.ledger.v1 import ledger_service_pb2_grpc as pb_grpc
from joulegate.ledger.v1.reservation_pb2 import Denial, Extension, Grant, Release
from services.router import metrics
from services.router.holds import Holds
from services.runtime import logs
from services.runtime.errors import GatewayError
from services.runtime.outbox import Outbox, Spacing
from services.runtime.own_cpu import NO_CPU, OwnCpu

log = logs.get(__name__)

RECONNECT_S = (0.05, 1.0)
COMPANY_S = 0.02
# Each message is a commit, which costs the ledger as much as some records do: with many callers their company is worth a longer wait. Few
# callers who say much are fast ones, to whom each millisecond is long.
SPACING_S = 0.012
EACH_S = 0.0002
ALONE_S = 0.0005
ENOUGH = 12
NOT_BEGUN = "The ledger cannot be written to, so no provider is called."
# Beyond this many unacknowledged records the ledger has been away for long: take no more work that must be booked.
MAX_HELD = 100_000
# A long request says so often that it still runs, and is looked for so often.
EXTEND_AFTER_S = 1200.0
LOOK_S = 30.0
# Ids of leases that go back are texts, revocations that are heeded are numbers.
Record = pb.Intent | pb.Settlement | Release | Extension | str | int
Verdict = Grant | Denial | None


class Books:
    """Writes to the ledger. Made by `open_books`."""

    def __init__(
        self,
        stub: pb_grpc.LedgerServiceStub,
        router_id: str,
        wait_s: float,
        revoke: Callable[[], None] = lambda: None,
        own_cpu: OwnCpu = NO_CPU,
    ) -> None:
        self._stub = stub
        self._router_id = router_id
        self._own_cpu = own_cpu
        self._wait_s = wait_s
        # Called when no lease that has come so far may be used any more.
        self._revoke = revoke
        self._intents: dict[str, tuple[pb.Intent, asyncio.Future[Verdict]]] = {}
        self._releases: dict[str, Release] = {}
        # Requests that run: their intents, and when to say so.
        self._open: dict[str, tuple[pb.Intent, float]] = {}
        self._settlements: dict[str, tuple[pb.Settlement, asyncio.Future[pb.SettlementAck | None]]] = {}
        # Ids in use, each by a request and, maybe for longer, by the call that is made in its name.
        self.running: Holds[str] = Holds()
        self._outbox: Outbox[Record] | None = None
        self._connected = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()
        # Whether all that was said is on its way.
        self._sent = asyncio.Event()
        self._sent.set()

    @property
    def is_connected(self) -> bool:
        return self._connected.is_set()

    def claim(self, request_id: str) -> str:
        """An id for a running request, to be dropped from `running` at its end. Clients may send one id many times; the books need a
        different one for each."""
        if request_id in self.running or request_id in self._settlements or request_id in self._releases:
            request_id = f"{request_id}~{secrets.token_hex(4)}"
        self.running.take(request_id)
        return request_id

    async def ready(self) -> None:
        """Waits until records can be written. Raises LEDGER_UNAVAILABLE when that takes too long, so that nothing unbooked is begun."""
        if len(self._settlements) >= MAX_HELD:
            raise _unavailable(NOT_BEGUN)
        if not self._connected.is_set():
            await self._within_wait(self._connected.wait())

    def intend(self, intent: pb.Intent) -> asyncio.Future[Verdict]:
        """Announces that providers will be called. The future is done when the intent is durable.

        With wishes it gives what became of them; None: the ledger refused the record.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Verdict] = loop.create_future()
        self._intents[intent.request_id] = (intent, future)
        self._open[intent.request_id] = (intent, loop.time() + EXTEND_AFTER_S)
        if intent.HasField("wishes"):
            self._send(intent)
        elif self._outbox is not None:
            # Nobody waits for it before the provider answers.
            self._sent.clear()
            self._outbox.put_within(SPACING_S, intent)
        return future

    def release(self, intent: pb.Intent) -> None:
        """Takes an intent back: nobody was called."""
        request_id = intent.request_id
        self._intents.pop(request_id, None)
        self._open.pop(request_id, None)
        self._releases[request_id] = release = Release(request_id=request_id, create_time=intent.create_time)
        self._emptied.clear()
        self._send(release)

    def give_back(self, lease_ids: Iterable[str]) -> None:
        """Returns leases, after the intents that they were used for."""
        for lease_id in lease_ids:
            self._send(lease_id)

    def extend(self) -> None:
        """Says of requests that have run for long that they still do."""
        now = asyncio.get_running_loop().time()
        for request_id, (intent, due) in list(self._open.items()):
            if due <= now:
                self._open[request_id] = (intent, now + EXTEND_AFTER_S)
                self._send(Extension(request_id=request_id, create_time=intent.create_time))

    async def answered(self, intended: asyncio.Future[Verdict]) -> Grant | Denial:
        """Waits for what becomes of wishes. Raises LEDGER_UNAVAILABLE when that takes too long."""
        verdict = intended.result() if await is_heard_within(intended, self._wait_s) else None
        if verdict is None:
            raise _unavailable(NOT_BEGUN)
        return verdict

    async def durable(self, intended: asyncio.Future[Verdict]) -> None:
        """Waits for an intent. Raises LEDGER_UNAVAILABLE when that takes too long."""
        if self._outbox is not None and not intended.done():
            self._outbox.hurry()
        if not await is_heard_within(intended, self._wait_s):
            raise _unavailable("The ledger did not confirm this request, so its answer is withheld.")

    def settle(self, settlement: pb.Settlement) -> asyncio.Future[pb.SettlementAck | None]:
        """Books the end of a request. The future gives the figures that were booked; None when the ledger refused the record."""
        future = self._hold(settlement)
        self._send(settlement)
        return future

    def settle_soon(self, settlement: pb.Settlement) -> None:
        """Books, within 50 ms and in company, what nobody waits for: a commit for each cache hit would cost more than the hit."""
        self._hold(settlement)
        if self._outbox is not None:
            self._outbox.put_within(COMPANY_S, settlement)

    def _hold(self, settlement: pb.Settlement) -> asyncio.Future[pb.SettlementAck | None]:
        future: asyncio.Future[pb.SettlementAck | None] = asyncio.get_running_loop().create_future()
        settlement.gateway_cpu_nanos += self._own_cpu.take_ns()
        self._settlements[settlement.request_id] = (settlement, future)
        self._open.pop(settlement.request_id, None)
        self._emptied.clear()
        return future

    async def _within_wait(self, waiting: Awaitable[Any]) -> None:
        try:
            await asyncio.wait_for(waiting, self._wait_s)
        except TimeoutError:
            raise _unavailable(NOT_BEGUN) from None

    def _send(self, record: Record) -> None:
        if self._outbox is not None:
            self._sent.clear()
            self._outbox.put(record)

    async def keep_connected(self) -> None:
        """Runs until cancelled."""
        delay = RECONNECT_S[0]
        while True:
            stood = await self._converse()
            delay = RECONNECT_S[0] if stood else min(delay * 2, RECONNECT_S[1])
            await asyncio.sleep(delay)

    async def _converse(self) -> bool:
        """One stream from connect to break; says whether it ever stood."""
        stream: Any = self._stub.Book()
        writer = None
        stood = False
        try:
            await stream.write(pb.BookRequest(hello=pb.Hello(router_id=self._router_id)))
            if await stream.read() is EOF:
                return False
            stood = True
            outbox = self._repeat_unacknowledged()
            writer = asyncio.create_task(self._write(stream, outbox))
            while (response := await stream.read()) is not EOF:
                self._acknowledge(response)
        except grpc.aio.AioRpcError as error:
            self._note_break(GatewayError.from_rpc(error), stood)
        except asyncio.InvalidStateError:
            pass  # the stream ended while being written to; its reader would have said why
        finally:
            self._connected.clear()
            self._outbox = None
            self._sent.set()
            self._revoke()
            self._leave_uncounted()
            stream.cancel()
            if writer is not None:
                writer.cancel()
        return stood

    async def _write(self, stream: Any, outbox: Outbox[Record]) -> None:
        try:
            while True:
                await stream.write(_message_of(await outbox.batch()))
                if outbox.is_empty:
                    self._sent.set()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The reader sees the same break.
            stream.cancel()

    def _leave_uncounted(self) -> None:
        """Gives up wishes for answers that are there already: they are not to wait for the ledger's return."""
        for intent, future in list(self._intents.values()):
            if intent.wishes.holds_nothing and not future.done():
                future.set_result(None)

    def _repeat_unacknowledged(self) -> Outbox[Record]:
        outbox: Outbox[Record] = Outbox(lambda: len(self._open) + len(self._settlements), Spacing(SPACING_S, EACH_S, ALONE_S), ENOUGH)
        for intent, _ in self._intents.values():
            outbox.put(intent)
        for settlement, _ in self._settlements.values():
            outbox.put(settlement)
        for release in self._releases.values():
            outbox.put(release)
        self._outbox = outbox
        self._connected.set()
        return outbox

    def _acknowledge(self, response: pb.BookResponse) -> None:
        if response.leases_revoked:
            self._revoke()
            # Behind the intents of those who were let in before.
            if response.revocation:
                self._send(response.revocation)
        for intended in response.intent_acks:
            self._conclude(intended.request_id, None)
        for grant in response.grants:
            self._conclude(grant.request_id, grant)
        for denial in response.denials:
            self._conclude(denial.request_id, denial)
            self._open.pop(denial.request_id, None)
        for ack in response.settlement_acks:
            self._close(ack.request_id, ack)
        for released in response.release_acks:
            self._releases.pop(released.request_id, None)
        self._note_emptied()

    def _conclude(self, request_id: str, verdict: Verdict) -> None:
        held = self._intents.pop(request_id, None)
        if held is not None and not held[1].done():
            held[1].set_result(verdict)

    def _close(self, request_id: str, ack: pb.SettlementAck | None) -> None:
        settled = self._settlements.pop(request_id, None)
        # A settlement closes its intent, acknowledged or not.
        self._intents.pop(request_id, None)
        if settled is not None and not settled[1].done():
            settled[1].set_result(ack)
        self._note_emptied()

    def _note_emptied(self) -> None:
        if not self._settlements and not self._releases:
            self._emptied.set()

    def _note_break(self, error: GatewayError, stood: bool) -> None:
        request_id = error.metadata.get("request_id", "")
        if error.reason == ErrorReason.ERROR_REASON_INVALID_REQUEST and request_id:
            # Repeating what the ledger will never take would block all that comes after it.
            log.error("record_refused", request_id=request_id, reason=error.message)
            param = error.metadata.get("param", "")
            if param.startswith("intents"):
                # Never durable, so nothing of the answer leaves; what was called is settled as ever.
                held = self._intents.pop(request_id, None)
                if held is not None and held[0].HasField("wishes") and not held[1].done():
                    held[1].set_result(None)
            elif param.startswith("releases"):
                self._releases.pop(request_id, None)
                self._note_emptied()
            else:
                self._close(request_id, None)
        elif stood:
            metrics.BOOK_BREAKS.inc()
            log.warning("books_disconnected", reason=error.message, held=len(self._settlements))

    async def flushed(self, timeout_s: float) -> None:
        """Waits until every settlement is durable; says so when some are not in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._emptied.wait()
                await self._sent.wait()
        except TimeoutError:
            log.error("settlements_left_behind", count=len(self._settlements))


async def is_heard_within(said: asyncio.Future[Any], timeout_s: float) -> bool:
    """Whether the ledger's word on a record has come, having waited for it at most so long. For the only one who waits for it: the record
    stands, but its future is over then."""
    if said.done():
        return said.exception() is None
    timer = asyncio.get_running_loop().call_later(timeout_s, _give_up, said)
    try:
        await said
    except TimeoutError:
        return False
    finally:
        timer.cancel()
    return True


def _give_up(said: asyncio.Future[Any]) -> None:
    if not said.done():
        said.set_exception(TimeoutError())


def _message_of(records: Iterable[Record]) -> pb.BookRequest:
    request = pb.BookRequest()
    for record in records:
        match record:
            case pb.Intent():
                request.intents.append(record)
            case pb.Settlement():
                request.settlements.append(record)
            case Release():
                request.releases.append(record)
            case Extension():
                request.extensions.append(record)
            case str():
                request.returned_lease_ids.append(record)
            case int():
                request.heeded_revocation = record
    return request


@asynccontextmanager
async def open_books(
    stub: pb_grpc.LedgerServiceStub,
    router_id: str,
    wait_s: float,
    revoke: Callable[[], None] = lambda: None,
    own_cpu: OwnCpu = NO_CPU,
) -> AsyncIterator[Books]:
    """Books that connect by themselves. On leaving, waits a little for what is not yet acknowledged."""
    books = Books(stub, router_id, wait_s, revoke, own_cpu)
    keepers = [asyncio.create_task(books.keep_connected()), asyncio.create_task(_keep_extending(books))]
    try:
        yield books
        await books.flushed(wait_s)
    finally:
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)


async def _keep_extending(books: Books) -> None:
    while True:
        await asyncio.sleep(LOOK_S)
        books.extend()


def _unavailable(message: str) -> GatewayError:
    return GatewayError(ErrorReason.ERROR_REASON_LEDGER_UNAVAILABLE, f"{message} Try again shortly.", retry_after_s=1)
