"""What one vendor's answer brought comes back in a later turn: its vendor gets it, and others are not told, with a warning."""

import json
from typing import Any

import pytest

from services.dispatch.adapters.base import Adapter
from services.dispatch.adapters.openai import OpenAIAdapter
from services.dispatch.adapters.variants import VARIANTS
from tests.adapters.reading import request_of
from tests.fakes.dialects import DIALECTS

SIGNED: dict[str, Any] = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
BLOCKS: dict[str, Any] = {
    "thinking_blocks": [{"type": "thinking", "thinking": "Hm.", "signature": "EqQB"}],
    "content_blocks": [{"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}],
}
CALLED: dict[str, Any] = {"caller": {"type": "direct_call"}}
CALL = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
OWN = {"anthropic": ("EqQB", "web_search", "direct_call"), "gemini": ("c2ln",)}
ADAPTERS: dict[str, Adapter] = {each.kind: each.adapter for each in DIALECTS if each.kind not in ("openai", "azure")}
ADAPTERS["mistral"] = OpenAIAdapter(VARIANTS["mistral"])


def turns(message: dict[str, Any], call: dict[str, Any]) -> dict[str, Any]:
    said = {"role": "assistant", "content": "Yes.", "tool_calls": [CALL | call]} | message
    return {"messages": [{"role": "user", "content": "Hi"}, said, {"role": "tool", "tool_call_id": "c1", "content": "12"}]}


@pytest.mark.parametrize("vendor", sorted(ADAPTERS))
def test_only_its_own_vendor_is_sent_it(vendor: str) -> None:
    wire = ADAPTERS[vendor].encode(request_of(turns(BLOCKS | SIGNED, SIGNED | CALLED)), "m")
    text = wire.body.decode()
    for word in ("EqQB", "web_search", "direct_call", "c2ln"):
        assert (word in text) is (word in OWN.get(vendor, ()))
    left_out = {warning.partition(":")[0] for warning in wire.warnings}
    all_names = {f"messages[1].{name}" for name in (*BLOCKS, "extra_content", "tool_calls[0].caller", "tool_calls[0].extra_content")}
    assert left_out == {name for name in all_names if not _is_of(vendor, name)}


def _is_of(vendor: str, name: str) -> bool:
    return name.endswith("extra_content") if vendor == "gemini" else vendor == "anthropic" and not name.endswith("extra_content")


@pytest.mark.parametrize("vendor", sorted(ADAPTERS))
def test_the_rest_is_as_if_it_had_not_been_there(vendor: str) -> None:
    foreign = {"anthropic": (SIGNED, SIGNED), "gemini": (BLOCKS, CALLED)}.get(vendor, (BLOCKS | SIGNED, SIGNED | CALLED))
    bodies = [json.loads(ADAPTERS[vendor].encode(request_of(turns(*members)), "m").body) for members in (foreign, ({}, {}))]
    assert bodies[0] == bodies[1]
