"""Two calls for one request, side by side until the first event of one of them: that one answers, the other is broken off at once."""

import asyncio
from collections.abc import Callable, Sequence

from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch import metrics, retry
from services.dispatch.attempt import Attempt


class Race:
    """Used as an Attempt is. `make_rival` gives the second call once the first has kept silent for `after_s`, if one may go out."""

    def __init__(self, first: Attempt, after_s: float, make_rival: Callable[[], Attempt | None], *, is_whole: bool) -> None:
        self._first = first
        self._after_s = after_s
        self._is_whole = is_whole
        self._make_rival = make_rival
        self._rival: Attempt | None = None
        self._winner: Attempt | None = None
        # Told of, but not gone out yet.
        self._waiting: Attempt | None = None
        self._runners: list[_Runner] = []
        # Of the runners, those whose first response has not been told yet.
        self._running: list[_Runner] = []

    @property
    def is_won(self) -> bool:
        """Whether one of them gave its events. Says so when it is over."""
        return self._winner is not None

    @property
    def is_over(self) -> bool:
        """Whether `read` has given its last response."""
        if self._winner is not None:
            return self._winner.is_over
        return bool(self._runners) and not self._running

    @property
    def failed(self) -> Sequence[Attempt]:
        """The calls that ended without an event by themselves."""
        return [attempt for attempt in (self._first, self._rival) if attempt is not None and attempt.failure is not None]

    def begin(self) -> None:
        self._first.begin()

    async def read(self) -> pb.DispatchResponse:
        """As an Attempt's, with the begin of the second call."""
        if self._winner is not None:
            return await self._winner.read()
        if not self._runners:
            first = self._run(self._first)
            await asyncio.wait([first.first], timeout=self._after_s)
            if not first.first.done() and (rival := self._make_rival()) is not None:
                rival.begin()
                self._rival = self._waiting = rival
                # Told before the call goes out: whoever leaves in between has it in the books.
                return pb.DispatchResponse(begun_attempts=[rival.begun])
        if self._waiting is not None and not self._runners[0].is_decisive:
            self._run(self._waiting)
        self._waiting = None
        return await self._first_response()

    async def close(self) -> None:
        """Ends the calls, wherever they are."""
        try:
            for runner in self._runners:
                await runner.end()
        finally:
            await self._first.close()
            if self._rival is not None:
                await self._rival.close()
                metrics.HEDGES.labels(self._rival.target.provider, self._outcome(self._rival)).inc()

    def _run(self, attempt: Attempt) -> "_Runner":
        runner = _Runner(attempt)
        self._runners.append(runner)
        self._running.append(runner)
        return runner

    async def _first_response(self) -> pb.DispatchResponse:
        """What the first of the runners to say something says."""
        await asyncio.wait([runner.first for runner in self._running], return_when=asyncio.FIRST_COMPLETED)
        ended = next(runner for runner in self._running if runner.first.done())
        self._running.remove(ended)
        response = ended.first.result()
        if ended.attempt.failure is None:
            self._winner = ended.attempt
        if ended.is_decisive:
            for loser in self._running:
                await loser.end()
                response.failed_attempts.append(await loser.attempt.superseded(is_whole=self._is_whole))
            self._running.clear()
        return response

    def _outcome(self, rival: Attempt) -> str:
        if rival.failure is not None:
            return "failed"
        if self._winner is None:
            return "cancelled"
        return "won" if self._winner is rival else "lost"


class _Runner:
    """A call whose first response is waited for beside others."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.first = asyncio.create_task(attempt.read())

    @property
    def is_decisive(self) -> bool:
        """Whether its first response is here and ends the race: an event, or the refusal that any provider would give."""
        failure = self.attempt.failure
        return self.first.done() and (failure is None or retry.is_callers_fault(failure))

    async def end(self) -> None:
        """Ends the reading, wherever it is. Again: nothing."""
        self.first.cancel()
        await asyncio.gather(self.first, return_exceptions=True)
