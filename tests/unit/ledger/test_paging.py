"""Only page tokens that were given out are taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ledger.paging import PageTokens, page_size
from services.runtime.errors import GatewayError

TOKENS = PageTokens("secret")


@given(st.integers(1, 2**63 - 1), st.text())
def test_token_reads_back_for_its_filter(position: int, request_id: str) -> None:
    assert TOKENS.read(TOKENS.write(position, request_id), request_id) == position


def test_empty_token_is_the_newest_page() -> None:
    assert TOKENS.read("", "") is None


@pytest.mark.parametrize(
    "token", ["x", "AAAA", "ä", "=", PageTokens("other").write(5, ""), TOKENS.write(5, "r1"), TOKENS.write(5, "") + "AAAA", "A" * 28]
)
def test_foreign_token_is_refused(token: str) -> None:
    with pytest.raises(GatewayError, match="page_token"):
        TOKENS.read(token, "")


@given(st.text(max_size=40))
def test_any_text_is_refused_without_a_fault(token: str) -> None:
    if token:
        with pytest.raises(GatewayError):
            TOKENS.read(token, "")


def test_page_size_has_a_default_and_a_ceiling() -> None:
    assert [page_size(asked) for asked in (0, 1, 1000, 1001, 2**31 - 1)] == [50, 1, 1000, 1000, 1000]
    with pytest.raises(GatewayError):
        page_size(-1)
