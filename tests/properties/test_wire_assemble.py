"""A replayed answer folds back into itself."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.wire.assemble import CompletionAssembler, chunks_of
from services.wire.openai import decode_chunk, decode_completion, encode_completion
from tests.unit.wire import bodies
from tests.unit.wire.bodies import level, strings
from tests.unit.wire.json_text import render

_texts = st.text(max_size=200) | st.lists(st.sampled_from(["word", " ", "\n", "漢字", "."]), max_size=60).map("".join)
_calls = level(
    {
        "id": st.text(min_size=1, max_size=5),
        "type": st.just("function"),
        "function": level({"name": st.text(min_size=1, max_size=5), "arguments": _texts}),
    }
)
_messages = level(
    {"role": st.just("assistant"), "content": st.none() | _texts | st.lists(bodies.parts, max_size=2)},
    {"refusal": _texts, "reasoning_content": _texts, "name": strings, "tool_calls": st.lists(_calls, max_size=3)},
)
_choices = level({"message": _messages, "finish_reason": bodies.finish_reasons}, {"logprobs": bodies.json_objects})
_answers = level(
    {"id": st.text(min_size=1), "object": st.just("chat.completion"), "created": st.integers(1, 2**40), "model": st.text(min_size=1)},
    {"service_tier": strings, "system_fingerprint": strings},
)


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    choices = [{"index": index} | choice for index, choice in enumerate(draw(st.lists(_choices, min_size=1, max_size=2)))]
    usage = draw(st.none() | bodies.usages)
    answer: dict[str, Any] = draw(_answers) | {"choices": choices}
    return answer if usage is None else answer | {"usage": usage}


@given(body=answers())
def test_a_replay_assembles_to_the_same_answer(body: Any) -> None:
    completion = decode_completion(render(body))
    assembler = CompletionAssembler()
    for chunk in chunks_of(completion, with_usage=True):
        assembler.add(chunk)
    assert assembler.is_complete
    assert assembler.completion() == completion


@given(bodies_of_chunks=st.lists(bodies.chunks | bodies.messy_answers, max_size=5))
def test_any_chunks_assemble(bodies_of_chunks: list[Any]) -> None:
    assembler = CompletionAssembler()
    for body in bodies_of_chunks:
        assembler.add(decode_chunk(render(body)))
    completion = assembler.completion()
    assert decode_completion(encode_completion(completion)).id == completion.id
