"""Writes docs/providers.md from the data and the dialects: what each provider takes, and how a further one is added."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from services.dispatch.adapters.variants import VARIANTS, Variant
from services.dispatch.dialects import adapter_for
from services.dispatch.features import FEATURES, Support, supports
from services.dispatch.provider_spec import ProviderSpec
from services.dispatch.vendors import VENDORS, Vendor

# Some dialects differ by model; the table is for one of the newest.
_MODELS: Final = {"anthropic": "claude-sonnet-4-5", "gemini": "gemini-2.5-pro"}
_MARKS: Final = {Support.FULL: "yes", Support.LEFT_OUT: "*left out*", Support.REFUSED: "**refused**"}

HEAD: Final = """\
# Providers

Written from the code by `make docs`; a test fails when it is stale. Do not edit it.

Every provider is asked in its own API. Clients speak OpenAI's, and get OpenAI's answers; members of a request that OpenAI does not know go
to the provider as they are, and members of its answer that OpenAI does not know come back as they are. What keeps an answer's thoughts
(`thinking_blocks` and `content_blocks` of Anthropic's, `extra_content` of Gemini's) goes back with its turn; another provider with an API
of its own is asked without it, with a warning. The settings are in [configuration.md](configuration.md).
"""

FEATURES_HEAD: Final = """\
## What each can be asked for

Found by having each dialect say a sample of each feature. *yes*: it is said in the provider's words; whether the model can do it, the
provider answers. *left out*: the provider has no word for it, and the answer is as good without; `x-joulegate-warnings` names it.
*refused*: it has no word for it, and an answer without would not be what was asked; 400, with the parameter's name, unless another provider
serves the model.
"""

VARIANTS_HEAD: Final = """\
## Vendors that speak OpenAI's dialect

What the gateway says otherwise to them than to OpenAI. A table of joulegate.toml takes the same words with `variant`. Whoever answers:
reasoning is found under `reasoning_content`, under `reasoning` or among the parts of the content, usage in `x_groq` too, tokens of
reasoning count as completion tokens, and an error in the middle of a stream is an error in any of the shapes that are known.
"""

CHECKLIST: Final = """\
## A further provider

Of kind `openai` (vLLM, llama.cpp, LM Studio, another vendor), without code:

1. A table in joulegate.toml: `kind`, `base_url` up to and with `/v1`, `api_key_env` if it wants a key. `joulegate up` says in its log
   whether the provider is enabled, and names every mistake in the file.
2. `curl 127.0.0.1:8000/v1/models` lists its models. If it has no list, say `models`.
3. Ask it something, streamed and whole, with `"model": "<name>/<model>"`. A 400 of a member that it does not know: try a `variant`.
4. Its prices, if the catalogue has none: `[[models]]`. Its `zone`, for carbon. Its `limits` and `timeouts`, if the defaults do not fit.

A vendor of that kind that deserves a name of its own: a row in `services/dispatch/vendors.py`, and one in
`services/dispatch/adapters/variants.py` if it wants anything otherwise, with a source for each difference; a case in
`tests/adapters/test_variants.py`; `make docs`.

With an API of its own:

1. `services/dispatch/adapters/<dialect>.py`: bytes in, events out (`adapters/base.py` says what is asked). What it cannot say is refused by
   name or left out with a warning, as `adapters/question.py` sorts it; no member of a request is dropped in silence. A stream that ends
   without the vendor's end mark is broken.
2. A line in `services/dispatch/dialects.py`, a row in `services/dispatch/vendors.py`, and what its paths begin with in
   `services/dispatch/addresses.py`. The ledger's `CATALOGUE_OF` if EcoLogits knows the vendor.
3. `tests/fakes/<dialect>_upstream.py`: the fake speaks as the vendor does (`whole`, `stream_parts`, `error_body`), and stands in
   `tests/fakes/dialects.py`: from then on the fault table and the fuzz test hold for it.
4. `tests/adapters/test_<dialect>.py`: each parameter, each finish reason, each shape of error, usage, models; golden files of request,
   wire, stream, cut stream and error (`JOULEGATE_UPDATE_GOLDEN=1` writes them; read them before the commit).
5. The vendor's SDK as the judge, in the dev dependencies: it reads the fake's answers, and what it sends is what the adapter writes.
6. `make docs test`.
"""


def document() -> str:
    """The whole of docs/providers.md."""
    return "\n".join([HEAD, *(_vendor_table()), FEATURES_HEAD, _features(), VARIANTS_HEAD, _variants(), CHECKLIST])


def _vendor_table() -> Iterator[str]:
    yield "## Which there are\n"
    head = ("provider", "key", "address", "default address", "first byte", "whole answer", "switch")
    rows = []
    for vendor in VENDORS:
        keys, addresses = (", ".join(f"`{name}`" for name in names) for names in (vendor.key_variables, vendor.address_variables))
        waits = (f"{vendor.timeouts.first_byte_s:g} s", f"{vendor.timeouts.total_s:g} s")
        rows.append((f"`{vendor.name}`", keys, addresses, vendor.base_url or "-", *waits, f"`{vendor.switch}`"))
    yield table(head, rows)


def _features() -> str:
    columns: dict[tuple[Support, ...], list[str]] = {}
    for vendor in VENDORS:
        found = supports(adapter_for(_spec(vendor)), _MODELS.get(vendor.kind, "model"))
        columns.setdefault(tuple(found), []).append(f"`{vendor.name}`")
    rows = [(feature.name, *(_MARKS[column[index]] for column in columns)) for index, feature in enumerate(FEATURES)]
    return table(("", *(", ".join(names) for names in columns.values())), rows)


def _variants() -> str:
    return table(("variant", "what is otherwise"), ((f"`{name}`", "; ".join(_differences(each)) or "-") for name, each in VARIANTS.items()))


def _differences(variant: Variant) -> Iterator[str]:
    for name, new in variant.renamed.items():
        yield f"`{name}` is `{new}`"
    if not variant.has_developer_role:
        yield "role `developer` is `system`"
    if not variant.has_user_names:
        yield "messages have no `name`"
    if variant.has_flat_parts:
        yield "`input_audio` is the data itself, and a file is said by its `file_id` alone"
    if not variant.has_stream_options:
        yield "no `stream_options`"
    if variant.reasoning == "reasoning":
        yield "`reasoning_content` of earlier answers is `reasoning`"
    if variant.reasoning == "thinking":
        yield "`reasoning_content` of earlier answers is a part of type `thinking`"
    if variant.known is not None:
        yield "what it does not know is refused or left out here, as the table above says"
    if variant.models_path != "/models":
        yield f"models are listed at `{variant.models_path}`"


def _spec(vendor: Vendor) -> ProviderSpec:
    return ProviderSpec(vendor.name, vendor.kind, "", variant=vendor.name if vendor.name in VARIANTS else "openai")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
