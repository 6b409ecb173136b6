import pytest

from joulegate.chat.v1 import chat_pb2
from services.router import tokens
from services.router.demand import Demand


def demand_of(text: str, max_tokens: int = 0) -> Demand:
    return Demand(chat_pb2.ChatRequest(messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, text=text)], max_tokens=max_tokens))


@pytest.mark.parametrize("text", ["many joules " * 700, "x = [1, 2]\n" * 400, "机器人" * 900])
@pytest.mark.parametrize("max_tokens", [0, 500])
def test_near_the_end_of_a_context_the_prompt_is_counted(text: str, max_tokens: int) -> None:
    counted = tokens.count_prompt(chat_pb2.ChatRequest(messages=[chat_pb2.Message(text=text)]))
    assert not demand_of(text, max_tokens).exceeds(counted + max_tokens)
    assert demand_of(text, max_tokens).exceeds(counted + max_tokens - 1)
    assert demand_of(text, max_tokens).exceeds(counted // 4 + max_tokens)
    assert not demand_of(text, max_tokens).exceeds(4 * counted + max_tokens)


def test_what_was_counted_once_is_what_the_rest_goes_by() -> None:
    demand, text = demand_of("many joules " * 700), chat_pb2.Message(text="many joules " * 700)
    estimate = demand.input_tokens
    counted = tokens.count_prompt(chat_pb2.ChatRequest(messages=[text]))
    assert demand.exceeds(counted - 1) and demand.input_tokens == counted != estimate
