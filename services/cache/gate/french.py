"""The French grammar of the gate."""

from services.cache.gate.grammar import Frame, Grammar, ending, pattern
from services.cache.gate.romance import elided, singular, stem_of
from services.cache.gate.tables import groups, numerals, pairs, phrases, readings, stemmed, words

_ASKING = (
    r"(?=(?:comment|quel|quelle|quels|quelles|quand|où|ou|pourquoi|combien|qui|que|ce que|si|à quelle|à quoi|dans quel\w*|en quelle)"
    r"(?: |\Z))"
)
_TELL = r"(?:dis|dites|explique|expliquez|montre|montrez|indique|indiquez|apprends|apprenez|décris|décrivez)(?: (?:moi|nous))?"
_DO_IT = (
    r"(?:faire|procéder|dois je faire|peux je faire|est ce que je fais|fait on|je fais|on fait|le faire"
    r"|(?:est ce que )?je peux faire)(?: ça| cela)?"
)
_STEPS = r"(?:la (?:meilleure |bonne )?(?:manière|façon|méthode|procédure)|le (?:meilleur )?moyen|les étapes|des étapes)"

_verb = stem_of(("issons", "ions", "ons", "ez", "es", "er", "ir", "is", "it", "re", "e", "s"))
_SYNONYMS = groups(
    "supprimer effacer", "acheter acquérir", "voiture automobile", "commencer débuter", "réparer rafistoler", "film long-métrage"
)

FRENCH = Grammar(
    code="fr",
    marks=words(
        "le la les l'un un une des du de et ou est sont c'est qu'est que qui quel quelle quels quelles comment quand où"
        " pourquoi combien je j'ai",
        "mon ma mes tu vous nous votre vos ne pas dans sur pour avec sans par en au aux puis peux peut bonjour merci s'il"
        " plaît moi cette ces",
        "être faire fait coûte dis expliquez explique traduis traduisez résume écris entre il elle ce se son sa ses",
    ),
    openers=pattern(
        r",",
        r"(?:bonjour|bonsoir|salut|coucou|hello)(?: à tous| madame| monsieur)?",
        r"(?:s'il te plaît|s'il vous plaît|s'il vous plait|s'il te plait|svp|stp|alors|ok|excusez moi|pardon|désolé|merci)",
        r"(?:une )?(?:petite |simple )?question",
        r"je (?:voudrais|veux|souhaite|souhaiterais|aimerais|cherche à)(?: bien)? (?:savoir|comprendre|connaître|apprendre) " + _ASKING,
        r"(?:est ce que )?(?:tu sais|vous savez|savez vous|sais tu) " + _ASKING,
        rf"(?:est ce que )?(?:tu peux|vous pouvez|pouvez vous|peux tu|pourriez vous|pourrais tu"
        rf"|vous pourriez)(?: s'il vous plaît| s'il te plaît)?"
        rf"(?: ,)?(?: me| nous)? ?(?:dire|expliquer|montrer|indiquer|aider à comprendre) {_ASKING}",
        r"(?:est ce que )?(?:tu peux|vous pouvez|pouvez vous|peux tu|pourriez vous|pourrais tu"
        r"|vous pourriez)(?: s'il vous plaît| s'il te plaît)?"
        r"(?: me| nous)? ?(?=(?:dire|expliquer|donner|écrire|traduire|résumer|faire|lister|citer|décrire) )",
        rf"{_TELL} {_ASKING}",
        r"je ne (?:sais|comprends) pas " + _ASKING,
        r"je me demande " + _ASKING,
    ),
    closers=ending(
        r",",
        r"s'il (?:te|vous) pla[iî]t|svp|stp|merci(?: d'avance| beaucoup| bien)?|cordialement|pour moi|à moi|si possible",
    ),
    frames=(
        Frame(
            "howto",
            pattern(
                r"comment (?:est ce que )?(?:je |on |tu |nous )?(?:peux|peut|pourrais|dois|doit|pourrait|devrais|faut il"
                r"|pouvons|faire pour|fait on pour)"
                r"(?: je| on| t on| nous)?(?: faire pour)?",
                r"comment (?:est ce que )?(?:je|on|tu|nous)",
                r"comment faire pour",
                r"comment (?=\w+(?:er|ir|re|oir)(?: |\Z))",
                r"comment (?=(?:ne pas )\w+)",
                rf"(?:quelle est|quel est|quelles sont|c'est quoi) {_STEPS} (?:de|pour)",
                rf"{_STEPS} (?:de|pour)",
                r"que (?:dois|puis|faut|doit)(?: je| on| il)? faire pour",
                r"(?:est ce que )?il y a (?:un moyen|une façon|une manière) de",
                r"aidez? moi à",
                r"je ai besoin d'aide pour",
            ),
        ),
        Frame(
            "difference",
            pattern(
                r"(?:quelle est|quelles sont|c'est quoi|explique(?:z|r)?(?: moi)?|dis moi) (?:la|les) différences? (?:entre|de)",
                r"(?:la |les )?différences? entre",
                r"quelle différence(?: y a t il)? entre",
                r"en quoi (?=.+ diffère)",
            ),
        ),
        Frame("why", pattern(r"pourquoi(?: est ce que)?|pour quelle raison|pour quelles raisons")),
        Frame("when:time", pattern(r"à quelle heure(?: est ce que)?")),
        Frame("when:year", pattern(r"en quelle année")),
        Frame("when", pattern(r"quand(?: est ce que)?")),
        Frame("where", pattern(r"où(?: est ce que)?(?: se trouve| est)?")),
        Frame("who", pattern(r"qui(?: est ce qui)?(?: est| a)?")),
        Frame(
            "cost",
            pattern(
                r"combien (?:coûte|coute|coûtent|vaut)(?: t il)?",
                r"(?:quel est|quels sont) (?:le prix|le coût|le tarif|les prix) (?:de|pour)",
                r"(?:le )?prix (?:de|pour)",
            ),
        ),
        Frame("how-long", pattern(r"combien de temps(?: dure| faut il pour| prend)?|quelle est la durée de")),
        Frame("how-many", pattern(r"combien de|combien y a t il de")),
        Frame("how-much", pattern(r"combien")),
        Frame("how-old", pattern(r"quel âge a")),
        Frame("how", pattern(r"comment")),
        Frame(
            "can",
            pattern(
                r"(?:est ce que )?(?:je peux|on peut|peux je|peut on|pouvons nous|est il possible de|c'est possible de"
                r"|est ce possible de)"
            ),
        ),
        Frame("permitted", pattern(r"(?:est ce que )?(?:ai je le droit de|je ai le droit de|est il permis de|est il autorisé de)")),
        Frame("need", pattern(r"(?:est ce que )?(?:dois je|je dois|faut il|doit on|on doit|est il nécessaire de|est il obligatoire de)")),
        Frame("should", pattern(r"(?:est ce que )?(?:devrais je|je devrais|est il conseillé de)")),
        Frame(
            "meaning",
            pattern(
                r"que (?:signifie|veut dire)|que est ce que (?:signifie|veut dire)|(?:quelle est )?la (?:signification"
                r"|définition) (?:de|du)|définis(?:sez)?"
            ),
        ),
        Frame("what:subject", pattern(r"que est ce qui(?! est| sont)")),
        Frame(
            "what",
            pattern(
                r"(?:quel|quelle|quels|quelles) (?:est|sont|était|étaient)",
                r"que est ce (?:que|qui)(?: c'est"
                r"| ce est)?(?: que)?",
                r"ce est quoi",
                r"(?:donne|donnez|cite|citez|dis|dites|liste|listez)(?: moi)? (?=(?:le|la|les) )",
                r"quel|quelle|quels|quelles|que",
            ),
        ),
        Frame("whether", pattern(r"est ce que?|si(?= )|(?:est|sont|a|ont)(?= )")),
        Frame("explain", pattern(r"(?:explique[rz]?|décri(?:s|vez|re))(?: moi)?", r"parle[zr]?(?: moi)? de")),
        Frame("translate", pattern(r"tradui(?:s|sez|re)|comment (?:dit on|dire|on dit)")),
        Frame("summarize", pattern(r"résume[rz]?|fai(?:s|tes) (?:moi )?un résumé(?: de)?")),
        Frame(
            "compose",
            pattern(
                r"(?:écri(?:s|vez|re)|rédige[rz]?|compose[rz]?)(?: moi)?",
                r"(?:donne[rz]?|fai(?:s|tes))(?: moi)?(?= (?:une?|des) )",
                r"(?:je voudrais|je aimerais|je veux)(?= une? )",
            ),
        ),
    ),
    tails=(
        Frame("howto", ending(rf"[,:] (?:mais )?comment(?: {_DO_IT})?", r"[,:] que (?:dois je|faut il) faire")),
        Frame("cost", ending(r"[,:] combien(?: ça coûte| cela coûte| est ce)?")),
        Frame("how-long", ending(r"[,:] combien de temps")),
    ),
    wishes=pattern(r"(?:je (?:voudrais|veux|souhaite|souhaiterais|aimerais|dois|cherche à)|nous (?:voulons|voudrions)|je aimerais|pour)"),
    back_references=pattern(rf"comment(?: {_DO_IT})?\Z"),
    articles=words("le la les un une"),
    counted=words("plus moins meilleur meilleure pire mieux"),
    agreement=readings("m: le un du au les des aux", "f: la une les des aux"),
    empty=words("est sont ce que c' il y a t s'il"),
    links=pairs(
        "de=de du=de des=de d=de à=à au=à aux=à dans=dans en=en sur=sur sous=sous pour=pour avec=avec sans=sans par=par"
        " entre=entre vers=vers",
        "chez=chez avant=avant après=après depuis=depuis pendant=pendant durant=pendant contre=contre jusque=jusque et=and"
        " ou=or mais=but si=si",
        "quand=quand lorsque=quand comme=comme plutôt=plutôt hors=hors",
    ),
    negations=pairs("ne=ne pas=pas jamais=jamais aucun=aucun aucune=aucun rien=rien personne=personne non=non plus=plus"),
    first_person=words("je me moi mon ma mes nous notre nos"),
    second_person=words("tu te toi ton ta tes vous votre vos"),
    anyone=words("on tu"),
    past=words("était étaient a-été fut furent"),
    present=words("est sont"),
    is_past=lambda word: False,
    future=words("sera seront"),
    base=singular,
    verb=_verb,
    expand=elided(pairs("l=le d=de qu=que j=je n=ne c=ce s=se m=me t=te jusqu=jusque lorsqu=lorsque puisqu=puisque")),
    normal=lambda word: word.replace("œ", "oe").replace("æ", "ae"),
    numbers=numerals("zéro un_ deux trois quatre cinq six sept huit neuf dix onze douze"),
    ordinals={},
    words=pairs("puis=peux s'il=s'il email=e-mail mail=e-mail courriel=e-mail"),
    synonyms=_SYNONYMS,
    verb_synonyms=stemmed(_SYNONYMS, _verb),
    phrases=phrases("e-mail: e mail, adresse électronique"),
)
