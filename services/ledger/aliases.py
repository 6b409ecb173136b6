"""Model names: how the ids that providers use find the same model in a catalogue.

A name loses its vendor, its punctuation and then, one by one, the endings that say which release or packaging of the model it is
(`meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo`, `us.meta.llama3-1-8b-instruct-v1:0`, `accounts/fireworks/models/llama-v3p1-8b-instruct` and
`llama3.1:8b` are all `llama-3-1-8b`). The longest spelling that a catalogue knows wins, so nothing is stripped that names a model of its
own there.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

# A model tuned for one customer: `ft:gpt-4o-mini:org::id`.
_TUNED = re.compile(r"^ft:([^:]+):.*$")
_VENDOR = re.compile(r"^.*/")
# Amazon Bedrock's: `eu.anthropic.claude-...`.
_CLOUD_VENDOR = re.compile(
    r"^(?:(?:us|eu|apac|jp|au|ca|global|us-gov)\.)?"
    r"(?:ai21|amazon|anthropic|cohere|deepseek|google|meta|minimax|mistral|moonshot|moonshotai|nvidia|openai|qwen|writer|zai)\.(?=[a-z])"
)
_REGION = re.compile(r"@.*$")
_FILE = re.compile(r"\.(?:gguf|safetensors)$")
# Fireworks' decimal point.
_POINT = re.compile(r"v(\d+)p(\d+)")
_PUNCTUATION = re.compile(r"[^a-z0-9]+")
_VERSION_MARK = re.compile(r"^llama-v(?=\d)")
_FAMILY_NUMBER = re.compile(r"^([a-z]+)(\d)")
_ENDING = re.compile(
    r"-(?:\d{4}-\d{2}-\d{2}|\d{2}-\d{4}|\d{2}-\d{2}|\d{8}|\d{6}|\d{4}|\d{3}"
    r"|v\d(?:-\d)?|latest|preview|exp|beta|stable|online|extended|nitro|floor|maas"
    r"|instruct|chat|it|hf|thinking|text|base|turbo|lite|fast|versatile|instant|free"
    r"|fp4|fp8|fp16|bf16|f16|int4|int8|w4a16|w8a8|nvfp4|mxfp4|4bit|8bit|bnb|awq|gptq|exl2|mlx|gguf|ggml|qat|iq\d(?:-\w+)*|q\d(?:-\w+)*)$"
)

# No model has more; clients choose the names, and a long one must not hold up the books.
MOST_ENDINGS: Final = 10

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
    name = _CLOUD_VENDOR.sub("", _VENDOR.sub("", _TUNED.sub(r"\1", model.lower())))
    name = _POINT.sub(r"v\1-\2", _FILE.sub("", _REGION.sub("", name)))
    name = _PUNCTUATION.sub("-", name).strip("-").removeprefix("meta-")
    name = _FAMILY_NUMBER.sub(r"\1-\2", _VERSION_MARK.sub("llama-", name))
    yield name
    for _ in range(MOST_ENDINGS):
        shorter = _ENDING.sub("", name)
        if shorter == name or "-" not in shorter:
            return
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
