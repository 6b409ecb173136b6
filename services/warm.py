"""`joulegate warm`: sends a file of questions and answers to a running gateway, some lines at a time."""

import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx

LINES_AT_ONCE: Final = 200
TIMEOUT_S: Final = 60
# Complaints that are shown one by one.
SHOWN: Final = 20


class Destination(NamedTuple):
    """Where answers go: the gateway's address, its admin key, whose answers they are, and for which model where a line names none."""

    url: str
    admin_key: str
    tenant: str
    namespace: str
    model: str


class WarmError(Exception):
    """The gateway could not be asked, or refused; the words are for the operator."""


def main(file: Path, destination: Destination) -> int:
    """Sends the file and says what became of it. Gives the exit code: 0, 1 when lines were refused, 2 when it could not be sent."""
    stored = refused = 0
    try:
        with file.open("rb") as lines:
            for first, chunk in _chunks(lines):
                answer = _send(chunk, destination)
                stored += answer["stored"]
                for each in answer["refused"]:
                    refused += 1
                    if refused <= SHOWN:
                        print(f"{file}:{first + each['line'] - 1}: {each['reason']}", file=sys.stderr)
    except (OSError, WarmError) as error:
        print(f"joulegate warm: {error}", file=sys.stderr)
        return 2
    print(f"{stored} answers stored" + (f", {refused} lines refused" if refused else ""))
    return 1 if refused else 0


def _chunks(lines: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """The number of the first line of each chunk, and its text."""
    first = 1
    while chunk := list(islice(lines, LINES_AT_ONCE)):
        yield first, b"".join(chunk)
        first += len(chunk)


def _send(chunk: bytes, destination: Destination) -> dict[str, Any]:
    named = {"tenant": destination.tenant, "namespace": destination.namespace, "model": destination.model}
    headers = {"authorization": f"Bearer {destination.admin_key}", "content-type": "application/x-ndjson"}
    address = f"{destination.url.rstrip('/')}/api/cache/warm"
    try:
        response = httpx.post(address, params=named, content=chunk, headers=headers, timeout=TIMEOUT_S)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise WarmError(f"{destination.url} cannot be reached: {error}") from None
    if not response.is_success:
        raise WarmError(f"{destination.url} refused with {response.status_code}: {_said(response.content)}")
    answer: dict[str, Any] = response.json()
    return answer


def _said(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
