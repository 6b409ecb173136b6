"""The names of a question: equal exact digests mean that the same answer will do, equal scopes that only the words differ.

The digest is taken over the request's JSON with sorted names, less a deny-list, so that a field nobody has heard of yet tells questions
apart. Canonical JSON of one object is injective: nothing collides by concatenation, and 1 is not "1". Integers count by value; a number
with a point or an exponent counts by its text, so 1 and 1.0 are two questions: at worst a miss, never a wrong answer.
"""

import hashlib
from typing import Any

import msgspec
from msgspec import Raw

from joulegate.cache.v1 import cache_service_pb2 as cache_pb
from joulegate.chat.v1 import chat_pb2
from services.wire.extensions import EXTENSION_FIELDS, PINNING_FIELDS
from services.wire.openai import request_members

# Of an entry, in hexadecimal digits.
ENTRY_ID_LENGTH = 40
# Part of the digest: raise it when the canonical form or the deny-list changes.
_VERSION = b"\x01"

# How the answer travels, who asked and how it is filed: no such field changes what the answer is.
_IRRELEVANT_FIELDS = (EXTENSION_FIELDS - PINNING_FIELDS) | {
    "stream",
    "stream_options",
    "user",
    "metadata",
    "store",
    "safety_identifier",
    "prompt_cache_key",
}

_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(float_hook=Raw).decode


def exact_digest(request: chat_pb2.ChatRequest) -> bytes:
    """32 bytes over everything in the request that can change the answer."""
    return _digest(_relevant_members(request))


def scope_digest(request: chat_pb2.ChatRequest) -> bytes:
    """32 bytes over the same, less the text of the last message: equal scopes differ in nothing but these words."""
    members = _relevant_members(request)
    *earlier, last = members["messages"]
    members["messages"] = [*earlier, {**last, "content": _wordless(last.get("content"))}]
    return _digest(members)


def entry_id(key: cache_pb.EntryKey) -> str:
    """The id of the entry under a key. Ids are equal only where tenant, namespace and digest all are (a 160-bit digest of the three)."""
    tenant, namespace = key.tenant.encode(), key.namespace.encode()
    # Lengths in front, so that no two triples run together into the same bytes.
    text = b"%d,%d,%b%b%b" % (len(tenant), len(namespace), tenant, namespace, key.digest)
    return hashlib.blake2b(text, digest_size=ENTRY_ID_LENGTH // 2).hexdigest()


def _relevant_members(request: chat_pb2.ChatRequest) -> dict[str, Any]:
    members = request_members(request)
    for name in _IRRELEVANT_FIELDS & members.keys():
        del members[name]
    return members


def _wordless(content: Any) -> Any:
    """A message's content without its text: what else is in it, images say, stays in its place."""
    if isinstance(content, str):
        return ""
    if isinstance(content, list):
        return [{**part, "text": ""} if part.get("type") == "text" else part for part in content]
    return content


def _digest(members: dict[str, Any]) -> bytes:
    text = _encode(members)
    try:
        canonical = _VERSION + _encode_sorted(_decode(text))
    except msgspec.DecodeError:  # an integer of thousands of digits, which Python will not read: take the text as it was written
        canonical = _VERSION + b"\x00" + text
    return hashlib.blake2b(canonical, digest_size=32).digest()
