"""Which providers there are: those of the environment and those of joulegate.toml, as data."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import SplitResult, urlsplit

from services.dispatch.retry import RetryPolicy
from services.dispatch.secret import Secret
from services.dispatch.settings import DispatchSettings
from services.dispatch.timeouts import DEFAULT_TIMEOUTS, Timeouts
from services.runtime.settings import SettingsError, boolean

DEMO = "demo"
KINDS = frozenset({"openai", "ollama"})
_PLANNED_KINDS = frozenset({"anthropic", "gemini", "cohere", "azure"})
_PROVIDER_KEYS = frozenset({"kind", "base_url", "api_key_env", "models", "zone", "timeouts"})
_TIMEOUT_FIELDS = {
    "connect": ("connect_s",),
    "first_byte": ("first_byte_s",),
    "idle": ("idle_s",),
    "total": ("total_s", "stream_total_s"),
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_OLLAMA_PORT = 11434
_OLLAMA_TIMEOUTS = replace(DEFAULT_TIMEOUTS, first_byte_s=30, total_s=120)


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """One provider as configured."""

    name: str
    kind: str
    base_url: str
    secret: Secret | None = None
    # Empty: ask the provider.
    models: tuple[str, ...] = ()
    timeouts: Timeouts = DEFAULT_TIMEOUTS
    # False for one that nobody configured and that is only looked for.
    is_certain: bool = True


@dataclass(frozen=True, slots=True)
class Catalog:
    """Enabled providers, in order of preference, and why others are not enabled."""

    providers: tuple[ProviderSpec, ...]
    disabled: Mapping[str, str]
    retry: RetryPolicy


@dataclass(frozen=True, slots=True)
class _Vendor:
    """A provider that the environment can enable."""

    spec: ProviderSpec
    base_url: str | None
    is_configured: bool
    is_wanted: bool


def _vendors(settings: DispatchSettings) -> list[_Vendor]:
    """In the default order of preference."""
    host = settings.ollama_host

    def vendor(name: str, default_url: str, secret: Secret | None, url: str | None, is_wanted: bool, timeouts: Timeouts) -> _Vendor:
        return _Vendor(ProviderSpec(name, "openai", default_url, secret, timeouts=timeouts), url, secret is not None, is_wanted)

    s = settings
    # Groq's own SDK takes the address without a path.
    groq = s.groq_base_url and re.sub(r"^(https?://[^/]+)/?$", r"\1/openai/v1", s.groq_base_url)
    slow, fast = DEFAULT_TIMEOUTS, replace(DEFAULT_TIMEOUTS, first_byte_s=5, total_s=30)
    return [
        vendor("openai", "https://api.openai.com/v1", s.openai_api_key, s.openai_base_url, s.enable_openai, slow),
        vendor("groq", "https://api.groq.com/openai/v1", s.groq_api_key, groq, s.enable_groq, fast),
        vendor("together", "https://api.together.xyz/v1", s.together_api_key, s.together_base_url, s.enable_together, slow),
        vendor("github", "https://models.github.ai/inference", s.github_token, s.github_base_url, s.enable_github, slow),
        _Vendor(
            ProviderSpec("ollama", "ollama", _ollama_url("127.0.0.1"), timeouts=_OLLAMA_TIMEOUTS, is_certain=host is not None),
            None if host is None else _ollama_url(host),
            is_configured=True,
            is_wanted=s.enable_ollama,
        ),
    ]


def read_catalog(settings: DispatchSettings, config: Mapping[str, Any], environment: Mapping[str, str]) -> Catalog:
    """The environment wins over the file. Raises SettingsError with every problem."""
    reader = _Reader(environment)
    tables = reader.table(config, "providers", "[providers]")
    vendors = {vendor.spec.name: vendor for vendor in _vendors(settings)}
    specs = [reader.provider(name, table, vendors.get(name)) for name, table in tables.items()]
    specs += [reader.vendor(vendor) for name, vendor in vendors.items() if name not in tables]
    policy = reader.retry(reader.table(config, "retry", "[retry]"))
    if reader.problems:
        raise SettingsError(reader.problems)
    if settings.enable_demo:
        specs.append(ProviderSpec(DEMO, DEMO, "", models=(DEMO,)))
    return Catalog(_in_sequence((spec for spec in specs if spec is not None), settings.sequence), reader.disabled, policy)


def _in_sequence(specs: Iterable[ProviderSpec], sequence: tuple[str, ...]) -> tuple[ProviderSpec, ...]:
    place = {name: index for index, name in reversed(list(enumerate(sequence)))}
    return tuple(sorted(specs, key=lambda spec: place.get(spec.name, len(place))))


class _Reader:
    """Collects problems instead of raising at the first. They never quote a value that could be a secret."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.problems: list[str] = []
        self.disabled: dict[str, str] = {}

    def vendor(self, vendor: _Vendor) -> ProviderSpec | None:
        if not vendor.is_wanted:
            self.disabled[vendor.spec.name] = "switched off"
        if not vendor.is_wanted or not vendor.is_configured:
            return None
        return self._checked(vendor.spec.name, replace(vendor.spec, base_url=vendor.base_url or vendor.spec.base_url))

    def provider(self, name: str, table: Any, vendor: _Vendor | None) -> ProviderSpec | None:
        """A table of the file; under a vendor's name it changes that vendor's settings."""
        where = f"[providers.{name}]"
        if not isinstance(table, dict):
            self._problem(where, "must be a table")
            return None
        if not _NAME.fullmatch(name) or name == DEMO:
            self._problem(where, "this name cannot be used; say letters, digits, '.', '_' and '-', and not 'demo'")
            return None
        for key in sorted(table.keys() - _PROVIDER_KEYS):
            self._problem(where, f"unknown key {key!r}")
        self._text(table, "zone", where)  # the ledger's, for carbon
        kind = self._kind(table, vendor, where)
        if kind is None:
            return None
        spec = self._merged(name, kind, table, vendor, where)
        if why := self._why_disabled(spec, table, vendor):
            self.disabled[name] = why
            return None
        return self._checked(where, spec)

    def _kind(self, table: Mapping[str, Any], vendor: _Vendor | None, where: str) -> str | None:
        kind = self._text(table, "kind", where) or (vendor and vendor.spec.kind)
        if kind in KINDS:
            return kind
        if kind in _PLANNED_KINDS:
            self._problem(where, f"kind {kind!r} is not supported yet; it comes with a later version")
        else:
            self._problem(where, f"kind must be one of {', '.join(sorted(KINDS))}")
        return None

    def _merged(self, name: str, kind: str, table: Mapping[str, Any], vendor: _Vendor | None, where: str) -> ProviderSpec:
        """The environment's values over the file's over the vendor's or the kind's own."""
        base = vendor.spec if vendor is not None else _BARE[kind]
        url = self._text(table, "base_url", where)
        if url is not None and kind == "ollama":
            url = _ollama_url(url)
        variable = self._text(table, "api_key_env", where)
        value = variable and self._environment.get(variable)
        return replace(
            base,
            name=name,
            kind=kind,
            base_url=(vendor and vendor.base_url) or url or base.base_url,
            secret=base.secret or (Secret(value) if value else None),
            models=self._models(table, where),
            timeouts=self._timeouts(table, base.timeouts, where),
            is_certain=True,
        )

    def _why_disabled(self, spec: ProviderSpec, table: Mapping[str, Any], vendor: _Vendor | None) -> str | None:
        if not self._is_wanted(spec.name):
            return "switched off"
        if spec.secret is None and (variable := table.get("api_key_env")):
            return f"{variable} is not set"
        # At an address of one's own a key may not be needed; at the vendor's it is.
        if spec.secret is None and spec.kind == "openai" and vendor is not None and spec.base_url == vendor.spec.base_url:
            return "it has no key"
        return None

    def retry(self, table: Mapping[str, Any]) -> RetryPolicy:
        for key in sorted(table.keys() - {"attempts"}):
            self._problem("[retry]", f"unknown key {key!r}")
        attempts = table.get("attempts", RetryPolicy().attempts)
        if isinstance(attempts, bool) or not isinstance(attempts, int) or not 1 <= attempts <= 10:
            self._problem("[retry]", "attempts must be a whole number from 1 to 10")
            return RetryPolicy()
        return RetryPolicy(attempts=attempts)

    def table(self, parent: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
        value = parent.get(key, {})
        if isinstance(value, dict):
            return value
        self._problem(where, "must be a table")
        return {}

    def _is_wanted(self, name: str) -> bool:
        variable = "ENABLE_" + re.sub(r"[^A-Z0-9]", "_", name.upper())
        try:
            return boolean(self._environment.get(variable) or "true")
        except ValueError as error:
            self._problem(variable, str(error))
            return True

    def _checked(self, where: str, spec: ProviderSpec) -> ProviderSpec | None:
        if problem := _url_problem(spec.base_url):
            self._problem(where, problem)
            return None
        if spec.secret is not None and not spec.secret.is_sendable:
            self._problem(where, "the key must be printable ASCII")
            return None
        return replace(spec, base_url=spec.base_url.rstrip("/"))

    def _models(self, table: Mapping[str, Any], where: str) -> tuple[str, ...]:
        models = table.get("models", [])
        if not isinstance(models, list) or not all(isinstance(model, str) and model for model in models):
            self._problem(where, "models must be a list of names")
            return ()
        return tuple(dict.fromkeys(models))

    def _timeouts(self, table: Mapping[str, Any], default: Timeouts, where: str) -> Timeouts:
        values = self.table(table, "timeouts", f"{where} timeouts")
        changes: dict[str, float] = {}
        for key, value in values.items():
            if key not in _TIMEOUT_FIELDS:
                self._problem(where, f"timeouts: unknown key {key!r}")
            elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 86_400:
                self._problem(where, f"timeouts: {key} must be a number of seconds above 0 and below a day")
            else:
                changes |= dict.fromkeys(_TIMEOUT_FIELDS[key], float(value))
        return replace(default, **changes)

    def _text(self, table: Mapping[str, Any], key: str, where: str) -> str | None:
        value = table.get(key)
        if value is not None and (not isinstance(value, str) or not value):
            self._problem(where, f"{key} must be text")
            return None
        return value

    def _problem(self, where: str, what: str) -> None:
        self.problems.append(f"{where}: {what}")


def _url_problem(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "the address is not a URL"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return "the address must be an http or https URL"
    if parts.username is not None or parts.query or parts.fragment:
        return "the address must not carry credentials, a query or a fragment; name the key's variable in api_key_env"
    return None


def _ollama_url(host: str) -> str:
    """The OpenAI-compatible API of an Ollama, from whatever OLLAMA_HOST may say: `host`, `host:port` or a URL."""
    try:
        parts = urlsplit(host if "://" in host else f"http://{host}")
    except ValueError:
        return host  # to be found out when addresses are checked
    # 0.0.0.0 is where a server listens, not where it is found.
    netloc = parts.netloc.replace("0.0.0.0", "127.0.0.1")
    if "://" not in host and not re.search(r":\d+$", netloc):
        netloc = f"{netloc}:{_OLLAMA_PORT}"
    path = parts.path.rstrip("/")
    return SplitResult(parts.scheme, netloc, path if path.endswith("/v1") else f"{path}/v1", parts.query, parts.fragment).geturl()


# What a table of a kind starts from.
_BARE = {
    "openai": ProviderSpec("", "openai", ""),
    "ollama": ProviderSpec("", "ollama", _ollama_url("127.0.0.1"), timeouts=_OLLAMA_TIMEOUTS),
}
