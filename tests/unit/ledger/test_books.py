"""Group commit: what queued during a commit is the next one, and each stream hears of it in one message."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from prometheus_client import REGISTRY

from joulegate.ledger.v1 import ledger_service_pb2 as pb
from services.ledger import metrics
from services.ledger.books import Books
from services.ledger.engines import Place
from services.ledger.store import open_books
from services.ledger.stream import RouterStream
from tests.unit.ledger.samples import HeldClock, intent, new_figurer, settlement


@asynccontextmanager
async def stopped_books(place: Place) -> AsyncIterator[Books]:
    """Books whose writer has not started yet."""
    with open_books(place, "full") as (writer, _), ThreadPoolExecutor(1) as thread:
        yield Books(writer, new_figurer(), thread, HeldClock(), 10)


@asynccontextmanager
async def running(books: Books) -> AsyncIterator[None]:
    task = asyncio.create_task(books.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def committed() -> float:
    return REGISTRY.get_sample_value("joulegate_ledger_commits_total", {"result": "committed"}) or 0.0


async def next_answer(stream: RouterStream) -> pb.BookResponse:
    return await asyncio.wait_for(anext(aiter(stream)), 30)


async def test_what_queued_is_one_commit_and_one_message_for_each_stream(place: Place) -> None:
    async with stopped_books(place) as books:
        one, other = books.open("one"), books.open("other")
        for number in range(5):
            await books.take(one, pb.BookRequest(intents=[intent(f"i{number}")]))
        await books.take(other, pb.BookRequest(settlements=[settlement("s1"), settlement("s2")]))
        commits = committed()
        async with running(books):
            answer, others = await next_answer(one), await next_answer(other)
        assert [ack.request_id for ack in answer.intent_acks] == [f"i{number}" for number in range(5)]
        assert [ack.request_id for ack in others.settlement_acks] == ["s1", "s2"]
        assert committed() == commits + 1


async def test_full_queue_holds_the_stream_instead_of_growing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.ledger.books.MAX_QUEUED_MESSAGES", 2)
    async with stopped_books(place) as books:
        stream = books.open("one")
        for number in range(2):
            await books.take(stream, pb.BookRequest(intents=[intent(f"i{number}")]))
        third = asyncio.create_task(books.take(stream, pb.BookRequest(intents=[intent("i2")])))
        done, _ = await asyncio.wait([third], timeout=0)
        assert not done
        async with running(books):
            acks = [ack.request_id for _ in range(2) for ack in (await next_answer(stream)).intent_acks]
        assert acks == ["i0", "i1", "i2"]


async def test_open_intents_are_shown(place: Place) -> None:
    async with stopped_books(place) as books:
        stream = books.open("one")
        before = metrics.OPEN_INTENTS._value.get()
        async with running(books):
            await books.take(stream, pb.BookRequest(intents=[intent("a"), intent("b")]))
            await next_answer(stream)
            assert metrics.OPEN_INTENTS._value.get() == before + 2
            await books.take(stream, pb.BookRequest(settlements=[settlement("a")]))
            await next_answer(stream)
            assert metrics.OPEN_INTENTS._value.get() == before + 1


def test_energy_buckets_run_from_a_millijoule_to_a_megajoule() -> None:
    bounds = metrics.ENERGY_JOULES._bounds
    assert bounds[0] == 0.001
    assert bounds[-1] == 1e6
    assert all(after / before == pytest.approx(2.5) for before, after in pairwise(bounds[:-1]))
