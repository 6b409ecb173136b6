"""Which requests the semantic tier may answer."""

import pytest

from joulegate.chat.v1 import chat_pb2
from services.wire.eligibility import MAX_CONTENT_WORDS, question_text


def request(text: str, **fields: object) -> chat_pb2.ChatRequest:
    return chat_pb2.ChatRequest(messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, text=text)], **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "How do I cancel my order?",
        "What is the status of order 84211?",
        "How can I check my balance in the app?",
        "Where do koalas live?",
        "What is the actual size of an atom?",
        "Wie ändere ich mein Passwort?",
        "And when was it founded?",
    ],
)
def test_a_question_that_anyone_may_ask_at_any_time(text: str) -> None:
    assert question_text(request(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "What is the weather in Oslo today?",
        "What's the latest version of Python?",
        "Who won the match last night?",
        "What time is it?",
        "What is my account balance?",
        "Where is my order?",
        "When will my package arrive?",
        "Show me my last invoices",
        "Wie ist das Wetter heute?",
        "¿Qué tiempo hace hoy?",
        "Wo ist meine Bestellung?",
        "Où est ma commande ?",
    ],
)
def test_a_question_about_now_or_about_the_asker(text: str) -> None:
    assert question_text(request(text)) is None


def test_temperature_is_unset_or_zero() -> None:
    assert question_text(request("Why is the sky blue?", temperature=0.0)) is not None
    assert question_text(request("Why is the sky blue?", temperature=0.7)) is None


def test_one_choice() -> None:
    assert question_text(request("Why is the sky blue?", n=1)) is not None
    assert question_text(request("Why is the sky blue?", n=2)) is None


def test_a_document_is_not_a_question() -> None:
    assert question_text(request("whale " * MAX_CONTENT_WORDS)) is not None
    assert question_text(request("whale " * (MAX_CONTENT_WORDS + 1))) is None


def test_only_text_of_a_user() -> None:
    image = chat_pb2.ContentParts(parts=[chat_pb2.ContentPart(type="text", text="What is this?"), chat_pb2.ContentPart(type="image_url")])
    words = chat_pb2.ContentParts(
        parts=[chat_pb2.ContentPart(type="text", text="What is"), chat_pb2.ContentPart(type="text", text="this?")]
    )
    tool = chat_pb2.Message(role=chat_pb2.ROLE_TOOL, text="42", tool_call_id="c")
    assert question_text(chat_pb2.ChatRequest()) is None
    assert question_text(chat_pb2.ChatRequest(messages=[tool])) is None
    assert question_text(chat_pb2.ChatRequest(messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=image)])) is None
    assert question_text(chat_pb2.ChatRequest(messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=words)])) == "What is\nthis?"
