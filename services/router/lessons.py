"""Joins what was decided with how it turned out: remembers recent answers, so that the word about them finds its model.

The memory and what was learnt are this process's alone, and gone with it.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Final

from joulegate.cache.v1 import cache_service_pb2 as cache_pb
from joulegate.chat.v1 import chat_pb2
from services.router import metrics
from services.router.decision import Decision
from services.router.learning import Arm, Learning, Posteriors, Signal, cluster_of

# Answers that a report can be about.
REMEMBERED: Final = 20_000

_SIGNALS: Final = {
    chat_pb2.FINISH_REASON_LENGTH: Signal.LENGTH,
    chat_pb2.FINISH_REASON_CONTENT_FILTER: Signal.REFUSED,
}


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer that a report can be about."""

    tenant: str
    # Whom it teaches about; None: the policy learns nothing, nobody looked at how hard the request was, or the cache answered.
    arm: Arm | None = None
    # The cached entry that it was, and where it was found.
    entry_id: str = ""
    tier: cache_pb.Tier.ValueType = cache_pb.TIER_UNSPECIFIED
    is_reported: bool = False


class Lessons:
    """What answers teach. Reports are about the newest REMEMBERED answers."""

    def __init__(self, posteriors: Posteriors, remembered: int = REMEMBERED) -> None:
        self._posteriors = posteriors
        self._remembered = remembered
        self._answers: OrderedDict[str, Answered] = OrderedDict()

    def decided(self, decision: Decision) -> None:
        """Counts what learning would have chosen, and whether it was done."""
        if decision.proposal is not None:
            metrics.PROPOSALS.labels("other" if decision.proposal.explores else "same").inc()
        if decision.explored:
            metrics.EXPLORED.inc()

    def finished(
        self, request_id: str, tenant: str, decision: Decision, target: tuple[str, str], completion: chat_pb2.ChatCompletion
    ) -> None:
        """The answer of a provider and model has come to its end; learns from how it ended."""
        arm = _arm(decision, target)
        self._remember(request_id, Answered(tenant, arm))
        signals = set()
        for choice in completion.choices:
            if choice.finish_reason in _SIGNALS:
                signals.add(_SIGNALS[choice.finish_reason])
            if choice.message.refusal:
                signals.add(Signal.REFUSED)
        if not signals:
            self._learn(arm, Signal.WHOLE)
        for signal in sorted(signals, key=lambda signal: signal.name):
            self._learn(arm, signal)

    def cut(self, decision: Decision, target: tuple[str, str]) -> None:
        """The answer of a provider and model broke off."""
        self._learn(_arm(decision, target), Signal.CUT)

    def served(self, request_id: str, tenant: str, entry_id: str, tier: cache_pb.Tier.ValueType) -> None:
        """The cache has answered, from an entry that is the tenant's own; an empty id: from another's."""
        self._remember(request_id, Answered(tenant, None, entry_id, tier))

    def report(self, request_id: str, tenant: str, score: float) -> Answered | None:
        """Learns from a report, if it is the first about its answer, and gives the answer as it was remembered; None when it is not."""
        answered = self._answers.get(request_id)
        if answered is None or answered.tenant != tenant:
            return None
        if not answered.is_reported:
            self._answers[request_id] = replace(answered, is_reported=True)
            if answered.arm is not None:
                self._posteriors.observe(answered.arm, score)
            metrics.REPORTS.labels("cache" if answered.entry_id else "provider").inc()
        return answered

    def _remember(self, request_id: str, answered: Answered) -> None:
        self._answers[request_id] = answered
        if len(self._answers) > self._remembered:
            self._answers.popitem(last=False)

    def _learn(self, arm: Arm | None, signal: Signal) -> None:
        if signal is not Signal.WHOLE:
            metrics.FAILURE_SIGNALS.labels(signal.name.lower()).inc()
        if arm is not None:
            self._posteriors.observe(arm, signal.goodness, signal.weight)


def _arm(decision: Decision, target: tuple[str, str]) -> Arm | None:
    if decision.complexity is None or decision.learning is Learning.OFF:
        return None
    return Arm(cluster_of(decision.complexity), *target)
