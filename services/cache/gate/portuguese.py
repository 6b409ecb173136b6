"""The Portuguese grammar of the gate."""

from services.cache.gate.grammar import Frame, Grammar, ending, pattern
from services.cache.gate.romance import singular, stem_of
from services.cache.gate.tables import groups, numerals, pairs, readings, stemmed, words

_ASKING = r"(?=(?:como|que|o que|qual|quais|quando|onde|por que|porque|quanto|quanta|quantos|quantas|quem|se|a que|em que)(?: |\Z))"
_TELL = r"(?:me diga|diga me|diz me|me diz|me fala|me explique|explique me|explique|explica|me mostre|mostre me|me ensine|ensine me)"
_DO_IT = r"(?:faço|se faz|posso fazer|devo fazer|posso fazer isso|faço isso|fazer|fazer isso|eu faço(?: isso)?)"
_STEPS = r"(?:a (?:melhor )?(?:maneira|forma)|o (?:melhor )?(?:modo|método|procedimento)|os passos|o jeito)"

_verb = stem_of(("amos", "emos", "imos", "ar", "er", "ir", "am", "em", "o", "a", "e"))
_SYNONYMS = groups("apagar excluir deletar eliminar", "comprar adquirir", "começar iniciar", "carro automóvel", "consertar reparar")

PORTUGUESE = Grammar(
    code="pt",
    marks=words(
        "o a os as um uma uns umas de do da dos das e ou é são está que quem qual quais como quando onde porque quanto"
        " quantos quantas eu meu",
        "minha meus minhas me tu seu sua você não com sem em no na nos nas ao à por para posso pode quero olá oi obrigado"
        " obrigada favor diga",
        "explique traduza resuma escreva entre isso este esta custa fazer faço mudar gostaria preciso",
    ),
    openers=pattern(
        r",",
        r"(?:olá|ola|oi|bom dia|boa tarde|boa noite)(?: a todos| pessoal)?",
        r"(?:por favor|por gentileza|desculpe|desculpa|com licença|bem|então|ok|obrigad[oa])",
        r"(?:uma )?(?:pequena )?(?:pergunta|dúvida)(?: rápida)?",
        r"(?:eu )?(?:gostaria de|queria|quero|preciso)(?: saber| entender| aprender) " + _ASKING,
        r"(?:você sabe|sabe|alguém sabe|sabes|sabem) " + _ASKING,
        rf"(?:você )?(?:pode|poderia|podes|podia|consegue)(?: por favor)?(?: me)?(?: dizer| explicar| mostrar| indicar| falar"
        rf"| ensinar)(?: me)? {_ASKING}",
        r"(?:você )?(?:pode|poderia|podes|podia)(?: por favor)?(?: me)? (?=(?:dar|dizer|explicar|escrever|traduzir|resumir"
        r"|fazer|listar) )",
        rf"{_TELL} {_ASKING}",
        r"(?:eu )?(?:não sei|não entendo|me pergunto) " + _ASKING,
    ),
    closers=ending(r",", r"por favor|por gentileza|obrigad[oa](?: desde já)?|se possível|abraços|para mim"),
    frames=(
        Frame(
            "howto",
            pattern(
                r"como (?:é que )?(?:eu )?(?:posso|se pode|podemos|poderia|devo|deveria|faço para|se faz para|pode se|consigo"
                r"|é possível)(?: eu)?",
                r"como (?=\w+(?:ar|er|ir|or)(?: |\Z))",
                r"como se (?=\w)",
                r"como (?:é que )?eu(?= )",
                r"como (?=(?!está |é )\w+o (?:o|a|os|as|um|uma|meu|minha)(?: |\Z))",
                rf"qual é {_STEPS} (?:de|para)",
                rf"quais são {_STEPS} (?:de|para)",
                rf"{_STEPS} (?:de|para)",
                r"o que (?:devo"
                r"|preciso|tenho de|tenho que) fazer para",
                r"(?:há|existe|tem) (?:uma|alguma) (?:maneira|forma) de",
                r"(?:me ajude|ajude me|me ajuda) a",
                r"preciso de ajuda para",
            ),
        ),
        Frame(
            "difference",
            pattern(r"(?:qual é|qual|quais são|explique|me diga) (?:a |as )?diferenças? (?:há )?entre", r"(?:a )?diferenças? entre"),
        ),
        Frame("why", pattern(r"por que|por quê|porque|por qual motivo|por que razão")),
        Frame("when:time", pattern(r"a que horas|que horas")),
        Frame("when:year", pattern(r"em que ano")),
        Frame("when", pattern(r"quando")),
        Frame("where", pattern(r"onde(?: fica| está| é)?")),
        Frame("who", pattern(r"quem")),
        Frame("cost", pattern(r"quanto (?:custa|custam|é)", r"qual (?:é )?o (?:preço|custo) de", r"(?:o )?preço de")),
        Frame("how-long", pattern(r"quanto tempo(?: demora| leva| dura)?|quanto demora")),
        Frame("how-many", pattern(r"quant[oa]s")),
        Frame("how-much", pattern(r"quant[oa]")),
        Frame("how", pattern(r"como")),
        Frame("can", pattern(r"(?:eu )?posso|pode se|podemos|é possível")),
        Frame("permitted", pattern(r"é permitido")),
        Frame("need", pattern(r"(?:eu )?(?:tenho que|tenho de|devo|preciso(?= \w+[aei]r ))|é necessário|é obrigatório")),
        Frame("should", pattern(r"(?:eu )?deveria|é recomendável|é aconselhável")),
        Frame("meaning", pattern(r"o que (?:significa|quer dizer)|que significa|(?:qual é )?o significado de|defina|definição de")),
        Frame(
            "what",
            pattern(
                r"(?:qual|quais|o que|que) (?:é|são|era|eram|foi)",
                r"(?:me diga|diga|dê me|liste|cite) (?=(?:o|a|os|as) )",
                r"qual|quais|o que|que",
            ),
        ),
        Frame("whether:state", pattern(r"(?:está|estão|estava)(?= )")),
        Frame("whether", pattern(r"(?:é|são|há|era|foi)(?= )|se(?= )")),
        Frame("explain", pattern(r"(?:explique|explica|descreva|descreve)(?: me)?|fale(?: me)? sobre|me fale sobre")),
        Frame("translate", pattern(r"traduz(?:a|ir)?|como se diz")),
        Frame("summarize", pattern(r"resum(?:a|e|ir)|faça um resumo(?: de)?")),
        Frame("compose", pattern(r"(?:escreva|escreve|redija|crie|cria|gere)(?: me)?", r"(?:me dê|dê me|quero|preciso de)(?= (?:uma?) )")),
    ),
    tails=(
        Frame("howto", ending(rf"[,:] (?:mas )?como(?: {_DO_IT})?", r"[,:] o que (?:devo|tenho que) fazer")),
        Frame("cost", ending(r"[,:] quanto(?: custa)?")),
    ),
    wishes=pattern(r"(?:eu )?(?:quero|queria|gostaria de|preciso|desejo|tenho que|para)"),
    back_references=pattern(rf"como(?: {_DO_IT})?\Z"),
    articles=words("o a os as um uma uns umas"),
    counted=words("mais menos melhor pior maior menor"),
    agreement=readings("m: o os um uns do dos no nos ao aos pelo pelos num", "f: a as uma umas da das na nas à às pela pelas numa"),
    empty=words("é são que há"),
    links=pairs(
        "de=de do=de da=de dos=de das=de em=em no=em na=em nos=em nas=em num=em numa=em ao=a à=a aos=a às=a por=por pelo=por"
        " pela=por para=para",
        "pra=para com=com sem=sem entre=entre sobre=sobre sob=sob desde=desde até=até contra=contra durante=durante"
        " antes=antes depois=depois e=e",
        "ou=ou mas=mas se=se quando=quando como=como usando=usando",
    ),
    negations=pairs("não=não nunca=nunca jamais=nunca nenhum=nenhum nenhuma=nenhum nada=nada ninguém=ninguém nem=nem"),
    first_person=words("eu meu minha meus minhas me mim nós nosso nossa"),
    second_person=words("tu você teu tua seu sua seus suas te"),
    anyone=words("se"),
    past=words("era eram foi foram"),
    present=words("é são"),
    is_past=lambda word: False,
    future=words("será serão"),
    base=singular,
    verb=_verb,
    expand=lambda word: [word.replace("'", "")],
    normal=str,
    numbers=numerals("zero um_ dois três quatro cinco seis sete oito nove dez onze doze"),
    ordinals={},
    words=pairs("mail=email e-mail=email"),
    synonyms=_SYNONYMS,
    verb_synonyms=stemmed(_SYNONYMS, _verb),
)
