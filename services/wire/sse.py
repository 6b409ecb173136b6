"""Server-sent events, as the HTML standard parses them, from any chunking of the bytes."""

import re
from dataclasses import dataclass

DONE = b"data: [DONE]\n\n"

_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\r|\n")


class EventTooLarge(ValueError):  # noqa: N818 - says what is wrong with the event
    """An event outgrew the bound; the decoder is of no further use."""


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One event; `event` is None where the stream did not name its type."""

    event: str | None
    data: bytes


class SseDecoder:
    """Turns the bytes of one stream into its events. Ids and retry times are for browsers and not kept."""

    __slots__ = ("_data", "_event", "_follows_cr", "_held_bytes", "_is_first_line", "_line", "_line_bytes", "_max_event_bytes")

    def __init__(self, max_event_bytes: int = 16 * 1024 * 1024) -> None:
        self._max_event_bytes = max_event_bytes
        self._is_first_line = True
        self._follows_cr = False
        self._line: list[bytes] = []  # pieces of a line whose end has not come; joined once, or a slow stream would cost its square
        self._line_bytes = 0
        self._data: list[bytes] = []
        self._held_bytes = 0  # of self._data, with line ends
        self._event: str | None = None

    def feed(self, data: bytes) -> list[SseEvent]:
        """The events that `data` completes. `EventTooLarge` when what must be held exceeds the bound."""
        if not data:
            return []
        if self._follows_cr and data.startswith(b"\n"):  # the second half of a line end that was already acted on
            data = data[1:]
        self._follows_cr = False
        if b"\r" in data:
            self._follows_cr = data.endswith(b"\r")
            data = _LINE_END.sub(b"\n", data)
        *lines, rest = data.split(b"\n")
        events: list[SseEvent] = []
        if lines and self._line:
            lines[0] = b"".join((*self._line, lines[0]))
            self._line.clear()
            self._line_bytes = 0
        for line in lines:
            if not line:
                self._dispatch(events)
            elif line.startswith(b"data: "):
                self._hold(line[6:])
            else:
                self._read_field(line)
            self._is_first_line = False
        if rest:
            self._line.append(rest)
            self._line_bytes += len(rest)
            self._check_size()
        return events

    def close(self) -> bool:
        """Whether bytes of an undispatched event were left: the stream was cut."""
        return bool(self._line or self._data)

    def _read_field(self, line: bytes) -> None:
        if self._is_first_line:
            line = line.removeprefix(_BOM)
        name, _, value = line.partition(b":")  # a comment has the empty name
        value = value.removeprefix(b" ")
        if name == b"data":
            self._hold(value)
        elif name == b"event":
            self._event = value.decode(errors="replace") or None

    def _hold(self, value: bytes) -> None:
        self._data.append(value)
        self._held_bytes += len(value) + 1
        self._check_size()

    def _check_size(self) -> None:
        if self._held_bytes + self._line_bytes > self._max_event_bytes:
            raise EventTooLarge(f"an event of the stream is larger than {self._max_event_bytes} bytes")

    def _dispatch(self, events: list[SseEvent]) -> None:
        if self._data:
            events.append(SseEvent(self._event, b"\n".join(self._data)))
            self._data.clear()
            self._held_bytes = 0
        self._event = None


def encode(data: bytes) -> bytes:
    """One event without a type. JSON may hold line ends between its tokens: each line of `data` gets its own field."""
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(_LINE_END.split(data))
    return b"data: " + data + b"\n\n"
