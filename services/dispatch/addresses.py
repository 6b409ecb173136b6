"""Addresses of providers as people write them, and as each protocol's paths need them."""

import ipaddress
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, urlsplit

_OLLAMA_PORT: Final = 11434
# What a protocol's own paths begin with: vendors' pages and SDKs show addresses with it and without it.
_BROUGHT: Final[Mapping[str, re.Pattern[str]]] = {
    "anthropic": re.compile(r"/v1$"),
    "azure": re.compile(r"/openai(/v1|/deployments)?$"),
    "cohere": re.compile(r"/v[12]$"),
    "gemini": re.compile(r"/v1(alpha|beta)?(/openai)?$"),
    "ollama": re.compile(r"/(v1|api)$"),
}


def normal(kind: str, address: str) -> str:
    """The address that the paths of a kind are appended to. What is no address stays as it is, for `problem` to find."""
    if kind == "ollama":
        address = _ollama(address)
    address = address.rstrip("/")
    return _BROUGHT[kind].sub("", address) if kind in _BROUGHT else address


def with_path(address: str, path: str) -> str:
    """The address with a path if it has none: some SDKs take their vendor's address without the path of its API."""
    return re.sub(r"^(https?://[^/]+)/?$", lambda found: found[1] + path, address)


def problem(url: str) -> str | None:
    """What is wrong with an address; never what it says, since people put keys there."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "the address is not a URL"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return "the address must be an http or https URL"
    if parts.username is not None or parts.query or parts.fragment:
        return "the address must not carry credentials, a query or a fragment; name the key's variable in api_key_env"
    return None


def _ollama(host: str) -> str:
    """From whatever OLLAMA_HOST may say: `host`, `host:port` or a URL."""
    try:
        parts = urlsplit(host if "://" in host else f"http://{host}")
    except ValueError:
        return host
    # 0.0.0.0 is where a server listens, not where it is found.
    netloc = parts.netloc.replace("0.0.0.0", "127.0.0.1")
    if "://" not in host and not re.search(r":\d+$", netloc):
        netloc = f"{netloc}:{_OLLAMA_PORT}"
    return SplitResult(parts.scheme, netloc, parts.path, parts.query, parts.fragment).geturl()


def is_this_machine(url: str) -> bool:
    """Whether an address is one's own: a server there takes its power here."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
