"""The JSON by which operators read and change the routing policy."""

import json
from typing import Any

import pytest

from services.router import policy_documents
from services.router.live_policy import PolicyVersion
from services.router.policy import parse
from services.runtime.errors import GatewayError


def read(members: Any) -> policy_documents.WantedPolicy:
    return policy_documents.read(json.dumps(members).encode())


def test_document_of_our_own_comes_with_the_version_that_it_changes() -> None:
    wanted = read({"policy": {"strategy": "eco"}, "version": 3, "comment": "greener", "created_at": "2026-11-21T00:00:00Z"})
    assert wanted == ({"strategy": "eco"}, "greener", 3)


def test_members_of_an_earlier_gateway_are_read_as_ours() -> None:
    wanted = read(
        {
            "strategy": "balanced",
            "weights": {"cost": 0.4, "quality": 0.35, "latency": 0.25},
            "constraints": {"maxLatencyMs": 800, "preferLocal": False, "requiredCapabilities": []},
            "fallbackChain": ["groq", "openai"],
        }
    )
    policy = parse(wanted.document)
    assert policy.constraints.max_latency_s == 0.8
    assert policy.prefer_providers == ("groq", "openai")
    assert wanted.expected_version is None


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ([], "body"),
        ({"policy": []}, "policy"),
        ({"policy": {}, "strategy": "eco"}, "strategy"),
        ({"version": "3"}, "version"),
        ({"version": True}, "version"),
        ({"comment": 3}, "comment"),
        ({"constraints": {"maxCostPer1kTokens": 0.1}}, "constraints.maxCostPer1kTokens"),
        ({"constraints": {"preferLocal": True}}, "constraints.preferLocal"),
        ({"constraints": {"requiredCapabilities": ["code"]}}, "constraints.requiredCapabilities"),
    ],
)
def test_what_makes_no_sense_or_has_no_equivalent_is_refused_by_name(members: Any, param: str) -> None:
    with pytest.raises(GatewayError) as raised:
        read(members)
    assert raised.value.metadata["param"] == param


def test_text_that_is_not_json_is_refused() -> None:
    with pytest.raises(GatewayError):
        policy_documents.read(b"{")


def test_what_is_shown_can_be_sent_back() -> None:
    document = {"strategy": "cost", "constraints": {"max_latency_ms": 500}, "prefer_providers": ["lab"]}
    shown = policy_documents.shown(PolicyVersion(parse(document), 4, document, 1_700_000_000.0, "cheaper"))
    assert (shown["strategy"], shown["constraints"], shown["fallbackChain"]) == ("cost", {"maxLatencyMs": 500.0}, ["lab"])
    assert shown["created_at"] == "2023-11-14T22:13:20+00:00"
    envelope = {name: shown[name] for name in ("policy", "version", "comment", "created_at")}
    assert read(envelope) == (document, "cheaper", 4)
