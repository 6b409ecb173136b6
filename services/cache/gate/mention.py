"""Tells texts that speak of wording: of such a text every letter, capital and mark may be what is asked about.

"Is this sentence correct", "how many letters has", "where does the comma go": beyond the way it asks, all of it is compared as written.
"""

import re
from collections.abc import Iterable

from services.cache.gate.tables import words

_SUBJECT = re.compile(
    # What writing is made of.
    r"\b(?:comma|apostrophe|hyphen|semicolon|full stop|punctuat|capitali[sz]|(?:upper|lower)[- ]?case|capital letter|spell(?!er)|misspel"
    r"|typos?\b|gramma|ungramma|proofread|syllable|vowel|consonant|palindrome|anagram|rhyme|alliterat|wording"
    r"|(?:how many|count(?: the| all| all the)?|number of) (?:letter|word|character|sentence|space|line|digit)"
    r"|which (?:word|letter)s?\b|(?:this|that|these|the following) (?:sentence|phrase|word|clause|tweet|message|text|headline|joke|verse)"
    r"|rechtschreib|buchstabe|silbe|komma\b|kommas\b|großschreib|kleinschreib|(?:dieser|diesen|diesem|folgende\w*) (?:satz|text|wort)"
    r"|virgule|orthograph|syllabe|majuscule|cette (?:phrase|expression)|ce (?:mot|texte|message)"
    r"|ortogr|sílaba|mayúscula|maiúscul|(?:esta|essa) (?:frase|oración|palabra|palavra)|este (?:texto|mensaje)|vírgula"
    r"|virgola|sillab|maiuscol|questa (?:frase|parola)|questo (?:testo|messaggio)"
    r"|spelling|lettergre|hoofdletter|(?:deze|die) (?:zin|tekst)|dit (?:woord|bericht))",
    re.IGNORECASE,
)


# How words of it begin, so that most texts need no search.
_STEM_LETTERS = 5
_STEMS = words(
    "comma commas apost hyphe semic full punct capit upper lower spell missp typo typos gramm ungra proof sylla vowel conso palin anagr",
    "rhyme allit wordi lette word words chara sente space line lines digit phras claus tweet messa text texts headl joke verse",
    "recht buchs silbe komma großs klein satz wort",
    "virgu ortho majus expre mot texte ortog sílab",
    "mayús maiús frase oraci palab palav mensa vírgu virgo silla maius",
    "parol testo messa hoofd zin tekst woord beric",
)


def speaks_of_wording(text: str, forms: Iterable[str]) -> bool:
    """Whether a text of these words may be about how something is written."""
    return not _STEMS.isdisjoint([form[:_STEM_LETTERS] for form in forms]) and _SUBJECT.search(text) is not None
