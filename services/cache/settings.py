"""What the cache reads from the environment."""

from dataclasses import dataclass
from pathlib import Path

from services.runtime.settings import boolean, http_address, integer, number, one_of, path, setting, text

LONGEST_TTL_S = 366 * 24 * 3600
NONE, WORDLLAMA, OPENAI, FASTEMBED, HASH = "none", "wordllama", "openai", "fastembed", "hash"


@dataclass(frozen=True, slots=True)
class CacheSettings:
    is_enabled: bool = setting("CACHE_ENABLED", boolean, "true", "Whether answers are kept and served again.")
    ttl_s: float = setting(
        "CACHE_TTL_SECONDS", number(above=0, most=LONGEST_TTL_S), "3600", "How long an answer may serve when the request does not say."
    )
    max_entries: int = setting("CACHE_MAX_ENTRIES", integer(least=1), "100000", "Most answers kept; beyond, the least useful leave first.")
    max_bytes: int = setting(
        "CACHE_MAX_BYTES",
        integer(least=1),
        str(256 << 20),
        "Most memory for answers as serialized, with their words and vectors, in bytes.",
    )
    tenant_max_bytes: int | None = setting(
        "CACHE_TENANT_MAX_BYTES", integer(least=1), None, "Most of it for one tenant. Unset: all, but whoever holds most makes room first."
    )
    max_entry_bytes: int = setting("CACHE_MAX_ENTRY_BYTES", integer(least=1), str(1 << 20), "Largest answer that is kept, in bytes.")
    data_dir: Path = setting("JOULEGATE_DATA_DIR", path, "data", "Where everything durable lies.")
    persist_path: Path | None = setting(
        "CACHE_PERSIST_PATH", path, None, "Folder of the embedded Milvus; unset: cache.db in JOULEGATE_DATA_DIR. One process owns it."
    )
    milvus_uri: str | None = setting("MILVUS_URI", text, None, "A Milvus cluster to keep answers in, instead of the embedded one.")
    milvus_token: str | None = setting("MILVUS_TOKEN", text, None, "Token for MILVUS_URI, or `user:password`.")
    similarity_threshold: float | None = setting(
        "CACHE_SIMILARITY_THRESHOLD",
        number(least=0, most=1),
        None,
        "Cosine that another wording must reach to be looked at; whether it serves, the gate says. Unset: what suits the embedder.",
    )
    top_k: int = setting("CACHE_TOP_K", integer(least=1, most=100), "8", "How many of the nearest wordings are looked at.")
    max_wrong_share: float = setting(
        "CACHE_MAX_WRONG_SHARE",
        number(above=0, most=1),
        "0.02",
        "Share of wrong answers among verified answers to other wordings, above which a scope gives none for a while.",
    )
    embedder_name: str | None = setting(
        "CACHE_EMBEDDER",
        one_of(NONE, WORDLLAMA, OPENAI, FASTEMBED, HASH),
        None,
        "What finds other wordings: `wordllama`, offline; `openai`, any `/embeddings` endpoint; `fastembed`, an extra that downloads its "
        "model; `hash`, for tests; `none`, exact hits only. Unset: `openai` where CACHE_EMBEDDINGS_URL is set, else `wordllama`.",
    )
    embeddings_url: str | None = setting(
        "CACHE_EMBEDDINGS_URL", http_address, None, "Base address of the endpoint, `http://host:11434/v1` say."
    )
    embeddings_model: str | None = setting("CACHE_EMBEDDINGS_MODEL", text, None, "Its model; also the one of `fastembed`.")
    embeddings_dimension: int | None = setting(
        "CACHE_EMBEDDINGS_DIMENSIONS", integer(least=2, most=32768), None, "How many numbers the vectors of `openai`'s model have."
    )
    embeddings_api_key: str | None = setting("CACHE_EMBEDDINGS_API_KEY", text, None, "Its key.")
    embeddings_timeout_s: float = setting(
        "CACHE_EMBEDDINGS_TIMEOUT_SECONDS", number(above=0, most=10), "0.1", "After this a text goes without the semantic tier."
    )

    @property
    def embedder(self) -> str:
        """Which embedder is meant."""
        if not self.is_enabled:
            return NONE
        return self.embedder_name or (OPENAI if self.embeddings_url else WORDLLAMA)

    def problems(self) -> list[str]:
        """What does not fit together."""
        found = []
        if self.max_entry_bytes > self.max_bytes:
            found.append("CACHE_MAX_ENTRY_BYTES is above CACHE_MAX_BYTES")
        needed: dict[str, dict[str, object]] = {
            OPENAI: {
                "CACHE_EMBEDDINGS_URL": self.embeddings_url,
                "CACHE_EMBEDDINGS_MODEL": self.embeddings_model,
                "CACHE_EMBEDDINGS_DIMENSIONS": self.embeddings_dimension,
            },
            FASTEMBED: {"CACHE_EMBEDDINGS_MODEL": self.embeddings_model},
        }
        found += [
            f"{name} must be set for CACHE_EMBEDDER={self.embedder}" for name, value in needed.get(self.embedder, {}).items() if not value
        ]
        return found

    @property
    def store_path(self) -> Path:
        """Where the embedded Milvus lies."""
        return self.persist_path or self.data_dir / "cache.db"
