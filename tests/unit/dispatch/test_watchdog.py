"""Deadlines over one timer."""

import asyncio

import pytest

from services.dispatch.watchdog import Watchdog


def soon(seconds: float = 0.01) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_a_wait_ends_at_its_deadline() -> None:
    watchdog = Watchdog()
    with pytest.raises(TimeoutError), watchdog.until(soon()):
        await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_what_ends_in_time_is_left_alone() -> None:
    watchdog = Watchdog()
    with watchdog.until(soon(60)):
        await asyncio.sleep(0)
    watchdog.close()


async def test_between_waits_nobody_is_bitten() -> None:
    watchdog = Watchdog()
    with watchdog.until(soon(0.005)):
        pass
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, passed.set)
    await passed.wait()
    with pytest.raises(TimeoutError), watchdog.until(soon()):
        await asyncio.Event().wait()


async def test_a_later_deadline_does_not_need_a_new_timer_but_holds() -> None:
    watchdog = Watchdog()
    with watchdog.until(soon(0.005)):
        pass
    started = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError), watchdog.until(started + 0.03):
        await asyncio.Event().wait()
    assert asyncio.get_running_loop().time() - started >= 0.029


async def test_an_earlier_deadline_holds() -> None:
    watchdog = Watchdog()
    with watchdog.until(soon(60)):
        pass
    async with asyncio.timeout(30):
        with pytest.raises(TimeoutError), watchdog.until(soon()):
            await asyncio.Event().wait()


async def test_a_cancellation_from_outside_stays_one() -> None:
    waiting = asyncio.Event()

    async def wait() -> None:
        with Watchdog().until(soon(60)):
            waiting.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_other_errors_pass() -> None:
    with pytest.raises(ValueError, match="x"), Watchdog().until(soon(60)):
        raise ValueError("x")
