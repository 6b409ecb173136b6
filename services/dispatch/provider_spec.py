"""One provider as configured: everything that is known of it before it is called."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.dispatch.breaker import DEFAULT_POLICY, BreakerPolicy
from services.dispatch.keys import Key
from services.dispatch.limits import NO_LIMITS, ProviderLimits
from services.dispatch.timeouts import DEFAULT_TIMEOUTS, Timeouts

DEMO = "demo"


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """A provider's protocol, address and terms."""

    name: str
    kind: str
    base_url: str
    # Empty: it wants none.
    keys: tuple[Key, ...] = ()
    # Empty: ask the provider.
    models: tuple[str, ...] = ()
    timeouts: Timeouts = DEFAULT_TIMEOUTS
    breaker: BreakerPolicy = DEFAULT_POLICY
    limits: ProviderLimits = NO_LIMITS
    # False for one that nobody configured and that is only looked for.
    is_certain: bool = True
    # Whose way of speaking OpenAI's dialect.
    variant: str = "openai"
    # Azure's: the dated API, and the deployment that serves each model.
    api_version: str = ""
    deployments: Mapping[str, str] = field(default_factory=dict)
    # What its machine is stated to draw while it works; 0: not stated.
    declared_watts: float = 0.0
    # Whether the counters are of its machine; None: by its address.
    is_measured: bool | None = None
