"""Courtesies that need no grammar: smileys behind a question; and in languages without tables, greetings and thanks."""

import re

_LAST_MARKS = re.compile(r"(?:(?<=[^\W\d_][^\W\d_])|(?<=[\u0900-\u0dff]))[ ]?[.?!¿。？！؟।]+\Z")  # noqa: RUF001
# Greetings, and "please tell me", that a mark parts from the rest; of Chinese and Japanese, whose words have no spaces, a few more.
_HAIL = re.compile(
    r"\A(?:(?:hi|hello|здравствуйте|здравствуй|привет|добрый (?:день|вечер)|доброе утро|пожалуйста|подскажите|скажите|расскажи(?:те)?"
    r"|будьте добры|вітаю|доброго дня|dzień dobry|cześć|witam|proszę|powiedz(?: mi)?|dobrý den|ahoj|prosím|merhaba|selam|iyi günler|lütfen"
    r"|hej|hei|moi|xin chào|halo|γεια σας?|שלום|مرحبا|مرحباً|السلام عليكم|من فضلك|لو سمحت|नमस्ते|नमस्कार|कृपया|안녕하세요|안녕"
    r"|죄송하지만|실례합니다|สวัสดี|你好|您好|大家好|こんにちは|こんばんは|おはようございます|すみません|すいません)"
    r" ?[,!.\uff0c\uff01\uff1f\u3001\u3002\u060c]+ ?|(?:请问|請問|请告诉我|請告訴我)[,\uff0c\uff01\uff1f\u3001\u3002\u060c]? ?)",
    re.IGNORECASE,
)
_THANKS = re.compile(
    r"[,.!?\uff0c\uff01\uff1f\u3001\u3002\u060c] ?(?:(?:заранее )?спасибо(?: большое)?|пожалуйста"
    r"|dziękuję|dzięki|děkuji|teşekkürler|teşekkür ederim|lütfen"
    r"|tack|kiitos|谢谢|謝謝|감사합니다|शुक्रिया|धन्यवाद|شكرا|شكراً|ありがとうございます)[ .!\uff0c\uff01\uff1f\u3001\u3002\u060c]*\Z",
    re.IGNORECASE,
)
_MOST = 4
# A face or a gesture behind the mark that ends a text of some words.
_SMILEY = re.compile(
    r"(?<=[\w)][?!.]) ?(?:[\u263a\u2764\ufe0f\U0001f44a-\U0001f44f\U0001f600-\U0001f637\U0001f641-\U0001f644\U0001f64f"
    r"\U0001f90d-\U0001f92f ]+"
    r"|[:;]-?[)(DP])\Z"
)
_FEWEST_WORDS = 4
_LAST_OF_SMILEYS = frozenset(")(DP")
# A text of which the smiley may be the matter.
_OF_SMILEYS = re.compile(
    r"[:\"'`\n]|emo|smil|symbol|icon|tone|mood|face|sentiment|feel|look|guess|mean|translat|rewrit|reply|respond|react|classif|label|\b(?:this|that|these|it)\b",
    re.IGNORECASE,
)


def bare(text: str) -> str:
    """A text less greetings and thanks at its ends, its last mark unless that may belong to a pattern, and its first capital."""
    rest = text
    for _ in range(_MOST):
        rest = _HAIL.sub("", rest)
    rest = _LAST_MARKS.sub("", _THANKS.sub("", rest))
    # In Turkish the capital I is not that of i.
    is_style = rest[1:2].islower() and (rest[0] not in "Iİ" or "ı" not in rest)  # noqa: RUF001
    return rest[0].lower() + rest[1:] if is_style else rest or text


def without_smiley(text: str) -> str:
    """A text without the smiley that follows its last mark, where that is only a mood."""
    if text.isascii() and text[-1:] not in _LAST_OF_SMILEYS:
        return text
    match = _SMILEY.search(text)
    if match is None or _OF_SMILEYS.search(text, 0, match.start()):
        return text
    rest = text[: match.start()]
    return rest if rest.count(" ") >= _FEWEST_WORDS - 1 else text
