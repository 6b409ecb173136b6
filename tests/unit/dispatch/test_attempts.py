"""Targets in order until one answers: what is told, what is waited for, what is counted."""

from collections.abc import Callable, Mapping, Sequence

import pytest

from joulegate.chat.v1 import chat_pb2
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch.attempts import Attempts
from services.dispatch.backend import Batch
from services.dispatch.failure import Failure, Kind
from services.dispatch.figures import UNHEALTHY_AFTER
from services.dispatch.retry import RetryPolicy
from services.dispatch.roster import Provider, Roster
from services.runtime.errors import GatewayError

DOWN = Failure(Kind.REFUSED, "down", http_status=503)
BAD = Failure(Kind.REFUSED, "bad", http_status=400, param="n")
LIMITED = Failure(Kind.REFUSED, "slow down", http_status=429, retry_after_s=3.0)
CUT = Failure(Kind.BROKEN, "cut")
EVENT = chat_pb2.ChatEvent(chunk=chat_pb2.ChatCompletionChunk(id="1"))
Script = Sequence[Batch | Failure]
ANSWER: Script = [Batch([EVENT], is_last=True)]


class FakeClock:
    """Moves when told to, or slept on."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.time

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


class ScriptedAnswer:
    warnings = ()

    def __init__(self, script: Script) -> None:
        self._script = list(script)
        self.is_closed = False

    async def read(self) -> Batch:
        step = self._script.pop(0)
        if isinstance(step, Failure):
            raise step
        return step

    async def close(self) -> None:
        self.is_closed = True


class ScriptedBackend:
    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)
        self.answers: list[ScriptedAnswer] = []

    def call(self, request: chat_pb2.ChatRequest, model: str, headers: Mapping[str, str]) -> ScriptedAnswer:
        self.answers.append(ScriptedAnswer(self._scripts.pop(0)))
        return self.answers[-1]

    async def list_models(self) -> Sequence[pb.Model]:
        return []


class Scene:
    """Providers a, b, ... with scripted calls."""

    def __init__(self, *backends: ScriptedBackend, policy: RetryPolicy | None = None) -> None:
        self.clock = FakeClock()
        self.providers = [Provider(chr(ord("a") + index), "openai", backend) for index, backend in enumerate(backends)]
        self.roster = Roster(self.providers)
        self.attempts = Attempts(self.roster, policy or RetryPolicy(), self.clock, lambda: 0.5, self.clock.sleep)
        self.responses: list[pb.DispatchResponse] = []

    async def run(self, remaining_s: float | None = None, on_response: Callable[[], None] = lambda: None) -> list[pb.DispatchResponse]:
        targets = [pb.Target(provider=provider.name, model="m") for provider in self.providers]
        async for response in self.attempts.dispatch(pb.DispatchRequest(request_id="r", targets=targets), {}, remaining_s):
            self.responses.append(response)
        return self.responses

    async def error(self, remaining_s: float | None = None) -> GatewayError:
        with pytest.raises(GatewayError) as raised:
            await self.run(remaining_s)
        return raised.value

    @property
    def failed(self) -> list[tuple[str, int, int]]:
        return [(one.target.provider, one.attempt, one.http_status) for response in self.responses for one in response.failed_attempts]


async def test_a_whole_answer_is_one_message() -> None:
    [response] = await Scene(ScriptedBackend(ANSWER)).run()
    assert (response.selected.target.provider, response.selected.attempt) == ("a", 1)
    assert len(response.events) == 1
    assert response.HasField("finished")


async def test_a_stream_is_selected_once_and_finished_last() -> None:
    script = [Batch([EVENT, EVENT], is_last=False), Batch([EVENT], is_last=False), Batch([], is_last=True)]
    responses = await Scene(ScriptedBackend(script)).run()
    assert [len(response.events) for response in responses] == [2, 1, 0]
    assert [response.HasField("selected") for response in responses] == [True, False, False]
    assert [response.HasField("finished") for response in responses] == [False, False, True]


async def test_failures_are_told_one_by_one_before_the_answer() -> None:
    scene = Scene(ScriptedBackend([DOWN], [DOWN]), ScriptedBackend(ANSWER))
    responses = await scene.run()
    assert scene.failed == [("a", 1, 503), ("a", 2, 503)]
    assert [len(response.failed_attempts) for response in responses] == [1, 1, 0]
    assert (responses[-1].selected.target.provider, responses[-1].selected.attempt) == ("b", 3)
    assert scene.clock.slept == [0.05]


async def test_failures_are_told_before_the_final_error() -> None:
    scene = Scene(ScriptedBackend([DOWN], [DOWN]), ScriptedBackend([DOWN], [DOWN]))
    error = await scene.error()
    assert error.reason == ErrorReason.ERROR_REASON_PROVIDERS_EXHAUSTED
    assert scene.failed == [("a", 1, 503), ("a", 2, 503), ("b", 3, 503), ("b", 4, 503)]


async def test_a_bad_request_is_not_tried_elsewhere() -> None:
    scene = Scene(ScriptedBackend([BAD]), ScriptedBackend())
    error = await scene.error()
    assert (error.reason, error.http_status, error.metadata["param"]) == (ErrorReason.ERROR_REASON_PROVIDER_REJECTED, 400, "n")
    assert scene.failed == [("a", 1, 400)]


async def test_a_provider_is_waited_for_as_long_as_it_asks() -> None:
    scene = Scene(ScriptedBackend([LIMITED], ANSWER))
    await scene.run()
    assert scene.clock.slept == [3.0]


async def test_the_callers_deadline_is_not_slept_through() -> None:
    scene = Scene(ScriptedBackend([LIMITED]), ScriptedBackend(ANSWER))
    await scene.run(remaining_s=2.0)
    assert scene.clock.slept == []
    assert scene.responses[-1].selected.target.provider == "b"


async def test_after_the_first_event_nothing_is_tried_again() -> None:
    scene = Scene(ScriptedBackend([Batch([EVENT], is_last=False), CUT]), ScriptedBackend())
    error = await scene.error()
    assert (error.reason, error.metadata["provider"]) == (ErrorReason.ERROR_REASON_STREAM_CUT, "a")
    assert len(scene.responses) == 1
    assert scene.failed == []


async def test_an_answer_that_breaks_before_its_first_event_goes_to_the_next_target() -> None:
    scene = Scene(ScriptedBackend([CUT]), ScriptedBackend(ANSWER))
    await scene.run()
    assert scene.failed == [("a", 1, 0)]


async def test_every_call_is_closed_and_nothing_stays_in_flight() -> None:
    first, second = ScriptedBackend([DOWN], [DOWN]), ScriptedBackend(ANSWER)
    scene = Scene(first, second)
    await scene.run()
    assert all(answer.is_closed for answer in first.answers + second.answers)
    assert [provider.figures.in_flight_count for provider in scene.providers] == [0, 0]


async def test_leaving_closes_the_call_and_counts_neither_way() -> None:
    backend = ScriptedBackend([Batch([EVENT], is_last=False)])
    scene = Scene(backend)
    responses = scene.attempts.dispatch(pb.DispatchRequest(targets=[pb.Target(provider="a", model="m")]), {}, None)
    await anext(responses)
    assert scene.providers[0].figures.in_flight_count == 1
    await responses.aclose()
    figures = scene.providers[0].figures
    assert backend.answers[0].is_closed
    assert (figures.in_flight_count, figures.success_count, figures.failure_count) == (0, 0, 0)


async def test_health_changes_are_announced_both_ways() -> None:
    scene = Scene(ScriptedBackend(*[[DOWN]] * UNHEALTHY_AFTER, ANSWER), policy=RetryPolicy(attempts=UNHEALTHY_AFTER + 1))
    changes: list[bool] = []
    change = scene.roster.change
    async for _ in scene.attempts.dispatch(pb.DispatchRequest(targets=[pb.Target(provider="a", model="m")]), {}, None):
        changes.append(change.is_set())
        change = scene.roster.change
    assert changes == [False, False, True, True]
    assert scene.roster.describe()[0].healthy


async def test_a_refused_request_is_no_mark_against_the_provider() -> None:
    scene = Scene(ScriptedBackend([BAD]))
    await scene.error()
    assert scene.providers[0].figures.failure_count == 0


async def test_the_last_error_has_none_of_the_vendors_words() -> None:
    scene = Scene(ScriptedBackend([DOWN], ANSWER))
    await scene.run()
    [described] = scene.roster.describe()
    assert (described.last_error, described.failure_count, described.success_count) == ("HTTP 503", 1, 1)
    assert described.HasField("time_to_first_event")
    assert described.last_success_time.seconds == 1000


@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        ([], ErrorReason.ERROR_REASON_INVALID_REQUEST),
        (["nobody"], ErrorReason.ERROR_REASON_MODEL_NOT_FOUND),
        (["a", "nobody"], ErrorReason.ERROR_REASON_MODEL_NOT_FOUND),
    ],
)
async def test_targets_must_exist(targets: list[str], reason: ErrorReason.ValueType) -> None:
    scene = Scene(ScriptedBackend())
    request = pb.DispatchRequest(targets=[pb.Target(provider=name, model="m") for name in targets])
    with pytest.raises(GatewayError) as raised:
        await anext(scene.attempts.dispatch(request, {}, None))
    assert raised.value.reason == reason
