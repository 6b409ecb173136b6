"""What a client sends reaches the provider, and what the provider says reaches the client: all of it, numbers to the letter.

Random bodies of OpenAI's schema with random further members at every depth go through the whole gateway. The differences there may be are
listed here and nowhere else: the model's name, the gateway's own request fields, the usage that is always asked for, and its additions.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from services.wire.extensions import EXTENSION_FIELDS
from tests.fakes.openai_upstream import OpenAIUpstream, answer, completion, sse, stream
from tests.mesh.asking import CHAT, events_of, http_client
from tests.mesh.gateway import Gateway
from tests.unit.wire import bodies
from tests.unit.wire.json_text import parse, render

# Hypothesis warns where a whole request would be long to print.
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.filterwarnings("ignore:Generating overly large repr")]

# The gateway outlives an example on purpose. A failure is not shrunk, since each step costs a call: tests/properties does it.
bounded = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

JSON = {"content-type": "application/json"}
spacings = st.sampled_from([(",", ":"), (" ,\n ", " : ")])
# Values as their field may have them; a `provider` that is an object is OpenRouter's and no field of ours.
own_values: Mapping[str, st.SearchStrategy[Any]] = {
    "provider": st.just("lab"),
    "x-prefer-provider": st.just("lab"),
    "skip_cache": st.booleans(),
    "x-cache": st.booleans(),
    "fallback": st.booleans() | st.none(),
    "routing_strategy": st.sampled_from(["fallback", "least_busy", "cost", None]),
    "x-routing-strategy": st.just("latency"),
    "routing": bodies.json_objects.filter(lambda routing: "strategy" not in routing),
}
own_fields = st.fixed_dictionaries({}, optional={name: own_values.get(name, bodies.json_values) for name in sorted(EXTENSION_FIELDS)})
foreign_providers = st.fixed_dictionaries({}, optional={"provider": bodies.json_objects})


def as_stream(body: dict[str, Any]) -> dict[str, Any]:
    return body | {"stream": True}


def as_whole(body: dict[str, Any]) -> dict[str, Any]:
    return body | {"stream": False}


def usage_asked(body: dict[str, Any]) -> dict[str, Any]:
    """The body as a provider must get it when it is streamed."""
    return body | {"stream_options": (body.get("stream_options") or {}) | {"include_usage": True}}


async def post(http: httpx.AsyncClient, body: Any, **form: Any) -> bytes:
    response = await http.post(CHAT, content=render(body, **form), headers=JSON)
    assert response.status_code == 200, response.text
    return response.content


@bounded
@given(
    body=bodies.requests.map(as_whole) | bodies.requests.map(as_stream),
    foreign=foreign_providers,
    own=own_fields,
    prefix=st.sampled_from(["", "lab/"]),
    ensure_ascii=st.booleans(),
    separators=spacings,
)
async def test_request_reaches_the_provider_as_it_was_sent(
    gateway: Gateway,
    lab: OpenAIUpstream,
    body: dict[str, Any],
    foreign: dict[str, Any],
    own: dict[str, Any],
    prefix: str,
    ensure_ascii: bool,
    separators: tuple[str, str],
) -> None:
    lab.calls.clear()
    lab.always = lambda call: stream("a") if body["stream"] else completion("a")
    async with http_client(gateway) as http:
        await post(http, foreign | body | own | {"model": f"{prefix}small"}, ensure_ascii=ensure_ascii, separators=separators)
    kept = foreign | body if isinstance(own.get("provider", ""), str) and "provider" not in own else body
    expected = kept | {"model": "small"}
    (call,) = lab.calls
    assert parse(call.body) == (usage_asked(expected) if body["stream"] else expected)


@bounded
@given(
    body=bodies.completions.filter(lambda body: body["choices"]),
    request=bodies.requests,
    ensure_ascii=st.booleans(),
    separators=spacings,
)
async def test_whole_answer_reaches_the_client_as_it_was_said(
    gateway: Gateway,
    lab: OpenAIUpstream,
    body: dict[str, Any],
    request: dict[str, Any],
    ensure_ascii: bool,
    separators: tuple[str, str],
) -> None:
    lab.always = lambda call: answer(render(body, ensure_ascii=ensure_ascii, separators=separators))
    async with http_client(gateway) as http:
        got = parse(await post(http, as_whole(request) | {"model": "small"}))
    assert got.pop("x-gateway").keys() >= {"request_id", "provider", "model", "cost_usd", "energy_joules"}
    if not body["id"]:
        assert got.pop("id").startswith("chatcmpl-")
        del body["id"]
    assert got == body


pieces = bodies.chunks.filter(lambda chunk: chunk["choices"])
usage_chunks = st.builds(lambda chunk, usage: chunk | {"choices": [], "usage": usage}, bodies.chunks, bodies.usages)


@bounded
@given(
    chunks=st.lists(pieces, min_size=1, max_size=3),
    usage=usage_chunks,
    asks_for_usage=st.booleans(),
    cuts=st.lists(st.integers(0, 4000), max_size=6),
    ensure_ascii=st.booleans(),
)
async def test_stream_reaches_the_client_as_it_was_said(
    gateway: Gateway,
    lab: OpenAIUpstream,
    chunks: list[dict[str, Any]],
    usage: dict[str, Any],
    asks_for_usage: bool,
    cuts: list[int],
    ensure_ascii: bool,
) -> None:
    sent = b"".join(b"data: " + render(chunk, ensure_ascii=ensure_ascii) + b"\n\n" for chunk in [*chunks, usage]) + b"data: [DONE]\n\n"
    # Where the network cuts a stream in pieces means nothing.
    edges = [0, *sorted(cut for cut in cuts if cut < len(sent)), len(sent)]
    lab.always = lambda call: sse(*(sent[start:end] for start, end in pairwise(edges) if start < end))
    request: dict[str, Any] = {"model": "small", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    if asks_for_usage:
        request["stream_options"] = {"include_usage": True}
    async with http_client(gateway) as http:
        *got, done = events_of(await post(http, request))
    assert done == b"[DONE]"
    read = [parse(data) for data in got]
    if asks_for_usage:
        assert read[-1].pop("x-joulegate").keys() >= {"request_id", "provider", "model", "cost_usd", "energy_joules"}
        assert read == [*chunks, usage]
    else:
        assert read == [{name: value for name, value in chunk.items() if name != "usage"} for chunk in chunks]


async def test_numbers_are_the_letters_that_were_sent(gateway: Gateway, lab: OpenAIUpstream) -> None:
    """The property above in one line that a reader can check."""
    members = '"seed":1e2,"temperature":0.10,"top_p":1.0,"n":1,"big":123456789012345678901234567890,"tiny":1E-400,"bias":{"7":-100.00}'
    lab.script(answer(f'{{"id":"a","object":"chat.completion","created":1.7e9,"model":"small","choices":[{{"index":0}}],{members}}}'))
    async with http_client(gateway) as http:
        body = f'{{"model":"small","messages":[{{"role":"user","content":"x"}}],{members}}}'
        got = (await http.post(CHAT, content=body, headers=JSON)).text
    sent = lab.calls[0].body.decode()
    for member in members.split(',"'):
        assert member.strip('"') in sent and member.strip('"') in got
    assert '"created":1.7e9' in got
