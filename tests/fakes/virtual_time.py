"""An event loop whose time passes only while everybody sleeps: minutes of traffic in a moment, the same at each run."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class _Selector(selectors.SelectSelector):
    """Instead of waiting for the next timer, moves the time there."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everybody waits for something that never comes"
        self.time += max(0.0, timeout)
        return []


class VirtualClock:
    """The loop's time, for those who take a clock."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    now = monotonic
    sleep = staticmethod(asyncio.sleep)


def run(main: Coroutine[Any, Any, Any]) -> None:
    """Runs `main` to its end. Nothing in it may wait for the world outside."""
    selector = _Selector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.time  # type: ignore[method-assign]
    try:
        loop.run_until_complete(main)
    finally:
        loop.close()
