"""PolicyService over gRPC: versions of the routing policy, for routers."""

from collections.abc import AsyncIterator

from google.protobuf.timestamp_pb2 import Timestamp

from joulegate.ledger.v1 import policy_service_pb2 as pb
from joulegate.ledger.v1 import policy_service_pb2_grpc as pb_grpc
from services.ledger.paging import page_size
from services.ledger.policies import Policies
from services.ledger.policy_store import PolicyVersion
from services.runtime.interceptors import Context


class PolicyServicer(pb_grpc.PolicyServiceServicer):
    """See policy_service.proto."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies

    async def StorePolicy(self, request: pb.StorePolicyRequest, context: Context) -> pb.StorePolicyResponse:
        expected = request.expected_version if request.HasField("expected_version") else None
        return pb.StorePolicyResponse(policy=_message(await self._policies.add(request.document, request.comment, expected)))

    async def GetPolicy(self, request: pb.GetPolicyRequest, context: Context) -> pb.GetPolicyResponse:
        return pb.GetPolicyResponse(policy=_message(await self._policies.get(request.version)))

    async def ListPolicies(self, request: pb.ListPoliciesRequest, context: Context) -> pb.ListPoliciesResponse:
        found = await self._policies.page(page_size(request.page_size), request.before_version or None)
        return pb.ListPoliciesResponse(policies=map(_message, found))

    async def WatchPolicy(self, request: pb.WatchPolicyRequest, context: Context) -> AsyncIterator[pb.WatchPolicyResponse]:
        async for version in self._policies.versions():
            yield pb.WatchPolicyResponse(policy=None if version is None else _message(version))


def _message(version: PolicyVersion) -> pb.Policy:
    create_time = Timestamp()
    create_time.FromNanoseconds(version.created_ns)
    return pb.Policy(version=version.version, document=version.document, create_time=create_time, comment=version.comment)
