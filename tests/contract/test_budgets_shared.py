"""Allowances that routers spend by themselves, and ledgers that share what there is to spend."""

import asyncio
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa

from joulegate.ledger.v1 import admin_service_pb2 as admin_pb
from joulegate.ledger.v1 import budget_pb2, key_pb2
from joulegate.ledger.v1 import reservation_pb2 as reservation_pb
from joulegate.ledger.v1.entry_pb2 import TokenCounts
from services.ledger import stream
from services.ledger.engines import Place
from services.ledger.limits import Limits
from services.ledger.rate_windows import RateLimits
from services.ledger.schema import intents as intents_table
from tests.contract.test_budgets import (
    ADMIN,
    INPUT_NANO_USD,
    OUTPUT_NANO_USD,
    USD,
    Listener,
    asking,
    caught_up,
    denied,
    faults,
    granted,
    new_budget,
    used,
)
from tests.contract.test_ledger import PATIENCE_S, Ledger, Router, started
from tests.unit.ledger.samples import attempt, intent, settlement


async def test_caller_whom_nothing_limits_gets_a_lease_for_everything(place: Place) -> None:
    async with started(place, "local") as ledger, Listener(ledger) as router:
        lease = (await granted(router, asking("r", wants_lease=True))).lease
        assert (lease.lease_id, lease.key_id, lease.lifetime.seconds) == ("unlimited", "k1", 5)
        assert not any(lease.HasField(name) for name in ("nano_usd", "tokens", "microjoules", "micrograms", "requests", "rate_tokens"))


async def test_new_budget_is_answered_when_nobody_is_let_in_any_more_under_older_leases(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "LIFETIME_S", 600)
    async with started(place, "local") as ledger, (router := Listener(ledger)), Listener(ledger, "without") as without:
        lease = (await granted(router, asking("r", wants_lease=True))).lease
        await granted(without, asking("s"))
        making = asyncio.create_task(new_budget(ledger, 1000))
        async with asyncio.timeout(PATIENCE_S):
            # Requests that were let in before the word of it came.
            for number in count():
                await router.book(intent(f"late-{number}", lease_id=lease.lease_id))
                if router.revocation:
                    break
            assert not making.done()
            for number in count():
                await router.send(heeded_revocation=router.revocation)
                await router.book(intent(f"counted-{number}"))
                if making.done():
                    break


async def test_new_budget_holds_what_runs_already_under_a_lease_for_everything(place: Place) -> None:
    async with started(place, "local") as ledger, Listener(ledger) as router:
        free = (await granted(router, asking("free", wants_lease=True))).lease.lease_id
        await router.book(
            intent("bounded", key_id="k1", lease_id=free, max_output_tokens=60),
            intent("unbounded", key_id="k1", lease_id=free),
            intent("somebody's", key_id="k2", lease_id=free, max_output_tokens=60),
        )
        own = await new_budget(ledger, 10_000, scope=budget_pb2.BUDGET_SCOPE_KEY, scope_id="k1")
        assert await used(ledger, own) == (0, 140 + 160 + 4196)
        everybody, usd = await new_budget(ledger, 4196 + 160 + 160 + 140), await new_budget(ledger, 10**9, USD)
        assert await used(ledger, everybody) == (0, 140 + 160 + 4196 + 160)
        assert await used(ledger, usd) == (0, 100 * 4 * INPUT_NANO_USD + (40 + 60 + 4096 + 60) * OUTPUT_NANO_USD)
        # What they may take is nobody else's.
        assert (await denied(router, asking("late"))).budget.budget_id == everybody
        # A router that had not heard of it yet let this one in, too.
        await router.book(intent("late", key_id="k1", lease_id=free, max_output_tokens=10))
        assert await used(ledger, own) == (0, 140 + 160 + 4196 + 110)
        assert faults(ledger) == []
        await router.book(*(settlement(request_id, key_id="k1") for request_id in ("free", "bounded", "unbounded", "late")))
        assert (await used(ledger, own), await used(ledger, everybody)) == ((4 * 140, 0), (4 * 140, 160))
        assert faults(ledger) == []


async def test_key_that_joins_a_team_takes_along_what_runs_already(place: Place) -> None:
    async with started(place, "local") as ledger, Listener(ledger) as router:
        created = await ledger.admin.CreateKey(admin_pb.CreateKeyRequest(key=key_pb2.ApiKey(name="n")), metadata=ADMIN)
        key_id = created.key.key_id
        team = await new_budget(ledger, 1000, scope=budget_pb2.BUDGET_SCOPE_TEAM, scope_id="a")
        await router.book(intent("r", key_id=key_id, max_output_tokens=40))
        assert await used(ledger, team) == (0, 0)
        await ledger.admin.UpdateKey(admin_pb.UpdateKeyRequest(key=key_pb2.ApiKey(key_id=key_id, team="a")), metadata=ADMIN)
        assert await used(ledger, team) == (0, 140)
        await router.book(settlement("r", key_id=key_id))
        assert await used(ledger, team) == (140, 0)
        assert faults(ledger) == []


async def test_router_that_heeds_nothing_is_waited_for_until_its_leases_are_over(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LIFETIME_S", 0.05)
    async with started(place, "local") as ledger, Router(ledger) as router:
        await granted(router, asking("r", wants_lease=True))
        await asyncio.wait_for(new_budget(ledger, 1000), PATIENCE_S)


async def lease_of(router: Router) -> reservation_pb.Lease:
    """The lease that a busy caller gets."""
    for number in range(20):
        grant = await granted(router, asking(f"busy-{number}", wants_lease=True))
        await router.book(settlement(f"busy-{number}"))
        if grant.HasField("lease"):
            return grant.lease
    raise AssertionError("no lease")


async def test_lease_is_held_taken_over_by_intents_and_given_back(place: Place) -> None:
    limits = Limits(RateLimits(requests_per_minute=1000, tokens_per_minute=1_000_000))
    async with started(place, "local", limits=limits) as ledger, Listener(ledger) as router:
        budget = await new_budget(ledger, 100_000)
        lease = await lease_of(router)
        spent, held = await used(ledger, budget)
        assert held == lease.tokens >= 280
        assert lease.tokens <= (100_000 - spent) // 20
        assert lease.requests >= 2
        [target] = lease.targets
        assert (target.provider, target.model, target.per_million_input_tokens.nano_usd) == ("openai", "gpt-4o", INPUT_NANO_USD * 10**6)
        own: dict[str, Any] = {
            "key_id": "k1",
            "lease_id": lease.lease_id,
            "held": reservation_pb.Amounts(tokens=140),
            "max_output_tokens": 40,
        }
        await router.book(intent("leased", **own))
        assert await used(ledger, budget) == (spent, held)
        # It counts once, as held, as the grant of another request shows.
        await router.book(settlement("leased", attempt(tokens=TokenCounts(input_tokens=100, output_tokens=10))))
        assert await used(ledger, budget) == (spent + 110, held - 140)
        assert faults(ledger) == []
        await router.send(returned_lease_ids=[lease.lease_id])
        await caught_up(router)
        assert await used(ledger, budget) == (spent + 110, 0)
        assert faults(ledger) == []


async def test_lease_of_a_router_that_is_gone_and_one_that_is_old_are_freed(place: Place) -> None:
    async with started(place, "local") as ledger, Listener(ledger, "other") as other:
        budget = await new_budget(ledger, 100_000)
        async with Listener(ledger, "dead") as dead:
            lease = await lease_of(dead)
            await dead.done()
            await dead.end()
        await ledger.books.expire()
        ledger.clock.time += 10
        await ledger.books.sweep()
        await caught_up(other)
        assert (await used(ledger, budget))[1] == 0
        lease = await lease_of(other)
        assert (await used(ledger, budget))[1] == lease.tokens
        await ledger.books.expire()
        ledger.clock.time += 14
        await ledger.books.expire()
        await caught_up(other)
        assert (await used(ledger, budget))[1] == lease.tokens
        ledger.clock.time += 2
        await ledger.books.expire()
        await caught_up(other)
        assert (await used(ledger, budget))[1] == 0


async def test_leases_outlive_the_ledger_that_gave_them(place: Place) -> None:
    async with started(place, "local") as ledger, Listener(ledger) as router:
        budget = await new_budget(ledger, 100_000)
        lease = await lease_of(router)
        spent, held = await used(ledger, budget)
    async with started(place, "local") as ledger, Listener(ledger) as router:
        assert await used(ledger, budget) == (spent, held)
        own: dict[str, Any] = {"key_id": "k1", "lease_id": lease.lease_id, "held": reservation_pb.Amounts(tokens=140)}
        await router.book(intent("leased", **own))
        assert await used(ledger, budget) == (spent, held)
        assert faults(ledger) == []


async def test_nothing_is_leased_near_the_limit(place: Place) -> None:
    async with started(place, "local") as ledger, Listener(ledger) as router:
        await new_budget(ledger, 5000)
        with pytest.raises(AssertionError, match="no lease"):
            await lease_of(router)


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
async def test_two_ledgers_on_the_same_books_grant_no_more_than_one_would(place: Place) -> None:
    async with started(place, "local") as here, started(place, "local") as there:
        budget = await new_budget(here, 140 * 25)

        async def flood(ledger: Ledger, name: str) -> int:
            async with Listener(ledger, name) as router:
                await router.send(intents=[asking(f"{name}-{number}", wants_lease=number % 2 == 0) for number in range(20)])
                first = len((await router.receive()).grants)
                return first + sum([len((await router.book(asking(f"{name}-{number}"))).grants) for number in range(20, 30)])

        granted_count = sum(await asyncio.gather(flood(here, "a"), flood(there, "b"), flood(here, "c"), flood(there, "d")))
        assert granted_count == 25
        assert await used(there, budget) == (0, 140 * 25)
        async with Listener(there, "e") as router:
            # A grant of one ledger is settled at the other.
            assert (await there.totals()).open_intent_count == 25
            for name in "abcd":
                granted_ids = [request_id for number in range(30) if await is_open(there, request_id := f"{name}-{number}")]
                if granted_ids:
                    await router.book(*map(settlement, granted_ids))
        assert await used(here, budget) == (140 * 25, 0)
        assert faults(here) == []


async def is_open(ledger: Ledger, request_id: str) -> bool:
    with ledger.writer_engine.connect() as connection:
        return bool(connection.scalar(sa.select(sa.func.count()).where(intents_table.c.request_id == request_id)))


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
async def test_rates_hold_over_two_ledgers(place: Place) -> None:
    limits = Limits(RateLimits(requests_per_minute=10, capacity=100, refill_per_s=1.0))
    async with (
        started(place, "local", limits=limits) as here,
        started(place, "local", limits=limits) as there,
        Listener(here, "a") as a,
        Listener(there, "b") as b,
    ):
        answers = [await (a, b)[number % 2].book(asking(f"{number}")) for number in range(8)]
        assert sum(len(answer.grants) for answer in answers) == 8
        answers = [await (a, b)[number % 2].book(asking(f"more-{number}")) for number in range(6)]
        assert sum(len(answer.grants) for answer in answers) == 2
        assert answers[-1].denials[0].rates.requests.remaining == 0
