"""Two calls for one request, side by side until the first event of one of them: that one answers, the other is broken off at once."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

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

    @property
    def is_won(self) -> bool:
        """Whether one of them gave its events. Says so when `responses` has ended."""
        return self._winner is not None

    @property
    def failed(self) -> Sequence[Attempt]:
        """The calls that ended without an event by themselves."""
        return [attempt for attempt in (self._first, self._rival) if attempt is not None and attempt.failure is not None]

    async def responses(self) -> AsyncGenerator[pb.DispatchResponse, None]:
        """As an Attempt's, with the begin of the second call."""
        first = _Runner(self._first)
        runners = [first]
        try:
            await asyncio.wait([first.first], timeout=self._after_s)
            if not first.first.done() and (rival := self._make_rival()) is not None:
                rival.begin()
                self._rival = rival
                # Told before the call goes out: whoever leaves in between has it in the books.
                yield pb.DispatchResponse(begun_attempts=[rival.begun])
                if not first.is_decisive:
                    runners.append(_Runner(rival))
            async with aclosing(self._run(list(runners))) as responses:
                async for response in responses:
                    yield response
        finally:
            for runner in runners:
                await runner.end()
                await runner.attempt.close()
            if self._rival is not None:
                await self._rival.close()
                metrics.HEDGES.labels(self._rival.target.provider, self._outcome(self._rival)).inc()

    async def _run(self, runners: "list[_Runner]") -> AsyncGenerator[pb.DispatchResponse, None]:
        while runners:
            await asyncio.wait([runner.first for runner in runners], return_when=asyncio.FIRST_COMPLETED)
            ended = next(runner for runner in runners if runner.first.done())
            runners.remove(ended)
            response = ended.first.result()
            if ended.attempt.failure is None:
                self._winner = ended.attempt
            if ended.is_decisive:
                for loser in runners:
                    await loser.end()
                    response.failed_attempts.append(await loser.attempt.superseded(is_whole=self._is_whole))
                runners.clear()
            yield response
            async for response in ended.responses:
                yield response

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
        self.responses = attempt.responses()
        self.first = asyncio.create_task(self._first())

    @property
    def is_decisive(self) -> bool:
        """Whether its first response is here and ends the race: an event, or the refusal that any provider would give."""
        failure = self.attempt.failure
        return self.first.done() and (failure is None or retry.is_callers_fault(failure))

    async def end(self) -> None:
        """Ends the reading, wherever it is. Again: nothing."""
        self.first.cancel()
        await asyncio.gather(self.first, return_exceptions=True)
        await self.responses.aclose()

    async def _first(self) -> pb.DispatchResponse:
        return await anext(self.responses)
