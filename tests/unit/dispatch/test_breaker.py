"""A model that keeps failing is left alone, and a probe finds out when it is back."""

from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.dispatch.breaker import MAX_HISTORY, MAX_MODELS, Breaker, BreakerPolicy, Breakers, State

POLICY = BreakerPolicy(failures=3, failure_rate=0.5, minimum_calls=8, window_s=10.0, open_s=5.0, probes=2)
START = 1000.0


def opened() -> Breaker:
    """Opened at START."""
    breaker = Breaker(POLICY)
    for _ in range(POLICY.failures):
        breaker.failed(START, breaker.begin(START))
    return breaker


def half_open() -> tuple[Breaker, float]:
    return opened(), START + POLICY.open_s


def test_failures_in_a_row_open_it() -> None:
    breaker = Breaker(POLICY)
    states = []
    for _ in range(POLICY.failures):
        breaker.failed(START, breaker.begin(START))
        states.append(breaker.state(START))
    assert states == [State.CLOSED, State.CLOSED, State.OPEN]
    assert not breaker.admits(START)
    assert breaker.retry_at == START + POLICY.open_s


def test_a_success_starts_the_row_again() -> None:
    breaker = Breaker(POLICY)
    for failed in (True, True, False, True, True):
        (breaker.failed if failed else breaker.succeeded)(START, breaker.begin(START))
    assert breaker.state(START) is State.CLOSED
    assert breaker.failures_in_a_row == 2


def test_half_of_enough_calls_open_it_and_half_of_too_few_do_not() -> None:
    breaker = Breaker(POLICY)
    for turn in range(POLICY.minimum_calls):
        assert breaker.state(START) is State.CLOSED
        (breaker.failed if turn % 2 else breaker.succeeded)(START, breaker.begin(START))
    assert breaker.state(START) is State.OPEN
    assert breaker.failure_rate(START) == 0.5


def test_what_left_the_window_no_longer_counts() -> None:
    breaker = Breaker(replace(POLICY, failures=100))
    for _ in range(4):
        breaker.failed(START, breaker.begin(START))
    later = START + POLICY.window_s
    assert breaker.failure_rate(later) == 0.0
    for _ in range(8):
        breaker.succeeded(later, breaker.begin(later))
    breaker.failed(later, breaker.begin(later))
    assert breaker.state(later) is State.CLOSED


def test_the_first_call_after_the_pause_gets_through() -> None:
    breaker, now = half_open()
    assert not breaker.admits(now - 0.001)
    assert breaker.state(now) is State.HALF_OPEN
    assert breaker.admits(now)


def test_only_so_many_probes_are_out_at_a_time() -> None:
    breaker, now = half_open()
    first, _ = breaker.begin(now), breaker.begin(now)
    assert not breaker.admits(now + 100.0)
    breaker.succeeded(now, first)
    assert breaker.state(now) is State.HALF_OPEN
    assert breaker.admits(now)


def test_as_many_successes_as_probes_close_it() -> None:
    breaker, now = half_open()
    for _ in range(POLICY.probes):
        breaker.succeeded(now, breaker.begin(now))
    assert breaker.state(now) is State.CLOSED
    assert (breaker.retry_at, breaker.failures_in_a_row, breaker.failure_rate(now)) == (None, 0, 0.0)


def test_one_failed_probe_opens_it_for_a_fresh_pause() -> None:
    breaker, now = half_open()
    breaker.succeeded(now, breaker.begin(now))
    breaker.failed(now + 1, breaker.begin(now))
    assert breaker.state(now + 1) is State.OPEN
    assert breaker.retry_at == now + 1 + POLICY.open_s
    assert breaker.admits(now + 1 + POLICY.open_s)


def test_an_abandoned_probe_gives_its_slot_back_and_proves_nothing() -> None:
    breaker, now = half_open()
    tickets = [breaker.begin(now), breaker.begin(now)]
    breaker.abandoned(now, tickets[0])
    assert breaker.admits(now)
    assert breaker.state(now) is State.HALF_OPEN
    breaker.succeeded(now, tickets[1])
    assert breaker.state(now) is State.HALF_OPEN


def test_calls_from_before_it_opened_prove_nothing_afterwards() -> None:
    breaker = Breaker(POLICY)
    old = [breaker.begin(START) for _ in range(POLICY.failures + 3)]
    for _ in range(POLICY.failures):
        breaker.failed(START, old.pop())
    now = START + POLICY.open_s
    probe = breaker.begin(now)
    breaker.failed(now, old.pop())
    breaker.succeeded(now, old.pop())
    breaker.abandoned(now, old.pop())
    assert breaker.state(now) is State.HALF_OPEN
    breaker.begin(now)
    assert not breaker.admits(now)
    breaker.succeeded(now, probe)
    breaker.succeeded(now, breaker.begin(now))
    assert breaker.state(now) is State.CLOSED
    assert (breaker.call_count, breaker.success_count, breaker.failure_count) == (9, 3, 4)


def test_reset_makes_it_as_new_and_ignores_what_is_still_out() -> None:
    breaker, now = half_open()
    probe = breaker.begin(now)
    breaker.reset()
    assert (breaker.state(now), breaker.call_count, list(breaker.history)) == (State.CLOSED, 0, [])
    breaker.failed(now, probe)
    assert breaker.failures_in_a_row == 0


def test_history_tells_the_changes_and_is_bounded() -> None:
    breaker, now = half_open()
    for _ in range(POLICY.probes):
        breaker.succeeded(now, breaker.begin(now))
    assert list(breaker.history) == [(START, State.OPEN), (now, State.HALF_OPEN), (now, State.CLOSED)]
    for _ in range(MAX_HISTORY):
        now += POLICY.open_s
        for _ in range(POLICY.failures):
            breaker.failed(now, breaker.begin(now))
    assert len(breaker.history) == MAX_HISTORY


def test_models_have_breakers_of_their_own_and_no_client_can_make_too_many() -> None:
    breakers = Breakers(POLICY)
    known = breakers.of("known")
    assert breakers.find("other") is None
    for number in range(MAX_MODELS * 2):
        breakers.of(f"made-up-{number}")
        assert breakers.of("known") is known
    assert len(list(breakers)) == MAX_MODELS
    assert breakers.find("made-up-0") is None


class NaiveBreaker:
    """Keeps every outcome for ever and works all out anew."""

    def __init__(self) -> None:
        self.state = State.CLOSED
        self.period = 0
        self.opened_at = 0.0
        self.out: set[int] = set()
        self.outcomes: list[tuple[float, bool]] = []
        self.probe_successes = 0

    def shown(self, now: float) -> State:
        return State.HALF_OPEN if self.state is State.OPEN and now >= self.opened_at + POLICY.open_s else self.state

    def admits(self, now: float) -> bool:
        state = self.shown(now)
        if state is State.HALF_OPEN:
            return self.state is State.OPEN or len(self.out) < POLICY.probes
        return state is State.CLOSED

    def change(self, state: State) -> None:
        self.state = state
        self.period += 1
        self.out = set()
        self.outcomes = []
        self.probe_successes = 0

    def begin(self, now: float, call: int) -> int:
        if self.state is State.OPEN and self.shown(now) is State.HALF_OPEN:
            self.change(State.HALF_OPEN)
        if self.state is State.HALF_OPEN:
            self.out.add(call)
        return self.period

    def end(self, now: float, call: int, period: int, succeeded: bool | None) -> None:
        self.out.discard(call)
        if period != self.period or succeeded is None:
            return
        if self.state is State.HALF_OPEN and succeeded:
            self.probe_successes += 1
            if self.probe_successes == POLICY.probes:
                self.change(State.CLOSED)
        elif self.state is State.HALF_OPEN or (self.state is State.CLOSED and self.is_too_much(now, succeeded)):
            self.opened_at = now
            self.change(State.OPEN)

    def is_too_much(self, now: float, succeeded: bool) -> bool:
        self.outcomes.append((now, succeeded))
        row = self.outcomes[-POLICY.failures :]
        slice_s = POLICY.window_s / 10
        recent = [good for at, good in self.outcomes if int(at / slice_s) > int(now / slice_s) - 10]
        half = len(recent) >= POLICY.minimum_calls and recent.count(False) >= POLICY.failure_rate * len(recent)
        return not succeeded and (half or (len(row) == POLICY.failures and not any(good for _, good in row)))


class BreakerMachine(RuleBasedStateMachine):
    """Any course of calls: the breaker and the naive one agree."""

    @initialize()
    def start(self) -> None:
        self.now = START
        self.breaker = Breaker(POLICY)
        self.naive = NaiveBreaker()
        self.calls: list[tuple[int, int, int]] = []
        self.number = 0

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.9, 2.5, 5.0, 7.0, 20.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.breaker.admits(self.now))
    @rule()
    def call(self) -> None:
        self.number += 1
        self.calls.append((self.number, self.breaker.begin(self.now), self.naive.begin(self.now, self.number)))

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), outcome=st.sampled_from(["good", "bad", "bad", "left"]))
    def end(self, data: st.DataObject, outcome: str) -> None:
        call, ticket, period = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        end = {"good": self.breaker.succeeded, "bad": self.breaker.failed, "left": self.breaker.abandoned}[outcome]
        end(self.now, ticket)
        self.naive.end(self.now, call, period, {"good": True, "bad": False, "left": None}[outcome])

    @rule(outcomes=st.lists(st.booleans(), min_size=1, max_size=12))
    def call_often(self, outcomes: list[bool]) -> None:
        for good in outcomes:
            if self.breaker.admits(self.now):
                self.call()
                call, ticket, period = self.calls.pop()
                (self.breaker.succeeded if good else self.breaker.failed)(self.now, ticket)
                self.naive.end(self.now, call, period, good)

    @invariant()
    def they_agree(self) -> None:
        assert self.breaker.state(self.now) is self.naive.shown(self.now)
        assert self.breaker.admits(self.now) == self.naive.admits(self.now)

    @invariant()
    def an_open_one_always_comes_back(self) -> None:
        if self.breaker.state(self.now) is State.OPEN:
            assert self.breaker.retry_at is not None
            assert self.now < self.breaker.retry_at <= self.now + POLICY.open_s
            assert self.breaker.admits(self.breaker.retry_at)


TestAnyCourse = BreakerMachine.TestCase
