"""Messages wait for company where there may be some, and not otherwise."""

import asyncio

import pytest

from services.runtime.outbox import ALONE_S, BURST, SPACING_S, Outbox, Spacing


def sent(spacing: Spacing, seconds: float, callers: int | None) -> int:
    """How many messages leave in a time, if there is always something to say."""
    now, count = 100.0, 0
    while now < 100.0 + seconds:
        now += spacing.wait_s(now, callers)
        count += 1
    return count


def test_caller_who_is_alone_does_not_wait_between_requests() -> None:
    spacing = Spacing()
    assert [spacing.wait_s(number * 0.001, 1) for number in range(1000)] == [pytest.approx(0, abs=1e-9)] * 1000


@pytest.mark.parametrize(("callers", "most_s"), [(64, SPACING_S), (None, SPACING_S), (64, 0.012)])
def test_many_callers_share_their_messages(callers: int | None, most_s: float) -> None:
    assert sent(Spacing(most_s), 1.0, callers) == pytest.approx(1 / most_s + BURST, abs=2)


def test_the_more_callers_there_are_the_fewer_messages_they_send() -> None:
    counts = [sent(Spacing(), 1.0, callers) for callers in (1, 2, 4, 8, 16)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == pytest.approx(1 / ALONE_S, abs=BURST + 2)


def test_quiet_stream_lets_few_messages_go_at_once() -> None:
    spacing = Spacing()
    waits = [spacing.wait_s(50.0, 64) for _ in range(BURST + 1)]
    assert waits[:BURST] == [0.0] * BURST
    assert waits[BURST] > 0


def test_message_that_did_not_wait_delays_the_next_by_one_spacing_at_most() -> None:
    spacing = Spacing(0.012)
    waits = [spacing.wait_s(50.0, 64) for _ in range(100)]
    assert max(waits) == pytest.approx(0.012)


async def test_company_that_is_enough_leaves_at_once() -> None:
    outbox: Outbox[int] = Outbox(lambda: 64, Spacing(most_s=3600, each_s=3600), enough=3)
    for number in range(BURST):
        outbox.put(number)
        assert await outbox.batch() == [number]
    taking = asyncio.create_task(outbox.batch())
    for number in range(3):
        assert not (await asyncio.wait([taking], timeout=0))[0]
        outbox.put_within(3600, number)
    assert await asyncio.wait_for(taking, 30) == [0, 1, 2]


async def test_what_is_said_in_the_same_breath_is_one_message() -> None:
    outbox: Outbox[str] = Outbox(lambda: 1)
    taking = asyncio.create_task(outbox.batch())
    await asyncio.sleep(0)
    outbox.put("answer")
    asyncio.get_running_loop().call_soon(outbox.put, "end")
    assert await taking == ["answer", "end"]


async def test_closed_outbox_gives_what_is_left_and_then_nothing() -> None:
    outbox: Outbox[str] = Outbox()
    outbox.put("last")
    outbox.close()
    assert [await outbox.batch(), await outbox.batch()] == [["last"], []]
