"""What leaves on a live stream, gathered into messages.

A message costs the same whatever is in it, on both sides. So it waits a little for company, and the longer the more of it there may be:
whoever is alone has nobody to wait for. With many callers the wait is short beside what they wait for each other anyway, and it is over
when there is company enough: the faster they are, the shorter it gets.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Final, Generic, TypeVar

Frame = TypeVar("Frame")

# Between the messages of one who is alone, and how much longer for each other caller, up to a most.
ALONE_S: Final = 0.0002
EACH_S: Final = 0.0005
SPACING_S: Final = 0.006
BURST: Final = 2


class Spacing:
    """A token bucket: BURST messages at once, then one in each spacing. Pure: times are in seconds of one clock."""

    def __init__(self, most_s: float = SPACING_S, each_s: float = EACH_S, alone_s: float = ALONE_S) -> None:
        self._most_s = most_s
        self._each_s = each_s
        self._alone_s = alone_s
        self._tokens = float(BURST)
        self._refilled_at = 0.0

    def wait_s(self, now: float, callers: int | None = None) -> float:
        """Takes a message, and gives how long it is to wait. None: there may be any number of callers."""
        spacing_s = self._most_s if callers is None else min(self._most_s, self._alone_s + self._each_s * max(0, callers - 1))
        # Who had company enough and did not wait owes one spacing, and not one for each such message.
        self._tokens = max(-1.0, min(float(BURST), self._tokens + (now - self._refilled_at) / spacing_s) - 1)
        self._refilled_at = now
        return max(0.0, -self._tokens * spacing_s)


class Outbox(Generic[Frame]):
    """Frames on their way out; `batch` gives what has gathered. `callers` says how many there are that may put more.

    So many frames as are `enough` wait for no further ones.
    """

    def __init__(self, callers: Callable[[], int] | None = None, spacing: Spacing | None = None, enough: int | None = None) -> None:
        self._callers = callers
        self._spacing = spacing or Spacing()
        self._enough = sys.maxsize if enough is None else enough
        self._frames: list[Frame] = []
        self._filled = asyncio.Event()
        self._closed = False
        self._alarm: asyncio.TimerHandle | None = None
        # Of a message that waits for company.
        self._leaving: asyncio.Future[None] | None = None

    @property
    def is_empty(self) -> bool:
        return not self._frames

    def put(self, frame: Frame) -> None:
        self._frames.append(frame)
        self._filled.set()
        if len(self._frames) >= self._enough:
            self._leave()

    def put_within(self, seconds: float, frame: Frame) -> None:
        """Queues what may wait for company that long."""
        self._frames.append(frame)
        if len(self._frames) >= self._enough:
            self._filled.set()
            self._leave()
        if self._filled.is_set():
            return
        loop = asyncio.get_running_loop()
        if self._alarm is None or loop.time() + seconds < self._alarm.when():
            self._cancel_alarm()
            self._alarm = loop.call_later(seconds, self._filled.set)

    def hurry(self) -> None:
        """Lets nothing that was put wait for company any longer."""
        if self._frames:
            self._filled.set()

    def close(self) -> None:
        """Lets `batch` give what is left and then an empty list."""
        self._closed = True
        self._filled.set()

    async def batch(self) -> list[Frame]:
        await self._filled.wait()
        if not self._closed:
            loop = asyncio.get_running_loop()
            await self._company(loop, self._spacing.wait_s(loop.time(), None if self._callers is None else self._callers()))
        frames, self._frames = self._frames, []
        self._cancel_alarm()
        if not self._closed:
            self._filled.clear()
        return frames

    async def _company(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        # Even without a wait: whoever runs now may have more to say, as that its call has ended.
        if not seconds or len(self._frames) >= self._enough:
            await asyncio.sleep(0)
            return
        self._leaving = leaving = loop.create_future()
        timer = loop.call_later(seconds, self._leave)
        try:
            await leaving
        finally:
            timer.cancel()
            self._leaving = None

    def _leave(self) -> None:
        if self._leaving is not None and not self._leaving.done():
            self._leaving.set_result(None)

    def _cancel_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
