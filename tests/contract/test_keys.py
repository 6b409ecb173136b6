"""Keys as AdminService and KeyService promise them, built by the ledger's composition root: on every kind of channel, on both stores."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import sqlalchemy as sa
import structlog
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from joulegate.ledger.v1 import admin_service_pb2 as pb
from joulegate.ledger.v1 import admin_service_pb2_grpc, key_service_pb2, key_service_pb2_grpc, ledger_service_pb2, ledger_service_pb2_grpc
from joulegate.ledger.v1.key_pb2 import ApiKey, KeyEnvironment
from services.ledger.__main__ import build
from services.ledger.budgets import NOTHING
from services.ledger.engines import Place, open_engine
from services.ledger.key_store import open_keys
from services.ledger.keys import Keys, KeyThreads
from services.ledger.settings import LedgerSettings
from services.runtime.errors import GatewayError
from services.runtime.settings import SettingsError, load
from tests.contract.channels import KINDS, new_mesh, serve
from tests.postgresql import variables_of
from tests.unit.ledger.samples import BEGAN, HeldClock, settlement

PATIENCE_S = 30
OPERATOR = (("authorization", "Bearer operator"),)
FUTURE = Timestamp(seconds=4_000_000_000)


def variables(place: Place) -> dict[str, str]:
    return {**variables_of(place), "ADMIN_API_KEY": "operator"}


class Ledger:
    """A ledger under test, by its channel."""

    def __init__(self, channel: grpc.aio.Channel, draining: asyncio.Event) -> None:
        self.admin = admin_service_pb2_grpc.AdminServiceStub(channel)
        self.keys = key_service_pb2_grpc.KeyServiceStub(channel)
        self.books = ledger_service_pb2_grpc.LedgerServiceStub(channel)
        self.draining = draining

    async def create(self, **fields: Any) -> pb.CreateKeyResponse:
        request = pb.CreateKeyRequest(key=ApiKey(**{"name": "robot"} | fields))
        return await self.admin.CreateKey(request, metadata=OPERATOR)

    async def update(self, *paths: str, **fields: Any) -> pb.UpdateKeyResponse:
        request = pb.UpdateKeyRequest(key=ApiKey(**fields), update_mask=FieldMask(paths=paths))
        return await self.admin.UpdateKey(request, metadata=OPERATOR)

    async def revoke(self, key_id: str) -> ApiKey:
        return (await self.admin.RevokeKey(pb.RevokeKeyRequest(key_id=key_id), metadata=OPERATOR)).key

    async def get(self, key_id: str) -> ApiKey:
        return (await self.admin.GetKey(pb.GetKeyRequest(key_id=key_id), metadata=OPERATOR)).key

    async def page(self, **fields: Any) -> pb.ListKeysResponse:
        return await self.admin.ListKeys(pb.ListKeysRequest(**fields), metadata=OPERATOR)

    async def resolve(self, text: str) -> ApiKey | None:
        digest = hashlib.sha256(text.encode()).digest()
        response = await self.keys.ResolveKey(key_service_pb2.ResolveKeyRequest(digest=digest))
        return response.key if response.HasField("key") else None

    async def post(self, **members: Any) -> Any:
        request = pb.CreateApiKeyRequest(body=HttpBody(data=json.dumps({"name": "robot"} | members).encode()))
        return json.loads((await self.admin.CreateApiKey(request, metadata=OPERATOR)).data)

    async def listed(self) -> Any:
        return json.loads((await self.admin.ListApiKeys(pb.ListApiKeysRequest(), metadata=OPERATOR)).data)

    async def delete(self, key: str) -> Any:
        return json.loads((await self.admin.DeleteApiKey(pb.DeleteApiKeyRequest(key=key), metadata=OPERATOR)).data)


@asynccontextmanager
async def started(place: Place, kind: str = "local", **environment: str) -> AsyncIterator[Ledger]:
    mesh = new_mesh()
    async with build(load(LedgerSettings, variables(place) | environment), mesh), serve(mesh, kind) as channel:
        yield Ledger(channel, mesh.draining)


@pytest.fixture(params=KINDS)
async def ledger(request: pytest.FixtureRequest, place: Place) -> AsyncIterator[Ledger]:
    async with started(place, request.param) as ledger:
        yield ledger


async def refusal(call: Any) -> GatewayError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return GatewayError.from_rpc(raised.value)


async def test_key_is_made_once_seen_and_found_by_its_text_alone(ledger: Ledger) -> None:
    terms: dict[str, Any] = {"team": "red", "organisation": "acme", "allowed_models": ["gpt-*"], "expire_time": FUTURE}
    made = await ledger.create(environment=KeyEnvironment.KEY_ENVIRONMENT_PRODUCTION, **terms)
    assert made.key_text.startswith("gw-prod-") and not made.warnings
    assert (made.key.enabled, made.key.team, made.key.organisation, list(made.key.allowed_models)) == (True, "red", "acme", ["gpt-*"])
    shown = await ledger.get(made.key.key_id)
    assert shown == made.key and made.key_text not in str(shown)
    assert await ledger.resolve(made.key_text) == made.key
    assert await ledger.resolve(made.key_text[:-1]) is None
    assert await ledger.resolve(made.key.key_id) is None


async def test_keys_are_paged_newest_first_and_new_ones_shift_nothing(ledger: Ledger) -> None:
    ids = [(await ledger.create(name=f"n{number}")).key.key_id for number in range(5)]
    await ledger.revoke(ids[3])
    first = await ledger.page(page_size=2)
    await ledger.create(name="late")
    second = await ledger.page(page_size=2, page_token=first.next_page_token)
    assert [key.key_id for page in (first, second) for key in page.keys] == [ids[4], ids[2], ids[1], ids[0]]
    assert not second.next_page_token
    assert ids[3] in [key.key_id for key in (await ledger.page(show_revoked=True)).keys]
    # A token is for the list that it was given out for.
    for request in ({"page_token": first.next_page_token, "show_revoked": True}, {"page_token": "made-up"}, {"page_size": -1}):
        assert (await refusal(ledger.page(**request))).reason == ErrorReason.ERROR_REASON_INVALID_REQUEST


async def test_update_changes_what_the_mask_names(ledger: Ledger) -> None:
    key = (await ledger.create(team="red", allowed_models=["a"])).key
    updated = (await ledger.update("enabled", "allowed_models", key_id=key.key_id, enabled=False, team="blue")).key
    assert (updated.enabled, updated.team, list(updated.allowed_models)) == (False, "red", [])
    assert await ledger.get(key.key_id) == updated
    problem = await refusal(ledger.update("environment", key_id=key.key_id))
    assert problem.metadata["param"] == "update_mask"
    assert (await refusal(ledger.update("name", key_id=key.key_id))).metadata["param"] == "name"
    assert (await refusal(ledger.update(key_id=key.key_id, expire_time=BEGAN))).metadata["param"] == "expire_time"
    assert await ledger.get(key.key_id) == updated


async def test_revoked_key_stays_revoked_and_seen(ledger: Ledger) -> None:
    made = await ledger.create()
    revoked = await ledger.revoke(made.key.key_id)
    assert revoked.HasField("revoke_time")
    assert await ledger.revoke(made.key.key_id) == revoked
    found = await ledger.resolve(made.key_text)
    assert found is not None and found.revoke_time == revoked.revoke_time
    assert (
        await refusal(ledger.update("enabled", key_id=made.key.key_id, enabled=True))
    ).reason == ErrorReason.ERROR_REASON_INVALID_REQUEST
    for call in (
        ledger.get("key_0"),
        ledger.get(""),
        ledger.get("\0"),
        ledger.revoke("a\0b"),
        ledger.revoke(made.key_text),
        ledger.update("name", key_id="key_0", name="n"),
    ):
        problem = await refusal(call)
        assert (problem.reason, problem.message) == (ErrorReason.ERROR_REASON_NOT_FOUND, "there is no such key")


async def test_documents_of_earlier_clients_do_the_same(ledger: Ledger) -> None:
    made = await ledger.post(environment="staging", rateLimitRpm=5)
    assert made["key"].startswith("gw-stg-") and "warnings" not in made
    other = await ledger.post()
    found = await ledger.resolve(made["key"])
    assert found is not None and (found.key_id, found.requests_per_minute, found.tokens_per_minute) == (made["id"], 5, 100_000)
    assert [each["id"] for each in await ledger.listed()] == [other["id"], made["id"]]
    assert made["key"] not in json.dumps(await ledger.listed())
    # By its id or its text; and only once.
    assert [await ledger.delete(made["id"]), await ledger.delete(other["key"])] == [{"success": True}] * 2
    assert [await ledger.delete(key) for key in (made["id"], other["key"], "gw-dev-unknown", "", "\0")] == [{"success": False}] * 5
    assert await ledger.listed() == []


async def test_every_admin_call_needs_the_admin_key(ledger: Ledger) -> None:
    made = await ledger.create()
    stub, key_id = ledger.admin, made.key.key_id
    calls: list[tuple[Any, Any]] = [
        (stub.CreateKey, pb.CreateKeyRequest(key=ApiKey(name="n"))),
        (stub.GetKey, pb.GetKeyRequest(key_id=key_id)),
        (stub.ListKeys, pb.ListKeysRequest()),
        (stub.UpdateKey, pb.UpdateKeyRequest(key=ApiKey(key_id=key_id, name="n"))),
        (stub.RevokeKey, pb.RevokeKeyRequest(key_id=key_id)),
        (stub.CreateApiKey, pb.CreateApiKeyRequest(body=HttpBody(data=b'{"name": "n"}'))),
        (stub.ListApiKeys, pb.ListApiKeysRequest()),
        (stub.DeleteApiKey, pb.DeleteApiKeyRequest(key=key_id)),
    ]
    for call, request in calls:
        for metadata in ((), (("authorization", f"Bearer {made.key_text}"),), (("x-api-key", "operator"),)):
            assert (await refusal(call(request, metadata=metadata))).reason == ErrorReason.ERROR_REASON_INVALID_API_KEY
    assert await ledger.get(key_id) == made.key


async def test_watcher_is_told_of_each_change_and_of_the_salt_once(ledger: Ledger) -> None:
    watch = aiter(ledger.keys.WatchKeys(key_service_pb2.WatchKeysRequest()))
    first = await asyncio.wait_for(anext(watch), PATIENCE_S)
    assert len(first.anonymous_salt) == 32 and not first.changed_digests
    made = await ledger.create()
    digests = [hashlib.sha256(made.key_text.encode()).digest()]
    for change in (ledger.get, lambda key_id: ledger.update(key_id=key_id, team="red"), ledger.revoke):
        await change(made.key.key_id)
    # Where ledgers share books a change is told twice.
    told = [await asyncio.wait_for(anext(watch), PATIENCE_S) for _ in range(3)]
    assert [(list(each.changed_digests), each.anonymous_salt) for each in told] == [(digests, b"")] * 3
    again = aiter(ledger.keys.WatchKeys(key_service_pb2.WatchKeysRequest()))
    assert (await asyncio.wait_for(anext(again), PATIENCE_S)).anonymous_salt == first.anonymous_salt


async def test_watch_ends_when_the_ledger_drains(ledger: Ledger) -> None:
    watch = aiter(ledger.keys.WatchKeys(key_service_pb2.WatchKeysRequest()))
    await asyncio.wait_for(anext(watch), PATIENCE_S)
    ledger.draining.set()
    assert await asyncio.wait_for(anext(watch, None), PATIENCE_S) is None


async def test_use_is_read_off_the_books(place: Place) -> None:
    """Of this month alone, but the last use of ever."""
    async with started(place) as ledger:
        made = (await ledger.create()).key
        old, fresh = Timestamp(seconds=1_600_000_000), made.create_time
        call: Any = ledger.books.Book()
        await call.write(ledger_service_pb2.BookRequest(hello=ledger_service_pb2.Hello(router_id="r")))
        await call.read()
        for number, (key_id, time) in enumerate([(made.key_id, old), (made.key_id, fresh), (made.key_id, fresh), ("other", fresh)]):
            record = settlement(f"r{number}", key_id=key_id, create_time=time)
            await call.write(ledger_service_pb2.BookRequest(settlements=[record]))
            [ack] = (await call.read()).settlement_acks
        shown = await ledger.get(made.key_id)
        assert (shown.tokens_used_this_month, shown.cost_nano_usd_this_month) == (2 * 140, 2 * ack.cost_nano_usd)
        assert shown.last_use_time == fresh
        [document] = await ledger.listed()
        assert (document["tokensUsedThisMonth"], document["costUsedThisMonthUsd"]) == (280, 2 * ack.cost_nano_usd / 1e9)
        call.cancel()


async def test_keys_survive_a_restart_and_their_texts_are_nowhere(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    with structlog.testing.capture_logs() as logs:
        async with started(place) as ledger:
            made, posted = await ledger.create(), await ledger.post()
            await ledger.update(key_id=made.key.key_id, team="red")
            await ledger.delete(posted["key"])
            await refusal(ledger.get(posted["key"]))
        async with started(place) as ledger:
            found = await ledger.resolve(made.key_text)
            assert found is not None and found.team == "red"
    assert [entry["event"] for entry in logs if entry["event"].startswith("key_")] == ["key_created"] * 2 + ["key_changed"] * 2
    secrets = [text.removeprefix("gw-dev-") for text in (made.key_text, posted["key"])]
    written = "\n".join([str(logs), *capsys.readouterr()])
    assert not [secret for secret in secrets if secret in written + everything(place)]


def everything(place: Place) -> str:
    """All that the store holds, as text."""
    engine = open_engine(place, "full", read_only=True)
    tables = sa.MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        rows = [str(tuple(row)) for table in tables.tables.values() for row in connection.execute(sa.select(table))]
    engine.dispose()
    files = [place, *place.parent.glob("ledger.db-*")] if isinstance(place, Path) else []
    return "\n".join(rows) + "".join(file.read_bytes().decode("latin-1") for file in files)


async def test_ledger_that_would_let_nobody_in_does_not_start(tmp_path: Path) -> None:
    place = tmp_path / "ledger.db"
    with pytest.raises(SettingsError, match="AUTH_REQUIRED=true: there is no key that could be presented; set ADMIN_API_KEY"):
        async with started(place, AUTH_REQUIRED="true", ADMIN_API_KEY=""):
            pass
    async with started(place, AUTH_REQUIRED="true", ADMIN_API_KEY="", GATEWAY_API_KEY="static"):
        pass
    async with started(place, AUTH_REQUIRED="true") as ledger:
        made = await ledger.create()
    async with started(place, AUTH_REQUIRED="true", ADMIN_API_KEY="") as ledger:
        assert await ledger.resolve(made.key_text) == made.key


async def test_ledgers_that_share_the_books_tell_each_others_changes(place: Place) -> None:
    """Each with connections of its own, and only one of them asked to change anything."""
    if isinstance(place, Path):
        pytest.skip("a file has one ledger")
    async with started(place) as ledger:
        with open_keys(place, "full", lambda _: NOTHING) as stores, ThreadPoolExecutor(3) as threads:
            other = Keys(*stores, KeyThreads(threads, threads, threads), HeldClock())
            following = asyncio.create_task(other.follow(stores[1].revision()))
            changes = aiter(other.changes())
            assert await anext(changes) == []
            made = await ledger.create()
            assert await asyncio.wait_for(anext(changes), PATIENCE_S) == [hashlib.sha256(made.key_text.encode()).digest()]
            await ledger.revoke(made.key.key_id)
            assert len(await asyncio.wait_for(anext(changes), PATIENCE_S)) == 1
            following.cancel()
            await asyncio.wait([following])
            await changes.aclose()  # type: ignore[attr-defined]
            salts = [await other.salt(), await Keys(*stores, KeyThreads(threads, threads, threads), HeldClock()).salt()]
            assert salts[0] == salts[1]


async def test_keys_made_at_once_are_all_kept_and_each_change_has_a_number(place: Place) -> None:
    """By as many ledgers as may share the books: else a change could be seen before one with a lower number."""
    async with AsyncExitStack() as stack:
        ledgers = [await stack.enter_async_context(started(place)) for _ in range(1 if isinstance(place, Path) else 3)]
        made = await asyncio.gather(*(ledgers[number % len(ledgers)].create(name=f"n{number}") for number in range(60)))
        await asyncio.gather(*(ledgers[number % len(ledgers)].revoke(made[number].key.key_id) for number in range(30)))
        assert len((await ledgers[0].page()).keys) == 30
    engine = open_engine(place, "full", read_only=True)
    with engine.connect() as connection:
        revisions = connection.exec_driver_sql("SELECT revision FROM api_keys").scalars().all()
    engine.dispose()
    assert len(set(revisions)) == 60 and max(revisions) == 90
