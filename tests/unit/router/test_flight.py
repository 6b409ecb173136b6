"""A flight in any order of events: one leader at a time, nobody waits for ever, and no event is lost or doubled for anybody."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulegate.cache.v1 import cache_service_pb2 as cache_pb
from joulegate.chat.v1 import chat_pb2, receipt_pb2
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.router.answer import Answer, Source
from services.router.controls import CacheControls
from services.router.flight import Flight, Listener, LookAgainError
from services.router.question import Question
from services.runtime.errors import GatewayError
from services.runtime.identity import Caller

WORDS = [f"word{number} " for number in range(6)]
CUT = GatewayError(ErrorReason.ERROR_REASON_STREAM_CUT, "cut")
BROKE = GatewayError(ErrorReason.ERROR_REASON_BUDGET_EXHAUSTED, "no money")
REFUSED = GatewayError(ErrorReason.ERROR_REASON_PROVIDER_REJECTED, "no such tool")


def begun(curtailed_for: str | None = None) -> Answer:
    """An answer, as far as a flight looks at it."""
    source = Source("lab", "small", receipt_pb2.CACHE_STATUS_MISS, curtailed_for=curtailed_for)
    return cast(Answer, SimpleNamespace(source=source))


ANSWER = begun()


def asking(streamed: bool = True, key_id: str = "") -> Question:
    request = chat_pb2.ChatRequest(model="small", stream=streamed)
    return Question("r", request, "small", cache_pb.EntryKey(), Caller(key_id, ""), CacheControls(), (), (), 0.0, 10.0)


def said(text: str, finish: chat_pb2.FinishReason.ValueType = chat_pb2.FINISH_REASON_UNSPECIFIED) -> chat_pb2.ChatEvent:
    choice = chat_pb2.ChunkChoice(delta=chat_pb2.Message(text=text), finish_reason=finish)
    return chat_pb2.ChatEvent(chunk=chat_pb2.ChatCompletionChunk(choices=[choice]))


class Reader:
    """A listener as its request sees it: reads only after it was woken."""

    def __init__(self, flight: Flight, streamed: bool, key_id: str = "") -> None:
        self.is_woken = True
        self.text = ""
        self.error: GatewayError | None = None
        self.listener: Listener = flight.join(self.wake, asking(streamed, key_id))

    def wake(self) -> None:
        self.is_woken = True

    def read(self) -> None:
        self.is_woken = False
        try:
            while events := self.listener.take():
                self.text += "".join(choice.delta.text for event in events for choice in event.chunk.choices)
        except GatewayError as error:
            self.error = error

    @property
    def misses_something(self) -> bool:
        """Whether it sleeps although there is something to read."""
        if self.is_woken or self.error is not None:
            return False
        try:
            return bool(self.listener.take())
        except GatewayError:
            return True


class Scene:
    """A flight, its readers, and the call that is made for them."""

    def __init__(self) -> None:
        self.abandoned: list[GatewayError | None] = []
        self.flight = Flight(self.abandoned.append)
        self.readers: list[Reader] = []
        self.gone: list[Reader] = []
        self.sent = 0

    def step(self, number: int, what: int) -> None:
        actions: list[Callable[[], None]] = [
            lambda: self.readers.append(Reader(self.flight, streamed=True)),
            lambda: self.readers.append(Reader(self.flight, streamed=False)),
            lambda: self._read(number),
            lambda: self._leave(number),
            self._go_on,
            self._go_on,
            self._break_off,
        ]
        if not self.abandoned:
            actions[what % len(actions)]()

    def _read(self, number: int) -> None:
        if self.readers:
            self.readers[number % len(self.readers)].read()

    def _leave(self, number: int) -> None:
        if self.readers:
            reader = self.readers.pop(number % len(self.readers))
            self.gone.append(reader)
            self.flight.leave(reader.listener)

    def _go_on(self) -> None:
        flight = self.flight
        if flight.is_over or not self.readers:
            return
        if flight.leader is None:
            assert flight.appoint() is not None
        elif flight.answer is None:
            flight.begin(ANSWER)
        elif self.sent < len(WORDS):
            flight.add([said(WORDS[self.sent])])
            self.sent += 1
        elif not flight.is_finished:
            flight.finish()
        else:
            flight.land(receipt_pb2.Receipt())

    def _break_off(self) -> None:
        """The call is lost on its way, and another one takes its place."""
        flight = self.flight
        if flight.answer is not None and not flight.is_finished:
            flight.begin_anew()
            self.sent = 0


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 6)), max_size=120))
def test_every_reader_gets_every_word_once_whatever_happens_when(steps: list[tuple[int, int]]) -> None:
    scene = Scene()
    for number, what in steps:
        scene.step(number, what)
        flight = scene.flight
        assert sum(reader.listener is flight.leader for reader in scene.readers) <= 1
        assert bool(scene.abandoned) == (bool(scene.gone) and not scene.readers and not flight.is_over)
        for reader in scene.readers:
            assert not reader.misses_something
            assert "".join(WORDS).startswith(reader.text)
    if scene.abandoned or not scene.readers:
        return
    while not scene.flight.is_over:
        scene.step(0, 4)
    for reader in scene.readers:
        # Nobody is left asleep but who has read it all.
        assert reader.is_woken or reader.text == "".join(WORDS)
        reader.read()
        assert (reader.text, reader.error) == ("".join(WORDS), None)


@given(st.integers(1, 6), st.integers(0, 6))
def test_leaders_that_fail_by_themselves_make_way_one_by_one(count: int, refused_count: int) -> None:
    scene = Scene()
    readers = [Reader(scene.flight, streamed=True) for _ in range(count)]
    leaders = []
    while scene.flight.appoint() is not None:
        leaders.append(scene.flight.leader)
        if len(leaders) > refused_count:
            scene.flight.fail(REFUSED)
            break
        if not scene.flight.fail_leader(BROKE):
            scene.flight.fail(BROKE)
            break
    assert leaders == [reader.listener for reader in readers[: refused_count + 1]]
    for place, reader in enumerate(readers):
        with pytest.raises(GatewayError) as raised:
            reader.listener.check()
        assert raised.value is (BROKE if place < refused_count else REFUSED)


def test_failure_of_the_provider_is_everybodys() -> None:
    scene = Scene()
    readers = [Reader(scene.flight, streamed=True) for _ in range(2)]
    scene.flight.appoint()
    assert not scene.flight.fail_leader(REFUSED)
    assert not scene.flight.is_over
    scene.flight.begin(ANSWER)
    scene.flight.add([said("Ener")])
    # What may be the leader's own at the start is not any more.
    assert not scene.flight.fail_leader(BROKE)
    scene.flight.fail(CUT)
    for reader in readers:
        reader.read()
        assert (reader.text, reader.error) == ("Ener", CUT)


def test_reader_of_whole_answers_gets_nothing_of_one_that_is_cut() -> None:
    scene = Scene()
    reader = Reader(scene.flight, streamed=False)
    scene.flight.appoint()
    scene.flight.begin(ANSWER)
    scene.flight.add([said("Ener")])
    reader.read()
    scene.flight.fail(CUT)
    assert reader.is_woken
    reader.read()
    assert (reader.text, reader.error) == ("", CUT)


def test_reader_of_whole_answers_sleeps_until_there_is_one() -> None:
    scene = Scene()
    reader = Reader(scene.flight, streamed=False)
    scene.flight.appoint()
    reader.read()
    scene.flight.begin(ANSWER)
    scene.flight.add([said("Energy")])
    scene.flight.finish()
    assert scene.flight.is_awaited_whole
    assert (reader.is_woken, reader.listener.is_served) == (False, False)
    scene.flight.land(receipt_pb2.Receipt())
    assert (reader.is_woken, reader.listener.is_served) == (True, True)
    reader.read()
    assert reader.text == "Energy"


def test_who_has_passed_nothing_on_leads_first_after_a_break() -> None:
    scene = Scene()
    first, second = Reader(scene.flight, streamed=True), Reader(scene.flight, streamed=True)
    scene.flight.appoint()
    scene.flight.begin(ANSWER)
    scene.flight.add([said("Ener")])
    first.read()
    scene.flight.begin_anew()
    scene.flight.appoint()
    assert scene.flight.leader is second.listener


def test_another_answer_goes_to_those_alone_who_have_read_none() -> None:
    scene = Scene()
    late, early = Reader(scene.flight, streamed=True), Reader(scene.flight, streamed=True)
    scene.flight.appoint()
    scene.flight.begin(ANSWER)
    scene.flight.add([said("Ener")])
    early.read()
    scene.flight.begin_anew()
    scene.flight.begin(ANSWER)
    scene.flight.add([said("Work.", chat_pb2.FINISH_REASON_STOP)])
    scene.flight.finish()
    late.read()
    early.read()
    assert (late.text, late.error) == ("Work.", None)
    assert early.text == "Ener"
    assert early.error is not None and early.error.reason == ErrorReason.ERROR_REASON_STREAM_CUT


def test_last_to_leave_says_why_the_call_ends() -> None:
    scene = Scene()
    first, last = Reader(scene.flight, streamed=True), Reader(scene.flight, streamed=True)
    late = GatewayError(ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED, "late")
    scene.flight.appoint()
    scene.flight.leave(first.listener)
    assert scene.abandoned == []
    scene.flight.leave(last.listener, late)
    scene.flight.leave(last.listener)
    assert scene.abandoned == [late]


def test_answer_that_a_budget_has_curtailed_is_for_its_key_alone() -> None:
    scene = Scene()
    poor, other, same = (Reader(scene.flight, streamed=True, key_id=key_id) for key_id in ("poor", "other", "poor"))
    relay = scene.flight.join(lambda: None, None)
    scene.flight.appoint()
    scene.flight.begin(begun(curtailed_for="poor"))
    scene.flight.add([said("Ener")])
    for reader in (poor, other, same):
        reader.read()
    assert [reader.text for reader in (poor, other, same)] == ["Ener", "", "Ener"]
    assert isinstance(other.error, LookAgainError)
    # Another router tells its own.
    assert relay.take()
    assert (scene.flight.is_for(asking(key_id="other")), scene.flight.is_for(asking(key_id="poor"))) == (False, True)
    scene.flight.begin_anew()
    assert scene.flight.is_for(asking(key_id="other"))


def test_listener_without_a_question_is_told_that_all_begins_again() -> None:
    scene = Scene()
    Reader(scene.flight, streamed=True)
    relay = scene.flight.join(lambda: None, None)
    scene.flight.appoint()
    scene.flight.begin(ANSWER)
    scene.flight.add([said("Ener")])
    assert relay.take() and not relay.restarted
    scene.flight.begin_anew()
    scene.flight.begin(ANSWER)
    scene.flight.add([said("Work")])
    assert relay.restarted
    assert [event.chunk.choices[0].delta.text for event in relay.take()] == ["Work"]
