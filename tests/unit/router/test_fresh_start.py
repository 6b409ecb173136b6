"""Virtual models at a router that has just started: who serves what is known, and no price, no energy and nobody's speed yet."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from joulegate.chat.v1 import chat_pb2
from services.router import explanation
from services.router.policy import VIRTUAL_MODELS
from services.router.wishes import Wishes
from tests.unit.router.pictures import Scene, Served

FLEET = (
    Served("lab", "small", tier=1),
    Served("lab", "large", tier=5),
    Served("cloud", "large", tier=5),
    Served("cloud", "house"),
    Served("down", "large", tier=5, healthy=False),
    Served("demo", "demo", tier=1, kind="demo"),
)
HARD = "Write a Python function that solves the travelling salesman problem by dynamic programming, with tests."
PRICED = """
import sys
from services.router.strategies import Strategy
from services.router.wishes import Wishes
from tests.unit.router.pictures import Scene, Served
scene = Scene([Served("one", "m", usd=1.0, joules_per_token=1.0), Served("other", "m", usd=2.0, joules_per_token=1.0)])
assert scene.first("m", Wishes(strategy=Strategy.COST)) == scene.first("auto") == "one/m"
print("rs_bpe" in sys.modules)
"""


@pytest.mark.parametrize("name", VIRTUAL_MODELS)
@pytest.mark.parametrize("text", ["Hi!", HARD])
def test_every_virtual_model_chooses_and_says_why_before_any_price_is_known(name: str, text: str) -> None:
    scene = Scene(FLEET, knows_rates=False)
    decision = scene.decide(name, wants_figures=True, messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, text=text)])
    told = json.loads(json.dumps(explanation.document(decision)))
    assert told["chosen"]["provider"] in {"lab", "cloud"} and told["decision"].startswith(told["chosen"]["provider"])
    assert {one["expected"]["cost_usd"] for one in told["candidates"]} == {None}
    assert all(one["provider"] != "demo" for one in told["candidates"])
    if "down" in (providers := [one["provider"] for one in told["candidates"]]):
        assert providers[-1] == "down"


@pytest.mark.parametrize("number", range(20))
def test_auto_keeps_its_promise_of_quality_before_any_price_is_known(number: int) -> None:
    messages = [chat_pb2.Message(role=chat_pb2.ROLE_SYSTEM, text=str(number)), chat_pb2.Message(role=chat_pb2.ROLE_USER, text=HARD)]
    assert Scene(FLEET, knows_rates=False).decide("auto", messages=messages).ranked[0].model == "large"


def test_a_bound_on_money_refuses_nobody_while_prices_are_not_known() -> None:
    scene = Scene(FLEET, knows_rates=False)
    wishes = Wishes(constraints=replace(Wishes().constraints, max_cost_usd=0.001))
    assert scene.decide("auto", wishes).ranked and not scene.decide("auto", wishes).relaxed


def test_choosing_by_price_loads_no_vocabulary() -> None:
    run = subprocess.run([sys.executable, "-c", PRICED], check=True, capture_output=True, text=True, timeout=60)
    assert run.stdout == "False\n"
