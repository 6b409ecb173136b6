"""Keys, answers and kept entries for the cache's tests."""

import dataclasses

import numpy as np

from joulegate.cache.v1 import cache_service_pb2 as pb
from joulegate.chat.v1 import chat_pb2
from services.cache.backlog import Backlog
from services.cache.entry_filter import EntryFilter
from services.cache.kept_entry import KeptEntry, KeptWording, mark
from services.cache.mirror import Store
from services.cache.settings import CacheSettings
from services.runtime import settings
from services.wire.fingerprint import entry_id

SECOND_US = 1_000_000


def settings_of(**environment: str) -> CacheSettings:
    return settings.load(CacheSettings, environment)


def key(number: int = 1, tenant: str = "acme", namespace: str = "") -> pb.EntryKey:
    return pb.EntryKey(tenant=tenant, namespace=namespace, digest=number.to_bytes(32, "big"))


def answer(
    text: str = "Hello.", model: str = "large", finish_reason: chat_pb2.FinishReason.ValueType = chat_pb2.FINISH_REASON_STOP
) -> pb.Entry:
    message = chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, text=text)
    completion = chat_pb2.ChatCompletion(id="c-1", model=model, choices=[chat_pb2.Choice(message=message, finish_reason=finish_reason)])
    return pb.Entry(completion=completion, provider="lab", model=model, cost_nano_usd=1200, energy_microjoules=5_000_000)


def kept(
    number: int = 1,
    tenant: str = "acme",
    model: str = "large",
    size: int = 40,
    created_us: int = 0,
    ttl_us: int = SECOND_US,
    microjoules: int = 0,
    tags: tuple[str, ...] = (),
    wording: KeptWording | None = None,
) -> KeptEntry:
    """An entry whose data, a valid message, has exactly `size` bytes."""
    own = key(number, tenant)
    marks = tuple(map(mark, tags))
    return KeptEntry(
        entry_id(own), mark(tenant), mark(""), mark(model), created_us, created_us + ttl_us, _message_of(size), microjoules, marks, wording
    )


def wording(scope: str, *numbers: float, text: str = "What is a joule?") -> KeptWording:
    """Words with that vector, which is made to be of length 1."""
    vector = np.array(numbers, "<f4")
    return KeptWording.of(scope, text, (vector / np.linalg.norm(vector)).astype("<f4").tobytes())


def _message_of(size: int) -> bytes:
    for overhead in range(2, 8):
        data = pb.Entry(provider="x" * (size - overhead)).SerializeToString()
        if len(data) == size:
            return data
    raise ValueError(size)


def newer(entry: KeptEntry, **changes: object) -> KeptEntry:
    return dataclasses.replace(entry, **changes)  # type: ignore[arg-type]


class HeldClock:
    """A clock whose hands the test holds."""

    def __init__(self) -> None:
        self.seconds = 1_000_000.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> float:
        return self.seconds


def tell(store: Store, *changes: KeptEntry | EntryFilter, departed: tuple[KeptEntry, ...] = (), now_us: int = SECOND_US) -> None:
    """Has a store do all of it in one batch."""
    backlog = Backlog(1000)
    for change in changes:
        if isinstance(change, EntryFilter):
            backlog.remove(change)
        else:
            backlog.write(change)
    for entry in departed:
        backlog.delete(entry)
    store.apply(backlog.take(1000), now_us)
