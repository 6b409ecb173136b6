"""All providers fail for a minute: what the gateway makes of the offered load, and how it comes back. Simulated, with a recorded seed.

Before its first timeout nobody can know that a provider is silent, and what waits for it moves on to the next one: four providers that are
silent for `t` seconds take up to 10 t L calls until all circuits are open, and that is within 1.2 L a minute for `t` up to seven seconds.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence

import pytest

from joulegate.chat.v1 import chat_pb2
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch.attempts import Attempts
from services.dispatch.backend import Batch
from services.dispatch.breaker import DEFAULT_POLICY
from services.dispatch.failure import Failure, Kind
from services.dispatch.retry import RetryPolicy
from services.dispatch.roster import Provider, Roster
from services.runtime.errors import GatewayError
from tests.fakes import virtual_time

SEED = 20261121
NAMES = "abcd"
FAULT_FROM_S, FAULT_UNTIL_S, END_S = 60.0, 120.0, 180.0
LATENCY_S = 0.3
EVENT = chat_pb2.ChatEvent(completion=chat_pb2.ChatCompletion(id="1"))
# How long a call takes to fail, and how it fails.
FAULTS = {
    "refused": (0.02, Failure(Kind.REFUSED, "down", http_status=503)),
    "unreachable": (0.0, Failure(Kind.UNREACHABLE, "nobody there")),
    "key": (0.1, Failure(Kind.REFUSED, "no such key", http_status=401)),
    "cut": (0.2, Failure(Kind.BROKEN, "cut")),
    "silent": (2.0, Failure(Kind.TIMEOUT, "no answer in time")),
    "long silent": (5.0, Failure(Kind.TIMEOUT, "no answer in time")),
}


class Outage:
    """A backend for all providers that fails in its time, and counts its calls."""

    def __init__(self, delay_s: float, failure: Failure) -> None:
        self._delay_s = delay_s
        self._failure = failure
        self.calls: list[float] = []

    def call(self, request: chat_pb2.ChatRequest, model: str, headers: Mapping[str, str]) -> "OutageAnswer":
        self.calls.append(_now())
        return OutageAnswer(*((self._delay_s, self._failure) if FAULT_FROM_S <= _now() < FAULT_UNTIL_S else (LATENCY_S, None)))

    async def list_models(self) -> Sequence[pb.Model]:
        return []


class OutageAnswer:
    warnings = ()

    def __init__(self, delay_s: float, failure: Failure | None) -> None:
        self._delay_s = delay_s
        self._failure = failure

    async def read(self) -> Batch:
        await asyncio.sleep(self._delay_s)
        if self._failure is not None:
            raise self._failure
        return Batch([EVENT], is_last=True)

    def close(self) -> None:
        pass


def _now() -> float:
    return asyncio.get_running_loop().time()


class Load:
    """Requests at random moments, each with all targets; notes when each came and whether it was answered."""

    def __init__(self, outage: Outage, policy: RetryPolicy) -> None:
        self._random = random.Random(SEED)
        roster = Roster([Provider(name, "openai", outage) for name in NAMES])
        self._attempts = Attempts(roster, policy, virtual_time.VirtualClock(), self._random.random)
        self._targets = [pb.Target(provider=name, model="m") for name in NAMES]
        self.answered: list[tuple[float, bool]] = []

    async def run(self, per_s: float) -> None:
        async with asyncio.TaskGroup() as group:
            while _now() < END_S:
                group.create_task(self._ask())
                await asyncio.sleep(self._random.expovariate(per_s))

    async def _ask(self) -> None:
        came = _now()
        try:
            async for _ in self._attempts.dispatch(pb.DispatchRequest(targets=self._targets), {}, None):
                pass
        except GatewayError:
            self.answered.append((came, False))
        else:
            self.answered.append((came, True))

    def came(self, since: float, until: float) -> list[bool]:
        return [is_answered for came, is_answered in self.answered if since <= came < until]


@pytest.mark.parametrize(
    ("fault", "per_s"),
    [(fault, per_s) for fault in FAULTS for per_s in (1.0, 10.0, 50.0) if (fault, per_s) != ("long silent", 1.0)],
)
def test_an_outage_of_all_providers_is_not_multiplied_and_ends_with_its_cause(fault: str, per_s: float) -> None:
    outage = Outage(*FAULTS[fault])
    load = Load(outage, RetryPolicy(attempts=3))
    virtual_time.run(load.run(per_s))
    offered = len(load.came(FAULT_FROM_S, FAULT_UNTIL_S))
    called = len([at for at in outage.calls if FAULT_FROM_S <= at < FAULT_UNTIL_S])
    assert called <= 1.2 * offered
    assert all(load.came(0.0, FAULT_FROM_S - 1.0))
    assert all(load.came(FAULT_UNTIL_S + DEFAULT_POLICY.open_s, END_S))
