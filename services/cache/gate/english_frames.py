"""English ways to ask: polite words, and the frames that tell what kind of answer is wanted."""

from services.cache.gate.grammar import Frame, ending, pattern

_ME = r"(?: me| us)?"
_I = (
    r"(?:i|we|one|someone|somebody|anyone"
    r"|you(?! (?:feel|work|know|think|help|learn|differ|compare|see|sleep|live|look|function|operate|like|handle|ship|process|protect"
    r"|deliver|charge|bill|verify|collect|share|refund|recruit|hire|guarantee|price|source)(?: |\Z)))"
)
_TELL = (
    rf"(?:tell{_ME}|explain(?: to me| to us)?|show{_ME}|teach{_ME}|let me know|describe(?: to me)?|clarify(?: for me)?|say|remind{_ME}"
    rf"|help{_ME}(?: to)? (?:understand|figure out|find out|know|learn)|walk{_ME} through|guide{_ME} (?:through|on)|advise{_ME}(?: on)?"
    rf"|inform{_ME}|give{_ME} (?:an? |the )?(?:explanation|idea|information|details|instructions)(?: of| on| about| for)?)"
)
_ASKING = r"(?=(?:how|what|when|where|why|who|whom|whose|which|if|whether)(?: |\Z))"

_START = (
    r"(?:how|what|when|where|why|who|whom|whose|which|can|could|would|will|is|are|do|does|did|should|may|please|tell|explain|i|if|help)"
    r"(?: |\Z)"
)

OPENERS = pattern(
    r",",
    rf"(?:hi|hello|hey|hiya|howdy|greetings)(?: (?:there|all|everyone|team|assistant|bot|chatgpt|ai|guys|friend|doctor|support|folks))?"
    r"(?: ,|\Z"
    rf"|(?= {_START}))",
    r"dear (?:all|team|assistant|bot|chatgpt|ai|friend)(?: ,)?",
    r"good (?:morning|afternoon|evening|day)(?: all| everyone| team)?(?: ,|\Z)",
    rf"(?:tell|show) (?:me|us) , (?={_START})",
    r"please|kindly|um|uh|uhm|erm|hmm|sorry to bother you|(?:ok|okay|so|well|oh|ah|anyway|now then|alright|right|sorry|apologies) ,",
    rf"(?:ok|okay|so|well|anyway|sorry|pardon|thanks|but|and) (?={_START})",
    r"(?:excuse me|pardon me)(?: ,)?|(?:pardon|thanks|thank you|thanks in advance|thank you in advance)(?: ,|\Z)",
    r"(?:(?:just )?(?:a )?(?:quick|short|simple|small|dumb|stupid|silly|basic|general|random) (?:question|one|q)|question"
    r"|my question is)(?: for you)? [,:]?",
    r"(?:i have|i have got|i got) (?:just )?an? (?:quick |short |simple |small |dumb |stupid |silly |basic )?question(?: ,| for you)?",
    r"(?:by the way|btw|out of curiosity|just out of curiosity|if possible|if you can|if you could|if you do not mind|if i may ask)",
    r"(?:may|can|could|might) i (?:please )?ask(?: you)?(?: something| a question)? ?,?",
    r"(?:i am|i was|was|am)? ?(?:just )?(?:wondering|curious)(?: about)? ?"
    + r"(?=if |whether |how |what |when |where |why |who |which |, )",
    r"(?:i would|i will|i) (?:really )?(?:appreciate|be grateful|be glad|be happy|love) it ?if (?=you )",
    r"it would be (?:great|nice|helpful|good|lovely|awesome) if (?=you )",
    rf"(?:do|does|did|would) (?:you|anyone|anybody|someone|somebody)(?: here)? (?:happen to |perhaps )?(?:know|remember"
    rf"|have any idea|have an idea|recall) {_ASKING}",
    rf"(?:any|anyone|anybody|someone) (?:idea|ideas|know|knows|clue) {_ASKING}",
    rf"(?:have|has) (?:you|anyone) any idea {_ASKING}",
    rf"i (?:really )?(?:just )?(?:want|need|wish|have|would like|would love|am trying|am looking|was hoping|am hoping"
    rf"|was trying)(?: you)? to"
    rf" (?:know|learn|find out|figure out|understand|ask|be told|get to know|see|tell me|explain) (?:about )?{_ASKING}",
    rf"i (?:do not|did not|cannot|can not) (?:really )?(?:know|understand|remember|see|figure out|get) {_ASKING}",
    rf"(?:i am )?(?:not sure|unsure|confused about|struggling to understand|trying to (?:understand|figure out|find out"
    rf"|learn)) {_ASKING}",
    rf"(?:is there (?:a chance|any chance) )?(?:can|could|would|will|may|might) (?:you|someone|somebody|anyone"
    rf"|anybody)(?: please| kindly| possibly| maybe| perhaps| quickly)?"
    rf"(?: be able to| be so kind as to| be kind enough to)?(?: please| kindly)? (?={_TELL} |help |give me |list |show |write "
    rf"|translate |summarize |summarise"
    rf" |create |make |find |suggest |recommend |check |convert |calculate |define |name |provide |compare |describe |explain "
    rf"|generate |draft |compose"
    rf" |recap |rewrite |fix |solve |compute |sort |correct |proofread |paraphrase |outline |identify |extract |classify |plan "
    rf"|share |send |tell |say |spell |design |do |shorten |simplify |rephrase |rate |label |average |round \d|add up )",
    rf"would you mind (?={_TELL}|explaining|telling|showing)",
    r"i (?:want|need|would like|would love|ask|wish) you to ",
    rf"{_TELL},? {_ASKING}",
    r"(?:telling|explaining|showing) (?:me |us |to me )?" + _ASKING,
    rf"help{_ME} (?=how )",
)
CLOSERS = ending(
    r",",
    r"please|kindly|pls|cheers|thanks(?: a lot| so much| in advance| a bunch| a million| very much)?|many thanks|much appreciated",
    r"thank you(?: so much| very much| in advance| kindly)?|if possible|if you can|if you could|if you do not mind|by any chance",
    r"(?:any|anyone|anybody) (?:idea|ideas|knows?|help|suggestions|thoughts)|regards|best regards|kind regards",
    r"(?:i would|i will) (?:really )?appreciate (?:it|any help|your help)|i am (?:just )?(?:curious|wondering)|just (?:curious"
    r"|wondering)",
    r", do you know|(?:can|could) you (?:please )?(?:tell me|help me|help|explain)(?: that| it| with that| with this)?(?: please)?",
    r"i (?:want|need|would like) to know|please (?:advise|help)|, tell me",
)

_WAY = (
    r"(?:a |an |the |some |any )?(?:best |right |correct |proper |good )?"
    r"(?:way|ways|method|methods|procedure|steps|instructions|step|process)(?: i (?:should|need to|must|can|have to) take)?"
)
_GERUND = r"(?=\w+ing(?: |\Z))"
_NEED = r"(?:need|have|got|ought|want)"

# Who wants help with these wants them done.
_NO_ORDER = (
    r"(?!(?:writ|compos|draft|creat|generat|mak|translat|summar|rewrit|rephras|proofread|find|choos|pick|plan|design|com|nam|decid|solv|calculat"
    r"|convert|edit|improv|correct|outlin|brainstorm|answer|do)(?:e|ing|ting|ning)?(?: |\Z))"
)
_HOWTO = pattern(
    rf"how (?:do|can|could|should|would|might|shall) {_I} (?:go about|best|actually|properly|possibly|please|then)? ?(?:{_NEED} to )?",
    r"how (?:does|can|could|should|would) (?:one|someone|somebody) (?:go about )?",
    r"how (?:exactly )?(?:do|can|could|should|would) (?:i|we|you|one) exactly",
    rf"how {_I} (?:can|could|should|would|might|go about|am able to|are able to|have to|need to)",
    r"how (?:best )?to(?: go about)?",
    r"how (?:am|are) (?:i|we|you) (?:supposed|meant|able) to",
    r"how (?:is it|would it be|is) possible to",
    rf"(?:what|which) (?:is|are|would be|might be) {_WAY} (?:for me |for one |for you )?(?:to|for {_GERUND}|of {_GERUND}|on how to)",
    rf"(?:give me |show me |tell me |i need |i want |explain |describe |provide |list |outline |share |need "
    rf"|find )?(?:me )?{_WAY} (?:to|for {_GERUND}|of {_GERUND}|on how to)",
    rf"(?:is|are) there (?:a |an |any |some )?(?:good |easy )?(?:way|ways|method|possibility) (?:for me |for one )?(?:to"
    rf"|for {_GERUND}|of {_GERUND})",
    rf"(?:what|which) (?:do|should|must|would|can) {_I} (?:need to |have to )?do (?:if i want |in order |if i need "
    rf"|when i want )?(?:to|for {_GERUND})",
    rf"(?:what|which) steps (?:do|should|must|can) {_I} (?:need to |have to )?(?:take|follow|do|perform) (?:in order )?(?:to"
    rf"|for {_GERUND}|when)",
    r"(?:i am |we are )?(?:looking for|searching for|seeking) (?:a way|ways|instructions|steps|help)(?: on)? (?:how )?to",
    r"i (?:do not|am not sure|am unsure|cannot figure out|do not understand|forgot|have no idea"
    r"|have forgotten) (?:know )?how (?:to|i (?:can|could|should))",
    rf"(?:i |we )?(?:need|want|require|would like|am looking for|could use)(?: some| your| a little)? (?:help|assistance|guidance|advice)"
    rf" (?:with |on |in |for )?{_NO_ORDER}(?:(?:how )?to|{_GERUND})",
    rf"(?:can|could|would|will) (?:you|someone|anyone|somebody) (?:please |kindly )?help(?>{_ME}) (?:with |out with |in )?(?:to "
    rf"|{_GERUND})?{_NO_ORDER}(?=\w)",
    rf"help(?>{_ME}) (?:with |in )?(?:to |{_GERUND})?{_NO_ORDER}(?=\w)",
    r"(?:instructions|steps|directions|a guide|guidance) (?:to|for|on|on how to) (?=\w)",
)

FRAMES = (
    Frame("translate", pattern(r"how (?:do|would|can|could|to|should) (?:i |you |we |one )?say", r"how to say", r"how is (?=.+ said in )")),
    Frame("howto", _HOWTO),
    Frame("howto", pattern(r"how (?:can|could|should|do|does) (?=.+ be )")),
    Frame("remedy", pattern(r"what (?:should|do|can|must) (?:i|we|you|one) do (?:if|when|in case)")),
    Frame("howto", pattern(r"(?:walk|guide|take|talk) (?:me|us) through (?=\w+ing )")),
    Frame("recommend", pattern(r"(?:recommend|suggest)(?: me| us)?")),
    Frame(
        "difference",
        pattern(
            r"(?:what|which) (?:is|are) (?:the |a )?(?:main |key )?differences? (?:between|of|among)",
            r"(?:tell me |explain |describe |list |give me )?(?:the )?differences? between",
            r"(?:what|which) differences? (?:is|are|exist|exists) (?:there )?between",
            r"how (?:does|do|is|are) (?=.+ (?:differ|different)(?: |\Z))",
            r"how (?=.+ (?:differ|differs|is different|are different)(?: |\Z))",
            r"what (?:distinguishes|differentiates|separates)",
            r"(?:how (?:do|can|should) (?:i|you|we) )(?:distinguish|differentiate|tell the difference)(?: between)?",
        ),
    ),
    Frame(
        "why",
        pattern(
            r"why(?: is it that)?",
            r"how come",
            r"(?:what|which) (?:is|was|are|were|would be) the reasons? (?:for which|that|why|behind|for)",
            r"for (?:what|which) reason",
            r"the reasons? (?:why|that)",
            r"(?:what|which) (?:makes|made|causes|caused)(?= .+ to )",
        ),
    ),
    Frame("when:year", pattern(r"(?:in |during )?(?:what|which) (?:is the )?year", r"the year when")),
    Frame("when:month", pattern(r"(?:in |during )?(?:what|which) month")),
    Frame("when:day", pattern(r"(?:on )?(?:what|which) day")),
    Frame("when:date", pattern(r"(?:on )?(?:what|which) date", r"(?:what|which) (?:is|was) the date (?:when|on which)")),
    Frame("when:time", pattern(r"(?:at )?(?:what|which) time", r"at what (?:hour|point)")),
    Frame("when", pattern(r"when(?: exactly)?")),
    Frame(
        "where",
        pattern(
            r"where(?: exactly)?(?: can i find| can you find| do i find)?",
            r"(?:in|at) (?:what|which) (?:place|location)",
            r"(?:what|which) (?:is|was) the location of",
        ),
    ),
    Frame(
        "who",
        pattern(r"by whom", r"who(?: exactly)?", r"whom", r"(?:what|which) person", r"what (?:is|was) the name of the person (?:who|that)"),
    ),
    Frame("whose", pattern(r"whose")),
    Frame(
        "how-many",
        pattern(
            r"how many",
            r"(?:what|which) (?:is|are|was|were) the (?:total )?(?:number|count) of",
            r"(?:what|which) number of",
            r"the number of",
            r"number of",
        ),
    ),
    Frame(
        "cost",
        pattern(
            r"how much (?:money )?(?:does|do|is|are|would|will|did|was|were) (?:it cost (?:me )?(?:to )?)?(?=.*(?: costs?"
            r"| priced?|\A\Z))",
            r"how much (?:does|do|will|would) (?:it )?cost(?: me)? (?:to )?",
            r"how much (?=.+ (?:costs?|is)\Z)",
            r"what (?:does|do|would|will|did) (?=.+ cost(?: |\Z))",
            r"what (?:does|do|would|will|did) it cost (?:me )?to",
            r"what (?=.+ costs\Z)",
            r"(?:what|which) (?:is|are|was|were|would be) the (?:price|prices|cost|costs) (?:of|for)",
            r"(?:the )?(?:price|cost) (?:of|for)",
            r"(?:what|which) (?:is|are|was) the (?=.+ (?:price|cost)\Z)",
        ),
    ),
    Frame(
        "how-much",
        pattern(
            r"how much",
            r"(?:what|which) (?:amount|quantity) of",
            r"(?:what|which) (?:is|was) the (?:amount"
            "|quantity) of",
        ),
    ),
    Frame(
        "how-long",
        pattern(
            r"how long(?: exactly)?",
            r"how much time",
            r"(?:what|which) (?:is|was) the duration of",
            r"(?:what|which) (?:is|was) the (?=.+ duration\Z)",
            r"for how long",
            r"what length of time",
        ),
    ),
    Frame(
        "how-far",
        pattern(
            r"how far(?: away)?(?: (?:is|'s) it(?= (?:from|between|to) ))?",
            r"(?:what|which) (?:is|was) the distance",
            r"(?:the )?distance(?= (?:between|from))",
            r"(?:what|which) (?:is|was) the (?=.+ distance\Z)",
        ),
    ),
    Frame("how-often", pattern(r"how often", r"how frequently", r"(?:at|with) (?:what|which) frequency")),
    Frame("how-old", pattern(r"how old", r"(?:what|which) (?:is|was) the age of", r"(?:what|which) age", r"at (?:what|which) age")),
    Frame("how-tall", pattern(r"how (?:tall|high)", r"(?:what|which) (?:is|was) the height of", r"(?:what|which) height")),
    Frame("how-heavy", pattern(r"how heavy", r"how much (?=.+ weighs?(?: |\Z))", r"(?:what|which) (?:is|was) the weight of")),
    Frame("how-deep", pattern(r"how deep", r"(?:what|which) (?:is|was) the depth of")),
    Frame("how-wide", pattern(r"how wide", r"(?:what|which) (?:is|was) the width of")),
    Frame("how-fast", pattern(r"how (?:fast|quick|quickly)", r"(?:what|which) (?:is|was) the speed of", r"at (?:what|which) speed")),
    Frame("how-big", pattern(r"how (?:big|large)", r"(?:what|which) (?:is|was) the size of", r"(?:what|which) size")),
    Frame("how-hot", pattern(r"how (?:hot|cold|warm)", r"(?:what|which) (?:is|was) the temperature of")),
    Frame(
        "how-adjective",
        pattern(
            r"how(?= (?:soon|late|early|hard|difficult|easy|dangerous|safe|common|rare|important|expensive|cheap|accurate"
            r"|reliable|effective|good|bad"
            r"|strong|thick|thin|likely|close|near|healthy|clean|bright|loud|popular|rich|secure|well|badly|quickly|slowly)(?: |\Z))",
        ),
    ),
    Frame("about", pattern(r"(?:how|what) about")),
    Frame(
        "like",
        pattern(
            r"(?:what|how) (?:is|are|was|were) (?=.+ like(?: |\Z))",
            r"what (?=.+ (?:is|are|was|were) like\Z)",
            r"how (?:is|are|was) (?=.*(?:weather|climate|food|traffic)(?: |\Z))",
        ),
    ),
    Frame("how", pattern(r"how")),
    Frame("stands-for", pattern(r"what (?:does|do|did) (?=.+ stand for\Z)", r"what (?=.+ stands? for\Z)")),
    Frame(
        "meaning",
        pattern(
            r"(?:what|which) (?:is|are) (?:the |a )?(?:meaning|definition)s? of",
            r"(?:give me |tell me )?(?:the )?(?:meaning|definition) of",
            r"what (?:does|do|did) (?=.+ mean\Z)",
            r"what (?=.+ (?:means|mean)\Z)",
            r"define",
            r"what is meant by",
            r"how (?:is|are) (?=.+ defined\Z)",
        ),
    ),
    Frame(
        "can",
        pattern(
            r"(?:can|may) (?:i|we|one)",
            r"could i",
            r"could we",
            r"(?:am|are) (?:i|we) (?:able) to",
            r"(?:if|whether) (?:i|we) (?:can|could|may)",
        ),
    ),
    Frame(
        "possible", pattern(r"(?:is|would) it (?:be )?(?:possible|feasible|doable) (?:for (?:me|us|one) )?to", r"(?:is|are) it possible")
    ),
    Frame(
        "permitted",
        pattern(
            r"(?:is it|would it be) (?:allowed|permitted|permissible|permitted for me|alright|allowed for me) to",
            r"(?:am|are) (?:i|we) (?:allowed|permitted) to",
        ),
    ),
    Frame("okay", pattern(r"(?:is it|would it be) (?:okay|ok|fine|all right|acceptable) (?:for me )?(?:to|if i)")),
    Frame(
        "need",
        pattern(
            r"(?:do|must|will|would) (?:i|we|you|one) (?:(?:need|have) to|got to)",
            r"(?:must|need) (?:i|we)",
            r"(?:is it|would it be) (?:necessary|required|mandatory|obligatory|compulsory|needed) (?:for me )?to",
            r"(?:am|are) (?:i|we) (?:required|obliged) to",
            r"(?:if|whether) (?:i|we) (?:must|have to|need to)",
        ),
    ),
    Frame(
        "should",
        pattern(
            r"(?:should|ought) (?:i|we|one)(?: to)?",
            r"(?:is it|would it be) (?:advisable|recommended|wise|a good idea|sensible|smart) (?:for me )?to",
            r"(?:if|whether) (?:i|we) should",
            r"(?:do|would) you (?:recommend|advise|suggest) (?:me to|that i|to|(?=\w+ing ))",
        ),
    ),
    Frame("will", pattern(r"will(?= )", r"(?:is|are)(?= .+ going to )")),
    Frame("would", pattern(r"would(?= )")),
    Frame("could", pattern(r"could(?= )", r"might(?= )")),
    Frame("should-other", pattern(r"should(?= )", r"ought(?= )", r"must(?= )")),
    Frame("can-other", pattern(r"can(?= )", r"may(?= )")),
    Frame("whether", pattern(r"(?:is|are|was|were|am|does|do|did|has|had|have)(?= )", r"(?:if|whether)(?= )")),
    Frame(
        "what",
        pattern(
            r"(?:what|which) (?:exactly )?(?:is|are|was|were|would be|will be)(?: exactly)?(?: considered)?",
            r"which one (?:is|was)",
            r"(?:what|which)",
            r"(?:tell|give|show|find|get|list|name|check|look up)(?: me| us)?(?: about)? (?=(?:the|all|some) )",
            r"(?:i need|i want|i would like|i am looking for) (?=the )",
            r"list",
            r"name(?= (?:the|all|some|an?|\d+|which|what) )",
        ),
    ),
    Frame(
        "explain",
        pattern(
            r"explain(?: to)?(?: me| us)?(?: about| what)?(?: the concept of| the idea of| the term)?|tell (?:me "
            r"|us )?about",
            r"(?:give|provide)(?: me| us)? (?:an? |the )?explanation (?:of|about|for)",
        ),
    ),
    Frame("describe", pattern(r"describe(?: to)?(?: me| us)?", r"(?:give|provide)(?: me| us)? (?:an? |the )?description of")),
    Frame(
        "summarize",
        pattern(
            r"(?:summarize|summarise|sum up|recap)",
            r"(?:give|provide|write|create|make)(?: me| us)? (?:a |the )?(?:summary|recap)(?: of)?",
            r"(?:a )?summary of",
            r"(?:i need|i want|i would like) a summary(?: of)?",
        ),
    ),
    Frame("translate", pattern(r"(?:translate|(?:what|which) is the translation of|translation of|the translation of)")),
    Frame(
        "compose",
        pattern(
            r"(?:write|compose|draft|create|generate|make|produce|craft|come up with)(?: up)?(?: me| us| for me)?",
            r"(?:give|tell)(?: me| us)?(?= (?:an?|\d+|some) )",
            r"(?:i need|i want|i would like|i would love|i am looking for|we need)(?: you to (?:write|create|make"
            r"|draft))?(?: me)?(?= (?:an?|\d+|some) )",
        ),
    ),
    Frame("convert", pattern(r"convert")),
    Frame("calculate", pattern(r"(?:calculate|compute|work out|evaluate|solve|what does)(?= [\d$(.-])", r"(?:calculate|compute)")),
)

_DO_IT = (
    r"(?:(?:do|does|can|could|should|would) (?:i|you|one|we)"
    r"(?: (?:do|achieve|accomplish|manage|go about|proceed with) (?:it|that|this|so))?"
    r"|to|to do (?:it|that|this|so))"
)
TAILS = (
    Frame("who", ending(r"by whom", r"by who")),
    Frame(
        "howto",
        ending(
            rf"[,:]? ?how(?: {_DO_IT})?(?: best)?",
            r", what (?:should|do|can|must) i (?:need to )?do",
            r", what (?:are the steps|is the way|is the procedure)",
            r", how (?:do|can|should|would) i proceed",
            r", how is (?:it|that|this) done",
            r"[,:] steps",
            r"[,:] what (?:are|is) the (?:steps|way)",
        ),
    ),
    Frame("why", ending(r"[,:] why")),
    Frame("when", ending(r"[,:] when")),
    Frame("where", ending(r"[,:] where")),
    Frame("how-long", ending(r"[,:] how long(?: does (?:it|that|this) take)?")),
    Frame("cost", ending(r"[,:] how much(?: does (?:it|that|this) cost| is (?:it|that))?")),
    Frame("difference", ending(r"[,:] (?:what is the |the )?difference", r"[,:] how do they differ")),
    Frame("can", ending(r"[,:] can i(?: do (?:that|this|it|so))?")),
    Frame("possible", ending(r"[,:] is (?:that|this|it) possible", r"[,:] possible")),
    Frame("okay", ending(r"[,:] is (?:that|this|it) (?:okay|fine|all right)")),
)
WISHES = pattern(
    r"(?:i|we) (?:really )?(?:want|need|wish|would like|would love|am trying|are trying|have|am looking|am hoping|plan|intend"
    r"|am attempting) to",
    r"(?:if )?(?:i|we) (?:want|need) to",
    r"trying to",
    r"want to",
    r"need to",
    r"to",
)
BACK_REFERENCES = pattern(
    r"(?:please )?how (?:do|can|could|should|would) (?:i|one|you|we) (?:best )?(?:do|go about|achieve|accomplish) (?:it|that"
    r"|this|so)(?: please)?\Z",
    r"how\Z",
    r"how to\Z",
    r"how to do (?:it|that|this)\Z",
    r"how do i\Z",
    r"how can i\Z",
    r"what (?:should|do|must) i (?:need to )?do\Z",
    r"what are the steps\Z",
    r"can i do (?:that|this|it|so)\Z",
    r"is (?:that|this|it) (?:possible|okay)\Z",
    r"why\Z",
)
