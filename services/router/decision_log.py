"""Writes every routing decision to a file, for `joulegate replay`: in the background, and never so that a request waits for it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Final, TextIO

from services.router import decision_record, metrics
from services.router.catalogue import Catalogue
from services.router.complexity import Scorer
from services.router.decision import Decision
from services.router.decision_record import Target
from services.router.families import Declared
from services.router.forecast import Forecast
from services.router.learning import Explorer
from services.router.output_lengths import OutputLengths
from services.router.policy import RoutingPolicy
from services.router.ranking import Ranking
from services.router.rates import Rate, Rates
from services.router.selection import Selection
from services.router.slate import Asked, Slate, Slates
from services.runtime import interceptors, logs

log = logs.get(__name__)

# Lines that may wait for the disk; beyond it they are dropped, and counted.
MAX_WAITING: Final = 10_000
WRITE_EVERY_S: Final = 0.2
_SEED_BITS: Final = 48


class DecisionLog:
    """A file that lines are appended to. Made by `open_log`."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._waiting: list[dict[str, Any]] = []
        self._is_broken = False

    def note(self, line: dict[str, Any]) -> None:
        """Takes a line that nobody changes any more."""
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(line)
        else:
            metrics.DECISIONS_DROPPED.inc()

    async def keep_writing(self, closing: asyncio.Event) -> None:
        """Writes until `closing` is set and nothing is left. Not to be cancelled, or a thread would go on with the file."""
        while not closing.is_set() or self._waiting:
            with suppress(TimeoutError):
                await asyncio.wait_for(closing.wait(), WRITE_EVERY_S)
            lines, self._waiting = self._waiting, []
            if lines:
                await asyncio.to_thread(self._write, lines)

    def _write(self, lines: list[dict[str, Any]]) -> None:
        try:
            self._file.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
            self._file.flush()
        except OSError as error:
            metrics.DECISIONS_DROPPED.inc(len(lines))
            if not self._is_broken:
                log.error("decision_log_broken", cause=str(error))
            self._is_broken = True
        else:
            self._is_broken = False


class Moment:
    """A clock that stands still while a decision is made, so that it is made at one time."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.value = 0.0

    def read(self) -> float:
        return self.value

    def take(self) -> float:
        self.value = self._now()
        return self.value


class RecordedSelection(Selection):
    """Chooses, and notes what it rested on."""

    def __init__(
        self,
        policy: RoutingPolicy,
        document: Mapping[str, Any],
        declared: Mapping[Target, Declared],
        slates: Slates,
        rates: Rates,
        lengths: OutputLengths,
        scorer: Scorer,
        learner: Explorer,
        now: Callable[[], float],
        decisions: DecisionLog,
    ) -> None:
        self._moment, self._chances, self._seeds = Moment(now), Random(), Random()
        ranking = Ranking(self._moment.read, self._chances.random)
        super().__init__(slates, ranking, Forecast(rates, lengths), scorer, learner, self._moment.read)
        self._declared = declared
        self._rates = rates
        self._lengths = lengths
        self._scores = scorer
        self._evidence = learner
        self._log = decisions
        self._catalogue = Catalogue()
        self._shown: tuple[Catalogue, Mapping[Target, Rate]] | None = None
        self._log.note(decision_record.start_line())
        self.apply(policy, document, 0)

    def apply(self, policy: RoutingPolicy, document: Mapping[str, Any], version: int) -> None:
        super().apply(policy, document, version)
        self._log.note(decision_record.policy_line(document, policy, version))

    def gather(self, catalogue: Catalogue, asked: Asked) -> Slate:
        self._catalogue = catalogue
        return super().gather(catalogue, asked)

    def choose(self, slate: Slate) -> Decision:
        self._show_picture()
        now, seed = self._moment.take(), self._seeds.getrandbits(_SEED_BITS)
        complexity = self._scores.score(slate.asked.request)
        slate = replace(slate, asked=replace(slate.asked, complexity=complexity))
        demand = slate.demand or slate.asked.new_demand()
        line = decision_record.decision_line(slate, self._catalogue, demand, complexity, self._lengths.means(), self._evidence, now)
        self._chances.seed(seed)
        decision = super().choose(slate)
        line |= {"time": time.time(), "request_id": interceptors.request_id.get("")}
        self._log.note(decision_record.decided(line, seed, decision))
        return decision

    def _show_picture(self) -> None:
        """Says who serves what, if that has changed."""
        picture = (self._catalogue, self._rates.known)
        if self._shown is None or any(one is not other for one, other in zip(picture, self._shown, strict=True)):
            self._shown = picture
            self._log.note(decision_record.picture_line(*picture, self._declared))


@asynccontextmanager
async def open_log(path: Path) -> AsyncIterator[DecisionLog]:
    """A log that writes while entered. Raises OSError when the file cannot be opened."""
    with path.open("a", encoding="utf-8") as file:
        decisions, closing = DecisionLog(file), asyncio.Event()
        writer = asyncio.create_task(decisions.keep_writing(closing))
        try:
            yield decisions
        finally:
            closing.set()
            await writer
