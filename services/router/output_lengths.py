"""How long answers get: a moving average for each model, of what it has answered here."""

from typing import Final

# What is expected before anything is known, about what chats get.
USUAL_TOKENS: Final = 300.0
WEIGHT: Final = 0.05
MOST_KEPT: Final = 4096


class OutputLengths:
    """Learns from answers and foretells the next one's length."""

    def __init__(self) -> None:
        self._means: dict[str, float] = {}
        self._overall = USUAL_TOKENS

    def learn(self, model: str, output_tokens: int) -> None:
        """Takes in an answer that ended by itself or at its bound."""
        if output_tokens <= 0:
            return
        mean = self._means.get(model)
        if mean is None and len(self._means) >= MOST_KEPT:
            return
        # The first answers count more: one alone says little, the usual length less.
        self._means[model] = self._overall * 0.5 + output_tokens * 0.5 if mean is None else mean + WEIGHT * (output_tokens - mean)
        self._overall += WEIGHT * (output_tokens - self._overall)

    def expected(self, model: str, bound: int | None) -> float:
        """Tokens of the next answer, of at most `bound`; of a model that has not answered yet, as of all."""
        return self.bounded(self._means.get(model, self._overall), bound)

    def means(self) -> dict[str, float]:
        """What is expected of each model's answers without a bound; under the empty name, of those that have not answered."""
        return {**self._means, "": self._overall}

    @staticmethod
    def bounded(mean: float, bound: int | None) -> float:
        return mean if bound is None else min(mean, float(bound))
