"""Hypothesis strategies of OpenAI bodies with unmodelled members at every level."""

from typing import Any

from hypothesis import strategies as st

from tests.unit.wire.json_text import Number

Bodies = st.SearchStrategy[Any]

numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True).map(Number)
doubles = st.sampled_from(["0", "-0", "1", "1.0", "0.7", "0.10", "2e0", "1E-3", "-1.50", "0.1234567890123456789", "1e22"]).map(Number)
integers = (st.integers(0, 2**31 - 1).map(str) | st.sampled_from(["0", "-0", "7.0", "1e2", "16.00"])).map(Number)
strings = st.text(max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | strings,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(strings, inner, max_size=3),
    max_leaves=5,
)
json_objects = st.dictionaries(strings, json_values, max_size=3)
# A prefix keeps random names off the modelled ones.
unmodelled = st.dictionaries(strings.map("+{}".format), json_values, max_size=2)


def level(required: dict[str, Bodies] | None = None, optional: dict[str, Bodies] | None = None) -> Bodies:
    """An object of these members, the optional ones null at times, and of members that nobody models."""
    nullable = {name: st.none() | values for name, values in (optional or {}).items()}
    modelled = st.fixed_dictionaries(required or {}, optional=nullable)
    return st.builds(lambda members, extra: members | extra, modelled, unmodelled)


roles = st.sampled_from(["system", "developer", "user", "assistant", "tool", "function"])
finish_reasons = st.sampled_from(["stop", "length", "tool_calls", "content_filter", "function_call"])
parts = level(
    {"type": st.sampled_from(["text", "image_url", "input_audio", "file", ""])},
    {
        "text": strings,
        "image_url": level({"url": strings}, {"detail": strings}),
        "input_audio": level({"data": strings, "format": strings}),
    },
)
tool_calls = level(
    optional={"index": integers, "id": strings, "type": strings, "function": level(optional={"name": strings, "arguments": strings})}
)
message_members = {
    "content": strings | st.lists(parts, max_size=2),
    "name": strings,
    "tool_calls": st.lists(tool_calls, max_size=2),
    "tool_call_id": strings,
    "refusal": strings,
    "reasoning_content": strings,
}
function_members = {"description": strings, "parameters": json_objects, "strict": st.booleans()}
tools = level({"type": strings, "function": level({"name": strings}, function_members)})

requests = level(
    {"model": st.text(min_size=1, max_size=12), "messages": st.lists(level({"role": roles}, message_members), min_size=1, max_size=3)},
    {
        "max_tokens": integers,
        "max_completion_tokens": integers,
        "temperature": doubles,
        "top_p": doubles,
        "n": integers,
        "stop": strings | st.lists(strings, max_size=3),
        "seed": integers,
        "presence_penalty": doubles,
        "frequency_penalty": doubles,
        "logprobs": st.booleans(),
        "top_logprobs": integers,
        "tools": st.lists(tools, max_size=2),
        "tool_choice": strings | json_objects,
        "parallel_tool_calls": st.booleans(),
        "response_format": json_objects,
        "reasoning_effort": strings,
        "user": strings,
        "stream": st.booleans(),
        "stream_options": level(optional={"include_usage": st.booleans()}),
    },
)

usages = level(
    {"prompt_tokens": integers, "completion_tokens": integers, "total_tokens": integers},
    {
        "prompt_tokens_details": level(optional={"cached_tokens": integers, "audio_tokens": integers}),
        "completion_tokens_details": level(optional={"reasoning_tokens": integers, "audio_tokens": integers}),
    },
)


def answers(name: str, choice_member: str, object_name: str) -> Bodies:
    """Answers whose choices hold a `message` or a `delta`; now and then with an object name or a reason of the provider's own."""
    choices = level(
        {
            "index": integers,
            choice_member: level(optional={"role": roles | strings} | message_members),
            "finish_reason": st.none() | finish_reasons | strings,
        },
        {"logprobs": json_objects},
    )
    return level(
        {
            "id": strings,
            "object": st.sampled_from([object_name, name]),
            "created": integers,
            "model": strings,
            "choices": st.lists(choices, max_size=2),
        },
        {"usage": usages},
    )


completions = answers("text_completion", "message", "chat.completion")
chunks = answers("chunk", "delta", "chat.completion.chunk")

# Modelled names with values of any type at all.
_messy_message = st.dictionaries(st.sampled_from([*message_members, "role"]), json_values, max_size=4)
_messy_choice = st.dictionaries(
    st.sampled_from(["index", "message", "delta", "finish_reason", "logprobs"]), json_values | _messy_message, max_size=4
)
messy_answers = st.dictionaries(
    st.sampled_from(["id", "object", "created", "model", "choices", "usage"]), json_values | st.lists(_messy_choice, max_size=2), max_size=6
)
