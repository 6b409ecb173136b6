"""Keeps one child process running and passes on what it writes."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from services.runtime import logs
from services.runtime.clock import Clock
from services.up import tether
from services.up.plan import Child
from services.up.restarts import Restarts

log = logs.get(__name__)

_PROBE_INTERVAL_S: Final = 0.05
_TAIL_BYTES: Final = 4000
_GATHER_S = 0.01
# What our services exit with when their settings are wrong: trying again is of no use.
_WRONG_SETTINGS: Final = 2


class HopelessError(Exception):
    """A child never came up; `tail` is the end of what it wrote."""

    def __init__(self, name: str, code: int, tail: str) -> None:
        super().__init__(f"{name} does not start (exit code {code})")
        self.code = code
        self.tail = tail


class Keeper:
    """One child, over all its restarts."""

    def __init__(self, child: Child, clock: Clock) -> None:
        self.name = child.name
        self.is_healthy = asyncio.Event()
        self._child = child
        self._clock = clock
        self._restarts = Restarts()
        self._process: asyncio.subprocess.Process | None = None
        self._relay: asyncio.Task[None] | None = None
        self._tail = b""

    async def keep(self) -> None:
        """Starts the child again whenever it ends; cancelling this leaves it running. Raises HopelessError for one that never comes up."""
        while True:
            process = await self._start()
            watch = asyncio.create_task(self._watch())
            try:
                code = await process.wait()
            finally:
                watch.cancel()
            await self._clear_away()
            delay = self._restarts.ended(self._clock.monotonic())
            if self._restarts.is_hopeless or (code == _WRONG_SETTINGS and not self._restarts.was_healthy):
                raise HopelessError(self.name, code, self._tail.decode(errors="replace"))
            log.warning("child_ended", child=self.name, code=code, restart_in_s=delay)
            await asyncio.sleep(delay)

    async def stop(self, grace_s: float, hurry: asyncio.Event) -> None:
        """Tells the child to leave; kills it after `grace_s`, or as soon as `hurry` is set."""
        process = self._process
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        ended, hurried = asyncio.create_task(process.wait()), asyncio.create_task(hurry.wait())
        await asyncio.wait((ended, hurried), timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not ended.done():
            log.warning("child_killed", child=self.name)
            process.kill()
        code = await ended
        await self._clear_away()
        log.info("child_stopped", child=self.name, code=code)

    async def _start(self) -> asyncio.subprocess.Process:
        # A session of its own: the terminal's Ctrl-C is for `up` alone, and what the child leaves behind can be found.
        self._process = process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(Path(tether.__file__)), str(os.getpid()), *self._child.command),
            env=self._child.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdout is not None
        self._relay = asyncio.create_task(self._pass_on(process.stdout))
        log.info("child_started", child=self.name, pid=process.pid)
        return process

    async def _clear_away(self) -> None:
        """Ends what a child that is gone left running, and waits for its last words."""
        assert self._process is not None
        assert self._relay is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process = None
        await self._relay

    async def _watch(self) -> None:
        while not await self._child.is_healthy():  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(_PROBE_INTERVAL_S)
        self._restarts.became_healthy(self._clock.monotonic())
        self.is_healthy.set()

    async def _pass_on(self, output: asyncio.StreamReader) -> None:
        """Writes whole lines, so that those of different children do not mix."""
        rest = b""
        while chunk := await output.read(65536):
            lines, newline, rest = (rest + chunk).rpartition(b"\n")
            self._write(lines + newline)
            # Under load a line comes with every request: let some gather rather than wake for each.
            await asyncio.sleep(_GATHER_S)
        self._write(rest)

    def _write(self, text: bytes) -> None:
        self._tail = (self._tail + text)[-_TAIL_BYTES:]
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
