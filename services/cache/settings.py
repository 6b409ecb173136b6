"""What the cache reads from the environment."""

from dataclasses import dataclass
from pathlib import Path

from services.runtime.settings import boolean, integer, number, path, setting, text

LONGEST_TTL_S = 366 * 24 * 3600


@dataclass(frozen=True, slots=True)
class CacheSettings:
    is_enabled: bool = setting("CACHE_ENABLED", boolean, "true", "Whether answers are kept and served again.")
    ttl_s: float = setting(
        "CACHE_TTL_SECONDS", number(above=0, most=LONGEST_TTL_S), "3600", "How long an answer may serve when the request does not say."
    )
    max_entries: int = setting("CACHE_MAX_ENTRIES", integer(least=1), "100000", "Most answers kept; the least recently used leave first.")
    max_bytes: int = setting("CACHE_MAX_BYTES", integer(least=1), str(256 << 20), "Most memory for answers, in bytes as serialized.")
    max_entry_bytes: int = setting("CACHE_MAX_ENTRY_BYTES", integer(least=1), str(1 << 20), "Largest answer that is kept, in bytes.")
    data_dir: Path = setting("JOULEGATE_DATA_DIR", path, "data", "Where everything durable lies.")
    persist_path: Path | None = setting(
        "CACHE_PERSIST_PATH", path, None, "Folder of the embedded Milvus; unset: cache.db in JOULEGATE_DATA_DIR. One process owns it."
    )
    milvus_uri: str | None = setting("MILVUS_URI", text, None, "A Milvus cluster to keep answers in, instead of the embedded one.")
    milvus_token: str | None = setting("MILVUS_TOKEN", text, None, "Token for MILVUS_URI, or `user:password`.")

    @property
    def store_path(self) -> Path:
        """Where the embedded Milvus lies."""
        return self.persist_path or self.data_dir / "cache.db"
