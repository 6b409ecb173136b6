"""The Italian grammar of the gate."""

from services.cache.gate.grammar import Frame, Grammar, ending, pattern
from services.cache.gate.romance import elided, stem_of
from services.cache.gate.tables import groups, numerals, pairs, readings, stemmed, words

_ASKING = (
    r"(?=(?:come|che|cosa|che cosa|qual|quale|quali|quando|dove|perché|perche|quanto|quanta|quanti|quante|chi|se|a che|in che)(?: |\Z))"
)
_TELL = r"(?:dimmi|mi dica|spiegami|mi spieghi|mostrami|indicami|insegnami|spiega)"
_DO_IT = r"(?:faccio|si fa|posso fare|devo fare|posso farlo|lo faccio|fare)"
_STEPS = r"(?:il modo(?: migliore)?|la procedura|il metodo|i passaggi|la maniera|il miglior modo)"

_verb = stem_of(("iamo", "armi", "ermi", "irmi", "are", "ere", "ire", "ano", "ono", "ate", "ete", "ite", "o", "i", "a", "e"))
_SYNONYMS = groups(
    "cancellare eliminare rimuovere", "comprare acquistare", "iniziare cominciare", "macchina auto automobile", "riparare aggiustare"
)

ITALIAN = Grammar(
    code="it",
    marks=words(
        "il lo la i gli le un uno una di del della dei delle degli dello e o è sono che chi cosa qual quale quali come quando"
        " dove perché quanto",
        "io mio mia miei mie mi tu tuo tua non con senza in nel nella al alla da dal per su sul posso puoi può voglio vorrei"
        " ciao grazie favore",
        "dimmi spiegami traduci riassumi scrivi tra fra si c'è cos'è qual'è dell'italia costa questo questa",
    ),
    openers=pattern(
        r",",
        r"(?:ciao|salve|buongiorno|buonasera|buon giorno)(?: a tutti)?",
        r"(?:per favore|per piacere|per cortesia|scusa|scusi|scusate|allora|ok|grazie)",
        r"(?:una )?(?:breve )?domanda(?: veloce)?",
        r"(?:vorrei|voglio|mi piacerebbe|desidero)(?: sapere| capire| imparare) " + _ASKING,
        r"(?:sai|sapete|sa|qualcuno sa|sapresti dirmi) " + _ASKING,
        rf"(?:mi )?(?:puoi|può|potresti|potrebbe|potete)(?: per favore)?(?: dirmi| spiegarmi| mostrarmi| indicarmi| dire"
        rf"| spiegare) {_ASKING}",
        r"(?:mi )?(?:puoi|può|potresti|potrebbe)(?: per favore)? (?=(?:dare|dire|spiegare|scrivere|tradurre|riassumere|fare"
        r"|elencare|\w+rmi) )",
        rf"{_TELL} {_ASKING}",
        r"(?:non so|non capisco|mi chiedo|mi chiedevo) " + _ASKING,
    ),
    closers=ending(r",", r"per favore|per piacere|per cortesia|grazie(?: mille| in anticipo)?|se possibile|cordiali saluti|per me"),
    frames=(
        Frame(
            "howto",
            pattern(
                r"come (?:posso|si può|possiamo|potrei|devo|dovrei|si deve|faccio a|faccio per|si fa a|si fa per"
                r"|bisogna)",
                r"come si (?=\w)",
                r"come (?=\w+(?:are|ere|ire|rre)(?: |\Z))",
                r"come (?=(?!sono |sto )\w+o (?:il|la|i|le|lo|gli|un|una|mio|mia)(?: |\Z))",
                rf"qual è {_STEPS} (?:di|per)",
                rf"quali sono {_STEPS} (?:di|per)",
                rf"{_STEPS} (?:di"
                rf"|per)",
                r"(?:che )?cosa devo fare per",
                r"aiutami a",
                r"(?:c'è|esiste) un modo (?:di|per)",
            ),
        ),
        Frame(
            "difference",
            pattern(
                r"(?:qual è|quali sono|che|spiegami|dimmi) (?:la |le )?differenz[ae] (?:c'è )?(?:tra|fra)",
                r"(?:la )?differenz[ae] (?:tra|fra)",
            ),
        ),
        Frame("why", pattern(r"perch[eé]|per quale motivo|come mai")),
        Frame("when:time", pattern(r"a che ora")),
        Frame("when:year", pattern(r"in che anno|in quale anno")),
        Frame("when", pattern(r"quando")),
        Frame("where", pattern(r"dove(?: si trova| è)?")),
        Frame("who", pattern(r"chi")),
        Frame("cost", pattern(r"quanto (?:costa|costano|viene)", r"qual è il (?:prezzo|costo) di", r"(?:il )?prezzo di")),
        Frame("how-long", pattern(r"quanto (?:tempo )?(?:dura|ci vuole|impiega|ci mette)|quanto tempo")),
        Frame("how-many", pattern(r"quant[ie]")),
        Frame("how-much", pattern(r"quant[oa]")),
        Frame("how", pattern(r"come")),
        Frame("can", pattern(r"posso|si può|possiamo|è possibile")),
        Frame("permitted", pattern(r"è permesso|è consentito")),
        Frame("need", pattern(r"devo|bisogna|è necessario|è obbligatorio")),
        Frame("should", pattern(r"dovrei|conviene|è consigliabile")),
        Frame("meaning", pattern(r"(?:che )?cosa (?:significa|vuol dire)|che significa|(?:qual è )?il significato di|definisci")),
        Frame(
            "what",
            pattern(
                r"(?:qual|quale|quali) (?:è|sono|era|erano)",
                r"(?:che )?cosa (?:è|sono)|cos è|che cos è",
                r"(?:dimmi|dammi|elenca|nomina) (?=(?:il|la|i|le|lo|gli) )",
                r"quale|quali|che cosa|cosa|che",
            ),
        ),
        Frame("whether", pattern(r"(?:è|sono|c'è|ci sono|era)(?= )|se(?= )")),
        Frame("explain", pattern(r"(?:spiega|descrivi)(?:mi)?|parlami di")),
        Frame("translate", pattern(r"traduci(?:mi)?|tradurre|come si dice")),
        Frame("summarize", pattern(r"riassumi(?:mi)?|fa(?:mmi)? un riassunto(?: di)?")),
        Frame("compose", pattern(r"(?:scrivi|componi|crea|genera)(?:mi)?", r"(?:dammi|fammi|vorrei|voglio)(?= (?:una?o?) )")),
    ),
    tails=(
        Frame("howto", ending(rf"[,:] (?:ma )?come(?: {_DO_IT})?", r"[,:] cosa devo fare")),
        Frame("cost", ending(r"[,:] quanto(?: costa)?")),
    ),
    wishes=pattern(r"(?:voglio|vorrei|devo|desidero|mi piacerebbe|ho bisogno di|per)"),
    back_references=pattern(rf"come(?: {_DO_IT})?\Z"),
    articles=words("il lo la i gli le un uno una"),
    counted=words("più meno migliore peggiore maggiore minore"),
    agreement=readings(
        "m: il lo i gli un uno del dello dei degli al allo ai agli dal dallo dai dagli nel nello nei negli sul sullo sui sugli",
        "f: la le una della delle alla alle dalla dalle nella nelle sulla sulle",
    ),
    polite=words("Lei Suo Sua Suoi Sue"),
    empty=words("è sono che c' ci"),
    links=pairs(
        "di=di del=di della=di dei=di delle=di degli=di dello=di a=a al=a alla=a ai=a alle=a agli=a allo=a da=da dal=da"
        " dalla=da dai=da in=in nel=in",
        "nella=in nei=in nelle=in nello=in su=su sul=su sulla=su sui=su per=per con=con senza=senza tra=tra fra=tra"
        " verso=verso prima=prima dopo=dopo",
        "durante=durante contro=contro e=e ed=e o=o ma=ma se=se quando=quando come=come fino=fino usando=usando tramite=usando",
    ),
    negations=pairs(
        "non=non mai=mai nessuno=nessuno nessuna=nessuno nessun=nessuno niente=niente nulla=niente neanche=neanche né=né no=no"
    ),
    first_person=words("io mio mia miei mie mi me noi nostro nostra"),
    second_person=words("tu tuo tua tuoi tue ti te suo sua vostro vostra"),
    anyone=words("si"),
    past=words("era erano fu furono"),
    present=words("è sono"),
    is_past=lambda word: False,
    future=words("sarà saranno"),
    base=str,
    verb=_verb,
    expand=elided(pairs("l=il d=di un=una dell=di nell=in all=a dall=da sull=su quest=questa c=c' cos=cosa dov=dove com=come qual=quale")),
    normal=str,
    numbers=numerals("zero un_ due tre quattro cinque sei sette otto nove dieci undici dodici"),
    ordinals={},
    words=pairs("mail=email e-mail=email app=app"),
    synonyms=_SYNONYMS,
    verb_synonyms=stemmed(_SYNONYMS, _verb),
)
