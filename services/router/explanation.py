"""A decision told: as JSON whose shape is a promise, and as the messages of RouterService."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration

from joulegate.router.v1 import router_service_pb2 as pb
from services.router.decision import Decision, Option
from services.router.prospect import Constraints


def document(decision: Decision) -> dict[str, Any]:
    """What `POST /v1/route/explain` answers, and what `x-joulegate-debug` adds to an answer. Unknown figures are null."""
    options = decision.options
    complexity, demand = decision.complexity, decision.demand
    return {
        "object": "route.explanation",
        "model": decision.model,
        "virtual": decision.is_virtual,
        "strategy": decision.strategy.value,
        "weights": None if decision.weights is None else decision.weights.shares(),
        "decision": decision.text,
        "router_score": None if complexity is None else complexity.score,
        "weak_suffices": None if complexity is None else complexity.weak_suffices,
        "input_tokens": None if demand is None else demand.input_tokens,
        "needs": [] if demand is None else sorted(demand.needs),
        "constraints": _constraints(decision.constraints),
        "relaxed": [criterion.value for criterion in decision.relaxed],
        "learning": decision.learning.value,
        "explored": decision.explored,
        "chosen": _option(options[0], 1) if options else None,
        "runner_up": _runner_up(options[0], options[1]) if len(options) > 1 else None,
        "candidates": [_option(option, rank) for rank, option in enumerate(options, start=1)],
        "rejected": [
            {"provider": rejected.candidate.provider.name, "model": rejected.candidate.model, "reason": rejected.reason}
            for rejected in decision.rejected
        ],
    }


def _figures(option: Option) -> dict[str, float | None]:
    """By the names that figures have everywhere in the JSON."""
    prospect = option.prospect
    return {
        "cost_usd": prospect.cost_usd,
        "energy_joules": prospect.energy_j,
        "carbon_grams": prospect.carbon_g,
        "latency_seconds": prospect.latency_s,
        "latency_p95_seconds": prospect.p95_s,
        "failure_odds": prospect.failure_odds,
        "quality": prospect.quality,
    }


def _option(option: Option, rank: int) -> dict[str, Any]:
    rate = option.rate
    return {
        "rank": rank,
        "provider": option.candidate.provider.name,
        "model": option.candidate.model,
        "tier": option.traits.tier or None,
        "tier_reason": option.traits.why or None,
        "zone": None if rate is None else rate.zone,
        "score": option.score,
        "near_best": option.is_near_best,
        "proved_worse": option.has_proved_worse,
        "in_flight": option.candidate.live.in_flight_count,
        "output_tokens": option.output_tokens,
        "expected": _figures(option),
    }


def _runner_up(chosen: Option, second: Option) -> dict[str, Any]:
    """The second, and how much more each of its figures is: what the choice has saved, or cost where it is negative."""
    ours, theirs = _figures(chosen), _figures(second)
    differences: Mapping[str, float | None] = {
        name: None if ours[name] is None or theirs[name] is None else theirs[name] - ours[name]  # type: ignore[operator]
        for name in ("cost_usd", "energy_joules", "carbon_grams", "latency_seconds", "quality")
    }
    return _option(second, 2) | {"difference": differences}


def _constraints(constraints: Constraints) -> dict[str, float]:
    """Those that are set."""
    latency_s = constraints.max_latency_s
    given = {
        "max_latency_ms": None if latency_s is None else latency_s * 1000,
        "max_cost_usd": constraints.max_cost_usd,
        "max_carbon_g": constraints.max_carbon_g,
        "min_quality": constraints.min_quality,
        "min_quality_of_best": constraints.min_quality_of_best,
    }
    return {name: bound for name, bound in given.items() if bound is not None}


def message(decision: Decision) -> pb.RankCandidatesResponse:
    """The same for gRPC."""
    response = pb.RankCandidatesResponse(
        candidates=[_candidate(option) for option in decision.options],
        explanation=decision.text,
        strategy=decision.strategy.value,
        virtual=decision.is_virtual,
        weights={} if decision.weights is None else decision.weights.shares(),
        relaxed=[criterion.value for criterion in decision.relaxed],
        rejected=[
            pb.RejectedCandidate(provider=rejected.candidate.provider.name, model=rejected.candidate.model, reason=rejected.reason)
            for rejected in decision.rejected
        ],
    )
    if decision.complexity is not None:
        response.router_score = decision.complexity.score
        response.weak_suffices = decision.complexity.weak_suffices
    if decision.demand is not None:
        response.input_tokens = decision.demand.input_tokens
    return response


def _candidate(option: Option) -> pb.Candidate:
    prospect, live = option.prospect, option.candidate.live
    told = live.told
    first = None
    if told is not None and told.HasField("time_to_first_event"):
        first = told.time_to_first_event
    elif option.candidate.provider.HasField("time_to_first_event"):
        first = option.candidate.provider.time_to_first_event
    return pb.Candidate(
        provider=option.candidate.provider.name,
        model=option.candidate.model,
        expected_time_to_first_token=first,
        expected_latency=_duration(prospect.latency_s),
        latency_p95=_duration(prospect.p95_s),
        cost_usd=prospect.cost_usd,
        energy_joules=prospect.energy_j,
        carbon_grams=prospect.carbon_g,
        failure_odds=prospect.failure_odds,
        quality=prospect.quality,
        output_tokens=option.output_tokens,
        score=option.score,
        near_best=option.is_near_best,
        tier=option.traits.tier,
        zone="" if option.rate is None else option.rate.zone,
        in_flight_count=live.in_flight_count,
    )


def _duration(seconds: float | None) -> Duration | None:
    if seconds is None:
        return None
    nanos = round(seconds * 1e9)
    return Duration(seconds=nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)
