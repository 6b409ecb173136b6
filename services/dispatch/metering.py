"""Reads the machine's counters while its models work: when a request begins and ends, and in between."""

import asyncio
from collections.abc import Sequence
from typing import Final

from joulegate.ledger.v1.entry_pb2 import EnergyBoundary
from services.dispatch import metrics
from services.dispatch.counters import Counters, CountersError
from services.dispatch.meter import Meter, Share
from services.runtime import logs

log = logs.get(__name__)

SLICE_S: Final = 0.1


class Metering:
    """One machine's counters, and who is answerable for them. Counters that fail are said once and end it: rows then have estimates.

    What is stated of a machine holds for the time that it works: then nothing is idle, and nothing is told as measured.
    """

    def __init__(self, counters: Sequence[Counters], boundary: EnergyBoundary.ValueType, *, is_declared: bool = False) -> None:
        self._counters = counters
        self.boundary = boundary
        self.is_declared = is_declared
        self.meter = Meter()
        self._is_broken = False

    def begin(self, prompt_tokens: int) -> Share:
        """A request begins."""
        self.tick()
        return self.meter.begin(prompt_tokens)

    def end(self, share: Share) -> int | None:
        """A request ends: what it took, in microjoules; None when that is not known."""
        self.tick()
        self.meter.end(share)
        return None if self._is_broken else share.microjoules

    def tick(self) -> None:
        """Ends a slice."""
        if self._is_broken:
            return
        try:
            counted = sum(counters.read() for counters in self._counters)
        except CountersError as error:
            self._is_broken = True
            log.error("counters_unreadable", cause=str(error), consequence="energy is estimated")
            return
        if self.is_declared:
            if self.meter.is_busy:
                self.meter.spend(counted)
            return
        idle = self.meter.idle_microjoules
        self.meter.spend(counted)
        metrics.MEASURED_JOULES.labels("idle" if self.meter.idle_microjoules > idle else "requests").inc(counted / 1e6)

    async def run(self) -> None:
        """Ends slices for ever."""
        while not self._is_broken:
            await asyncio.sleep(SLICE_S)
            self.tick()
