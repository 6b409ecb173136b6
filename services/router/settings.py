"""What the router reads from its environment."""

from dataclasses import dataclass
from pathlib import Path

from services.router.controls import EXACT, SEMANTIC
from services.router.strategies import STRATEGIES, Strategy, Weights, named, read_weights
from services.runtime.settings import boolean, http_address, integer, names, number, one_of, path, setting, text


def _strategy(value: str) -> Strategy:
    found = named(value)
    if found is None:
        raise ValueError(f"must be one of {', '.join(STRATEGIES)}")
    return found


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """See `setting` for the form; docs/configuration.md is generated from it."""

    cache_enabled: bool = setting("CACHE_ENABLED", boolean, "true", "Whether answers are looked up and kept.")
    cache_mode: str = setting(
        "CACHE_MODE",
        one_of(EXACT, SEMANTIC),
        SEMANTIC,
        "Which answers serve where a request does not say: those to the same request, or also those to other words of the same question.",
    )
    verified_share: float = setting(
        "CACHE_VERIFY_SHARE",
        number(least=0, most=1),
        "0",
        "Share of answers to other words that are asked anew of a provider, in the background at the caller's cost, to find wrong ones.",
    )
    public_namespaces: tuple[str, ...] = setting(
        "CACHE_PUBLIC_NAMESPACES",
        names,
        "",
        "Values of `x-cache-namespace` whose answers all callers share, whoever they are; else none are shared.",
    )
    embeddings_url: str | None = setting(
        "CACHE_EMBEDDINGS_URL", http_address, None, "Where the cache asks for vectors: then lookups by words may take as long as that."
    )
    embeddings_timeout_s: float = setting(
        "CACHE_EMBEDDINGS_TIMEOUT_SECONDS", number(above=0, most=10), "0.1", "What that adds to CACHE_LOOKUP_TIMEOUT_SECONDS."
    )
    cache_lookup_s: float = setting(
        "CACHE_LOOKUP_TIMEOUT_SECONDS", number(above=0, most=10), "0.05", "After this a lookup counts as a miss."
    )
    near_cache_bytes: int = setting(
        "NEAR_CACHE_MAX_BYTES", integer(least=0), str(16 * 1024 * 1024), "Answers kept in each router, in front of the cache."
    )
    near_cache_ttl_s: float = setting(
        "NEAR_CACHE_TTL_SECONDS",
        number(least=0),
        "30",
        "How long a router serves its own copy; bounds how long an invalidated answer lives on.",
    )
    config: Path | None = setting("JOULEGATE_CONFIG", path, None, "The optional joulegate.toml.")
    routing_strategy: Strategy | None = setting(
        "DEFAULT_ROUTING_STRATEGY",
        _strategy,
        None,
        "How it is chosen who answers, where a request does not say; see [routing.md](routing.md). Unset: as joulegate.toml says, else "
        "`eco` if `MODEL_ROUTER_WEIGHTS` is set, else `fallback`.",
    )
    router_weights: Weights | None = setting(
        "MODEL_ROUTER_WEIGHTS",
        read_weights,
        None,
        "What counts how much in the strategy `eco`: `cost=0.35,latency=0.2,reliability=0.3,energy=0.15` when unset. Also `carbon`, "
        "`quality`.",
    )
    routing_log: Path | None = setting(
        "ROUTING_LOG",
        path,
        None,
        "File that every routing decision is appended to, without any text of a request, for `joulegate replay`. Unset: none are kept.",
    )
    request_timeout_s: float = setting("REQUEST_TIMEOUT_SECONDS", number(above=0), "600", "The longest that a request may take in all.")
    drain_s: float = setting("DRAIN_SECONDS", number(least=0), "30", "How long running calls may go on after SIGTERM.")
    ledger_wait_s: float = setting(
        "LEDGER_WAIT_SECONDS", number(above=0), "5", "How long a request waits for the books before it is refused."
    )
    gateway_api_key: str | None = setting(
        "GATEWAY_API_KEY", text, None, "One key that clients may present beside the ledger's. When set, clients must present some key."
    )
    admin_api_key: str | None = setting("ADMIN_API_KEY", text, None, "Key of the admin endpoints; they answer 403 until it is set.")
    auth_required: bool = setting("AUTH_REQUIRED", boolean, "false", "Whether clients without a known key are refused.")
    environment_name: str = setting("ENVIRONMENT", text, "development", "A name for this installation, shown by `GET /`.")

    @property
    def rewording_s(self) -> float:
        """How long a lookup by words may take."""
        return self.cache_lookup_s + (self.embeddings_timeout_s if self.embeddings_url else 0.0)
