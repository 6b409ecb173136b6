"""Which requests the semantic tier may answer at all.

All but the last user message is in the scope that two requests must share, so a request is eligible when that message is plain, short
user text and the same words will mean the same a minute later and for the same person.
"""

import re

from joulegate.chat.v1 import chat_pb2

# Beyond this a text is a document more than a question: one changed clause no longer shows in its vector.
MAX_CONTENT_WORDS = 60
# A bound before words are counted.
MAX_CHARS = 4000

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
# Words that are no content, in the languages that the gate knows: counted generously, since they only lengthen what is eligible.
_FUNCTION_WORDS = frozenset(
    word
    for line in (
        "a an the of to in on at by for from with into onto about as and or but if then than that this these those there here"
        " it its is are",
        "was were be been being am do does did done has have had can could will would shall should may might must not no nor"
        " so too very i me",
        "my we us our you your he him his she her they them their who whom whose which what when where why how please",
        "der die das den dem des ein eine einen einem einer und oder ist sind war mit von zu im am auf für nicht ich mir mein"
        " du sie wir wie",
        "le la les un une des du de et ou est sont en dans sur pour avec ne pas je me mon ma mes tu vous nous que qui comment",
        "el los las una unos y o es son con por para no yo mi mis tu su se como lo il gli uno e che per non io mio mia o os"
        " as um uma com não",
        "eu meu minha het een en van met voor niet ik mijn je hoe",
    )
    for word in line.split()
)
# Of texts without capitals: a pattern that ignores case is three times as slow.
# The answer changes with the clock.
_TIME = re.compile(
    r"\b(?:today|tonight|tomorrow|yesterday|now|nowadays|currently|current|latest|newest|recent|recently|at the moment|so far"
    r"|ago|upcoming"
    r"|(?:this|next|last|past|coming) (?:second|minute|hour|day|morning|afternoon|evening|night|week|weekend|month|quarter|year|season"
    r"|monday|tuesday|wednesday|thursday|friday|saturday|sunday)"
    r"|(?:what|which) (?:time|day|date|year|month) is it|what(?: is|'s) the (?:time|date)"
    r"|heute|gestern|jetzt|aktuell\w*|derzeit|momentan|neuest\w*|(?:diese|nächste|letzte)[rsnm]? (?:woche|monat|jahr)"
    r"|aujourd'hui|demain|maintenant|actuellement|en ce moment|(?:cette|la) semaine (?:prochaine|dernière)"
    r"|hoy|mañana|ayer|ahora|actualmente|esta semana"
    r"|oggi|domani|ieri|adesso|attualmente|questa settimana"
    r"|hoje|amanhã|ontem|agora|atualmente|esta semana"
    r"|vandaag|gisteren|momenteel|huidige?|deze week)\b",
)
# What only the asker's own records can answer.
_RECORDS = (
    r"(?:balance|order|delivery|deliverie|package|parcel|shipment|invoice|bill|transaction|payment|refund|salary|appointment|booking"
    r"|reservation|ticket|calendar|schedule|message|e-?mail|inbox|point|score|grade|usage|name|age|birthday|address|location|history"
    r"|statement|contact|task|meeting|flight)s?"
)
_OWN_DATA = re.compile(
    r"\b(?:wo ist|wo sind|wann komm\w+|wie hoch ist|zeige? mir|was ist) (?:mein|unser)\w*|\boù (?:est|sont) m(?:a|on|es)\b"
    r"|\bquel(?:le)? est m(?:a|on)\b|\b(?:dónde está|cuál es|cuándo llega) mis?\b|\b(?:dov'è|qual è|quando arriva) (?:il mio|la mia)\b"
    r"|\b(?:onde está|qual é) (?:o meu|a minha)\b|\b(?:waar|wat) is mijn\b"
    r"|\b(?:what|whats|which|where|wheres|when|how much|how many|show|check|tell me|give me|list|track|view|display|see)\b(?:'s)?"
    rf"(?: \w+){{0,5}}? (?:my|our) (?:\w+ ){{0,2}}?{_RECORDS}\b",
)


# How to come by one's records is the same for everyone.
_WAY = re.compile(
    r"\b(?:how (?:do|can|could|should|to)|(?:way|steps) to|(?:where|can|could) (?:can |do |could )?i (?:see|find|check|view))\b",
)


def question_text(request: chat_pb2.ChatRequest) -> str | None:
    """The text of the last user message when the semantic tier may answer the request, else None."""
    if request.HasField("n") and request.n != 1:
        return None
    # A caller who asks for variety gets it; one who says nothing is content with an answer.
    if request.HasField("temperature") and request.temperature != 0:
        return None
    text = _last_user_text(request)
    if text is None or not text.strip() or len(text) > MAX_CHARS:
        return None
    folded = text.casefold()
    if _TIME.search(folded) is not None or (_OWN_DATA.search(folded) is not None and _WAY.search(folded) is None):
        return None
    return text if _content_word_count(folded) <= MAX_CONTENT_WORDS else None


def _content_word_count(folded: str) -> int:
    """How many words of a text are no function words."""
    return sum([word not in _FUNCTION_WORDS for word in _WORD.findall(folded)])


def _last_user_text(request: chat_pb2.ChatRequest) -> str | None:
    """The text of the last message, if a user wrote it and it is nothing but text."""
    if not request.messages:
        return None
    last = request.messages[-1]
    if last.role != chat_pb2.ROLE_USER or last.tool_calls:
        return None
    match last.WhichOneof("content"):
        case "text":
            return last.text
        case "parts" if last.parts.parts and all(part.type == "text" and part.HasField("text") for part in last.parts.parts):
            return "\n".join(part.text for part in last.parts.parts)
        case _:
            return None
