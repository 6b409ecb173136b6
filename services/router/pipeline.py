"""The way of a request: look up, rank, dispatch, relay, book, keep."""

import asyncio
import dataclasses
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from typing import Any

import grpc
from google.protobuf import duration_pb2, timestamp_pb2

from joulegate.cache.v1 import cache_service_pb2 as cache_pb
from joulegate.cache.v1 import cache_service_pb2_grpc as cache_grpc
from joulegate.cache.v1 import flight_pb2
from joulegate.chat.v1 import chat_pb2, receipt_pb2
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.dispatch.v1 import dispatch_service_pb2 as dispatch_pb
from joulegate.dispatch.v1 import dispatch_service_pb2_grpc as dispatch_grpc
from joulegate.ledger.v1 import entry_pb2, ledger_service_pb2
from services.router import metrics, tokens
from services.router.answer import Answer, CachedAnswer, Source
from services.router.books import Books
from services.router.decision import Decision
from services.router.flight import LookAgainError
from services.router.flights import Flights
from services.router.lessons import Lessons
from services.router.load import Place
from services.router.near_cache import NearCache
from services.router.output_lengths import OutputLengths
from services.router.provider_answer import ProviderAnswer
from services.router.provider_watch import ProviderWatch
from services.router.question import Question, flight_id
from services.router.reservations import Admitted, Downgrade, Reservations
from services.router.selection import Selection
from services.router.settlement import settlement_of
from services.router.slate import Slate
from services.router.verification import Verifier
from services.runtime.clock import Clock
from services.runtime.errors import GatewayError
from services.wire.fingerprint import entry_id

STORE_TIMEOUT_S = 10.0
# The near-cache bounds an entry's stay itself; the cache service decides how long the stored one lives.
NEAR_LIFETIME_S = 3600

_STATUS_OF_TIER = {
    cache_pb.TIER_EXACT: receipt_pb2.CACHE_STATUS_HIT_EXACT,
    cache_pb.TIER_SEMANTIC: receipt_pb2.CACHE_STATUS_HIT_SEMANTIC,
}
_TIER_OF_STATUS = {status: tier for tier, status in _STATUS_OF_TIER.items()}
_COMPLETE = {chat_pb2.FINISH_REASON_STOP, chat_pb2.FINISH_REASON_TOOL_CALLS, chat_pb2.FINISH_REASON_FUNCTION_CALL}


@dataclasses.dataclass(frozen=True, slots=True)
class LookupBounds:
    """After how many seconds a lookup counts as a miss: of the same request, and of its words too."""

    exact: float
    reworded: float


@dataclasses.dataclass(frozen=True, slots=True)
class _Kept:
    """What the cache says to a question: an answer or, without one, what else is known."""

    # With the neighbours of a miss.
    question: Question
    hit: CachedAnswer | None = None
    role: flight_pb2.FlightRole.ValueType = flight_pb2.FLIGHT_ROLE_UNSPECIFIED


class Pipeline:
    """Answers questions."""

    def __init__(
        self,
        watch: ProviderWatch,
        selection: Selection,
        lengths: OutputLengths,
        cache: cache_grpc.CacheServiceStub,
        dispatch: dispatch_grpc.DispatchServiceStub,
        books: Books,
        reservations: Reservations,
        near_cache: NearCache,
        lessons: Lessons,
        clock: Clock,
        lookup_s: LookupBounds,
        longest_s: float,
        verified_share: float = 0.0,
    ) -> None:
        self._watch = watch
        self._selection = selection
        self._lengths = lengths
        self._cache = cache
        self._dispatch = dispatch
        self._books = books
        self._reservations = reservations
        self._near_cache = near_cache
        self._lessons = lessons
        self._clock = clock
        self._lookup_s = lookup_s
        self.flights = Flights(self._asked, books, longest_s)
        self._verifier = Verifier(verified_share, random.random, self.answer)
        # Tasks that nobody waits for would otherwise be free for the garbage collector.
        self._stores: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Ends the calls that are still made for somebody."""
        await self._verifier.close()
        await self.flights.close()

    @asynccontextmanager
    async def answer(self, question: Question) -> AsyncIterator[Answer]:
        """The answer, begun. Leaving ends the provider's call and books the end. Raises GatewayError before anything was begun or sent."""
        with self._books.claimed(question.request_id) as request_id:
            if request_id != question.request_id:
                question = dataclasses.replace(question, request_id=request_id)
            try:
                async with self._answer(question) as answer:
                    yield answer
            except GatewayError as error:
                if not question.ticket.rate_headers:
                    raise
                raise error.with_headers(question.ticket.rate_headers) from None

    @asynccontextmanager
    async def _answer(self, question: Question) -> AsyncIterator[Answer]:
        near = self._near(question) if question.controls.may_read else None
        if near is not None and await self._serves(question, near):
            yield near
            return
        async with AsyncExitStack() as stack:
            # Who wants to know why is answered by a call of its own.
            if not question.controls.may_share or question.wishes.wants_explanation:
                yield await self._alone(question, stack)
                return
            flight = flight_id(question.key, question.caller)
            for may_follow in (True, False):
                try:
                    answer = await self._together(question, flight, stack, may_follow=may_follow)
                    break
                except LookAgainError:
                    self._reservations.uncount(question)
            else:
                answer = await self._alone(question, stack)
            yield answer

    async def _alone(self, question: Question, stack: AsyncExitStack) -> Answer:
        """A kept answer, else one for this request only."""
        kept = await self._kept(question, None)
        if kept.hit is not None:
            return kept.hit
        if question.controls.only_if_cached:
            raise GatewayError(ErrorReason.ERROR_REASON_NOT_CACHED, "No cached answer satisfies `Cache-Control: only-if-cached`.")
        return await stack.enter_async_context(self._asked(kept.question))

    async def _together(self, question: Question, flight: bytes, stack: AsyncExitStack, *, may_follow: bool) -> Answer:
        """A kept answer, else one that identical requests share. Raises LookAgainError when it was on its way, and may be kept by now."""
        with self.flights.held(flight):
            kept = _Kept(question) if self.flights.is_open(flight) else await self._kept(question, flight)
            if kept.hit is not None:
                return kept.hit
            follows = may_follow and kept.role == flight_pb2.FLIGHT_ROLE_FOLLOW
            if follows or self.flights.is_open(flight):
                # Whoever is to lead after all is counted by what it reserves instead.
                await self._reservations.count(question)
            flown = self.flights.open(flight, question, may_follow=may_follow, is_led_elsewhere=follows)
        return await stack.enter_async_context(self.flights.share(flown, kept.question))

    async def _kept(self, question: Question, flight: bytes | None) -> _Kept:
        """What is kept for this caller; nothing was near a moment ago."""
        if not question.controls.may_read:
            return _Kept(question)
        kept = await self._look_up(question, flight)
        # An identical request may have been answered meanwhile.
        if kept.hit is None and (near := self._near(question)) is not None:
            kept = dataclasses.replace(kept, hit=near)
        if kept.hit is not None and not await self._serves(question, kept.hit):
            return dataclasses.replace(kept, hit=None)
        return kept

    async def _serves(self, question: Question, hit: CachedAnswer) -> bool:
        """Whether the caller gets this kept answer; it is counted and booked then. Raises GatewayError when the caller is too fast."""
        source = hit.source
        # Keys that share answers need not be allowed the same models.
        if not self._selection.slates.may_have(question.asked, source.provider, source.model):
            return False
        await self._reservations.count(question)
        self._book_hit(question, hit)
        self._remember_hit(question, source)
        if source.cache_status == receipt_pb2.CACHE_STATUS_HIT_SEMANTIC:
            self._verifier.served(question, source)
        return True

    @asynccontextmanager
    async def _asked(self, question: Question, downgrade: Downgrade | None = None) -> AsyncIterator[Answer]:
        """The answer that a provider gives, begun: of the model that is asked for, or of the one that a used up budget would rather have.

        Raises GatewayError when nobody gives one.
        """
        slate = await self._slate(question, downgrade)
        await self._books.ready()
        # With nothing awaited until the call counts: what is chosen by load must be seen by whoever chooses next.
        decision = self._selection.choose(slate)
        self._lessons.decided(decision)
        targets = [dispatch_pb.Target(provider=candidate.provider.name, model=candidate.model) for candidate in decision.tried]
        with Place(decision.ranked) as place:
            admitted = await self._reservations.admit(question, targets, downgrade)
            if isinstance(admitted, Admitted):
                # With nothing awaited until it is entered, for it is what settles.
                async with self._dispatched(question, admitted, decision) as answer:
                    target = answer.source.provider, answer.source.model
                    place.move(*target)
                    try:
                        yield answer
                    finally:
                        if answer.is_cut:
                            self._lessons.cut(decision, target)
                return
        async with self._asked(question, admitted) as answer:
            yield answer

    async def _slate(self, question: Question, downgrade: Downgrade | None) -> Slate:
        catalogue = await self._watch.catalogue()
        if downgrade is None:
            return self._selection.gather(catalogue, question.asked)
        try:
            return self._selection.gather(catalogue, dataclasses.replace(question.asked, model=downgrade.model))
        except GatewayError:
            raise downgrade.refusal from None

    def _dispatched(self, question: Question, admitted: Admitted, decision: Decision) -> ProviderAnswer:
        call = self._dispatch.Dispatch(
            dispatch_pb.DispatchRequest(
                request_id=question.request_id,
                request=admitted.request,
                targets=admitted.targets,
                hedge=dispatch_pb.Hedge() if decision.hedges else None,
                max_calls=admitted.max_calls,
            ),
            timeout=question.timeout_s,
            metadata=question.trace,
        )
        status = receipt_pb2.CACHE_STATUS_MISS if question.controls.may_read else receipt_pb2.CACHE_STATUS_BYPASS

        def keep(completion: chat_pb2.ChatCompletion, source: Source, ack: ledger_service_pb2.SettlementAck | None) -> None:
            self._lengths.learn(source.model, completion.usage.completion_tokens)
            target = source.provider, source.model
            self._lessons.finished(question.request_id, question.caller.tenant, decision, target, completion)
            # Another model's answer is not the answer to what was asked.
            if question.controls.may_write and not admitted.downgraded_to and _is_complete(completion):
                self._store(question, completion, source, ack or ledger_service_pb2.SettlementAck())

        return ProviderAnswer(question, admitted, decision, status, call, self._books, keep)

    def _near(self, question: Question) -> CachedAnswer | None:
        max_age_s, now = question.controls.max_age_s, self._clock.now()
        near = self._near_cache.get(question.key, self._clock.monotonic(), now)
        if near is None or (max_age_s is not None and now - near.create_time.seconds > max_age_s):
            return None
        self._near_cache.count(question.model)
        return self._cached(question, near, receipt_pb2.CACHE_STATUS_HIT_EXACT, 1.0)

    async def _look_up(self, question: Question, flight: bytes | None) -> _Kept:
        """What the cache service says. The question of a miss has the entries whose answers the new one is to be compared with."""
        key, controls, wording = question.key, question.controls, question.wording()
        request = cache_pb.LookUpRequest(
            key=key, wording=wording, min_similarity=controls.min_similarity, max_error=controls.max_error, model=question.model
        )
        if flight is not None:
            request.boarding.MergeFrom(self.flights.boarding(flight))
        if controls.max_age_s is not None:
            request.max_age.CopyFrom(duration_pb2.Duration(seconds=controls.max_age_s))
        try:
            found = await self._cache.LookUp(request, timeout=self._lookup_s.exact if wording is None else self._lookup_s.reworded)
        except grpc.aio.AioRpcError:
            metrics.CACHE_FAULTS.labels("LookUp").inc()
            return _Kept(question)
        if not found.HasField("entry"):
            if found.neighbours:
                question = dataclasses.replace(question, neighbours=tuple(found.neighbours))
            return _Kept(question, role=found.flight_role)
        if found.tier == cache_pb.TIER_EXACT:
            self._near_cache.put(key, found.entry, self._clock.monotonic())
        return _Kept(question, self._cached(question, found.entry, _STATUS_OF_TIER[found.tier], found.similarity))

    def _cached(self, question: Question, entry: cache_pb.Entry, status: Any, similarity: float) -> CachedAnswer:
        age = max(0, int(self._clock.now() - entry.create_time.seconds))
        return CachedAnswer(
            question, entry, Source(entry.provider, entry.model, status, similarity, age, decision="cache", entry_id=entry.entry_id)
        )

    def _book_hit(self, question: Question, hit: CachedAnswer) -> None:
        """Books without waiting: a hit costs nothing that could be overspent."""
        entry, counted = hit.entry, question.ticket.counted
        assert counted is not None
        attempt = ledger_service_pb2.Attempt(
            provider=entry.provider,
            model=entry.model,
            served_model=entry.completion.model,
            outcome=entry_pb2.OUTCOME_CACHE_HIT,
            tokens=tokens.reported(entry.completion.usage),
            saved_cost_nano_usd=entry.cost_nano_usd,
            saved_energy_microjoules=entry.energy_microjoules,
        )
        status = hit.source.cache_status
        self._books.settle_soon(settlement_of(question, counted.create_time, status, [attempt], counted.lease_id))
        metrics.requests(entry.provider, status, entry_pb2.OUTCOME_CACHE_HIT).inc()

    def _remember_hit(self, question: Question, source: Source) -> None:
        """What is shared with everybody is nobody's to take away."""
        tenant = question.caller.tenant
        entry_id = source.entry_id if question.key.tenant == tenant else ""
        self._lessons.served(question.request_id, tenant, entry_id, _TIER_OF_STATUS[source.cache_status])

    def _store(
        self, question: Question, completion: chat_pb2.ChatCompletion, source: Source, ack: ledger_service_pb2.SettlementAck
    ) -> None:
        ttl_s, now = question.controls.ttl_s, int(self._clock.now())
        if ttl_s == 0:
            return
        entry = cache_pb.Entry(
            entry_id=entry_id(question.key),
            completion=completion,
            provider=source.provider,
            model=source.model,
            create_time=timestamp_pb2.Timestamp(seconds=now),
            expire_time=timestamp_pb2.Timestamp(seconds=now + (ttl_s or NEAR_LIFETIME_S)),
            cost_nano_usd=ack.cost_nano_usd,
            energy_microjoules=ack.energy.microjoules,
        )
        self._near_cache.put(question.key, entry, self._clock.monotonic())
        request = cache_pb.StoreRequest(
            key=question.key, entry=entry, wording=question.wording(), tags=question.controls.tags, neighbours=question.neighbours
        )
        if ttl_s is not None:
            request.ttl.CopyFrom(duration_pb2.Duration(seconds=ttl_s))
        with ExitStack() as stack:
            if question.controls.may_share:
                request.flight_id = flight_id(question.key, question.caller)
                # Whoever wants this flight is told to look again once the answer can be found.
                stack.enter_context(self.flights.held(request.flight_id))
            task = asyncio.create_task(self._send(request, stack.pop_all()))
        self._stores.add(task)
        task.add_done_callback(self._stores.discard)

    async def _send(self, request: cache_pb.StoreRequest, held: ExitStack) -> None:
        with held:
            try:
                await self._cache.Store(request, timeout=STORE_TIMEOUT_S)
            except grpc.aio.AioRpcError:
                metrics.CACHE_FAULTS.labels("Store").inc()


def _is_complete(completion: chat_pb2.ChatCompletion) -> bool:
    return bool(completion.choices) and all(choice.finish_reason in _COMPLETE for choice in completion.choices)
