"""One answer on its way to everybody who asked for it meanwhile: kept once, read by each listener at its own pace.

Singleflight: one listener leads, which means that the call is made and paid for in its name; the others follow. The call is the flight's,
not the leader's: it goes on while anybody listens. A leader that fails for reasons of its own makes way for a follower. When a call is made
anew although part of an answer is out, who has read that part goes on only if the new answer begins with it (continuation.py).
Pure: what waits is woken by the callbacks that it brings.
"""

from collections.abc import Callable
from itertools import chain

from joulegate.chat.v1 import chat_pb2, receipt_pb2
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.router.answer import Answer, Events
from services.router.continuation import Continuation
from services.router.question import Question
from services.runtime.errors import GatewayError

# What is wrong with the asker, not with the question: another one may fare better.
_OF_THE_LEADER = frozenset(
    {
        ErrorReason.ERROR_REASON_BUDGET_EXHAUSTED,
        ErrorReason.ERROR_REASON_RATE_LIMITED,
        ErrorReason.ERROR_REASON_PERMISSION_DENIED,
        ErrorReason.ERROR_REASON_INVALID_API_KEY,
    }
)


class LookAgainError(GatewayError):
    """There is nothing to listen to, but the answer may be kept by now, or on its way from somebody else."""

    def __init__(self) -> None:
        super().__init__(ErrorReason.ERROR_REASON_SERVICE_UNAVAILABLE, "The answer that was on its way is not any more.")


class Listener:
    """One reader of a flight. `wake` is called when there may be something to do."""

    __slots__ = (
        "_continuation",
        "_flight",
        "_next",
        "_said",
        "error",
        "has_followed",
        "has_led",
        "question",
        "reads_on",
        "restarted",
        "wake",
    )

    def __init__(self, flight: "Flight", wake: Callable[[], None], question: Question | None) -> None:
        self._flight = flight
        self.wake = wake
        # What it can ask by itself; None for one that can only follow.
        self.question = question
        # Whether it reads as the answer grows, or only when it is whole.
        self.reads_on = question is None or question.wants_stream
        # What ended this listener alone.
        self.error: GatewayError | None = None
        self._next = 0
        self._continuation: Continuation | None = None
        # What was read of the answers before this one. Kept only when there is one.
        self._said: list[chat_pb2.ChatEvent] = []
        # Set when all that was read is void, for a listener that can tell its own reader so: one without a question.
        self.restarted = False
        # Whether it was ever the leader, and whether there was ever another one.
        self.has_led = False
        self.has_followed = False

    @property
    def is_served(self) -> bool:
        """Whether there is something for its client: the beginning of an answer or, where that is read as a whole, its end."""
        flight = self._flight
        return flight.answer is not None if self.reads_on else flight.is_over

    @property
    def has_passed_on(self) -> bool:
        """Whether its client may have a part of an answer."""
        return self.reads_on and (self._next > 0 or bool(self._said))

    def fail(self, error: GatewayError) -> None:
        """Ends this listener alone."""
        self.error = self.error or error
        self.wake()

    def check(self) -> None:
        """Raises the GatewayError that ended this listener or, before its answer has begun, the flight."""
        if self.error is not None:
            raise self.error
        if self._flight.error is not None and self._flight.answer is None:
            raise self._flight.error

    def take(self) -> Events:
        """What has come since the last call; empty when nothing has. Raises the GatewayError that ended the answer, after all that came."""
        flight = self._flight
        if self.error is not None:
            raise self.error
        batches = flight.batches
        if self._next < len(batches) and (self.reads_on or (flight.is_finished and flight.is_over)):
            new, self._next = batches[self._next :], len(batches)
            events: Events = new[0] if len(new) == 1 else [*chain.from_iterable(new)]
            if self._continuation is not None:
                events = self._continued(self._continuation, events)
            if events:
                return events
        if flight.error is not None:
            raise flight.error
        return ()

    def _continued(self, continuation: Continuation, events: Events) -> Events:
        try:
            rest = continuation.rest(events)
            if self._flight.is_finished:
                continuation.finish()
        except GatewayError as error:
            self.error = error
            raise
        self._said += rest
        return rest

    def begin_anew(self, batches: list[Events]) -> None:
        """The answer of which these batches had come will not go on; another one takes its place."""
        if self.question is None:
            self._next, self.restarted = 0, True
            return
        if self._continuation is None:
            self._said += chain.from_iterable(batches[: self._next])
        self._next = 0
        if self._said:
            try:
                self._continuation = Continuation(self._said)
            except GatewayError as error:
                self.error = error


class Flight:
    """An answer that is shared. `on_abandoned` is called when the last listener leaves before the end, with what made it leave."""

    def __init__(self, on_abandoned: Callable[[GatewayError | None], None]) -> None:
        self._on_abandoned = on_abandoned
        self._listeners: dict[Listener, None] = {}
        self.leader: Listener | None = None
        # What is shared, once it has begun.
        self.answer: Answer | None = None
        # Whether this or an earlier answer has begun, so that listeners have been told where it comes from.
        self.has_begun = False
        self.batches: list[Events] = []
        # Whether all events have come.
        self.is_finished = False
        # Known when the answer is whole and booked.
        self.receipt: receipt_pb2.Receipt | None = None
        self.error: GatewayError | None = None
        self._curtailed_for: str | None = None
        self._usage_chunk: chat_pb2.ChatCompletionChunk | None = None

    @property
    def is_over(self) -> bool:
        return self.receipt is not None or self.error is not None

    @property
    def request_count(self) -> int:
        """How many requests listen."""
        return sum(listener.question is not None for listener in list(self._listeners))

    @property
    def is_awaited_whole(self) -> bool:
        """Whether a listener takes all of it at once."""
        return any(not listener.reads_on for listener in self._listeners)

    def usage_chunk(self) -> chat_pb2.ChatCompletionChunk:
        """The answer's last chunk, with its usage. To be asked for once all events have come."""
        assert self.answer is not None
        if self._usage_chunk is None:
            self._usage_chunk = self.answer.usage_chunk()
        return self._usage_chunk

    def join(self, wake: Callable[[], None], question: Question | None) -> Listener:
        """A new listener, which will get the answer from its first event."""
        listener = Listener(self, wake, question)
        listener.has_followed = self.answer is not None
        self._listeners[listener] = None
        return listener

    def is_for(self, question: Question) -> bool:
        """Whether the answer, as far as is known, is one to this request: what one caller's budget has curtailed is no other's."""
        return self._curtailed_for is None or self._curtailed_for == question.caller.key_id

    def leave(self, listener: Listener, reason: GatewayError | None = None) -> None:
        """The listener is gone, for that reason if there is one."""
        was_there = self._listeners.pop(listener, self) is None
        # No cycles are left behind: the garbage collector comes by rarely.
        listener.wake = _nothing
        if was_there and not self._listeners and not self.is_over:
            self._on_abandoned(reason)

    def appoint(self) -> Question | None:
        """Makes a listener the leader, first of those whose clients have nothing yet. Gives its question; None when nobody can lead."""
        chosen: Listener | None = None
        for listener in self._listeners:
            if listener.question is None:
                continue
            if not listener.has_passed_on:
                chosen = listener
                break
            chosen = chosen or listener
        self.leader = chosen
        if chosen is None:
            return None
        chosen.has_led = True
        return chosen.question

    def begin(self, answer: Answer) -> None:
        """The answer has begun."""
        self.answer, self.has_begun = answer, True
        self._curtailed_for = answer.source.curtailed_for
        for listener in list(self._listeners):
            listener.has_followed |= listener is not self.leader
            if listener.question is not None and not self.is_for(listener.question):
                listener.fail(LookAgainError())
            elif listener.reads_on:
                listener.wake()

    def add(self, events: Events) -> None:
        self.batches.append(events)
        self._wake_readers()

    def finish(self) -> None:
        """All events have come."""
        self.is_finished = True
        self._wake_readers()

    def land(self, receipt: receipt_pb2.Receipt) -> None:
        """The answer is booked."""
        self.receipt = receipt
        self._wake_all()

    def fail(self, error: GatewayError) -> None:
        """Ends the flight for everybody."""
        if not self.is_over:
            self.error = error
            self._wake_all()

    def fail_leader(self, error: GatewayError) -> bool:
        """Ends the leader's part alone if the error is of its own and nothing has come yet. Says whether another one may lead."""
        if self.leader is None or self.answer is not None or error.reason not in _OF_THE_LEADER:
            return False
        leader, self.leader = self.leader, None
        self._listeners.pop(leader, None)
        leader.fail(error)
        return bool(self._listeners)

    def close(self) -> None:
        """Nothing comes any more; listeners read what is there."""
        self.leader, self._on_abandoned = None, _nothing

    def begin_anew(self) -> None:
        """What has come of the answer is void: another call is made."""
        batches, self.batches = self.batches, []
        self.answer, self._curtailed_for, self.is_finished = None, None, False
        for listener in self._listeners:
            listener.begin_anew(batches)
        self._wake_all()

    def _wake_readers(self) -> None:
        for listener in self._listeners:
            if listener.reads_on:
                listener.wake()

    def _wake_all(self) -> None:
        # A copy: who is woken may leave.
        for listener in list(self._listeners):
            listener.wake()


def _nothing(*_: object) -> None:
    """Stands for a callback that is over."""
