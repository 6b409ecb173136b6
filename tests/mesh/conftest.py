"""One gateway of each kind for the whole session, in front of two fake providers that each test scripts anew."""

from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from services.router.policy import VIRTUAL_MODELS
from tests.fakes.openai_upstream import OpenAIUpstream
from tests.mesh.gateway import ONE_PROCESS, PROCESSES, RUNNING, Gateway, provider_table, running

# One call at each provider, and no breaker: what fails in one test is not to be held against the next.
POLICY = "[retry]\nattempts = 1\n[breaker]\nfailures = 10000\nminimum_calls = 1000000\n"
LAST_WORDS: Final = 6000


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Beside a failure stands what each gateway wrote last."""
    report = yield
    if report.failed:
        report.sections += [(f"gateway at {each.url}", each.text[-LAST_WORDS:]) for each in RUNNING]
    return report


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def upstreams() -> AsyncIterator[tuple[OpenAIUpstream, OpenAIUpstream]]:
    async with OpenAIUpstream() as first, OpenAIUpstream() as second:
        yield first, second


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=[PROCESSES, ONE_PROCESS])
async def gateway(
    request: pytest.FixtureRequest, upstreams: tuple[OpenAIUpstream, OpenAIUpstream], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateway]:
    """Model `small` is served by `lab` alone, `shared` by `lab` and then `backup`, `hasty` by `hasty`, which is `lab` with little patience,
    and `demo` by the built-in provider.

    So are the fresh ones of `small_models` and `shared_models`.
    """
    lab, backup = upstreams
    small, shared = ([name, *fresh(name)] for name in ("small", "shared"))
    tables = provider_table("lab", lab.base_url, small + shared) + provider_table("backup", backup.base_url, shared)
    tables += provider_table("hasty", lab.base_url, ["hasty"], patience_s=2)
    folder: Path = tmp_path_factory.mktemp(str(request.param))
    async with running(folder, request.param, tables + POLICY) as gateway:
        yield gateway


def listed_models() -> list[str]:
    """What the gateway lists, in its order."""
    return ["small", *fresh("small"), "shared", *fresh("shared"), "hasty", "demo", *VIRTUAL_MODELS]


def fresh(name: str) -> list[str]:
    """Models for tests of limits: a provider that has said until when it wants no calls of a model gets none, of whichever test."""
    return [f"{name}-{number}" for number in range(64)]


@pytest.fixture(scope="session")
def small_models(gateway: Gateway) -> Iterator[str]:
    """Each of them for one question only."""
    return iter(fresh("small"))


@pytest.fixture(scope="session")
def shared_models(gateway: Gateway) -> Iterator[str]:
    """Each of them for one question only."""
    return iter(fresh("shared"))


@pytest.fixture
def lab(upstreams: tuple[OpenAIUpstream, OpenAIUpstream]) -> Iterator[OpenAIUpstream]:
    """The first provider, with an empty record. What a test scripts it must use up."""
    yield from _fresh(upstreams[0])


@pytest.fixture
def backup(upstreams: tuple[OpenAIUpstream, OpenAIUpstream]) -> Iterator[OpenAIUpstream]:
    """The second provider, likewise."""
    yield from _fresh(upstreams[1])


def _fresh(upstream: OpenAIUpstream) -> Iterator[OpenAIUpstream]:
    upstream.forget()
    try:
        yield upstream
        upstream.check()
    finally:
        upstream.forget()
