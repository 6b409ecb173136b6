"""What is let in and what is not: budgets, limits and leases over the routers' stream, on both stores."""

from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.ledger.v1 import admin_service_pb2 as admin_pb
from joulegate.ledger.v1 import budget_pb2, key_pb2
from joulegate.ledger.v1 import ledger_service_pb2 as pb
from joulegate.ledger.v1 import reservation_pb2 as reservation_pb
from joulegate.ledger.v1.entry_pb2 import TokenCounts
from services.ledger.budget_changes import discrepancies
from services.ledger.engines import Place
from services.ledger.limits import Limits
from services.ledger.rate_windows import RateLimits
from services.runtime.errors import GatewayError
from tests.contract.test_ledger import Ledger, Router, started
from tests.unit.ledger.samples import BEGAN, attempt, hit, intent, settlement

ADMIN = (("authorization", "Bearer key"),)
TOKENS, USD = budget_pb2.BUDGET_MEASURE_TOKENS, budget_pb2.BUDGET_MEASURE_USD
# gpt-4o, as the books have it.
INPUT_NANO_USD, OUTPUT_NANO_USD = 2500, 10_000


class Listener(Router):
    """A router that notes how often it is told that its leases are over, and reads on."""

    revocations = 0
    # The newest.
    revocation = 0

    async def receive(self) -> pb.BookResponse:
        while (response := await super().receive()).leases_revoked:
            self.revocations += 1
            self.revocation = response.revocation
        return response


async def new_budget(ledger: Ledger, limit: int, measure: Any = TOKENS, **fields: Any) -> str:
    given: dict[str, Any] = {"scope": budget_pb2.BUDGET_SCOPE_GLOBAL, "window": budget_pb2.BUDGET_WINDOW_MONTH}
    budget = budget_pb2.Budget(measure=measure, limit=limit, **(given | fields))
    created = await ledger.admin.CreateBudget(admin_pb.CreateBudgetRequest(budget=budget), metadata=ADMIN)
    return created.usage.budget.budget_id


async def usage(ledger: Ledger, budget_id: str) -> budget_pb2.BudgetUsage:
    return (await ledger.admin.GetBudget(admin_pb.GetBudgetRequest(budget_id=budget_id), metadata=ADMIN)).usage


async def used(ledger: Ledger, budget_id: str) -> tuple[int, int]:
    """Spent and held."""
    found = await usage(ledger, budget_id)
    return found.spent, found.held


def asking(request_id: str, calls: int = 1, answers: int = 1, wants_lease: bool = False, **fields: Any) -> pb.Intent:
    """An intent with wishes: 100 tokens in, 40 out, for gpt-4o."""
    wishes = reservation_pb.Wishes(
        targets=[reservation_pb.Target(provider="openai", model="gpt-4o")],
        call_count=calls,
        answer_count=answers,
        wants_lease=wants_lease,
    )
    return intent(request_id, **({"key_id": "k1", "max_output_tokens": 40, "wishes": wishes} | fields))


async def asked(router: Router, *intents: pb.Intent) -> pb.BookResponse:
    return await router.book(*intents)


async def granted(router: Router, request: pb.Intent) -> reservation_pb.Grant:
    [grant] = (await router.book(request)).grants
    return grant


async def denied(router: Router, request: pb.Intent) -> reservation_pb.Denial:
    [denial] = (await router.book(request)).denials
    return denial


async def caught_up(router: Router) -> None:
    """Waits for the commit of all that was queued so far."""
    await router.send(releases=[reservation_pb.Release(request_id="nobody's", create_time=BEGAN)])
    assert (await router.receive()).release_acks


def faults(ledger: Ledger) -> list[str]:
    """Balances that differ from what the books come to."""
    with ledger.writer_engine.connect() as connection:
        return list(discrepancies(connection, int(ledger.clock.now() * 1e9)))


async def test_reservation_holds_the_worst_case_until_its_settlement_books_what_was_taken(place: Place) -> None:
    async with started(place, "local") as ledger, Listener(ledger) as router:
        tokens, usd = await new_budget(ledger, 10_000), await new_budget(ledger, 10**9, USD)
        grant = await granted(router, asking("r", calls=3, answers=2))
        assert (grant.request_id, grant.max_output_tokens, grant.call_count) == ("r", 40, 3)
        assert await used(ledger, tokens) == (0, 3 * 100 + 2 * 40)
        assert await used(ledger, usd) == (0, 3 * 100 * INPUT_NANO_USD + 2 * 40 * OUTPUT_NANO_USD)
        await router.book(settlement("r"))
        assert await used(ledger, tokens) == (140, 0)
        assert await used(ledger, usd) == (100 * INPUT_NANO_USD + 40 * OUTPUT_NANO_USD, 0)
        assert faults(ledger) == []


async def test_model_without_a_price_is_refused_where_the_operator_wants_that(place: Place) -> None:
    unpriced = reservation_pb.Target(provider="lab", model="nobody-knows")
    either = reservation_pb.Wishes(
        targets=[reservation_pb.Target(provider="openai", model="gpt-4o"), unpriced], call_count=1, answer_count=1
    )
    async with started(place, "local") as ledger, Listener(ledger) as router:
        await granted(router, asking("allowed", wishes=either))
        ledger.figurer.denies_unpriced = True
        denial = await denied(router, asking("r", wishes=either))
        assert denial.price.target == unpriced
        assert denial.message == "No price is known of 'nobody-knows' at 'lab', and requests that may go there are refused."
        assert not denial.HasField("retry_after")
        # Nobody gets a lease, under which the ledger would not be asked.
        grant = await granted(router, asking("priced", wants_lease=True))
        assert not grant.HasField("lease")
        cached = reservation_pb.Wishes(targets=[reservation_pb.Target()], holds_nothing=True, wants_lease=True)
        assert not (await granted(router, asking("cached", wishes=cached))).HasField("lease")
        assert (await ledger.totals()).open_intent_count == 2


async def test_grant_is_durable_and_the_same_when_asked_again_by_whomever(place: Place) -> None:
    async with started(place, "local") as ledger, Listener(ledger, "one") as router:
        budget = await new_budget(ledger, 200)
        before = await granted(router, asking("r"))
        # There is no room for another one of it, and none is needed.
        assert (await granted(router, asking("r"))).held == before.held
    async with started(place, "local") as ledger, Listener(ledger, "two") as router:
        again = await granted(router, asking("r"))
        assert (again.max_output_tokens, again.call_count, again.held) == (before.max_output_tokens, before.call_count, before.held)
        assert await used(ledger, budget) == (0, 140)
        assert (await ledger.totals()).open_intent_count == 1


async def test_near_the_limit_fewer_calls_then_shorter_answers_then_none(place: Place) -> None:
    async with started(place, "local") as ledger, Listener(ledger) as router:
        budget = await new_budget(ledger, 400)
        fewer = await granted(router, asking("fewer", calls=5, max_output_tokens=100))
        assert (fewer.call_count, fewer.max_output_tokens) == (3, 100)
        await router.book(settlement("fewer", attempt(tokens=TokenCounts(input_tokens=100, output_tokens=160))))
        shorter = await granted(router, asking("shorter", max_output_tokens=100))
        assert (shorter.call_count, shorter.max_output_tokens) == (1, 40)
        assert await used(ledger, budget) == (260, 140)
        denial = await denied(router, asking("none"))
        assert (denial.request_id, denial.budget.budget_id, denial.budget.measure) == ("none", budget, TOKENS)
        # Only running requests are in the way.
        assert denial.retry_after.seconds == 1
        await router.book(settlement("shorter"))
        denial = await denied(router, asking("none"))
        # BEGAN is in November 2023.
        assert denial.budget.reset_time.seconds == 1_701_388_800
        assert denial.retry_after.seconds == 1_701_388_800 - BEGAN.seconds
        assert "2023-12-01T00:00:00Z" in denial.message
        assert await used(ledger, budget) == (400, 0)
        assert faults(ledger) == []


async def test_all_levels_are_held_together_or_none(place: Place) -> None:
    async with started(place, "local") as ledger, Listener(ledger) as router:
        terms = key_pb2.ApiKey(name="n", team="t", organisation="o", monthly_token_budget=1000)
        key = (await ledger.admin.CreateKey(admin_pb.CreateKeyRequest(key=terms), metadata=ADMIN)).key
        team = await new_budget(ledger, 300, scope=budget_pb2.BUDGET_SCOPE_TEAM, scope_id="t")
        organisation = await new_budget(ledger, 500, scope=budget_pb2.BUDGET_SCOPE_ORGANISATION, scope_id="o")
        everybody = await new_budget(ledger, 10_000)
        levels = [f"{key.key_id}.monthly-tokens", team, organisation, everybody]
        await granted(router, asking("a", key_id=key.key_id))
        await granted(router, asking("b", key_id=key.key_id))
        denial = await denied(router, asking("c", key_id=key.key_id))
        assert (denial.budget.budget_id, denial.budget.scope) == (team, budget_pb2.BUDGET_SCOPE_TEAM)
        assert [await used(ledger, level) for level in levels] == [(0, 280)] * 4
        await granted(router, asking("stranger"))
        assert [await used(ledger, level) for level in levels] == [(0, 280)] * 3 + [(0, 420)]
        assert faults(ledger) == []


async def test_budget_counts_what_is_booked_and_held_when_it_is_made(place: Place) -> None:
    async with started(place, "local") as ledger, Listener(ledger) as router:
        await router.book(settlement("booked"), settlement("hit", hit()))
        await granted(router, asking("held"))
        budget = await new_budget(ledger, 1000)
        day = await new_budget(ledger, 1000, window=budget_pb2.BUDGET_WINDOW_DAY)
        rolling = await new_budget(ledger, 1000, window=budget_pb2.BUDGET_WINDOW_ROLLING, rolling_window={"seconds": 3600})
        assert [await used(ledger, each) for each in (budget, day, rolling)] == [(140, 140)] * 3
        await router.book(settlement("held"))
        assert [await used(ledger, each) for each in (budget, day, rolling)] == [(280, 0)] * 3
        assert faults(ledger) == []


async def test_request_that_is_taken_back_with_its_wishes_holds_nothing(place: Place) -> None:
    """A client that leaves at once: both come in one message, or in one commit."""
    async with started(place, "local") as ledger, Listener(ledger) as router:
        budget = await new_budget(ledger, 1000)
        await router.send(intents=[asking("a")], releases=[reservation_pb.Release(request_id="a", create_time=BEGAN)])
        while not (await router.receive()).release_acks:
            pass
        assert await used(ledger, budget) == (0, 0)
        assert (await ledger.totals()).open_intent_count == 0


async def test_key_that_changes_teams_takes_its_spending_along(place: Place) -> None:
    async with started(place, "local") as ledger, (listener := Listener(ledger)) as router:
        terms = key_pb2.ApiKey(name="n", team="a")
        key = (await ledger.admin.CreateKey(admin_pb.CreateKeyRequest(key=terms), metadata=ADMIN)).key
        a, b = [await new_budget(ledger, 1000, scope=budget_pb2.BUDGET_SCOPE_TEAM, scope_id=team) for team in "ab"]
        await router.book(settlement("r", key_id=key.key_id))
        await granted(router, asking("s", key_id=key.key_id))
        assert (await used(ledger, a), await used(ledger, b)) == ((140, 140), (0, 0))
        change = admin_pb.UpdateKeyRequest(key=key_pb2.ApiKey(key_id=key.key_id, team="b"))
        await ledger.admin.UpdateKey(change, metadata=ADMIN)
        assert (await used(ledger, a), await used(ledger, b)) == ((0, 0), (140, 140))
        await router.book(settlement("s", key_id=key.key_id))
        # Routers are told, for what their leases go by has changed: by two budgets and by the key.
        assert listener.revocations >= 3
        assert (await used(ledger, a), await used(ledger, b)) == ((0, 0), (280, 0))
        assert faults(ledger) == []


async def test_released_request_leaves_nothing_and_may_be_released_again(place: Place) -> None:
    async with started(place, "local") as ledger, Listener(ledger) as router:
        budget = await new_budget(ledger, 200)
        await granted(router, asking("r"))
        release = reservation_pb.Release(request_id="r", create_time=BEGAN)
        for _ in range(2):
            await router.send(releases=[release])
            assert [ack.request_id for ack in (await router.receive()).release_acks] == ["r"]
        assert await used(ledger, budget) == (0, 0)
        assert await ledger.entries() == []
        assert (await ledger.totals()).open_intent_count == 0


async def test_lost_request_is_booked_with_all_that_it_held_until_the_truth_comes(place: Place) -> None:
    async with started(place, "local") as ledger:
        budget, usd = await new_budget(ledger, 1000), await new_budget(ledger, 10**9, USD)
        async with Listener(ledger, "dead") as dead:
            wishes = reservation_pb.Wishes(
                targets=[reservation_pb.Target(provider="openai", model=name) for name in ("gpt-4o-mini", "gpt-4o")], call_count=2
            )
            await granted(dead, asking("r", wishes=wishes))
            held = await used(ledger, usd)
            await dead.done()
            await dead.end()
        ledger.clock.time += 10
        await ledger.books.sweep()
        async with Listener(ledger, "other") as other:
            await caught_up(other)
        assert await used(ledger, budget) == (240, 0)
        assert await used(ledger, usd) == (held[1], 0)
        async with Listener(ledger, "dead") as late:
            await late.book(settlement("r"))
        assert await used(ledger, budget) == (140, 0)
        assert faults(ledger) == []


async def test_hold_outlives_an_hour_only_if_it_is_extended(place: Place) -> None:
    async with started(place, "local") as ledger, Listener(ledger) as router:
        budget = await new_budget(ledger, 1000)
        await router.book(asking("forgotten"), asking("long"))
        ledger.clock.time += 3000
        await router.send(extensions=[reservation_pb.Extension(request_id="long", create_time=BEGAN)])
        await caught_up(router)
        ledger.clock.time += 1000
        await ledger.books.expire()
        await caught_up(router)
        assert [row.request_id for row in await ledger.entries()] == ["forgotten"]
        assert await used(ledger, budget) == (140, 140)
        await router.book(settlement("forgotten"), settlement("long"))
        assert await used(ledger, budget) == (280, 0)


async def test_rolling_window_lets_spending_leave(place: Place) -> None:
    async with started(place, "local") as ledger, Listener(ledger) as router:
        rolling: dict[str, Any] = {"window": budget_pb2.BUDGET_WINDOW_ROLLING, "rolling_window": {"seconds": 60}}
        budget = await new_budget(ledger, 150, **rolling)
        await router.book(asking("a"), settlement("a"))
        denial = await denied(router, asking("b"))
        assert denial.retry_after.seconds == 61
        ledger.clock.time += 61
        later: dict[str, Any] = {"create_time": {"seconds": BEGAN.seconds + 61}}
        await granted(router, asking("b", **later))
        assert await used(ledger, budget) == (0, 140)
        assert faults(ledger) == []


async def test_requests_per_minute_are_refused_until_a_minute_after_the_first(place: Place) -> None:
    async with started(place, "local", limits=Limits(RateLimits(requests_per_minute=2))) as ledger, Listener(ledger) as router:
        first = await granted(router, asking("a"))
        assert (first.rates.requests.limit, first.rates.requests.remaining) == (2, 1)
        await router.book(asking("b"), settlement("b", hit()))
        denial = await denied(router, asking("c"))
        assert denial.rate.limit == reservation_pb.RATE_LIMIT_REQUESTS_PER_MINUTE
        assert 0 < denial.retry_after.ToNanoseconds() <= 60.05e9
        # Another caller is another matter.
        await granted(router, asking("other", key_id="k2"))
        assert (await ledger.totals()).open_intent_count == 2


async def test_answers_from_the_cache_count_as_requests_and_touch_no_budget(place: Place) -> None:
    limits = Limits(RateLimits(requests_per_minute=60, tokens_per_minute=1000))
    nothing = reservation_pb.Wishes(holds_nothing=True, wants_lease=True)
    async with started(place, "local", limits=limits) as ledger, Listener(ledger) as router:
        budget = await new_budget(ledger, 0, USD)
        grants = [await granted(router, asking(f"hit-{number}", wishes=nothing)) for number in range(4)]
        assert [grant.rates.requests.remaining for grant in grants[:2]] == [59, 56]
        # One that is in a hurry may go on alone, and with nothing but hits.
        lease = grants[1].lease
        assert (lease.requests, lease.nano_usd, lease.rate_tokens) == (2, 0, 0)
        assert lease.HasField("nano_usd") and lease.HasField("rate_tokens")
        assert await used(ledger, budget) == (0, 0)
        assert (await ledger.totals()).open_intent_count == 0
        await router.book(settlement("hit-0", hit()))
        assert (await granted(router, asking("last", wishes=nothing))).rates.requests.remaining < 55
        for number in range(60):
            response = await router.book(asking(f"more-{number}", wishes=nothing))
            if response.denials:
                assert response.denials[0].rate.limit == reservation_pb.RATE_LIMIT_REQUESTS_PER_MINUTE
                return
        raise AssertionError("no limit holds")


async def test_tokens_per_minute_charge_what_is_held_and_give_back_what_was_not_taken(place: Place) -> None:
    async with started(place, "local", limits=Limits(RateLimits(tokens_per_minute=1000))) as ledger, Listener(ledger) as router:
        grant = await granted(router, asking("a", max_output_tokens=800))
        assert (grant.rates.tokens.limit, grant.rates.tokens.remaining) == (1000, 100)
        denial = await denied(router, asking("b"))
        assert denial.rate.limit == reservation_pb.RATE_LIMIT_TOKENS_PER_MINUTE
        await router.book(settlement("a"))
        assert (await granted(router, asking("b"))).rates.tokens.remaining == 1000 - 140 - 140
        # What no minute has room for is cut, or refused without a time.
        assert (await granted(router, asking("c", key_id="k2", max_output_tokens=5000))).max_output_tokens == 900
        never = await denied(router, asking("d", key_id="k3", estimated_input_tokens=5000))
        assert not never.HasField("retry_after")


async def test_unbounded_answer_is_bounded_only_where_something_limits_it(place: Place) -> None:
    async with started(place, "local") as ledger, Listener(ledger) as router:
        assert (await granted(router, asking("free", max_output_tokens=0))).max_output_tokens == 0
        await new_budget(ledger, 100_000)
        assert (await granted(router, asking("bound", max_output_tokens=0))).max_output_tokens == 4096


async def test_budget_downgrades_to_the_model_that_it_would_rather_have(place: Place) -> None:
    async with started(place, "local") as ledger, Listener(ledger) as router:
        await new_budget(ledger, 300_000, USD, on_exhausted=budget_pb2.ON_EXHAUSTED_DOWNGRADE, downgrade_model="cheap")
        denial = await denied(router, asking("r"))
        assert denial.budget.downgrade_model == "cheap"
        cheap = reservation_pb.Wishes(targets=[reservation_pb.Target(provider="openai", model="gpt-4o-mini")])
        assert (await granted(router, asking("r", wishes=cheap))).max_output_tokens == 40


NO_BUDGETS: list[tuple[dict[str, Any], str]] = [
    ({"limit": -1}, "limit"),
    ({"limit": 10**18 + 1}, "limit"),
    ({"measure": 0}, "measure"),
    ({"measure": 77}, "measure"),
    ({"window": 0}, "window"),
    ({"scope": 0}, "scope"),
    ({"scope_id": "x"}, "scope_id"),
    ({"scope": budget_pb2.BUDGET_SCOPE_TEAM}, "scope_id"),
    ({"scope": budget_pb2.BUDGET_SCOPE_TEAM, "scope_id": "a\nb"}, "scope_id"),
    ({"rolling_window": {"seconds": 60}}, "rolling_window"),
    ({"window": budget_pb2.BUDGET_WINDOW_ROLLING}, "rolling_window"),
    ({"window": budget_pb2.BUDGET_WINDOW_ROLLING, "rolling_window": {"seconds": 59}}, "rolling_window"),
    ({"window": budget_pb2.BUDGET_WINDOW_ROLLING, "rolling_window": {"seconds": 60, "nanos": 1}}, "rolling_window"),
    ({"on_exhausted": budget_pb2.ON_EXHAUSTED_DOWNGRADE}, "downgrade_model"),
    ({"on_exhausted": 9}, "on_exhausted"),
    ({"name": "x" * 201}, "name"),
]


async def test_what_no_budget_can_be_is_refused_by_name(place: Place) -> None:
    async with started(place, "local") as ledger:
        for fields, param in NO_BUDGETS:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await new_budget(ledger, **({"limit": 1} | fields))
            refusal = GatewayError.from_rpc(caught.value)
            assert (refusal.reason, refusal.metadata["param"]) == (ErrorReason.ERROR_REASON_INVALID_REQUEST, param), fields
        key = {"scope": budget_pb2.BUDGET_SCOPE_KEY, "scope_id": "key_0123456789abcdef"}
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await new_budget(ledger, 1, **key)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        assert not (await ledger.admin.ListBudgets(admin_pb.ListBudgetsRequest(), metadata=ADMIN)).usages


async def test_operators_list_change_and_delete_budgets(place: Place) -> None:
    async with started(place, "local") as ledger, Listener(ledger) as router:
        budgets = sorted([await new_budget(ledger, 100 * number) for number in range(1, 4)])
        seen, token = [], ""
        while True:
            page = await ledger.admin.ListBudgets(admin_pb.ListBudgetsRequest(page_size=2, page_token=token), metadata=ADMIN)
            seen += [each.budget.budget_id for each in page.usages]
            if not (token := page.next_page_token):
                break
        assert seen == budgets
        for budget_id in budgets:
            change = budget_pb2.Budget(budget_id=budget_id, limit=1000, enabled=False)
            changed = await ledger.admin.UpdateBudget(admin_pb.UpdateBudgetRequest(budget=change), metadata=ADMIN)
            assert (changed.usage.budget.limit, changed.usage.budget.enabled) == (1000, False)
        await granted(router, asking("r", max_output_tokens=2000))
        assert await used(ledger, budgets[0]) == (0, 2100)
        for budget_id in budgets:
            await ledger.admin.DeleteBudget(admin_pb.DeleteBudgetRequest(budget_id=budget_id), metadata=ADMIN)
        for call in (
            ledger.admin.DeleteBudget(admin_pb.DeleteBudgetRequest(budget_id=budgets[0]), metadata=ADMIN),
            ledger.admin.GetBudget(admin_pb.GetBudgetRequest(budget_id="a\0b"), metadata=ADMIN),
            ledger.admin.UpdateBudget(admin_pb.UpdateBudgetRequest(budget=budget_pb2.Budget(budget_id="none", limit=1)), metadata=ADMIN),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_summary_has_everybodys_month(place: Place) -> None:
    async with started(place, "local") as ledger, Listener(ledger) as router:
        await new_budget(ledger, 5 * 10**9, USD)
        await router.book(settlement("r"), settlement("h", hit()))
        body = (await ledger.admin.GetBudgetSummary(admin_pb.GetBudgetSummaryRequest())).data
        assert body == b'{"tokensUsed": 140, "costUsed": 0.00065, "budget": {"monthlyUsd": 5.0}}'


async def test_alert_is_told_once_at_each_share_of_a_window(place: Place) -> None:
    told: list[tuple[int, int]] = []
    async with started(place, "local") as ledger, Listener(ledger) as router:
        ledger.books._tell = lambda alerts: told.extend((alert.percent, alert.spent) for alert in alerts)
        budget = await new_budget(ledger, 1000)
        for number in range(5):
            await router.book(asking(f"r{number}"), settlement(f"r{number}"))
        assert told == []
        await router.book(settlement("r5"))
        await router.book(settlement("small", attempt(tokens=TokenCounts(output_tokens=10))))
        assert told == [(80, 840)]
        assert REGISTRY.get_sample_value("joulegate_ledger_budget_used_ratio", {"budget_id": budget}) == 0.85
    # Also by a ledger that has never told.
    async with started(place, "local") as ledger, Listener(ledger) as router:
        ledger.books._tell = lambda alerts: told.extend((alert.percent, alert.spent) for alert in alerts)
        await router.book(settlement("tiny", attempt(tokens=TokenCounts(output_tokens=0, input_tokens=0))))
        await router.book(settlement("last", attempt(tokens=TokenCounts(output_tokens=100))))
        assert told == [(80, 840), (95, 950)]


async def test_next_lease_is_for_as_many_as_went_under_the_last(place: Place) -> None:
    async with started(place, "local", limits=Limits(RateLimits(requests_per_minute=10_000))) as ledger, Listener(ledger) as router:
        for number in range(7):
            await granted(router, asking(f"asked-{number}"))
        first = (await granted(router, asking("first", wants_lease=True))).lease
        assert first.requests == 8
        await router.book(*(intent(f"under-{number}", key_id="k1", lease_id=first.lease_id) for number in range(8)))
        # The clock stands still, so all of them were of late.
        assert (await granted(router, asking("second", wants_lease=True))).lease.requests == 17


async def test_lease_on_speed_counts_in_full_after_a_restart_until_it_is_returned(place: Place) -> None:
    limits = Limits(RateLimits(requests_per_minute=200))
    async with started(place, "local", limits=limits) as ledger, Listener(ledger) as router:
        for number in range(3):
            await granted(router, asking(f"r{number}"))
        lease = (await granted(router, asking("r3", wants_lease=True))).lease
        assert lease.requests == 4
        await router.book(intent("under", key_id="k1", lease_id=lease.lease_id))
        assert (await granted(router, asking("next"))).rates.requests.remaining == 200 - 6 - 3
    async with started(place, "local", limits=limits) as ledger, Listener(ledger) as router:
        # A ledger that is alone does not write down what is used of such a lease: it never lets in more for that.
        left = 4 if isinstance(place, Path) else 3
        assert (await granted(router, asking("restarted"))).rates.requests.remaining == 200 - 7 - left
        await router.send(returned_lease_ids=[lease.lease_id])
        assert (await granted(router, asking("returned"))).rates.requests.remaining == 200 - 8
