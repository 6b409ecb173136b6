"""The English grammar of the gate."""

from functools import lru_cache

from services.cache.gate.english_frames import BACK_REFERENCES, CLOSERS, FRAMES, OPENERS, TAILS, WISHES
from services.cache.gate.english_words import (
    CAPITONYMS,
    CLITICS,
    CONTRACTIONS,
    COUNTED,
    IRREGULAR,
    IS_CLITIC_HOSTS,
    NOT_IZE,
    NOT_PLURAL,
    OUR_WORDS,
    PARTICLE_VERBS,
    PARTICLES,
    PHRASES,
    SIMPLE_PAST,
    SPELLINGS,
    SYNONYMS,
    TECHNOLOGIES,
    VERBS,
)
from services.cache.gate.grammar import Grammar
from services.cache.gate.tables import pairs, words

# Words whose forms are remembered: a language uses few words often.
_REMEMBERED = 8192
_ISE_STEMS = ("al", "an", "on", "or", "er", "im", "in", "om", "ar", "at", "ic", "it", "og", "gn", "th", "ph", "yl", "ol", "iv", "id")
_ISE_ENDINGS = ("ise", "ised", "ises", "ising", "iser", "isers", "isation", "isations")
_VOWELS = frozenset("aeiou")
# Prepositions and conjunctions: each says something of its own. Those of one meaning share a name.
LINKS = pairs(
    "in=in on=on at=at by=by for=for from=from to=to into=into onto=onto with=with without=without about=about of=of off=off over=over",
    "under=under above=above below=below between=between among=among against=against during=during before=before after=after since=since",
    "until=until than=than as=as like=like near=near through=through across=across along=along around=around behind=behind beside=beside",
    "inside=inside outside=outside within=within toward=toward per=per vs=vs and=and or=or but=but if=if when=when"
    " while=while because=because",
    "unless=unless although=although so=so using=using instead-of=instead-of due-to=due-to according-to=according-to"
    " in-front-of=in-front-of",
    "out-of=out-of except=except despite=despite plus=plus where=where whether=if who=who whom=whom whose=whose",
    "how=how why=why what=what then=then once=once less-than=less-than more-than=more-than",
)


def expand(word: str) -> list[str]:
    """The words that a contraction stands for."""
    if "'" not in word:
        return [word]
    head, _, clitic = word.rpartition("'")
    if word.endswith("n't"):
        return [word[:-3], "not"]
    if clitic == "s":
        return [head, "is"] if head in IS_CLITIC_HOSTS else [head, "'s"]
    meaning = CLITICS.get(clitic)
    if meaning is None:
        return [word]
    return [head, "did" if clitic == "d" and head in ("how", "where", "why", "when") else meaning]


@lru_cache(maxsize=_REMEMBERED)
def american(word: str) -> str:
    """The American spelling of a British word, by rule."""
    if "our" in word:
        stem = word.removesuffix("s").removesuffix("ed").removesuffix("ing").removesuffix("al").removesuffix("ite")
        if word in OUR_WORDS or stem in OUR_WORDS:
            return word.replace("our", "or")
    if "is" in word[2:]:
        for ending in _ISE_ENDINGS:
            stem = word[: -len(ending)]
            if word.endswith(ending) and len(stem) > 2 and stem.endswith(_ISE_STEMS):
                return word if stem + "ise" in NOT_IZE else stem + "iz" + ending[2:]
    if "ys" in word and word.startswith(("analys", "paralys", "catalys")) and word[-3:] in ("yse", "sed", "ses", "ing"):
        return word if word == "analyses" else word.replace("ys", "yz")
    return word


@lru_cache(maxsize=_REMEMBERED)
def base(word: str) -> str:
    """The base form of an inflected word; the word itself when no rule is certain."""
    known = IRREGULAR.get(word)
    if known is not None:
        return known
    if len(word) < 4 or word in NOT_PLURAL or word in VERBS:
        return word
    if word.endswith("ing"):
        return _verb(word[:-3]) or word
    if word.endswith("ed"):
        return _verb(word[:-2]) or (word[:-1] if word[:-1] in VERBS else _unknown_past(word))
    if word.endswith("s"):
        return _singular(word)
    return word


def _verb(stem: str) -> str | None:
    if stem + "e" in VERBS and stem not in VERBS:
        return stem + "e"
    if stem in VERBS:
        return stem
    if len(stem) > 3 and stem[-1] == stem[-2] and stem[:-1] in VERBS:
        return stem[:-1]
    if stem.endswith("i") and stem[:-1] + "y" in VERBS:
        return stem[:-1] + "y"
    if stem.endswith("ck") and stem[:-1] in VERBS:
        return stem[:-1]
    return None


def _unknown_past(word: str) -> str:
    """A guess that can only miss: another spelling of the base form makes another word."""
    if len(word) < 7 or word.endswith(("eed", "red", "ked")):
        return word
    return word[:-3] + "y" if word.endswith("ied") else word[:-2]


def _singular(word: str) -> str:
    if word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y" if len(word) > 4 else word[:-1]
    if word.endswith(("sses", "xes", "ches", "shes", "zzes")):
        return word[:-2]
    if word.endswith("oes"):
        return word[:-2]
    return word[:-1]


def is_past(word: str) -> bool:
    """Whether a verb form tells the past."""
    return word in SIMPLE_PAST or (word.endswith("ed") and len(word) > 4 and base(word) in VERBS)


def normal(word: str) -> str:
    """A word in one spelling."""
    return american(word)


_NUMBER_WORDS = pairs(
    "zero=0 one=1 two=2 three=3 four=4 five=5 six=6 seven=7 eight=8 nine=9 ten=10 eleven=11 twelve=12 thirteen=13 fourteen=14 fifteen=15",
    "sixteen=16 seventeen=17 eighteen=18 nineteen=19 twenty=20 thirty=30 forty=40 fourty=40 fifty=50 sixty=60 seventy=70"
    " eighty=80 ninety=90",
    "hundred=100 thousand=1000 million=1000000 billion=1000000000",
)
_ORDINALS = pairs(
    "first=1 second=2 third=3 fourth=4 fifth=5 sixth=6 seventh=7 eighth=8 ninth=9 tenth=10 eleventh=11 twelfth=12 thirteenth=13",
    "fourteenth=14 fifteenth=15 sixteenth=16 seventeenth=17 eighteenth=18 nineteenth=19 twentieth=20",
)

ENGLISH = Grammar(
    code="en",
    marks=words(
        "the a an is are was were do does did how what when where why who which can could should would will i my you your of"
        " to in for on with",
        "and or not it this that from please tell me be have has there any as by at if so we they he she his her their i'm"
        " what's how's don't",
        "isn't doesn't can't whats hows dont explain vs between should using",
    ),
    openers=OPENERS,
    closers=CLOSERS,
    frames=FRAMES,
    tails=TAILS,
    wishes=WISHES,
    back_references=BACK_REFERENCES,
    articles=words("a an the"),
    counted=COUNTED,
    empty=words(
        "is are am be been being was were do does did really actually truly indeed basically literally that which 's please kindly"
    ),
    links=LINKS,
    negations=pairs("not=not no=no never=never none=none nobody=nobody nothing=nothing neither=neither nor=nor nowhere=nowhere non=non"),
    first_person=words("i me my mine we us our ours"),
    second_person=words("you your yours yourself"),
    anyone=words("you one"),
    past=words("was were did had"),
    present=words("is are am be do does can could should would will may might must have has"),
    future=words("will"),
    is_past=is_past,
    base=base,
    expand=expand,
    normal=normal,
    numbers={word: int(value) for word, value in _NUMBER_WORDS.items()},
    ordinals={word: int(value) for word, value in _ORDINALS.items()},
    words=CONTRACTIONS | SPELLINGS,
    synonyms=SYNONYMS,
    phrases=PHRASES,
    particles=PARTICLES,
    particle_verbs=PARTICLE_VERBS,
    capitonyms=CAPITONYMS,
    technologies=TECHNOLOGIES,
    verbs=VERBS,
    inverts_of=True,
)
