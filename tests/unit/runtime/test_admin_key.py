"""The admin key."""

import pytest

from joulegate.chat.v1.error_reason_pb2 import ErrorReason
from services.runtime.admin_key import AdminKey
from services.runtime.errors import GatewayError


@pytest.mark.parametrize("authorization", [None, "", "key", "Bearer", "Bearer kei", "Bearer key2", "Bearer \u20ac", "Basic key"])
def test_anything_but_the_key_is_refused(authorization: str | None) -> None:
    with pytest.raises(GatewayError) as caught:
        AdminKey("key").check(authorization)
    assert caught.value.reason == ErrorReason.ERROR_REASON_INVALID_API_KEY


def test_no_key_opens_what_has_no_key() -> None:
    for authorization in (None, "Bearer ", "Bearer None"):
        with pytest.raises(GatewayError) as caught:
            AdminKey(None).check(authorization)
        assert caught.value.reason == ErrorReason.ERROR_REASON_PERMISSION_DENIED


def test_the_key_is_taken_with_the_scheme_in_any_case() -> None:
    AdminKey("kéy").check("bearer kéy")
