"""Versions of the routing policy as PolicyService promises them, on both stores and every kind of channel."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.ledger.v1 import policy_service_pb2 as pb
from joulegate.ledger.v1 import policy_service_pb2_grpc as pb_grpc
from services.ledger.__main__ import build
from services.ledger.engines import Place
from services.ledger.policies import MAX_DOCUMENT_BYTES
from services.ledger.settings import LedgerSettings
from services.runtime.settings import load
from tests.contract.channels import KINDS, new_mesh, serve
from tests.contract.test_keys import refusal
from tests.postgresql import Server, variables_of

PATIENCE_S = 30


@asynccontextmanager
async def started(place: Place, kind: str = "local") -> AsyncIterator[pb_grpc.PolicyServiceStub]:
    mesh = new_mesh()
    async with build(load(LedgerSettings, variables_of(place)), mesh), serve(mesh, kind) as channel:
        yield pb_grpc.PolicyServiceStub(channel)


@pytest.fixture(params=KINDS)
async def policies(request: pytest.FixtureRequest, place: Place) -> AsyncIterator[pb_grpc.PolicyServiceStub]:
    async with started(place, request.param) as stub:
        yield stub


async def stored(stub: pb_grpc.PolicyServiceStub, document: str, **fields: Any) -> pb.Policy:
    return (await stub.StorePolicy(pb.StorePolicyRequest(document=document, **fields))).policy


async def told(call: Any) -> pb.WatchPolicyResponse:
    response = await asyncio.wait_for(call.read(), PATIENCE_S)
    assert isinstance(response, pb.WatchPolicyResponse)
    return response


async def test_versions_count_up_and_stay(policies: pb_grpc.PolicyServiceStub) -> None:
    first = await stored(policies, '{"strategy": "eco"}', comment="greener")
    second = await stored(policies, "{}")
    assert (first.version, second.version) == (1, 2)
    assert (first.document, first.comment) == ('{"strategy": "eco"}', "greener") and first.create_time.seconds
    assert (await policies.GetPolicy(pb.GetPolicyRequest(version=1))).policy == first
    newest = (await policies.ListPolicies(pb.ListPoliciesRequest(page_size=1))).policies
    assert list(newest) == [second]
    older = (await policies.ListPolicies(pb.ListPoliciesRequest(before_version=2))).policies
    assert list(older) == [first]


async def test_change_to_what_has_changed_meanwhile_is_refused(policies: pb_grpc.PolicyServiceStub) -> None:
    await stored(policies, "{}", expected_version=0)
    error = await refusal(stored(policies, "{}", expected_version=0))
    assert error.reason == ErrorReason.ERROR_REASON_CONFLICT
    assert (await stored(policies, "{}", expected_version=1)).version == 2


async def test_watcher_gets_the_newest_and_what_comes_after(policies: pb_grpc.PolicyServiceStub) -> None:
    call: Any = policies.WatchPolicy(pb.WatchPolicyRequest())
    assert not (await told(call)).HasField("policy")
    await stored(policies, "{}")
    assert (await told(call)).policy.version == 1
    later: Any = policies.WatchPolicy(pb.WatchPolicyRequest())
    assert (await told(later)).policy.version == 1
    call.cancel()
    later.cancel()


async def test_what_cannot_be_kept_is_refused(policies: pb_grpc.PolicyServiceStub) -> None:
    for request in (
        pb.StorePolicyRequest(document="x" * (MAX_DOCUMENT_BYTES + 1)),
        pb.StorePolicyRequest(document="{}", comment="c" * 501),
        pb.StorePolicyRequest(document="\0"),
    ):
        assert (await refusal(policies.StorePolicy(request))).reason == ErrorReason.ERROR_REASON_INVALID_REQUEST
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await policies.GetPolicy(pb.GetPolicyRequest(version=7))
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND


async def test_ledgers_that_share_the_books_tell_each_others_versions(postgresql_server: Server) -> None:
    shared = postgresql_server.new_database()
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(started(shared)) for _ in range(2)]
        call: Any = other.WatchPolicy(pb.WatchPolicyRequest())
        await told(call)
        await stored(one, '{"strategy": "cost"}')
        assert (await told(call)).policy.document == '{"strategy": "cost"}'
        call.cancel()


async def test_versions_outlive_the_ledger(place: Place) -> None:
    async with started(place) as stub:
        await stored(stub, "{}")
    async with started(place) as stub:
        call: Any = stub.WatchPolicy(pb.WatchPolicyRequest())
        assert (await told(call)).policy.version == 1
        call.cancel()
