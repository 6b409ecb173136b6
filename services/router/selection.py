"""Decides where a request goes: among those who can serve it, by what it would cost at each, who is tried first and who comes after.

Two steps, since something may have to be waited for in between: `gather` finds who can serve it, and refuses what nobody can; `choose` puts
them in order by what is known at that moment, and waits for nothing.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from math import log
from typing import Any, Final, NamedTuple, Protocol

from joulegate.chat.v1 import chat_pb2
from services.router.catalogue import Candidate, Catalogue
from services.router.complexity import Complexity, quality
from services.router.decision import Decision, Option, Rejected
from services.router.demand import Demand
from services.router.forecast import Forecast, Outlook, Quality
from services.router.learning import Contender, Learning, Proposal
from services.router.policy import RoutingPolicy
from services.router.prospect import Feasible, feasible, logarithms, score, terms_of
from services.router.ranking import Judgement, Ranking, is_able, near_best
from services.router.slate import Asked, Slate, Slates, nobody_left
from services.router.strategies import Criterion, Strategy, Weights

# More than any weighted logarithm of figures.
FAR_OFF: Final = 1000.0
# Why somebody is left out, as explanations say it.
_BROKEN: Final = {criterion: f"constraint:{criterion}" for criterion in Criterion}


class _Figured(NamedTuple):
    """Those of a slate who keep its bounds, in the configured order, which decides among equals, and what is expected of each."""

    slate: Slate
    outlook: Outlook
    kept: Feasible
    # Their places in the slate.
    places: Sequence[int]

    @property
    def candidates(self) -> Sequence[Candidate]:
        return self.outlook.candidates

    @property
    def now(self) -> float:
        return self.outlook.now

    @property
    def doubtful(self) -> Sequence[Candidate]:
        """Of whom it is not known whether they keep the bounds, where others surely do."""
        kept = self.kept
        return [self.slate.candidates[place] for place in kept.doubtful] if kept.proven else ()


class _Outcome(NamedTuple):
    """What choosing came to."""

    ranked: Sequence[Candidate]
    complexity: Complexity | None = None
    relaxed: tuple[Criterion, ...] = ()
    rejected: Sequence[Rejected] = ()
    options: Sequence[Option] = ()
    # How many are as good as the best.
    near_count: int = 0
    proposal: Proposal | None = None
    explored: bool = False


class ScoreSource(Protocol):
    """Whoever tells how hard a request is."""

    def score(self, request: chat_pb2.ChatRequest) -> Complexity: ...


class Learner(Protocol):
    """Whoever knows how answers turned out."""

    def proved_worse(self, complexity: Complexity, contenders: Sequence[Contender]) -> frozenset[int]: ...

    def propose(self, complexity: Complexity, contenders: Sequence[Contender], *, may_explore: bool = True) -> Proposal: ...


class Selection:
    """Chooses."""

    def __init__(
        self,
        slates: Slates,
        ranking: Ranking,
        forecast: Forecast,
        scorer: ScoreSource,
        learner: Learner,
        now: Callable[[], float],
    ) -> None:
        self.slates = slates
        self._ranking = ranking
        self._forecast = forecast
        self._scorer = scorer
        self._learner = learner
        self._now = now

    def apply(self, policy: RoutingPolicy, document: Mapping[str, Any], version: int) -> None:
        """Goes by another policy from now on, which is read from the document."""
        self.slates.policy = policy

    def gather(self, catalogue: Catalogue, asked: Asked) -> Slate:
        """Who can serve the request. Raises GatewayError when nobody can, or may."""
        return self.slates.gather(catalogue, asked)

    def choose(self, slate: Slate) -> Decision:
        """The order in which they are tried, as of now. Counts as a turn where turns are taken. Raises GatewayError when none keeps bounds
        that may not be given up."""
        policy, asked, virtual = slate.policy, slate.asked, slate.virtual
        strategy = asked.wishes.strategy or (policy.strategy if virtual is None else virtual.strategy)
        weights = policy.weights_of(strategy, virtual)
        is_weighed = weights is not None and len(slate.candidates) > 1
        if slate.demand is not None and (is_weighed or asked.wants_figures or slate.constraints.are_set):
            return self._figured(slate, slate.demand, strategy, weights)
        complexity = None if virtual is None else self._scored(asked)
        return self._decision(slate, strategy, weights, _Outcome(self._ranked(slate, slate.candidates, strategy, None), complexity))

    def _figured(self, slate: Slate, demand: Demand, strategy: Strategy, weights: Weights | None) -> Decision:
        complexity, learning = self._complexity(slate, weights), slate.policy.learning_of(slate.virtual)
        figured = self._figures(slate, demand, _quality(complexity))
        candidates, kept = figured.candidates, figured.kept
        judgement = self._judgement(figured, weights)
        near = [] if judgement is None else near_best(range(len(candidates)), judgement)
        worse = self._proved_worse(figured, near, complexity) if learning is Learning.ON else ()
        ranked = self._ranked(slate, candidates, strategy, judgement.without(worse) if judgement is not None and worse else judgement)
        if judgement is None and figured.doubtful:
            doubtful = {candidate.target for candidate in figured.doubtful}
            # Whoever is sure to keep the bounds comes first, unless it is failing.
            ranked.sort(key=lambda candidate: (not is_able(candidate, figured.now), candidate.target in doubtful))
        rivals = [] if learning is Learning.OFF else _rivals(figured, near, ranked[0])
        proposal = self._proposal(figured, rivals, complexity)
        explored = proposal is not None and proposal.explores and learning is Learning.ON
        if proposal is not None and explored:
            tried = candidates[rivals[proposal.place]]
            ranked = [tried, *(candidate for candidate in ranked if candidate is not tried)]
        outcome = _Outcome(
            ranked,
            complexity,
            kept.relaxed,
            [Rejected(slate.candidates[place], _BROKEN[criterion]) for place, criterion in kept.broken.items()],
            _options(figured, ranked, judgement, worse) if slate.asked.wants_figures else (),
            len(near) - len(worse),
            proposal,
            explored,
        )
        return self._decision(slate, strategy, weights, outcome)

    def _decision(self, slate: Slate, strategy: Strategy, weights: Weights | None, outcome: _Outcome) -> Decision:
        asked, is_virtual = slate.asked, slate.virtual is not None
        wishes = asked.wishes
        why = ""
        if weights is not None:
            by = f"for {asked.model}" if is_virtual else f"by {strategy}"
            why = f"best {by}" if outcome.near_count < 2 else f"one of {outcome.near_count} near the best {by}"
        if outcome.explored:
            why = f"near the best {by}, and tried to learn how well it answers"
        return Decision(
            ranked=outcome.ranked,
            strategy=strategy,
            model=asked.model,
            is_virtual=is_virtual,
            text=self._ranking.explain(outcome.ranked, strategy, why),
            hedges=strategy is Strategy.LATENCY if wishes.hedges is None else wishes.hedges,
            weights=weights,
            complexity=outcome.complexity,
            constraints=slate.constraints,
            relaxed=outcome.relaxed,
            rejected=(*slate.rejected, *outcome.rejected),
            demand=slate.demand,
            options=outcome.options,
            learning=slate.policy.learning_of(slate.virtual),
            proposal=outcome.proposal,
            explored=outcome.explored,
            wants_explanation=wishes.wants_explanation,
            may_fail_over=wishes.may_fail_over,
        )

    def _complexity(self, slate: Slate, weights: Weights | None) -> Complexity | None:
        """How hard the request is, where that matters: finding out is what takes longest of a choice."""
        weighs_quality = weights is not None and (weights.quality > 0 or slate.policy.learning_of(slate.virtual) is Learning.ON)
        bounds = slate.constraints
        is_bounded = bounds.min_quality is not None or bounds.min_quality_of_best is not None
        if slate.virtual is None and not weighs_quality and not is_bounded and not slate.asked.wants_figures:
            return None
        return self._scored(slate.asked)

    def _scored(self, asked: Asked) -> Complexity:
        return asked.complexity or self._scorer.score(asked.request)

    def _figures(self, slate: Slate, demand: Demand, quality_of: Quality) -> _Figured:
        """Raises GatewayError when nobody is left."""
        candidates, traits = slate.candidates, self.slates.traits(slate.candidates)
        outlook = self._forecast.outlook(candidates, traits, demand, quality_of, self._now())
        kept = feasible(outlook, slate.constraints, slate.policy.relaxation)
        if not kept.proven and not kept.doubtful:
            raise nobody_left(slate.asked.model, f"the bound on {next(iter(kept.broken.values()))} may not be passed")
        places = sorted((*kept.proven, *kept.doubtful)) if kept.doubtful else kept.proven
        return _Figured(slate, outlook.at(places) if kept.broken else outlook, kept, places)

    def _judgement(self, figured: _Figured, weights: Weights | None) -> Judgement | None:
        """What the figures say of the candidates; None where the strategy does not ask them."""
        if weights is None:
            return None
        outlook, policy = figured.outlook, figured.slate.policy
        floors = policy.floors
        values = hopes = logarithms(outlook, weights, floors)
        # Mostly nobody may be faster than expected.
        if weights.latency and (hopes_s := outlook.hopes_s()) != outlook.figures("latency_s"):
            share, expected = weights.shares()[Criterion.LATENCY], terms_of(outlook, Criterion.LATENCY, floors)
            hopes = [
                value + share * (log(hope_s + floors.latency) - term) for value, hope_s, term in zip(values, hopes_s, expected, strict=True)
            ]
        kept = figured.kept
        if kept.proven and kept.doubtful:
            # Behind all who are sure to keep the bounds; who needs only be timed may still be tried.
            hopes = [
                hope + (FAR_OFF if place in kept.doubtful and place not in kept.untimed else 0.0)
                for place, hope in zip(figured.places, hopes, strict=True)
            ]
            values = [value + (FAR_OFF if place in kept.doubtful else 0.0) for place, value in zip(figured.places, values, strict=True)]
        return Judgement(values, hopes, policy.near_best, lambda: outlook.demand.home)

    def _proved_worse(self, figured: _Figured, near: Sequence[int], complexity: Complexity | None) -> Collection[int]:
        """Which of those near the best have answered worse than another one of them that can be had."""
        if complexity is None:
            return ()
        able = [place for place in near if is_able(figured.candidates[place], figured.now)]
        found = self._learner.proved_worse(complexity, [_contender(figured, place) for place in able])
        return {able[index] for index in found}

    def _proposal(self, figured: _Figured, rivals: Sequence[int], complexity: Complexity | None) -> Proposal | None:
        """Which of the rivals learning would take; None where there is nothing to choose from, or somebody only wants to know."""
        if complexity is None or len(rivals) < 2 or not figured.slate.asked.may_explore:
            return None
        return self._learner.propose(complexity, [_contender(figured, place) for place in rivals])

    def _ranked(self, slate: Slate, candidates: Sequence[Candidate], strategy: Strategy, judgement: Judgement | None) -> list[Candidate]:
        policy, asked = slate.policy, slate.asked
        return self._ranking.rank(
            candidates,
            strategy,
            streamed=asked.request.stream,
            preferred=(*asked.wishes.preferred, *policy.prefer_providers),
            judgement=judgement,
            shares=policy.provider_weights,
        )


def _options(figured: _Figured, ranked: Sequence[Candidate], judgement: Judgement | None, worse: Collection[int]) -> list[Option]:
    """All that is expected of those that are ranked, in that order."""
    outlook, places = figured.outlook, range(len(figured.candidates))
    near: Collection[int] = ()
    best = 0.0
    if judgement is not None:
        near, best = set(near_best(places, judgement)).difference(worse), min(judgement.values)
    rates, output_tokens = outlook.known_rates(), outlook.output_tokens()
    place_of = {candidate.target: place for place, candidate in enumerate(figured.candidates)}
    return [
        Option(
            candidate,
            outlook.traits[place],
            outlook.prospect(place),
            output_tokens=output_tokens[place],
            rate=rates[place],
            score=None if judgement is None else score(judgement.values[place] - best),
            is_near_best=place in near,
            has_proved_worse=place in worse,
        )
        for candidate, place in ((candidate, place_of[candidate.target]) for candidate in ranked)
    ]


def _contender(figured: _Figured, place: int) -> Contender:
    return Contender(*figured.candidates[place].target, figured.outlook.traits[place].tier)


def _rivals(figured: _Figured, near: Sequence[int], first: Candidate) -> list[int]:
    """Who of those near the best may be taken instead of the first one, and that one before them: those that are well, and as welcome to
    the caller. Nobody, where it is first for another reason."""
    slate = figured.slate
    preferred = (*slate.asked.wishes.preferred, *slate.policy.prefer_providers)

    def welcome(candidate: Candidate) -> int:
        name = candidate.provider.name
        return preferred.index(name) if name in preferred else len(preferred)

    able = [place for place in near if is_able(figured.candidates[place], figured.now)]
    found = [place for place in able if welcome(figured.candidates[place]) == welcome(first)]
    found.sort(key=lambda place: figured.candidates[place] is not first)
    return found if found and figured.candidates[found[0]] is first else []


def _quality(complexity: Complexity | None) -> Quality:
    """The probability that a model of a tier answers well, as far as that is known."""
    if complexity is None:
        return lambda tier: None
    return lambda tier: quality(tier, complexity) if tier else None
