"""An answer as the cache keeps it: serialized, and addressed by digests.

Tenant, namespace and model are kept as digests of fixed length: whatever text callers choose, it needs no escaping in a filter, fits a
column, and does not lie on the disk in clear.
"""

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

from joulegate.cache.v1 import cache_service_pb2 as pb

DIGEST_BYTES = 32
ENTRY_ID_LENGTH = 40


@dataclass(frozen=True, slots=True)
class KeptEntry:
    """One answer. Times are microseconds since 1970-01-01 UTC; `data` is a serialized joulegate.cache.v1.Entry."""

    entry_id: str
    tenant: str
    namespace: str
    model: str
    created_us: int
    expires_us: int
    data: bytes


def entry_id(key: pb.EntryKey) -> str:
    """The id of the entry under a key. Ids are equal only where tenant, namespace and digest all are (a 160-bit digest of the three)."""
    tenant, namespace = key.tenant.encode(), key.namespace.encode()
    # Lengths in front, so that no two triples run together into the same bytes.
    text = b"%d,%d,%b%b%b" % (len(tenant), len(namespace), tenant, namespace, key.digest)
    return blake2b(text, digest_size=ENTRY_ID_LENGTH // 2).hexdigest()


@lru_cache(maxsize=4096)
def mark(text: str) -> str:
    """The digest that stands for a tenant, namespace or model. Remembered, so that equal ones share their memory."""
    return blake2b(text.encode(), digest_size=16).hexdigest()
