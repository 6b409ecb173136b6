"""What a request asks of whoever answers it: tokens, capabilities, and the place where its conversation began."""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

from joulegate.chat.v1 import chat_pb2
from services.router import tokens

# A prompt that is so many times shorter or longer than the room for it surely fits or does not, however far off the estimate is.
CLEAR: Final = 3.0
# Counting takes 25 microseconds a kilobyte; of longer texts, the estimate is near enough.
COUNTED_CHARACTERS: Final = 16_384
# Of each message at most so much tells conversations apart.
_TOLD: Final = 4096
_OF_PART: Final = {"image_url": "vision", "input_audio": "audio"}


class Demand:
    """One request, as far as choosing goes. What takes time to find out is found out when it is asked for."""

    __slots__ = (
        "_home",
        "_input_tokens",
        "_is_counted",
        "_most_tokens",
        "_request",
        "max_output_tokens",
        "needs",
        "streamed",
    )

    def __init__(self, request: chat_pb2.ChatRequest, required: frozenset[str] = frozenset()) -> None:
        self._request = request
        self._most_tokens: int | None = None
        self._input_tokens: int | None = None
        # Whether these are as near as they are ever going to be.
        self._is_counted = False
        self._home: bytes | None = None
        bound = request.max_completion_tokens or request.max_tokens
        # The most that the answer may have; None: no bound.
        self.max_output_tokens = bound if bound > 0 else None
        # Capabilities, in the words of provider listings: what the request uses, and what it insists on besides.
        self.needs = required.union(_needs(request))
        self.streamed = request.stream

    @classmethod
    def known(cls, input_tokens: int, max_output_tokens: int | None, needs: frozenset[str], home: bytes, *, streamed: bool) -> "Demand":
        """One whose request nobody has any more, only what it came to."""
        demand = cls(chat_pb2.ChatRequest(stream=streamed), needs)
        demand._most_tokens = demand._input_tokens = input_tokens
        demand._is_counted = True
        demand._home = home
        demand.max_output_tokens = max_output_tokens
        return demand

    @property
    def input_tokens(self) -> int:
        """Of the prompt, as near as choosing needs it."""
        if self._input_tokens is None:
            self._input_tokens = tokens.about_prompt(self._request)
        return self._input_tokens

    @property
    def home(self) -> bytes:
        """A digest of the conversation's beginning, which stays the same over its turns; empty when there is none."""
        if self._home is None:
            self._home = _home(self._request)
        return self._home

    def exceeds(self, context_tokens: int) -> bool:
        """Whether prompt and answer do not fit into so many tokens together."""
        room = context_tokens - (self.max_output_tokens or 0)
        if self._most_tokens is None:
            characters = _characters(self._request)
            # No text has more tokens than bytes, and few characters have four.
            self._most_tokens = characters * 4 + tokens.TOKENS_PER_MESSAGE * len(self._request.messages)
            self._is_counted = characters > COUNTED_CHARACTERS
        if self._most_tokens <= room:
            return False
        if not self._is_counted and room < CLEAR * self.input_tokens < CLEAR * CLEAR * room:
            self._input_tokens, self._is_counted = tokens.count_prompt(self._request), True
        return self.input_tokens > room


def _characters(request: chat_pb2.ChatRequest) -> int:
    characters = sum(len(tool.function.parameters_json) for tool in request.tools) if request.tools else 0
    for message in request.messages:
        characters += len(message.text)
        if message.HasField("parts"):
            characters += sum(len(part.text) for part in message.parts.parts)
    return characters


def _needs(request: chat_pb2.ChatRequest) -> Iterator[str]:
    if request.tools:
        yield "tools"
    if request.response_format_json:
        if b'"json_schema"' in request.response_format_json:
            yield "json_schema"
        elif b'"json_object"' in request.response_format_json:
            yield "json_mode"
    for message in request.messages:
        if message.HasField("parts"):
            yield from (_OF_PART[part.type] for part in message.parts.parts if part.type in _OF_PART)


def _home(request: chat_pb2.ChatRequest) -> bytes:
    """Over all up to the first question: later turns repeat it and go on from there."""
    digest = blake2b(digest_size=16)
    for message in request.messages:
        digest.update(b"%d:" % message.role)
        digest.update(message.text[:_TOLD].encode("utf-8", "replace"))
        for part in message.parts.parts:
            digest.update(part.text[:_TOLD].encode("utf-8", "replace"))
        if message.role == chat_pb2.ROLE_USER:
            return digest.digest()
    return b""
