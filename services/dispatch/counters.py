"""The machine's own energy counters: Linux's powercap files (RAPL: processors and memory), and NVIDIA's through NVML."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

POWERCAP: Final = "powercap"
NVML: Final = "nvml"
_PACKAGE: Final = re.compile(r"package-\d+|psys")


class CountersError(Exception):
    """There are no such counters here, or they cannot be read; the words say why."""


class Counters(Protocol):
    """Counters that only grow."""

    def read(self) -> int:
        """Microjoules since the last reading, or since they were opened. Raises CountersError."""
        ...


class DeclaredWatts:
    """A machine that is stated to draw so much while it works; `now` gives monotonic seconds."""

    def __init__(self, watts: float, now: Callable[[], float]) -> None:
        self._watts = watts
        self._now = now
        self._since = now()
        self._told = 0

    def read(self) -> int:
        # All that there was less what was told: what is lost by rounding is found again.
        total = int((self._now() - self._since) * self._watts * 1e6)
        told, self._told = total - self._told, total
        return told


class Powercap:
    """The zones of processors, and of memory beside them. A zone of the whole platform (`psys`) has them all."""

    def __init__(self, folder: Path) -> None:
        named = {zone.parent: _text(zone) for zone in sorted(folder.glob("*/name"))}
        platform = [zone for zone, name in named.items() if name == "psys"]
        zones = platform or [zone for zone, name in named.items() if _PACKAGE.fullmatch(name) or name == "dram"]
        if not zones:
            raise CountersError(f"{folder}: no counters of processors")
        self._ranges = {zone / "energy_uj": _number(zone / "max_energy_range_uj") for zone in zones}
        self._last = {file: _number(file) for file in self._ranges}

    def read(self) -> int:
        total = 0
        for file, last in self._last.items():
            now = _number(file)
            # A counter that is smaller than it was has begun anew.
            total += now - last if now >= last else self._ranges[file] - last + now
            self._last[file] = now
        return total


class Nvml:
    """All cards, from Volta on. `library` is the module pynvml."""

    def __init__(self, library: Any) -> None:
        self._library = library
        try:
            library.nvmlInit()
            self._cards = [library.nvmlDeviceGetHandleByIndex(number) for number in range(library.nvmlDeviceGetCount())]
        except library.NVMLError as error:
            raise CountersError(f"NVML: {error}") from error
        if not self._cards:
            raise CountersError("NVML: no cards")
        self._last = self._millijoules()

    def read(self) -> int:
        last, self._last = self._last, self._millijoules()
        # A card that was reset counts from nothing.
        return 1000 * sum(now - before if now >= before else now for now, before in zip(self._last, last, strict=True))

    def _millijoules(self) -> Sequence[int]:
        try:
            return [int(self._library.nvmlDeviceGetTotalEnergyConsumption(card)) for card in self._cards]
        except self._library.NVMLError as error:
            raise CountersError(f"NVML: {error}") from error


def open_counters(names: Sequence[str], powercap: Path) -> list[Counters]:
    """The counters of these names. Raises CountersError when one is not to be had."""
    found: list[Counters] = []
    for name in names:
        if name == POWERCAP:
            found.append(Powercap(powercap))
        elif name == NVML:
            found.append(Nvml(_pynvml()))
        else:
            raise CountersError(f"{name!r} is neither {POWERCAP} nor {NVML}")
    return found


def _pynvml() -> Any:
    try:
        import pynvml
    except ImportError:
        raise CountersError("the package pynvml is not installed: pip install 'joulegate[nvml]'") from None
    return pynvml


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CountersError(f"{file}: {error}") from error


def _number(file: Path) -> int:
    try:
        return int(_text(file))
    except ValueError:
        raise CountersError(f"{file}: not a number") from None
