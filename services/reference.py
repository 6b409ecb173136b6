"""Writes docs/configuration.md and docs/providers.md from the code: `python -m services.reference FOLDER`."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, NamedTuple

from services import provider_reference
from services.cache.settings import CacheSettings
from services.dispatch.adapters.variants import VARIANTS
from services.dispatch.breaker import BreakerPolicy
from services.dispatch.dialects import KINDS
from services.dispatch.retry import RetryPolicy
from services.dispatch.settings import DispatchSettings
from services.dispatch.vendors import VENDORS, variables_of
from services.ledger.settings import LedgerSettings
from services.provider_reference import table
from services.router.policy import NEAR_BEST, VIRTUAL_MODELS
from services.router.prospect import RELAXATION, Floors
from services.router.settings import RouterSettings
from services.runtime.app import RuntimeSettings
from services.runtime.settings import Variable, variables
from services.up.settings import UpSettings


class Process(NamedTuple):
    """A settings class, and what its table is called."""

    title: str
    about: str
    settings: type[Any]


PROCESSES: Final = (
    Process("`joulegate up`", "The public listener and what is common to all that `up` starts.", UpSettings),
    Process(
        "Every service",
        "Read by each of router, cache, dispatch and ledger. `joulegate up` sets the addresses, `GRPC_LISTEN` and `METRICS_LISTEN` itself.",
        RuntimeSettings,
    ),
    Process("Router", "", RouterSettings),
    Process("Cache", "", CacheSettings),
    Process(
        "Dispatch",
        "`ENABLE_<NAME>` works for the providers of joulegate.toml too: the name in capitals, with `_` for all but letters and digits.",
        DispatchSettings,
    ),
    Process("Ledger", "", LedgerSettings),
)

# What joulegate.toml may hold. services/dispatch/catalog.py and services/ledger/overrides.py read it; a test compares the names.
PROVIDER_KEYS: Final = {
    "kind": f"The protocol: {', '.join(f'`{kind}`' for kind in sorted(KINDS))}. Not needed under the name of a provider above.",
    "base_url": "Its API's address; of kind `openai` up to and with `/v1`. Not needed for an Ollama on this machine.",
    "api_key_env": "The variable that holds its key, or several with commas between. While it is unset, the provider is left out.",
    "api_keys": "Instead of `api_key_env`: several variables, each with a `weight`: its share of the calls, 1 if not said.",
    "variant": f"For kind `openai`: whose way of speaking it: {', '.join(f'`{name}`' for name in VARIANTS)}.",
    "api_version": "For kind `azure`: the API version, a date or `v1`.",
    "deployments": "For kind `azure`: which deployment serves each model. Without an entry, a model's own name is the deployment.",
    "models": "Names of its models. Without them they are asked of the provider, every minute.",
    "zone": "Where its machines draw their power: an ISO 3166 alpha-3 code or a region of AWS, Google Cloud or Azure. Else: as its address "
    "says, the vendor's home, the world's average.",
    "declared_watts": "What its machine draws while it works, where nothing counts it: requests that run at the same time share it. See "
    "[energy.md](energy.md#stated-watts).",
    "measured": "Whether the counters of `ENERGY_COUNTERS` are of its machine. Default: whether its address is this machine's.",
    "timeouts": "See below.",
    "limits": "How many calls it takes; see below. What its answers say of limits is kept to in any case.",
    "breaker": "As `[breaker]` below, for this provider alone.",
}
TIMEOUT_KEYS: Final = {
    "connect": "Until the connection stands.",
    "first_byte": "Until the first event of a stream.",
    "idle": "Between two pieces of a stream.",
    "total": "Until the end of an answer, whole or streamed.",
}
MODEL_KEYS: Final = {
    "provider": "The provider's name.",
    "model": "The model's name there.",
    "input_usd_per_million": "Its price in US dollars per million input tokens. Beats the catalogue.",
    "output_usd_per_million": "Likewise for output tokens. The one is not accepted without the other.",
    "joules_per_output_token": "What a token of its answers takes at the meter, if you have measured it. Beats every estimate.",
    "joules_per_input_token": "Likewise for a token of the prompt. Without it, a quarter of an output token's.",
    "tier": "How able it is, for routing: 1 small, 2 light, 3 middle, 4 strong, 5 frontier. Beats what its name says.",
    "context_tokens": "How many tokens prompt and answer may have together. Beats the catalogue.",
}
ROUTING_KEYS: Final = {
    "strategy": "How it is chosen who answers, where neither a request nor `DEFAULT_ROUTING_STRATEGY` says. Default: `fallback`.",
    "weights": "What counts how much: tables of strategies that it changes, as `[routing.weights.eco]`, or the weights of `strategy`.",
    "floors": "Per criterion, an amount below which differences do not count: "
    + ", ".join(f"`{field.name} = {getattr(Floors(), field.name):g}`" for field in fields(Floors))
    + " (US dollars, joules, grams, seconds, odds of failing, odds of a bad answer).",
    "constraints": "Bounds for every request; see below.",
    "relax": "Which bounds may be given up when nobody keeps them all, the first one first. Default: "
    + ", ".join(f"`{criterion.value}`" for criterion in RELAXATION)
    + ". A bound that is not in the list is kept, and the request refused.",
    "near_best": f"Who is worse than the best by at most this part counts as good as it, and load decides. Default: {NEAR_BEST:g}.",
    "learning": "Whether outcomes change choices: `off` (nothing is learnt), `shadow` (changes are counted), `on`. Default: `shadow`.",
    "provider_weights": "Shares of providers in `round_robin` and `weighted_random`. Default: 1 each.",
    "prefer_providers": "Names of providers that are tried first while they are well.",
    "exclude_providers": "Names of providers that are never asked.",
}
CONSTRAINT_KEYS: Final = {
    "max_latency_ms": "95 % of first events of streams, or of whole answers, must not take longer.",
    "max_cost_usd": "What the request is expected to cost.",
    "max_carbon_g": "Grams of CO2 equivalent that it is expected to cause.",
    "min_quality": "The least probability, 0 to 1, that the answer is good.",
    "min_quality_of_best": "The same, as a part of what the best candidate has.",
}
VIRTUAL_KEYS: Final = {
    "strategy": "How it is chosen. Default: `balanced`.",
    "weights": "What counts how much, instead of the strategy's.",
    "constraints": "Bounds, as in `[routing.constraints]`, on top of those.",
    "models": "What it may stand for: names or patterns, as `gpt-*` or `lab/*`. Default: every model that chats.",
    "exclude_models": "What it may not stand for.",
    "learning": "As in `[routing]`, for requests that name it. Default: as there.",
    "min_tier": "Nothing less able than this tier. A model of unknown tier passes.",
    "max_tier": "Nothing more able than this tier.",
}
LIMIT_KEYS: Final = {
    "requests_per_second": "Calls in any second.",
    "requests_per_minute": "Calls in any minute.",
    "tokens_per_minute": "Tokens, of prompts and answers, as a bucket that fills evenly.",
}
_RETRY: Final = RetryPolicy()
RETRY_KEYS: Final = {
    "attempts": f"Calls of one provider before the next is tried, 1 to 10. Default: {_RETRY.attempts}.",
    "budget": f"Repeats at the same provider that all requests together may make, per request, from 0 to 1. Default: {_RETRY.budget:g}.",
    "budget_floor_per_second": f"Repeats that are always possible, for times of few requests. Default: {_RETRY.budget_floor_per_s:g}.",
}
_BREAKER: Final = BreakerPolicy()
BREAKER_KEYS: Final = {
    "failures": f"So many failures in a row open the breaker. Default: {_BREAKER.failures}.",
    "failure_rate": f"So large a share of failures opens it too, from 0 to 1. Default: {_BREAKER.failure_rate:g}.",
    "minimum_calls": f"Calls within the window before the share counts. Default: {_BREAKER.minimum_calls}.",
    "window_seconds": f"The time over which the share is taken. Default: {_BREAKER.window_s:g}.",
    "open_seconds": f"How long no call goes out before one is tried. Default: {_BREAKER.open_s:g}.",
    "probes": f"Calls that may be tried at a time then; as many successes close the breaker. Default: {_BREAKER.probes}.",
}

TIER_KEYS: Final = {
    "requests_per_minute": "So many requests in any 60 seconds.",
    "tokens_per_minute": "So many tokens in any 60 seconds, as they are reserved and then settled.",
    "capacity": "A bucket of so many requests at once. Default: what refills in a minute.",
    "refill_per_second": "Requests that come back to the bucket in a second. Default: so many that it refills in a minute.",
}
EXAMPLE: Final = """\
[providers.lab]                  # any name
kind = "openai"
base_url = "http://127.0.0.1:9000/v1"
api_keys = [{ env = "LAB_KEY_1", weight = 2 }, { env = "LAB_KEY_2" }]
models = ["small", "large"]
zone = "FRA"
timeouts = { connect = 5, first_byte = 30, idle = 30, total = 600 }
limits = { requests_per_second = 10, requests_per_minute = 200, tokens_per_minute = 100000 }
breaker = { failures = 10, open_seconds = 5 }
variant = "openai"
measured = true

[providers.work]
kind = "azure"
base_url = "https://work.openai.azure.com"
api_key_env = "WORK_API_KEY"
api_version = "v1"
deployments = { "gpt-4o" = "gpt-4o-for-all" }

[providers.box]
kind = "ollama"
base_url = "http://10.0.0.7:11434"
declared_watts = 250

[[models]]
provider = "lab"
model = "large"
input_usd_per_million = 2.0
output_usd_per_million = 8.0
joules_per_output_token = 0.5
joules_per_input_token = 0.02
tier = 4
context_tokens = 128000

[routing]
strategy = "balanced"
near_best = 0.05
relax = ["latency", "cost", "carbon", "quality"]
learning = "shadow"
prefer_providers = ["lab"]
exclude_providers = ["work"]
provider_weights = { lab = 3 }
floors = { cost = 1e-5, latency = 0.02 }
constraints = { max_cost_usd = 0.5 }

[routing.weights.eco]
cost = 0.35
latency = 0.2
reliability = 0.3
energy = 0.15

[virtual_models.house]
strategy = "cost"
weights = { cost = 0.7, carbon = 0.3 }
models = ["lab/*", "gpt-*"]
exclude_models = ["gpt-3.5*"]
min_tier = 2
learning = "on"
max_tier = 4

[virtual_models.house.constraints]
max_latency_ms = 5000
max_cost_usd = 0.05
max_carbon_g = 2
min_quality = 0.6
min_quality_of_best = 0.9

[retry]
attempts = 2
budget = 0.2
budget_floor_per_second = 1

[breaker]
failures = 5
failure_rate = 0.5
minimum_calls = 20
window_seconds = 60
open_seconds = 30
probes = 3

[tiers.gold]                     # any name; keys say which tier they have
requests_per_minute = 600
tokens_per_minute = 1000000
capacity = 60
refill_per_second = 10.0
"""

HEAD: Final = """\
# Configuration

Written from the code by `make docs`; a test fails when it is stale. Do not edit it.

Settings come from the environment, and from a file `.env` in the working directory, or beside `JOULEGATE_CONFIG` where that is set. The
environment wins over `.env`, and both win over joulegate.toml. An empty variable counts as unset. Each process reads its settings once, at
its start, and refuses to start with wrong ones, naming all of them. Variables that nobody reads are ignored.
"""

FILE_HEAD: Final = """\
## joulegate.toml

Optional; it is read only when `JOULEGATE_CONFIG` says where it is. It names further providers, changes those above, and states prices.
Dispatch, the ledger and the router need it.
"""


def document() -> str:
    """The whole of docs/configuration.md."""
    parts = [HEAD]
    for process in PROCESSES:
        parts += [f"## {process.title}\n", *([f"{process.about}\n"] if process.about else []), settings_table(variables(process.settings))]
        if process.settings is DispatchSettings:
            parts += [_providers(), settings_table(each for vendor in VENDORS for each in variables_of(vendor))]
    parts.append(_file())
    return "\n".join(parts)


def settings_table(read: Iterable[Variable]) -> str:
    """A row for each variable."""
    return table(
        ("variable", "default", "meaning"),
        ((f"`{each.name}`", f"`{each.default}`" if each.default else "-", each.meaning) for each in read),
    )


def _providers() -> str:
    """What the environment can enable, and from which values each starts."""
    rows = []
    for vendor in VENDORS:
        t = vendor.timeouts
        bounds = (t.connect_s, t.first_byte_s, t.idle_s, t.total_s, t.stream_total_s)
        rows.append((f"`{vendor.name}`", f"`{vendor.kind}`", vendor.base_url or "-", *(f"{bound:g} s" for bound in bounds)))
    head = ("provider", "kind", "address", "connect", "first byte", "idle", "total", "total of a stream")
    text = (
        "The environment enables these, each with its own address and time limits. A model is asked of the first provider that serves it,\n"
        "in this order: `LLM_PROVIDER_SEQUENCE`, joulegate.toml from top to bottom, this table, and last the built-in `demo`.\n"
        "What each can be asked for is in [providers.md](providers.md).\n"
    )
    return f"### Providers\n\n{text}\n{table(head, rows)}"


def _file() -> str:
    return "\n".join(
        [
            FILE_HEAD,
            f"```toml\n{EXAMPLE}```\n",
            "### `[providers.<name>]`\n",
            "Under the name of a provider above, a table changes that one. Its address from the environment wins over the\n"
            "file's; keys that the file names count instead of those in the provider's own variable.\n"
            "Any other name is a new provider. Letters, digits, `.`, `_` and `-` make a name; `demo` is taken.\n",
            _keys(PROVIDER_KEYS),
            "### `timeouts`\n",
            "In seconds. What is not said is as in the table of providers; for a new provider, as for `ollama` if it is of that\n"
            "kind, else as for `openai`.\n",
            _keys(TIMEOUT_KEYS),
            "### `limits`\n",
            "Of the provider as a whole. A request that no provider has room for is answered 429 and told when to come back.\n",
            _keys(LIMIT_KEYS),
            "### `[[models]]`\n",
            _keys(MODEL_KEYS),
            "Any other key stops the start.\n",
            "### `[routing]`\n",
            "The router reads it; [routing.md](routing.md) says what it does. The environment wins over it.\n",
            _keys(ROUTING_KEYS),
            "`constraints` may have:\n",
            _keys(CONSTRAINT_KEYS),
            "### `[virtual_models.<name>]`\n",
            "Names that stand for whichever real model suits a request best. Built in are\n"
            f"{', '.join(f'`{name}`' for name in VIRTUAL_MODELS)}; a table under such a name changes it. A real model of the same\n"
            "name wins.\n",
            _keys(VIRTUAL_KEYS),
            "### `[retry]`\n",
            _keys(RETRY_KEYS),
            "### `[breaker]`\n",
            "Each model at each provider has its own. What is not said is as here:\n",
            _keys(BREAKER_KEYS),
            "### `[tiers.<name>]`\n",
            "How fast keys of that tier may be, where a key does not say so itself. What is not said is no limit:\n",
            _keys(TIER_KEYS),
            "Any other table stops the start.\n",
        ]
    )


def _keys(meanings: Mapping[str, str]) -> str:
    return table(("key", "meaning"), ((f"`{key}`", meaning) for key, meaning in meanings.items()))


def main(arguments: Sequence[str]) -> int:
    """Gives the exit code."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m services.reference FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    for name, text in (("configuration", document()), ("providers", provider_reference.document())):
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
