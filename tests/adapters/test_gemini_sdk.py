"""Google's own SDK as the judge of Gemini's dialect: it sends what we send, and reads what our fake says."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from google import genai
from google.genai import types

from services.dispatch.adapters.gemini_request import camel
from tests.adapters.gemini_asking import MODEL, SCHEMA, TEXT, WEATHER, encoded, user
from tests.fakes.gemini_upstream import GeminiUpstream, completion, error_json, stream
from tests.fakes.upstream import answer


@pytest.fixture
async def fake() -> AsyncIterator[GeminiUpstream]:
    async with GeminiUpstream() as upstream:
        yield upstream


@pytest.fixture
async def sdk(fake: GeminiUpstream) -> AsyncIterator[Any]:
    # With a transport of ours the SDK uses httpx: its own sessions of aiohttp are deprecated by aiohttp.
    options = types.HttpOptions(base_url=fake.base_url, api_version="v1beta", async_client_args={"transport": httpx.AsyncHTTPTransport()})
    client = genai.Client(api_key="key", vertexai=False, http_options=options)
    yield client.aio.models
    await client.aio.aclose()
    client.close()


def part_of_call(name: str, id: str, args: dict[str, Any]) -> types.Part:
    return types.Part(function_call=types.FunctionCall(id=id, name=name, args=args), thought_signature=b"sig")


def part_of_result(name: str, id: str, response: dict[str, Any]) -> types.Part:
    return types.Part(function_response=types.FunctionResponse(id=id, name=name, response=response))


NATIVE: dict[str, tuple[dict[str, Any], Any, dict[str, Any]]] = {
    "text and system": (
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}], "max_tokens": 9, "stop": ["a", "b"]},
        "Hi",
        {"system_instruction": types.Content(parts=[types.Part(text="Be brief.")]), "max_output_tokens": 9, "stop_sequences": ["a", "b"]},
    ),
    "sampling": (
        {
            "temperature": 0.5,
            "top_p": 0.25,
            "n": 2,
            "seed": 7,
            "presence_penalty": 0.5,
            "frequency_penalty": 1,
            "logprobs": True,
            "top_logprobs": 2,
        },
        "Hi",
        {
            "temperature": 0.5,
            "top_p": 0.25,
            "candidate_count": 2,
            "seed": 7,
            "presence_penalty": 0.5,
            "frequency_penalty": 1,
            "response_logprobs": True,
            "logprobs": 2,
        },
    ),
    "tools and results": (
        {
            "messages": [
                {"role": "user", "content": "Weather?"},
                {
                    "role": "assistant",
                    "tool_calls": [
                        {
                            "id": f"call_{city}",
                            "type": "function",
                            "function": {"name": "weather", "arguments": json.dumps({"city": city})},
                            "extra_content": {"google": {"thought_signature": "c2ln"}},
                        }
                        for city in ("Rome", "Bonn")
                    ],
                },
                {"role": "tool", "tool_call_id": "call_Rome", "content": "21"},
                {"role": "tool", "tool_call_id": "call_Bonn", "content": '{"celsius": 9}'},
                {"role": "assistant", "content": "Warm and cold."},
                {"role": "user", "content": "Thanks"},
            ],
            "tools": [WEATHER],
            "tool_choice": {"type": "function", "function": {"name": "weather"}},
        },
        [
            types.Content(role="user", parts=[types.Part(text="Weather?")]),
            types.Content(role="model", parts=[part_of_call("weather", f"call_{city}", {"city": city}) for city in ("Rome", "Bonn")]),
            types.Content(
                role="user",
                parts=[
                    part_of_result("weather", "call_Rome", {"output": "21"}),
                    part_of_result("weather", "call_Bonn", {"celsius": 9}),
                ],
            ),
            types.Content(role="model", parts=[types.Part(text="Warm and cold.")]),
            types.Content(role="user", parts=[types.Part(text="Thanks")]),
        ],
        {
            "tools": [
                types.Tool(
                    function_declarations=[
                        types.FunctionDeclaration(name="weather", description="The weather.", parameters_json_schema=SCHEMA)
                    ]
                )
            ],
            "tool_config": types.ToolConfig(
                function_calling_config=types.FunctionCallingConfig(
                    mode=types.FunctionCallingConfigMode.ANY, allowed_function_names=["weather"]
                )
            ),
        },
    ),
    "images": (
        {
            "messages": user(
                TEXT,
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.jpg"}},
            )
        },
        types.Content(
            role="user",
            parts=[
                types.Part(text="Hi"),
                types.Part.from_bytes(data=b"hi", mime_type="image/png"),
                types.Part.from_uri(file_uri="https://example.org/a.jpg", mime_type="image/jpeg"),
            ],
        ),
        {},
    ),
    "schema": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}}},
        "Hi",
        {"response_mime_type": "application/json", "response_json_schema": SCHEMA},
    ),
    "thinking": (
        {"reasoning_effort": "low", "service_tier": "flex"},
        "Hi",
        {
            "thinking_config": types.ThinkingConfig(thinking_level=types.ThinkingLevel.LOW, include_thoughts=True),
            "service_tier": types.ServiceTier.FLEX,
        },
    ),
}


def camel_cased(value: Any) -> Any:
    """The SDK spells some names as protobuf's source does, and sends an empty config; both are the same to Google."""
    if isinstance(value, list):
        return [camel_cased(one) for one in value]
    if isinstance(value, dict):
        return {camel(name): camel_cased(one) for name, one in value.items() if (name, one) != ("generationConfig", {})}
    return value


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("case", NATIVE)
async def test_googles_sdk_sends_the_same(fake: GeminiUpstream, sdk: Any, case: str, is_stream: bool) -> None:
    members, contents, config = NATIVE[case]
    native = types.GenerateContentConfig(**config, automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True))
    if is_stream:
        fake.script(stream("Hi"))
        async for _ in await sdk.generate_content_stream(model=MODEL, contents=contents, config=native):
            pass
    else:
        fake.script(completion())
        await sdk.generate_content(model=MODEL, contents=contents, config=native)
    [call] = fake.calls
    ours = encoded(**members, stream=is_stream)
    assert ours.path == call.path
    assert json.loads(ours.body) == camel_cased(call.json)
    assert call.headers["x-goog-api-key"] == "key"


async def test_googles_sdk_reads_our_fakes_answers(fake: GeminiUpstream, sdk: Any) -> None:
    fake.script(completion("Hello!"), stream("Hel", "lo"))
    whole_answer = await sdk.generate_content(model="small", contents="Hi")
    assert (whole_answer.text, whole_answer.usage_metadata.total_token_count) == ("Hello!", 7)
    assert whole_answer.candidates[0].finish_reason is types.FinishReason.STOP
    pieces = [piece async for piece in await sdk.generate_content_stream(model="small", contents="Hi")]
    assert "".join(piece.text or "" for piece in pieces) == "Hello"
    assert pieces[-1].candidates[0].finish_reason is types.FinishReason.STOP
    assert pieces[-1].usage_metadata.candidates_token_count == 2


async def test_googles_sdk_reads_our_fakes_errors_and_models(fake: GeminiUpstream, sdk: Any) -> None:
    fake.script(answer(json.dumps(error_json(429, "Slow down.", word="RESOURCE_EXHAUSTED")), status=429))
    with pytest.raises(genai.errors.ClientError) as caught:
        await sdk.generate_content(model="small", contents="Hi")
    assert (caught.value.code, caught.value.status, caught.value.message) == (429, "RESOURCE_EXHAUSTED", "Slow down.")
    assert [model.name async for model in await sdk.list()] == ["models/small", "models/large", "models/embedder"]
