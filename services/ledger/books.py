"""Group commit: one thread writes, and whatever arrives while it commits is the next commit.

Nothing is acknowledged before its transaction is durable, and a transaction that fails acknowledges nothing: its streams end, the routers
connect again and repeat, and the next transaction finds out whether the database is well again. A server that is away for a moment is asked
again before that: a transaction may run twice, for what it finds booked it does not book.

Where several ledgers share the books, each tells the others which routers it has, and gives up a router only when no other has it.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from typing import Final, NamedTuple

import grpc
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.ledger.v1 import ledger_service_pb2 as pb
from joulegate.ledger.v1.reservation_pb2 import Grant
from services.ledger import metrics
from services.ledger.booking import Batch, Changes, decide
from services.ledger.budgets import Alert, measure_name
from services.ledger.figures import Figurer
from services.ledger.leases import LIFETIME_S, MARGIN_S
from services.ledger.store import Writer
from services.ledger.stream import RouterStream
from services.runtime import logs
from services.runtime.clock import Clock
from services.runtime.errors import ErrorShape, GatewayError

log = logs.get(__name__)

# A commit takes what is queued up to about this many records, so that nobody waits long behind a flood.
MAX_BATCH_RECORDS: Final = 1024
# Messages that may wait; beyond it the routers' streams are not read, and flow control holds them.
MAX_QUEUED_MESSAGES: Final = 1024
WARM_ROWS: Final = 200
# How often holds are looked for that outlived their time.
HOLDS_EXPIRE_S: Final = 60.0
# How long a commit waits before it asks a server again.
RETRY_PAUSES_S: Final = (0.05, 0.1, 0.2, 0.4, 0.8)


class ReplacedError(GatewayError):
    """A newer stream of the same router took over. ABORTED, as the contract says: the router must not connect again for this."""

    def __init__(self) -> None:
        super().__init__(ErrorReason.ERROR_REASON_SERVICE_UNAVAILABLE, "a newer stream of this router replaced this one")

    @property
    def shape(self) -> ErrorShape:
        return ErrorShape(grpc.StatusCode.ABORTED, 409, "server_error", None)


class _Message(NamedTuple):
    """What is to be committed, and, where it came from a router, who waits for the answer."""

    records: Batch
    stream: RouterStream | None = None


class Books:
    """The writing side of the ledger. Everything but the commit itself happens on the event loop."""

    def __init__(
        self,
        writer: Writer,
        figurer: Figurer,
        thread: Executor,
        clock: Clock,
        orphan_grace_s: float,
        tell: Callable[[Sequence[Alert]], None] = lambda _: None,
    ) -> None:
        self._writer = writer
        self._figurer = figurer
        self._thread = thread
        self._clock = clock
        self._grace_s = orphan_grace_s
        self._tick_s = min(1.0, max(0.05, orphan_grace_s / 4))
        self._queue: asyncio.Queue[_Message] = asyncio.Queue(MAX_QUEUED_MESSAGES)
        self._streams: dict[str, RouterStream] = {}
        self._away_since: dict[str, float] = {}
        self._is_draining = False
        # Counts revocations of leases.
        self._revocation = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._tell = tell
        # When each lease was first seen. That is after it was given, so nobody uses it any more once this is long enough ago.
        self._leases: dict[str, float] = {}
        self._holds_expired_at = clock.monotonic()

    def open(self, router_id: str) -> RouterStream:
        """A stream for a router that said hello; an older one of the same router ends."""
        if self._is_draining:
            raise GatewayError(ErrorReason.ERROR_REASON_SERVICE_UNAVAILABLE, "the ledger is shutting down")
        older = self._streams.get(router_id)
        if older is not None:
            older.fail(ReplacedError())
        self._away_since.pop(router_id, None)
        stream = self._streams[router_id] = RouterStream(router_id)
        return stream

    def close(self, stream: RouterStream) -> None:
        """The router is away from now on, unless a newer stream of it is there."""
        stream.stop_reading()
        if self._streams.get(stream.router_id) is stream:
            del self._streams[stream.router_id]
            self._away_since[stream.router_id] = self._clock.monotonic()

    async def take(self, stream: RouterStream, request: pb.BookRequest) -> None:
        """Queues the records of a message. Raises GatewayError, and queues none of them, when one cannot be booked."""
        records = Batch()
        records.add(request, stream.router_id)
        if records.changes_anything:
            await self._queue.put(_Message(records, stream))
            # After the wait, which may be cancelled, and before anything else runs.
            stream.took()

    async def run(self) -> None:
        """Commits for ever. First loads what commits need, so that the first one does not wait for it long."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._warm)
        committed = asyncio.Event()
        while True:
            batch = [await self._queue.get()]
            records = len(batch[0].records)
            while not self._queue.empty() and records < MAX_BATCH_RECORDS:
                batch.append(self._queue.get_nowait())
                records += len(batch[-1].records)
            self._is_idle.clear()
            revocation = self._revocation
            committing = self._thread.submit(self._commit, batch)
            # The loop's own future for it takes longer, on both threads.
            committing.add_done_callback(lambda _: loop.is_closed() or loop.call_soon_threadsafe(committed.set))
            await committed.wait()
            committed.clear()
            error = committing.exception()
            if error is None:
                self._acknowledge(batch, committing.result())
            else:
                self._refuse(batch, error)
            if self._revocation != revocation:
                # Leases that were decided on before have just been told.
                self._revoke()
            self._is_idle.set()

    async def watch(self) -> None:
        """Looks for routers that stayed away too long, for ever."""
        while True:
            await asyncio.sleep(self._tick_s)
            if self._writer.is_shared:
                await self.meet()
            await self.sweep()
            await self.expire()

    async def meet(self) -> None:
        """Tells the other ledgers which routers are here, and takes up those that nobody may have any more."""
        if self._streams:
            await self._queue.put(_Message(Batch(present_routers=list(self._streams))))
        try:
            waiting = await asyncio.get_running_loop().run_in_executor(self._thread, self._writer.waiting_routers)
        except SQLAlchemyError as error:
            # Commits say so, too, and louder; this is asked again soon.
            log.debug("waiting_routers_unknown", error=type(error).__name__)
            return
        metrics.OPEN_INTENTS.set(sum(waiting.values()))
        self.expect(waiting)

    async def sweep(self) -> None:
        """Gives up routers that have been away for the grace period: their open requests are booked as lost."""
        deadline = self._clock.monotonic() - self._grace_s
        gone = [router_id for router_id, since in self._away_since.items() if since <= deadline]
        for router_id in gone:
            del self._away_since[router_id]
        if gone:
            await self._queue.put(_Message(Batch(gone_routers=gone)))

    async def expire(self) -> None:
        """Ends leases that nobody can be using any more, and books holds as lost that outlived their time."""
        now = self._clock.monotonic()
        try:
            lease_ids = await asyncio.get_running_loop().run_in_executor(self._thread, self._writer.lease_ids)
        except SQLAlchemyError as error:
            log.debug("leases_unknown", error=type(error).__name__)
            return
        self._leases = {lease_id: self._leases.get(lease_id, now) for lease_id in lease_ids}
        deadline = now - LIFETIME_S - max(MARGIN_S, self._grace_s)
        over = [lease_id for lease_id, seen in self._leases.items() if seen <= deadline]
        expires_holds = now - self._holds_expired_at >= HOLDS_EXPIRE_S
        if expires_holds:
            self._holds_expired_at = now
        if over or expires_holds:
            await self._queue.put(_Message(Batch(ended_lease_ids=over, expires_holds=expires_holds)))

    async def revoke_leases(self) -> None:
        """Tells all routers that what their leases go by has changed. Returns when none of those whose streams are here lets anybody in any
        more under a lease of before."""
        self._revoke()
        if not self._is_idle.is_set():
            await self._is_idle.wait()
        await asyncio.gather(*(stream.heeds(self._revocation) for stream in self._streams.values()))

    def _revoke(self) -> None:
        self._revocation += 1
        for stream in self._streams.values():
            stream.tell(pb.BookResponse(leases_revoked=True, revocation=self._revocation))

    def drain(self) -> None:
        """Opens no more streams and reads no more records; each stream ends when what it sent is answered."""
        self._is_draining = True
        for stream in self._streams.values():
            stream.stop_reading()

    def expect(self, router_ids: Iterable[str]) -> None:
        """Starts the grace period of routers that another ledger knew."""
        now = self._clock.monotonic()
        for router_id in router_ids:
            if router_id not in self._streams:
                self._away_since.setdefault(router_id, now)

    def _warm(self) -> None:
        self._figurer.warm(self._writer.recent_models(WARM_ROWS))

    def _commit(self, messages: Sequence[_Message]) -> Changes:
        """On the writer's thread."""
        batch = messages[0].records if len(messages) == 1 else Batch()
        if len(messages) > 1:
            for message in messages:
                batch.take(message.records)
        started = time.perf_counter()
        pauses = iter(RETRY_PAUSES_S if self._writer.is_shared else ())
        while (changes := self._book(batch, next(pauses, None))) is None:
            self._writer.reconnect()
        metrics.COMMIT_SECONDS.observe(time.perf_counter() - started)
        metrics.BATCH_RECORDS.observe(len(batch))
        return changes

    def _book(self, batch: Batch, pause_s: float | None) -> Changes | None:
        """One transaction; None, after the pause, when the server may take it if it is asked again."""
        try:
            with self._writer.transaction() as transaction:
                changes = decide(batch, transaction.known(batch), self._figurer)
                transaction.apply(changes)
                transaction.note_presence(batch.present_routers, max(self._grace_s, 3 * self._tick_s))
        except (OperationalError, InterfaceError) as error:
            if pause_s is None:
                raise
            log.warning("commit_repeated", cause=str(error.orig), pause_s=pause_s)
            time.sleep(pause_s)
            return None
        return changes

    def _acknowledge(self, batch: Sequence[_Message], changes: Changes) -> None:
        if self._writer.funds.revokes_leases:
            self._revoke()
        by_stream: dict[RouterStream, list[Batch]] = {}
        for message in batch:
            if message.stream is not None:
                by_stream.setdefault(message.stream, []).append(message.records)
        for stream, records in by_stream.items():
            stream.answer(_answer(records, changes), len(records))
        # Nobody waits for the rest.
        metrics.COMMITS.labels("committed").inc()
        metrics.OPEN_INTENTS.inc(len(changes.opened) - len(changes.closed_ids))
        metrics.rows_booked(changes.rows)
        for row in changes.rows:
            if row.is_lost:
                log.warning("request_lost", request_id=row.request_id, provider=row.provider)
        self._note_budgets(changes)

    def _note_budgets(self, changes: Changes) -> None:
        for overshoot in changes.funds.sheet.overshoots:
            metrics.OVERSHOOTS.labels(measure_name(overshoot.measure)).inc()
            log.warning("budget_overshot", budget_id=overshoot.budget_id, measure=measure_name(overshoot.measure), by=overshoot.by)
        for answer in changes.answers.values():
            metrics.RESERVATIONS.labels("granted" if isinstance(answer, Grant) else answer.WhichOneof("cause") or "").inc()
        for budget_id, ratio in changes.funds.used_ratios():
            metrics.budget_used(budget_id, ratio)
        if changes.alerts:
            self._tell(changes.alerts)

    def _refuse(self, batch: Sequence[_Message], error: BaseException) -> None:
        metrics.COMMITS.labels("failed").inc()
        if isinstance(error, SQLAlchemyError):
            log.error("commit_failed", error=type(error).__name__, cause=str(getattr(error, "orig", None)))
            refusal = GatewayError(ErrorReason.ERROR_REASON_LEDGER_UNAVAILABLE, "the books cannot be written", retry_after_s=1)
        else:
            log.error("commit_failed", exc_info=error)
            refusal = GatewayError(ErrorReason.ERROR_REASON_INTERNAL, "internal error")
        for stream in {message.stream: None for message in batch}:
            if stream is not None:
                stream.fail(refusal)
        for message in batch:
            self.expect(message.records.gone_routers)


def _answer(records: Iterable[Batch], changes: Changes) -> pb.BookResponse:
    """What a router is told of its records."""
    answer = pb.BookResponse()
    for batch in records:
        answer.intent_acks.extend([pb.IntentAck(request_id=let_in.key.request_id) for let_in in batch.intents])
        answer.settlement_acks.extend([changes.acknowledgements[settled.key] for settled in batch.settlements])
        answer.release_acks.extend([pb.ReleaseAck(request_id=key.request_id) for key in batch.releases])
        for key, _ in batch.asked:
            said = changes.answers[key]
            if isinstance(said, Grant):
                answer.grants.append(said)
            else:
                answer.denials.append(said)
    return answer
