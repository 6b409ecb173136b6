"""A ledger that is killed between grants and settlements: what was granted is still held, and nothing beyond the limit ever was."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from joulegate.ledger.v1 import admin_service_pb2 as admin_pb
from joulegate.ledger.v1 import admin_service_pb2_grpc, budget_pb2, ledger_service_pb2_grpc
from joulegate.ledger.v1 import ledger_service_pb2 as pb
from services.ledger.budget_changes import discrepancies
from services.ledger.engines import Place, open_engine
from tests.contract.test_budgets import ADMIN, asking
from tests.contract.test_ledger_killed import PATIENCE_S, ledger_process
from tests.unit.ledger.samples import settlement

GRANTS = 20


@asynccontextmanager
async def stream(channel: grpc.aio.Channel) -> AsyncIterator[Any]:
    call: Any = ledger_service_pb2_grpc.LedgerServiceStub(channel).Book(wait_for_ready=True, timeout=PATIENCE_S)
    await call.write(pb.BookRequest(hello=pb.Hello(router_id="router")))
    assert (await call.read()).HasField("ready")
    yield call
    call.cancel()


async def read(call: Any, count: int) -> list[pb.BookResponse]:
    """The answers to so many records."""
    responses: list[pb.BookResponse] = []
    while sum(len(each.grants) + len(each.denials) + len(each.settlement_acks) for each in responses) < count:
        response = await call.read()
        assert response is not grpc.aio.EOF
        responses.append(response)
    return responses


async def test_grants_of_a_killed_ledger_are_held_and_settled_by_the_next(place: Place, tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'l.sock'}"
    requests = [asking(f"r{number}") for number in range(2 * GRANTS)]
    granted: set[str] = set()
    async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        admin = admin_service_pb2_grpc.AdminServiceStub(channel)
        async with ledger_process(place, address, ADMIN_API_KEY="key") as process:
            budget = budget_pb2.Budget(scope=budget_pb2.BUDGET_SCOPE_GLOBAL, measure=budget_pb2.BUDGET_MEASURE_TOKENS, limit=140 * GRANTS)
            budget.window = budget_pb2.BUDGET_WINDOW_MONTH
            for each in requests:
                each.create_time.GetCurrentTime()
            made = await admin.CreateBudget(admin_pb.CreateBudgetRequest(budget=budget), metadata=ADMIN, wait_for_ready=True)
            async with stream(channel) as call:
                for each in requests[: GRANTS // 2]:
                    await call.write(pb.BookRequest(intents=[each]))
                granted.update(grant.request_id for response in await read(call, GRANTS // 2) for grant in response.grants)
                # These may be granted or not when it dies.
                await call.write(pb.BookRequest(intents=requests[GRANTS // 2 :]))
                process.send_signal(signal.SIGKILL)
                await process.wait()
        async with ledger_process(place, address, ADMIN_API_KEY="key"), stream(channel) as call:
            # The router repeats what it has no answer to, and some that it has.
            await call.write(pb.BookRequest(intents=requests[GRANTS // 4 :]))
            answers = await read(call, len(requests) - GRANTS // 4)
            granted.update(grant.request_id for response in answers for grant in response.grants)
            assert len(granted) == GRANTS
            wanted = admin_pb.GetBudgetRequest(budget_id=made.usage.budget.budget_id)
            usage = (await admin.GetBudget(wanted, metadata=ADMIN)).usage
            assert (usage.spent, usage.held, usage.remaining) == (0, 140 * GRANTS, 0)
            settled = [settlement(each.request_id, create_time=each.create_time) for each in requests if each.request_id in granted]
            await call.write(pb.BookRequest(settlements=settled))
            await read(call, GRANTS)
            usage = (await admin.GetBudget(wanted, metadata=ADMIN)).usage
            assert (usage.spent, usage.held) == (140 * GRANTS, 0)
    engine = open_engine(place, "full", read_only=True)
    with engine.connect() as connection:
        assert list(discrepancies(connection, requests[0].create_time.ToNanoseconds())) == []
    engine.dispose()
