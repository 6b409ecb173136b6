"""How a stream is cut into reads makes no difference."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.wire.sse import SseDecoder, SseEvent, encode

fragments = st.sampled_from([b"data: ", b"data", b":", b" ", b"event: x", b"\n", b"\r", b"\r\n", b"\n\n", b"{}", b"\xef\xbb\xbf", b"\xff"])
streams = st.lists(fragments | st.binary(max_size=4), max_size=30).map(b"".join)


def read(reads: list[bytes]) -> tuple[list[SseEvent], bool]:
    decoder = SseDecoder()
    events = [event for data in reads for event in decoder.feed(data)]
    return events, decoder.close()


@given(stream=streams, data=st.data())
def test_any_chunking_gives_the_same_events(stream: bytes, data: st.DataObject) -> None:
    whole = read([stream])
    assert read([stream[i : i + 1] for i in range(len(stream))]) == whole
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6))), len(stream)]
    assert read([stream[a:b] for a, b in pairwise(cuts)]) == whole


@given(payloads=st.lists(st.text().map(str.encode), max_size=5))
def test_encoded_events_are_read_back(payloads: list[bytes]) -> None:
    stream = b"".join(map(encode, payloads))
    expected = [SseEvent(None, data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")) for data in payloads]
    assert read([stream]) == (expected, False)
