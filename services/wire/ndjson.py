"""Newline-delimited JSON, split into its lines from any chunking of the bytes."""


class LineTooLarge(ValueError):  # noqa: N818 - says what is wrong with the line
    """A line outgrew the bound; the decoder is of no further use."""


class LineDecoder:
    """Turns the bytes of one stream into its lines, without the blank ones."""

    __slots__ = ("_held_bytes", "_max_line_bytes", "_pieces")

    def __init__(self, max_line_bytes: int = 16 * 1024 * 1024) -> None:
        self._max_line_bytes = max_line_bytes
        self._pieces: list[bytes] = []  # of a line whose end has not come; joined once, or a slow stream would cost its square
        self._held_bytes = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes. `LineTooLarge` when what must be held exceeds the bound."""
        *lines, rest = data.split(b"\n")
        if lines and self._pieces:
            lines[0] = b"".join((*self._pieces, lines[0]))
            self._pieces.clear()
            self._held_bytes = 0
        if rest:
            self._pieces.append(rest)
            self._held_bytes += len(rest)
        if self._held_bytes > self._max_line_bytes or any(len(line) > self._max_line_bytes for line in lines):
            raise LineTooLarge(f"a line of the stream is larger than {self._max_line_bytes} bytes")
        return [line for line in lines if line and not line.isspace()]
