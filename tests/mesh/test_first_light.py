"""The promise of the README: change `base_url`, chat, be served from the cache, and find both in the books."""

from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.mesh.gateway import Gateway

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_demo_chat_streams_is_cached_and_is_booked(gateway: Gateway) -> None:
    async with AsyncOpenAI(base_url=gateway.base_url, api_key="first-light") as client:
        question: Any = [{"role": "user", "content": "Hello, who are you?"}]
        raw: Any = await client.chat.completions.with_raw_response.create(model="demo", messages=question, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in raw.parse()])
        again: Any = await client.chat.completions.with_raw_response.create(model="demo", messages=question)
    assert "demo" in text
    assert again.parse().choices[0].message.content == text
    assert (raw.headers["x-joulegate-cache"], again.headers["x-joulegate-cache"]) == ("miss", "hit-exact")
    (first,) = await gateway.settled_entries(raw.headers["x-request-id"])
    (second,) = await gateway.settled_entries(again.headers["x-request-id"])
    assert (first["outcome"], second["outcome"]) == ("OUTCOME_FINISHED", "OUTCOME_CACHE_HIT")
    assert first["output_tokens"] > 0 and first["energy_microjoules"] > 0
    # The demo provider takes less than looking its answer up does.
    assert (second["saved_energy_microjoules"], second["energy_microjoules"]) == (0, 7071)
