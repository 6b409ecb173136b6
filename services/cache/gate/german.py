"""The German grammar of the gate."""

from services.cache.gate.grammar import Frame, Grammar, ending, pattern
from services.cache.gate.tables import groups, numerals, pairs, phrases, readings, stemmed, words

_ICH = r"(?:ich|man|wir|du)"
_ASKING = r"(?=(?:wie|was|wann|wo|warum|weshalb|wieso|wer|wen|wem|welche\w*|ob|wieviel|wohin|woher|worin)(?: |\Z))"
_TELL = (
    r"(?:sag(?:e|en|t)?(?: sie)? (?:mir|uns)|erklär(?:e|en|t)?(?: sie)? (?:mir|uns)(?: bitte)?|zeig(?:e|en|t)?(?: sie)? (?:mir|uns)"
    r"|verrat(?:e|en)?(?: sie)? mir|beschreib(?:e|en)?(?: sie)?(?: mir)?|erklär(?:e|en)?|nenn(?:e|en)?(?: sie)? (?:mir|uns))"
)
_DO_IT = r"(?:geht (?:das|es)|mache ich (?:das|es)|macht man (?:das|es)|kann ich (?:das|es)(?: machen| tun)?|gehe ich (?:da )?vor)"
_MODAL = r"(?:kann|könnte|muss|soll|sollte|kannst|können|müssen|sollen|darf|muß)"

_PREFIXES = words(
    "ab an auf aus bei ein fest frei her hin los mit nach um vor weg weiter zu zurück zusammen wieder fern herunter hoch rein raus hinzu",
)
_ENDINGS = ("en", "st", "e", "t", "n")


def _verb(word: str) -> str:
    """The stem of a verb in the present or infinitive."""
    for prefix in _PREFIXES:
        if word.startswith(prefix + "zu") and word.endswith("n") and len(word) > len(prefix) + 5:
            word = prefix + word[len(prefix) + 2 :]
            break
    for suffix in _ENDINGS:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word[: -len(suffix)]
    return word


def _base(word: str) -> str:
    """The singular, where its plural is told by the ending alone."""
    for plural, singular in (
        ("ungen", "ung"),
        ("heiten", "heit"),
        ("keiten", "keit"),
        ("schaften", "schaft"),
        ("ionen", "ion"),
        ("innen", "in"),
    ):
        if word.endswith(plural):
            return word[: -len(plural)] + singular
    return word


def _normal(word: str) -> str:
    return word.replace("ß", "ss")


def _expand(word: str) -> list[str]:
    head, mark, tail = word.partition("'")
    return [head, "es"] if mark and tail == "s" and head in ("geht", "gibt", "wie", "was", "ist") else [head + tail]


_SYNONYMS = groups(
    "löschen entfernen", "kaufen erwerben", "anfangen beginnen", "reparieren richten", "erstellen anlegen", "telefon fernsprecher"
)

GERMAN = Grammar(
    code="de",
    marks=words(
        "der die das den dem des ein eine einen einem einer und oder ist sind war wie was wann wo warum wer ich mein meine"
        " meinen mir mich du",
        "dein sie ihr nicht kein keine mit von zu zum zur im am auf für aus bei nach kann können bitte möchte gibt es man"
        " wird werden welche",
        "welcher welches viel viele lange kostet zwischen über unter vor hat haben soll muss kannst könnten hallo danke sich auch wieviel",
        "ohne gegen durch um bis seit worin wohin woher wieso weshalb erkläre nenne schreibe übersetze zusammen",
    ),
    openers=pattern(
        r",",
        r"(?:hallo|hi|hey|guten (?:tag|morgen|abend)|moin|servus|grüß gott|liebes team)",
        r"(?:bitte|also|ok|okay|entschuldigung|sorry|verzeihung|danke|vielen dank|mal)",
        r"(?:eine )?(?:kurze |schnelle |einfache )?frage",
        r"ich (?:habe|hätte)(?: da)?(?: mal)? (?:eine|ne) (?:kurze |kleine |einfache )?frage",
        rf"(?:weißt|weiss|weiß|wissen|wisst) (?:du|sie|ihr|jemand)(?: vielleicht| zufällig)? ,? ?{_ASKING}",
        rf"(?:kann|könnte|können|könnten|kannst|könntest|würdest|würden) (?:du|sie|ihr|mir jemand|jemand)(?: mir| uns)?(?: bitte)?"
        rf"(?: mal)?(?: kurz)?(?: sagen| erklären| zeigen| verraten| helfen| beschreiben)? ,? ?{_ASKING}",
        rf"{_TELL}(?: bitte)?(?: mal)? ,? ?{_ASKING}",
        rf"ich (?:möchte|will|würde|wüsste)(?: gerne?)?(?: gerne?)?(?: wissen| verstehen| erfahren)? ,? ?{_ASKING}",
        rf"ich (?:frage mich|weiß nicht|verstehe nicht|bin mir nicht sicher) ,? ?{_ASKING}",
        r"(?:kannst|könntest|können|könnten|würdest|würden) (?:du|sie)(?: mir| uns)?(?: bitte)?(?: mal)? (?=.+ (?:erklären"
        r"|schreiben|übersetzen"
        r"|zusammenfassen|nennen|geben|sagen|zeigen|machen|erstellen|helfen)\Z)",
    ),
    closers=ending(
        r",",
        r"bitte|danke|vielen dank|danke schön|danke im voraus|danke dir|merci|lg|mfg|viele grüße|gruß",
        r"(?:sagen|erklären|zeigen|verraten)(?: bitte)?|weißt du das|wenn möglich|für mich|denn",
    ),
    frames=(
        Frame(
            "howto",
            pattern(
                rf"wie (?:genau )?{_MODAL} {_ICH}(?: am besten| eigentlich)?",
                rf"wie {_ICH}(?=.* )",
                r"wie (?:genau )?(?=\w+ (?:ich|man|wir)(?: |\Z))",
                r"wie geht (?:es|das)(?: ,)?(?: dass)?",
                r"(?:was ist|welches ist|was wäre) (?:der|die) (?:beste |richtige )?(?:weg|art|möglichkeit|methode) ?(?:,)?(?: um)?",
                r"(?:was|welche schritte) (?:muss|soll|sollte|kann) (?:ich|man) (?:tun|machen) ,? ?(?:um|damit|wenn ich)?",
                r"(?:gibt es )?(?:eine möglichkeit|einen weg) ,?",
                r"(?:eine )?anleitung (?:zum|zur|für)",
            ),
        ),
        Frame(
            "difference",
            pattern(
                r"(?:was|welches|worin) (?:ist|sind|besteht|bestehen) (?:der|die) unterschiede? (?:zwischen|von)",
                r"(?:den |der |die )?unterschiede? zwischen",
                r"(?:worin|wie|wodurch) unterscheide[nt] sich",
                r"erklär\w* (?:mir |bitte )*(?:den|die) unterschiede? zwischen",
            ),
        ),
        Frame("why", pattern(r"warum|weshalb|wieso|aus welchem grund")),
        Frame("when:time", pattern(r"um wie ?viel uhr|um welche uhrzeit")),
        Frame("when:year", pattern(r"in welchem jahr")),
        Frame("when", pattern(r"wann")),
        Frame("where", pattern(r"wo")),
        Frame("where-to", pattern(r"wohin")),
        Frame("where-from", pattern(r"woher")),
        Frame("who", pattern(r"wer")),
        Frame(
            "cost",
            pattern(
                r"wie ?viel kostet|wieviel kostet|was kostet|wie viel kosten|was kosten|wieviel kosten|wie teuer (?:ist|sind)"
                r"|(?:was|wie hoch) ist der preis (?:für|von)|preis für"
            ),
        ),
        Frame("how-long", pattern(r"wie lange? (?:muss|soll|sollte)(?: ich| man)?(?= )", r"wie lange?|wie viel zeit")),
        Frame("how-many", pattern(r"wie viele|wieviele")),
        Frame("how-much", pattern(r"wie viel|wieviel")),
        Frame("how-often", pattern(r"wie oft")),
        Frame("how-old", pattern(r"wie alt")),
        Frame("how-far", pattern(r"wie weit")),
        Frame("how-tall", pattern(r"wie (?:groß|gross|hoch)")),
        Frame("how", pattern(r"wie(?! heißt| heisst| lautet| heissen| heißen)")),
        Frame("can", pattern(r"kann (?:ich|man)|können wir|ist es möglich ,?")),
        Frame("permitted", pattern(r"darf (?:ich|man)|dürfen wir|ist es erlaubt ,?")),
        Frame("need", pattern(r"muss (?:ich|man)|müssen wir|ist es (?:nötig|notwendig|erforderlich) ,?")),
        Frame("should", pattern(r"soll(?:te)? (?:ich|man)|sollten wir")),
        Frame("whether", pattern(r"(?:ist|sind|war|waren|hat|haben|gibt es|wird|werden|ob)(?= )")),
        Frame(
            "meaning",
            pattern(r"was bedeutet|was heißt|was heisst|(?:was ist )?die bedeutung von|definiere|definition von|was versteht man unter"),
        ),
        Frame(
            "what",
            pattern(
                r"(?:was|welche[srnm]?)(?: genau)? (?:ist|sind|war|waren)|wie (?:heißt|heisst|lautet|heissen|heißen)",
                r"(?:nenne?|gib|sag|zeige?)(?: mir| uns)?(?: bitte)? (?=(?:die|den|das|alle) )",
                r"was|welche[srnm]?",
            ),
        ),
        Frame(
            "explain",
            pattern(
                r"(?:erklär|beschreib)(?:e|en)?(?: sie)?(?: mir| uns)?(?: bitte)?",
                r"erzähl(?:e)?(?: mir)?(?:"
                " etwas)? über",
            ),
        ),
        Frame("translate", pattern(r"übersetz(?:e|en)?(?: sie)?(?: bitte)?|wie sagt man")),
        Frame(
            "compose",
            pattern(
                r"(?:schreib|verfass|erstell|generier)(?:e|en)?(?: sie)?(?: mir| uns)?(?: bitte)?",
                r"(?:ich brauche|ich möchte|gib mir)(?= eine?n? )",
            ),
        ),
    ),
    tails=(
        Frame("howto", ending(rf"[,:] (?:aber )?wie {_DO_IT}|[,:] wie|[,:] was (?:muss|soll|kann) ich (?:tun|machen)")),
        Frame("how-long", ending(r"[,:] wie lange(?: dauert das)?")),
        Frame("cost", ending(r"[,:] (?:wie viel|was)(?: kostet (?:das|es))?")),
    ),
    wishes=pattern(r"(?:ich|wir) (?:möchten?|will|wollen|würden?(?: gerne?)?|muss|müssen)(?: gerne?)?"),
    back_references=pattern(rf"wie {_DO_IT}\Z|wie\Z"),
    articles=words("der die das den dem des ein eine einen einem einer eines"),
    agreement=readings(
        # By gender and case; nominative and accusative are one but for masculine nouns.
        "mn: der ein mein kein",
        "ma: den einen meinen keinen",
        "md: dem einem meinem keinem im am zum vom beim",
        "mg: des eines meines keines",
        "fn: die eine meine keine",
        "fd: der einer meiner keiner zur",
        "nn: das ein mein kein ins ans",
        "nd: dem einem meinem keinem im am zum vom beim",
        "ng: des eines meines keines",
        "pn: die meine keine",
        "pd: den meinen keinen",
        "pg: der meiner keiner",
    ),
    polite=words("Sie Ihr Ihre Ihren Ihrem Ihrer Ihnen"),
    empty=words("man ist sind war waren es denn eigentlich mal bitte gerade dass daß um sich genau wird werden wurde wurden bin"),
    links=pairs(
        "in=in im=in an=an am=an auf=auf aus=aus bei=bei beim=bei für=für fürs=für gegen=gegen mit=mit nach=nach ohne=ohne"
        " seit=seit über=über",
        "um=um unter=unter von=von vom=von vor=vor zu=zu zum=zu zur=zu zwischen=zwischen durch=durch bis=bis während=während"
        " wegen=wegen ins=ins",
        "ans=an und=and oder=or aber=but als=als wenn=wenn falls=wenn weil=weil ob=ob wie=wie was=was wo=wo statt=statt trotz=trotz ab=ab",
        "per=per via=mittels mittels=mittels mithilfe=mittels",
    ),
    negations=pairs("nicht=nicht kein=kein keine=kein keinen=kein keinem=kein keiner=kein nie=nie niemals=nie nichts=nichts nein=nein"),
    first_person=words("ich mein meine meinen meinem meiner meines mir mich wir uns unser unsere unseren unserem"),
    second_person=words("du dein deine deinen deinem deiner dir dich sie ihr ihre ihren ihrem ihnen sein seine seinen"),
    anyone=words("man du"),
    past=words("war waren wurde wurden hatte hatten"),
    present=words("ist sind"),
    is_past=lambda word: False,
    future=words("wird werden"),
    base=_base,
    verb=_verb,
    verb_prefixes=_PREFIXES,
    is_verb_final=True,
    expand=_expand,
    normal=_normal,
    numbers=numerals("null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf"),
    ordinals={},
    words=pairs(
        "handys=handy mobiltelefon=handy smartphone=smartphone email=e-mail mail=e-mail app=app wieviel=wie_viel wieviele=wie_viele",
        "e-mails=e-mail passwörter=passwort kennwort=passwort pkw=auto kfz=auto tv=fernseher rechner=computer pc=computer",
    ),
    synonyms=_SYNONYMS,
    verb_synonyms=stemmed(_SYNONYMS, _verb),
    phrases=phrases("e-mail: e mail", "zusammenfassen: fass zusammen"),
)
