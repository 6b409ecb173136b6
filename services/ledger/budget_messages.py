"""Budgets as operators say them: what can be one, how it changes, and how it is shown."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration

from joulegate.ledger.v1 import budget_pb2 as pb
from services.ledger.api_key import MAX_NAME_CHARACTERS, invalid
from services.ledger.budget_changes import OWN, View
from services.ledger.budgets import Amounts, Budget
from services.ledger.windows import MAX_ROLLING_S, MIN_ROLLING_S

# A billion dollars, and as much of anything else; sums of that still fit 64 bits.
MAX_LIMIT: Final = 10**18
# Of the message: what an operator may change, by the field of Budget.
_FIELDS: Final = {
    "name": "name",
    "limit": "bound",
    "on_exhausted": "on_exhausted",
    "downgrade_model": "downgrade_model",
    "enabled": "enabled",
}
_ROLLING: Final = pb.BUDGET_WINDOW_ROLLING
_DOWNGRADE: Final = pb.ON_EXHAUSTED_DOWNGRADE
_NANO: Final = 10**9


def budget_of(message: pb.Budget, budget_id: str, now_ns: int) -> Budget:
    """The budget in a message. Raises GatewayError INVALID_REQUEST that names in `param` what no budget can be."""
    for param, problem in _given_problems(message):
        raise invalid(f"{param}: {problem}", param)
    budget = Budget(
        budget_id=budget_id,
        name=message.name,
        scope=message.scope,
        scope_id=message.scope_id,
        measure=message.measure,
        window_kind=message.window,
        rolling_s=message.rolling_window.seconds,
        bound=message.limit,
        on_exhausted=message.on_exhausted or pb.ON_EXHAUSTED_REFUSE,
        downgrade_model=message.downgrade_model,
        enabled=message.enabled if message.HasField("enabled") else True,
        created_ns=now_ns,
        counted_from_ns=now_ns,
    )
    _check(budget)
    return budget


def amended(budget: Budget, message: pb.Budget, paths: Collection[str]) -> Budget:
    """The budget with the fields at these paths taken from a message, or with those that are present in it when there are none.

    Raises GatewayError INVALID_REQUEST for a field that cannot be changed, and for what no budget can be.
    """
    check_is_changeable(budget.budget_id)
    for path in paths or [field.name for field, _ in message.ListFields() if field.name in _FIELDS]:
        if path not in _FIELDS:
            raise invalid(f"{path!r} cannot be changed; what can be: {', '.join(_FIELDS)}", "update_mask")
        value: Any = message.enabled or not message.HasField("enabled") if path == "enabled" else getattr(message, path)
        if path == "on_exhausted":
            value = value or pb.ON_EXHAUSTED_REFUSE
        budget = Budget(**budget._asdict() | {_FIELDS[path]: value})
    _check(budget)
    return budget


def check_is_changeable(budget_id: str) -> None:
    """Raises GatewayError INVALID_REQUEST for a budget of a key's own field."""
    for name, (ending, _) in OWN.items():
        if budget_id.endswith(ending):
            raise invalid(f"this budget is the key's own: change {name} of the key", "budget_id")


def _check(budget: Budget) -> None:
    for param, problem in _problems(budget):
        raise invalid(f"{param}: {problem}", param)


def _given_problems(message: pb.Budget) -> Iterator[tuple[str, str]]:
    for param, enum in (("scope", pb.BudgetScope), ("measure", pb.BudgetMeasure), ("window", pb.BudgetWindow)):
        if getattr(message, param) not in list(enum.values())[1:]:
            yield param, f"must be one of {', '.join(enum.keys()[1:])}"
    if (message.scope == pb.BUDGET_SCOPE_GLOBAL) != (not message.scope_id):
        yield "scope_id", "names the key, team or organisation; empty for everybody, and only then"
    if len(message.scope_id) > MAX_NAME_CHARACTERS or not (message.scope_id.isprintable() or not message.scope_id):
        yield "scope_id", f"at most {MAX_NAME_CHARACTERS} characters, all printable"
    if (message.window == _ROLLING) != message.HasField("rolling_window"):
        yield "rolling_window", "goes with BUDGET_WINDOW_ROLLING, and only with that"
    if message.window == _ROLLING and not (
        MIN_ROLLING_S <= message.rolling_window.seconds <= MAX_ROLLING_S and not message.rolling_window.nanos
    ):
        yield "rolling_window", f"must be {MIN_ROLLING_S} to {MAX_ROLLING_S} whole seconds"


def _problems(budget: Budget) -> Iterator[tuple[str, str]]:
    for param, text in (("name", budget.name), ("downgrade_model", budget.downgrade_model)):
        if len(text) > MAX_NAME_CHARACTERS or not (text.isprintable() or not text):
            yield param, f"at most {MAX_NAME_CHARACTERS} characters, all printable"
    if not 0 <= budget.bound <= MAX_LIMIT:
        yield "limit", f"must be between 0 and {MAX_LIMIT} {_UNITS[pb.BudgetMeasure.ValueType(budget.measure)]}"
    if budget.on_exhausted not in pb.OnExhausted.values():
        yield "on_exhausted", "not one that there is"
    if (budget.on_exhausted == _DOWNGRADE) != bool(budget.downgrade_model):
        yield "downgrade_model", "goes with ON_EXHAUSTED_DOWNGRADE, and only with that"


_UNITS: Final = {
    pb.BUDGET_MEASURE_USD: "billionths of a US dollar",
    pb.BUDGET_MEASURE_TOKENS: "tokens",
    pb.BUDGET_MEASURE_JOULES: "microjoules",
    pb.BUDGET_MEASURE_GCO2E: "millionths of a gram of CO2 equivalent",
}


def usage_of(view: View) -> pb.BudgetUsage:
    """A budget as it is shown."""
    budget = view.budget
    shown = pb.Budget(
        budget_id=budget.budget_id,
        name=budget.name,
        scope=pb.BudgetScope.ValueType(budget.scope),
        scope_id=budget.scope_id,
        measure=pb.BudgetMeasure.ValueType(budget.measure),
        window=pb.BudgetWindow.ValueType(budget.window_kind),
        rolling_window=Duration(seconds=budget.rolling_s) if budget.rolling_s else None,
        limit=budget.bound,
        on_exhausted=pb.OnExhausted.ValueType(budget.on_exhausted),
        downgrade_model=budget.downgrade_model,
        enabled=budget.enabled,
    )
    shown.create_time.FromNanoseconds(budget.created_ns)
    remaining = max(0, budget.bound - view.spent - view.held)
    usage = pb.BudgetUsage(budget=shown, spent=view.spent, held=view.held, remaining=remaining)
    if view.start_ns is not None:
        usage.window_start_time.FromNanoseconds(view.start_ns)
    if view.reset_ns is not None:
        usage.reset_time.FromNanoseconds(view.reset_ns)
    return usage


def summary(took: Amounts, bounds: Mapping[int, int]) -> dict[str, Any]:
    """Everybody's month in the document that clients of an earlier gateway know."""
    budget: dict[str, Any] = {}
    if (nano_usd := bounds.get(pb.BUDGET_MEASURE_USD)) is not None:
        budget["monthlyUsd"] = nano_usd / _NANO
    if (tokens := bounds.get(pb.BUDGET_MEASURE_TOKENS)) is not None:
        budget["monthlyTokens"] = tokens
    return {"tokensUsed": took.tokens, "costUsed": took.nano_usd / _NANO, "budget": budget}
