"""Attempts among scripted providers, with a clock that is moved by hand."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from joulegate.chat.v1 import chat_pb2
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch.attempts import Attempts
from services.dispatch.backend import Batch
from services.dispatch.breaker import DEFAULT_POLICY, BreakerPolicy, Breakers
from services.dispatch.failure import Failure, Kind
from services.dispatch.retry import RetryPolicy
from services.dispatch.roster import Provider, Roster
from services.runtime.errors import GatewayError
from tests.fakes.virtual_time import VirtualClock

DOWN = Failure(Kind.REFUSED, "down", http_status=503)
BAD = Failure(Kind.REFUSED, "bad", http_status=400, param="n")
LIMITED = Failure(Kind.REFUSED, "slow down", http_status=429, retry_after_s=3.0)
CUT = Failure(Kind.BROKEN, "cut")
EVENT = chat_pb2.ChatEvent(chunk=chat_pb2.ChatCompletionChunk(id="1"))
Script = Sequence[Batch | Failure | asyncio.Event | float]
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
    """Takes its steps in order; an event is waited for, a number of seconds is slept."""

    warnings = ()

    def __init__(self, script: Script) -> None:
        self._script = list(script)
        self.is_read = False
        self.is_closed = False

    async def read(self) -> Batch:
        self.is_read = True
        step = self._script.pop(0)
        if isinstance(step, asyncio.Event | float):
            await (step.wait() if isinstance(step, asyncio.Event) else asyncio.sleep(step))
            return await self.read()
        if isinstance(step, Failure):
            raise step
        return step

    def close(self) -> None:
        self.is_closed = True


class ScriptedBackend:
    """Answers its calls in the order of its scripts."""

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

    def __init__(
        self,
        *backends: ScriptedBackend,
        policy: RetryPolicy | None = None,
        breaker: BreakerPolicy = DEFAULT_POLICY,
        virtual: VirtualClock | None = None,
    ) -> None:
        self.clock = FakeClock()
        clock = virtual or self.clock
        self.providers = [
            Provider(chr(ord("a") + index), "openai", backend, breakers=Breakers(breaker)) for index, backend in enumerate(backends)
        ]
        self.roster = Roster(self.providers)
        self.attempts = Attempts(self.roster, policy or RetryPolicy(), clock, lambda: 0.5, clock.sleep)
        self.responses: list[pb.DispatchResponse] = []

    def request(self, hedge: pb.Hedge | None = None, max_calls: int = 0) -> pb.DispatchRequest:
        targets = [pb.Target(provider=provider.name, model="m") for provider in self.providers]
        return pb.DispatchRequest(request_id="r", targets=targets, hedge=hedge, max_calls=max_calls)

    async def run(self, remaining_s: float | None = None, hedge: pb.Hedge | None = None, max_calls: int = 0) -> list[pb.DispatchResponse]:
        async for response in self.attempts.dispatch(self.request(hedge, max_calls), {}, remaining_s):
            self.responses.append(response)
        return self.responses

    async def error(self, remaining_s: float | None = None, hedge: pb.Hedge | None = None) -> GatewayError:
        with pytest.raises(GatewayError) as raised:
            await self.run(remaining_s, hedge)
        return raised.value

    @property
    def failed(self) -> list[tuple[str, int, int]]:
        return [(one.target.provider, one.attempt, one.http_status) for response in self.responses for one in response.failed_attempts]

    @property
    def begun(self) -> list[tuple[str, int]]:
        """Without a provider: it needed no call."""
        return [(one.target.provider, one.attempt) for response in self.responses for one in response.begun_attempts]
