"""Requests in Anthropic's dialect: OpenAI's members become messages, tools, thinking and an output config.

What is said otherwise than it came, beside names:
- System and developer messages, wherever they stand, become the one system prompt; if there is nothing else, the user's turn.
- Consecutive tool results become one turn, as Anthropic demands. A refusal in an assistant's message is text; empty text beside calls goes.
- An assistant's `thinking_blocks`, as answers bring them, lead its turn, and `content_blocks`, what Anthropic's own tools did, come next.
  Reasoning without a signature cannot go back.
- `max_tokens` is required: DEFAULT_MAX_TOKENS where the request has none, the most that every model accepts (Claude 3's smallest bound).
  If reasoning is asked for, which counts as well, what it may take is added.
- `reasoning_effort`: models up to 4.5 know only a budget of tokens, which leaves at least half of `max_tokens` to the answer; later ones
  refuse budgets and take the effort itself with adaptive thinking, shown in summary. The client's own `thinking` wins over both.
- A JSON schema's `description` goes into the schema; its `name` is only a label, and `strict` is always so.
- `user` and its heir `safety_identifier` are `metadata.user_id`: like them a mark against abuse, never to be an identity.
- `service_tier` "default" is `standard_only`.

Native members are taken at the top level, and on messages' parts, calls and tools.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from services.dispatch.adapters.anthropic_dialogue import Dialogue
from services.dispatch.adapters.question import Question

DEFAULT_MAX_TOKENS: Final = 4096
_LEAST_BUDGET: Final = 1024
_BUDGETS: Final = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
_EFFORTS: Final = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
# Claude up to version 4.5, with or without a date: the later ones refuse a budget.
_BUDGETED = re.compile(r"claude-(?:[23]\b|instant|[a-z]+-4(?:[-.@](?:[0-5]\b|\d{8})|\b(?![-.]\d\b)))")

_CHOICES: Final = {"none": "none", "auto": "auto", "required": "any"}
_NATIVE_CHOICES: Final = ("none", "auto", "any", "tool")
_TIERS: Final = {"auto": "auto", "default": "standard_only", "standard_only": "standard_only"}


def members(question: Question, model: str) -> dict[str, Any]:
    """The body's members. Raises Failure for what Anthropic cannot be told."""
    if question.has("system"):
        raise question.refusal("system", "stands in the place of 'messages'")
    body: dict[str, Any] = Dialogue(question).members(question.take("messages", ()))
    body |= _thinking(question, model)
    for name in ("temperature", "top_p"):
        if (value := question.take(name)) is not None:
            body[name] = value
    if (stop := question.take("stop")) is not None:
        body["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    if schema := _schema(question):
        body["output_config"] = body.get("output_config", {}) | {"format": {"type": "json_schema", "schema": schema}}
    body |= _tools(question)
    body |= _terms(question)
    _check_budget(question, body)
    for name, value in question.rest().items():
        said = body.get(name)
        body[name] = said | value if isinstance(said, dict) and isinstance(value, dict) else value
    return body


def _thinking(question: Question, model: str) -> dict[str, Any]:
    """`max_tokens`, and what says how much to think."""
    bound = question.take("max_tokens")
    bound = question.take("max_completion_tokens", bound)
    effort = question.take("reasoning_effort")
    own = question.take("thinking")
    if own is not None:
        if effort is not None:
            question.leave_out("reasoning_effort", "is beside 'thinking', which says more,")
        budget = own.get("budget_tokens") if isinstance(own, dict) else None
        room = budget if bound is None and type(budget) is int and budget > 0 else 0
        return {"max_tokens": DEFAULT_MAX_TOKENS + room if bound is None else bound, "thinking": own}
    if effort is None or effort == "none":
        said = {"max_tokens": DEFAULT_MAX_TOKENS if bound is None else bound}
        return said | ({"thinking": {"type": "disabled"}} if effort else {})
    if effort not in _EFFORTS:
        raise question.refusal("reasoning_effort", "has a value without counterpart")
    wanted = _BUDGETS.get(effort, _BUDGETS["high"])
    most = wanted if bound is None else bound // 2
    if bound is None:
        bound = DEFAULT_MAX_TOKENS + wanted
    if not _BUDGETED.search(model):
        if effort not in _EFFORTS.values():
            question.approximate("reasoning_effort", _EFFORTS[effort])
        thinking = {"type": "adaptive", "display": "summarized"}
        return {"max_tokens": bound, "thinking": thinking, "output_config": {"effort": _EFFORTS[effort]}}
    if effort not in _BUDGETS:
        raise question.refusal("reasoning_effort", "has a value without counterpart")
    if bound <= _LEAST_BUDGET:
        raise question.refusal("reasoning_effort", f"needs more than {_LEAST_BUDGET} tokens, and 'max_tokens' allows less,")
    budget = min(wanted, max(_LEAST_BUDGET, most))
    return {"max_tokens": bound, "thinking": {"type": "enabled", "budget_tokens": budget}}


def _check_budget(question: Question, body: Mapping[str, Any]) -> None:
    """A model that thinks on a budget takes no other temperature than 1, and no orders to call."""
    thinking = body.get("thinking")
    if not isinstance(thinking, dict) or thinking.get("type") != "enabled":
        return
    if body.get("temperature", 1) != 1:
        raise question.refusal("temperature", "cannot be other than 1 beside reasoning")
    if body.get("tool_choice", {}).get("type") in ("any", "tool"):
        raise question.refusal("tool_choice", "cannot demand a call beside reasoning")


def _schema(question: Question) -> dict[str, Any] | None:
    form = question.take("response_format")
    kind = form.get("type") if isinstance(form, dict) else form
    if kind in (None, "text"):
        return None
    if kind != "json_schema":
        raise question.refusal("response_format", "is neither text nor a JSON schema, the forms that can be promised")
    wanted = form.get("json_schema")
    schema = wanted.get("schema") if isinstance(wanted, dict) else None
    if not isinstance(schema, dict):
        raise question.refusal("response_format.json_schema.schema", "is no JSON schema, which is needed")
    return {"description": wanted["description"], **schema} if wanted.get("description") else schema


def _tools(question: Question) -> dict[str, Any]:
    tools = [_tool(question, f"tools[{index}]", tool) for index, tool in enumerate(question.take("tools", ()))]
    choice = _choice(question, question.take("tool_choice"))
    if question.take("parallel_tool_calls") is False and tools and (choice is None or choice.get("type") != "none"):
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    if not tools:
        # Without tools, a choice is an error to Anthropic, and these two ask for nothing.
        return {"tool_choice": choice} if choice and choice.get("type") not in ("none", "auto") else {}
    return {"tools": tools} | ({"tool_choice": choice} if choice else {})


def _tool(question: Question, at: str, tool: Mapping[str, Any]) -> dict[str, Any]:
    """A function, or a tool of Anthropic's own, which has a type and no function."""
    native = {name: value for name, value in tool.items() if value is not None}
    function = native.pop("function", None)
    type = native.pop("type", "")
    if function is None and type != "function" and type not in native:
        return {"type": type, **native} if type else native
    if type not in ("", "function") or not isinstance(function, dict):
        raise question.refusal(at)
    said = {name: value for name, value in function.items() if value is not None}
    schema = said.pop("parameters", {"type": "object", "properties": {}})
    if not isinstance(schema, dict):
        raise question.refusal(f"{at}.function.parameters", "is no JSON schema, which is needed")
    return {**said, "input_schema": schema, **native}


def _choice(question: Question, choice: Any) -> dict[str, Any] | None:
    if choice is None:
        return None
    if isinstance(choice, str) and choice in _CHOICES:
        return {"type": _CHOICES[choice]}
    if isinstance(choice, dict):
        function = choice.get("function")
        if choice.get("type") == "function" and isinstance(function, dict) and isinstance(function.get("name"), str):
            return {"type": "tool", "name": function["name"]}
        if choice.get("type") in _NATIVE_CHOICES:
            return choice
    raise question.refusal("tool_choice")


def _terms(question: Question) -> dict[str, Any]:
    """Who asks, and how soon it is served."""
    terms: dict[str, Any] = {}
    metadata = question.take("metadata", {})
    given = dict(metadata) if isinstance(metadata, dict) else {}
    marks = {"metadata.user_id": given.pop("user_id", None)}
    marks |= {name: question.take(name) for name in ("safety_identifier", "user")}
    for name in given:
        question.leave_out(f"metadata.{name}")
    for name, mark in marks.items():
        if mark is None:
            continue
        if "metadata" not in terms:
            terms["metadata"] = {"user_id": mark}
        elif terms["metadata"]["user_id"] != mark:
            question.leave_out(name, "is a second mark of the user")
    tier = question.take("service_tier")
    if isinstance(tier, str) and tier in _TIERS:
        terms["service_tier"] = _TIERS[tier]
    elif tier is not None:
        question.leave_out("service_tier")
    return terms
