"""What is asked of Cohere: OpenAI's request in the words of `/v2/chat`."""

from collections.abc import Mapping
from typing import Any

from joulegate.chat.v1 import chat_pb2
from services.dispatch.adapters.question import Question

DIALECT = "Cohere's API"

_SAME = ("temperature", "seed", "presence_penalty", "frequency_penalty", "logprobs")
# Tokens for thinking. High effort has no bound but the model's own.
_BUDGETS: Mapping[str, int | None] = {"minimal": 1024, "low": 2048, "medium": 8192, "high": None, "xhigh": None}
# What a turn holds by the same name. Cohere refuses a request for any member that it does not know.
_OF_TURN = ("tool_call_id", "tool_plan", "citations")
# OpenAI's parts that Cohere has no block for. Others, such as documents, are Cohere's own.
_FOREIGN_PARTS = frozenset({"file", "input_audio"})
_NO_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}}


def body_of(request: chat_pb2.ChatRequest, model: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The request's JSON object, and warnings. Raises Failure of kind UNSUPPORTED for what cannot be said."""
    question = Question(request, DIALECT)
    body: dict[str, Any] = {
        "model": model,
        "messages": [_message(question, index, message) for index, message in enumerate(question.take("messages"))],
        "stream": request.stream,
    }
    body |= {name: question.take(name) for name in _SAME if question.has(name)}
    if question.has("top_p"):
        body["p"] = question.take("top_p")
    older, newer = question.take("max_tokens"), question.take("max_completion_tokens")
    if (most := older if newer is None else newer) is not None:
        body["max_tokens"] = most
    if stop := question.take("stop"):
        body["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    body |= _tools(question) | _format(question) | _thinking(question)
    return body | question.rest(), question.warnings


def _message(question: Question, index: int, message: dict[str, Any]) -> dict[str, Any]:
    where = f"messages[{index}]"
    said = {name: value for name, value in message.items() if value is not None}
    role = said.pop("role")
    if role == "function":
        raise question.refusal(f"{where}.role")
    sent: dict[str, Any] = {"role": "system" if role == "developer" else role}
    calls = [_call(question, f"{where}.tool_calls[{place}]", call) for place, call in enumerate(said.pop("tool_calls", None) or ())]
    content = _content(question, where, said.pop("content", None))
    if calls and content == "":  # how some clients say that there is none; empty texts are refused
        content = None
    if refusal := said.pop("refusal", None):
        content = refusal if not content else [*_blocks(content), {"type": "text", "text": refusal}]
    if reasoning := said.pop("reasoning_content", None):
        # Beside calls it is the plan for them.
        if calls and "tool_plan" not in said:
            sent["tool_plan"] = reasoning
        else:
            content = [{"type": "thinking", "thinking": reasoning}, *_blocks(content)]
    if content is not None:
        sent["content"] = content
    if calls:
        sent["tool_calls"] = calls
    sent |= {name: said.pop(name) for name in _OF_TURN if name in said}
    question.see_to_turn(where, said)
    return sent


def _call(question: Question, at: str, call: dict[str, Any]) -> dict[str, Any]:
    """A call without its place in a stream, which those who gather one leave on it."""
    if call.get("type", "function") != "function":
        raise question.refusal(at)
    return {name: value for name, value in call.items() if name != "index"}


def _blocks(content: str | list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content or []


def _content(question: Question, where: str, content: Any) -> str | list[dict[str, Any]] | None:
    if content is None or isinstance(content, str):
        return content
    blocks = []
    for place, part in enumerate(content):
        if part.get("type") in _FOREIGN_PARTS:
            raise question.refusal(f"{where}.content[{place}]")
        blocks.append({"type": "text", "text": part.get("refusal") or ""} if part.get("type") == "refusal" else part)
    return blocks


def _tools(question: Question) -> dict[str, Any]:
    """The tools and the choice among them. A named function is said by offering that one alone and asking for a call."""
    tools = [_tool(question, f"tools[{index}]", tool) for index, tool in enumerate(question.take("tools", []))]
    sent: dict[str, Any] = {}
    choice = question.take("tool_choice", "auto")
    match choice:
        case "auto":
            pass
        case "none" | "required":
            sent["tool_choice"] = choice.upper()
        case {"type": "function", "function": {"name": str(name)}}:
            tools = [tool for tool in tools if tool["function"].get("name") == name]
            if not tools:
                raise question.refusal("tool_choice", "names a function that is not among the tools and so")
            sent["tool_choice"] = "REQUIRED"
        case _:
            raise question.refusal("tool_choice")
    if not tools:
        question.take("parallel_tool_calls")
        return sent if choice == "required" else {}
    strict = [tool["function"].pop("strict", False) for tool in tools]
    if all(strict):
        sent["strict_tools"] = True
    elif any(strict):
        question.leave_out("tools[].function.strict", "is for all tools or none of them")
    return {"tools": tools} | sent


def _tool(question: Question, at: str, tool: dict[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, dict):
        raise question.refusal(at)
    # OpenAI's are optional: without them the function takes nothing.
    return tool | {"function": {"parameters": _NO_PARAMETERS} | {name: value for name, value in function.items() if value is not None}}


def _format(question: Question) -> dict[str, Any]:
    wanted = question.take("response_format", {"type": "text"})
    match wanted:
        case {"type": "text"}:
            return {}
        case {"type": "json_object"}:
            return {"response_format": wanted}
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            if wanted["json_schema"].get("description"):
                question.leave_out("response_format.json_schema.description")
            return {"response_format": {"type": "json_object", "json_schema": schema}}
        case {"type": "json_schema"}:
            raise question.refusal("response_format.json_schema.schema", "must be an object")
    raise question.refusal("response_format")


def _thinking(question: Question) -> dict[str, Any]:
    effort = question.take("reasoning_effort")
    if effort is None or question.has("thinking"):
        return {}
    if effort == "none":
        return {"thinking": {"type": "disabled"}}
    if effort not in _BUDGETS:
        raise question.refusal("reasoning_effort", f"of {effort!r} has no counterpart")
    budget = _BUDGETS[effort]
    return {"thinking": {"type": "enabled"} | ({} if budget is None else {"token_budget": budget})}
