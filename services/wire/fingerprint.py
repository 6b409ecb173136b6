"""The name of a question: equal digests mean that the same answer will do.

The digest is taken over the request's JSON with sorted names, less a deny-list, so that a field nobody has heard of yet tells questions
apart. Canonical JSON of one object is injective: nothing collides by concatenation, and 1 is not "1". Integers count by value; a number
with a point or an exponent counts by its text, so 1 and 1.0 are two questions: at worst a miss, never a wrong answer.
"""

import hashlib

import msgspec
from msgspec import Raw

from joulegate.chat.v1 import chat_pb2
from services.wire.extensions import EXTENSION_FIELDS, PINNING_FIELDS
from services.wire.openai import request_members

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
    members = request_members(request)
    for name in _IRRELEVANT_FIELDS:
        members.pop(name, None)
    text = _encode(members)
    try:
        canonical = _VERSION + _encode_sorted(_decode(text))
    except msgspec.DecodeError:  # an integer of thousands of digits, which Python will not read: take the text as it was written
        canonical = _VERSION + b"\x00" + text
    return hashlib.blake2b(canonical, digest_size=32).digest()
