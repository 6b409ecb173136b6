"""The routing policy in force: as configured, until the ledger tells of a version that an operator has stored."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc

from joulegate.ledger.v1 import policy_service_pb2 as pb
from joulegate.ledger.v1 import policy_service_pb2_grpc as pb_grpc
from services.router import metrics
from services.router.policy import RoutingPolicy, parse
from services.runtime import logs
from services.runtime.settings import SettingsError

log = logs.get(__name__)

RETRY_S: Final = 0.2
# Puts a policy into force: the policy, the document that it was read from, and its version.
Apply = Callable[[RoutingPolicy, Mapping[str, Any], int], None]


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """A policy and where it comes from."""

    policy: RoutingPolicy
    # Counts from 1 in the ledger; 0 for what is configured.
    version: int
    document: Mapping[str, Any]
    # In seconds since 1970; None for what is configured.
    created_at: float | None = None
    comment: str = ""


class LivePolicy:
    """Made by `open_policy`, which keeps it fresh. While the ledger is away the last version holds."""

    def __init__(self, stub: pb_grpc.PolicyServiceStub, configured: PolicyVersion, apply: Apply) -> None:
        self._stub = stub
        self._apply = apply
        self.newest = configured

    async def keep_watching(self) -> None:
        """Runs until cancelled."""
        while True:
            try:
                async for response in self._stub.WatchPolicy(pb.WatchPolicyRequest()):
                    if response.HasField("policy"):
                        self.take_in(response.policy)
            except grpc.aio.AioRpcError as error:
                log.debug("policy_watch_broke", reason=error.details())
            await asyncio.sleep(RETRY_S)

    def take_in(self, stored: pb.Policy) -> PolicyVersion:
        """Puts a newer version into force; one that this router cannot read, as a newer program may store, leaves the one that holds."""
        if stored.version > self.newest.version:
            try:
                self.newest = read_version(stored)
            except SettingsError as error:
                log.error("policy_not_understood", version=stored.version, problems=error.problems)
            else:
                self._apply(self.newest.policy, self.newest.document, stored.version)
                metrics.POLICY_VERSION.set(stored.version)
                log.info("policy_in_force", version=stored.version)
        return self.newest


def read_version(stored: pb.Policy) -> PolicyVersion:
    """A version as the ledger keeps it. Raises SettingsError when it makes no sense here."""
    document = json.loads(stored.document)
    return PolicyVersion(parse(document), stored.version, document, stored.create_time.ToNanoseconds() / 1e9, stored.comment)


@asynccontextmanager
async def open_policy(stub: pb_grpc.PolicyServiceStub, configured: PolicyVersion, apply: Apply) -> AsyncIterator[LivePolicy]:
    """A policy that hears of new versions while entered; `apply` is given each that comes into force."""
    live = LivePolicy(stub, configured, apply)
    keeper = asyncio.create_task(live.keep_watching())
    try:
        yield live
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
