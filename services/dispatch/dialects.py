"""Which dialect each kind of provider speaks."""

from collections.abc import Callable, Mapping
from typing import Final

from services.dispatch.adapters.anthropic import AnthropicAdapter
from services.dispatch.adapters.azure import NEWEST, AzureAdapter
from services.dispatch.adapters.base import Adapter
from services.dispatch.adapters.cohere import CohereAdapter
from services.dispatch.adapters.gemini import GeminiAdapter
from services.dispatch.adapters.ollama import OllamaAdapter
from services.dispatch.adapters.openai import OpenAIAdapter
from services.dispatch.adapters.variants import VARIANTS
from services.dispatch.provider_spec import ProviderSpec

_DIALECTS: Final[Mapping[str, Callable[[ProviderSpec], Adapter]]] = {
    "anthropic": lambda _: AnthropicAdapter(),
    "azure": lambda spec: AzureAdapter(spec.api_version or NEWEST, spec.deployments),
    "cohere": lambda _: CohereAdapter(),
    "gemini": lambda _: GeminiAdapter(),
    "ollama": lambda _: OllamaAdapter(),
    "openai": lambda spec: OpenAIAdapter(VARIANTS[spec.variant]),
}
KINDS: Final = frozenset(_DIALECTS)


def adapter_for(spec: ProviderSpec) -> Adapter:
    """The dialect of a provider, with the provider's own terms."""
    return _DIALECTS[spec.kind](spec)
