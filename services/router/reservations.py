"""Lets requests in: by a lease where there is one, which takes no time, else by asking the ledger on the live stream.

What is let in is either settled or released, so that nothing stays held. Requests that no provider is called for hold nothing; they count
only where a caller's requests are limited.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

from google.protobuf import timestamp_pb2

from joulegate.chat.v1 import chat_pb2
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.ledger.v1 import ledger_service_pb2
from joulegate.ledger.v1 import reservation_pb2 as pb
from services.router import admission, metrics, tokens
from services.router.books import Books, Verdict
from services.router.leases import Account, Accounts, Lease, Target
from services.router.question import Counted, Question
from services.runtime.clock import Clock
from services.runtime.errors import GatewayError

# Unused leases go back so often.
RETURN_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that may go to these providers, as it may go there. Whoever has it settles it."""

    # The client's, with the bound on its answers that is paid for.
    request: chat_pb2.ChatRequest
    targets: Sequence[Target]
    # Calls that providers may bill; 0: any number.
    max_calls: int
    # Of all answers together; 0: any number.
    max_output_tokens: int
    create_time: timestamp_pb2.Timestamp
    # Done when the intent is durable.
    intended: asyncio.Future[Verdict]
    # What the client is told.
    warnings: tuple[str, ...]
    # As in Source.
    downgraded_to: str


class Downgrade(NamedTuple):
    """A request that did not fit into a budget, which would have it answered by another model."""

    model: str
    refusal: GatewayError


class Reservations:
    """Made by `open_reservations`, which gives back what is not used."""

    def __init__(self, books: Books, accounts: Accounts, clock: Clock) -> None:
        self._books = books
        self._accounts = accounts
        self._clock = clock

    async def admit(self, question: Question, targets: Sequence[Target], downgrade: Downgrade | None = None) -> Admitted | Downgrade:
        """Holds what a request may take at these providers. Raises GatewayError when there is not so much, or the ledger does not say.

        After a `downgrade` there is no second one.
        """
        self.uncount(question)
        now = self._clock.monotonic()
        account = self._account(question, now)
        ask = _Ask(question, targets, _now(), "" if downgrade is None else downgrade.model)
        renews = account.renews(now)
        admitted = None if renews else self._under_lease(ask, account, now)
        if admitted is not None:
            metrics.ADMITTED_BY_LEASE.inc()
            return admitted
        intent = ask.intent()
        intent.estimated_input_tokens = tokens.most_prompt_tokens(question.request)
        wishes = intent.wishes
        for provider, model in targets:
            wishes.targets.add(provider=provider, model=model)
        wishes.answer_count = admission.answers_of(question.request)
        wishes.call_count = admission.calls_wanted(targets)
        intended, verdict = await self._asked(question, account, intent, renews)
        if isinstance(verdict, pb.Grant):
            return ask.admitted(verdict.max_output_tokens, verdict.call_count, intended)
        if renews and (admitted := self._under_lease(ask, account, self._clock.monotonic())) is not None:
            metrics.ADMITTED_BY_LEASE.inc()
            return admitted
        refusal = admission.refusal(verdict, admission.wait_s(verdict))
        if downgrade is None and (model := verdict.budget.downgrade_model):
            return Downgrade(model, refusal)
        raise refusal

    async def count(self, question: Question) -> None:
        """Counts a request that an answer is there for, and notes that on its ticket. Raises GatewayError when the caller is too fast.

        While the ledger is away nobody counts: an answer that costs nothing is not withheld for that.
        """
        now = self._clock.monotonic()
        account = self._account(question, now)
        question.ticket.counted = self._counted_under_lease(question, account, now)
        if question.ticket.counted is not None:
            return
        question.ticket.counted = Counted(_now())
        if not account.counts_requests(now):
            return
        if not self._books.is_connected:
            metrics.ADMISSIONS.labels("uncounted").inc()
            return
        intent = _Ask(question, [("", "")], question.ticket.counted.create_time, "").intent()
        intent.wishes.holds_nothing = True
        try:
            _, verdict = await self._asked(question, account, intent)
        except GatewayError as error:
            if error.reason != ErrorReason.ERROR_REASON_LEDGER_UNAVAILABLE:
                raise
            metrics.ADMISSIONS.labels("uncounted").inc()
            return
        if isinstance(verdict, pb.Denial):
            raise admission.refusal(verdict, admission.wait_s(verdict))

    @staticmethod
    def uncount(question: Question) -> None:
        """What was to follow another request's call is to make its own, which counts by itself."""
        question.ticket.counted = None

    def _counted_under_lease(self, question: Question, account: Account, now: float) -> Counted | None:
        for lease in account.leases(now):
            if lease.take_request():
                self._took(question, account, 0, now)
                return Counted(_now(), lease.lease_id)
        return None

    def _account(self, question: Question, now: float) -> Account:
        """The caller's account. Raises GatewayError for one that was too fast a moment ago and would be still."""
        account = self._accounts.of(question.caller.key_id)
        denied = account.denial(now)
        if denied is not None:
            metrics.ADMISSIONS.labels("denied").inc()
            self._say_rates(question, account, now)
            raise admission.refusal(*denied)
        return account

    def _under_lease(self, ask: "_Ask", account: Account, now: float) -> Admitted | None:
        # The oldest first: what is left of it goes back unused otherwise.
        for lease in reversed(account.leases(now)):
            admitted = self._freely(ask, account, lease, now) if lease.is_open else self._within(ask, account, lease, now)
            if admitted is not None:
                account.goes_on_with(lease, now)
                return admitted
        return None

    def _freely(self, ask: "_Ask", account: Account, lease: Lease, now: float) -> Admitted | None:
        if not lease.take_request():
            return None
        intent = ask.intent(lease.lease_id)
        intent.estimated_input_tokens = tokens.quick_prompt_estimate(ask.question.request)
        # What it may take is held if a budget is made while it runs, or booked if this router is lost.
        intent.max_output_tokens *= admission.answers_of(ask.question.request)
        self._took(ask.question, account, 0, now)
        return ask.admitted(0, 0, self._books.intend(intent))

    def _within(self, ask: "_Ask", account: Account, lease: Lease, now: float) -> Admitted | None:
        bound = admission.wanted_output_tokens(ask.question.request) or lease.unbounded_output_tokens
        if not bound:
            return None
        need = admission.need_of(ask.question.request, ask.targets, bound)
        held = lease.take(need)
        if held is None:
            return None
        intent = ask.intent(lease.lease_id)
        intent.estimated_input_tokens, intent.max_output_tokens = need.input_tokens, bound
        intent.held.CopyFrom(held)
        self._took(ask.question, account, need.tokens, now)
        return ask.admitted(bound, need.calls, self._books.intend(intent))

    async def _asked(
        self, question: Question, account: Account, intent: ledger_service_pb2.Intent, renews: bool = False
    ) -> tuple[asyncio.Future[Verdict], pb.Grant | pb.Denial]:
        """What the ledger says to an intent with wishes."""
        asked_at, epoch = self._clock.monotonic(), self._accounts.epoch
        intent.wishes.wants_lease = account.asks(asked_at)
        intended = self._books.intend(intent)
        try:
            verdict = await self._books.answered(intended)
        except BaseException:
            # Whether it is held by now or not: nobody is going to be called for it.
            self._books.release(intent)
            raise
        now = self._clock.monotonic()
        if isinstance(verdict, pb.Grant):
            metrics.ADMISSIONS.labels("granted").inc()
            account.granted(verdict, asked_at, now, is_current=epoch == self._accounts.epoch)
        else:
            metrics.ADMISSIONS.labels("denied").inc()
            account.denied(verdict, now, was_renewal=renews)
        self._say_rates(question, account, now)
        return intended, verdict

    def _took(self, question: Question, account: Account, taken: int, now: float) -> None:
        if account.requests is not None:
            account.requests.took(1, now)
        if account.tokens is not None:
            account.tokens.took(taken, now)
        self._say_rates(question, account, now)

    @staticmethod
    def _say_rates(question: Question, account: Account, now: float) -> None:
        if account.requests is not None or account.tokens is not None:
            question.ticket.rate_headers = admission.rate_headers({"requests": account.requests, "tokens": account.tokens}, now)

    async def keep_returning(self) -> None:
        """Gives unused leases back, until cancelled."""
        while True:
            await asyncio.sleep(RETURN_S)
            self._books.give_back(self._accounts.returned(self._clock.monotonic()))

    def give_up(self) -> None:
        """Gives all leases back."""
        self._books.give_back(self._accounts.give_up())


@asynccontextmanager
async def open_reservations(books: Books, accounts: Accounts, clock: Clock) -> AsyncIterator[Reservations]:
    """Reservations that return what is not used, and all of it on leaving."""
    reservations = Reservations(books, accounts, clock)
    keeper = asyncio.create_task(reservations.keep_returning())
    try:
        yield reservations
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        reservations.give_up()


class _Ask(NamedTuple):
    """One request for admission."""

    question: Question
    targets: Sequence[Target]
    create_time: timestamp_pb2.Timestamp
    downgraded_to: str

    def intent(self, lease_id: str = "") -> ledger_service_pb2.Intent:
        question, (provider, model) = self.question, self.targets[0]
        return ledger_service_pb2.Intent(
            request_id=question.request_id,
            create_time=self.create_time,
            key_id=question.caller.key_id,
            requested_model=question.model,
            provider=provider,
            model=model,
            streamed=question.wants_stream,
            max_output_tokens=admission.wanted_output_tokens(question.request),
            lease_id=lease_id,
        )

    def admitted(self, most: int, calls: int, intended: asyncio.Future[Verdict]) -> Admitted:
        """Let in with so many tokens an answer and so many calls; 0: any number."""
        request, clamping = self.question.request, None
        if most:
            clamping, request = admission.clamping(request, most), admission.bounded(request, most)
        warnings = () if clamping is None else (clamping,)
        paid = most and most * admission.answers_of(request)
        return Admitted(request, self.targets, calls, paid, self.create_time, intended, warnings, self.downgraded_to)


def _now() -> timestamp_pb2.Timestamp:
    """To the nanosecond: beside the id it tells the books which request this is."""
    create_time = timestamp_pb2.Timestamp()
    create_time.FromNanoseconds(time.time_ns())
    return create_time
