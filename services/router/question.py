"""One request as the pipeline sees it, whichever face it came through."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
from google.protobuf import timestamp_pb2

from joulegate.cache.v1 import cache_service_pb2 as cache_pb
from joulegate.chat.v1 import chat_pb2
from services.router.controls import CacheControls
from services.router.slate import Asked
from services.router.wishes import NO_WISHES, Wishes
from services.runtime.identity import Caller
from services.wire.eligibility import question_text
from services.wire.extensions import EXTENSION_FIELDS
from services.wire.fields import without_extra
from services.wire.fingerprint import exact_digest, scope_digest

# Whose answers a public namespace holds. No tenant of a caller has this name.
PUBLIC_TENANT = "\0public"

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Counted(NamedTuple):
    """A request that no provider is called for, as its settlement has to name it."""

    create_time: timestamp_pb2.Timestamp
    # The lease under which it was let in; empty for none.
    lease_id: str = ""


@dataclass(slots=True)
class Ticket:
    """What letting a request in has to say with its answer, filled in on the way."""

    rate_headers: Sequence[tuple[str, str]] = ()
    # A request that is answered without a provider, as it was counted.
    counted: Counted | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, by whom and under which conditions. `request` is what providers get, but for the model's name."""

    request_id: str
    request: chat_pb2.ChatRequest
    # The model as the caller named it.
    model: str
    key: cache_pb.EntryKey
    caller: Caller
    controls: CacheControls
    # Wishes of the caller that were understood and are not met; said in `x-joulegate-warnings`.
    warnings: tuple[str, ...]
    # Metadata that calls on behalf of this request carry.
    trace: tuple[tuple[str, str], ...]
    # Monotonic seconds.
    arrived_at: float
    timeout_s: float
    wishes: Wishes = NO_WISHES
    # Cached answers to other words that a new answer is to be compared with.
    neighbours: tuple[cache_pb.Neighbour, ...] = ()
    # What the answer can be found by beside the request itself; None where only the request will do. Worked out when first asked for.
    wording: Callable[[], cache_pb.Wording | None] = lambda: None
    ticket: Ticket = field(default_factory=Ticket)

    @property
    def asked(self) -> Asked:
        """What is to be routed."""
        wishes = self.wishes
        return Asked(self.request, self.model, self.caller, wishes, wants_figures=wishes.wants_explanation, may_explore=wishes.may_explore)

    @property
    def wants_stream(self) -> bool:
        return self.request.stream


def extensions(request: chat_pb2.ChatRequest) -> Mapping[str, object]:
    """The gateway's own fields that the caller put into the body."""
    if not request.extra_json:
        return {}
    members = _members.decode(request.extra_json)
    taken = {name: _decoded(members[name]) for name in EXTENSION_FIELDS & members.keys()}
    if not isinstance(taken.get("provider", ""), str):
        # OpenRouter's routing preferences are an object of that name, and meant for OpenRouter.
        del taken["provider"]
    return taken


def _decoded(raw: msgspec.Raw) -> object:
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:  # valid JSON with a number that Python does not hold: nothing that could be acted on
        return raw


def for_providers(request: chat_pb2.ChatRequest, taken: Mapping[str, object]) -> chat_pb2.ChatRequest:
    """The request less the gateway's own fields. A copy only where there is something to take out."""
    if not taken:
        return request
    stripped = chat_pb2.ChatRequest()
    stripped.CopyFrom(request)
    stripped.extra_json = without_extra(request.extra_json, taken.keys())
    return stripped


def entry_key(
    request: chat_pb2.ChatRequest,
    caller: Caller,
    controls: CacheControls,
    public_namespaces: Collection[str] = (),
    pinned: str = "",
) -> cache_pb.EntryKey:
    """Where the answer to this request is kept."""
    tenant = PUBLIC_TENANT if controls.namespace in public_namespaces else caller.tenant
    return cache_pb.EntryKey(tenant=tenant, namespace=controls.namespace, digest=_pinned(exact_digest(request), pinned))


def wording(request: chat_pb2.ChatRequest, controls: CacheControls, pinned: str = "") -> cache_pb.Wording | None:
    """The words of a request whose answer other words may find, and what must be equal beside them."""
    text = question_text(request) if controls.may_reword else None
    return None if text is None else cache_pb.Wording(scope=_pinned(scope_digest(request), pinned), text=text)


class Rewordable:
    """The words of a request, worked out once, when first asked for: of most requests nobody asks."""

    __slots__ = ("_controls", "_is_known", "_pinned", "_request", "_wording")

    def __init__(self, request: chat_pb2.ChatRequest, controls: CacheControls, pinned: str) -> None:
        self._request = request
        self._controls = controls
        self._pinned = pinned
        self._wording: cache_pb.Wording | None = None
        self._is_known = False

    def __call__(self) -> cache_pb.Wording | None:
        if not self._is_known:
            self._wording, self._is_known = wording(self._request, self._controls, self._pinned), True
        return self._wording


def _pinned(digest: bytes, pinned: str) -> bytes:
    """What headers pin makes it another question, as it does in the body."""
    if not pinned:
        return digest
    return hashlib.blake2b(digest + pinned.encode("utf-8", "surrogateescape"), digest_size=len(digest)).digest()


def flight_id(key: cache_pb.EntryKey, caller: Caller) -> bytes:
    """What requests that one call may answer have in common, in 16 bytes: where the answer is kept, and which models may give it."""
    tenant, namespace, digest = key.tenant.encode(), key.namespace.encode(), key.digest
    # Lengths in front, so that no two keys run together into the same bytes.
    text = b"%d,%d,%d,%b%b%b" % (len(tenant), len(namespace), len(digest), tenant, namespace, digest)
    if caller.models is not None:
        # No patterns is not the same as no pattern that fits.
        patterns = [pattern.encode() for pattern in caller.models.patterns]
        text += b"," + b"".join([b"%d,%b" % (len(pattern), pattern) for pattern in patterns])
    return hashlib.blake2b(text, digest_size=16).digest()
