"""Which providers there are: those of the environment and those of joulegate.toml, as data."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from services.dispatch import addresses
from services.dispatch.adapters.variants import VARIANTS
from services.dispatch.breaker import DEFAULT_POLICY, BreakerPolicy
from services.dispatch.dialects import KINDS
from services.dispatch.keys import Key
from services.dispatch.policies import read_breaker, read_limits, read_retry, read_timeouts
from services.dispatch.provider_spec import DEMO, ProviderSpec
from services.dispatch.retry import RetryPolicy
from services.dispatch.settings import DispatchSettings
from services.dispatch.timeouts import DEFAULT_TIMEOUTS
from services.dispatch.vendors import LOCAL, VENDORS, Vendor, find, switch_of
from services.runtime.secret import Secret
from services.runtime.settings import SettingsError, boolean
from services.runtime.table import Table

PROVIDER_KEYS: Final = frozenset(
    {
        "api_key_env",
        "api_keys",
        "api_version",
        "base_url",
        "breaker",
        "declared_watts",
        "deployments",
        "kind",
        "limits",
        "measured",
        "models",
        "timeouts",
        "variant",
        "zone",
    }
)
MAX_WEIGHT: Final = 1000
# A rack full of machines.
MAX_WATTS: Final = 100_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VERSION = re.compile(r"[A-Za-z0-9.-]+")


@dataclass(frozen=True, slots=True)
class Catalog:
    """Enabled providers, in order of preference, and why others are not enabled."""

    providers: tuple[ProviderSpec, ...]
    disabled: Mapping[str, str]
    retry: RetryPolicy


def read_catalog(settings: DispatchSettings, config: Mapping[str, Any], environment: Mapping[str, str]) -> Catalog:
    """The environment wins over the file. Raises SettingsError with every problem."""
    problems: list[str] = []
    retry = read_retry(Table(config.get("retry", {}), "[retry]", problems), RetryPolicy())
    breaker = read_breaker(Table(config.get("breaker", {}), "[breaker]", problems), DEFAULT_POLICY)
    tables = Table(config.get("providers", {}), "[providers]", problems)
    reader = _Reader(environment, breaker, problems)
    vendors = {vendor.name: vendor for vendor in VENDORS}
    specs = [reader.provider(name, Table(table, f"[providers.{name}]", problems), vendors.get(name)) for name, table in tables.items()]
    specs += [reader.vendor(vendor) for name, vendor in vendors.items() if not tables.has(name)]
    if problems:
        raise SettingsError(problems)
    if settings.enable_demo:
        specs.append(ProviderSpec(DEMO, DEMO, "", models=(DEMO,)))
    return Catalog(_in_sequence((spec for spec in specs if spec is not None), settings.sequence), reader.disabled, retry)


def _in_sequence(specs: Iterable[ProviderSpec], sequence: tuple[str, ...]) -> tuple[ProviderSpec, ...]:
    place = {name: index for index, name in reversed(list(enumerate(sequence)))}
    return tuple(sorted(specs, key=lambda spec: place.get(spec.name, len(place))))


class _Reader:
    """Makes specs of the environment and the file's tables, and notes why some are left out."""

    def __init__(self, environment: Mapping[str, str], breaker: BreakerPolicy, problems: list[str]) -> None:
        self._environment = environment
        self._breaker = breaker
        self._problems = problems
        self.disabled: dict[str, str] = {}

    def vendor(self, vendor: Vendor) -> ProviderSpec | None:
        """A vendor that the file does not name. What the environment says of one that is not used may be wrong."""
        if not self._is_wanted(vendor.name):
            self.disabled[vendor.name] = "switched off"
            return None
        if vendor.needs_key and find(self._environment, vendor.key_variables) is None:
            return None
        spec = self._of_environment(vendor)
        if not spec.base_url:
            self.disabled[vendor.name] = f"{vendor.address_variables[0]} is not set"
            return None
        return replace(spec, models=tuple(spec.deployments))

    def provider(self, name: str, table: Table, vendor: Vendor | None) -> ProviderSpec | None:
        """A table of the file; under a vendor's name it changes that vendor's settings."""
        if not table.is_table:
            return None
        if not _NAME.fullmatch(name) or name == DEMO:
            table.problem("this name cannot be used; say letters, digits, '.', '_' and '-', and not 'demo'")
            return None
        table.only(PROVIDER_KEYS)
        table.text("zone")  # the ledger's, for carbon
        kind = self._kind(table, vendor)
        if kind is None:
            return None
        keys, missing = self._keys(table)
        spec = self._merged(name, kind, keys, table, vendor)
        if why := self._why_disabled(spec, missing, vendor):
            self.disabled[name] = why
            return None
        if wrong := addresses.problem(spec.base_url):
            table.problem(wrong)
        return spec

    def _of_environment(self, vendor: Vendor) -> ProviderSpec:
        """What the environment says of a vendor, over its own address and terms."""
        key = find(self._environment, vendor.key_variables)
        address = find(self._environment, vendor.address_variables)
        base_url = vendor.base_url
        if address is not None:
            base_url = addresses.normal(vendor.kind, addresses.with_path(address[1], vendor.path))
            if wrong := addresses.problem(base_url):
                self._problem(address[0], wrong)
        return ProviderSpec(
            vendor.name,
            vendor.kind,
            base_url,
            keys=self._secrets(*key) if key is not None else (),
            timeouts=vendor.timeouts,
            breaker=self._breaker,
            is_certain=vendor.needs_key or address is not None,
            variant=vendor.name if vendor.name in VARIANTS else "openai",
            api_version=self._version(vendor),
            deployments=self._deployments(vendor),
        )

    def _kind(self, table: Table, vendor: Vendor | None) -> str | None:
        kind = table.text("kind") or (vendor and vendor.kind)
        if kind in KINDS:
            return kind
        table.problem(f"kind must be one of {', '.join(sorted(KINDS))}")
        return None

    def _merged(self, name: str, kind: str, keys: tuple[Key, ...], table: Table, vendor: Vendor | None) -> ProviderSpec:
        """The environment's values over the file's over the vendor's or the kind's own."""
        base = self._of_environment(vendor) if vendor is not None else self._bare(kind)
        address = table.text("base_url")
        is_address_set = vendor is not None and find(self._environment, vendor.address_variables) is not None
        version = table.text("api_version")
        if version is not None and not _VERSION.fullmatch(version):
            table.problem("api_version must be a date or a word")
        variant = table.text("variant") or base.variant
        if variant not in VARIANTS:
            table.problem(f"variant must be one of {', '.join(sorted(VARIANTS))}")
        deployments = base.deployments or table.texts("deployments") or {}
        watts = table.number("declared_watts", 0.0, MAX_WATTS) if table.has("declared_watts") else 0.0
        is_measured = table.boolean("measured")
        if watts and is_measured:
            table.problem("say either declared_watts or measured: watts are stated where nothing counts them")
        return replace(
            base,
            name=name,
            kind=kind,
            base_url=base.base_url if address is None or is_address_set else addresses.normal(kind, address),
            keys=keys or base.keys,
            # At Azure, only what is deployed can be asked for.
            models=table.names("models") or tuple(deployments),
            timeouts=read_timeouts(table.table("timeouts"), base.timeouts),
            breaker=read_breaker(table.table("breaker"), self._breaker),
            limits=read_limits(table.table("limits")),
            is_certain=True,
            variant=variant,
            api_version=base.api_version or version or "",
            deployments=deployments,
            declared_watts=watts,
            is_measured=is_measured,
        )

    def _bare(self, kind: str) -> ProviderSpec:
        """What a table under a new name starts from."""
        is_local = kind == "ollama"
        address = addresses.normal(kind, "127.0.0.1") if is_local else ""
        return ProviderSpec("", kind, address, timeouts=LOCAL if is_local else DEFAULT_TIMEOUTS, breaker=self._breaker)

    def _keys(self, table: Table) -> tuple[tuple[Key, ...], list[str]]:
        """The keys that a table names, and their variables that are not set."""
        entries = table.tables("api_keys")
        variable = table.text("api_key_env")
        if variable is not None and entries:
            table.problem("say either api_key_env or api_keys")
        named = [(variable, 1.0)] if variable is not None else []
        for entry in entries:
            entry.only({"env", "weight"})
            weight = entry.number("weight", 1.0, MAX_WEIGHT)
            name = entry.text("env", is_needed=True)
            named += [(name, weight)] if name is not None else []
        keys: list[Key] = []
        missing: list[str] = []
        for name, weight in named:
            found = self._secrets(name, self._environment.get(name, ""))
            keys += [replace(key, weight=weight) for key in found]
            if not found:
                missing.append(name)
        return tuple(keys), missing

    def _secrets(self, variable: str, value: str) -> tuple[Key, ...]:
        """The keys in a variable, with commas between."""
        secrets = [Secret(part) for part in value.split(",") if part.strip()]
        if not all(secret.is_sendable for secret in secrets):
            self._problem(variable, "the key must be printable ASCII")
        return tuple(Key(secret) for secret in dict.fromkeys(secrets))

    def _why_disabled(self, spec: ProviderSpec, missing: list[str], vendor: Vendor | None) -> str | None:
        if not self._is_wanted(spec.name):
            return "switched off"
        if spec.keys:
            return None
        if missing:
            return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set"
        # At an address of one's own a key may not be needed; at the vendor's it is.
        if vendor is not None and vendor.needs_key and spec.base_url == vendor.base_url:
            return "it has no key"
        return None

    def _version(self, vendor: Vendor) -> str:
        version = self._environment.get(vendor.version_variable, "").strip()
        if version and not _VERSION.fullmatch(version):
            self._problem(vendor.version_variable, "must be a date or a word")
        return version

    def _deployments(self, vendor: Vendor) -> Mapping[str, str]:
        try:
            return read_deployments(self._environment.get(vendor.deployments_variable, ""))
        except ValueError as error:
            self._problem(vendor.deployments_variable, str(error))
            return {}

    def _is_wanted(self, name: str) -> bool:
        variable = switch_of(name)
        try:
            return boolean(self._environment.get(variable) or "true")
        except ValueError as error:
            self._problem(variable, str(error))
            return True

    def _problem(self, where: str, what: str) -> None:
        self._problems.append(f"{where}: {what}")


def read_deployments(text: str) -> Mapping[str, str]:
    """Azure's deployment of each model: a JSON object, or `model=deployment,...`. Raises ValueError."""
    if text.lstrip().startswith("{"):
        try:
            return msgspec.json.decode(text, type=dict[str, str])
        except msgspec.DecodeError:
            raise ValueError("must be a JSON object of texts") from None
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    found = {model.strip(): deployment.strip() for model, _, deployment in pairs}
    if not all(model and deployment for model, deployment in found.items()):
        raise ValueError("must be like model=deployment,model=deployment or a JSON object")
    return found
