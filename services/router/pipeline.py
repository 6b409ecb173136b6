"""The way of a request: look up, rank, dispatch, relay, book, keep."""

import asyncio
import dataclasses
import functools
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

import grpc

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
from services.router.catalogue import Catalogue
from services.router.decision import Decision
from services.router.flight import LookAgainError
from services.router.flights import Flights, OpenFlight
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


class _Answering:
    """A question while it is being answered: entering begins the answer, leaving ends it."""

    __slots__ = ("_answer", "_begin", "_books", "_question")

    def __init__(self, question: Question, books: Books, begin: Callable[[Question], Awaitable[Answer]]) -> None:
        self._question = question
        self._books = books
        self._begin = begin

    async def __aenter__(self) -> Answer:
        request_id = self._books.claim(self._question.request_id)
        if request_id != self._question.request_id:
            self._question = dataclasses.replace(self._question, request_id=request_id)
        try:
            self._answer = await self._begin(self._question)
        except BaseException as error:
            self._end(error)
            raise
        return self._answer

    async def __aexit__(self, _type: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        try:
            self._answer.leave(error)
        finally:
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        self._books.running.drop(self._question.request_id)
        if isinstance(error, GatewayError) and self._question.ticket.rate_headers:
            raise error.with_headers(self._question.ticket.rate_headers) from None


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

    def answer(self, question: Question) -> AbstractAsyncContextManager[Answer]:
        """The answer, begun. Leaving ends the provider's call and books the end. Raises GatewayError before anything was begun or sent."""
        return _Answering(question, self._books, self._begun)

    async def _begun(self, question: Question) -> Answer:
        near = self._near(question) if question.controls.may_read else None
        if near is not None and await self._serves(question, near):
            return near
        # Who wants to know why is answered by a call of its own.
        if not question.controls.may_share or question.wishes.wants_explanation:
            return await self._alone(question)
        flight = flight_id(question.key, question.caller)
        for may_follow in (True, False):
            try:
                return await self._together(question, flight, may_follow=may_follow)
            except LookAgainError:
                self._reservations.uncount(question)
        return await self._alone(question)

    async def _alone(self, question: Question) -> Answer:
        """A kept answer, else one for this request only."""
        kept = await self._kept(question, None)
        if kept.hit is not None:
            return kept.hit
        if question.controls.only_if_cached:
            raise GatewayError(ErrorReason.ERROR_REASON_NOT_CACHED, "No cached answer satisfies `Cache-Control: only-if-cached`.")
        return await self._asked(kept.question, None)

    async def _together(self, question: Question, flight: bytes, *, may_follow: bool) -> Answer:
        """A kept answer, else one that identical requests share. Raises LookAgainError when it was on its way, and may be kept by now."""
        self.flights.hold(flight)
        try:
            kept = _Kept(question) if self.flights.is_open(flight) else await self._kept(question, flight)
            if kept.hit is not None:
                return kept.hit
            follows = may_follow and kept.role == flight_pb2.FLIGHT_ROLE_FOLLOW
            if follows or self.flights.is_open(flight):
                # Whoever is to lead after all is counted by what it reserves instead.
                await self._reservations.count(question)
            flown = self.flights.open(flight, question, may_follow=may_follow, is_led_elsewhere=follows)
        finally:
            self.flights.let_go(flight)
        return await self.flights.share(flown, kept.question)

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

    async def _asked(self, question: Question, flown: OpenFlight | None, downgrade: Downgrade | None = None) -> Answer:
        """The answer that a provider gives, begun: of the model that is asked for, or of the one that a used up budget would rather have.

        Raises GatewayError when nobody gives one.
        """
        slate = self._slate(await self._watch.catalogue(), question, downgrade)
        await self._books.ready()
        # With nothing awaited until the call counts: what is chosen by load must be seen by whoever chooses next.
        decision = self._selection.choose(slate)
        self._lessons.decided(decision)
        targets = [candidate.target for candidate in decision.tried]
        place = Place(decision.ranked)
        try:
            admitted = await self._reservations.admit(question, targets, downgrade)
        except BaseException:
            place.leave()
            raise
        if not isinstance(admitted, Admitted):
            place.leave()
            return await self._asked(question, flown, admitted)
        # With nothing awaited until it begins, for it is what settles.
        answer = self._dispatched(question, flown, admitted, decision, place)
        await answer.begin()
        source = answer.source
        place.move(source.provider, source.model)
        return answer

    def _slate(self, catalogue: Catalogue, question: Question, downgrade: Downgrade | None) -> Slate:
        if downgrade is None:
            return self._selection.gather(catalogue, question.asked)
        try:
            return self._selection.gather(catalogue, dataclasses.replace(question.asked, model=downgrade.model))
        except GatewayError:
            raise downgrade.refusal from None

    def _dispatched(
        self, question: Question, flown: OpenFlight | None, admitted: Admitted, decision: Decision, place: Place
    ) -> ProviderAnswer:
        request = dispatch_pb.DispatchRequest(
            request_id=question.request_id, hedge=dispatch_pb.Hedge() if decision.hedges else None, max_calls=admitted.max_calls
        )
        request.request.CopyFrom(admitted.request)
        for provider, model in admitted.targets:
            request.targets.add(provider=provider, model=model)
        call = self._dispatch.Dispatch(request, timeout=question.timeout_s, metadata=question.trace)
        status = receipt_pb2.CACHE_STATUS_MISS if question.controls.may_read else receipt_pb2.CACHE_STATUS_BYPASS

        def keep(completion: chat_pb2.ChatCompletion, source: Source, ack: ledger_service_pb2.SettlementAck | None) -> None:
            self._lengths.learn(source.model, completion.usage.completion_tokens)
            target = source.provider, source.model
            self._lessons.finished(question.request_id, question.caller.tenant, decision, target, completion)
            # Another model's answer is not the answer to what was asked.
            if question.controls.may_write and not admitted.downgraded_to and _is_complete(completion):
                self._store(question, flown, completion, source, ack)

        def left(source: Source | None, *, is_cut: bool) -> None:
            place.leave()
            if source is not None and is_cut:
                self._lessons.cut(decision, (source.provider, source.model))

        return ProviderAnswer(question, admitted, decision, status, call, self._books, keep, left)

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
            self.flights.board(flight, request.boarding)
        if controls.max_age_s is not None:
            request.max_age.seconds = controls.max_age_s
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
        status = hit.source.cache_status
        settlement = settlement_of(question, counted.create_time, status, counted.lease_id)
        settlement.attempts.add(
            provider=entry.provider,
            model=entry.model,
            served_model=entry.completion.model,
            outcome=entry_pb2.OUTCOME_CACHE_HIT,
            tokens=tokens.reported(entry.completion.usage),
            saved_cost_nano_usd=entry.cost_nano_usd,
            saved_energy_microjoules=entry.energy_microjoules,
        )
        self._books.settle_soon(settlement)
        metrics.requests(entry.provider, status, entry_pb2.OUTCOME_CACHE_HIT).inc()

    def _remember_hit(self, question: Question, source: Source) -> None:
        """What is shared with everybody is nobody's to take away."""
        tenant = question.caller.tenant
        entry_id = source.entry_id if question.key.tenant == tenant else ""
        self._lessons.served(question.request_id, tenant, entry_id, _TIER_OF_STATUS[source.cache_status])

    def _store(
        self,
        question: Question,
        flown: OpenFlight | None,
        completion: chat_pb2.ChatCompletion,
        source: Source,
        ack: ledger_service_pb2.SettlementAck | None,
    ) -> None:
        controls, now = question.controls, int(self._clock.now())
        if controls.ttl_s == 0:
            return
        request = cache_pb.StoreRequest(key=question.key, wording=question.wording(), tags=controls.tags, neighbours=question.neighbours)
        if controls.ttl_s is not None:
            request.ttl.seconds = controls.ttl_s
        # Filled in where it is: assigning one message to another copies all that is in it.
        entry = request.entry
        entry.entry_id = entry_id(question.key)
        entry.completion.CopyFrom(completion)
        entry.provider, entry.model = source.provider, source.model
        entry.create_time.seconds, entry.expire_time.seconds = now, now + (controls.ttl_s or NEAR_LIFETIME_S)
        if ack is not None:
            entry.cost_nano_usd, entry.energy_microjoules = ack.cost_nano_usd, ack.energy.microjoules
        self._near_cache.put(question.key, entry, self._clock.monotonic())
        if flown is not None:
            request.flight_id = flown.flight_id
            flown.rest = functools.partial(self._send, request)
            return
        if controls.may_share:
            # Nothing flies, but other routers may have been told that this one leads.
            request.flight_id = flight_id(question.key, question.caller)
        # Whoever wants this flight is told to look again once the answer can be found.
        self.flights.hold(request.flight_id)
        task = asyncio.create_task(self._send(request))
        self._stores.add(task)
        task.add_done_callback(lambda task: self._stored(task, request.flight_id))

    def _stored(self, task: asyncio.Task[None], flight: bytes) -> None:
        self._stores.discard(task)
        self.flights.let_go(flight)

    async def _send(self, request: cache_pb.StoreRequest) -> None:
        try:
            await self._cache.Store(request, timeout=STORE_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            metrics.CACHE_FAULTS.labels("Store").inc()


def _is_complete(completion: chat_pb2.ChatCompletion) -> bool:
    for choice in completion.choices:
        if choice.finish_reason not in _COMPLETE:
            return False
    return bool(completion.choices)
