"""What stands in headers: names come from clients and providers and can be anything."""

import re

import pytest

from joulegate.chat.v1 import receipt_pb2
from services.router import rendering
from services.router.answer import Source


@pytest.mark.parametrize("name", ["plain", "a\r\nset-cookie: x", "\x00\x0b\x7f", "é\U0010ffff", "x" * 100_000, "\ud800"])
def test_any_name_makes_a_header_that_can_be_sent(name: str) -> None:
    text = rendering._header_text(name)
    assert re.fullmatch(r"[ -~]{0,4096}", text)
    assert (text == name) is (name == "plain")


def test_a_source_is_told_with_its_names_made_fit() -> None:
    source = Source("lab\n", "m", receipt_pb2.CACHE_STATUS_MISS)
    assert rendering._header_text(source.provider) == "lab\\n"
