"""What a vendor says in its usage that it bills for an answer, in billionths of a US dollar; None when it says nothing that makes sense.

OpenRouter's `cost` is in credits, each a dollar. With the user's own key at the vendor behind it, that is OpenRouter's fee alone, and what
the vendor bills stands beside it. xAI counts in ten-billionths of a dollar. Both come unasked, in a stream with the usage.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from joulegate.chat.v1 import chat_pb2
from services.dispatch.adapters.base import StreamDecoder
from services.dispatch.adapters.bodies import json_or_none
from services.wire.fields import decode_members

Bill = Callable[[Mapping[str, Any]], int | None]

_NANO: Final = 10**9
_TICKS_IN_A_NANO: Final = 10
# A million dollars for an answer are none.
MOST_NANO_USD: Final = 10**15


def openrouter(usage: Mapping[str, Any]) -> int | None:
    cost = _amount(usage.get("cost"), _NANO)
    if cost is None or usage.get("is_byok") is not True:
        return cost
    details = usage.get("cost_details")
    behind = _amount(details.get("upstream_inference_cost"), _NANO) if isinstance(details, dict) else None
    # The fee alone would be a small part of the truth.
    return None if behind is None else cost + behind


def xai(usage: Mapping[str, Any]) -> int | None:
    return _amount(usage.get("cost_in_usd_ticks"), 1 / _TICKS_IN_A_NANO)


class BilledDecoder:
    """Another decoder's events, with what they say of money."""

    def __init__(self, decoder: StreamDecoder, bill: Bill) -> None:
        self._decoder = decoder
        self._bill = bill

    @property
    def is_done(self) -> bool:
        return self._decoder.is_done

    def feed(self, data: bytes) -> Iterator[chat_pb2.ChatEvent]:
        return map(self._read, self._decoder.feed(data))

    def close(self) -> Iterator[chat_pb2.ChatEvent]:
        return map(self._read, self._decoder.close())

    def _read(self, event: chat_pb2.ChatEvent) -> chat_pb2.ChatEvent:
        answer = event.chunk if event.HasField("chunk") else event.completion
        if answer.HasField("usage") and answer.usage.extra_json:
            said = {name: json_or_none(value) for name, value in decode_members(answer.usage.extra_json).items()}
            if (cost := self._bill(said)) is not None:
                event.reported_cost_nano_usd = cost
        return event


def _amount(value: Any, nano_each: float) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value * nano_each <= MOST_NANO_USD:
        return None
    return round(value * nano_each)
