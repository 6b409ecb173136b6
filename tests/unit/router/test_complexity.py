import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulegate.chat.v1 import chat_pb2
from services.router.complexity import SHIPPED, Complexity, Scorer, asked, quality

SCORER = Scorer.load()
PROOF = (
    "Let G be a finite group of order pqr with primes p < q < r. Prove that G is solvable. Then determine all such groups of order 30 up "
    "to isomorphism, justify each step, and calculate the number of elements of order 2 in each of them."
)


def user(text: str) -> chat_pb2.Message:
    return chat_pb2.Message(role=chat_pb2.ROLE_USER, text=text)


def request_of(*messages: chat_pb2.Message) -> chat_pb2.ChatRequest:
    return chat_pb2.ChatRequest(messages=messages)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300))
def test_any_text_has_a_finite_score_and_true_probabilities(text: str) -> None:
    complexity = SCORER.score(request_of(user(text)))
    assert np.isfinite(complexity.score)
    assert all(0 < p < 1 for p in (complexity.weak_suffices, complexity.weak_quality, complexity.strong_quality))
    qualities = [quality(tier, complexity) for tier in range(1, 6)]
    assert qualities == sorted(qualities)


@pytest.mark.parametrize(
    "request_",
    [
        chat_pb2.ChatRequest(),
        request_of(chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=chat_pb2.ContentParts(parts=[chat_pb2.ContentPart(type="image_url")]))),
        chat_pb2.ChatRequest(messages=[user("?")], tools=[chat_pb2.Tool(function=chat_pb2.FunctionDefinition(name="f"))]),
        request_of(user("def f(x):\n    return {x: [1, 2]}\n" * 3000)),
        request_of(user("机器人 🤖 هل تستطيع؟ " * 2000)),
        request_of(user("\n" * 50_000)),
    ],
    ids=["nothing", "image", "tools", "long code", "many scripts", "empty lines"],
)
def test_unusual_prompts_are_scored(request_: chat_pb2.ChatRequest) -> None:
    assert np.isfinite(SCORER.score(request_).score)


@pytest.mark.parametrize("easy", ["Hi!", "Thanks, bye", "What is the capital of France?", "Bonjour, ça va ?"])
def test_a_proof_needs_more_than_small_talk(easy: str) -> None:
    simple, proof = SCORER.score(request_of(user(easy))), SCORER.score(request_of(user(PROOF)))
    assert simple.score < proof.score
    assert simple.weak_suffices >= proof.weak_suffices


SCORES = {
    "": -0.189670,
    "\n": -0.189967,
    "?": -0.381054,
    "Hi!": -0.390457,
    "Bonjour, ça va ?": -0.307970,
    "12 1999 2024 12": -0.123060,
    "A shop sells 12 boxes of pencils at $3.50 each. How many boxes are left after 7 are sold, and how much is that in all?": -0.221803,
    "Which of the following statements is not true?\n(A) It depends.\n B. It does not.\n\tC) None of them.\nD. All except one.\n": 0.098623,
    "def f(x: int) -> dict[int, list[int]]:\n    return {x: [1, 2]}\n": 0.024683,
    "Докажи, что простых чисел бесконечно много.": 0.026989,
    "机器人 🤖 هل تستطيع؟": 0.021521,
    "\x00\x01 tab\tfeed\x0c line\r\n\x0b end \ud800": -0.366922,
    "Let x be 7. " * 1000: 0.044508,
}


@pytest.mark.parametrize(("text", "score"), SCORES.items(), ids=range(len(SCORES)))
def test_a_prompt_scores_as_it_did_when_the_weights_were_trained(text: str, score: float) -> None:
    # The last bits are the processor's.
    assert SCORER.raw_score(text) == pytest.approx(score, abs=2e-5)


def test_the_calibration_never_rises_with_the_score_and_the_strong_model_is_never_the_worse() -> None:
    table = np.array(SCORER.calibration)
    assert len(table) > 10
    assert (np.diff(table[:, 0]) > 0).all()
    assert (np.diff(table[:, 1:], axis=0) <= 0).all()
    assert (table[:, 3] >= table[:, 2]).all()
    assert table[0, 1] - table[-1, 1] > 0.2
    lowest, highest = SCORER.calibrated(-100.0), SCORER.calibrated(100.0)
    assert lowest.weak_suffices == table[0, 1]
    assert highest.weak_suffices == table[-1, 1]


def test_the_shipped_file_is_the_one_that_its_figures_are_of() -> None:
    figures = json.loads(SHIPPED.with_suffix(".json").read_text())
    assert hashlib.sha256(SHIPPED.read_bytes()).hexdigest() == figures["sha256"]
    assert SHIPPED.stat().st_size < 2 << 20


def test_the_models_of_the_data_stand_for_their_tiers() -> None:
    complexity = Complexity(score=0.0, weak_suffices=0.8, weak_quality=0.6, strong_quality=0.9)
    assert quality(2, complexity) == pytest.approx(0.6)
    assert quality(4, complexity) == pytest.approx(0.9)
    assert 0.6 < quality(3, complexity) < 0.9 < quality(5, complexity)


def test_what_is_asked_is_the_users_last_message_and_the_one_before_a_short_one() -> None:
    system, answer = chat_pb2.Message(role=chat_pb2.ROLE_SYSTEM, text="Be kind."), chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, text="7")
    assert asked(request_of(system, user("Hi"), user(PROOF), answer)) == PROOF
    assert asked(request_of(system, user(PROOF), answer, user("Why?"))) == f"{PROOF}\nWhy?"
    parts = chat_pb2.ContentParts(parts=[chat_pb2.ContentPart(type="text", text="one"), chat_pb2.ContentPart(type="text", text="two")])
    assert "one\ntwo" in asked(request_of(chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=parts)))
    assert asked(request_of(system, answer)) == ""
