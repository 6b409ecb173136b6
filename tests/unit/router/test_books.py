"""The router's end of the books holds each record until the ledger has it, whatever breaks in between."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.ledger.v1 import ledger_service_pb2 as pb
from joulegate.ledger.v1.ledger_service_pb2_grpc import LedgerServiceStub, add_LedgerServiceServicer_to_server
from services.router.books import Books, is_heard_within, open_books
from services.runtime.errors import GatewayError
from services.runtime.local import LocalChannel
from tests.contract.channels import new_mesh
from tests.fakes.ledger import PATIENCE_S, Conversation, FakeLedger

BROKEN = GatewayError(ErrorReason.ERROR_REASON_LEDGER_UNAVAILABLE, "the books cannot be written")


def refusal(request_id: str, param: str) -> GatewayError:
    return GatewayError(ErrorReason.ERROR_REASON_INVALID_REQUEST, "a bad record", {"request_id": request_id, "param": param})


@asynccontextmanager
async def opened(ledger: FakeLedger, wait_s: float = PATIENCE_S) -> AsyncIterator[Books]:
    mesh = new_mesh()
    add_LedgerServiceServicer_to_server(ledger, mesh.registry)
    async with open_books(LedgerServiceStub(LocalChannel(mesh.registry)), "router-1", wait_s) as books:
        yield books


@asynccontextmanager
async def talking(wait_s: float = PATIENCE_S) -> AsyncIterator[tuple[Books, FakeLedger, Conversation]]:
    """Books that are connected."""
    ledger = FakeLedger()
    async with opened(ledger, wait_s) as books:
        await books.ready()
        yield books, ledger, await ledger.conversation()


async def heard_ids(conversation: Conversation, count: int) -> list[str]:
    """The ids of so many records, intents before settlements where they came together."""
    ids: list[str] = []
    while len(ids) < count:
        request = await conversation.heard()
        ids += [intent.request_id for intent in request.intents] + [settlement.request_id for settlement in request.settlements]
    return ids


async def result_of(future: asyncio.Future[pb.SettlementAck | None]) -> pb.SettlementAck | None:
    return await asyncio.wait_for(future, PATIENCE_S)


async def test_intent_is_durable_when_it_is_acknowledged_and_not_before() -> None:
    async with talking() as (books, _, ledger):
        assert ledger.router_id == "router-1"
        intended = books.intend(pb.Intent(request_id="r"))
        request = await ledger.heard()
        assert not intended.done()
        ledger.acknowledge(request)
        await books.durable(intended)


async def test_settlement_gives_the_figures_that_were_booked() -> None:
    async with talking() as (books, _, ledger):
        settled = books.settle(pb.Settlement(request_id="r"))
        ledger.acknowledge(await ledger.heard(), cost_nano_usd=7)
        ack = await result_of(settled)
        assert ack is not None and ack.cost_nano_usd == 7


async def test_figures_that_are_late_are_not_waited_for_and_are_booked_all_the_same() -> None:
    async with talking() as (books, fake, ledger):
        settled = books.settle(pb.Settlement(request_id="late"))
        assert not await is_heard_within(settled, 0)
        left = books.settle(pb.Settlement(request_id="left"))
        waiting = asyncio.create_task(is_heard_within(left, PATIENCE_S))
        await heard_ids(ledger, 2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        # Whoever has waited, and however that ended: what is not acknowledged is said again.
        ledger.fail(BROKEN)
        again = await fake.conversation()
        request = await again.heard()
        assert [settlement.request_id for settlement in request.settlements] == ["late", "left"]
        again.acknowledge(request)
        await books.flushed(PATIENCE_S)
        assert not await is_heard_within(settled, PATIENCE_S)


async def test_only_what_was_not_acknowledged_is_said_again_after_a_break() -> None:
    async with talking() as (books, fake, ledger):
        first = books.settle(pb.Settlement(request_id="acknowledged"))
        ledger.acknowledge(await ledger.heard())
        await result_of(first)
        books.intend(pb.Intent(request_id="open"))
        settled = books.settle(pb.Settlement(request_id="unheard"))
        await heard_ids(ledger, 2)
        ledger.fail(BROKEN)
        again = await fake.conversation()
        request = await again.heard()
        assert [intent.request_id for intent in request.intents] == ["open"]
        assert [settlement.request_id for settlement in request.settlements] == ["unheard"]
        again.acknowledge(request)
        assert await result_of(settled) is not None


async def test_what_is_said_while_the_ledger_is_away_is_said_when_it_is_back() -> None:
    async with talking() as (books, fake, ledger):
        ledger.fail(BROKEN)
        while books.is_connected:
            await asyncio.sleep(0)
        intended, settled = books.intend(pb.Intent(request_id="a")), books.settle(pb.Settlement(request_id="b"))
        books.settle_soon(pb.Settlement(request_id="c"))
        back = await fake.conversation()
        request = await back.heard()
        assert ([each.request_id for each in request.intents], [each.request_id for each in request.settlements]) == (["a"], ["b", "c"])
        back.acknowledge(request)
        await books.durable(intended)
        await result_of(settled)


async def test_settlement_takes_its_intent_with_it() -> None:
    async with talking() as (books, fake, ledger):
        books.intend(pb.Intent(request_id="r"))
        settled = books.settle(pb.Settlement(request_id="r"))
        await heard_ids(ledger, 2)
        ledger.acknowledge(pb.BookRequest(settlements=[pb.Settlement(request_id="r")]))
        await result_of(settled)
        books.intend(pb.Intent(request_id="next"))
        ledger.fail(BROKEN)
        again = await fake.conversation()
        assert await heard_ids(again, 1) == ["next"]
        again.acknowledge(pb.BookRequest(intents=[pb.Intent(request_id="next")]))


async def test_refused_settlement_is_given_up_and_blocks_nothing() -> None:
    async with talking() as (books, fake, ledger):
        poison, good = books.settle(pb.Settlement(request_id="poison")), books.settle(pb.Settlement(request_id="good"))
        await heard_ids(ledger, 2)
        ledger.fail(refusal("poison", "settlements[0].attempts"))
        assert await result_of(poison) is None
        again = await fake.conversation()
        request = await again.heard()
        assert [settlement.request_id for settlement in request.settlements] == ["good"]
        again.acknowledge(request)
        assert await result_of(good) is not None


async def test_refused_intent_is_never_durable_and_its_settlement_is_booked_all_the_same() -> None:
    async with talking(wait_s=0.2) as (books, fake, ledger):
        intended = books.intend(pb.Intent(request_id="r"))
        await ledger.heard()
        settled = books.settle(pb.Settlement(request_id="r"))
        ledger.fail(refusal("r", "intents[0].max_output_tokens"))
        again = await fake.conversation()
        request = await again.heard()
        assert (len(request.intents), [settlement.request_id for settlement in request.settlements]) == (0, ["r"])
        again.acknowledge(request)
        assert await result_of(settled) is not None
        with pytest.raises(GatewayError):
            await books.durable(intended)


async def test_ledger_that_is_away_or_silent_too_long_refuses_the_request() -> None:
    ledger = FakeLedger()
    ledger.is_silent = True
    async with opened(ledger, wait_s=0.02) as books:
        for waiting in (books.ready(), books.durable(books.intend(pb.Intent(request_id="r")))):
            with pytest.raises(GatewayError) as refused:
                await waiting
            assert refused.value.reason == ErrorReason.ERROR_REASON_LEDGER_UNAVAILABLE
            assert refused.value.retry_after_s


async def test_ledger_that_is_far_behind_gets_no_more_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.router.books.MAX_HELD", 2)
    async with talking() as (books, _, ledger):
        for name in "ab":
            books.settle(pb.Settlement(request_id=name))
        with pytest.raises(GatewayError):
            await books.ready()
        assert await heard_ids(ledger, 2) == ["a", "b"]
        ledger.acknowledge(pb.BookRequest(settlements=[pb.Settlement(request_id=name) for name in "ab"]))
        await books.flushed(PATIENCE_S)
        await books.ready()


async def test_id_is_one_requests_until_the_ledger_has_its_settlement() -> None:
    async with talking() as (books, _, ledger):
        first, second, third = claimed = [books.claim("r") for _ in range(3)]
        assert first == "r"
        assert len({first, second, third}) == 3
        assert second.startswith("r~")
        settled = books.settle(pb.Settlement(request_id=first))
        for request_id in claimed:
            books.running.drop(request_id)
        while_unbooked = books.claim("r")
        assert while_unbooked != "r"
        books.running.drop(while_unbooked)
        ledger.acknowledge(await ledger.heard())
        await result_of(settled)
        assert books.claim("r") == "r"


async def test_hits_are_booked_in_company_and_soon() -> None:
    async with talking() as (books, _, ledger):
        began = asyncio.get_running_loop().time()
        for name in "abc":
            books.settle_soon(pb.Settlement(request_id=name))
        request = await ledger.heard()
        assert [settlement.request_id for settlement in request.settlements] == ["a", "b", "c"]
        # 50 ms are promised; a busy machine may add its own.
        assert asyncio.get_running_loop().time() - began < 1
        ledger.acknowledge(request)


async def test_company_leaves_with_whatever_is_in_a_hurry() -> None:
    async with talking() as (books, _, ledger):
        books.settle_soon(pb.Settlement(request_id="soon"))
        books.settle(pb.Settlement(request_id="now"))
        request = await ledger.heard()
        assert [settlement.request_id for settlement in request.settlements] == ["soon", "now"]
        ledger.acknowledge(request)


async def test_leaving_waits_for_the_last_acknowledgement() -> None:
    ledger = FakeLedger()

    async def acknowledge() -> None:
        conversation = await ledger.conversation()
        conversation.acknowledge(await conversation.heard())

    acknowledging = asyncio.create_task(acknowledge())
    async with opened(ledger) as books:
        await books.ready()
        settled = books.settle(pb.Settlement(request_id="last"))
    assert settled.done()
    await acknowledging


async def test_leaving_does_not_wait_for_ever() -> None:
    async with opened(FakeLedger(), wait_s=0.02) as books:
        settled = books.settle(pb.Settlement(request_id="last"))
    assert not settled.done()
