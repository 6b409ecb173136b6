"""Deadlines for the many short waits of one call, at the price of about one timer.

`asyncio.timeout` arms and cancels a timer per wait; a stream waits hundreds of times. Here the timer is left running and looks, when it
fires, whether the deadline has moved on. It bites only inside `until`, so it never cancels whoever consumes the stream.
"""

import asyncio
from types import TracebackType


class Watchdog:
    """Use it in one task at a time: `with watchdog.until(deadline): await ...` raises TimeoutError at `deadline`, in the loop's time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        self._task: asyncio.Task[object] | None = None
        self._has_fired = False
        self._cancelling = 0

    def until(self, deadline: float) -> "Watchdog":
        self._deadline = deadline
        return self

    def __enter__(self) -> None:
        assert self._deadline is not None
        self._task = asyncio.current_task(self._loop)
        assert self._task is not None
        self._cancelling = self._task.cancelling()
        self._has_fired = False
        if self._timer is None or self._timer.when() > self._deadline:
            self._set(self._deadline)

    def __exit__(self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None) -> None:
        task, self._task, self._deadline = self._task, None, None
        if not self._has_fired or task is None:
            return
        # As asyncio.timeout does: a cancellation from outside, at the same moment, is stronger than ours.
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from raised

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._task is None or self._deadline is None:
            return
        if self._loop.time() < self._deadline:
            self._set(self._deadline)
        else:
            self._has_fired = True
            self._task.cancel()
