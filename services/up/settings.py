"""What `joulegate up` reads. The services read the rest themselves, from the same environment."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.runtime import logs, settings
from services.runtime.settings import SettingsError, setting

_ORIGIN: Final = re.compile(r"\*|https?://[^\s/,]+")


def _host(value: str) -> str:
    if value == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(value))
    except ValueError as error:
        raise ValueError("must be an IP address of this machine, or localhost") from error


def _origins(value: str) -> tuple[str, ...]:
    origins = settings.names(value)
    wrong = [origin for origin in origins if not _ORIGIN.fullmatch(origin)]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is not an origin; say https://host[:port], or * for any")
    return origins


@dataclass(frozen=True, slots=True)
class UpSettings:
    """Where the gateway listens, and how it stops."""

    host: str = setting("HOST", _host, "127.0.0.1", "Address of the public listener.")
    port: int = setting("PORT", settings.integer(0, 65535), "8000", "Port of the public listener; 0: any free one.")
    data_dir: Path = setting("JOULEGATE_DATA_DIR", settings.path, "data", "Everything durable.")
    cors_origins: tuple[str, ...] = setting("CORS_ORIGINS", _origins, "", "Origins whose pages may call the gateway, or *.")
    drain_s: float = setting("DRAIN_SECONDS", settings.number(least=0), "30", "How long running calls may go on after SIGTERM.")
    metrics_port: int = setting("METRICS_PORT", settings.integer(0, 65532), "9464", "First of four ports for Prometheus; 0: any free.")
    prometheus_enabled: bool = setting("PROMETHEUS_METRICS_ENABLED", settings.boolean, "true", "Whether metrics are served.")
    auth_required: bool = setting("AUTH_REQUIRED", settings.boolean, "false", "Whether each request needs an API key.")
    gateway_api_key: str | None = setting("GATEWAY_API_KEY", settings.text, None, "The key that clients must present.")
    allow_anonymous: bool = setting("ALLOW_ANONYMOUS", settings.boolean, "false", "Lets a public HOST go without AUTH_REQUIRED.")
    log_level: str = setting("LOG_LEVEL", settings.one_of(*logs.LEVELS), "info", "debug, info, warning or error.")

    @property
    def demands_key(self) -> bool:
        """Whether strangers are kept out."""
        return self.auth_required or self.gateway_api_key is not None

    @property
    def reachable_host(self) -> str:
        """The address at which this machine reaches the listener, as it stands in a URL."""
        address = ipaddress.ip_address(self.host)
        if address.is_unspecified:
            return "127.0.0.1" if address.version == 4 else "[::1]"
        return self.host if address.version == 4 else f"[{self.host}]"


def load(environment: Mapping[str, str]) -> UpSettings:
    """Reads the settings. Raises SettingsError, also for a listener that would be open to strangers."""
    loaded = settings.load(UpSettings, environment)
    is_public = not ipaddress.ip_address(loaded.host).is_loopback
    if is_public and not (loaded.demands_key or loaded.allow_anonymous):
        ways = "AUTH_REQUIRED=true and ADMIN_API_KEY, GATEWAY_API_KEY, or ALLOW_ANONYMOUS=true if that is meant"
        raise SettingsError([f"HOST={loaded.host!r} is open to others: set {ways}"])
    return loaded
