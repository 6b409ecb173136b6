from joulegate.chat.v1 import chat_pb2
from services.router.question import extensions, for_providers


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


def test_a_number_that_nothing_holds_is_taken_out_and_acted_on_by_nobody() -> None:
    request = _request(b'{"x-budget-key":1E+702,"top_k":1}')
    taken = extensions(request)
    assert taken.keys() == {"x-budget-key"}
    assert for_providers(request, taken).extra_json == b'{"top_k":1}'
