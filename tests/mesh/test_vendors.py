"""Every vendor by its variables alone, through the real gateway: where it is called, how its key is shown, and its answer."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx

from services.dispatch.vendors import VENDORS, Vendor
from tests.fakes.dialects import DIALECTS
from tests.fakes.openai_upstream import chunk, completion, event, stream, usage_json
from tests.fakes.upstream import Upstream, answer
from tests.mesh.asking import CHAT, http_client, question
from tests.mesh.gateway import PROCESSES, running

_BEARER = ("authorization", "Bearer {}")
# Path of the API behind the vendor's own address, and how the key is shown.
CALLS = {
    "openai": ("/chat/completions", _BEARER),
    "anthropic": ("/v1/messages", ("x-api-key", "{}")),
    "gemini": ("/v1beta/models/m:generateContent", ("x-goog-api-key", "{}")),
    "cohere": ("/v2/chat", _BEARER),
    "azure": ("/openai/deployments/prod/chat/completions?api-version=2024-10-21", ("api-key", "{}")),
    "ollama": ("/api/chat", _BEARER),
}
FAKES = {dialect.kind: dialect for dialect in DIALECTS}
AZURE = {"AZURE_OPENAI_API_VERSION": "2024-10-21", "AZURE_OPENAI_DEPLOYMENT_MAP": "m=prod"}


async def test_each_vendor_is_called_as_its_own_sdk_calls_it(tmp_path: Path) -> None:
    settings = AZURE | {"ENABLE_OLLAMA": "true", "ENABLE_DEMO": "false"}
    async with AsyncExitStack() as stack:
        fakes: dict[str, tuple[Vendor, Upstream]] = {}
        for vendor in VENDORS:
            fake = await stack.enter_async_context(FAKES[vendor.kind].upstream(models=["m"]))
            fakes[vendor.name] = vendor, fake
            settings |= {
                vendor.key_variables[0]: f"key-of-{vendor.name}",
                vendor.address_variables[0]: fake.base_url.removesuffix("/v1") + "/own",
            }
        gateway = await stack.enter_async_context(running(tmp_path, PROCESSES, "", **settings))
        http = await stack.enter_async_context(http_client(gateway))
        for name, (vendor, fake) in fakes.items():
            fake.script(answer(FAKES[vendor.kind].words.whole(f"I am {name}.")))
            response = await http.post(CHAT, json=question(model=f"{name}/m"))
            assert response.status_code == 200, response.text
            said = response.json()
            assert (said["choices"][0]["message"]["content"], said["usage"]["total_tokens"]) == (f"I am {name}.", 7)
            path, (header, form) = CALLS[vendor.kind]
            call = fake.calls[0]
            assert call.path == f"/own{path}"
            assert httpx.Headers(call.headers)[header] == form.format(f"key-of-{name}")
        rows = await gateway.entries()
        assert {row["provider"] for row in rows} == set(fakes)
        assert {row["cost_basis"] for row in rows} == {"COST_BASIS_FREE", "COST_BASIS_UNKNOWN"}
        for wants_stream in (False, True):
            usage: dict[str, Any] = usage_json() | {"cost": 0.00014}
            ending = event({"id": "chatcmpl-1", "choices": [], "usage": usage})
            fakes["openrouter"][1].script(
                stream("Hi", chunk({}, finish="stop"), ending, finish=None, usage=False) if wants_stream else completion("Hi", usage=usage)
            )
            response = await http.post(CHAT, json=question(model="openrouter/m", stream=wants_stream))
            [row] = await gateway.settled_entries(response.headers["x-request-id"])
            assert (row["cost_nano_usd"], row["cost_basis"], row["reported_cost_nano_usd"]) == (140_000, "COST_BASIS_REPORTED", 140_000)
            assert row["list_cost_nano_usd"] not in (0, 140_000)
