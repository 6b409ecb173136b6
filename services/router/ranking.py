"""In which order the candidates of a request are tried.

The first policy is the simplest that is honest: the configured sequence of providers, those known to be failing last.
"""

from collections.abc import Sequence

from services.router.catalogue import Candidate


def rank(candidates: Sequence[Candidate], preferred: str = "") -> list[Candidate]:
    """Best first: the provider that the caller prefers, then the others in sequence.

    A failing provider keeps its place behind the others: it may be the only one, and a call is how it recovers.
    """
    return sorted(candidates, key=lambda candidate: (not candidate.provider.healthy, candidate.provider.name != preferred))


def explain(ranked: Sequence[Candidate]) -> str:
    """The order in words, for `x-gateway.routing_decision` and RankCandidates."""
    if not ranked:
        return "no provider serves this model"
    best = ranked[0].provider
    why = "first in sequence" if best.healthy else "no healthy provider serves this model"
    return f"{best.name}: {why}, of {len(ranked)} candidate{'s' if len(ranked) > 1 else ''}"
