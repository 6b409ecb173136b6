"""The ledger's settings."""

from dataclasses import dataclass
from pathlib import Path

from services.ledger.carbon import ELECTRICITY_MAPS, NATIONAL_GRID, WATTTIME, WORLD
from services.runtime import settings
from services.runtime.secret import Secret
from services.runtime.settings import setting


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """Where the books are, how durable a commit is, what is assumed where nothing is known, and who may look or enter."""

    config: Path | None = setting("JOULEGATE_CONFIG", settings.path, None, "Path of joulegate.toml: providers, models, prices and zones.")
    data_dir: Path = setting("JOULEGATE_DATA_DIR", settings.path, "data", "Folder of everything durable.")
    db_path: Path | None = setting(
        "LEDGER_DB_PATH", settings.path, None, "The ledger's SQLite file; `ledger.db` in the data folder when unset."
    )
    database_url: str | None = setting(
        "LEDGER_DATABASE_URL",
        settings.text,
        None,
        "`postgresql://user:password@host:5432/database`: the books are there instead of in a file, and several ledgers may share them.",
    )
    synchronous: str = setting(
        "LEDGER_SYNCHRONOUS",
        settings.one_of("full", "normal"),
        "full",
        "full: an acknowledged record survives a power cut. normal: it survives the death of the process, but not of a PostgreSQL server.",
    )
    orphan_grace_s: float = setting(
        "LEDGER_ORPHAN_GRACE_SECONDS",
        settings.number(least=0),
        "10",
        "How long a router may be away before its open requests are booked as lost.",
    )
    retention_days: float | None = setting(
        "LEDGER_RETENTION_DAYS",
        settings.number(least=32),
        None,
        "Rows of requests older than so many days, and that no budget needs, are deleted; what they came to stays in the totals.",
    )
    unknown_input_usd_per_million: float | None = setting(
        "LEDGER_UNKNOWN_INPUT_USD_PER_MILLION",
        settings.number(above=0, most=100_000),
        None,
        "Booked per million input tokens of an unpriced model. Unset: the 90th percentile of its seller's prices, 3 for an unknown seller.",
    )
    unknown_output_usd_per_million: float | None = setting(
        "LEDGER_UNKNOWN_OUTPUT_USD_PER_MILLION",
        settings.number(above=0, most=100_000),
        None,
        "Likewise per million output tokens, and 15 for an unknown seller. If only one of the two is set, that 3 or 15 is the other.",
    )
    unknown_model_policy: str = setting(
        "LEDGER_UNKNOWN_MODEL_POLICY",
        settings.one_of("allow", "deny"),
        "allow",
        "deny: a request that may go to a model without a price is refused. Each request is then asked for at the ledger.",
    )
    gateway_zone: str = setting(
        "GATEWAY_ZONE",
        settings.text,
        WORLD,
        "Where the gateway and machines beside it draw their power: an ISO 3166 alpha-3 code, or a region of AWS, Google Cloud or Azure.",
    )
    gateway_watts_per_core: float = setting(
        "GATEWAY_WATTS_PER_CORE",
        settings.number(least=0, most=1000),
        "10",
        "What a core of the gateway's machines draws while it works, its part of the machine included: the gateway's own joules are its "
        "processor time by this.",
    )
    carbon_source: str = setting(
        "CARBON_SOURCE",
        settings.one_of("off", ELECTRICITY_MAPS, WATTTIME, NATIONAL_GRID),
        "off",
        "Who tells what grids emit by the hour; `off`: annual averages. `national-grid` knows Great Britain, and needs no key.",
    )
    carbon_source_url: str | None = setting("CARBON_SOURCE_URL", settings.http_address, None, "Its address, if it is not the usual one.")
    carbon_zones: tuple[str, ...] = setting(
        "CARBON_ZONES",
        settings.names,
        "",
        "`place=zone` for each place that the source knows under a name of its own. WattTime is asked for these only.",
    )
    carbon_poll_s: float = setting("CARBON_POLL_SECONDS", settings.number(least=10), "300", "How often it is asked for each place.")
    electricity_maps_api_key: Secret | None = setting("ELECTRICITY_MAPS_API_KEY", Secret, None, "Key of Electricity Maps.")
    watttime_username: str | None = setting("WATTTIME_USERNAME", settings.text, None, "User of WattTime.")
    watttime_password: Secret | None = setting("WATTTIME_PASSWORD", Secret, None, "Password of WattTime.")
    unbounded_output_tokens: int = setting(
        "LEDGER_UNBOUNDED_OUTPUT_TOKENS",
        settings.integer(least=1, most=1_000_000),
        "4096",
        "What an answer is bounded by whose request says no bound, where a budget or a limit on tokens holds for its caller.",
    )
    rate_limit_per_minute: int | None = setting(
        "RATE_LIMIT_PER_MINUTE",
        settings.integer(least=1, most=10**9),
        None,
        "A bucket of so many requests for each key or address, which refills in a minute. Unset: no such limit.",
    )
    rate_limit_requests_per_minute: int | None = setting(
        "RATE_LIMIT_REQUESTS_PER_MINUTE",
        settings.integer(least=0, most=10**9),
        None,
        "Requests that each key or address may send in any 60 seconds, where its key and tier say nothing. Unset: no such limit.",
    )
    default_rate_limit_capacity: int | None = setting(
        "DEFAULT_RATE_LIMIT_CAPACITY",
        settings.integer(least=1, most=10**9),
        None,
        "Requests that a full bucket of a key or address has, instead of what `RATE_LIMIT_PER_MINUTE` says.",
    )
    default_rate_limit_refill_rate: float | None = setting(
        "DEFAULT_RATE_LIMIT_REFILL_RATE",
        settings.number(least=1e-6, most=1e9),
        None,
        "Requests that come back into it in a second.",
    )
    budget_alert_webhook_url: str | None = setting(
        "BUDGET_ALERT_WEBHOOK_URL",
        settings.http_address,
        None,
        "Where to POST a JSON document when 80 % and when 95 % of a budget is spent, once each in its window.",
    )
    admin_api_key: str | None = setting(
        "ADMIN_API_KEY", settings.text, None, "Key of the admin endpoints; they answer 403 until it is set."
    )
    # Routers heed these. The ledger refuses to start where they, and the keys that it has, would let nobody in.
    auth_required: bool = setting("AUTH_REQUIRED", settings.boolean, "false", "Whether anonymous clients are refused.")
    gateway_api_key: str | None = setting("GATEWAY_API_KEY", settings.text, None, "One key that clients may present beside the ledger's.")

    @property
    def database(self) -> Path:
        return self.db_path or self.data_dir / "ledger.db"
