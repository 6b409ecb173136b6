"""How well a score decides which prompts go to the strong model, by the measures of RouteLLM (arXiv 2406.18665)."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

# USD per million tokens in and out: the roles of a strong and of a weak model, not today's prices.
STRONG_PRICE: Final = (10.0, 30.0)
WEAK_PRICE: Final = (0.6, 0.6)
# Prompts that share so many words in a row are about one passage, unless more prompts do: then it is a form.
PASSAGE_WORDS: Final = 15
FORM_PROMPTS: Final = 10
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A prompt, and how well two models answered it: qualities from 0 to 1."""

    data_set: str
    id: str
    prompt: str
    strong: float
    weak: float
    # Tokens of the prompt and of both answers; 0 where they are not known.
    tokens: int = 0
    strong_tokens: int = 0
    weak_tokens: int = 0


def figures_of(outcomes: Sequence[Outcome], scores: Doubles) -> dict[str, float]:
    """APGR and the money saved at 95 % of the strong model's quality, of one data set. Both are 0 or NaN-free only if strong is better."""
    order = np.argsort(-scores, kind="stable")
    gain = np.array([outcome.strong - outcome.weak for outcome in outcomes])[order]
    strong_cost = np.array([one.tokens * STRONG_PRICE[0] + one.strong_tokens * STRONG_PRICE[1] for one in outcomes], float)[order]
    weak_cost = np.array([one.tokens * WEAK_PRICE[0] + one.weak_tokens * WEAK_PRICE[1] for one in outcomes], float)[order]
    recovered = np.concatenate(([0.0], np.cumsum(gain))) / gain.sum()
    apgr = float((recovered[1:] + recovered[:-1]).mean() / 2)
    weak_quality = sum(outcome.weak for outcome in outcomes)
    quality = weak_quality + recovered * gain.sum()
    wanted = 0.95 * (weak_quality + gain.sum())
    cost = np.concatenate(([weak_cost.sum()], weak_cost.sum() + np.cumsum(strong_cost - weak_cost)))
    first = int(np.argmax(quality >= wanted))
    saved = 1 - float(cost[first] / strong_cost.sum()) if strong_cost.sum() else 0.0
    return {"apgr": apgr, "saved_at_95": saved}


def passages(prompts: Sequence[str]) -> NDArray[np.int64]:
    """A number for each prompt, the same for those that are about one passage."""
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        words = _WORD.findall(prompt.lower())
        for runs in {tuple(words[at : at + PASSAGE_WORDS]) for at in range(len(words) - PASSAGE_WORDS + 1)}:
            holders[runs].append(index)
    parent = list(range(len(prompts)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for together in holders.values():
        if len(together) <= FORM_PROMPTS:
            for other in together[1:]:
                low, high = sorted((root(together[0]), root(other)))
                parent[high] = low
    return np.array([root(index) for index in range(len(prompts))])
