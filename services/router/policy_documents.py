"""The JSON of `/api/admin/routing`: our own documents, and the members by which earlier gateways' clients know a policy."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.router.live_policy import PolicyVersion
from services.runtime.errors import GatewayError

_ENVELOPE: Final = frozenset({"policy", "version", "comment", "created_at"})


class WantedPolicy(NamedTuple):
    """What an operator sent: the document, and of which version it is a change; None: of whichever is in force."""

    document: Mapping[str, Any]
    comment: str
    expected_version: int | None


def read(body: bytes) -> WantedPolicy:
    """What a body asks for. Raises GatewayError."""
    try:
        members = json.loads(body)
    except ValueError:
        raise invalid("the body is not JSON", "body") from None
    if not isinstance(members, dict):
        raise invalid("the body must be a JSON object", "body")
    comment, version = members.get("comment", ""), members.get("version")
    if not isinstance(comment, str):
        raise invalid("comment must be text", "comment")
    if version is not None and (not isinstance(version, int) or isinstance(version, bool)):
        raise invalid("version must be a whole number", "version")
    document = members.get("policy")
    if document is None:
        document = _from_earlier({name: value for name, value in members.items() if name not in _ENVELOPE})
    elif not isinstance(document, dict):
        raise invalid("policy must be a JSON object", "policy")
    elif others := sorted(members.keys() - _ENVELOPE):
        raise invalid(f"{others[0]}: belongs inside `policy`", others[0])
    return WantedPolicy(document, comment, version)


def _from_earlier(members: dict[str, Any]) -> dict[str, Any]:
    """Ours for `{strategy, weights, constraints{maxLatencyMs, …}, fallbackChain}`; what has no equivalent is refused, not dropped."""
    document = dict(members)
    if "fallbackChain" in document:
        document["prefer_providers"] = document.pop("fallbackChain")
    constraints = document.get("constraints")
    if isinstance(constraints, dict):
        constraints = dict(constraints)
        if constraints.get("maxLatencyMs") is not None:
            constraints["max_latency_ms"] = constraints["maxLatencyMs"]
        for name, instead in (
            ("maxLatencyMs", None),
            ("maxCostPer1kTokens", "`max_cost_usd` bounds the cost of a request"),
            ("requiredCapabilities", "what a request needs is read from the request"),
            ("preferLocal", "name the local provider in `fallbackChain`"),
        ):
            if constraints.pop(name, None) and instead is not None:
                raise invalid(f"constraints.{name} has no equivalent here: {instead}", f"constraints.{name}")
        document["constraints"] = constraints
    return document


def shown(version: PolicyVersion) -> dict[str, Any]:
    """A version as JSON: its document, and what earlier gateways' clients read of it."""
    policy = version.policy
    weights = policy.weights_of(policy.strategy, None)
    constraints = policy.constraints
    return {
        "version": version.version,
        "comment": version.comment,
        "created_at": None if version.created_at is None else datetime.fromtimestamp(version.created_at, UTC).isoformat(),
        "strategy": policy.strategy.value,
        "weights": None if weights is None else weights.shares(),
        "constraints": {} if constraints.max_latency_s is None else {"maxLatencyMs": constraints.max_latency_s * 1000},
        "fallbackChain": list(policy.prefer_providers),
        "policy": dict(version.document),
    }


def invalid(message: str, param: str) -> GatewayError:
    """The refusal of a policy or of what is around it."""
    return GatewayError(ErrorReason.ERROR_REASON_INVALID_REQUEST, message, {"param": param})
