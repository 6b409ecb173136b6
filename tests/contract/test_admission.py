"""How the router lets requests in, among scripted neighbours, on every kind of channel: what it asks, and what clients see."""

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from joulegate.chat.v1 import chat_pb2, receipt_pb2
from joulegate.chat.v1 import chat_service_pb2 as typed_pb
from joulegate.dispatch.v1 import dispatch_service_pb2 as dispatch_pb
from joulegate.ledger.v1 import budget_pb2, entry_pb2
from joulegate.ledger.v1 import ledger_service_pb2 as ledger_pb
from joulegate.ledger.v1.reservation_pb2 import (
    Amounts,
    BudgetDenial,
    Denial,
    Lease,
    PriceDenial,
    PricedTarget,
    RateDenial,
    RateLimit,
    RateStanding,
    RateStatus,
    Target,
)
from tests.contract.channels import KINDS
from tests.contract.test_router import QUESTION, TARGET, Router, serving, whole
from tests.fakes.ledger import PATIENCE_S

RATES = RateStatus(requests=RateStanding(limit=60, remaining=9, reset=Duration(seconds=60)), tokens=RateStanding(limit=1000, remaining=900))
PRICED = PricedTarget(
    provider="lab", model="small", fixed=Amounts(nano_usd=10), per_million_output_tokens=Amounts(nano_usd=10**6), max_input_tokens=10**6
)
LIVED = Duration(seconds=3600)
SPENT = BudgetDenial(
    budget_id="b-1", scope=budget_pb2.BUDGET_SCOPE_KEY, measure=budget_pb2.BUDGET_MEASURE_USD, window=budget_pb2.BUDGET_WINDOW_MONTH
)
FRESH = (("cache-control", "no-store"),)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def serving_unknown(kind: str) -> Any:
    """A router that knows nothing of its callers yet."""
    return serving(kind, is_leased=False, LEDGER_WAIT_SECONDS="10")


class Call:
    """A question on its way, with what comes back beside the answer."""

    def __init__(self, router: Router, metadata: tuple[tuple[str, str], ...] = FRESH, **members: Any) -> None:
        request = chat_pb2.ChatRequest()
        request.CopyFrom(QUESTION)
        request.MergeFrom(chat_pb2.ChatRequest(**members))
        self.call = router.stub.CompleteChat(typed_pb.CompleteChatRequest(request=request), timeout=PATIENCE_S, metadata=metadata)
        self.task = asyncio.create_task(self._answer())

    async def _answer(self) -> typed_pb.CompleteChatResponse:
        response = await self.call
        assert isinstance(response, typed_pb.CompleteChatResponse)
        return response

    async def headers(self) -> dict[str, str]:
        return {key: str(value) for key, value in await self.call.initial_metadata()}

    async def error(self) -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.task
        return raised.value


async def settled(router: Router) -> ledger_pb.Settlement:
    """Acknowledges up to the next settlement."""
    while True:
        request = await router.ledger.heard()
        router.ledger.acknowledge(request)
        if request.settlements:
            return request.settlements[0]


async def test_without_a_lease_nothing_goes_out_before_the_ledger_grants_it(kind: str) -> None:
    async with serving_unknown(kind) as router:
        router.dispatch.script = [whole()]
        call = Call(router, n=2, max_tokens=70)
        request = await router.ledger.heard()
        [intent] = request.intents
        assert (intent.wishes.answer_count, intent.wishes.call_count, intent.wishes.wants_lease) == (2, 2, True)
        assert [(target.provider, target.model) for target in intent.wishes.targets] == [("lab", "small")]
        assert (intent.max_output_tokens, intent.estimated_input_tokens >= QUESTION.ByteSize()) == (70, True)
        assert router.dispatch.requests.empty()
        router.ledger.acknowledge(request)
        assert (await settled(router)).create_time == intent.create_time
        await call.task


async def test_answer_is_bounded_by_what_was_granted_and_its_client_told(kind: str) -> None:
    async with serving_unknown(kind) as router:
        router.dispatch.script = [whole()]
        call = Call(router, max_tokens=70)
        await router.ledger.grant(max_output_tokens=20, call_count=1, rates=RATES)
        dispatched = await router.dispatch.requests.get()
        assert (dispatched.request.max_tokens, dispatched.request.HasField("max_completion_tokens"), dispatched.max_calls) == (20, False, 1)
        await settled(router)
        await call.task
        if kind == "grpc":
            headers = await call.headers()
            assert headers["x-joulegate-warnings"] == "max_tokens: 20 instead of 70, which is what limits or budgets leave"
            assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("60", "9")
            assert headers["x-ratelimit-remaining-tokens"] == "900"


async def test_under_a_lease_nobody_is_asked_and_what_is_held_is_said(kind: str) -> None:
    async with serving_unknown(kind) as router:
        router.dispatch.script = [whole()]
        first = Call(router)
        lease = Lease(lease_id="l-1", lifetime=LIVED, nano_usd=1000, targets=[PRICED], unbounded_output_tokens=100)
        await router.ledger.grant(max_output_tokens=100, call_count=2, lease=lease)
        await settled(router)
        await first.task
        await router.dispatch.requests.get()
        second = Call(router)
        # Before the ledger has said anything.
        dispatched = await router.dispatch.requests.get()
        assert (dispatched.request.max_completion_tokens, dispatched.max_calls) == (100, 2)
        request = await router.ledger.heard()
        [intent] = request.intents
        assert (intent.lease_id, intent.HasField("wishes"), intent.max_output_tokens) == ("l-1", False, 100)
        assert (intent.held.nano_usd, intent.held.tokens) == (120, 2 * intent.estimated_input_tokens + 100)
        router.ledger.acknowledge(request)
        await settled(router)
        await second.task
        # What is left of the lease does not hold this one.
        third = Call(router, max_tokens=2000)
        intent = await router.ledger.grant(max_output_tokens=2000, call_count=2)
        assert intent.HasField("wishes")
        await settled(router)
        await third.task


async def test_under_a_lease_for_everything_the_books_are_told_what_all_answers_may_take(kind: str) -> None:
    async with serving_unknown(kind) as router:
        router.dispatch.script = [whole()]
        first = Call(router)
        await router.ledger.grant(max_output_tokens=0, call_count=2, lease=Lease(lease_id="unlimited", lifetime=LIVED))
        await settled(router)
        await first.task
        second = Call(router, n=3, max_tokens=50)
        request = await router.ledger.heard()
        [intent] = request.intents
        assert (intent.lease_id, intent.HasField("held"), intent.max_output_tokens) == ("unlimited", False, 150)
        router.ledger.acknowledge(request)
        await settled(router)
        await second.task


async def test_revocation_is_heeded_and_said(kind: str) -> None:
    async with serving(kind) as router:
        router.ledger.responses.put_nowait(ledger_pb.BookResponse(leases_revoked=True, revocation=7))
        assert (await router.ledger.heard()) == ledger_pb.BookRequest(heeded_revocation=7)


async def test_lease_is_renewed_by_one_request_while_its_rest_lets_the_others_in(kind: str) -> None:
    async with serving_unknown(kind) as router:
        router.dispatch.script = [whole()]
        first = Call(router)
        await router.ledger.grant(lease=Lease(lease_id="l-1", lifetime=LIVED, requests=16))
        await settled(router)
        await first.task
        for _ in range(9):
            call = Call(router)
            await settled(router)
            await call.task
        renewing = Call(router)
        asking = await router.ledger.heard()
        assert (asking.intents[0].HasField("wishes"), asking.intents[0].wishes.wants_lease) == (True, True)
        beside = Call(router)
        await settled(router)
        await beside.task
        # Denied: the rest of the lease is its caller's all the same.
        denial = Denial(request_id=asking.intents[0].request_id, rate=RateDenial(limit=RateLimit.RATE_LIMIT_REQUESTS_PER_MINUTE))
        denial.retry_after.seconds = 100
        router.ledger.responses.put_nowait(ledger_pb.BookResponse(denials=[denial]))
        assert (await settled(router)).request_id == denial.request_id
        await renewing.task
        after = Call(router)
        await settled(router)
        await after.task


async def test_revoked_lease_is_not_used(kind: str) -> None:
    async with serving(kind, LEDGER_WAIT_SECONDS="10") as router:
        router.ledger.responses.put_nowait(ledger_pb.BookResponse(leases_revoked=True))
        router.dispatch.script = [whole()]
        while True:
            call = Call(router)
            request = await router.ledger.heard()
            router.ledger.acknowledge(request)
            await settled(router)
            await call.task
            # The word of it may come later than the question.
            if request.intents[0].HasField("wishes"):
                break


async def test_full_budget_refuses_with_its_name_and_until_when(kind: str) -> None:
    async with serving_unknown(kind) as router:
        call = Call(router)
        await router.ledger.deny(budget=SPENT, retry_after=Duration(seconds=3600), message="Spent.", rates=RATES)
        error = await call.error()
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        status.details[0].Unpack(info)
        status.details[1].Unpack(retry)
        assert (info.reason, info.metadata["budget"], info.metadata["window"]) == ("ERROR_REASON_BUDGET_EXHAUSTED", "b-1", "month")
        assert retry.retry_delay.seconds == 3600
        if kind == "grpc":
            trailing = dict(error.trailing_metadata() or ())
            assert trailing["retry-after"] == "3600" and trailing["x-ratelimit-remaining-requests"] == "9"
        assert router.dispatch.requests.empty()
        # Nothing is held, so nothing is settled or released.
        assert router.ledger.requests.empty()


async def test_model_without_a_price_is_refused_by_name(kind: str) -> None:
    async with serving_unknown(kind) as router:
        call = Call(router)
        denial = PriceDenial(target=Target(provider="lab", model="nobody-knows"))
        await router.ledger.deny(price=denial, message="No price.")
        error = await call.error()
        assert (error.code(), error.details()) == (grpc.StatusCode.PERMISSION_DENIED, "No price.")
        assert router.dispatch.requests.empty()


async def test_full_budget_may_have_another_model_answer(kind: str) -> None:
    async with serving_unknown(kind) as router:
        answered = whole()
        answered.selected.target.model = "tiny"
        router.dispatch.script = [answered]
        call = Call(router, ())
        refused = await router.ledger.deny(budget=BudgetDenial(budget_id="b-1", downgrade_model="tiny"))
        granted = await router.ledger.grant(call_count=1)
        assert (refused.model, granted.model, granted.requested_model) == ("small", "tiny", "small")
        assert refused.request_id == granted.request_id
        dispatched = await router.dispatch.requests.get()
        assert [target.model for target in dispatched.targets] == ["tiny"]
        await settled(router)
        await call.task
        if kind == "grpc":
            assert (await call.headers())["x-joulegate-downgraded-to"] == "tiny"
        # It is not what was asked for, so nobody else gets it.
        assert router.cache.stores.empty()


async def test_who_is_too_fast_waits_and_the_ledger_is_asked_once(kind: str) -> None:
    async with serving_unknown(kind) as router:
        denial = RateDenial(limit=RateLimit.RATE_LIMIT_REQUESTS_PER_MINUTE)
        first = Call(router)
        await router.ledger.deny(rate=denial, retry_after=Duration(seconds=100), rates=RATES)
        await first.error()
        for again in (Call(router), Call(router, ())):
            error = await again.error()
            retry = error_details_pb2.RetryInfo()
            rpc_status.from_call(error).details[1].Unpack(retry)  # type: ignore[arg-type]
            assert 50 < retry.retry_delay.seconds < 100
        assert router.ledger.requests.empty()


async def test_client_that_leaves_while_the_ledger_decides_holds_nothing(kind: str) -> None:
    async with serving_unknown(kind) as router:
        call = Call(router)
        [intent] = (await router.ledger.heard()).intents
        call.task.cancel()
        request = await router.ledger.heard()
        [release] = request.releases
        assert (release.request_id, release.create_time) == (intent.request_id, intent.create_time)
        router.ledger.acknowledge(request)
        assert router.dispatch.requests.empty()


async def test_ledger_that_does_not_decide_lets_nobody_in(kind: str) -> None:
    async with serving(kind, is_leased=False) as router:
        call = Call(router)
        error = await call.error()
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        heard = [await router.ledger.heard(), await router.ledger.heard()]
        assert [len(request.releases) for request in heard] == [0, 1]
        router.ledger.acknowledge(heard[1])
        assert router.dispatch.requests.empty()


async def test_answers_from_the_cache_hold_nothing_and_count_where_requests_are_limited(kind: str) -> None:
    async with serving_unknown(kind) as router:
        router.dispatch.script = [whole()]
        missed = Call(router, ())
        lease = Lease(lease_id="l-1", lifetime=LIVED, requests=1)
        await router.ledger.grant(call_count=2, rates=RATES, lease=lease)
        await settled(router)
        await missed.task
        await router.cache.stores.get()
        # One by the lease, the next by the ledger, the one after that not at all.
        by_lease = Call(router, ())
        assert (await by_lease.task).receipt.cache_status == receipt_pb2.CACHE_STATUS_HIT_EXACT
        assert (await settled(router)).lease_id == "l-1"
        by_ledger = Call(router, ())
        intent = await router.ledger.grant(rates=RATES)
        assert (intent.wishes.holds_nothing, len(intent.wishes.targets)) == (True, 0)
        await by_ledger.task
        settlement = await settled(router)
        assert (settlement.create_time, settlement.lease_id) == (intent.create_time, "")
        assert [attempt.outcome for attempt in settlement.attempts] == [entry_pb2.OUTCOME_CACHE_HIT]
        refused = Call(router, ())
        await router.ledger.deny(rate=RateDenial(limit=RateLimit.RATE_LIMIT_BUCKET), retry_after=Duration(seconds=1))
        assert (await refused.error()).code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_leases_go_back_when_the_router_stops(kind: str) -> None:
    async with serving_unknown(kind) as router:
        router.dispatch.script = [whole()]
        call = Call(router)
        await router.ledger.grant(call_count=2, lease=Lease(lease_id="l-1", lifetime=LIVED, requests=5))
        await settled(router)
        await call.task
        ledger = router.ledger
    assert [*(await ledger.heard()).returned_lease_ids] == ["l-1"]


async def test_refused_before_any_call_is_settled_and_never_released(kind: str) -> None:
    failed = dispatch_pb.DispatchResponse(failed_attempts=[dispatch_pb.FailedAttempt(target=TARGET, attempt=1, code=14)])
    async with serving_unknown(kind) as router:
        router.dispatch.script = [failed]
        call = Call(router)
        await router.ledger.grant(call_count=1)
        settlement = await settled(router)
        assert [attempt.outcome for attempt in settlement.attempts] == [entry_pb2.OUTCOME_FAILED]
        await call.error()
