"""The router among scripted neighbours, on every kind of channel: what it asks of whom, and what leaves before what."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from joulegate.cache.v1 import cache_service_pb2 as cache_pb
from joulegate.cache.v1 import cache_service_pb2_grpc as cache_grpc
from joulegate.chat.v1 import chat_pb2, receipt_pb2
from joulegate.chat.v1 import chat_service_pb2 as typed_pb
from joulegate.chat.v1.chat_service_pb2_grpc import ChatServiceStub
from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.dispatch.v1 import dispatch_service_pb2 as dispatch_pb
from joulegate.dispatch.v1 import dispatch_service_pb2_grpc as dispatch_grpc
from joulegate.ledger.v1 import entry_pb2
from joulegate.ledger.v1.ledger_service_pb2_grpc import add_LedgerServiceServicer_to_server
from joulegate.ledger.v1.reservation_pb2 import Lease
from services.router.__main__ import build
from services.router.settings import RouterSettings
from services.runtime.errors import GatewayError
from services.runtime.settings import load
from tests.contract.channels import KINDS, new_mesh, serve
from tests.fakes.ledger import PATIENCE_S, Conversation, FakeLedger

QUESTION = chat_pb2.ChatRequest(model="small", messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, text="What is a joule?")])
TARGET = dispatch_pb.Target(provider="lab", model="small")
OPEN_LEASE = Lease(lease_id="l-1", lifetime=Duration(seconds=3600))
USAGE = chat_pb2.Usage(prompt_tokens=5, completion_tokens=2, total_tokens=7)


def completion(text: str = "Work.", finish: chat_pb2.FinishReason.ValueType = chat_pb2.FINISH_REASON_STOP) -> chat_pb2.ChatCompletion:
    message = chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, text=text)
    return chat_pb2.ChatCompletion(id="c-1", model="small-1", usage=USAGE, choices=[chat_pb2.Choice(message=message, finish_reason=finish)])


def whole(answer: chat_pb2.ChatCompletion | None = None) -> dispatch_pb.DispatchResponse:
    return dispatch_pb.DispatchResponse(
        selected=dispatch_pb.SelectedTarget(target=TARGET, attempt=1),
        events=[chat_pb2.ChatEvent(completion=answer or completion())],
        finished=dispatch_pb.Finished(),
    )


class FakeDispatch(dispatch_grpc.DispatchServiceServicer):
    """Serves `small` at `lab` and gives scripted answers; exceptions are raised, events waited for."""

    def __init__(self) -> None:
        self.script: list[Any] = []
        self.requests: asyncio.Queue[dispatch_pb.DispatchRequest] = asyncio.Queue()

    async def Dispatch(self, request: dispatch_pb.DispatchRequest, context: Any) -> AsyncIterator[dispatch_pb.DispatchResponse]:
        self.requests.put_nowait(request)
        if not self.script:
            raise GatewayError(ErrorReason.ERROR_REASON_UNIMPLEMENTED, "this call was not scripted")
        for step in self.script:
            if isinstance(step, GatewayError):
                raise step
            if isinstance(step, asyncio.Event):
                await step.wait()
            else:
                yield step

    async def WatchProviders(self, request: Any, context: Any) -> AsyncIterator[dispatch_pb.WatchProvidersResponse]:
        models = [dispatch_pb.Model(id=name) for name in ("small", "tiny")]
        yield dispatch_pb.WatchProvidersResponse(providers=[dispatch_pb.Provider(name="lab", kind="openai", healthy=True, models=models)])
        await asyncio.Event().wait()

    async def ListProviders(self, request: Any, context: Any) -> dispatch_pb.ListProvidersResponse:
        raise GatewayError(ErrorReason.ERROR_REASON_UNIMPLEMENTED, "nobody asks this")


class FakeCache(cache_grpc.CacheServiceServicer):
    """Finds what a test puts there, and shows what is stored. With a fault, every call fails."""

    def __init__(self) -> None:
        self.found = cache_pb.LookUpResponse()
        self.lookups: list[cache_pb.LookUpRequest] = []
        self.stores: asyncio.Queue[cache_pb.StoreRequest] = asyncio.Queue()
        self.fault: GatewayError | None = None

    async def LookUp(self, request: cache_pb.LookUpRequest, context: Any) -> cache_pb.LookUpResponse:
        self.lookups.append(request)
        if self.fault is not None:
            raise self.fault
        return self.found

    async def Store(self, request: cache_pb.StoreRequest, context: Any) -> cache_pb.StoreResponse:
        self.stores.put_nowait(request)
        if self.fault is not None:
            raise self.fault
        return cache_pb.StoreResponse(entry_id="e")

    async def InvalidateEntries(self, request: Any, context: Any) -> cache_pb.InvalidateEntriesResponse:
        raise GatewayError(ErrorReason.ERROR_REASON_UNIMPLEMENTED, "nobody asks this")

    async def ReportEntry(self, request: Any, context: Any) -> cache_pb.ReportEntryResponse:
        raise GatewayError(ErrorReason.ERROR_REASON_UNIMPLEMENTED, "nobody asks this")

    async def GetCacheStats(self, request: Any, context: Any) -> cache_pb.GetCacheStatsResponse:
        raise GatewayError(ErrorReason.ERROR_REASON_UNIMPLEMENTED, "nobody asks this")


@dataclass
class Router:
    """A router under test, from outside, and its neighbours."""

    stub: ChatServiceStub
    dispatch: FakeDispatch
    cache: FakeCache
    ledger: Conversation

    def ask(self, *metadata: tuple[str, str]) -> asyncio.Task[typed_pb.CompleteChatResponse]:
        async def answered() -> typed_pb.CompleteChatResponse:
            call = self.stub.CompleteChat(typed_pb.CompleteChatRequest(request=QUESTION), timeout=PATIENCE_S, metadata=metadata)
            response = await call
            assert isinstance(response, typed_pb.CompleteChatResponse)
            return response

        return asyncio.create_task(answered())

    def stream(self) -> Any:
        return self.stub.StreamChat(typed_pb.StreamChatRequest(request=QUESTION), timeout=PATIENCE_S)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def serving(kind: str, is_leased: bool = True, **variables: str) -> AsyncIterator[Router]:
    """The router as its composition root builds it, connected to its books; as a rule it may let anonymous callers in by itself."""
    dispatch, cache, ledger, mesh = FakeDispatch(), FakeCache(), FakeLedger(), new_mesh()
    dispatch_grpc.add_DispatchServiceServicer_to_server(dispatch, mesh.registry)
    cache_grpc.add_CacheServiceServicer_to_server(cache, mesh.registry)
    add_LedgerServiceServicer_to_server(ledger, mesh.registry)
    settings = load(RouterSettings, {"CACHE_LOOKUP_TIMEOUT_SECONDS": "10", "LEDGER_WAIT_SECONDS": "10"} | variables)
    async with build(settings, mesh), serve(mesh, kind) as channel:
        router = Router(ChatServiceStub(channel), dispatch, cache, await ledger.conversation())
        if is_leased:
            await _lease(router)
        yield router


async def _lease(router: Router) -> None:
    """Gets the router a lease without limits, by a request of which nothing stays."""
    router.dispatch.script = [whole()]
    asked = router.ask(("cache-control", "no-store"))
    await router.ledger.grant(lease=OPEN_LEASE)
    router.ledger.acknowledge(await router.ledger.heard())
    await asked
    await router.dispatch.requests.get()
    router.dispatch.script = []


async def test_answer_leaves_only_after_its_intent_is_durable(kind: str) -> None:
    async with serving(kind) as router:
        router.dispatch.script = [whole()]
        asked = router.ask()
        request = await router.ledger.heard()
        [intent] = request.intents
        assert (intent.provider, intent.model, intent.requested_model, intent.streamed) == ("lab", "small", "small", False)
        dispatched = await router.dispatch.requests.get()
        assert (dispatched.request_id, list(dispatched.targets)) == (intent.request_id, [TARGET])
        # The provider has answered, and nothing of it is out: not even its end is booked, which comes before the answer leaves.
        done, _ = await asyncio.wait([asked], timeout=0.05)
        assert not done
        assert router.ledger.requests.empty()
        router.ledger.acknowledge(request)
        settlement = await router.ledger.heard()
        router.ledger.acknowledge(settlement, cost_nano_usd=9)
        answered = await asked
    assert answered.completion.choices[0].message.text == "Work."
    assert (answered.receipt.cost_nano_usd, answered.receipt.provider) == (9, "lab")
    assert settlement.settlements[0].create_time == intent.create_time != Timestamp()


async def test_method_that_is_called_decides_what_is_asked_for(kind: str) -> None:
    async with serving(kind) as router:
        router.dispatch.script = [whole()]
        contrary = chat_pb2.ChatRequest(extra_json=b'{"stream":null,"top_k":1}')
        contrary.MergeFrom(QUESTION)
        asked = asyncio.ensure_future(router.stub.CompleteChat(typed_pb.CompleteChatRequest(request=contrary), timeout=PATIENCE_S))
        for _ in range(2):
            router.ledger.acknowledge(await router.ledger.heard())
        await asked
        sent = (await router.dispatch.requests.get()).request
    assert (sent.HasField("stream"), sent.stream, sent.extra_json) == (True, False, b'{"top_k":1}')


async def test_stream_starts_only_after_its_intent_is_durable(kind: str) -> None:
    chunk = chat_pb2.ChatCompletionChunk(id="c-1", choices=[chat_pb2.ChunkChoice(delta=chat_pb2.Message(text="Work."))])
    more = asyncio.Event()
    selected = dispatch_pb.SelectedTarget(target=TARGET, attempt=1)
    async with serving(kind) as router:
        router.dispatch.script = [dispatch_pb.DispatchResponse(selected=selected, events=[chat_pb2.ChatEvent(chunk=chunk)]), more]
        call = router.stream()
        first = asyncio.create_task(call.read())
        request = await router.ledger.heard()
        await router.dispatch.requests.get()
        done, _ = await asyncio.wait([first], timeout=0.05)
        assert not done
        router.ledger.acknowledge(request)
        assert (await first).chunks[0].choices[0].delta.text == "Work."
        call.cancel()
        settled = await router.ledger.heard()
        assert [attempt.outcome for attempt in settled.settlements[0].attempts] == [entry_pb2.OUTCOME_CLIENT_LEFT]
        router.ledger.acknowledge(settled)


async def test_answer_whose_intent_is_not_taken_in_time_is_withheld_and_booked(kind: str) -> None:
    async with serving(kind, LEDGER_WAIT_SECONDS="1") as router:
        router.dispatch.script = [whole()]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await router.ask()
        assert GatewayError.from_rpc(refused.value).reason == ErrorReason.ERROR_REASON_LEDGER_UNAVAILABLE
        records = [await router.ledger.heard(), await router.ledger.heard()]
        [attempt] = records[1].settlements[0].attempts
        assert (attempt.tokens.input_tokens, attempt.tokens.output_tokens, attempt.tokens.estimated) == (5, 2, False)
        router.ledger.acknowledge(records[1])


async def test_answer_does_not_wait_long_for_its_figures(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.router.provider_answer.FIGURES_WAIT_S", 0.01)
    async with serving(kind) as router:
        router.dispatch.script = [whole()]
        asked = router.ask()
        router.ledger.acknowledge(await router.ledger.heard())
        answered = await asked
        router.ledger.acknowledge(await router.ledger.heard())
    assert not answered.receipt.HasField("cost_nano_usd")
    assert not answered.receipt.HasField("energy")


async def complete(router: Router, *metadata: tuple[str, str]) -> typed_pb.CompleteChatResponse:
    """An answer, with books that take everything."""
    asked = router.ask(*metadata)
    for _ in range(2):
        router.ledger.acknowledge(await router.ledger.heard(), cost_nano_usd=9)
    return await asked


async def test_complete_answer_is_stored_with_what_it_took(kind: str) -> None:
    async with serving(kind) as router:
        router.dispatch.script = [whole()]
        await complete(router, ("x-cache-namespace", "blue"), ("x-cache-ttl", "60"), ("authorization", "Bearer k"))
        stored = await asyncio.wait_for(router.cache.stores.get(), PATIENCE_S)
        [asked] = router.cache.lookups
    assert stored.key == asked.key
    assert (stored.key.namespace, len(stored.key.tenant), len(stored.key.digest)) == ("blue", 16, 32)
    assert (stored.entry.completion.choices[0].message.text, stored.entry.cost_nano_usd, stored.ttl.seconds) == ("Work.", 9, 60)
    assert (stored.entry.provider, stored.entry.model) == ("lab", "small")


async def test_words_travel_with_the_lookup_and_with_the_answer(kind: str) -> None:
    async with serving(kind) as router:
        router.dispatch.script = [whole()]
        await complete(router, ("x-cache-threshold", "0.9"), ("x-cache-tags", "faq, de,faq"))
        stored = await asyncio.wait_for(router.cache.stores.get(), PATIENCE_S)
        [asked] = router.cache.lookups
    assert (asked.wording.text, len(asked.wording.scope), asked.min_similarity, asked.model) == ("What is a joule?", 32, 0.9, "small")
    assert stored.wording == asked.wording
    assert list(stored.tags) == ["faq", "de"]
    assert not asked.HasField("request") and not stored.HasField("request")


@pytest.mark.parametrize(("mode", "default"), [("exact", "semantic"), (None, "exact")])
async def test_words_stay_where_only_the_same_request_will_do(kind: str, mode: str | None, default: str) -> None:
    async with serving(kind, CACHE_MODE=default) as router:
        router.dispatch.script = [whole()]
        await complete(router, *([("x-cache-mode", mode)] if mode else []))
        stored = await asyncio.wait_for(router.cache.stores.get(), PATIENCE_S)
        [asked] = router.cache.lookups
    assert not asked.HasField("wording") and not stored.HasField("wording")


async def test_mode_off_neither_reads_nor_keeps(kind: str) -> None:
    async with serving(kind) as router:
        router.dispatch.script = [whole()]
        answered = await complete(router, ("x-cache-mode", "off"))
        await complete(router)
        await asyncio.wait_for(router.cache.stores.get(), PATIENCE_S)
        assert (len(router.cache.lookups), router.cache.stores.qsize()) == (1, 0)
    assert answered.receipt.cache_status == receipt_pb2.CACHE_STATUS_BYPASS


async def test_callers_share_a_namespace_that_is_declared_public_and_no_other(kind: str) -> None:
    async with serving(kind, CACHE_PUBLIC_NAMESPACES="faq, press") as router:
        for namespace, key in (("faq", "a"), ("faq", "b"), ("own", "a"), ("own", "b")):
            router.dispatch.script = [whole()]
            cached = ("x-cache-namespace", namespace), ("authorization", f"Bearer {key}"), ("cache-control", "no-cache")
            await complete(router, *cached)
        keys = [(await asyncio.wait_for(router.cache.stores.get(), PATIENCE_S)).key for _ in range(4)]
    assert keys[0] == keys[1]
    assert len({key.tenant for key in keys}) == 3


async def test_answer_to_other_words_is_told_as_such_and_not_kept_near(kind: str) -> None:
    async with serving(kind) as router:
        entry = cache_pb.Entry(entry_id="e1", completion=completion(), provider="lab", model="small", expire_time=Timestamp(seconds=2**33))
        router.cache.found = cache_pb.LookUpResponse(entry=entry, tier=cache_pb.TIER_SEMANTIC, similarity=0.8125)
        for _ in range(2):
            answered = await router.ask()
            router.ledger.acknowledge(await router.ledger.heard())
            assert answered.receipt.cache_status == receipt_pb2.CACHE_STATUS_HIT_SEMANTIC
            assert answered.receipt.cache_similarity == 0.8125
        assert len(router.cache.lookups) == 2


@pytest.mark.parametrize("finish", [chat_pb2.FINISH_REASON_LENGTH, chat_pb2.FINISH_REASON_CONTENT_FILTER])
async def test_incomplete_answer_is_not_even_offered(kind: str, finish: chat_pb2.FinishReason.ValueType) -> None:
    async with serving(kind) as router:
        router.dispatch.script = [whole(completion(finish=finish))]
        await complete(router)
        router.dispatch.script = [whole(completion("sentinel"))]
        await complete(router)
        stored = await asyncio.wait_for(router.cache.stores.get(), PATIENCE_S)
    assert stored.entry.completion.choices[0].message.text == "sentinel"


async def test_hit_calls_no_provider_and_leaves_before_it_is_booked(kind: str) -> None:
    async with serving(kind) as router:
        later = Timestamp(seconds=2**33)
        entry = cache_pb.Entry(completion=completion(), provider="lab", model="small", expire_time=later, cost_nano_usd=9)
        router.cache.found = cache_pb.LookUpResponse(entry=entry, tier=cache_pb.TIER_EXACT, similarity=1)
        answered = await router.ask()
        booked = await router.ledger.heard()
        assert router.dispatch.requests.empty()
        router.ledger.acknowledge(booked)
    assert answered.receipt.cache_status == receipt_pb2.CACHE_STATUS_HIT_EXACT
    assert answered.completion.id != "c-1"
    assert len(booked.intents) == 0
    [attempt] = booked.settlements[0].attempts
    assert (attempt.attempt, attempt.outcome, attempt.saved_cost_nano_usd) == (0, entry_pb2.OUTCOME_CACHE_HIT, 9)


async def test_faulty_cache_is_a_miss(kind: str) -> None:
    async with serving(kind) as router:
        router.cache.fault = GatewayError(ErrorReason.ERROR_REASON_INTERNAL, "broken")
        router.dispatch.script = [whole()]
        answered = await complete(router)
    assert answered.receipt.cache_status == receipt_pb2.CACHE_STATUS_MISS


async def test_answer_is_found_again_in_the_router_itself(kind: str) -> None:
    async with serving(kind) as router:
        router.dispatch.script = [whole()]
        await complete(router)
        again = await router.ask()
        router.ledger.acknowledge(await router.ledger.heard())
        assert len(router.cache.lookups) == 1
    assert again.receipt.cache_status == receipt_pb2.CACHE_STATUS_HIT_EXACT


async def test_error_of_dispatch_reaches_the_caller_as_it_is(kind: str) -> None:
    rejected = GatewayError(ErrorReason.ERROR_REASON_PROVIDER_REJECTED, "no such tool", {"provider": "lab", "http_status": "422"})
    failed = dispatch_pb.FailedAttempt(target=TARGET, attempt=1, code=3, http_status=422)
    async with serving(kind) as router:
        router.dispatch.script = [dispatch_pb.DispatchResponse(failed_attempts=[failed]), rejected]
        asked = router.ask()
        request = await router.ledger.heard()
        router.ledger.acknowledge(request)
        if not request.settlements:
            router.ledger.acknowledge(await router.ledger.heard())
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await asked
    error = GatewayError.from_rpc(raised.value)
    assert (error.reason, error.http_status) == (ErrorReason.ERROR_REASON_PROVIDER_REJECTED, 422)
    assert json.loads(error.openai_body())["error"]["message"] == "no such tool"
