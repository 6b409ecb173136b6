"""The messages of a request as Gemini's contents: turns of `user` and `model`, each a list of parts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Raw

from services.dispatch.adapters.question import Question
from services.wire.fields import parse_object

# Google's own mark for calls whose thoughts no Gemini signed.
UNSIGNED = "skip_thought_signature_validator"
FILES = "https://generativelanguage.googleapis.com/v1beta/"

_MIME_TYPES = {
    "csv": "text/csv",
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
    "html": "text/html",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "json": "application/json",
    "md": "text/markdown",
    "mov": "video/quicktime",
    "mp3": "audio/mp3",
    "mp4": "video/mp4",
    "ogg": "audio/ogg",
    "pdf": "application/pdf",
    "png": "image/png",
    "txt": "text/plain",
    "wav": "audio/wav",
    "webm": "video/webm",
    "webp": "image/webp",
    "xml": "text/xml",
}

Part = dict[str, Any]


class Dialogue:
    """The contents as they grow: a tool's result is told by the name of the function that an earlier turn called."""

    def __init__(self, question: Question, *, needs_signatures: bool) -> None:
        self._question = question
        self._needs_signatures = needs_signatures
        self._system: list[Part] = []
        self._contents: list[dict[str, Any]] = []
        self._function_names: dict[str, str] = {}
        self._is_after_result = False

    def members(self, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """`contents` and, if there is a system message, `systemInstruction`."""
        for index, message in enumerate(messages):
            self._add(f"messages[{index}]", {name: value for name, value in message.items() if value is not None})
        if not self._contents:
            return {"contents": [{"role": "user", "parts": self._system}]}
        said: dict[str, Any] = {"contents": self._contents}
        return said | {"systemInstruction": {"parts": self._system}} if self._system else said

    def _add(self, at: str, message: dict[str, Any]) -> None:
        role = message.pop("role", None)
        is_after_result, self._is_after_result = self._is_after_result, role == "tool"
        if role in ("system", "developer"):
            self._system += self._texts(at, message)
            if self._contents:
                self._question.approximate(f"{at}.role", "a part of the one system instruction")
        elif role == "user":
            self._contents.append({"role": "user", "parts": self._parts(at, message.pop("content", ""))})
        elif role == "assistant":
            self._contents.append({"role": "model", "parts": self._assistant(at, message)})
        elif role == "tool":
            result = self._result(at, message)
            if is_after_result:
                self._contents[-1]["parts"].append(result)
            else:
                self._contents.append({"role": "user", "parts": [result]})
        else:
            raise self._question.refusal(f"{at}.role", "has a value without counterpart")
        self._question.see_to_turn(at, message)

    def _texts(self, at: str, message: dict[str, Any]) -> list[Part]:
        """The parts of a message that may only hold text."""
        parts = self._parts(at, message.pop("content", ""))
        for index, part in enumerate(parts):
            if "text" not in part:
                raise self._question.refusal(f"{at}.content[{index}]", "is no text, as it has to be here")
        return parts

    def _assistant(self, at: str, message: dict[str, Any]) -> list[Part]:
        thoughts = [{"text": text, "thought": True} for text in [message.pop("reasoning_content", "")] if text]
        content = message.pop("content", "")
        parts = self._parts(at, content) if content else []
        if refusal := message.pop("refusal", ""):
            parts.append({"text": refusal})
        if signature := _signature(message):
            if not parts or "text" not in parts[-1]:
                parts.append({"text": ""})
            parts[-1]["thoughtSignature"] = signature
        parts += self._images(at, message)
        calls = [self._call(f"{at}.tool_calls[{index}]", call) for index, call in enumerate(message.pop("tool_calls", ()))]
        if calls and self._needs_signatures and not any("thoughtSignature" in part for part in calls):
            calls[0]["thoughtSignature"] = UNSIGNED
        return [*thoughts, *parts, *calls] or [{"text": ""}]

    def _images(self, at: str, message: dict[str, Any]) -> Iterator[Part]:
        """Images that an answer of ours brought, on their way back."""
        for index, image in enumerate(message.pop("images") if isinstance(message.get("images"), list) else ()):
            if isinstance(image, dict) and image.get("type") == "image_url":
                yield self._part(f"{at}.images[{index}]", {name: value for name, value in image.items() if name != "index"})
            else:
                raise self._question.refusal(f"{at}.images[{index}]")

    def _call(self, at: str, call: Mapping[str, Any]) -> Part:
        unsaid = {name: value for name, value in call.items() if value is not None}
        function = unsaid.pop("function", None)
        if unsaid.pop("type", "function") != "function" or not isinstance(function, dict):
            raise self._question.refusal(at)
        native = {name: value for name, value in function.items() if value is not None}
        name = native.pop("name", "")
        arguments = native.pop("arguments", "")
        args = json_object(arguments) if arguments.strip() else {}
        if args is None:
            raise self._question.refusal(f"{at}.function.arguments", "is no JSON object, as it has to be")
        called = {"name": name, "args": args, **native}
        if id := unsaid.pop("id", ""):
            self._function_names[id] = name
            called["id"] = id
        part: Part = {"functionCall": called}
        if signature := _signature(unsaid):
            part["thoughtSignature"] = signature
        unsaid.pop("index", None)
        self._question.see_to_turn(at, unsaid)
        return part

    def _result(self, at: str, message: dict[str, Any]) -> Part:
        id = message.pop("tool_call_id", "")
        own_name = message.pop("name", "")
        name = self._function_names.get(id) or own_name
        if not name:
            raise self._question.refusal(f"{at}.tool_call_id", "names no earlier call, and so no function, which is needed")
        texts = [part["text"] for part in self._texts(at, message)]
        only = texts[0] if len(texts) == 1 else None
        response: Any = None if only is None else json_object(only)
        if response is None:
            response = {"output": texts if only is None else only}
        return {"functionResponse": {"name": name, "response": response} | ({"id": id} if id else {})}

    def _parts(self, at: str, content: str | Sequence[Mapping[str, Any]]) -> list[Part]:
        if isinstance(content, str):
            return [{"text": content}]
        return [self._part(f"{at}.content[{index}]", part) for index, part in enumerate(content)]

    def _part(self, at: str, part: Mapping[str, Any]) -> Part:
        """One part; what is native in it stays, and a part without a type is native as a whole."""
        native = {name: value for name, value in part.items() if value is not None}
        type = native.pop("type", "")
        own = native.pop(type, None) if type else None
        if type in ("text", "refusal") and isinstance(own, str):
            said: Part = {"text": own}
        elif type == "image_url" and isinstance(own, dict):
            said = self._linked(at, own.get("url"))
            if own.get("detail", "auto") != "auto":
                self._question.leave_out(f"{at}.image_url.detail")
        elif type == "input_audio" and isinstance(own, dict):
            said = {"inlineData": {"mimeType": f"audio/{own.get('format', '')}", "data": own.get("data", "")}}
        elif type == "file" and isinstance(own, dict):
            said = self._file(at, own)
        elif type:
            raise self._question.refusal(at)
        else:
            said = {}
        if signature := _signature(native):
            said["thoughtSignature"] = signature
        if native.pop("cache_control", None) is not None:
            self._question.leave_out(f"{at}.cache_control")
        return said | native

    def _linked(self, at: str, url: Any) -> Part:
        """What a base64 data URL holds, or another address names."""
        if not isinstance(url, str) or not url:
            raise self._question.refusal(at, "has no address")
        if not url.startswith("data:"):
            ending = url.partition("?")[0].partition("#")[0].rpartition(".")[2].lower()
            mime_type = _MIME_TYPES.get(ending)
            return {"fileData": {"fileUri": url} | ({"mimeType": mime_type} if mime_type else {})}
        head, _, data = url.partition(",")
        mime_type, *_ = head.removeprefix("data:").split(";")
        if not head.endswith(";base64") or not mime_type:
            raise self._question.refusal(at, "is no base64 data URL with a type, as it has to be")
        return {"inlineData": {"mimeType": mime_type, "data": data}}

    def _file(self, at: str, file: Mapping[str, Any]) -> Part:
        """Data in the request, or a file of Google's: its address or `files/...`."""
        data, id, name = (file.get(member) for member in ("file_data", "file_id", "filename"))
        if isinstance(data, str) and data:
            mime_type = _MIME_TYPES.get(name.rpartition(".")[2].lower()) if isinstance(name, str) else None
            if mime_type and not data.startswith("data:"):
                data = f"data:{mime_type};base64,{data}"
            if not data.startswith("data:"):
                raise self._question.refusal(f"{at}.file.file_data", "is of no known type")
            if name:
                self._question.leave_out(f"{at}.file.filename")
            return self._linked(at, data)
        if isinstance(id, str) and id.startswith("files/"):
            return self._linked(at, FILES + id)
        if isinstance(id, str) and "://" in id:
            return self._linked(at, id)
        raise self._question.refusal(at, "is no file that can be named")


def _signature(members: dict[str, Any]) -> str:
    """Takes the signature of a thought from where Google's OpenAI-compatible endpoint puts it; empty when there is none."""
    content = members.get("extra_content")
    google = content.get("google") if isinstance(content, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    if not isinstance(signature, str):
        return ""
    del members["extra_content"]
    return signature


def json_object(text: str) -> dict[str, Raw] | None:
    """The members of a JSON object, each with its text as it is; None when the text is no object."""
    try:
        return parse_object(text.encode())
    except ValueError:
        return None
