import pytest

from joulegate.chat.v1 import chat_pb2
from services.router.complexity import Complexity, Scorer, quality


def request_of(text: str) -> chat_pb2.ChatRequest:
    return chat_pb2.ChatRequest(messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, text=text)])


@pytest.mark.parametrize("text", ["", "Hi", "x" * 100_000])
def test_a_stronger_model_is_never_thought_worse(text: str) -> None:
    complexity = Scorer.load().score(request_of(text))
    qualities = [quality(tier, complexity) for tier in range(1, 6)]
    assert qualities == sorted(qualities)
    assert 0 < qualities[0] < qualities[-1] < 1


def test_the_models_of_the_data_stand_for_their_tiers() -> None:
    complexity = Complexity(score=0.0, weak_suffices=0.8, weak_quality=0.6, strong_quality=0.9)
    assert quality(2, complexity) == pytest.approx(0.6)
    assert quality(4, complexity) == pytest.approx(0.9)
    assert 0.6 < quality(3, complexity) < 0.9 < quality(5, complexity)
