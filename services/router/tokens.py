"""Token counts where the provider gives none: o200k for the books, what bytes tell to choose by, a ratio where a bound is enough.

The vocabulary (48 MB) is loaded when it is first needed: when a stream ends without usage, or a prompt is about as long as a context.
"""

import math
from collections.abc import Iterable
from functools import cache
from typing import Any, Final

import numpy as np

from joulegate.chat.v1 import chat_pb2
from joulegate.ledger.v1 import entry_pb2

# The books take no larger count, and no honest provider reports one.
MOST_TOKENS = 10**9
# o200k needs one token for 3.3 bytes or more in every text class that was measured.
BYTES_PER_TOKEN = 3.3
TOKENS_PER_MESSAGE = 4
# Upper bounds: of what a vendor's template puts around a conversation, a message and a tool, of what it tells a model of tools at all, and
# of what a vision model is documented to make of an image.
MOST_AROUND = 64
MOST_PER_MESSAGE = 8
MOST_PER_TOOL = 32
MOST_FOR_TOOLS = 1024
MOST_PER_IMAGE = 16_384

# Of a longer prompt, this many bytes of its head and as many of its tail say how many tokens it has.
_SAMPLED_HALF: Final = 8192
# Thousandths of a token that bytes take, by the first and the last of each range; what continues a character takes nothing. Fitted to o200k
# over English, source code and 32 other languages, where nine of ten estimates are within a fifth (bench/results/2026-11-22-routing.md).
_THOUSANDTHS: Final = (
    (0x00, 0x1F, 100),
    (0x20, 0x20, 200),
    (0x21, 0x7F, 620),
    (0x30, 0x39, 710),
    (0x41, 0x5A, 225),
    (0x61, 0x7A, 225),
    # Latin with marks; Greek, Cyrillic, Hebrew, Arabic.
    (0xC2, 0xCD, 1120),
    (0xCE, 0xDF, 345),
    # India and its neighbours; signs; China, Japan and Korea; pictures.
    (0xE0, 0xE1, 385),
    (0xE2, 0xE2, 1600),
    (0xE3, 0xEF, 800),
    (0xF0, 0xF4, 2200),
)


def _weights() -> Any:
    weights = np.zeros(256, np.int64)
    for first, last, thousandths in _THOUSANDTHS:
        weights[first : last + 1] = thousandths
    return weights


_WEIGHTS: Final = _weights()


@cache
def _vocabulary() -> Any:
    from rs_bpe.bpe import openai

    return openai.o200k_base()


def decode(token: int) -> str:
    """The text of a token; empty for bytes that are none by themselves."""
    return _vocabulary().decode([token]) or ""


def count_text(text: str) -> int:
    """Tokens of a text."""
    return int(_vocabulary().count(text)) if text else 0


def reported(usage: chat_pb2.Usage) -> entry_pb2.TokenCounts | None:
    """The counts that a provider gives; None when they cannot be true: the books would refuse them, and the request with them."""
    counts = entry_pb2.TokenCounts(input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens)
    if usage.HasField("prompt_tokens_details"):
        prompt = usage.prompt_tokens_details
        counts.cached_input_tokens, counts.input_audio_tokens = prompt.cached_tokens, prompt.audio_tokens
        counts.cache_write_tokens, counts.cache_write_1h_tokens = prompt.cache_write_tokens, prompt.cache_write_1h_tokens
    if usage.HasField("completion_tokens_details"):
        completion = usage.completion_tokens_details
        counts.reasoning_tokens, counts.output_audio_tokens = completion.reasoning_tokens, completion.audio_tokens
    for _, count in counts.ListFields():
        # Booleans are in range, too.
        if not 0 <= count <= MOST_TOKENS:
            return None
    return counts


def about(data: bytes) -> int:
    """Tokens of a text in UTF-8, as near as its bytes tell: 4 microseconds a kilobyte, and 25 at most."""
    read = data if len(data) <= 2 * _SAMPLED_HALF else data[:_SAMPLED_HALF] + data[-_SAMPLED_HALF:]
    thousandths = int(np.bincount(np.frombuffer(read, np.uint8), minlength=256) @ _WEIGHTS)
    return math.ceil(thousandths * len(data) / (len(read) * 1000)) if read else 0


def about_prompt(request: chat_pb2.ChatRequest) -> int:
    """What count_prompt counts, as near as bytes tell."""
    said = [_spoken(message) for message in request.messages]
    said += [part.text for message in request.messages if message.HasField("parts") for part in message.parts.parts]
    tools = [tool.function.parameters_json for tool in request.tools]
    data = b"".join(("".join(said).encode("utf-8", "replace"), *tools))
    return about(data) + TOKENS_PER_MESSAGE * len(request.messages)


def quick_prompt_estimate(request: chat_pb2.ChatRequest) -> int:
    """Tokens that a prompt takes, from its size alone."""
    return math.ceil(request.ByteSize() / BYTES_PER_TOKEN)


def most_prompt_tokens(request: chat_pb2.ChatRequest) -> int:
    """An upper bound of what a prompt takes, whoever reads it: no tokenizer makes more tokens of a text than it has bytes."""
    most = request.ByteSize() + MOST_AROUND + MOST_PER_MESSAGE * len(request.messages)
    if request.tools:
        most += MOST_FOR_TOOLS + MOST_PER_TOOL * len(request.tools)
    for message in request.messages:
        for part in message.parts.parts:
            if part.HasField("image_url"):
                # Its bytes are no text.
                most += MOST_PER_IMAGE - len(part.image_url.url)
    return min(most, MOST_TOKENS)


def count_prompt(request: chat_pb2.ChatRequest) -> int:
    """Tokens of a prompt: its texts, its tools and what each message costs around them. Images are not counted."""
    tools = sum(count_text(tool.function.parameters_json.decode("utf-8", "replace")) for tool in request.tools)
    return tools + sum(TOKENS_PER_MESSAGE + _count_message(message) for message in request.messages)


def count_answer(messages: Iterable[chat_pb2.Message]) -> int:
    """Tokens of what a model has said, whole or in pieces."""
    return count_text("".join(_spoken(message) for message in messages))


def _count_message(message: chat_pb2.Message) -> int:
    return count_text(_spoken(message)) + sum(count_text(part.text) for part in message.parts.parts)


def _spoken(message: chat_pb2.Message) -> str:
    said = message.reasoning_content + message.text + message.refusal
    if not message.tool_calls:
        return said
    return said + "".join(call.function.name + call.function.arguments for call in message.tool_calls)
