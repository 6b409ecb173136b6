"""What dispatch reads from the environment."""

from dataclasses import dataclass
from pathlib import Path

from services.dispatch.secret import Secret
from services.runtime.settings import boolean, names, path, setting, text

_KEY = "The vendor's key; the provider is enabled when it is set."
_SWITCH = "False leaves the provider out even if it could be used."


@dataclass(frozen=True, slots=True)
class DispatchSettings:
    """Providers from the environment; further ones are in joulegate.toml. `ENABLE_<NAME>` works for those too."""

    config: Path | None = setting("JOULEGATE_CONFIG", path, None, "The optional joulegate.toml.")
    sequence: tuple[str, ...] = setting("LLM_PROVIDER_SEQUENCE", names, "", "Provider names, the preferred first; the others follow.")
    openai_api_key: Secret | None = setting("OPENAI_API_KEY", Secret, None, _KEY)
    openai_base_url: str | None = setting("OPENAI_BASE_URL", text, None, "Where its API is; https://api.openai.com/v1 when unset.")
    enable_openai: bool = setting("ENABLE_OPENAI", boolean, "true", _SWITCH)
    groq_api_key: Secret | None = setting("GROQ_API_KEY", Secret, None, _KEY)
    groq_base_url: str | None = setting("GROQ_BASE_URL", text, None, "Where its API is; https://api.groq.com when unset.")
    enable_groq: bool = setting("ENABLE_GROQ", boolean, "true", _SWITCH)
    together_api_key: Secret | None = setting("TOGETHER_API_KEY", Secret, None, _KEY)
    together_base_url: str | None = setting("TOGETHER_BASE_URL", text, None, "Where its API is; https://api.together.xyz/v1 when unset.")
    enable_together: bool = setting("ENABLE_TOGETHER", boolean, "true", _SWITCH)
    github_token: Secret | None = setting("GITHUB_TOKEN", Secret, None, _KEY)
    github_base_url: str | None = setting(
        "GITHUB_MODELS_BASE_URL", text, None, "Where its API is; https://models.github.ai/inference when unset."
    )
    enable_github: bool = setting("ENABLE_GITHUB", boolean, "true", _SWITCH)
    ollama_host: str | None = setting("OLLAMA_HOST", text, None, "Where Ollama is; it is looked for at 127.0.0.1:11434 when unset.")
    enable_ollama: bool = setting("ENABLE_OLLAMA", boolean, "true", _SWITCH)
    enable_demo: bool = setting("ENABLE_DEMO", boolean, "true", "Whether the built-in demo provider answers for the model `demo`.")
    gateway_api_key: str | None = setting(
        "GATEWAY_API_KEY", text, None, "When set, clients must present it as bearer token or x-api-key to see the providers."
    )
    auth_required: bool = setting("AUTH_REQUIRED", boolean, "false", "Whether anonymous clients are refused.")
    admin_api_key: str | None = setting("ADMIN_API_KEY", text, None, "Key of the admin endpoints; they answer 403 until it is set.")
