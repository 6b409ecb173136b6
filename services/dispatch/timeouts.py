"""How long a call to a provider may take."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Bounds of one call, in seconds. A whole answer comes all at once when it is ready: of its waits, `total_s` bounds the first."""

    connect_s: float = 5.0
    first_byte_s: float = 10.0
    idle_s: float = 30.0
    total_s: float = 60.0
    # A long answer in pieces is no sign of trouble while the pieces keep coming.
    stream_total_s: float = 600.0


DEFAULT_TIMEOUTS = Timeouts()
