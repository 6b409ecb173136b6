import pytest

from services.wire import sse
from services.wire.sse import EventTooLarge, SseDecoder, SseEvent


def read(stream: bytes) -> list[SseEvent]:
    return SseDecoder().feed(stream)


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b'data: {"a":1}\n\n', [SseEvent(None, b'{"a":1}')]),
        (b"data: a\n\ndata: b\n\n" + sse.DONE, [SseEvent(None, b"a"), SseEvent(None, b"b"), SseEvent(None, b"[DONE]")]),
        (b"data: a\r\n\r\ndata: b\r\rdata: c\n\r\n", [SseEvent(None, b"a"), SseEvent(None, b"b"), SseEvent(None, b"c")]),
        (b"data: one\ndata: two\ndata\ndata: four\n\n", [SseEvent(None, b"one\ntwo\n\nfour")]),
        (b"data:tight\n\ndata:  wide\n\n", [SseEvent(None, b"tight"), SseEvent(None, b" wide")]),
        (b"data\n\ndata:\n\n", [SseEvent(None, b""), SseEvent(None, b"")]),
        (b": ping\n\nevent: ping\n\ndata: a\n\n", [SseEvent(None, b"a")]),
        (b"event: error\nid: 7\nretry: 10\ndata: a\n\ndata: b\n\n", [SseEvent("error", b"a"), SseEvent(None, b"b")]),
        (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", [SseEvent(None, b"a")]),
        (b"\n\n\ndatax: a\nDATA: b\n\n", []),
        (b"data: never dispatched\n", []),
    ],
)
def test_streams_are_read_as_the_standard_says(stream: bytes, events: list[SseEvent]) -> None:
    assert read(stream) == events


def test_a_line_end_split_between_two_reads_is_one() -> None:
    decoder = SseDecoder()
    assert decoder.feed(b"data: a\r") == []
    assert decoder.feed(b"") == []
    assert decoder.feed(b"\ndata: b\r") == []
    assert decoder.feed(b"\n\r") == [SseEvent(None, b"a\nb")]
    assert decoder.feed(b"\n") == []
    assert not decoder.close()


@pytest.mark.parametrize("rest", [b"d", b"data: a", b"data: a\n", b"data: a\r"])
def test_close_tells_a_cut_stream(rest: bytes) -> None:
    decoder = SseDecoder()
    decoder.feed(b"data: whole\n\n" + rest)
    assert decoder.close()


@pytest.mark.parametrize("stream", [b"", b"data: a\n\n", b"data: a\r\r", b"data: a\n\n: bye\n", b"data: a\n\nevent: x\n"])
def test_close_tells_a_whole_stream(stream: bytes) -> None:
    decoder = SseDecoder()
    decoder.feed(stream)
    assert not decoder.close()


@pytest.mark.parametrize("stream", [b"data: " + b"x" * 100 + b"\n\n", b"data: " + b"x" * 100, b"data:\n" * 100, b": " + b"x" * 100])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_event_beyond_the_bound_is_refused(stream: bytes, size: int) -> None:
    decoder = SseDecoder(max_event_bytes=64)
    with pytest.raises(EventTooLarge):
        for start in range(0, len(stream), size):
            decoder.feed(stream[start : start + size])


def test_the_bound_is_for_one_event_and_not_for_the_stream() -> None:
    decoder = SseDecoder(max_event_bytes=64)
    for _ in range(100):
        assert len(decoder.feed(b": ping\n\ndata: 0123456789\n\ndata: abc")) == 1
        assert len(decoder.feed(b"def\n\n")) == 1


@pytest.mark.parametrize("data", [b"", b"{}", b" lead", b"[\n1,\r\n2\n]"])
def test_what_is_encoded_is_read_back(data: bytes) -> None:
    assert read(sse.encode(data)) == [SseEvent(None, data.replace(b"\r\n", b"\n"))]
