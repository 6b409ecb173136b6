"""The Spanish grammar of the gate."""

from services.cache.gate.grammar import Frame, Grammar, ending, pattern
from services.cache.gate.romance import singular, spelled, stem_of
from services.cache.gate.tables import groups, numerals, pairs, phrases, readings, stemmed, words

_ASKING = r"(?=(?:c[oó]mo|qu[eé]|cu[aá]l|cu[aá]les|cu[aá]ndo|d[oó]nde|por qu[eé]|cu[aá]nt[oa]s?|qui[eé]n|si|a qu[eé]|en qu[eé])(?: |\Z))"
_TELL = (
    r"(?:dime|d[ií]game|decime|expl[ií]came|expl[ií]queme|explica|mu[eé]strame|muéstreme|ens[eé][ñn]ame"
    r"|ind[ií]came|ind[ií]queme|cu[eé]ntame)"
)
_DO_IT = r"(?:(?:lo |se )?(?:hago|hace|puedo hacer(?:lo)?|puedo hacer eso)|lo puedo hacer|hacerlo)"
_STEPS = r"(?:la (?:mejor )?(?:manera|forma|manera correcta)|el (?:mejor )?(?:modo|método|procedimiento)|los pasos|las instrucciones)"

_verb = stem_of(
    ("amos", "emos", "imos", "arme", "erme", "irme", "arse", "erse", "irse", "ar", "er", "ir", "as", "es", "an", "en", "o", "a", "e")
)
_SYNONYMS = groups(
    "borrar eliminar suprimir",
    "comprar adquirir",
    "empezar comenzar",
    "coche auto carro automóvil",
    "reparar arreglar",
    "película filme",
    "ordenador computadora computador",
)

SPANISH = Grammar(
    code="es",
    marks=words(
        "el la los las un una unos unas de del y o es son está están qué que cuál cuáles cómo como cuándo dónde por para"
        " quién yo mi mis me tu",
        "tus su sus no con sin en al se lo le puedo puede puedes quiero hola gracias favor dime cuánto cuánta cuántos cuántas"
        " cuesta hay esta",
        "este hacer hago entre desde hasta sobre resume traduce explica explícame escribe cual cuanto donde cuando necesito",
    ),
    openers=pattern(
        r",",
        r"(?:hola|buenas|buenos días|buenos dias|buenas tardes|buenas noches|oye|oiga)(?: a todos)?",
        r"(?:por favor|porfa|porfavor|disculpe|disculpa|perdón|perdon|perdona|perdone|bueno|pues|gracias|ok|muchas gracias)",
        r"(?:una )?(?:pequeña )?(?:pregunta|duda|consulta)(?: rápida)?",
        r"(?:me gustaría|quisiera|quiero|querría|necesito)(?: saber| entender| aprender| conocer) " + _ASKING,
        r"(?:alguien sabe|sabes|sabe|sabe usted|sabéis|saben) " + _ASKING,
        rf"(?:me )?(?:puedes|puede|podrías|podría|podrias|podria|podéis|pueden)(?: usted)?(?: por favor)?(?: decirme"
        rf"| explicarme| mostrarme| indicarme| decir"
        rf"| explicar| enseñarme| ayudarme a entender) {_ASKING}",
        r"(?:me )?(?:puedes|puede|podrías|podría|podrias|podria)(?: usted)?(?: por favor)? (?=(?:dar|decir|explicar|escribir"
        r"|traducir|resumir|hacer|listar)\w* )",
        rf"{_TELL} {_ASKING}",
        r"(?:no sé|no se|no entiendo|me pregunto) " + _ASKING,
    ),
    closers=ending(r",", r"por favor|porfa|gracias(?: de antemano)?|muchas gracias|si es posible|saludos|para mí|un saludo"),
    frames=(
        Frame(
            "howto",
            pattern(
                r"c[oó]mo (?:puedo|puede|se puede|podemos|podría|podria|debo|debería|deberia|puede uno|hago para|se hace para"
                r"|hay que|tengo que)(?: yo)?",
                r"c[oó]mo (?=\w+(?:ar|er|ir|[aei]rlo|arse|erse|irse)(?: |\Z))",
                r"c[oó]mo se (?=\w)",
                r"c[oó]mo (?=(?!es |está "
                r"|son |estás |fue |era |funciona)\w+o (?:mi|el|la|los|las|un|una|mis)(?: |\Z))",
                rf"cu[aá]l(?:es)? (?:es|son) {_STEPS} (?:de|para)",
                rf"{_STEPS} (?:de|para)",
                r"qu[eé] (?:tengo que|debo|hay que"
                r"|puedo) hacer para",
                r"(?:hay|existe) (?:alguna|una) (?:manera|forma) de",
                r"(?:ay[uú]dame|ayúdeme) a",
                r"necesito ayuda para",
            ),
        ),
        Frame(
            "difference",
            pattern(
                r"(?:cu[aá]l(?:es)? (?:es|son)|qu[eé]|expl[ií]came|dime) (?:la |las )?diferencias? (?:hay )?(?:entre|de)",
                r"(?:la )?diferencias? entre",
                r"en qu[eé] se diferencian?",
            ),
        ),
        Frame("why", pattern(r"por qu[eé](?: raz[oó]n)?|a qu[eé] se debe que")),
        Frame("when:time", pattern(r"a qu[eé] hora")),
        Frame("when:year", pattern(r"en qu[eé] año")),
        Frame("when", pattern(r"cu[aá]ndo")),
        Frame("where", pattern(r"d[oó]nde(?: está| se encuentra| queda)?|en d[oó]nde")),
        Frame("who", pattern(r"qui[eé]n(?:es)?")),
        Frame(
            "cost",
            pattern(r"(?:cu[aá]nto|qu[eé]) (?:cuesta|cuestan|vale)", r"cu[aá]l es el (?:precio|costo|coste) de", r"(?:el )?precio de"),
        ),
        Frame("how-long", pattern(r"cu[aá]nto (?:tiempo )?(?:tarda|demora|dura|se tarda)|cu[aá]nto tiempo")),
        Frame("how-many", pattern(r"cu[aá]nt[oa]s")),
        Frame("how-much", pattern(r"cu[aá]nt[oa]")),
        Frame("how", pattern(r"c[oó]mo")),
        Frame("can", pattern(r"puedo|se puede|podemos|puede uno|es posible")),
        Frame("permitted", pattern(r"est[aá] permitido|tengo permitido")),
        Frame("need", pattern(r"(?:tengo que|debo|hay que|necesito(?= \w+[aei]r )|es necesario|es obligatorio)")),
        Frame("should", pattern(r"debería|es recomendable|es aconsejable")),
        Frame("meaning", pattern(r"qu[eé] (?:significa|quiere decir)|(?:cu[aá]l es )?el significado de|define|definición de")),
        Frame(
            "what",
            pattern(
                r"(?:cu[aá]l|cu[aá]les|qu[eé]) (?:es|son|era|eran|fue)",
                r"(?:dime|dame|di|enumera|lista|nombra) (?=(?:el|la|los|las) )",
                r"qu[eé]|cu[aá]l(?:es)?",
            ),
        ),
        Frame("whether:state", pattern(r"(?:está|están|estaba|estaban)(?= )")),
        Frame("whether", pattern(r"(?:es|son|hay|era|fue)(?= )|si(?= )")),
        Frame("explain", pattern(r"(?:expl[ií]ca|expl[ií]que|describe)(?:me|nos)?|explicar(?:me)?|h[aá]blame (?:de|sobre)")),
        Frame("translate", pattern(r"traduc(?:e|ir|eme)|traduzca|tradúceme|c[oó]mo se dice")),
        Frame("summarize", pattern(r"resum(?:e|ir|a)|haz(?:me)? un resumen(?: de)?")),
        Frame(
            "compose",
            pattern(r"(?:escr[ií]be|redacta|escriba|crea|genera|escribir)(?:me)?", r"(?:dame|hazme|quiero|necesito)(?= (?:una?) )"),
        ),
    ),
    tails=(
        Frame("howto", ending(rf"[,:] (?:pero )?c[oó]mo(?: {_DO_IT})?", r"[,:] qu[eé] (?:tengo que|debo) hacer")),
        Frame("cost", ending(r"[,:] cu[aá]nto(?: cuesta)?")),
    ),
    wishes=pattern(r"(?:quiero|quisiera|necesito|me gustaría|querría|deseo|tengo que|para)"),
    back_references=pattern(rf"c[oó]mo(?: {_DO_IT})?\Z"),
    articles=words("el la los las un una unos unas lo"),
    counted=words("más menos mejor peor mayor menor"),
    agreement=readings("m: el los un unos del al", "f: la las una unas"),
    empty=words("es son que hay"),
    links=pairs(
        "de=de del=de a=a al=a en=en sobre=sobre bajo=bajo para=para por=por con=con sin=sin entre=entre hacia=hacia"
        " hasta=hasta desde=desde",
        "contra=contra durante=durante antes=antes después=después según=según y=y e=y o=o u=o pero=pero si=si cuando=cuando como=como",
        "usando=usando mediante=usando",
    ),
    negations=pairs(
        "no=no nunca=nunca jamás=nunca ningún=ningún ninguna=ningún ninguno=ningún nada=nada nadie=nadie tampoco=tampoco ni=ni"
    ),
    first_person=words("yo mi mis me nos nuestro nuestra nuestros nuestras"),
    second_person=words("tú tu tus te usted su sus vos"),
    anyone=words("se uno"),
    past=words("era eran fue fueron estaba estaban"),
    present=words("es son"),
    is_past=lambda word: False,
    future=words("será serán va"),
    base=singular,
    verb=_verb,
    expand=lambda word: [word.replace("'", "")],
    normal=spelled,
    numbers=numerals("cero un_ dos tres cuatro cinco seis siete ocho nueve diez once doce"),
    ordinals={},
    words=pairs("email=correo mail=correo e-mail=correo clave=contraseña app=aplicación apps=aplicación contrasena=contraseña"),
    synonyms=_SYNONYMS,
    verb_synonyms=stemmed(_SYNONYMS, _verb),
    phrases=phrases("correo: correo electrónico, correo electronico"),
)
