"""What the score knows of single words: which mark how something is asked, which are frequent, and how rare each is in texts at large."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.router.prompt_features import WORDS, Lexicon
from services.router.prompt_words import CLASS_BITS, LETTERS, RARITY_BITS, RARITY_UNIT, UNRANKED, Words, hash_of
from services.router.tokens import decode

# So many words that occur in most prompts count as themselves in the shape of a text, as do all of WORDS.
FREQUENT: Final = 250
# Tokens of o200k, which are in order of frequency, that are looked through for words.
RANKED_TOKENS: Final = 100_000


def lexicon_of(texts: Sequence[Words]) -> Lexicon:
    """The lexicon for these texts."""
    marked: dict[int, int] = {}
    for bit, members in enumerate(WORDS.values()):
        for word in members.split():
            marked[hash_of(word)] = marked.get(hash_of(word), 0) | 1 << bit
    kinds_of = dict.fromkeys(_frequent(texts), 0) | marked
    combinations = sorted(set(kinds_of.values()))
    classes = np.zeros(1 << CLASS_BITS, np.uint8)
    for hashed, kinds in kinds_of.items():
        classes[hashed >> (64 - CLASS_BITS)] = combinations.index(kinds) + 1
    table = [[combination >> bit & 1 for bit in range(len(WORDS))] for combination in (0, *combinations)]
    return Lexicon(classes, np.array(table, np.float32), _rarity())


def _frequent(texts: Sequence[Words]) -> list[int]:
    holders: Counter[int] = Counter()
    for words in texts:
        holders.update(set(words.hashes[words.kind == LETTERS].tolist()))
    return sorted(holders, key=lambda word: (-holders[word], word))[:FREQUENT]


@cache
def _rarity() -> NDArray[np.uint8]:
    """By the leading bits of a hash, the least rarity of the words there."""
    rarity = np.full(1 << RARITY_BITS, UNRANKED, np.uint8)
    for rank in range(RANKED_TOKENS):
        token = decode(rank)
        if token[:1] == " " and token[1:].isascii() and token[1:].isalpha():
            slot = hash_of(token[1:]) >> (64 - RARITY_BITS)
            rarity[slot] = min(int(rarity[slot]), int(RARITY_UNIT * np.log1p(rank)))
    return rarity
