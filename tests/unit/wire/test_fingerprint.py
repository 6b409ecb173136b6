import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from services.wire.extensions import EXTENSION_FIELDS, PINNING_FIELDS
from services.wire.fingerprint import exact_digest, scope_digest
from services.wire.openai import decode_request
from tests.unit.wire.samples import FULL_REQUEST

Path = tuple[str | int, ...]


def digest(body: dict[str, Any] | str) -> bytes:
    text = body if isinstance(body, str) else json.dumps(body)
    return exact_digest(decode_request(text.encode()))


def paths(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    yield path, value
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, member in members:
        yield from paths(member, (*path, step))


def container(body: Any, path: Path) -> Any:
    for step in path:
        body = body[step]
    return body


def other(value: Any, path: Path) -> Any:
    """A value of the same type that is not the same."""
    if path[-1] == "role":
        return "system"
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case None:
            return "text"
    return value + "x"


LEAVES = [path for path, value in paths(FULL_REQUEST) if not isinstance(value, dict | list)]
OBJECTS = [path for path, value in paths(FULL_REQUEST) if isinstance(value, dict)]


def test_a_digest_has_32_bytes_and_does_not_depend_on_the_process() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    assert digest(body).hex() == "47b06de6aa17d241a8edd382a82d25622e3d3e9872f252bde89dfcc32ce51f15"


@pytest.mark.parametrize("path", LEAVES, ids=str)
def test_every_value_counts(path: Path) -> None:
    body = copy.deepcopy(FULL_REQUEST)
    parent = container(body, path[:-1])
    parent[path[-1]] = other(parent[path[-1]], path)
    assert digest(body) != digest(FULL_REQUEST)


@pytest.mark.parametrize("path", OBJECTS, ids=str)
def test_unknown_members_count_at_every_depth(path: Path) -> None:
    body = copy.deepcopy(FULL_REQUEST)
    container(body, path)["new_in_2027"] = None
    assert digest(body) != digest(FULL_REQUEST)


def test_the_order_of_names_and_the_space_between_do_not_count() -> None:
    def backwards(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: backwards(member) for name, member in reversed(value.items())}
        return [backwards(member) for member in value] if isinstance(value, list) else value

    assert digest(json.dumps(backwards(FULL_REQUEST), indent=3)) == digest(FULL_REQUEST)


def test_the_order_of_messages_counts() -> None:
    body = copy.deepcopy(FULL_REQUEST)
    body["messages"].reverse()
    assert digest(body) != digest(FULL_REQUEST)


IRRELEVANT: dict[str, Any] = {
    "stream": True,
    "stream_options": {"include_usage": True},
    "user": "someone",
    "metadata": {"a": "b"},
    "store": True,
    "safety_identifier": "abc",
    "prompt_cache_key": "abc",
} | dict.fromkeys(EXTENSION_FIELDS - PINNING_FIELDS, "abc")


@pytest.mark.parametrize("name", sorted(IRRELEVANT))
def test_what_cannot_change_the_answer_does_not_count(name: str) -> None:
    assert digest(FULL_REQUEST | {name: IRRELEVANT[name]}) == digest(FULL_REQUEST)
    assert digest(FULL_REQUEST | {name: None}) == digest(FULL_REQUEST)


@pytest.mark.parametrize("name", sorted(IRRELEVANT))
def test_the_same_names_count_further_down(name: str) -> None:
    body = copy.deepcopy(FULL_REQUEST)
    body["messages"][0][name] = "abc"
    assert digest(body) != digest(FULL_REQUEST)


@pytest.mark.parametrize("name", sorted(PINNING_FIELDS))
def test_a_pinned_provider_counts(name: str) -> None:
    digests = {digest(FULL_REQUEST), digest(FULL_REQUEST | {name: "openai"}), digest(FULL_REQUEST | {name: "groq"})}
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("one", "another"),
    [
        ('"x":1', '"x":"1"'),
        ('"x":null', '"x":"null"'),
        ('"x":true', '"x":1'),
        ('"x":[1,2]', '"x":[12]'),
        ('"x":{"a":1}', '"x":"{\\"a\\":1}"'),
        ('"stop":"a"', '"stop":["a"]'),
        ('"stop":["a","b"]', '"stop":["a,b"]'),
        ('"tools":[]', '"tools":null'),
        ('"x":1e999', '"x":1e998'),
        ('"x":0.1', '"x":0.10000000000000000001'),
        ('"x":' + "9" * 5000, '"x":' + "9" * 5001),
    ],
)
def test_different_values_never_meet(one: str, another: str) -> None:
    head = '{"model":"m","messages":[{"role":"user","content":"hi"}],'
    assert digest(head + one + "}") != digest(head + another + "}")


def test_text_does_not_move_between_neighbours() -> None:
    def question(*texts: str) -> dict[str, Any]:
        return {"model": "m", "messages": [{"role": "user", "content": text} for text in texts]}

    assert len({digest(question("ab", "c")), digest(question("a", "bc")), digest(question("abc"))}) == 3


def test_a_null_is_not_an_absent_member() -> None:
    assert digest(FULL_REQUEST | {"verbosity": None}) != digest(FULL_REQUEST)


def scope(body: dict[str, Any]) -> bytes:
    return scope_digest(decode_request(json.dumps(body).encode()))


def asked(content: Any, **members: Any) -> dict[str, Any]:
    earlier = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    return {"model": "m", "messages": [*earlier, {"role": "user", "content": content}]} | members


def test_only_the_words_of_the_last_message_are_outside_the_scope() -> None:
    assert scope(asked("What is a joule?")) == scope(asked("Define joule"))
    assert scope(asked("What is a joule?")) != digest(asked("What is a joule?"))
    for index in range(3):
        body = asked("What is a joule?")
        body["messages"][index]["content"] += "x"
        assert scope(body) != scope(asked("What is a joule?"))


@pytest.mark.parametrize("path", [path for path in LEAVES if path[:2] != ("messages", len(FULL_REQUEST["messages"]) - 1)], ids=str)
def test_every_other_value_is_in_the_scope(path: Path) -> None:
    body = copy.deepcopy(FULL_REQUEST)
    parent = container(body, path[:-1])
    parent[path[-1]] = other(parent[path[-1]], path)
    assert scope(body) != scope(FULL_REQUEST)


@pytest.mark.parametrize("path", OBJECTS, ids=str)
def test_unknown_members_are_in_the_scope_at_every_depth(path: Path) -> None:
    body = copy.deepcopy(FULL_REQUEST)
    container(body, path)["new_in_2027"] = None
    assert scope(body) != scope(FULL_REQUEST)


@pytest.mark.parametrize("name", sorted(IRRELEVANT))
def test_what_cannot_change_the_answer_is_not_in_the_scope(name: str) -> None:
    assert scope(FULL_REQUEST | {name: IRRELEVANT[name]}) == scope(FULL_REQUEST)


def test_of_parts_only_the_texts_are_outside_the_scope() -> None:
    def parts(text: str, url: str) -> dict[str, Any]:
        return asked([{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}])

    assert scope(parts("What is this?", "data:,a")) == scope(parts("Describe it", "data:,a"))
    assert scope(parts("What is this?", "data:,a")) != scope(parts("What is this?", "data:,b"))
