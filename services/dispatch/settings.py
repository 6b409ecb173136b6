"""What dispatch reads from the environment, besides what `vendors` says of each vendor."""

from dataclasses import dataclass
from pathlib import Path

from services.runtime.settings import boolean, names, path, setting, text


@dataclass(frozen=True, slots=True)
class DispatchSettings:
    """What is common to all providers."""

    config: Path | None = setting("JOULEGATE_CONFIG", path, None, "The optional joulegate.toml.")
    sequence: tuple[str, ...] = setting("LLM_PROVIDER_SEQUENCE", names, "", "Provider names, the preferred first; the others follow.")
    enable_demo: bool = setting("ENABLE_DEMO", boolean, "true", "Whether the built-in demo provider answers for the model `demo`.")
    energy_counters: tuple[str, ...] = setting(
        "ENERGY_COUNTERS",
        names,
        "",
        "`powercap`, `nvml`: measure what models at 127.0.0.1 or localhost take, by these counters. Empty: their energy is estimated.",
    )
    powercap_path: Path = setting("POWERCAP_PATH", path, "/sys/class/powercap", "Where Linux has the counters of processors.")
    gateway_api_key: str | None = setting(
        "GATEWAY_API_KEY", text, None, "When set, clients must present it as bearer token or x-api-key to see the providers."
    )
    auth_required: bool = setting("AUTH_REQUIRED", boolean, "false", "Whether anonymous clients are refused.")
    admin_api_key: str | None = setting("ADMIN_API_KEY", text, None, "Key of the admin endpoints; they answer 403 until it is set.")
