"""The Dutch grammar of the gate."""

from services.cache.gate.grammar import Frame, Grammar, ending, pattern
from services.cache.gate.romance import stem_of
from services.cache.gate.tables import groups, numerals, pairs, readings, stemmed, words

_ASKING = r"(?=(?:hoe|wat|welke?|wanneer|waar|waarom|wie|hoeveel|of)(?: |\Z))"
_IK = r"(?:ik|je|men|we)"
_DO_IT = r"(?:doe ik dat|moet dat|doe je dat|kan ik dat doen|werkt dat|gaat dat)"

_verb = stem_of(("en", "t", "n"))
_SYNONYMS = groups("verwijderen wissen", "kopen aanschaffen", "beginnen starten", "auto wagen", "repareren herstellen")

DUTCH = Grammar(
    code="nl",
    marks=words(
        "de het een en of is zijn was waren wat welke welk hoe waarom waar wanneer wie ik mijn me jij je jouw u uw niet geen"
        " met zonder van voor",
        "naar in op aan bij tot uit over tussen kan kun kunt wil hallo hoi bedankt alstublieft alsjeblieft hoeveel kost er"
        " dat dit vertaal leg",
        "schrijf vat moet mag door om te ook als dan even groter kleiner zeg",
    ),
    openers=pattern(
        r",",
        r"(?:hallo|hoi|hey|dag|goedemorgen|goedemiddag|goedenavond|beste)",
        r"(?:alsjeblieft|alstublieft|aub|ajb|graag|sorry|pardon|ok|oké|nou|bedankt|dank je)",
        r"(?:een )?(?:kleine |korte |snelle )?vraag(?:je)?",
        r"ik (?:heb|had) een (?:kleine |korte )?vraag",
        rf"(?:kun|kan|kunt|zou|zouden)(?: je| u| jij| iemand)(?: me| mij| ons)?(?: kunnen)?(?: alsjeblieft| alstublieft)?"
        rf"(?: uitleggen| vertellen| zeggen| laten zien| helpen)? ,? ?{_ASKING}",
        rf"(?:leg|vertel|zeg|toon|laat)(?: me| mij| ons)?(?: uit| zien)?(?: alsjeblieft)? ,? ?{_ASKING}",
        rf"(?:weet|weten)(?: je| u| jij| iemand| jullie)(?: misschien)? ,? ?{_ASKING}",
        rf"ik (?:wil|zou)(?: graag)?(?: willen)? weten ,? ?{_ASKING}",
        rf"ik vraag me af ,? ?{_ASKING}",
    ),
    closers=ending(r",", r"alsjeblieft|alstublieft|aub|ajb|bedankt|dank je(?: wel)?|dank u(?: wel)?|alvast bedankt|graag|voor mij|groeten"),
    frames=(
        Frame(
            "howto",
            pattern(
                rf"hoe (?:kan|kun|kunnen|moet|zou|kunt) {_IK}(?: het best| het beste)?",
                r"hoe ik(?= )",
                rf"hoe (?=\w+ {_IK}(?: |\Z))",
                r"wat is de (?:beste |juiste )?(?:manier|methode)(?: om)?",
                r"is er een manier om",
                r"wat moet ik doen om",
                r"help"
                r" me(?: met)?",
            ),
        ),
        Frame("difference", pattern(r"wat (?:is|zijn) (?:het|de) verschil(?:len)? tussen", r"(?:het )?verschil tussen")),
        Frame("why", pattern(r"waarom|om welke reden")),
        Frame("when:time", pattern(r"hoe laat")),
        Frame("when:year", pattern(r"in welk jaar")),
        Frame("when", pattern(r"wanneer")),
        Frame("where", pattern(r"waar")),
        Frame("who", pattern(r"wie")),
        Frame("cost", pattern(r"(?:hoeveel|wat) (?:kost|kosten)", r"wat is de prijs van", r"prijs van")),
        Frame("how-long", pattern(r"hoe ?lang")),
        Frame("how-many", pattern(r"hoeveel")),
        Frame("how", pattern(r"hoe")),
        Frame("can", pattern(r"kan ik|kunnen we|kun je|is het mogelijk om")),
        Frame("permitted", pattern(r"mag ik|mogen we|is het toegestaan om")),
        Frame("need", pattern(r"moet ik|is het nodig om|is het verplicht om")),
        Frame("should", pattern(r"zou ik")),
        Frame("meaning", pattern(r"wat betekent|(?:wat is )?de betekenis van|definieer")),
        Frame(
            "what",
            pattern(r"(?:wat|welke?) (?:is|zijn|was|waren)", r"(?:geef|noem|vertel|zeg)(?: me| mij)? (?=(?:de|het|alle) )", r"wat|welke?"),
        ),
        Frame("whether", pattern(r"(?:is|zijn|was|waren|heeft|hebben)(?= )|of(?= )")),
        Frame("explain", pattern(r"(?:leg|beschrijf)(?: me| mij)?(?: uit)?")),
        Frame("translate", pattern(r"vertaal|hoe zeg je")),
        Frame("compose", pattern(r"(?:schrijf|maak|genereer)(?: me| mij)?", r"(?:geef me|ik wil|ik wil graag)(?= een )")),
    ),
    tails=(
        Frame("howto", ending(rf"[,:] (?:maar )?hoe(?: {_DO_IT})?")),
        Frame("cost", ending(r"[,:] hoeveel(?: kost dat)?")),
    ),
    wishes=pattern(r"ik (?:wil|wou|zou graag|moet)(?: graag)?"),
    back_references=pattern(rf"hoe(?: {_DO_IT})?\Z"),
    articles=words("de het een"),
    agreement=readings("c: de een", "n: het een"),
    empty=words("alsjeblieft alstublieft is zijn was waren er dat te om eigenlijk precies wordt worden"),
    links=pairs(
        "van=van voor=voor naar=naar in=in op=op aan=aan bij=bij tot=tot uit=uit over=over tussen=tussen met=met"
        " zonder=zonder door=door tegen=tegen",
        "na=na sinds=sinds tijdens=tijdens onder=onder boven=boven en=en of=of maar=maar als=als wanneer=als via=via per=per",
    ),
    negations=pairs("niet=niet geen=geen nooit=nooit niets=niets niemand=niemand nee=nee"),
    first_person=words("ik mijn me mij we wij ons onze"),
    second_person=words("je jij jouw u uw jullie"),
    anyone=words("je men"),
    past=words("was waren werd werden"),
    present=words("is zijn"),
    is_past=lambda word: False,
    future=words("zal zullen"),
    base=str,
    verb=_verb,
    is_verb_final=True,
    expand=lambda word: [word.replace("'", "")],
    normal=str,
    numbers=numerals("nul een_ twee drie vier vijf zes zeven acht negen tien elf twaalf"),
    ordinals={},
    words=pairs("mail=e-mail email=e-mail app=app"),
    synonyms=_SYNONYMS,
    verb_synonyms=stemmed(_SYNONYMS, _verb),
)
