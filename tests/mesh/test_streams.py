"""Streams through the whole gateway: nothing is held back, mixed up or made up, and every ending is stopped and booked."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.fakes.openai_upstream import Call, Fault, OpenAIUpstream, Reply, chunk, completion, event, hang, sse, stream, usage_json
from tests.mesh.asking import CHAT, LEAVING_S, chunks_of, events_as_they_come, events_of, http_client, question, sees_leaving, text_of
from tests.mesh.gateway import Gateway

pytestmark = pytest.mark.asyncio(loop_scope="session")

STREAMED = question(stream=True)
WITH_USAGE = STREAMED | {"stream_options": {"include_usage": True}}


@pytest_asyncio.fixture(loop_scope="session")
async def http(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with http_client(gateway) as client:
        yield client


async def test_token_arrives_before_the_provider_sends_the_next(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    words = [f"word{number} " for number in range(8)]
    gates = [asyncio.Event() for _ in words]
    steps = [step for word, gate in zip(words, gates, strict=True) for step in (chunk({"content": word}), gate)]
    lab.script(sse(*steps, chunk({}, finish="stop"), b"data: [DONE]\n\n"))
    async with asyncio.timeout(30), http.stream("POST", CHAT, json=STREAMED) as response:
        events = events_as_they_come(response)
        for word, gate in zip(words, gates, strict=True):
            assert json.loads(await anext(events))["choices"][0]["delta"] == {"content": word}
            gate.set()
        assert json.loads(await anext(events))["choices"][0]["finish_reason"] == "stop"
        assert [data async for data in events] == [b"[DONE]"]


async def test_headers_arrive_with_the_first_token_and_not_later(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    gate = asyncio.Event()
    lab.script(sse(chunk({"content": "a"}), gate, chunk({}, finish="stop"), b"data: [DONE]\n\n"))
    async with asyncio.timeout(30), http.stream("POST", CHAT, json=STREAMED) as response:
        assert response.headers["x-joulegate-provider"] == "lab"
        gate.set()
        assert chunks_of(await response.aread())


async def test_frames_are_openais_to_the_byte(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    lab.script(stream("Grüße"))
    response = await http.post(CHAT, json=WITH_USAGE, headers={"x-request-id": "frames"})
    head = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"small","choices":['
    chunks, figures, done = response.content.partition(b',"x-joulegate":')
    assert chunks == (
        head + b'{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
        + head + '{"index":0,"delta":{"content":"Grüße"},"finish_reason":null}]}\n\n'.encode()
        + head + b'{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
        + head + b'],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}'
    )  # fmt: skip
    assert figures and done.endswith(b"}}\n\ndata: [DONE]\n\n")
    assert json.loads(done.removesuffix(b"}\n\ndata: [DONE]\n\n"))["request_id"] == "frames"
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert "content-length" not in response.headers and "content-encoding" not in response.headers


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
async def test_framing_of_the_provider_is_its_own_matter(http: httpx.AsyncClient, lab: OpenAIUpstream, line_end: bytes) -> None:
    opening = b": waiting\n\nevent: message\nid: 7\nretry: 10\n"
    lines = opening + chunk({"content": "a"}) + b"\n\n" + chunk({}, finish="stop") + b"data:[DONE]\n\n"
    sent = lines.replace(b"\n", line_end)
    lab.script(sse(*(sent[index : index + 1] for index in range(len(sent)))))
    first, last = chunks_of((await http.post(CHAT, json=STREAMED)).content)
    assert (first["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({"content": "a"}, "stop")


async def test_many_streams_at_once_each_get_their_own_chunks_in_order(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    all_here = asyncio.Event()

    def reply(call: Call) -> Reply:
        if len(lab.calls) == 64:
            all_here.set()
        name = call.json["messages"][0]["content"]
        return stream(f"{name}:0 ", all_here, *(f"{name}:{number} " for number in range(1, 16)))

    lab.always = reply
    names = [f"stream{number}" for number in range(64)]
    async with asyncio.timeout(30):
        responses = await asyncio.gather(*(http.post(CHAT, json=question(name, stream=True)) for name in names))
    for name, response in zip(names, responses, strict=True):
        assert text_of(chunks_of(response.content)) == "".join(f"{name}:{number} " for number in range(16))


async def test_whole_answer_where_a_stream_was_asked_for_becomes_one(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    lab.script(completion("Hello there"))
    response = await http.post(CHAT, json=STREAMED)
    pieces = chunks_of(response.content)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert text_of(pieces) == "Hello there" and pieces[-1]["choices"][0]["finish_reason"] == "stop"


async def ask_and_leave(http: httpx.AsyncClient, body: Mapping[str, Any], request_id: str, is_time: Callable[[], Any]) -> float:
    """Asks, waits for `is_time`, closes the connection. Gives the moment of leaving."""
    asking = asyncio.create_task(http.post(CHAT, json=body, headers={"x-request-id": request_id}))
    await is_time()
    asking.cancel()
    left_at = time.monotonic()
    await asyncio.gather(asking, return_exceptions=True)
    return left_at


async def assert_left(gateway: Gateway, request_id: str, *, streamed: bool) -> dict[str, Any]:
    (row,) = await gateway.settled_entries(request_id)
    assert (row["outcome"], row["streamed"], row["attempt"]) == ("OUTCOME_CLIENT_LEFT", streamed, 1)
    assert row["tokens_estimated"] is True and row["input_tokens"] > 0
    return row


async def test_client_that_leaves_mid_stream_stops_the_provider_and_is_booked(
    gateway: Gateway, http: httpx.AsyncClient, lab: OpenAIUpstream
) -> None:
    lab.script(stream("One two three", Fault.HANG))
    async with http.stream("POST", CHAT, json=STREAMED, headers={"x-request-id": "left-mid-stream"}) as response:
        events = events_as_they_come(response)
        while b"three" not in await anext(events):
            pass
    await sees_leaving(lab.calls[0], time.monotonic())
    row = await assert_left(gateway, "left-mid-stream", streamed=True)
    assert row["output_tokens"] == 3


@pytest.mark.parametrize("streamed", [True, False])
async def test_client_that_leaves_before_the_first_byte_stops_the_provider_and_is_booked(
    gateway: Gateway, http: httpx.AsyncClient, lab: OpenAIUpstream, streamed: bool
) -> None:
    lab.script(hang())
    request_id = f"left-early-{streamed}"
    left_at = await ask_and_leave(http, question(stream=streamed), request_id, lab.arrived)
    await sees_leaving(lab.calls[0], left_at)
    await assert_left(gateway, request_id, streamed=streamed)


async def test_client_that_leaves_in_the_middle_of_a_whole_answer_stops_the_provider_and_is_booked(
    gateway: Gateway, http: httpx.AsyncClient, lab: OpenAIUpstream
) -> None:
    sent = asyncio.Event()
    lab.script(Reply([b'{"id": "chatcmpl-1", "choi', sent, Fault.HANG], headers={"content-type": "application/json"}))

    async def half_is_sent() -> None:
        await lab.arrived()
        sent.set()

    left_at = await ask_and_leave(http, question(), "left-mid-answer", half_is_sent)
    await sees_leaving(lab.calls[0], left_at)
    await assert_left(gateway, "left-mid-answer", streamed=False)


async def test_client_that_leaves_does_not_disturb_its_neighbours(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    gate = asyncio.Event()
    lab.script(stream("a", gate, "b"), stream("c", Fault.HANG))
    staying = asyncio.create_task(http.post(CHAT, json=STREAMED))
    await lab.arrived()
    await ask_and_leave(http, STREAMED, "leaving-neighbour", lambda: lab.arrived(2))
    await asyncio.wait_for(lab.calls[1].disconnected.wait(), LEAVING_S)
    gate.set()
    assert text_of(chunks_of((await staying).content)) == "ab"


ERROR_EVENT = {"error": {"message": "the model has crashed", "type": "server_error", "param": None, "code": "crashed"}}
CUTS: Mapping[str, tuple[Sequence[Any], str, str]] = {
    "reset": ([Fault.RESET], "stream_cut", "OUTCOME_STREAM_CUT"),
    "closed without the end of the body": ([Fault.CLOSE], "stream_cut", "OUTCOME_STREAM_CUT"),
    "ended without a finish reason": ([], "stream_cut", "OUTCOME_STREAM_CUT"),
    "ended inside an event": ([b'data: {"id": "chatcmpl-1", "cho'], "stream_cut", "OUTCOME_STREAM_CUT"),
    "silent": ([Fault.HANG], "provider_timeout", "OUTCOME_TIMED_OUT"),
    "no JSON": ([b"data: <html>\n\n", Fault.HANG], "stream_cut", "OUTCOME_STREAM_CUT"),
    "an error object": ([event(ERROR_EVENT), Fault.HANG], "stream_cut", "OUTCOME_STREAM_CUT"),
    "an error event": ([b"event: error\n" + event(ERROR_EVENT), Fault.HANG], "stream_cut", "OUTCOME_STREAM_CUT"),
    "an error object and then the end": ([event(ERROR_EVENT), b"data: [DONE]\n\n"], "stream_cut", "OUTCOME_STREAM_CUT"),
}


@pytest.mark.parametrize("how", CUTS)
async def test_stream_that_the_provider_cuts_ends_with_an_error_and_never_as_if_it_were_whole(
    gateway: Gateway, http: httpx.AsyncClient, lab: OpenAIUpstream, backup: OpenAIUpstream, how: str
) -> None:
    steps, code, outcome = CUTS[how]
    arrived = asyncio.Event()
    lab.script(stream("One two three", arrived, *steps, model="shared", finish=None, usage=False, done=False))
    request_id = f"cut-{how}".replace(" ", "-")
    # Only one of them is waited for until patience is at its end.
    provider, model = ("hasty", "hasty") if how == "silent" else ("lab", "shared")
    body = WITH_USAGE | {"model": f"{provider}/{model}"}
    data = []
    async with asyncio.timeout(30), http.stream("POST", CHAT, json=body, headers={"x-request-id": request_id}) as response:
        async for event_data in events_as_they_come(response):
            data.append(event_data)
            arrived.set()
    *chunks, last = [json.loads(piece) for piece in data]
    assert text_of(chunks) == "One two three"
    assert [choice["finish_reason"] for piece in chunks for choice in piece["choices"]] == [None, None]
    assert not [piece for piece in chunks if "usage" in piece or "x-joulegate" in piece]
    assert last.keys() == {"error"} and last["error"].keys() == {"message", "type", "param", "code"}
    assert (last["error"]["code"], last["error"]["type"]) == (code, "server_error")
    assert ("crashed" in last["error"]["message"]) is how.startswith("an error")
    (row,) = await gateway.settled_entries(request_id)
    assert (row["outcome"], row["provider"], row["tokens_estimated"]) == (outcome, provider, True)
    assert row["input_tokens"] > 0 and row["output_tokens"] == 3
    assert not backup.calls


async def test_cut_stream_stops_the_provider(http: httpx.AsyncClient, lab: OpenAIUpstream) -> None:
    lab.script(stream("a", event(ERROR_EVENT), Fault.HANG))
    events = events_of((await http.post(CHAT, json=STREAMED)).content)
    assert b"[DONE]" not in events
    await asyncio.wait_for(lab.calls[0].disconnected.wait(), LEAVING_S)


async def test_no_other_provider_takes_over_after_the_first_byte(
    http: httpx.AsyncClient, lab: OpenAIUpstream, backup: OpenAIUpstream
) -> None:
    both = {"lab": lab, "backup": backup}
    for upstream in both.values():
        upstream.always = lambda call: stream("Hel", Fault.RESET, model="shared")
    response = await http.post(CHAT, json=STREAMED | {"model": "shared"})
    *_, last = events_of(response.content)
    assert json.loads(last)["error"]["code"] == "stream_cut"
    assert [name for name, upstream in both.items() if upstream.calls] == [response.headers["x-joulegate-provider"]]


async def test_cut_answer_is_not_kept_for_the_next(gateway: Gateway, lab: OpenAIUpstream) -> None:
    lab.script(stream("Hel", Fault.RESET), completion("Hello"))
    async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as http:
        same = question("Does a cut answer come back?")
        assert b"stream_cut" in (await http.post(CHAT, json=same | {"stream": True})).content
        again = await http.post(CHAT, json=same)
    assert again.headers["x-joulegate-cache"] == "miss"
    assert again.json()["choices"][0]["message"]["content"] == "Hello"


async def test_stream_that_ends_after_its_finish_reason_is_whole_without_done(
    gateway: Gateway, http: httpx.AsyncClient, lab: OpenAIUpstream
) -> None:
    lab.script(stream("Hello", done=False))
    response = await http.post(CHAT, json=WITH_USAGE)
    assert chunks_of(response.content)[-1]["usage"] == usage_json()
    (row,) = await gateway.settled_entries(response.headers["x-request-id"])
    assert (row["outcome"], row["tokens_estimated"], row["output_tokens"]) == ("OUTCOME_FINISHED", False, 2)
