"""When a second provider is called because the first one's first event is late, and how often that may happen.

After Dean and Barroso, "The Tail at Scale": a second call once 95 % of first events would have been there cuts the slow tail at the price
of few more calls. Here they are bounded as well: each request pays `share` of a token, each such call takes one, and what is saved up is
bounded too: calls <= share * requests + 1. Pure.
"""

from typing import Final

from joulegate.dispatch.v1 import dispatch_service_pb2 as pb
from services.dispatch.figures import ModelFigures

SHARE: Final = 0.02
# A provider that turns slow is late for many at once.
MOST_SAVED: Final = 20.0


class HedgeBudget:
    """Of all requests together. Starts with one token, so that whoever tries it out sees it."""

    __slots__ = ("_balance", "_share")

    def __init__(self, share: float = SHARE) -> None:
        self._share = share
        self._balance = 1.0 if share > 0.0 else 0.0

    def deposit(self) -> None:
        """Counts a request."""
        self._balance = min(MOST_SAVED, self._balance + self._share)

    def take(self) -> bool:
        """Pays for a second call; whether there was enough."""
        if self._balance < 1.0:
            return False
        self._balance -= 1.0
        return True


def delay_s(request: pb.DispatchRequest, figures: ModelFigures) -> float | None:
    """How long the first event of a call is waited for before a second one; None for ever."""
    if not request.HasField("hedge"):
        return None
    if request.hedge.HasField("after"):
        return max(0.0, request.hedge.after.ToTimedelta().total_seconds())
    return (figures.streamed if request.request.stream else figures.whole).p95_s()
