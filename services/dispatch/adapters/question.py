"""A request as a dialect of its own takes it apart: what OpenAI calls each thing, and what becomes of a thing the dialect has no word for.

A dialect takes the members that it can say. Of the others, OpenAI's are refused or, where the answer is as good without, left out with a
warning; what OpenAI does not know either is meant for this very vendor, and goes to it as it is.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from joulegate.chat.v1 import chat_pb2
from services.dispatch.failure import Failure, Kind
from services.wire.openai import encode_request

# Nothing is promised about the answer by these: bookkeeping at OpenAI, hints for speed, and `seed`, which is best effort by its definition.
HARMLESS = frozenset(
    {
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "seed",
        "service_tier",
        "store",
        "user",
        "verbosity",
    }
)
# The rest of OpenAI's own parameters: an answer that ignores one of them is not the answer that was asked for.
ESSENTIAL = frozenset(
    {
        "audio",
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "modalities",
        "moderation",
        "n",
        "parallel_tool_calls",
        "presence_penalty",
        "reasoning_effort",
        "response_format",
        "stop",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "web_search_options",
    }
)
# What OpenAI does when nothing is said: saying so asks for nothing.
_DEFAULTS: Mapping[str, Sequence[Any]] = {
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True,),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "top_logprobs": (0,),
}
# What answers of ours bring in one vendor's words, on messages and calls: they come back in later turns, which any vendor may be asked.
_KEEPSAKES = frozenset({"caller", "content_blocks", "extra_content", "thinking_blocks"})


class Question:
    """One request as OpenAI's JSON, in Python's own types. Its members are taken one by one; `null` is the same as absent.

    Of what earlier answers brought in one vendor's words, the dialect's own are in `keepsakes`; the others are left out. Raises Failure of
    kind UNSUPPORTED for a number that no type of Python's holds.
    """

    def __init__(self, request: chat_pb2.ChatRequest, dialect: str, keepsakes: frozenset[str] = frozenset()) -> None:
        try:
            members: dict[str, Any] = msgspec.json.decode(encode_request(request))
        except msgspec.DecodeError:
            # All else that is no JSON was found out when the request came in.
            raise Failure(
                Kind.UNSUPPORTED, "A number in the request is larger than any double.", type="invalid_request_error", code="invalid_number"
            ) from None
        self._members = {name: value for name, value in members.items() if value is not None}
        self._dialect = dialect
        self._warnings: list[str] = []
        # The gateway's own affairs: the target's model stands in its place, and how to stream is each dialect's own way of saying.
        for name in ("model", "stream", "stream_options"):
            self.take(name)
        for index, message in enumerate(self._members.get("messages") or ()):
            self._leave_keepsakes(f"messages[{index}]", message, _KEEPSAKES - keepsakes)

    def _leave_keepsakes(self, at: str, turn: dict[str, Any], foreign: frozenset[str]) -> None:
        for name in sorted(turn.keys() & foreign):
            if turn.pop(name):
                self.leave_out(f"{at}.{name}", "is another vendor's and has no counterpart")
        for index, call in enumerate(turn.get("tool_calls") or ()):
            self._leave_keepsakes(f"{at}.tool_calls[{index}]", call, foreign)

    def take(self, name: str, default: Any = None) -> Any:
        """The value of a member, which is then seen to; `default` when it is absent."""
        return self._members.pop(name, default)

    def has(self, name: str) -> bool:
        """Whether a member is there and not yet taken."""
        return name in self._members

    def leave_out(self, param: str, why: str = "has no counterpart") -> None:
        """Warns that something harmless does not reach the provider."""
        self._warnings.append(f"{param}: {why} in {self._dialect}, left out")

    def approximate(self, param: str, said: str) -> None:
        """Warns that the provider is told the nearest that it has a word for."""
        self._warnings.append(f"{param}: has no counterpart in {self._dialect}, sent as {said}")

    def refusal(self, param: str, why: str = "has no counterpart") -> Failure:
        """The error for what cannot be said and matters. `param` is the path from the top, as in `messages[2].content[0]`."""
        return Failure(
            Kind.UNSUPPORTED,
            f"'{param}' {why} in {self._dialect}.",
            type="invalid_request_error",
            param=param,
            code="unsupported_parameter",
        )

    def see_to_turn(self, at: str, unsaid: Mapping[str, Any]) -> None:
        """Sorts the members of a turn at `at` that the dialect has no place for. Empty values ask for nothing. Raises Failure."""
        for name, value in unsaid.items():
            if name in ("audio", "function_call"):
                raise self.refusal(f"{at}.{name}")
            if value:
                self.leave_out(f"{at}.{name}")

    def rest(self) -> dict[str, Any]:
        """What is for the vendor alone. Raises Failure for OpenAI's members that were not taken and matter."""
        for name in sorted(self._members.keys() & (HARMLESS | ESSENTIAL)):
            value = self.take(name)
            if value in _DEFAULTS.get(name, ()):
                continue
            if name not in HARMLESS:
                raise self.refusal(name)
            self.leave_out(name)
        return self._members

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(self._warnings)
