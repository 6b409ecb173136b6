import pytest

from services.runtime.errors import GatewayError
from services.runtime.identity import ANONYMOUS, Caller, Identities, ModelScope


def test_without_a_key_everybody_may_come() -> None:
    assert Identities(None, auth_required=False).caller(None, None) == ANONYMOUS


def test_different_credentials_are_different_tenants_and_the_key_itself_is_not_kept() -> None:
    identities = Identities(None, auth_required=False)
    one, other = identities.caller("Bearer secret-one", None), identities.caller(None, "secret-two")
    assert one.tenant != other.tenant
    assert "secret" not in one.key_id
    assert identities.caller("bearer secret-one", None) == one


def test_the_configured_key_is_demanded() -> None:
    identities = Identities("right", auth_required=False)
    assert identities.caller("Bearer right", None).key_id
    assert identities.caller(None, "right").key_id
    for authorization, api_key in [(None, None), ("Bearer wrong", None), ("Basic right", None), (None, "wrong"), ("Bearer ", None)]:
        with pytest.raises(GatewayError) as raised:
            identities.caller(authorization, api_key)
        assert raised.value.http_status == 401


def test_required_authentication_without_a_key_lets_nobody_in() -> None:
    with pytest.raises(GatewayError):
        Identities(None, auth_required=True).caller("Bearer anything", None)


@pytest.mark.parametrize(
    ("patterns", "allowed", "refused"),
    [
        (["gpt-4o"], [("openai", "gpt-4o")], [("openai", "gpt-4o-mini"), ("openai", "xgpt-4o"), ("openai", "GPT-4o")]),
        (["gpt-4o*"], [("openai", "gpt-4o-mini"), ("lab", "gpt-4o")], [("openai", "gpt-4")]),
        (["lab/*"], [("lab", "a"), ("lab", "meta/b")], [("other", "a"), ("xlab", "a")]),
        (["l*"], [("x", "large")], [("lab", "small")]),
        (["*"], [("x", "meta/large")], []),
        (["*/small"], [("lab", "small")], [("lab", "large")]),
        (["a", "b?"], [("x", "a"), ("x", "bc")], [("x", "b"), ("x", "ab")]),
        (["a.c"], [("x", "a.c")], [("x", "abc")]),
        (["a|b(", "x\n"], [("x", "a|b(")], [("x", "a"), ("x", "x")]),
    ],
    ids=str,
)
def test_patterns_allow_models_by_name_or_with_their_provider(
    patterns: list[str], allowed: list[tuple[str, str]], refused: list[tuple[str, str]]
) -> None:
    caller = Caller("key_1", "key:key_1", ModelScope(patterns))
    assert [caller.may_use(*target) for target in allowed] == [True] * len(allowed)
    assert [caller.may_use(*target) for target in refused] == [False] * len(refused)
    assert all(ANONYMOUS.may_use(*target) for target in allowed + refused)
