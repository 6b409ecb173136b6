import pytest

from joulegate.chat.v1 import chat_pb2
from services.router.question import extensions, for_providers
from services.runtime.errors import GatewayError


def _request(extra: bytes) -> chat_pb2.ChatRequest:
    return chat_pb2.ChatRequest(model="m", extra_json=extra)


def test_the_gateways_own_fields_are_taken_out_and_the_rest_stays_to_the_letter() -> None:
    request = _request(b'{"x-cache":false,"top_k":1.0,"routing":{"strategy":"cost"}}')
    taken = extensions(request)
    assert taken == {"x-cache": False, "routing": {"strategy": "cost"}}
    assert for_providers(request, taken).extra_json == b'{"top_k":1.0}'


def test_a_request_without_them_is_not_copied() -> None:
    request = _request(b'{"top_k":1}')
    assert for_providers(request, extensions(request)) is request


def test_openrouters_provider_object_is_not_ours() -> None:
    assert extensions(_request(b'{"provider":{"order":["a"]}}')) == {}
    assert extensions(_request(b'{"provider":"a"}')) == {"provider": "a"}


def test_a_number_that_nothing_holds_is_refused_by_name() -> None:
    with pytest.raises(GatewayError) as raised:
        extensions(_request(b'{"x-budget-key":1E+702}'))
    assert raised.value.http_status == 400
    assert raised.value.metadata["param"] == "x-budget-key"
