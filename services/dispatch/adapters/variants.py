"""In what vendors' words differ from OpenAI's, as data. What no entry says is as at OpenAI, or refused by the vendor itself.

Differences of answers are told by the answers (see `spelling`) and need no entry: any address may be any vendor's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from services.dispatch.adapters import bills
from services.dispatch.adapters.bills import Bill


@dataclass(frozen=True, slots=True)
class Variant:
    """One vendor's way of saying requests."""

    title: str = "OpenAI's API"
    # OpenAI's parameters that it calls otherwise.
    renamed: Mapping[str, str] = field(default_factory=dict)
    # OpenAI's parameters that it knows, for one that refuses all others; None for one that looks past them or refuses with good words.
    known: frozenset[str] | None = None
    has_stream_options: bool = True
    has_developer_role: bool = True
    has_user_names: bool = True
    # Whether a part of a message holds audio as text and a file by its id alone, without an object around them.
    has_flat_parts: bool = False
    # What an assistant's message calls its reasoning: a member's name, or `thinking` for parts of its content.
    reasoning: str = "reasoning_content"
    models_path: str = "/models"
    # Reads of its usage what it bills.
    bill: Bill | None = None

    @property
    def has_messages_as_openai(self) -> bool:
        """Whether nothing within a message is said otherwise."""
        is_spelled_alike = self.has_developer_role and self.reasoning == "reasoning_content"
        return is_spelled_alike and self.has_user_names and not self.has_flat_parts


OPENAI: Final = Variant()
# Its stream ends with the usage unasked; a member it does not know is a 422.
_MISTRAL: Final = Variant(
    "Mistral's API",
    renamed={"seed": "random_seed", "max_completion_tokens": "max_tokens"},
    known=frozenset(
        {
            "frequency_penalty",
            "max_completion_tokens",
            "max_tokens",
            "messages",
            "metadata",
            "n",
            "parallel_tool_calls",
            "prediction",
            "presence_penalty",
            "prompt_cache_key",
            "reasoning_effort",
            "response_format",
            "seed",
            "stop",
            "temperature",
            "tool_choice",
            "tools",
            "top_p",
        }
    ),
    has_stream_options=False,
    has_developer_role=False,
    has_user_names=False,
    has_flat_parts=True,
    reasoning="thinking",
)
VARIANTS: Final[Mapping[str, Variant]] = {
    "openai": OPENAI,
    "deepseek": Variant("DeepSeek's API", renamed={"max_completion_tokens": "max_tokens"}, has_developer_role=False),
    # Its catalogue of models is beside the API.
    "github": Variant("GitHub Models", models_path="/../catalog/models"),
    "groq": Variant("Groq's API", reasoning="reasoning"),
    "mistral": _MISTRAL,
    "openrouter": Variant("OpenRouter", reasoning="reasoning", bill=bills.openrouter),
    "together": Variant("Together's API", renamed={"max_completion_tokens": "max_tokens"}, has_developer_role=False, reasoning="reasoning"),
    "xai": Variant("xAI's API", bill=bills.xai),
}
