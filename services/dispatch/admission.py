"""Whether a call may go out to a target at all: asked before each call, and answered without one."""

from services.dispatch.failure import Failure, Kind
from services.dispatch.roster import Provider

# When all probes are out, one of them comes back at any moment.
PROBES_OUT_S = 1.0


def withheld(provider: Provider, model: str, now: float) -> Failure | None:
    """Why no call may go out, with the time after which one may; None when it may. `now` is monotonic seconds."""
    breaker = provider.breakers.find(model)
    if breaker is None or breaker.admits(now):
        return None
    wait_s = max(PROBES_OUT_S, (breaker.retry_at or now) - now)
    return Failure(Kind.WITHHELD, "the circuit is open after repeated failures", http_status=503, retry_after_s=wait_s)
