"""The messages of a request as Anthropic's: the system prompt apart, and turns of `user` and `assistant`, each a list of blocks."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Raw

from services.dispatch.adapters.question import Question
from services.wire.fields import parse_object

Block = dict[str, Any]
Content = str | list[Block]

# Parts that OpenAI has and Anthropic has not.
_UNSAYABLE = ("input_audio",)


class Dialogue:
    """The turns as they grow: results of tools that follow each other are one turn, in the place that Anthropic demands."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._system: list[Block] = []
        self._messages: list[dict[str, Any]] = []
        self._is_after_result = False

    def members(self, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """`messages` and, if there is a system message, `system`."""
        for index, message in enumerate(messages):
            self._add(f"messages[{index}]", {name: value for name, value in message.items() if value is not None})
        system = _shortest(self._system)
        if not self._messages:
            return {"messages": [{"role": "user", "content": system}]}
        said: dict[str, Any] = {"messages": self._messages}
        return {"system": system, **said} if system else said

    def _add(self, at: str, message: dict[str, Any]) -> None:
        role = message.pop("role", None)
        is_after_result, self._is_after_result = self._is_after_result, role == "tool"
        if role in ("system", "developer"):
            self._system += _marked(self._texts(at, message), message)
        elif role == "user":
            self._messages.append({"role": "user", "content": self._content(at, message)})
        elif role == "assistant":
            self._messages.append({"role": "assistant", "content": self._assistant(at, message)})
        elif role == "tool":
            result = self._result(at, message)
            if is_after_result:
                self._messages[-1]["content"].append(result)
            else:
                self._messages.append({"role": "user", "content": [result]})
        else:
            raise self._question.refusal(f"{at}.role", "has a value without counterpart")
        self._question.see_to_turn(at, message)

    def _texts(self, at: str, message: dict[str, Any]) -> list[Block]:
        """The blocks of a message that may only hold text."""
        blocks = self._blocks(at, message.pop("content", ""))
        for index, block in enumerate(blocks):
            if block.get("type") != "text":
                raise self._question.refusal(f"{at}.content[{index}]", "is no text, as it has to be here")
        return blocks

    def _content(self, at: str, message: dict[str, Any]) -> Content:
        """A message's content in the form that it came in, unless a mark needs a block to stand on."""
        content = message.pop("content", "")
        if isinstance(content, str) and "cache_control" not in message:
            return content
        return _marked(self._blocks(at, content), message)

    def _assistant(self, at: str, message: dict[str, Any]) -> Content:
        thoughts = self._native(at, message, "thinking_blocks")
        if message.pop("reasoning_content", "") and not thoughts:
            self._question.leave_out(f"{at}.reasoning_content", "cannot be said without its signature")
        served = self._native(at, message, "content_blocks")
        content, refused = message.pop("content", ""), message.pop("refusal", "")
        calls = [self._call(f"{at}.tool_calls[{index}]", call) for index, call in enumerate(message.pop("tool_calls", ()))]
        if isinstance(content, str) and content and not (thoughts or served or refused or calls or "cache_control" in message):
            return content
        # Empty text is not allowed, and OpenAI's messages with calls often have it.
        said = [block for block in self._blocks(at, content) if block.get("text") != ""] if content else []
        if refused:
            said.append({"type": "text", "text": refused})
        return _marked([*thoughts, *served, *said, *calls], message)

    def _native(self, at: str, message: dict[str, Any], name: str) -> list[Block]:
        """Blocks that an answer of ours brought, on their way back."""
        blocks = message.pop(name, [])
        if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
            raise self._question.refusal(f"{at}.{name}", "is no list of blocks, as it has to be")
        return blocks

    def _call(self, at: str, call: Mapping[str, Any]) -> Block:
        native = {name: value for name, value in call.items() if value is not None and name != "index"}
        function = native.pop("function", None)
        if native.pop("type", "function") != "function" or not isinstance(function, dict):
            raise self._question.refusal(at)
        text = function.get("arguments") or ""
        arguments = _json_object(text) if text.strip() else {}
        if arguments is None:
            raise self._question.refusal(f"{at}.function.arguments", "is no JSON object, as it has to be")
        return {"type": "tool_use", "id": native.pop("id", ""), "name": function.get("name", ""), "input": arguments, **native}

    def _result(self, at: str, message: dict[str, Any]) -> Block:
        result: Block = {"type": "tool_result", "tool_use_id": message.pop("tool_call_id", "")}
        content = message.pop("content", "")
        result["content"] = content if isinstance(content, str) else self._blocks(at, content)
        message.pop("name", None)  # the id says which call it was
        for name in ("is_error", "cache_control", "toolset_name"):
            if name in message:
                result[name] = message.pop(name)
        return result

    def _blocks(self, at: str, content: str | Sequence[Mapping[str, Any]]) -> list[Block]:
        if isinstance(content, str):
            return [{"type": "text", "text": content}]
        return [self._block(f"{at}.content[{index}]", part) for index, part in enumerate(content)]

    def _block(self, at: str, part: Mapping[str, Any]) -> Block:
        """One part. What is native in it stays, and a part of another type than OpenAI's is native as a whole."""
        native = {name: value for name, value in part.items() if value is not None}
        type = native.pop("type", "")
        if type in _UNSAYABLE or not isinstance(type, str):
            raise self._question.refusal(at)
        if type == "refusal":
            return {"type": "text", "text": native.pop("refusal", ""), **native}
        if type == "image_url":
            return {"type": "image", "source": self._image(at, native.pop("image_url", None)), **native}
        if type == "file":
            return {**self._document(at, native.pop("file", None)), **native}
        return {"type": type, **native}

    def _image(self, at: str, image: Any) -> Block:
        url = image.get("url") if isinstance(image, dict) else None
        if not isinstance(url, str) or not url:
            raise self._question.refusal(at, "has no address")
        if image.get("detail", "auto") != "auto":
            self._question.leave_out(f"{at}.image_url.detail")
        if not url.startswith("data:"):
            return {"type": "url", "url": url}
        media_type, data = self._data(at, url)
        return {"type": "base64", "media_type": media_type, "data": data}

    def _document(self, at: str, file: Any) -> Block:
        """A file in the request, which has to be a PDF or text, or one that Anthropic keeps."""
        given = file if isinstance(file, dict) else {}
        data, id, name = (given.get(member) for member in ("file_data", "file_id", "filename"))
        title = {"title": name} if name else {}
        if isinstance(id, str) and id:
            return {"type": "document", "source": {"type": "file", "file_id": id}, **title}
        if not isinstance(data, str) or not data:
            raise self._question.refusal(at, "is no file that can be named")
        if data.startswith(("https:", "http:")):
            return {"type": "document", "source": {"type": "url", "url": data}, **title}
        # OpenAI's clients may leave the type of a PDF to its name.
        is_bare = not data.startswith("data:")
        media_type, encoded = ("application/pdf", data) if is_bare else self._data(at, data)
        if is_bare and isinstance(name, str) and not name.lower().endswith(".pdf"):
            raise self._question.refusal(at, "is no PDF and no data URL, one of which it has to be")
        if media_type == "application/pdf":
            return {"type": "document", "source": {"type": "base64", "media_type": media_type, "data": encoded}, **title}
        if not media_type.startswith("text/"):
            raise self._question.refusal(at, "is neither a PDF nor text, as it has to be")
        try:
            text = base64.b64decode(encoded, validate=True).decode()
        except (binascii.Error, ValueError):
            raise self._question.refusal(at, "is no text in UTF-8, as it says") from None
        return {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": text}, **title}

    def _data(self, at: str, url: str) -> tuple[str, str]:
        """The type of a base64 data URL, and what it holds."""
        head, _, data = url.partition(",")
        media_type, *_ = head.removeprefix("data:").split(";")
        if not head.endswith(";base64") or not media_type:
            raise self._question.refusal(at, "is no base64 data URL with a type, as it has to be")
        return media_type, data


def _shortest(blocks: list[Block]) -> Content:
    """One bare text as a string."""
    return blocks[0]["text"] if len(blocks) == 1 and len(blocks[0]) == 2 else blocks


def _marked(blocks: list[Block], message: dict[str, Any]) -> list[Block]:
    """Takes a message's own mark for the cache, which belongs on its last block."""
    mark = message.pop("cache_control", None)
    return [*blocks[:-1], blocks[-1] | {"cache_control": mark}] if mark is not None and blocks else blocks


def _json_object(text: str) -> dict[str, Raw] | None:
    """The members of a JSON object, each with its text as it is; None when the text is no object."""
    try:
        return parse_object(text.encode())
    except ValueError:
        return None
