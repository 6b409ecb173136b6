"""Waiting for a future without owning it: on the path of every answer, where `wait_for(shield(...))` costs a task and two futures."""

import asyncio
from typing import Any


async def is_done_within(future: asyncio.Future[Any], timeout_s: float) -> bool:
    """Whether the future is done, having waited for it at most so long. It goes on either way, also when the waiter is cancelled."""
    if future.done():
        return True
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake(_: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    timer = loop.call_later(timeout_s, wake)
    future.add_done_callback(wake)
    try:
        await waiter
    finally:
        timer.cancel()
        future.remove_done_callback(wake)
    return future.done()
