"""Keys stay where they belong."""

import pytest

from services.dispatch.failure import MAX_TEXT, Failure, Kind
from services.dispatch.keys import Key
from services.dispatch.provider_spec import ProviderSpec
from services.runtime.secret import Secret

KEY = "sk-canary-123"


def test_a_secret_does_not_show_itself() -> None:
    spec = ProviderSpec("lab", "openai", "http://127.0.0.1/v1", (Key(Secret(KEY)),))
    for shown in (repr(spec), str(spec.keys[0].secret), f"{spec.keys}"):
        assert KEY not in shown


def test_a_secret_is_trimmed_and_equal_by_value() -> None:
    assert Secret(f" {KEY}\n").reveal() == KEY
    assert Secret(KEY) == Secret(KEY)
    assert len({Secret(KEY), Secret(KEY)}) == 1


@pytest.mark.parametrize(("text", "is_sendable"), [(KEY, True), ("", False), ("a\nb", False), ("schlüssel", False)])
def test_only_printable_ascii_can_be_sent(text: str, is_sendable: bool) -> None:
    assert Secret(text).is_sendable is is_sendable


def test_a_failure_is_presentable_without_the_key_and_without_length() -> None:
    failure = Failure(Kind.REFUSED, f"bad key {KEY} " + "x" * 9999, type=KEY, param=KEY, code=f"a{KEY}", http_status=401)
    shown = failure.presentable(Secret(KEY).redact)
    assert KEY not in "".join((shown.message, shown.type, shown.param, shown.code))
    assert shown.message.startswith("bad key *** xxx")
    assert len(shown.message) == MAX_TEXT
    assert shown.code == "a***"


def test_a_key_at_the_cut_leaves_no_piece() -> None:
    failure = Failure(Kind.REFUSED, "x" * (MAX_TEXT - 5) + KEY)
    assert "sk-" not in failure.presentable(Secret(KEY).redact).message


def test_the_summary_has_none_of_the_vendors_words() -> None:
    assert Failure(Kind.REFUSED, "you said: hello", http_status=500).summary == "HTTP 500"
    assert "hello" not in Failure(Kind.REFUSED, "you said: hello").summary
