"""Who a request comes from, with a ledger's keys that a test gives and takes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.ledger.v1.key_service_pb2_grpc import KeyServiceStub, add_KeyServiceServicer_to_server
from services.router.callers import MAX_ASKED, Callers, open_callers
from services.router.key_cache import WATCHED_S
from services.runtime.errors import GatewayError
from services.runtime.identity import ANONYMOUS, Caller, StaticKey, digest_of, marked
from tests.contract.channels import new_mesh, serve
from tests.fakes.keys import PATIENCE_S, FakeKeys, digest
from tests.unit.ledger.samples import HeldClock

TEXT = "gw-prod-" + "a" * 43
OTHER = "gw-dev-" + "b" * 43
# How long the ledger may take to answer where it is away: by the held clock, and once more for each call.
WAIT_S = 5
ADDRESS = {"x-forwarded-for": "203.0.113.9"}
NOW = Timestamp(seconds=1_700_000_000)


class Case:
    """Callers under test, and what they depend on."""

    def __init__(self, callers: Callers, keys: FakeKeys, clock: HeldClock) -> None:
        self.callers = callers
        self.keys = keys
        self.clock = clock

    async def of(self, text: str | None = None, **headers: str) -> Caller:
        presented = {} if text is None else {"authorization": f"Bearer {text}"}
        return await asyncio.wait_for(self.callers.caller(presented | headers), PATIENCE_S)

    async def refusal(self, text: str | None = None, **headers: str) -> GatewayError:
        with pytest.raises(GatewayError) as raised:
            await self.of(text, **headers)
        return raised.value

    async def refusal_in_the_end(self, text: str) -> GatewayError:
        """What is said once the ledger's time to answer is over; it is over at the first retry."""
        asking = asyncio.create_task(self.refusal(text))
        asked = self.keys.asked[digest(text)]
        async with asyncio.timeout(PATIENCE_S):
            while self.keys.asked[digest(text)] == asked:
                await asyncio.sleep(0)
        self.clock.time += WAIT_S
        return await asking

    async def watch(self) -> None:
        """Waits until the ledger tells of changes. Only where anonymous callers are let in."""
        async with asyncio.timeout(PATIENCE_S):
            while not (await self.of(**ADDRESS)).key_id:
                await asyncio.sleep(0)

    async def forgets(self, text: str) -> None:
        """Waits until the key is asked for anew."""
        before = self.keys.asked[digest(text)]
        async with asyncio.timeout(PATIENCE_S):
            while self.keys.asked[digest(text)] == before:
                await self.of(text)
                await asyncio.sleep(0)


@asynccontextmanager
async def case(static_key: str | None = None, auth_required: bool = False, wait_s: float = PATIENCE_S) -> AsyncIterator[Case]:
    mesh, keys, clock = new_mesh(), FakeKeys(), HeldClock()
    add_KeyServiceServicer_to_server(keys, mesh.registry)
    async with (
        serve(mesh, "local") as channel,
        open_callers(StaticKey(static_key), auth_required, KeyServiceStub(channel), clock, wait_s) as callers,
    ):
        yield Case(callers, keys, clock)


async def test_key_of_the_ledger_is_asked_for_once_and_then_known() -> None:
    async with case() as it:
        await it.watch()
        it.keys.give(TEXT, organisation="acme", allowed_models=["gpt-*"])
        callers = [await it.of(TEXT), await it.of(None, **{"x-api-key": TEXT}), await it.of(TEXT)]
        assert {(caller.key_id, caller.tenant) for caller in callers} == {("key_1", "organisation:acme")}
        assert (callers[0].may_use("lab", "gpt-4o"), callers[0].may_use("lab", "small")) == (True, False)
        assert it.keys.asked == {digest(TEXT): 1}


async def test_many_first_requests_with_one_key_ask_once() -> None:
    async with case() as it:
        it.keys.give(TEXT)
        it.keys.gate.clear()
        waiting = [asyncio.create_task(it.of(TEXT)) for _ in range(20)]
        await asyncio.sleep(0)
        # One that leaves does not take the question along.
        waiting.pop(0).cancel()
        it.keys.gate.set()
        assert {caller.key_id for caller in await asyncio.gather(*waiting)} == {"key_1"}
        assert it.keys.asked == {digest(TEXT): 1}


@pytest.mark.parametrize("text", ["sk-something", "gw-prod-short", TEXT + "a", "gw-test-" + "a" * 43, TEXT[:-1] + "!", " " + TEXT + "x"])
async def test_text_that_cannot_be_a_key_is_never_asked_for(text: str) -> None:
    async with case(auth_required=True) as closed, case() as open_to_all:
        assert (await closed.refusal(text)).message == "Incorrect API key provided."
        assert await open_to_all.of(text) == marked(digest_of(text.strip()))
        assert not closed.keys.asked and not open_to_all.keys.asked


async def test_where_keys_are_demanded_only_known_ones_pass() -> None:
    async with case(static_key="static", auth_required=True) as it:
        it.keys.give(TEXT)
        assert (await it.of(TEXT)).key_id == "key_1"
        assert (await it.of("static")) == marked(digest_of("static"))
        for problem in (await it.refusal(), await it.refusal(OTHER), await it.refusal("stati"), await it.refusal(**ADDRESS)):
            assert problem.reason == ErrorReason.ERROR_REASON_INVALID_API_KEY


async def test_static_key_alone_demands_keys_and_lets_those_of_the_ledger_pass() -> None:
    async with case(static_key="static") as it:
        it.keys.give(TEXT)
        assert (await it.of(TEXT)).key_id == "key_1"
        assert (await it.refusal()).reason == ErrorReason.ERROR_REASON_INVALID_API_KEY


async def test_where_nobody_is_refused_an_unknown_key_is_a_tenant_of_its_own() -> None:
    async with case() as it:
        assert await it.of(TEXT) == marked(digest_of(TEXT))
        assert await it.of(OTHER) == marked(digest_of(OTHER)) != await it.of(TEXT)
        assert await it.of() == ANONYMOUS


@pytest.mark.parametrize("auth_required", [False, True])
async def test_revoked_disabled_and_expired_keys_are_refused_in_both_modes(auth_required: bool) -> None:
    async with case(auth_required=auth_required) as it:
        it.keys.give(TEXT, revoke_time=NOW)
        it.keys.give(OTHER, enabled=False)
        expiring = "gw-stg-" + "c" * 43
        it.keys.give(expiring, expire_time=Timestamp(seconds=1_700_000_001))
        assert "revoked" in (await it.refusal(TEXT)).message
        assert "disabled" in (await it.refusal(OTHER)).message
        assert (await it.of(expiring)).key_id == "key_1"
        it.clock.time += 1
        problem = await it.refusal(expiring)
        assert "expired" in problem.message and problem.reason == ErrorReason.ERROR_REASON_INVALID_API_KEY
        # The clock stopped it, not the ledger.
        assert it.keys.asked[digest(expiring)] == 1


async def test_change_is_heeded_as_soon_as_it_is_told() -> None:
    async with case() as it:
        await it.watch()
        it.keys.give(TEXT, allowed_models=["a"])
        assert not (await it.of(TEXT)).may_use("lab", "b")
        it.keys.give(TEXT, allowed_models=["a", "b"])
        it.keys.tell(TEXT)
        await it.forgets(TEXT)
        assert (await it.of(TEXT)).may_use("lab", "b")


async def test_new_key_is_known_although_it_was_unknown_just_before() -> None:
    async with case() as it:
        await it.watch()
        assert (await it.of(TEXT)).key_id != "key_1"
        it.keys.give(TEXT)
        it.keys.tell(TEXT)
        await it.forgets(TEXT)
        assert (await it.of(TEXT)).key_id == "key_1"


async def test_answer_from_before_a_change_serves_one_request_only() -> None:
    async with case() as it:
        await it.watch()
        it.keys.give(TEXT)
        it.keys.gate.clear()
        waiting = asyncio.create_task(it.of(TEXT))
        async with asyncio.timeout(PATIENCE_S):
            while not it.keys.asked:
                await asyncio.sleep(0)
        it.keys.give(TEXT, enabled=False)
        it.keys.tell(TEXT)
        for _ in range(20):
            await asyncio.sleep(0)
        it.keys.gate.set()
        assert (await waiting).key_id == "key_1"
        assert "disabled" in (await it.refusal(TEXT)).message


async def test_after_a_gap_in_what_is_told_keys_are_asked_for_again() -> None:
    async with case() as it:
        await it.watch()
        it.keys.give(TEXT)
        await it.of(TEXT)
        it.keys.end_watch()
        await it.forgets(TEXT)


async def test_ledger_that_is_away_is_done_without_for_a_known_key_and_said_for_an_unknown_one() -> None:
    async with case(wait_s=WAIT_S) as it:
        await it.watch()
        it.keys.give(TEXT)
        await it.of(TEXT)
        it.keys.is_away = True
        it.clock.time += WATCHED_S
        assert [(await it.of(TEXT)).key_id for _ in range(5)] == ["key_1"] * 5
        # It was known, asked once in vain, and is then not asked for a while.
        assert it.keys.asked[digest(TEXT)] == 2
        problem = await it.refusal_in_the_end(OTHER)
        assert (problem.reason, problem.retry_after_s) == (ErrorReason.ERROR_REASON_LEDGER_UNAVAILABLE, 1)
        # Nobody can say whose key it is after so long a time.
        it.clock.time += 600
        assert (await it.refusal_in_the_end(TEXT)).reason == ErrorReason.ERROR_REASON_LEDGER_UNAVAILABLE


async def test_flood_of_made_up_keys_is_bounded_and_stops_no_known_one() -> None:
    async with case() as it:
        await it.watch()
        it.keys.give(TEXT)
        await it.of(TEXT)
        # It has to be asked for again, and even so it passes.
        it.clock.time += WATCHED_S
        it.keys.gate.clear()
        flood = [asyncio.create_task(it.of(f"gw-dev-{number:043}")) for number in range(MAX_ASKED + 50)]
        async with asyncio.timeout(PATIENCE_S):
            while sum(task.done() for task in flood) < 50:
                await asyncio.sleep(0)
        assert (await it.of(TEXT)).key_id == "key_1"
        it.keys.gate.set()
        results = await asyncio.gather(*flood, return_exceptions=True)
        refused = [result for result in results if isinstance(result, GatewayError)]
        assert {error.reason for error in refused} == {ErrorReason.ERROR_REASON_SERVICE_UNAVAILABLE}
        assert (len(refused), sum(it.keys.asked.values())) == (50, MAX_ASKED + 1)


async def test_anonymous_callers_are_told_apart_by_address_and_share_a_tenant() -> None:
    async with case() as it:
        await it.watch()
        one, other = [await it.of(**{"x-forwarded-for": address}) for address in ("203.0.113.9", "203.0.113.10")]
        assert one.key_id != other.key_id and one.tenant == other.tenant == ""
        assert one.key_id.startswith("anon_") and "203" not in one.key_id
        # What the client itself says of its way counts for nothing.
        assert await it.of(**{"x-forwarded-for": "198.51.100.1, 203.0.113.9"}) == one
        assert await it.of(**{"x-forwarded-for": "::ffff:203.0.113.9"}) == one
        assert await it.of(**{"x-forwarded-for": "2001:db8::1"}) == await it.of(**{"x-forwarded-for": "2001:db8::2"})
        assert await it.of(**{"x-forwarded-for": "2001:db8:0:1::1"}) != await it.of(**{"x-forwarded-for": "2001:db8::1"})
        for nonsense in ("", "unknown", "203.0.113.9:80", ","):
            assert await it.of(**{"x-forwarded-for": nonsense}) == ANONYMOUS
