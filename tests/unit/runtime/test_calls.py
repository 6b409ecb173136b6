"""How a handler's end is read: by what happened, not by what a clock shows afterwards."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import grpc
import pytest

from services.runtime.calls import CallContext


class EarlyLoop:
    """Fires its timers while its clock still shows a moment before."""

    def __init__(self) -> None:
        self.fire: Callable[[], None] | None = None

    def time(self) -> float:
        return 0.0

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        self.fire = callback


async def for_ever() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(("is_late", "code"), [(True, grpc.StatusCode.DEADLINE_EXCEEDED), (False, grpc.StatusCode.CANCELLED)])
async def test_handler_that_its_deadline_cancelled_was_late_whatever_the_clock_shows(is_late: bool, code: grpc.StatusCode) -> None:
    loop = EarlyLoop()
    context = CallContext((), 0.0005, cast(Any, loop))
    task = asyncio.create_task(for_ever())
    context.limit(task)
    assert loop.fire is not None
    (loop.fire if is_late else task.cancel)()
    with pytest.raises(asyncio.CancelledError) as raised:
        await task
    failure = context.failure(raised.value)
    assert failure is not None and failure.code() == code


async def test_handler_without_a_deadline_has_no_timer() -> None:
    loop = EarlyLoop()
    task = asyncio.create_task(for_ever())
    assert CallContext((), None, cast(Any, loop)).limit(task) is None
    assert loop.fire is None
    task.cancel()
