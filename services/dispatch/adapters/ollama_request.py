"""What is asked of an Ollama: OpenAI's request in the words of `/api/chat`."""

import re
from collections.abc import Mapping
from typing import Any

from msgspec import DecodeError, Raw

from joulegate.chat.v1 import chat_pb2
from services.dispatch.adapters.question import Question
from services.wire.fields import decode_members

DIALECT = "Ollama's API"

_OPTION_OF = {
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
# Ollama's own options, which it overlooks at the top level of a request, where clients of OpenAI's API put whatever is not OpenAI's.
_OWN_OPTIONS = frozenset(
    {
        "draft_num_predict",
        "main_gpu",
        "min_p",
        "mirostat",
        "mirostat_eta",
        "mirostat_tau",
        "num_batch",
        "num_ctx",
        "num_gpu",
        "num_keep",
        "num_predict",
        "num_thread",
        "penalize_newline",
        "repeat_last_n",
        "repeat_penalty",
        "tfs_z",
        "top_k",
        "typical_p",
        "use_mmap",
    }
)
_THINK_OF: Mapping[str, bool | str] = {"none": False, "low": "low", "medium": "medium", "high": "high"}
_NEAREST_THINK = {"minimal": "low", "xhigh": "high"}
_DATA_URL = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)


def body_of(request: chat_pb2.ChatRequest, model: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The request's JSON object, and warnings. Raises Failure of kind UNSUPPORTED for what cannot be said."""
    question = Question(request, DIALECT)
    names = _names_of_calls(request)
    body: dict[str, Any] = {
        "model": model,
        "messages": [_message(question, index, message, names) for index, message in enumerate(question.take("messages"))],
        "stream": request.stream,
    }
    if tools := _tools(question):
        body["tools"] = tools
    if (format := _format(question)) is not None:
        body["format"] = format
    if (think := _think(question)) is not None:
        body["think"] = think
    for name in ("logprobs", "top_logprobs"):
        if question.has(name):
            body[name] = question.take(name)
    if options := _options(question):
        body["options"] = options
    return body | question.rest(), question.warnings


def _names_of_calls(request: chat_pb2.ChatRequest) -> dict[str, str]:
    """The function that each call was for, by the call's id."""
    return {call.id: call.function.name for message in request.messages for call in message.tool_calls if call.id}


def _message(question: Question, index: int, message: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    where = f"messages[{index}]"
    said = {name: value for name, value in message.items() if value is not None}
    role = said.pop("role")
    if role == "function" or "function_call" in said:
        raise question.refusal(f"{where}.role" if role == "function" else f"{where}.function_call")
    if "audio" in said:
        raise question.refusal(f"{where}.audio")
    sent: dict[str, Any] = {"role": "system" if role == "developer" else role}
    content, refusal = said.pop("content", None), said.pop("refusal", None)
    texts, images = _content(question, where, content)
    if refusal:
        texts.append(refusal)
    if texts or content is not None:
        sent["content"] = "\n".join(texts)
    if images:
        sent["images"] = images
    if reasoning := said.pop("reasoning_content", None):
        sent["thinking"] = reasoning
    if calls := said.pop("tool_calls", None):
        sent["tool_calls"] = [_call(question, f"{where}.tool_calls[{place}]", call) for place, call in enumerate(calls)]
    name = said.pop("name", None)
    if role == "tool":
        if tool_name := names.get(said.get("tool_call_id", "")) or name:
            sent["tool_name"] = tool_name
    elif name:
        question.leave_out(f"{where}.name")
    return sent | said


def _content(question: Question, where: str, content: Any) -> tuple[list[str], list[str]]:
    """The texts and the images, which are apart here."""
    if content is None or isinstance(content, str):
        return ([content] if content is not None else []), []
    texts: list[str] = []
    images: list[str] = []
    for place, part in enumerate(content):
        at = f"{where}.content[{place}]"
        match part.get("type"):
            case "text":
                texts.append(part.get("text") or "")
            case "refusal":
                texts.append(part.get("refusal") or "")
            case "image_url":
                images.append(_image(question, at, part.get("image_url") or {}))
            case _:
                raise question.refusal(at)
        for name in sorted(part.keys() - {"type", "text", "refusal", "image_url"}):
            question.leave_out(f"{at}.{name}")
    return texts, images


def _image(question: Question, at: str, image: dict[str, Any]) -> str:
    url = image.get("url") or ""
    prefix = _DATA_URL.match(url)
    if prefix is None:
        raise question.refusal(at, "must be a base64 data URL, since images cannot be fetched from addresses")
    if image.get("detail") not in (None, "auto"):
        question.leave_out(f"{at}.image_url.detail")
    return str(url[prefix.end() :])


def _call(question: Question, at: str, call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if call.get("type", "function") != "function" or not isinstance(function, dict):
        raise question.refusal(at)
    text = (function.get("arguments") or "").encode() or b"{}"
    try:
        decode_members(text)
    except (DecodeError, UnicodeError):
        raise question.refusal(f"{at}.function.arguments", "must be a JSON object") from None
    kept = {name: value for name, value in call.items() if name not in ("type", "index")}
    return kept | {"function": function | {"arguments": Raw(text)}}


def _tools(question: Question) -> list[dict[str, Any]]:
    """The tools that may be called: none of them when none is to be chosen."""
    tools = question.take("tools", [])
    for index, tool in enumerate(tools):
        function = tool.get("function")
        if tool.get("type") != "function" or not isinstance(function, dict):
            raise question.refusal(f"tools[{index}]")
        if function.pop("strict", None):
            question.leave_out(f"tools[{index}].function.strict")
    choice = question.take("tool_choice", "auto")
    if choice not in ("auto", "none"):
        raise question.refusal("tool_choice", "can only be 'auto' or 'none'")
    if choice == "none":
        tools = []
    if not tools:
        question.take("parallel_tool_calls")
    return list(tools)


def _format(question: Question) -> Any:
    wanted = question.take("response_format", {"type": "text"})
    match wanted.get("type") if isinstance(wanted, dict) else None:
        case "text":
            return None
        case "json_object":
            return "json"
        case "json_schema":
            described = wanted.get("json_schema")
            schema = described.get("schema") if isinstance(described, dict) else None
            if not isinstance(schema, dict):
                raise question.refusal("response_format.json_schema.schema", "must be an object")
            if described.get("description"):
                question.leave_out("response_format.json_schema.description")
            return schema
    raise question.refusal("response_format")


def _think(question: Question) -> bool | str | None:
    effort = question.take("reasoning_effort")
    if effort is None or question.has("think"):
        return None
    if nearest := _NEAREST_THINK.get(effort):
        question.approximate("reasoning_effort", nearest)
        return nearest
    if effort not in _THINK_OF:
        raise question.refusal("reasoning_effort", f"of {effort!r} has no counterpart")
    return _THINK_OF[effort]


def _options(question: Question) -> dict[str, Any]:
    """OpenAI's parameters among Ollama's options. What the client says in Ollama's own words wins."""
    options = {option: question.take(name) for name, option in _OPTION_OF.items() if question.has(name)}
    older, newer = question.take("max_tokens"), question.take("max_completion_tokens")
    if (most := older if newer is None else newer) is not None:
        options["num_predict"] = most
    if stop := question.take("stop"):
        options["stop"] = [stop] if isinstance(stop, str) else stop
    options |= {name: question.take(name) for name in sorted(_OWN_OPTIONS) if question.has(name)}
    own = question.take("options", {})
    if not isinstance(own, dict):
        raise question.refusal("options", "must be an object")
    return options | own
