"""Keys through the real gateway, from the hands that make them to those that use them: with keys demanded and without."""

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import openai
import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask

from joulegate.ledger.v1 import admin_service_pb2 as pb
from joulegate.ledger.v1 import admin_service_pb2_grpc as pb_grpc
from joulegate.ledger.v1.key_pb2 import ApiKey
from services.router.policy import VIRTUAL_MODELS
from tests.fakes.openai_upstream import OpenAIUpstream, completion, stream
from tests.mesh.asking import CHAT, assert_openai_error, http_client, question
from tests.mesh.gateway import ADMIN_KEY, ONE_PROCESS, PROCESSES, Gateway, provider_table, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORIGIN = "https://app.example"
KEYS, TYPED_KEYS = "/api/admin/keys", "/api/admin/v1/keys"
# What is promised is two seconds; this is for a machine with little time for us.
PATIENCE_S = 30
KEPT_BY_ALL = {"cache-control": ""}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[OpenAIUpstream]:
    async with OpenAIUpstream() as upstream:
        yield upstream


def tables(upstream: OpenAIUpstream) -> str:
    names = {"lab": ["small", "large"], "spare": ["small", "other"]}
    return "".join(provider_table(name, upstream.base_url, models) for name, models in names.items()) + "[retry]\nattempts = 1\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[PROCESSES, ONE_PROCESS])
async def gateway(
    request: pytest.FixtureRequest, upstream: OpenAIUpstream, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateway]:
    """Nobody comes in without a key, and all that are there are made by the tests."""
    folder: Path = tmp_path_factory.mktemp(f"keys-{request.param}")
    async with running(folder, request.param, tables(upstream), AUTH_REQUIRED="true", CORS_ORIGINS=ORIGIN) as gateway:
        yield gateway


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_gateway(upstream: OpenAIUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    async with running(tmp_path_factory.mktemp("keys-open"), ONE_PROCESS, tables(upstream)) as gateway:
        yield gateway


@pytest.fixture
def lab(upstream: OpenAIUpstream) -> OpenAIUpstream:
    upstream.forget()
    return upstream


async def create(gateway: Gateway, **members: Any) -> dict[str, Any]:
    async with gateway.admin() as admin:
        response = await admin.post(KEYS, json={"name": "robot"} | members)
    assert (response.status_code, response.headers["content-type"]) == (201, "application/json"), response.text
    return dict(response.json())


def client(gateway: Gateway, key: str, **headers: str) -> httpx.AsyncClient:
    return http_client(gateway, authorization=f"Bearer {key}", **headers)


async def eventually(check: Callable[[], Awaitable[bool]]) -> float:
    """Waits until it holds; how long that took, in seconds."""
    began = time.monotonic()
    async with asyncio.timeout(PATIENCE_S):
        while not await check():
            await asyncio.sleep(0.01)
    return time.monotonic() - began


async def refused(http: httpx.AsyncClient) -> bool:
    """Whether the client's key is refused, by a path that calls no provider."""
    return (await http.get("/v1/models")).status_code == 401


async def real_models(http: httpx.AsyncClient) -> list[str]:
    """Those listed that a provider has, without what stands for them."""
    return [each["id"] for each in (await http.get("/v1/models")).json()["data"] if each["owned_by"] != "joulegate"]


async def test_key_is_made_used_booked_shown_and_deleted(gateway: Gateway, lab: OpenAIUpstream) -> None:
    made = await create(gateway, environment="production", rateLimitRpm=5)
    assert re.fullmatch("gw-prod-[0-9A-Za-z]{43}", made["key"])
    assert "warnings" not in made
    assert (made["name"], made["environment"], made["enabled"], made["rateLimitTpm"], made["lastUsedAt"]) == (
        *("robot", "production", True, 100_000),
        None,
    )
    lab.script(completion("Hello."), stream("Hello."))
    async with client(gateway, made["key"]) as http, http_client(gateway, **{"x-api-key": made["key"]}) as other:
        whole = await http.post(CHAT, json=question(user="somebody else"))
        streamed = await other.post(CHAT, json=question(stream=True))
        assert (whole.status_code, streamed.status_code) == (200, 200)
        for response in (whole, streamed):
            (row,) = await gateway.settled_entries(response.headers["x-request-id"])
            assert row["key_id"] == made["id"]
        async with gateway.admin() as admin:
            shown = {each["id"]: each for each in (await admin.get(KEYS)).json()}[made["id"]]
            assert shown["tokensUsedThisMonth"] > 0 and shown["lastUsedAt"] >= shown["createdAt"]
            assert shown["key"] == "gw-prod-…" and "warnings" not in shown
            # By its text, as that path has it.
            assert (await admin.delete(f"{KEYS}/{made['key']}")).json() == {"success": True}
            assert await eventually(lambda: refused(http)) < 2
            assert (await admin.delete(f"{KEYS}/{made['id']}")).json() == {"success": False}
            assert made["id"] not in [each["id"] for each in (await admin.get(KEYS)).json()]
        message = assert_openai_error(await http.post(CHAT, json=question()), 401, "authentication_error", "invalid_api_key")
        assert message == "This API key has been revoked."


@pytest.mark.parametrize("key", [None, "wrong", "gw-prod-" + "x" * 43, ADMIN_KEY])
async def test_unknown_key_is_refused_before_anything_is_read(gateway: Gateway, lab: OpenAIUpstream, key: str | None) -> None:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    async with http_client(gateway, **headers) as http:
        assert_openai_error(await http.post(CHAT, content=b"no JSON"), 401, "authentication_error", "invalid_api_key")
        assert_openai_error(await http.get("/v1/models"), 401, "authentication_error", "invalid_api_key")
        assert_openai_error(await http.get("/"), 401, "authentication_error", "invalid_api_key")
    assert not lab.calls


async def test_stream_that_runs_goes_on_when_its_key_is_revoked(gateway: Gateway, lab: OpenAIUpstream) -> None:
    made = await create(gateway)
    gate = asyncio.Event()
    lab.script(stream("One. ", gate, "Two."))
    async with client(gateway, made["key"]) as http, gateway.admin() as admin, client(gateway, made["key"]) as other:
        async with http.stream("POST", CHAT, json=question(stream=True)) as response:
            parts = response.aiter_bytes()
            held = await anext(parts)
            await admin.delete(f"{KEYS}/{made['id']}")
            await eventually(lambda: refused(other))
            gate.set()
            held += b"".join([part async for part in parts])
        assert b"Two." in held and b"[DONE]" in held


async def test_typed_keys_over_rest(gateway: Gateway, lab: OpenAIUpstream) -> None:
    async with gateway.admin() as admin:
        response = await admin.post(
            TYPED_KEYS, json={"name": "typed", "team": "red", "allowed_models": ["lab/small"], "tokens_per_minute": "90000"}
        )
        assert response.status_code == 201, response.text
        made = response.json()
        assert made["warnings"] == []
        path = f"{TYPED_KEYS}/{made['key']['key_id']}"
        assert (await admin.get(path)).json() == {"key": made["key"]}
        assert made["key"] in (await admin.get(TYPED_KEYS, params={"page_size": "1000"})).json()["keys"]
        page = (await admin.get(TYPED_KEYS, params={"page_size": "1"})).json()
        assert len(page["keys"]) == 1
        async with client(gateway, made["key_text"]) as http:
            assert await real_models(http) == ["small"]
            patched = await admin.patch(
                path, params={"update_mask": "allowed_models"}, json={"team": "blue", "allowed_models": ["l*", "other"]}
            )
            assert patched.status_code == 200, patched.text
            assert (patched.json()["key"]["team"], patched.json()["key"]["allowed_models"]) == ("red", ["l*", "other"])

            async def lists(*models: str) -> bool:
                return await real_models(http) == list(models)

            assert await eventually(lambda: lists("large", "other")) < 2
            await admin.patch(path, json={"enabled": False})
            assert await eventually(lambda: refused(http)) < 2
            problem = await http.post(CHAT, json=question())
            assert assert_openai_error(problem, 401, "authentication_error", "invalid_api_key") == "This API key is disabled."
            await admin.patch(path, json={"enabled": True})
            assert await eventually(lambda: lists("large", "other")) < 2
            revoked = await admin.delete(path)
            assert revoked.json()["key"]["revoke_time"]
            assert await eventually(lambda: refused(http)) < 2
        assert_openai_error(await admin.get(f"{TYPED_KEYS}/key_0"), 404, "invalid_request_error", "not_found")


async def test_typed_keys_over_grpc(gateway: Gateway) -> None:
    metadata = (("authorization", f"Bearer {ADMIN_KEY}"),)
    async with grpc.aio.insecure_channel(gateway.url.removeprefix("http://")) as channel:
        stub = pb_grpc.AdminServiceStub(channel)
        made = await stub.CreateKey(pb.CreateKeyRequest(key=ApiKey(name="grpc", tier="gold")), metadata=metadata)
        request = pb.UpdateKeyRequest(key=ApiKey(key_id=made.key.key_id, name="other"), update_mask=FieldMask(paths=["name", "tier"]))
        updated = (await stub.UpdateKey(request, metadata=metadata)).key
        assert (updated.name, updated.tier) == ("other", "")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.RevokeKey(pb.RevokeKeyRequest(key_id=made.key.key_id), metadata=(("authorization", f"Bearer {made.key_text}"),))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert (await stub.RevokeKey(pb.RevokeKeyRequest(key_id=made.key.key_id), metadata=metadata)).key.HasField("revoke_time")


async def test_key_uses_only_the_models_and_providers_that_it_may(gateway: Gateway, lab: OpenAIUpstream) -> None:
    made = await create(gateway, allowedModels=["spare/small", "large"])
    async with client(gateway, made["key"]) as http:
        listed = {each["id"]: each["providers"] for each in (await http.get("/v1/models")).json()["data"]}
        virtual = listed.pop("auto")
        assert sorted(virtual) == ["lab", "spare"], "a virtual model stands for what the key may use"
        assert {name: listed[name] for name in ("small", "large")} == {"small": ["spare"], "large": ["lab"]}
        assert listed.keys() == {"small", "large", *VIRTUAL_MODELS} - {"auto"}
        lab.script(completion("From the spare."))
        answer = await http.post(CHAT, json=question())
        assert answer.headers["x-joulegate-provider"] == "spare"
        for model in ("other", "lab/small", "spare/other"):
            response = await http.post(CHAT, json=question(model=model))
            message = assert_openai_error(response, 403, "invalid_request_error", "model_not_found", param="model")
            assert model in message
        unknown = await http.post(CHAT, json=question(model="nowhere"))
        assert_openai_error(unknown, 404, "invalid_request_error", "model_not_found", param="model")
        assert (await http.get("/v1/models/small")).json()["providers"] == ["spare"]
        assert_openai_error(await http.get("/v1/models/other"), 404, "invalid_request_error", "model_not_found", param="model")
    assert len(lab.calls) == 1


async def test_cached_answers_stay_within_an_organisation_and_within_what_a_key_may_use(gateway: Gateway, lab: OpenAIUpstream) -> None:
    organisation = f"acme {time.monotonic()}"
    first, second, narrow = [
        (await create(gateway, organisation=organisation, team=team, allowedModels=models))["key"]
        for team, models in (("red", []), ("blue", []), ("red", ["other"]))
    ]
    # The same team's name in no organisation, or in another, is another team.
    strangers = [(await create(gateway, **members))["key"] for members in ({"team": "red"}, {"organisation": "red"}, {})]
    asked = question("What is shared?", model="lab/small")

    async def status_of(key: str) -> str:
        async with client(gateway, key, **KEPT_BY_ALL) as http:
            response = await http.post(CHAT, json=asked)
            return str(response.headers.get("x-joulegate-cache", response.status_code))

    lab.script(completion("This."), *[completion("That.")] * len(strangers))
    assert [await status_of(key) for key in (first, second, narrow)] == ["miss", "hit-exact", "403"]
    assert [await status_of(key) for key in strangers] == ["miss"] * 3
    assert len(lab.calls) == 1 + len(strangers)


async def test_key_expires_by_itself(gateway: Gateway) -> None:
    made = await create(gateway, expiresAt=(datetime.now(UTC) + timedelta(seconds=5)).isoformat())
    async with client(gateway, made["key"]) as http:
        assert not await refused(http)
        await eventually(lambda: refused(http))
        assert datetime.now(UTC) >= datetime.fromisoformat(made["expiresAt"])
        message = assert_openai_error(await http.get("/v1/models"), 401, "authentication_error", "invalid_api_key")
        assert message == "This API key has expired."


async def test_sdk_with_a_key_works_and_with_a_revoked_one_raises(gateway: Gateway, lab: OpenAIUpstream) -> None:
    made = await create(gateway)
    lab.script(completion("Hello."))
    async with openai.AsyncOpenAI(base_url=gateway.base_url, api_key=made["key"], max_retries=0) as sdk, gateway.admin() as admin:
        answer = await sdk.chat.completions.create(model="lab/large", messages=[{"role": "user", "content": "Who am I?"}])
        assert answer.choices[0].message.content == "Hello."
        with pytest.raises(openai.PermissionDeniedError):
            narrow = await create(gateway, allowedModels=["small"])
            await sdk.with_options(api_key=narrow["key"]).chat.completions.create(
                model="large", messages=[{"role": "user", "content": "?"}]
            )
        await admin.delete(f"{KEYS}/{made['id']}")

        async def is_refused() -> bool:
            try:
                await sdk.models.list()
            except openai.AuthenticationError as error:
                return error.code == "invalid_api_key"
            return False

        assert await eventually(is_refused) < 2


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ("no JSON", None),
        ("{}", None),
        ('{"name": "n", "rateLimitRpm": -1}', "rateLimitRpm"),
        ('{"name": "n", "monthlyCostBudgetUsd": 1e300}', "monthlyCostBudgetUsd"),
        ('{"name": "n", "expiresAt": "2001-01-01T00:00:00Z"}', "expire_time"),
    ],
)
async def test_what_no_key_can_have_is_refused(gateway: Gateway, body: str, param: str | None) -> None:
    async with gateway.admin() as admin:
        response = await admin.post(KEYS, content=body, headers={"content-type": "application/json"})
    assert_openai_error(response, 400, "invalid_request_error", None, param=param)


@pytest.mark.parametrize("key", ["nothing", "wrong"])
async def test_admin_paths_are_for_the_admin_key_alone(gateway: Gateway, key: str) -> None:
    made = await create(gateway)
    for presented in (key, made["key"]):
        async with httpx.AsyncClient(base_url=gateway.url, headers={"authorization": f"Bearer {presented}"}) as http:
            for method, path in (
                *(("POST", KEYS), ("GET", KEYS), ("DELETE", f"{KEYS}/{made['id']}"), ("POST", TYPED_KEYS), ("GET", TYPED_KEYS)),
                *((method, f"{TYPED_KEYS}/{made['id']}") for method in ("GET", "PATCH", "DELETE")),
            ):
                response = await http.request(method, path, json={} if method in ("POST", "PATCH") else None)
                assert_openai_error(response, 401, "authentication_error", "invalid_api_key")


async def test_paths_say_their_methods_and_pages_of_other_origins_may_use_them(gateway: Gateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, headers={"origin": ORIGIN}) as page:
        for path, methods in (
            (KEYS, "GET, POST"),
            (f"{KEYS}/k", "DELETE"),
            (TYPED_KEYS, "GET, POST"),
            (f"{TYPED_KEYS}/k", "GET, PATCH, DELETE"),
        ):
            wrong = await page.put(path)
            assert (wrong.status_code, wrong.headers["allow"]) == (405, methods)
            assert_openai_error(wrong, 405, "invalid_request_error", "method_not_allowed")
            for method in methods.split(", "):
                asking = {"access-control-request-method": method, "access-control-request-headers": "authorization"}
                allowed = (await page.options(path, headers=asking)).headers["access-control-allow-methods"]
                assert method in allowed.split(", ")


async def test_text_of_a_key_is_in_no_log_no_metric_and_no_file(gateway: Gateway, lab: OpenAIUpstream) -> None:
    """Whatever is done with it, also at paths that are not meant for it."""
    made = await create(gateway, team="canary")
    text = made["key"]
    lab.script(completion("Hello."), stream("Hello."))
    shown = []
    async with client(gateway, text) as http, gateway.admin() as admin:
        await http.post(CHAT, json=question())
        shown.append((await http.post(CHAT, json=question(stream=True))).text)
        shown += [
            (await admin.get(path)).text for path in (KEYS, f"{TYPED_KEYS}?page_size=1000", "/api/admin/entries?page_size=1000", "/health")
        ]
        for method, path in (
            *(("GET", f"{KEYS}/{text}"), ("GET", f"{TYPED_KEYS}/{text}"), ("DELETE", f"{TYPED_KEYS}/{text}"), ("GET", f"/nowhere/{text}")),
            *(("GET", f"/v1/models/{text}"), ("DELETE", f"{KEYS}/{text}x"), ("DELETE", f"{KEYS}/{text}")),
        ):
            response = await admin.request(method, path)
            if "models" not in path:
                shown.append(response.text)
        await eventually(lambda: refused(http))
        shown.append((await http.post(CHAT, json=question())).text)
        urls = re.findall(r"http://\S+/metrics", gateway.text)
        assert urls
        shown += [(await admin.get(url)).text for url in urls]
        last = await admin.get("/v1/models")
    await gateway.says(last.headers["x-request-id"], times=2)
    secret = text.removeprefix("gw-dev-")
    assert not [each for each in shown if secret in each]
    assert secret not in gateway.text and "may hold a key" in gateway.text
    data = Path(next(line for line in gateway.text.splitlines() if line.startswith("  data ")).split()[1])
    kept = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    assert any(b"canary" in content for content in kept.values())
    assert not [path for path, content in kept.items() if secret.encode() in content]


async def test_known_key_is_served_from_the_cache_while_the_ledger_is_away(gateway: Gateway, lab: OpenAIUpstream) -> None:
    if "ledger" not in gateway.pids:
        pytest.skip("in one process the ledger does not die alone")
    made = await create(gateway)
    lab.script(completion("Kept."))
    async with client(gateway, made["key"], **KEPT_BY_ALL) as http:
        asked = question("What survives?", model="lab/large")
        assert (await http.post(CHAT, json=asked)).headers["x-joulegate-cache"] == "miss"
        dead = gateway.pids["ledger"]
        os.kill(dead, signal.SIGKILL)
        for _ in range(20):
            assert (await http.post(CHAT, json=asked)).headers["x-joulegate-cache"] == "hit-exact"
        await gateway.says('"event": ?"child_ended"')

        async def is_back() -> bool:
            async with gateway.admin() as admin:
                return (await admin.get(KEYS)).status_code == 200

        await eventually(is_back)
        async with gateway.admin() as admin:
            assert (await admin.delete(f"{KEYS}/{made['id']}")).json() == {"success": True}
        assert await eventually(lambda: refused(http)) < 2


async def test_where_keys_are_not_demanded_those_that_there_are_still_count(open_gateway: Gateway, lab: OpenAIUpstream) -> None:
    made = await create(open_gateway, allowedModels=["small"])
    lab.script(*[completion("Hello.")] * 4)
    marks = {}
    async with http_client(open_gateway) as http:
        for name, key in (("anonymous", None), ("any", "anything"), ("unknown", "gw-dev-" + "x" * 43), ("known", made["key"])):
            headers = {} if key is None else {"authorization": f"Bearer {key}"}
            response = await http.post(CHAT, json=question(), headers=headers)
            assert response.status_code == 200, response.text
            (row,) = await open_gateway.settled_entries(response.headers["x-request-id"])
            marks[name] = row["key_id"]
        assert marks["known"] == made["id"] and len(set(marks.values())) == 4
        # This machine's address, hashed.
        assert re.fullmatch("anon_[0-9a-f]{16}", marks["anonymous"])
        known = {"authorization": f"Bearer {made['key']}"}
        assert (await http.post(CHAT, json=question(model="large"), headers=known)).status_code == 403
        async with open_gateway.admin() as admin:
            await admin.delete(f"{KEYS}/{made['id']}")
        assert await eventually(lambda: _is_401(http, known)) < 2


async def _is_401(http: httpx.AsyncClient, headers: dict[str, str]) -> bool:
    return (await http.get("/v1/models", headers=headers)).status_code == 401


async def test_gateway_that_would_let_nobody_in_does_not_start(upstream: OpenAIUpstream, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="AUTH_REQUIRED=true: there is no key that could be presented"):
        async with running(tmp_path, ONE_PROCESS, tables(upstream), AUTH_REQUIRED="true", ADMIN_API_KEY=""):
            pass
