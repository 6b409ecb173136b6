"""Microseconds of a core for a routing decision: `python bench/routing.py [--out FILE]`.

Fifty candidates of a virtual model with all figures known, weighed by all six criteria; a prompt of 1 KB. The aim is 500 for the whole of it.
"""

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "gen")]

from google.protobuf.duration_pb2 import Duration  # noqa: E402

from joulegate.chat.v1 import chat_pb2, receipt_pb2  # noqa: E402
from joulegate.dispatch.v1 import dispatch_service_pb2 as pb  # noqa: E402
from services.router.catalogue import Catalogue  # noqa: E402
from services.router.complexity import Scorer  # noqa: E402
from services.router.demand import Demand  # noqa: E402
from services.router.families import Families  # noqa: E402
from services.router.forecast import Forecast  # noqa: E402
from services.router.learning import Explorer, Posteriors  # noqa: E402
from services.router.load import Load  # noqa: E402
from services.router.output_lengths import OutputLengths  # noqa: E402
from services.router.policy import RoutingPolicy, VirtualModel  # noqa: E402
from services.router.prospect import Constraints  # noqa: E402
from services.router.ranking import Ranking  # noqa: E402
from services.router.rates import Rate  # noqa: E402
from services.router.selection import Selection  # noqa: E402
from services.router.slate import Asked, Slates  # noqa: E402
from services.router.strategies import Strategy, Weights  # noqa: E402
from services.router.wishes import NO_WISHES, Wishes  # noqa: E402
from services.runtime.identity import ANONYMOUS  # noqa: E402

AIM_US = 500
PROVIDERS, MODELS = (
    5,
    (
        "gpt-4o",
        "gpt-4o-mini",
        "o3-mini",
        "llama-3.1-8b",
        "llama-3.3-70b",
        "mistral-small",
        "claude-3-5-haiku",
        "gemini-2.0-flash",
        "qwen2.5-7b",
        "deepseek-chat",
    ),
)
EVERYTHING = Weights(cost=0.3, energy=0.1, carbon=0.1, latency=0.2, reliability=0.1, quality=0.2)


class Rates:
    def __init__(self) -> None:
        draw = random.Random(1)
        self.known = {
            (f"p{place}", model): Rate(
                0,
                draw.uniform(50, 3000),
                10,
                draw.uniform(200, 15000),
                receipt_pb2.COST_BASIS_LIST,
                (1, 2),
                (0.01, 0.02),
                (0.1, 1.0),
                receipt_pb2.ENERGY_BASIS_REGRESSION,
                draw.uniform(30, 500),
                "FRA",
                128_000,
            )
            for place in range(PROVIDERS)
            for model in MODELS
        }

    def of(self, provider: str, model: str) -> Rate | None:
        return self.known[provider, model]


def selection(virtual: VirtualModel) -> tuple[Selection, Catalogue]:
    """A router's chooser and a picture with fifty models, each called before."""
    draw = random.Random(2)
    load = Load()
    providers = [
        pb.Provider(name=f"p{place}", kind="openai", healthy=True, models=[pb.Model(id=name) for name in MODELS])
        for place in range(PROVIDERS)
    ]
    figures = [
        pb.ModelFigures(
            provider=provider.name,
            model=model.id,
            success_odds=50,
            in_flight_count=draw.randrange(9),
            time_to_first_event=span(draw.uniform(0.1, 2)),
            peak_time_to_first_event=span(draw.uniform(0.1, 3)),
            time_between_tokens=span(0.02),
            time_to_first_event_p95=span(4),
        )
        for provider in providers
        for model in provider.models
    ]
    load.tell(figures, 0.0, is_whole=True)
    rates = Rates()
    policy = RoutingPolicy(virtual_models={virtual.name: virtual})
    slates = Slates(policy, Families(), rates)
    ranking, learner = Ranking(lambda: 1.0, random.Random(3).random), Explorer(Posteriors(), random.Random(5))
    chooser = Selection(slates, ranking, Forecast(rates, OutputLengths()), Scorer.load(), learner, lambda: 1.0)
    return chooser, Catalogue(providers, load)


def span(seconds: float) -> Duration:
    return Duration(nanos=int(seconds % 1 * 1e9), seconds=int(seconds))


def microseconds(work: Callable[[], Any], rounds: int = 300, calls: int = 5) -> float:
    """The best of several rounds: what the machine does besides only ever adds."""
    work()
    took = []
    for _ in range(rounds):
        began = time.process_time_ns()
        for _ in range(calls):
            work()
        took.append((time.process_time_ns() - began) / calls / 1000)
    return round(min(took), 1)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--out")
    out = arguments.parse_args().out
    virtual = VirtualModel("any", Strategy.BALANCED, EVERYTHING, Constraints(min_quality_of_best=0.85, max_cost_usd=1, max_latency_s=20))
    chooser, catalogue = selection(virtual)
    prompt = "Explain how a heat pump works, step by step, and where its energy comes from. " * 13
    messages = [chat_pb2.Message(role=chat_pb2.ROLE_USER, text=prompt[:1024])]
    request = chat_pb2.ChatRequest(model="any", messages=messages, stream=True)
    single = chat_pb2.ChatRequest(model="p0/gpt-4o", messages=messages, stream=True)
    named = chat_pb2.ChatRequest(model="gpt-4o", messages=messages, stream=True)

    def decide(request: chat_pb2.ChatRequest, wishes: Wishes = NO_WISHES) -> Callable[[], Any]:
        asked = Asked(request, request.model, ANONYMOUS, wishes)
        return lambda: chooser.choose(chooser.gather(catalogue, asked))

    figures = {
        "virtual model, 50 candidates, 6 criteria, 3 bounds": microseconds(decide(request)),
        "of which: about how many tokens the prompt has": microseconds(lambda: Demand(request).input_tokens),
        "of which: complexity of the prompt": microseconds(lambda: chooser._scorer.score(request)),
        "one model at 5 providers, `balanced`": microseconds(decide(named, Wishes(strategy=Strategy.BALANCED))),
        "one model at 5 providers, `latency`": microseconds(decide(named, Wishes(strategy=Strategy.LATENCY))),
        "one model at 5 providers, `fallback`": microseconds(decide(named)),
        "one model at one provider": microseconds(decide(single)),
    }
    for name, value in figures.items():
        print(f"{value:8.1f} us  {name}")
    whole = next(iter(figures.values()))
    print(f"the aim of {AIM_US} us is {'met' if whole <= AIM_US else 'missed'}")
    if out:
        with open(out, "w", encoding="utf-8") as file:
            json.dump({"unit": "microseconds of a core", "load_average": os.getloadavg()[0], "figures": figures}, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
