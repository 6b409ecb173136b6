"""Model names: how the ids that providers use find the same model in EcoLogits' catalogue.

A name loses its vendor, its punctuation and then, one by one, the endings that say which release or packaging of the model it is
(`meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo`, `llama-3.1-8b-instant` and `llama3.1:8b` are all `llama-3-1-8b`). The longest spelling that
the catalogue knows wins, so nothing is stripped that names a model of its own there.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

_VENDOR = re.compile(r"^.*/")
_REGION = re.compile(r"@.*$")
_PUNCTUATION = re.compile(r"[^a-z0-9]+")
_FAMILY_NUMBER = re.compile(r"^([a-z]+)(\d)")
_ENDING = re.compile(
    r"-(?:\d{4}-\d{2}-\d{2}|\d{2}-\d{4}|\d{8}|\d{4}"
    r"|latest|preview|exp|instruct|chat|it|hf|turbo|lite|versatile|instant|free|fp8|awq|gguf|q\d(?:-\w+)*)$"
)

# Under which names EcoLogits keeps the models of a provider of ours. Open weights are under their publishers, whoever serves them.
CATALOGUE_OF: Final[Mapping[str, str]] = {
    "anthropic": "anthropic",
    "azure": "openai",
    "cohere": "cohere",
    "gemini": "google_genai",
    "github": "openai",
    "google": "google_genai",
    "mistral": "mistralai",
    "openai": "openai",
}

Key = tuple[str, str]


def spellings(model: str) -> Iterator[str]:
    """The name without vendor and punctuation, then ever shorter. Nothing shorter than two words, lest `chat-latest` become any chat."""
    name = _REGION.sub("", _VENDOR.sub("", model.lower()))
    name = _PUNCTUATION.sub("-", name).strip("-").removeprefix("meta-")
    name = _FAMILY_NUMBER.sub(r"\1-\2", name)
    yield name
    while (shorter := _ENDING.sub("", name)) != name and "-" in shorter:
        yield shorter
        name = shorter


class Aliases:
    """An index over (catalogue, model) keys."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._by_spelling: dict[tuple[str, str], Key] = {}
        found = [(key, list(spellings(key[1]))) for key in keys]
        # Full names first: a model's own name beats the shortened name of another.
        for key, names in found:
            self._learn(key, names[:1])
        for key, names in found:
            self._learn(key, names[1:])

    def _learn(self, key: Key, names: Iterable[str]) -> None:
        for name in names:
            self._by_spelling.setdefault((key[0], name), key)
            self._by_spelling.setdefault(("", name), key)

    def find(self, provider_kind: str, model: str) -> Key | None:
        """The catalogue's key of a model: in the provider's own catalogue if there is one, else in any."""
        own = CATALOGUE_OF.get(provider_kind, "")
        for catalogue in dict.fromkeys((own, "")):
            for name in spellings(model):
                if (catalogue, name) in self._by_spelling:
                    return self._by_spelling[catalogue, name]
        return None
