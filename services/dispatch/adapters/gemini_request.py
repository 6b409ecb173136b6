"""Requests in Google Gemini's dialect: OpenAI's members become contents, tools and one generation config.

What is said otherwise than it came, beside names:
- System and developer messages, wherever they stand, become the one system instruction; if there is nothing else, the user's turn.
- Consecutive tool results become one turn, as Gemini demands. A result that is no JSON object is given as `output`, Google's name for it.
- A refusal in an assistant's message is text, and a schema's `description` goes into the schema. A schema's `name` is only a label.
- A strict function makes all functions be called by their schemas: Gemini has one mode for all.
- A seed beyond 32 bits is folded into them; the same seed is still the same.
- `reasoning_effort` also asks for the thoughts to be shown, as summaries: whoever asks for reasoning can read it. On models up to 2.5 an
  effort is a budget of tokens, as Google's own OpenAI-compatible endpoint converts it.
- Since version 3, a model refuses function calls of its past that bear no signature of its thoughts. Calls that another model made get
  the mark that Google documents for them.

Native members are taken at the top level, in either of protobuf's spellings, or in `extra_body.google` as that endpoint takes them.
"""

import re
from collections.abc import Mapping
from typing import Any

from services.dispatch.adapters.gemini_dialogue import Dialogue
from services.dispatch.adapters.question import Question

# What goes over as it is, by OpenAI's name.
_GENERATION = {
    "temperature": "temperature",
    "top_p": "topP",
    "n": "candidateCount",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "logprobs": "responseLogprobs",
    "max_tokens": "maxOutputTokens",
    "max_completion_tokens": "maxOutputTokens",
}
# Native members of the generation config that users of OpenAI's SDK can only put beside the others.
_NATIVE_GENERATION = frozenset(_GENERATION.values()) | {
    "audioTranscriptionConfig",
    "enableEnhancedCivicAnswers",
    "imageConfig",
    "mediaResolution",
    "responseJsonSchema",
    "responseMimeType",
    "responseModalities",
    "responseSchema",
    "seed",
    "speechConfig",
    "stopSequences",
    "thinkingConfig",
    "topK",
}
# They would stand in the place of what OpenAI's members say.
_TAKEN = frozenset({"contents", "systemInstruction"})

_BUDGETED = re.compile(r"(models/)?gemini-[12]\b")
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
_LEVELS = {effort: effort.upper() for effort in ("minimal", "low", "medium", "high", "xhigh")}

_MODES = {"none": "NONE", "auto": "AUTO", "required": "ANY"}
_TIERS = {"flex": "flex", "priority": "priority"}
_MODALITIES = frozenset({"text", "image"})


def members(question: Question, model: str) -> dict[str, Any]:
    """The body's members. Raises Failure for what Gemini cannot be told."""
    has_budgets = _BUDGETED.match(model) is not None
    dialogue = Dialogue(question, needs_signatures=not has_budgets)
    body: dict[str, Any] = dialogue.members(question.take("messages", ()))
    body |= _tools(question)
    body |= _terms(question)
    body["generationConfig"] = _generation(question, has_budgets)
    _add_native(question, body)
    if not body["generationConfig"]:
        del body["generationConfig"]
    return body


def _generation(question: Question, has_budgets: bool) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for name, ours in _GENERATION.items():
        value = question.take(name)
        if value is not None:
            config[ours] = value
    if (stop := question.take("stop")) is not None:
        config["stopSequences"] = [stop] if isinstance(stop, str) else stop
    if (seed := question.take("seed")) is not None:
        config["seed"] = seed if -(1 << 31) <= seed < 1 << 31 else seed & 0x7FFF_FFFF
    if top := question.take("top_logprobs"):
        config["logprobs"] = top
    config |= _format(question)
    if thinking := _thinking(question, has_budgets):
        config["thinkingConfig"] = thinking
    modalities = question.take("modalities")
    if modalities not in (None, ["text"]):
        if not (isinstance(modalities, list) and all(isinstance(one, str) and one in _MODALITIES for one in modalities)):
            raise question.refusal("modalities")
        config["responseModalities"] = [one.upper() for one in modalities]
    return config


def _format(question: Question) -> dict[str, Any]:
    form = question.take("response_format")
    kind = form.get("type") if isinstance(form, dict) else form
    if kind in (None, "text"):
        return {}
    if kind not in ("json_object", "json_schema"):
        raise question.refusal("response_format")
    config: dict[str, Any] = {"responseMimeType": "application/json"}
    if kind == "json_object":
        return config
    wanted = form.get("json_schema")
    schema = wanted.get("schema") if isinstance(wanted, dict) else None
    if not isinstance(schema, dict):
        raise question.refusal("response_format.json_schema.schema", "is no JSON schema, which is needed")
    if wanted.get("description"):
        schema = {"description": wanted["description"], **schema}
    return {**config, "responseJsonSchema": schema}


def _thinking(question: Question, has_budgets: bool) -> dict[str, Any]:
    effort = question.take("reasoning_effort")
    if effort is None:
        return {}
    if effort == "none":
        return {"thinkingBudget": 0}
    if has_budgets and effort in _BUDGETS:
        return {"thinkingBudget": _BUDGETS[effort], "includeThoughts": True}
    if not has_budgets and effort in _LEVELS:
        return {"thinkingLevel": _LEVELS[effort], "includeThoughts": True}
    raise question.refusal("reasoning_effort", "has a value without counterpart")


def _terms(question: Question) -> dict[str, Any]:
    """Who stores the call, and how soon it is served. Tiers that Gemini has no word for are left to the question's rest."""
    terms: dict[str, Any] = {}
    if (store := question.take("store")) is not None:
        terms["store"] = store
    tier = question.take("service_tier")
    if isinstance(tier, str) and tier in _TIERS:
        terms["serviceTier"] = _TIERS[tier]
    elif tier not in (None, "auto", "default"):
        question.leave_out("service_tier")
    return terms


def _tools(question: Question) -> dict[str, Any]:
    native: list[dict[str, Any]] = []
    declarations: list[dict[str, Any]] = []
    is_strict = False
    for index, tool in enumerate(question.take("tools", ())):
        function = tool.get("function")
        if function is None and not tool.get("type"):
            native.append(tool)
        elif isinstance(function, dict) and tool.get("type", "function") == "function":
            is_strict = is_strict or function.get("strict") is True
            declarations.append(_declaration(question, f"tools[{index}]", tool))
        else:
            raise question.refusal(f"tools[{index}]")
    tools = native if not declarations else [{"functionDeclarations": declarations}, *native]
    said: dict[str, Any] = {"tools": tools} if tools else {}
    calling = _calling(question, is_strict)
    return said | ({"toolConfig": {"functionCallingConfig": calling}} if calling else {})


def _declaration(question: Question, at: str, tool: Mapping[str, Any]) -> dict[str, Any]:
    for name in tool.keys() - {"type", "function"}:
        question.leave_out(f"{at}.{name}")
    function = {name: value for name, value in tool["function"].items() if value is not None and name != "strict"}
    parameters = function.pop("parameters", None)
    if isinstance(parameters, dict):
        function["parametersJsonSchema"] = parameters
    elif parameters is not None:
        raise question.refusal(f"{at}.function.parameters", "is no JSON schema, which is needed")
    return function


def _calling(question: Question, is_strict: bool) -> dict[str, Any]:
    """When functions are called. VALIDATED is AUTO that holds to the schemas and may bear a list of names."""
    choice = question.take("tool_choice")
    if choice is None or choice == "auto":
        return {"mode": "VALIDATED"} if is_strict else {} if choice is None else {"mode": "AUTO"}
    if isinstance(choice, str) and choice in _MODES:
        return {"mode": _MODES[choice]}
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"mode": "ANY", "allowedFunctionNames": [_function_name(question, choice)]}
    allowed = choice.get("allowed_tools") if isinstance(choice, dict) and choice.get("type") == "allowed_tools" else None
    if isinstance(allowed, dict) and allowed.get("mode") in ("auto", "required") and isinstance(allowed.get("tools"), list):
        names = [_function_name(question, tool) for tool in allowed["tools"]]
        return {"mode": "ANY" if allowed["mode"] == "required" else "VALIDATED", "allowedFunctionNames": names}
    raise question.refusal("tool_choice")


def _function_name(question: Question, tool: Any) -> str:
    function = tool.get("function") if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise question.refusal("tool_choice")
    return name


def _add_native(question: Question, body: dict[str, Any]) -> None:
    """Puts what is for Gemini alone where it belongs. It wins over what OpenAI's members say of the same."""
    native = question.rest()
    wrapped = native.get("extra_body")
    google = wrapped.get("google") if isinstance(wrapped, dict) else None
    if isinstance(google, dict):
        native = {name: value for name, value in native.items() if name != "extra_body"} | google
    config: dict[str, Any] = body["generationConfig"]
    for name, value in native.items():
        ours = camel(name)
        if ours in _TAKEN:
            raise question.refusal(name, "stands in the place of 'messages'")
        if ours == "generationConfig" and isinstance(value, dict):
            for inner, setting in value.items():
                _set(config, camel(inner), setting)
        elif ours in _NATIVE_GENERATION:
            _set(config, ours, value)
        else:
            _set(body, ours if ours in body else name, value)


def _set(target: dict[str, Any], name: str, value: Any) -> None:
    """Objects are merged: a user may add to the thinking config what an effort does not say."""
    said = target.get(name)
    if isinstance(said, dict) and isinstance(value, dict):
        target[name] = said | {camel(inner): setting for inner, setting in value.items()}
    else:
        target[name] = value


def camel(name: str) -> str:
    """Protobuf's JSON name of a field; Google takes both spellings, but not both at once."""
    return re.sub(r"_([a-z])", lambda match: match.group(1).upper(), name)
