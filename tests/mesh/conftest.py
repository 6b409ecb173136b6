"""One gateway of each kind for the whole session, in front of two fake providers that each test scripts anew."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fakes.openai_upstream import OpenAIUpstream
from tests.mesh.gateway import ONE_PROCESS, PROCESSES, Gateway, provider_table, running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def upstreams() -> AsyncIterator[tuple[OpenAIUpstream, OpenAIUpstream]]:
    async with OpenAIUpstream() as first, OpenAIUpstream() as second:
        yield first, second


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=[PROCESSES, ONE_PROCESS])
async def gateway(
    request: pytest.FixtureRequest, upstreams: tuple[OpenAIUpstream, OpenAIUpstream], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateway]:
    """Model `small` is served by `lab` alone, `shared` by `lab` and then `backup`, `demo` by the built-in provider."""
    lab, backup = upstreams
    tables = provider_table("lab", lab.base_url, ["small", "shared"]) + provider_table("backup", backup.base_url, ["shared"])
    folder: Path = tmp_path_factory.mktemp(str(request.param))
    async with running(folder, request.param, tables + "[retry]\nattempts = 1\n") as gateway:
        yield gateway


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
