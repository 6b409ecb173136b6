"""The vendors that the environment can enable, as data. Their variables are those of the vendors' own SDKs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from services.dispatch import addresses
from services.dispatch.timeouts import DEFAULT_TIMEOUTS, Timeouts
from services.runtime.secret import Secret
from services.runtime.settings import Variable, boolean, text

_QUICK: Final = replace(DEFAULT_TIMEOUTS, first_byte_s=5, total_s=30)
LOCAL: Final = replace(DEFAULT_TIMEOUTS, first_byte_s=30, total_s=120)


@dataclass(frozen=True, slots=True)
class Vendor:
    """One vendor. Of several variables for the same, the first that is set counts."""

    name: str
    # Of its API. Empty: it has none of its own, and the address must be said.
    base_url: str
    key_variables: tuple[str, ...]
    address_variables: tuple[str, ...]
    kind: str = "openai"
    timeouts: Timeouts = DEFAULT_TIMEOUTS
    # The path of its API, where its own SDK takes the address without it.
    path: str = ""
    # One that works without a key is looked for even if nobody names it.
    needs_key: bool = True
    version_variable: str = ""
    deployments_variable: str = ""

    @property
    def switch(self) -> str:
        """The variable that can turn it off."""
        return switch_of(self.name)


# In the default order of preference: what runs here comes last, lest it answers for models of those who were given a key.
VENDORS: Final = (
    Vendor("openai", "https://api.openai.com/v1", ("OPENAI_API_KEY",), ("OPENAI_BASE_URL",)),
    Vendor("anthropic", "https://api.anthropic.com", ("ANTHROPIC_API_KEY",), ("ANTHROPIC_BASE_URL",), kind="anthropic"),
    Vendor(
        "gemini",
        "https://generativelanguage.googleapis.com",
        ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        ("GOOGLE_GEMINI_BASE_URL",),
        kind="gemini",
    ),
    Vendor("groq", "https://api.groq.com/openai/v1", ("GROQ_API_KEY",), ("GROQ_BASE_URL",), timeouts=_QUICK, path="/openai/v1"),
    Vendor("together", "https://api.together.xyz/v1", ("TOGETHER_API_KEY",), ("TOGETHER_BASE_URL",)),
    Vendor("cohere", "https://api.cohere.com", ("COHERE_API_KEY", "CO_API_KEY"), ("COHERE_API_BASE", "CO_API_URL"), kind="cohere"),
    Vendor("mistral", "https://api.mistral.ai/v1", ("MISTRAL_API_KEY",), ("MISTRAL_BASE_URL",), path="/v1"),
    Vendor("deepseek", "https://api.deepseek.com", ("DEEPSEEK_API_KEY",), ("DEEPSEEK_BASE_URL",)),
    Vendor("xai", "https://api.x.ai/v1", ("XAI_API_KEY",), ("XAI_BASE_URL",), path="/v1"),
    Vendor("openrouter", "https://openrouter.ai/api/v1", ("OPENROUTER_API_KEY",), ("OPENROUTER_BASE_URL",)),
    Vendor("github", "https://models.github.ai/inference", ("GITHUB_TOKEN",), ("GITHUB_MODELS_BASE_URL",)),
    Vendor(
        "azure",
        "",
        ("AZURE_OPENAI_API_KEY",),
        ("AZURE_OPENAI_ENDPOINT",),
        kind="azure",
        version_variable="AZURE_OPENAI_API_VERSION",
        deployments_variable="AZURE_OPENAI_DEPLOYMENT_MAP",
    ),
    Vendor("ollama", addresses.normal("ollama", "127.0.0.1"), ("OLLAMA_API_KEY",), ("OLLAMA_HOST",), "ollama", LOCAL, needs_key=False),
)


def switch_of(name: str) -> str:
    """The variable that can turn the provider of a name off."""
    return "ENABLE_" + "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name.upper())


def find(environment: Mapping[str, str], variables: tuple[str, ...]) -> tuple[str, str] | None:
    """The first of the variables that is set, and its value. A list of nothing is nothing."""
    return next(((name, value) for name in variables if (value := environment.get(name, "").strip(", \t\r\n"))), None)


def variables_of(vendor: Vendor) -> list[Variable]:
    """What the environment may say about a vendor."""
    where = f"{vendor.base_url} when unset" if vendor.base_url else "it is not used without"
    if not vendor.needs_key:
        where = "it is looked for at 127.0.0.1:11434 when unset"
    effect = "the provider is enabled when it is set" if vendor.needs_key else "for one that asks for it"
    key, *other_keys = vendor.key_variables
    address, *other_addresses = vendor.address_variables
    found = [Variable(key, Secret, None, f"The key, or several with commas between; {effect}.")]
    found += [Variable(name, Secret, None, f"Another name for `{key}`.") for name in other_keys]
    found.append(Variable(address, text, None, f"Where its API is; {where}."))
    found += [Variable(name, text, None, f"Another name for `{address}`.") for name in other_addresses]
    if vendor.version_variable:
        found.append(Variable(vendor.version_variable, text, None, "The API version, a date or `v1`; `v1` when unset."))
    if vendor.deployments_variable:
        meaning = 'Which deployment serves each model: `model=deployment,...` or JSON, `{"model": "deployment"}`.'
        found.append(Variable(vendor.deployments_variable, text, None, meaning))
    found.append(Variable(vendor.switch, boolean, "true", "False leaves the provider out even if it could be used."))
    return found
