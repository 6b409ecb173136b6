"""What the contract tests cannot see: the heartbeat of a watch, and a provider that is found while one watches."""

import asyncio
from typing import Any, cast

from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch.attempts import Attempts
from services.dispatch.demo import DemoBackend
from services.dispatch.retry import RetryPolicy
from services.dispatch.roster import Provider, Roster
from services.dispatch.servicer import DispatchServicer
from services.runtime.clock import SystemClock


def servicer(roster: Roster, heartbeat_s: float) -> DispatchServicer:
    attempts = Attempts(roster, RetryPolicy(), SystemClock(), lambda: 0.5)
    return DispatchServicer(attempts, roster, asyncio.Event(), lambda context: {}, heartbeat_s, spacing_s=0.001)


async def test_a_watch_repeats_itself_when_nothing_changes() -> None:
    roster = Roster([Provider("demo", "demo", DemoBackend(SystemClock()))])
    responses = servicer(roster, heartbeat_s=0.001).WatchProviders(pb.WatchProvidersRequest(), cast(Any, None))
    seen = [await anext(responses) for _ in range(3)]
    assert [[provider.name for provider in response.providers] for response in seen] == [["demo"]] * 3


async def test_a_change_between_two_messages_is_not_missed() -> None:
    provider = Provider("demo", "demo", DemoBackend(SystemClock()), is_present=False)
    roster = Roster([provider])
    responses = servicer(roster, heartbeat_s=60).WatchProviders(pb.WatchProvidersRequest(), cast(Any, None))
    assert list((await anext(responses)).providers) == []
    provider.is_present = True
    roster.touch()
    async with asyncio.timeout(30):
        assert [found.name for found in (await anext(responses)).providers] == ["demo"]
