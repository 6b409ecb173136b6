"""Routing decisions as lines of JSON from which they can be made again, under the same policy or another one.

A `picture` says who serves what, at which rates; a `policy` how was decided from then on; a `decision` what was asked and how everybody was
doing at that moment. Nothing of a request's text is in it: only counts, and a digest of the conversation's beginning. A `start` is a new
router, whose turns begin anew. Pure.
"""

import base64
import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.json_format import MessageToDict, ParseDict

from joulegate.chat.v1 import chat_pb2
from joulegate.dispatch.v1 import dispatch_service_pb2 as dispatch_pb
from services.router.catalogue import Candidate, Catalogue
from services.router.complexity import Complexity
from services.router.decision import Decision
from services.router.demand import Demand
from services.router.families import Declared
from services.router.learning import Arm, Evidence, Explorer, Posteriors, cluster_of
from services.router.load import Live, Load
from services.router.policy import RoutingPolicy
from services.router.prospect import Constraints
from services.router.rates import Rate
from services.router.slate import Asked, Slate
from services.router.strategies import Strategy
from services.router.wishes import Wishes
from services.runtime.identity import Caller, ModelScope

# Raised when a line means something else than before.
VERSION: Final = 1
Target = tuple[str, str]


def start_line() -> dict[str, Any]:
    return {"kind": "start", "version": VERSION}


def picture_line(catalogue: Catalogue, rates: Mapping[Target, Rate], declared: Mapping[Target, Declared]) -> dict[str, Any]:
    """Who serves what, at which rates."""
    return {
        "kind": "picture",
        "providers": [MessageToDict(provider, preserving_proto_field_name=True) for provider in catalogue.providers],
        "rates": [[*target, dataclasses.asdict(rate)] for target, rate in sorted(rates.items())],
        "declared": [[*target, said.tier, said.context_tokens] for target, said in sorted(declared.items())],
    }


def read_picture(line: Mapping[str, Any], load: Load) -> tuple[Catalogue, dict[Target, Rate], dict[Target, Declared]]:
    """What a picture line shows; how its models are doing comes with each decision, by `load`."""
    providers = [ParseDict(members, dispatch_pb.Provider()) for members in line["providers"]]
    rates = {(provider, model): _rate(members) for provider, model, members in line["rates"]}
    declared = {(provider, model): Declared(tier, context) for provider, model, tier, context in line["declared"]}
    return Catalogue(providers, load), rates, declared


def policy_line(document: Mapping[str, Any], policy: RoutingPolicy, version: int) -> dict[str, Any]:
    """How is decided from now on. What the environment says over the document is in it."""
    weights = {strategy.value: weights.shares() for strategy, weights in policy.weights.items()}
    return {"kind": "policy", "version": version, "document": {**document, "strategy": policy.strategy.value, "weights": weights}}


def decision_line(
    slate: Slate,
    catalogue: Catalogue,
    demand: Demand,
    complexity: Complexity,
    lengths: Mapping[str, float],
    learner: Explorer,
    now: float,
) -> dict[str, Any]:
    """What was asked, and how everybody was doing, at `now` in monotonic seconds. To be completed by `decided`."""
    asked, everybody = slate.asked, _everybody(catalogue, slate)
    return {
        "kind": "decision",
        "now": now,
        "model": asked.model,
        "streamed": demand.streamed,
        "input_tokens": demand.input_tokens,
        "max_output_tokens": demand.max_output_tokens,
        "needs": sorted(demand.needs),
        "home": demand.home.hex(),
        "complexity": dataclasses.astuple(complexity),
        "wishes": _wishes(asked.wishes),
        "allowed_models": None if asked.caller.models is None else list(asked.caller.models.patterns),
        "lengths": dict(lengths),
        "evidence": _evidence(learner.evidence(complexity, (candidate.target for candidate in everybody))),
        "live": [_told(candidate) for candidate in everybody if candidate.live.told is not None],
        # Of those that nothing is told of yet.
        "calls": [
            [*candidate.target, candidate.live.in_flight_count]
            for candidate in everybody
            if candidate.live.told is None and candidate.live.in_flight_count
        ],
    }


def decided(line: dict[str, Any], seed: int, decision: Decision) -> dict[str, Any]:
    """The line with what came out, and the seed of the chances that were taken."""
    tried = [list(candidate.target) for candidate in decision.tried]
    return {**line, "seed": seed, "tried": tried, "relaxed": list(decision.relaxed), "explored": decision.explored}


def read_asked(line: Mapping[str, Any]) -> tuple[Asked, Demand, Complexity]:
    """What a decision line asks, without the text that nobody kept."""
    request = chat_pb2.ChatRequest(model=line["model"], stream=line["streamed"])
    patterns = line["allowed_models"]
    caller = Caller("", "", None if patterns is None else ModelScope(patterns))
    demand = Demand.known(
        line["input_tokens"], line["max_output_tokens"], frozenset(line["needs"]), bytes.fromhex(line["home"]), streamed=line["streamed"]
    )
    asked = Asked(request, line["model"], caller, _read_wishes(line["wishes"]), wants_figures=True, demand=demand, may_explore=True)
    return asked, demand, Complexity(*line["complexity"])


def read_evidence(line: Mapping[str, Any], complexity: Complexity) -> Posteriors:
    """What was known of answers to such a request; a line of before this was kept has nothing."""
    cluster = cluster_of(complexity)
    return Posteriors(evidence={Arm(cluster, provider, model): (good, bad) for provider, model, good, bad in line.get("evidence", ())})


def read_explored(line: Mapping[str, Any]) -> Target | None:
    """Who was first in order to learn about it, if anybody was."""
    if not line.get("explored"):
        return None
    provider, model = line["tried"][0]
    return provider, model


def tell(line: Mapping[str, Any], load: Load) -> list[Live]:
    """Brings models to how they were doing. Gives those for which calls were begun, each once for each call, to be ended again."""
    load.tell((), line["now"], is_whole=True)
    for figures, told_at in ((_figures(text), told_at) for text, told_at in line["live"]):
        load.of(figures.provider, figures.model).tell(figures, told_at)
    begun = [load.of(provider, model) for provider, model, count in line["calls"] for _ in range(count)]
    for live in begun:
        live.began()
    return begun


def _evidence(known: Mapping[Target, Evidence]) -> list[list[Any]]:
    return [[*target, *evidence] for target, evidence in known.items()]


def _everybody(catalogue: Catalogue, slate: Slate) -> list[Candidate]:
    listed = catalogue.everything()
    known = {candidate.target for candidate in listed}
    return [*listed, *(candidate for candidate in slate.candidates if candidate.target not in known)]


def _told(candidate: Candidate) -> list[Any]:
    """What dispatch told of a model and when, with the calls that are out by now."""
    live, figures = candidate.live, dispatch_pb.ModelFigures()
    figures.CopyFrom(live.told or figures)
    figures.in_flight_count = live.in_flight_count
    return [base64.b64encode(figures.SerializeToString(deterministic=True)).decode(), live.told_at]


def _figures(text: str) -> dispatch_pb.ModelFigures:
    return dispatch_pb.ModelFigures.FromString(base64.b64decode(text))


def _wishes(wishes: Wishes) -> dict[str, Any]:
    return {
        "strategy": None if wishes.strategy is None else wishes.strategy.value,
        "preferred": list(wishes.preferred),
        "excluded": sorted(wishes.excluded),
        "required": sorted(wishes.required),
        "constraints": dataclasses.asdict(wishes.constraints),
        "may_fail_over": wishes.may_fail_over,
    }


def _read_wishes(members: Mapping[str, Any]) -> Wishes:
    strategy = members["strategy"]
    return Wishes(
        strategy=None if strategy is None else Strategy(strategy),
        preferred=tuple(members["preferred"]),
        excluded=frozenset(members["excluded"]),
        required=frozenset(members["required"]),
        constraints=Constraints(**members["constraints"]),
        may_fail_over=members["may_fail_over"],
    )


def _rate(members: Mapping[str, Any]) -> Rate:
    spans = ("request_joules", "input_joules", "output_joules")
    given: dict[str, Any] = {name: tuple(value) if name in spans else value for name, value in members.items()}
    return Rate(**given)
