"""The gateway's own request fields: read by the router, and not meant for providers."""

# These can pin which provider answers, so requests that differ in them are different questions.
PINNING_FIELDS = frozenset({"provider", "x-prefer-provider", "routing"})

# All of them. `routing` is an object that may name providers; the others say how to choose, whom to bill and whether to look in the cache.
EXTENSION_FIELDS = PINNING_FIELDS | {
    "fallback",
    "routing_strategy",
    "skip_cache",
    "x-budget-key",
    "x-cache",
    "x-routing-strategy",
}
