import pytest

from services.router.__main__ import build
from services.router.settings import RouterSettings
from services.runtime import settings
from services.runtime.settings import SettingsError
from tests.contract.channels import new_mesh


async def test_demanding_a_key_that_does_not_exist_stops_the_start() -> None:
    locked = settings.load(RouterSettings, {"AUTH_REQUIRED": "true"})
    with pytest.raises(SettingsError, match="GATEWAY_API_KEY"):
        async with build(locked, new_mesh()):
            pass
