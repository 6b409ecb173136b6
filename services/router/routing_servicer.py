"""RoutingService over gRPC: operators read and change the routing policy."""

import json
from collections.abc import Mapping
from typing import Any, Final

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.timestamp_pb2 import Timestamp

from joulegate.ledger.v1 import policy_service_pb2 as ledger_pb
from joulegate.ledger.v1 import policy_service_pb2_grpc as ledger_grpc
from joulegate.ops.v1 import routing_service_pb2 as pb
from joulegate.ops.v1 import routing_service_pb2_grpc as pb_grpc
from services.router import policy_documents
from services.router.live_policy import LivePolicy, PolicyVersion, read_version
from services.router.policy import parse
from services.runtime.admin_key import AdminKey
from services.runtime.interceptors import Context, metadata_value
from services.runtime.settings import SettingsError

TIMEOUT_S: Final = 5.0


class RoutingServicer(pb_grpc.RoutingServiceServicer):
    """See routing_service.proto."""

    def __init__(self, live: LivePolicy, policies: ledger_grpc.PolicyServiceStub, admin_key: AdminKey) -> None:
        self._live = live
        self._policies = policies
        self._admin_key = admin_key

    async def GetRoutingPolicy(self, request: pb.GetRoutingPolicyRequest, context: Context) -> pb.GetRoutingPolicyResponse:
        self._check(context)
        return pb.GetRoutingPolicyResponse(policy=_message(self._live.newest))

    async def UpdateRoutingPolicy(self, request: pb.UpdateRoutingPolicyRequest, context: Context) -> pb.UpdateRoutingPolicyResponse:
        self._check(context)
        expected = request.expected_version if request.HasField("expected_version") else None
        stored = await self._store(_decoded(request.document), request.comment, expected)
        return pb.UpdateRoutingPolicyResponse(policy=_message(stored))

    async def ListRoutingPolicies(self, request: pb.ListRoutingPoliciesRequest, context: Context) -> pb.ListRoutingPoliciesResponse:
        self._check(context)
        found = await self._listed(request.before_version, request.page_size)
        return pb.ListRoutingPoliciesResponse(policies=[_stored_message(each) for each in found])

    async def RestoreRoutingPolicy(self, request: pb.RestoreRoutingPolicyRequest, context: Context) -> pb.RestoreRoutingPolicyResponse:
        self._check(context)
        return pb.RestoreRoutingPolicyResponse(policy=_message(await self._restore(request.version)))

    async def GetRouting(self, request: pb.GetRoutingRequest, context: Context) -> HttpBody:
        self._check(context)
        return _json(policy_documents.shown(self._live.newest))

    async def UpdateRouting(self, request: pb.UpdateRoutingRequest, context: Context) -> HttpBody:
        self._check(context)
        stored = await self._store(*policy_documents.read(request.body.data))
        return _json({"success": True, "version": stored.version})

    async def ListRouting(self, request: pb.ListRoutingRequest, context: Context) -> HttpBody:
        self._check(context)
        found = await self._listed(request.before_version, request.page_size)
        return _json({"versions": [_listed(each) for each in found]})

    async def RestoreRouting(self, request: pb.RestoreRoutingRequest, context: Context) -> HttpBody:
        self._check(context)
        stored = await self._restore(request.version)
        return _json({"success": True, "version": stored.version})

    def _check(self, context: Context) -> None:
        self._admin_key.check(metadata_value(context, "authorization"))

    async def _store(self, document: Mapping[str, Any], comment: str, expected: int | None) -> PolicyVersion:
        """The policy, in force. Raises GatewayError naming all that is wrong with it."""
        try:
            parse(document)
        except SettingsError as error:
            raise policy_documents.invalid("; ".join(error.problems), "policy") from None
        request = ledger_pb.StorePolicyRequest(document=json.dumps(document), comment=comment, expected_version=expected)
        stored = (await self._policies.StorePolicy(request, timeout=TIMEOUT_S)).policy
        # Whoever asks this router next sees it, however late the ledger's own news are.
        self._live.take_in(stored)
        return read_version(stored)

    async def _restore(self, version: int) -> PolicyVersion:
        earlier = (await self._policies.GetPolicy(ledger_pb.GetPolicyRequest(version=version), timeout=TIMEOUT_S)).policy
        return await self._store(_decoded(earlier.document), f"version {version} again", None)

    async def _listed(self, before: int, size: int) -> list[ledger_pb.Policy]:
        request = ledger_pb.ListPoliciesRequest(before_version=before, page_size=size)
        return list((await self._policies.ListPolicies(request, timeout=TIMEOUT_S)).policies)


def _decoded(document: str) -> Mapping[str, Any]:
    try:
        members = json.loads(document)
    except ValueError:
        raise policy_documents.invalid("document is not JSON", "document") from None
    if not isinstance(members, dict):
        raise policy_documents.invalid("document must be a JSON object", "document")
    return members


def _message(version: PolicyVersion) -> pb.RoutingPolicy:
    message = pb.RoutingPolicy(version=version.version, document=json.dumps(version.document), comment=version.comment)
    if version.created_at is not None:
        message.create_time.FromNanoseconds(int(version.created_at * 1e9))
    return message


def _stored_message(stored: ledger_pb.Policy) -> pb.RoutingPolicy:
    return pb.RoutingPolicy(version=stored.version, document=stored.document, create_time=stored.create_time, comment=stored.comment)


def _listed(stored: ledger_pb.Policy) -> dict[str, Any]:
    created: Timestamp = stored.create_time
    document = json.loads(stored.document)
    return {"version": stored.version, "created_at": created.ToJsonString(), "comment": stored.comment, "policy": document}


def _json(document: object) -> HttpBody:
    return HttpBody(content_type="application/json", data=json.dumps(document).encode())
