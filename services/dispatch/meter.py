"""Whose energy it is: what a machine's counters have counted, shared among the requests that its models were working on.

Time is cut where a request begins or ends, and every tenth of a second. The energy of a slice goes to the requests that are in flight in
it, by the tokens that they produced there; one that has not answered yet weighs a quarter of its prompt's tokens. A slice in which
nobody produced anything is shared evenly, and one without requests is idle. Whole microjoules, and none gets lost: the requests and the
idle account together have what was counted.
"""

from dataclasses import dataclass

# Of an output token.
_PROMPT_PARTS = 4


@dataclass(slots=True, eq=False)
class Share:
    """One request's part."""

    prompt_tokens: int
    microjoules: int = 0
    has_answered: bool = False
    # In this slice.
    produced_tokens: int = 0

    def produce(self, tokens: int) -> None:
        """Notes tokens of the answer."""
        self.has_answered = True
        self.produced_tokens += tokens

    @property
    def weight(self) -> int:
        """In quarters of an output token."""
        return _PROMPT_PARTS * self.produced_tokens + (0 if self.has_answered else self.prompt_tokens)


class Meter:
    """Who is in flight, and the idle account."""

    def __init__(self) -> None:
        self._shares: list[Share] = []
        self.idle_microjoules = 0
        self.shared_microjoules = 0

    @property
    def is_busy(self) -> bool:
        return bool(self._shares)

    def begin(self, prompt_tokens: int) -> Share:
        """A request that is in flight from now on."""
        share = Share(prompt_tokens)
        self._shares.append(share)
        return share

    def end(self, share: Share) -> None:
        """The request is over. Again: nothing."""
        if share in self._shares:
            self._shares.remove(share)

    def spend(self, microjoules: int) -> None:
        """Ends a slice in which so much was counted."""
        if not self._shares:
            self.idle_microjoules += microjoules
            return
        weights = [share.weight for share in self._shares]
        if not any(weights):
            weights = [1] * len(weights)
        whole, so_far, given = sum(weights), 0, 0
        for share, weight in zip(self._shares, weights, strict=True):
            so_far += weight
            until = microjoules * so_far // whole
            share.microjoules += until - given
            share.produced_tokens = 0
            given = until
        self.shared_microjoules += microjoules
