"""Which entries an invalidation is about."""

import re
from dataclasses import dataclass

from joulegate.cache.v1 import cache_service_pb2 as pb
from services.cache.kept_entry import KeptEntry, mark
from services.wire.fingerprint import ENTRY_ID_LENGTH

_ENTRY_ID = re.compile(rf"[0-9a-f]{{{ENTRY_ID_LENGTH}}}")


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """Matches entries whose fields equal all that are set. With none set it matches every entry."""

    entry_id: str | None = None
    tenant: str | None = None
    namespace: str | None = None
    model: str | None = None
    tag: str | None = None
    # The youngest that matches, in microseconds since 1970-01-01 UTC.
    created_until_us: int | None = None

    @classmethod
    def from_request(cls, request: pb.InvalidateEntriesRequest, now_us: int) -> "EntryFilter | None":
        """The filter that a request states; None when it states nothing. `all` outweighs narrower filters."""
        if request.all:
            return cls()
        asked = cls(
            entry_id=request.entry_id if request.HasField("entry_id") else None,
            tenant=mark(request.tenant) if request.HasField("tenant") else None,
            namespace=mark(request.namespace) if request.HasField("namespace") else None,
            model=mark(request.model) if request.HasField("model") else None,
            tag=mark(request.tag) if request.HasField("tag") else None,
            created_until_us=now_us - request.min_age.ToMicroseconds() if request.HasField("min_age") else None,
        )
        return None if asked == cls() else asked

    @property
    def is_everything(self) -> bool:
        return self == EntryFilter()

    @property
    def is_satisfiable(self) -> bool:
        """Whether any entry could match: a text that is not an entry id belongs to none."""
        return self.entry_id is None or _ENTRY_ID.fullmatch(self.entry_id) is not None

    def matches(self, kept: KeptEntry) -> bool:
        return (
            (self.entry_id is None or self.entry_id == kept.entry_id)
            and (self.tenant is None or self.tenant == kept.tenant)
            and (self.namespace is None or self.namespace == kept.namespace)
            and (self.model is None or self.model == kept.model)
            and (self.tag is None or self.tag in kept.tags)
            and (self.created_until_us is None or self.created_until_us >= kept.created_us)
        )
