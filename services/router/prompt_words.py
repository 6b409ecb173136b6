"""A prompt as arrays of bytes and words, and the slots of a table that its pieces fall into. Nothing loops over characters in Python.

A word is a run of letters, a run of digits, or one sign; white space parts words. All words are hashed at once: the sum of byte i times P^i
from a to b, divided by P^a modulo 2^64, does not depend on where the word stands.
Pieces are what occurs in a prompt, however often: runs of two to four bytes, and runs of one to three words, where rare words count as
their length and case alone ("how many x7 are there in an x4"), so that they tell how something is put.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Indices = NDArray[np.int64]
Floats = NDArray[np.float32]
Hashes = NDArray[np.uint64]
Flags = NDArray[np.bool_]

# Of a longer text, this many characters of its head and as many of its tail are read.
HALF: Final = 2048
SPACE, LETTERS, DIGITS, SIGN = range(4)
# Longer words count as this long.
MOST_LENGTH: Final = 15
# Bits of a word's hash that find its class, and its rarity.
CLASS_BITS: Final = 16
RARITY_BITS: Final = 17
# A rarity is this times the logarithm of the rank among all words; the most is for what has none.
RARITY_UNIT: Final = 20
UNRANKED: Final = 255

_LETTERS: Final = bytes((*range(65, 91), *range(97, 123), *range(128, 256)))
_SPACES: Final = b"\t\n\v\f\r "
# Tables for bytes.translate, which is the fastest way to look bytes up.
_KIND: Final = bytes(
    SPACE if byte in _SPACES else LETTERS if byte in _LETTERS else DIGITS if byte in b"0123456789" else SIGN for byte in range(256)
)
_LOWER: Final = bytes(byte + 32 if 65 <= byte <= 90 else 10 if 9 <= byte <= 13 else byte for byte in range(256))

_EDGE: Final = bytes([SPACE])


def constant(value: float, kind: type[np.generic]) -> NDArray[Any]:
    """A number as an array of no dimension, which numpy takes in half the time that it needs for a number."""
    return np.array(value, kind)


_BASE: Final = 0x9E3779B97F4A7C15
_MIX_1: Final = constant(_BASE, np.uint64)
_MIX_2: Final = constant(0xC2B2AE3D27D4EB4F, np.uint64)
_MIX_3: Final = constant(0x165667B19E3779F9, np.uint64)
_FOLD: Final = constant(29, np.uint64)
_RUN_MASKS: Final = np.array([[0xFFFF], [0xFFFFFF], [0xFFFFFFFF]], np.uint32)
_RUN_MIXES: Final = np.array([[0x9E3779B1], [0x85EBCA77], [0xC2B2AE3D]], np.uint32)
# Greater than any slot.
_END: Final = np.array([0xFFFFFFFF], np.uint32)
_SIGN: Final = constant(SIGN, np.uint8)
_MOST_LENGTH: Final = constant(MOST_LENGTH, np.int64)

# By its first byte, the kind of a word, and whether it is capitalised, as a shape has them.
_FIRST: Final = np.array([_KIND[byte] << 5 | (65 <= byte <= 90) for byte in range(256)])


def _powers(base: int) -> Hashes:
    """1, base, base squared ... modulo 2^64, for every place in the longest text that is read."""
    factors = np.full(8 * HALF + 1, base, np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)


_POWERS: Final = _powers(_BASE)
_INVERSES: Final = _powers(pow(_BASE, -1, 1 << 64))


def _hashed_shapes() -> Hashes:
    """What a rare word of each shape counts as: numbers by their digits, up to five, and other words by fours of letters."""
    shapes = np.arange(4 << 5, dtype=np.uint64)
    length = shapes >> np.uint64(1) & np.uint64(15)
    by_fours = shapes & ~np.uint64(6)
    by_digits = np.uint64(DIGITS << 5) | np.minimum(length, np.uint64(5)) << np.uint64(1)
    mixed: Hashes = (np.where(shapes >> np.uint64(5) == np.uint64(DIGITS), by_digits, by_fours) + np.uint64(1)) * _MIX_3
    mixed ^= mixed >> np.uint64(32)
    mixed *= _MIX_1
    return mixed


_SHAPES: Final = _hashed_shapes()


class Words(NamedTuple):
    """A text, taken apart."""

    text: str
    raw: Bytes
    # Capital letters of ASCII are small in it, and so in the hashes.
    lower: bytes
    # Of each word: its first byte's place, whether it is LETTERS, DIGITS or a SIGN, its hash, and its shape: its kind, its length up to
    # MOST_LENGTH, and whether it is capitalised.
    start: Indices
    kind: Bytes
    hashes: Hashes
    shape: Indices


def words_of(text: str) -> Words:
    """The words of a text, of at most twice HALF characters."""
    data = text.encode("utf-8", "replace")
    lower = data.translate(_LOWER)
    raw = np.frombuffer(data, np.uint8)
    # With white space before and behind, so that every word has an edge on either side.
    kinds = np.frombuffer(b"".join((_EDGE, data.translate(_KIND), _EDGE)), np.uint8)
    behind = kinds[1:]
    is_edge = behind != kinds[:-1]
    is_edge |= behind == _SIGN
    edges = is_edge.nonzero()[0]
    kind = behind[edges]
    inside = kind.nonzero()[0]
    start, end = edges[inside], edges[inside + 1]
    terms = np.frombuffer(lower + _EDGE, np.uint8) * _POWERS[: len(behind)]
    hashes = np.add.reduceat(terms, edges)[inside]
    hashes *= _INVERSES[start]
    hashes ^= hashes >> _FOLD
    hashes *= _MIX_1
    shape = np.minimum(end - start, _MOST_LENGTH)
    shape += shape
    shape += _FIRST[raw[start]]
    return Words(text, raw, lower, start, kind[inside], hashes, shape)


def hash_of(word: str) -> int:
    """The hash of one word; of more, of the first."""
    return int(words_of(word).hashes[0])


def shortened(text: str) -> str:
    """The head and the tail of a long text: what is asked stands at either end, and the time to read it is bounded."""
    return text if len(text) <= 2 * HALF else text[:HALF] + text[-HALF:]


def slots_of(words: Words, known: Flags, count: int) -> NDArray[np.uint32]:
    """The slots, out of `count`, a power of two, of the text's pieces, each once; `known` says which words count as themselves,
    as all signs do."""
    bits = count.bit_length() - 1
    counted = np.where(known | (words.kind == _SIGN), words.hashes, _SHAPES.take(words.shape))
    pairs = (counted[:-1] * _MIX_1 ^ counted[1:]) * _MIX_2
    triples = (pairs[:-1] * _MIX_1 ^ counted[2:]) * _MIX_3
    runs = np.concatenate((counted, pairs, triples))
    runs >>= np.uint64(64 - bits)
    pieces = np.concatenate((runs, _byte_runs(words.lower, bits), _END), dtype=np.uint32)
    pieces.sort()
    # Of what is the same, the last.
    return pieces[:-1].compress(pieces[1:] != pieces[:-1])


def distinct(values: NDArray[Any]) -> int:
    """How many different values there are."""
    ordered = values.copy()
    ordered.sort()
    return min(len(ordered), 1) + int(np.count_nonzero(ordered[1:] != ordered[:-1]))


def _byte_runs(lower: bytes, bits: int) -> NDArray[np.uint32]:
    """The slots of all runs of two, three and four bytes."""
    # At each byte, it and the three after it.
    windows = np.ndarray(len(lower), "<u4", lower + bytes(3), strides=(1,))
    hashed = windows & _RUN_MASKS
    hashed *= _RUN_MIXES
    hashed >>= np.uint32(32 - bits)
    return hashed.ravel()
