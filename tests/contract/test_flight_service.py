"""FlightService as its proto describes it, on every kind of channel."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2, status_pb2
from grpc.aio import EOF

from joulegate.cache.v1 import cache_service_pb2 as cache_pb
from joulegate.cache.v1 import flight_pb2
from joulegate.cache.v1 import flight_service_pb2 as pb
from joulegate.chat.v1 import chat_pb2
from services.cache.flight_leases import SILENCE_S
from tests.contract.channels import KINDS
from tests.contract.test_cache import Harness, serving
from tests.fakes.ledger import PATIENCE_S
from tests.unit.cache.samples import answer, key

FLIGHT = b"flight"
LEAD, FOLLOW = flight_pb2.FLIGHT_ROLE_LEAD, flight_pb2.FLIGHT_ROLE_FOLLOW
BEGUN = flight_pb2.FlightPart(begun=flight_pb2.FlightSource(provider="lab", model="small"))
LANDED = flight_pb2.FlightPart(landed=flight_pb2.FlightLanding())


def said(text: str) -> flight_pb2.FlightPart:
    choice = chat_pb2.ChunkChoice(delta=chat_pb2.Message(text=text))
    return flight_pb2.FlightPart(events=[chat_pb2.ChatEvent(chunk=chat_pb2.ChatCompletionChunk(choices=[choice]))])


@pytest.fixture(params=KINDS)
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    async with serving(request.param) as harness:
        yield harness


class Router:
    """A router's end of Share."""

    def __init__(self, cache: Harness, router_id: str) -> None:
        self._cache = cache
        self.router_id = router_id
        self.stream: Any = cache.flights.Share()

    async def enter(self) -> "Router":
        await self.stream.write(pb.ShareRequest(hello=pb.ShareHello(router_id=self.router_id)))
        assert (await self.heard()).HasField("ready")
        return self

    async def heard(self) -> pb.ShareResponse:
        response = await asyncio.wait_for(self.stream.read(), PATIENCE_S)
        assert isinstance(response, pb.ShareResponse)
        return response

    async def wanted(self) -> pb.WantedFlight:
        [wanted] = (await self.heard()).wanted
        return wanted

    async def send(self, relay_id: int, *parts: flight_pb2.FlightPart) -> None:
        await self.stream.write(pb.ShareRequest(parts=[pb.RelayedPart(relay_id=relay_id, part=part) for part in parts]))

    async def role(self) -> flight_pb2.FlightRole.ValueType:
        """What a miss of this router is to do."""
        boarding = flight_pb2.Boarding(router_id=self.router_id, flight_id=FLIGHT)
        return (await self._cache.stub.LookUp(cache_pb.LookUpRequest(key=key(), boarding=boarding))).flight_role

    def follow(self) -> Any:
        return self._cache.flights.Follow(pb.FollowRequest(router_id=self.router_id, flight_id=FLIGHT))


async def read_all(call: Any) -> list[pb.FollowResponse]:
    return [response async for response in call]


async def test_parts_go_from_the_leader_to_each_follower_up_to_the_last(cache: Harness) -> None:
    a, b = await Router(cache, "a").enter(), await Router(cache, "b").enter()
    assert [await a.role(), await b.role(), await a.role()] == [LEAD, FOLLOW, LEAD]
    followers = [asyncio.create_task(read_all(b.follow())) for _ in range(2)]
    relays: list[int] = []
    while len(relays) < len(followers):
        relays += [wanted.relay_id for wanted in (await a.heard()).wanted]
    for relay in relays:
        await a.send(relay, BEGUN, said("Energy "))
        await a.send(relay, flight_pb2.FlightPart(finished=True), LANDED)
    for responses in await asyncio.wait_for(asyncio.gather(*followers), PATIENCE_S):
        assert [response.part for response in responses] == [BEGUN, said("Energy "), flight_pb2.FlightPart(finished=True), LANDED]


async def test_failure_is_the_last_part(cache: Harness) -> None:
    a, b = await Router(cache, "a").enter(), await Router(cache, "b").enter()
    await a.role()
    following = asyncio.create_task(read_all(b.follow()))
    failure = flight_pb2.FlightPart(failure=status_pb2.Status(code=code_pb2.UNAVAILABLE).SerializeToString())
    await a.send((await a.wanted()).relay_id, failure, said("too late"))
    assert [response.part for response in await asyncio.wait_for(following, PATIENCE_S)] == [failure]


async def test_leader_hears_that_its_follower_has_left(cache: Harness) -> None:
    a, b = await Router(cache, "a").enter(), await Router(cache, "b").enter()
    await a.role()
    call = b.follow()
    reading = asyncio.create_task(call.read())
    wanted = await a.wanted()
    assert wanted.flight_id == FLIGHT
    call.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert list((await a.heard()).unwanted_relay_ids) == [wanted.relay_id]


async def test_leader_that_breaks_off_is_replaced_by_one_follower_whom_the_others_follow(cache: Harness) -> None:
    a, b, c = [await Router(cache, name).enter() for name in "abc"]
    await a.role()
    first = b.follow()
    asking = asyncio.create_task(first.read())
    relay = (await a.wanted()).relay_id
    second = c.follow()
    await a.send(relay, BEGUN)
    assert (await asyncio.wait_for(asking, PATIENCE_S)).part == BEGUN
    waiting = asyncio.create_task(second.read())
    await a.wanted()
    a.stream.cancel()
    assert (await asyncio.wait_for(first.read(), PATIENCE_S)).turn == pb.FOLLOW_TURN_LEAD
    assert await asyncio.wait_for(first.read(), PATIENCE_S) is EOF
    assert (await asyncio.wait_for(waiting, PATIENCE_S)).part.restarted
    await b.send((await b.wanted()).relay_id, BEGUN)
    assert (await asyncio.wait_for(second.read(), PATIENCE_S)).part == BEGUN
    assert await c.role() == FOLLOW
    second.cancel()


async def test_silent_leader_is_replaced(cache: Harness) -> None:
    a, b = await Router(cache, "a").enter(), await Router(cache, "b").enter()
    await a.role()
    call = b.follow()
    asking = asyncio.create_task(call.read())
    await a.wanted()
    cache.clock.seconds += SILENCE_S - 1
    await b.stream.write(pb.ShareRequest())
    # Whoever says something is answered.
    assert await b.heard() == pb.ShareResponse()
    cache.clock.seconds += 1
    assert (await asyncio.wait_for(asking, PATIENCE_S)).turn == pb.FOLLOW_TURN_LEAD
    assert await b.role() == LEAD


async def test_stored_answer_ends_the_lead(cache: Harness) -> None:
    a, b = await Router(cache, "a").enter(), await Router(cache, "b").enter()
    await a.role()
    await cache.stub.Store(cache_pb.StoreRequest(key=key(), entry=answer(), flight_id=FLIGHT))
    # A hit takes no lead.
    assert await b.role() == flight_pb2.FLIGHT_ROLE_UNSPECIFIED
    [response] = await read_all(b.follow())
    assert response.turn == pb.FOLLOW_TURN_LOOK_AGAIN
    await cache.stub.InvalidateEntries(cache_pb.InvalidateEntriesRequest(all=True))
    assert [await a.role(), await b.role()] == [LEAD, FOLLOW]


async def test_answer_that_is_refused_ends_the_lead_too(cache: Harness) -> None:
    a, b = await Router(cache, "a").enter(), await Router(cache, "b").enter()
    await a.role()
    with pytest.raises(grpc.aio.AioRpcError):
        await cache.stub.Store(cache_pb.StoreRequest(key=key(), entry=cache_pb.Entry(), flight_id=FLIGHT))
    assert await b.role() == LEAD


async def test_follower_of_what_came_to_nothing_looks_again(cache: Harness) -> None:
    a, b = await Router(cache, "a").enter(), await Router(cache, "b").enter()
    await a.role()
    following = asyncio.create_task(read_all(b.follow()))
    wanted = await a.wanted()
    await a.stream.write(pb.ShareRequest(parts=[pb.RelayedPart(relay_id=wanted.relay_id, gone=True)]))
    [response] = await asyncio.wait_for(following, PATIENCE_S)
    assert response.turn == pb.FOLLOW_TURN_LOOK_AGAIN
    assert await b.role() == LEAD


async def test_router_without_a_stream_is_told_nothing(cache: Harness) -> None:
    stranger = Router(cache, "stranger")
    assert await stranger.role() == flight_pb2.FLIGHT_ROLE_UNSPECIFIED
    stranger.stream.cancel()


async def test_stream_without_a_name_is_refused(cache: Harness) -> None:
    nameless = Router(cache, "")
    await nameless.stream.write(pb.ShareRequest(hello=pb.ShareHello()))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await nameless.stream.read()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_newer_stream_of_a_router_ends_the_older(cache: Harness) -> None:
    older = await Router(cache, "a").enter()
    newer = await Router(cache, "a").enter()
    assert await asyncio.wait_for(older.stream.read(), PATIENCE_S) is EOF
    assert await newer.role() == LEAD


async def test_draining_cache_lets_go_once_nobody_follows(cache: Harness) -> None:
    a, b = await Router(cache, "a").enter(), await Router(cache, "b").enter()
    await a.role()
    following = asyncio.create_task(read_all(b.follow()))
    relay = (await a.wanted()).relay_id
    ended = asyncio.create_task(a.stream.read())
    cache.draining.set()
    await a.send(relay, BEGUN, LANDED)
    assert [response.part for response in await asyncio.wait_for(following, PATIENCE_S)] == [BEGUN, LANDED]
    assert await asyncio.wait_for(ended, PATIENCE_S) is EOF
