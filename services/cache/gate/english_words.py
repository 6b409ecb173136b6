"""English vocabulary: spelling, inflection and the words that may stand for one another.

A synonym is listed only when no common context comes to mind in which the answer would differ. So `repair` stands for `fix`, but `resolve`
does not (one resolves a host name), nor `update` for `change`, nor `build` for `create`. A missing synonym costs a hit, a wrong one is an
error.
"""

from services.cache.gate.tables import groups, pairs, phrases, words

CONTRACTIONS = pairs(
    "cannot=can_not gonna=going_to wanna=want_to gotta=have_to gimme=give_me lemme=let_me dont=do_not cant=can_not wont=will_not",
    "doesnt=does_not isnt=is_not arent=are_not didnt=did_not wasnt=was_not werent=were_not couldnt=could_not shouldnt=should_not",
    "wouldnt=would_not havent=have_not hasnt=has_not whats=what_is hows=how_is whos=who_is wheres=where_is im=i_am ive=i_have",
    "can't=can_not won't=will_not shan't=shall_not ain't=is_not let's=let_us y'all=you thats=that_is",
    "u=you ur=your pls=please plz=please plss=please thx=thanks ty=thanks tnx=thanks ppl=people msg=message abt=about bc=because",
)
# What a clitic after an apostrophe means; 's is `is` only after these words, else a possessive.
CLITICS = pairs("n't=not re=are m=am ll=will ve=have d=would")
IS_CLITIC_HOSTS = words("what how who where when why it that there here he she this which everything something nothing")

# Other spellings and short forms. Those with a second meaning are left out (`min`, `ml`, `doc`, `temp`, `auth`).
SPELLINGS = pairs(
    "app=application apps=application config=configuration configs=configuration db=database dbs=database k8s=kubernetes js=javascript",
    "ts=typescript repo=repository repos=repository env=environment envs=environment var=variable vars=variable func=function",
    "funcs=function dict=dictionary dicts=dictionary dir=directory dirs=directory docs=documentation admin=administrator lib=library",
    "libs=library param=parameter params=parameter arg=argument args=argument regex=regular_expression regexp=regular_expression",
    "regexes=regular_expression int=integer ints=integer bool=boolean max=maximum avg=average approx=approximately info=information",
    "tv=television tvs=television phone=telephone phones=telephone fridge=refrigerator lab=laboratory labs=laboratory exam=examination",
    "exams=examination math=mathematics maths=mathematics photo=photograph photos=photograph pic=picture pics=picture bike=bicycle",
    "bikes=bicycle plane=airplane planes=airplane aeroplane=airplane flu=influenza ad=advertisement ads=advertisement advert=advertisement",
    "uni=university govt=government intro=introduction ai=artificial_intelligence ui=user_interface os=operating_system",
    "vm=virtual_machine vms=virtual_machine ceo=chief_executive_officer eu=european_union uk=united_kingdom usa=united_states"
    " US=united_states",
    "USA=united_states U.S=united_states nyc=new_york_city 2fa=2_factor_authentication pw=password pwd=password passcode=passcode",
    "postgres=postgresql pg=postgresql golang=golang Go=golang vscode=visual_studio_code nodejs=nodejs ww2=world_war_2 wwii=world_war_2",
    "ww1=world_war_1 wwi=world_war_1 dob=date_of_birth faq=frequently_asked_questions faqs=frequently_asked_questions",
    "gdp=gross_domestic_product vat=value_added_tax etf=exchange_traded_fund etfs=exchange_traded_fund ipo=initial_public_offering",
    "roi=return_on_investment kpi=key_performance_indicator kpis=key_performance_indicator bmi=body_mass_index uti=urinary_tract_infection",
    "mri=magnetic_resonance_imaging adhd=attention_deficit_hyperactivity_disorder ptsd=post_traumatic_stress_disorder",
    "cpu=central_processing_unit gpu=graphics_processing_unit ssd=solid_state_drive cli=command_line_interface",
    "gui=graphical_user_interface seo=search_engine_optimization nlp=natural_language_processing llm=large_language_model",
    "llms=large_language_model ML=machine_learning HR=human_resources UN=united_nations WHO=world_health_organization",
    "NHS=national_health_service",
    "GitHub=github GitLab=gitlab JavaScript=javascript TypeScript=typescript PostgreSQL=postgresql MySQL=mysql SQLite=sqlite"
    " YouTube=youtube",
    "WhatsApp=whatsapp LinkedIn=linkedin PayPal=paypal MacBook=macbook macOS=macos iOS=ios iPhone=iphone iPhones=iphone iPad=ipad",
    "ChatGPT=chatgpt OpenAI=openai MongoDB=mongodb NumPy=numpy PyTorch=pytorch TensorFlow=tensorflow WiFi=wifi GraphQL=graphql",
    "PowerPoint=powerpoint OneDrive=onedrive AirPods=airpods FastAPI=fastapi McDonald=mcdonald TikTok=tiktok DevOps=devops LaTeX=latex",
    "NoSQL=nosql SaaS=saas VPNs=vpn PDFs=pdf URLs=url APIs=api IDs=id",
    "ok=okay alright=okay grey=gray tyre=tire tyres=tire programme=program aluminium=aluminum jewellery=jewelry pyjamas=pajamas mum=mother"
    " mums=mother mom=mother",
    "moms=mother dad=father dads=father grandma=grandmother grandpa=grandfather kid=child kids=child till=until whilst=while amongst=among",
    "towards=toward upon=on versus=vs v=vs learnt=learned burnt=burned dreamt=dreamed spelt=spelled per_cent=percent centre=center",
    "centres=center theatre=theater theatres=theater metre=meter metres=meter litre=liter litres=liter kilometre=kilometer",
    "kilometres=kilometer centimetre=centimeter centimetres=centimeter millimetre=millimeter millimetres=millimeter fibre=fiber",
    "catalogue=catalog dialogue=dialog analogue=analog licence=license defence=defense offence=offense judgement=judgment ageing=aging",
    "fulfil=fulfill enrol=enroll skilful=skillful mould=mold plough=plow moustache=mustache tumour=tumor yoghurt=yogurt doughnut=donut",
    "recieve=receive seperate=separate definately=definitely calender=calendar adress=address occured=occurred untill=until wich=which",
    "twice=2_times thrice=3_times d'you=do_you lasagne=lasagna chilli=chili cosy=cozy kerb=curb sceptical=skeptical omelette=omelet",
    "manoeuvre=maneuver anaemia=anemia diarrhoea=diarrhea oestrogen=estrogen paediatric=pediatric leukaemia=leukemia foetus=fetus",
    "teh=the becuase=because enviroment=environment goverment=government passwrd=password pasword=password accomodation=accommodation",
)
OUR_WORDS = words("colour favour behaviour honour labour neighbour harbour rumour flavour humour favourite vapour odour armour parlour")
# -ise that is no variant of -ize.
NOT_IZE = words("promise compromise arise anise premise demise")

UNITS = pairs(
    "km=kilometer kms=kilometer m=meter cm=centimeter mm=millimeter mi=mile ft=foot feet=foot in=inch inches=inch yd=yard"
    " yds=yard kg=kilogram",
    "kgs=kilogram kilo=kilogram kilos=kilogram g=gram mg=milligram lb=pound lbs=pound oz=ounce l=liter L=liter ml=milliliter mL=milliliter",
    "h=hour hr=hour hrs=hour min=minute mins=minute sec=second secs=second s=second ms=millisecond kb=KB KB=KB mb=MB MB=MB"
    " gb=GB GB=GB tb=TB",
    "TB=TB Mb=Mb Gb=Gb kmh=kilometer/hour kph=kilometer/hour mph=mile/hour k=k K=K M=M C=celsius F=fahrenheit °C=celsius °F=fahrenheit",
    "W=watt kW=kilowatt kWh=kilowatt-hour MW=megawatt mW=milliwatt",
)
# Units whose short form means nothing else, so that it is read without a number before it.
PLAIN_UNITS = pairs(
    "km=kilometer kms=kilometer cm=centimeter mm=millimeter kg=kilogram kgs=kilogram kilos=kilogram lb=pound lbs=pound oz=ounce ft=foot",
    "feet=foot mph=mile/hour kph=kilometer/hour kmh=kilometer/hour km/h=kilometer/hour hrs=hour mins=minute secs=second yds=yard",
)

# Verbs that are inflected by rule. Words outside the table keep their -ing and -ed.
VERBS = words(
    "abandon accept access achieve act activate add adjust admire adopt advise affect agree allow alter analyze announce answer appear",
    "append apply approve argue arrange arrive ask assemble assess assign assume attach attack attend authenticate authorize"
    " automate avoid",
    "bake balance ban bathe beat become begin believe belong bend benefit bet bind bite blame block blow boil book boot"
    " borrow bother bounce",
    "break breathe brew bring brush build burn buy cache calculate call calm can cancel capture care carry cast catch cause"
    " celebrate change",
    "charge chase check choose chop claim clean clear click climb clone close collapse collect combine come comment commit"
    " communicate commute",
    "compare compete compile complain complete compose compress compute concatenate concentrate configure confirm connect consider consist",
    "construct consume contact contain continue contribute control convert cook cool copy correct cost count cover crash create crop cross",
    "cry cure customize cut damage dance date deal debug decide declare decline decode decompress decorate decrease decrypt deduct defend",
    "define delay delegate delete deliver deny depend deploy describe deserve design destroy detect determine develop"
    " diagnose die differ dig",
    "digest direct disable disagree disappear discard disconnect discover discuss display dispose dispute dissolve distinguish divide do",
    "donate download downgrade draft draw dream dress drink drive drop dry dump duplicate earn eat edit educate eliminate"
    " email embed employ",
    "empty enable encode encourage encrypt end enforce enjoy enroll ensure enter erase escape establish estimate evaluate evolve examine",
    "exchange exclude execute exercise exist exit expand expect expire explain explode explore export express extend extract"
    " face fail fall",
    "fast fear feed feel fetch fight figure file fill filter find finish fire fit fix flash flatten float flow fly focus fold"
    " follow forbid",
    "force forget forgive fork form format forward found free freeze fry function gain gather generate get give glue go govern grade grant",
    "grill group grow guarantee guess guide handle hang happen hate have heal hear heat help hide highlight hire hit hold"
    " host hurt identify",
    "ignore illustrate imagine implement import improve include increase indent index infect inform inherit initialize inject insert",
    "inspect inspire install integrate interpret intersect introduce invent invert invest invite involve iron join jump keep"
    " kick kill kiss",
    "knit know label land last laugh launch lay lead leak lean learn leave lend let level lie lift light like limit link list"
    " listen live load",
    "locate lock log login look loop lose love lower mail maintain make manage map mark marry match matter mean measure meet melt mention",
    "merge migrate minimize miss mix modify monitor mount move multiply name need negotiate normalize note notice obtain occur offer open",
    "operate optimize order organize override overwrite owe own pack paint parse pass paste patch pause pay peel perform"
    " permit persist pick",
    "pin plan plant play plot point polish pop post postpone pour practice predict prefer prepare present preserve press"
    " prevent print proceed",
    "process produce program promise promote pronounce propagate protect prove provide publish pull pump purchase push put"
    " qualify query quit",
    "quote race raise reach react read realize rebase receive recognize recommend recover recycle redirect redo reduce refactor refer",
    "refinance reflect refresh refund refuse register reheat reject relate release rely remain remember remind remove rename"
    " render renew rent",
    "reopen repair repeat replace reply report represent reproduce request require resend reserve reset resign resize resolve respond rest",
    "restart restore restrict retire retrieve return reuse reveal reverse revert review revise revoke ride ring rinse rise"
    " roast roll rotate",
    "round route ruin rule run save say scale scan schedule score scrape scroll search secure see seek select sell send separate serialize",
    "serve set settle share sharpen shift ship shoot shop shout show shrink shut sign simplify sing sit skip sleep slice slow smell smile",
    "smoke soak solve sort sound spawn speak specify spell spend spin split spread squash stack stand start state stay steal stick stop",
    "store stream stretch string strip study style submit subscribe subtract succeed suffer suggest sum summarize supply"
    " support surf survive",
    "suspend swap sweat swim switch sync synchronize tag take talk target taste teach tear tell tend terminate test thank thaw think throw",
    "tie toggle touch trace track trade train transfer transform translate transport travel treat trigger trim troubleshoot truncate trust",
    "try tune turn type undo understand unfreeze uninstall unite unlock unsubscribe update upgrade upload use utilize vaccinate validate",
    "value vary verify view visit vote wait wake walk want warm warn wash waste watch water wear weigh welcome whisper win"
    " wipe wish withdraw",
    "work worry wrap write zip zoom register drain paint marinate simmer steam reheat season bleed sneeze cough itch swell ache mow prune",
    "water sue appeal evict inherit testify commute board depart park rent lease insure apologize compliment propose divorce date adopt",
    "conquer contest colonize occupy rescue reward punish bury elect appoint nominate award adapt star narrate refuel"
    " recharge rephrase rewrite",
    "marinade saute grate peel mash whisk knead freeze thaw defrost season garnish sharpen polish sew knit crochet glue sand varnish stain",
    "arrest accuse charge convict sentence prosecute defend testify sue settle license patent trademark copyright donate volunteer vote",
    "breastfeed medicate diagnose operate inject inhale swallow vomit faint dose prescribe refill exhale relax meditate"
    " stretch jog lift squat",
    "bill owe budget audit depreciate amortize hedge tip round simulate sample cluster classify tokenize fine-tune benchmark"
    " profile throttle",
)
# Forms without a rule.
IRREGULAR = pairs(
    "wrote=write written=write went=go gone=go made=make took=take taken=take gave=give given=give got=get gotten=get found=find sent=send",
    "bought=buy brought=bring thought=think taught=teach caught=catch sold=sell told=tell built=build lent=lend spent=spend"
    " lost=lose kept=keep",
    "slept=sleep felt=feel left=leave met=meet paid=pay said=say began=begin begun=begin broke=break broken=break"
    " chose=choose chosen=choose",
    "drank=drink drunk=drink drove=drive driven=drive ate=eat eaten=eat fell=fall fallen=fall flew=fly flown=fly forgot=forget",
    "forgotten=forget froze=freeze frozen=freeze grew=grow grown=grow hid=hide hidden=hide knew=know known=know rode=ride ridden=ride",
    "rang=ring rung=ring rose=rise risen=rise ran=run saw=see seen=see sank=sink sunk=sink shrank=shrink sprang=spring"
    " laid=lay withdrew=withdraw forgave=forgive rebuilt=rebuild shook=shake shaken=shake sang=sing sung=sing spoke=speak",
    "spoken=speak stole=steal stolen=steal swam=swim swum=swim threw=throw thrown=throw woke=wake woken=wake wore=wear worn=wear won=win",
    "became=become came=come drew=draw drawn=draw held=hold heard=hear led=lead stood=stand understood=understand meant=mean dealt=deal",
    "fought=fight sought=seek hung=hang shot=shoot sat=sit dug=dig fed=feed bitten=bite bit=bit blew=blow blown=blow tore=tear torn=tear",
    "did=do done=do had=have has=have having=have doing=do being=be men=man women=woman people=person children=child"
    " mice=mouse teeth=tooth",
    "geese=goose wives=wife lives=live leaves=leave knives=knife halves=half shelves=shelf wolves=wolf thieves=thief matrices=matrix",
    "indices=index vertices=vertex criteria=criterion phenomena=phenomenon analyses=analysis crises=crisis potatoes=potato tomatoes=tomato",
    "heroes=hero dying=die lying=lie tying=tie dies=die lies=lie ties=tie cookies=cookie movies=movie calories=calorie selfies=selfie",
    "zombies=zombie taxes=tax axes=axis lenses=lens buses=bus statuses=status viruses=virus bonuses=bonus gases=gas aliases=alias",
    "processes=process addresses=address classes=class losses=loss caches=cache headaches=headache bent=bend shipping=shipping",
    "fled=flee stuck=stick struck=strike swept=sweep overcame=overcome arose=arise rewrote=rewrite rewritten=rewrite"
    " wifi=wifi quizzes=quiz data=data media=media writing=write using=use used=use uses=use",
)
SIMPLE_PAST = words(
    "wrote went made took gave got sent bought brought thought taught caught sold told built lent spent lost kept slept felt met paid said",
    "began broke chose drank drove ate fell flew forgot froze grew hid knew rode rang rose ran saw sank shrank shook sang spoke stole swam",
    "threw woke wore won became came drew held heard led stood understood dealt fought sought hung shot sat dug fed blew tore did",
    "overcame arose rewrote struck fled withdrew invaded founded",
)
# Verbs whose past is written like their present: of one who does it now they end in -s.
UNMARKED_PAST = words(
    "read put cut set let hit hurt cost shut split spread quit cast bet beat bid burst broadcast forecast upset shed knit wed rid"
)
# Nouns for a thing and for a stuff or an idea, told apart by the article; and `few` and `little`, which it turns round. A plural is things.
COUNTED = words(
    "few little chicken lamb turkey duck fish salmon glass paper iron tin wood room space light fire business stone will right cold",
    "experience work language country hair life love truth noise rock metal bone beer coffee cheese wine rubber cloth youth",
)
# In -s, and no plural of what is left without it.
NOT_PLURAL = words(
    "news goods customs arms means glasses damages contents manners scales pants jeans thanks always as is was his this its"
    " us plus yes bus",
    "gas lens status focus bonus campus census corpus minus thus class series species physics economics politics mathematics analytics",
    "windows aws ios canvas atlas alias bias christmas texas kubernetes jenkins pandas keras redis rails headquarters sas css"
    " dns https tls",
    "pos gps sms nas das los las chaos ethics athletics basics graphics statistics logistics forms spices premises teams"
    " stakes odds regards securities futures blues shorts brains spirits tights briefs grounds humanities provisions authorities",
    "adams williams roberts peters edwards stevens richards daniels phillips rogers matthews andrews michaels evans owens stephens",
    "walters sanders thomas lucas nicholas douglas carlos marcos jesus hughes jenkins collins simmons",
    "os postgres kansas paris james charles jones williams times sales sports savings earnings minutes reading works heads lyrics logos",
) | frozenset(f"{noun}s" for noun in COUNTED)

SYNONYMS = groups(
    "remove delete erase",
    "start begin commence",
    "buy purchase",
    "fix repair mend",
    "create make generate",
    "reduce decrease lessen",
    "show display",
    "get obtain",
    "help assist",
    "recommend suggest",
    "use utilize",
    "select choose",
    "modify alter",
    "stop halt cease",
    "need require",
    "allow permit",
    "find locate",
    "calculate compute",
    "talk speak",
    "close shut",
    "exit quit",
    "enable activate",
    "disable deactivate",
    "happen occur",
    "signup register",
    "film movie",
    "car automobile",
    "doctor physician",
    "lawyer attorney",
    "teenager teen adolescent",
    "folder directory",
    "company firm",
    "country nation",
    "advantage benefit",
    "disadvantage drawback downside",
    "symptom sign",
    "medicine medication",
    "stomach tummy",
    "cheap inexpensive",
    "expensive costly pricey",
    "big large",
    "bigger larger",
    "biggest largest",
    "fast quick quickly rapid rapidly speedy",
    "faster quicker",
    "fastest quickest",
    "hard difficult",
    "harder tougher",
    "easy simple",
    "easier simpler",
    "easiest simplest",
    "easily simply",
    "wrong incorrect",
    "sofa couch",
    "taxi cab",
    "author writer",
    "gasoline petrol",
    "truck lorry",
    "eggplant aubergine",
    "zucchini courgette",
    "answer reply respond",
    "maximum max",
    "approximately roughly",
    "short brief",
    "picture image",
    "substitute replacement",
    "dangerous hazardous",
    "tasty delicious",
    "annual yearly",
    "trip journey",
    "suggestion recommendation",
    "necessary required",
    "permitted allowed",
    "immediately instantly",
    "frequently often",
    "usually typically generally",
    "nearest closest",
    "entire whole",
    "almost nearly",
    "enough sufficient",
    "maybe perhaps",
    "diaper nappy",
)

# Several words that mean one; on base forms. Particles may stand after the object.
PHRASES = phrases(
    "login: log in, log on, sign in, log into, sign into, sign on, logon",
    "logout: log out, log off, sign out, log off of",
    "signup: sign up, sign up for, register for",
    "enable: turn on, switch on",
    "disable: turn off, switch off",
    "return: send back, give back",
    "setup: set up",
    "backup: back up",
    "rollback: roll back",
    "cleanup: clean up",
    "shutdown: shut down, power off",
    "fill: fill in, fill out",
    "remove: get rid of",
    "calculate: work out",
    "contact: get in touch with, get hold of",
    "happen: take place",
    "email: e mail, electronic mail",
    "wifi: wi fi, wireless internet",
    "website: web site",
    "cellphone: cell telephone, mobile telephone, mobile device",
    "cinema: movie theater",
    "sideeffect: side effect, adverse effect",
    "kubernetes: kube",
    "nodejs: node js",
    "united states: united states of america, the states",
    "advantage and disadvantage: pro and con",
    "daily: per day, every day, each day, on a daily basis",
    "weekly: per week, every week, each week, on a weekly basis",
    "monthly: per month, every month, each month, on a monthly basis",
    "annual: per year, every year, each year, annually",
    "hourly: per hour, every hour",
    "due-to: because of, owing to, due to",
    "instead-of: instead of, in place of, rather than",
    "in-front-of: in front of",
    "out-of: out of",
    "according-to: according to",
    "about: with regard to, in regard to, regarding, concerning, on the topic of, on the subject of, in relation to",
    "using: by means of, by using, with the help of, with help from, via, through the use of",
    "for-example: for instance, for example, eg",
    "and: as well as, along with",
    "less-than: less than, fewer than",
    "more-than: more than, greater than",
    "at-least: at least",
    "at-most: at most, no more than",
    "too: as well",
    "whenever: every time, each time",
    "before: prior to",
    "despite: in spite of",
    "if: in the event that, in case that",
    "to: in order to, so as to",
    "a-lot: a lot of, lots of, plenty of",
)
PARTICLES = words("on off up down out back in away over")
PARTICLE_VERBS = words("turn switch set log sign back roll clean shut fill send give get bring put take throw work look pick power")

# Programs and languages that one works in, with, on or by: the preposition carries nothing.
TECHNOLOGIES = words(
    "python java javascript typescript ruby php perl swift kotlin scala golang rust C++ C# c r bash shell powershell sql mysql postgresql",
    "sqlite mongodb redis git github gitlab docker kubernetes terraform ansible excel powerpoint photoshop figma jira slack trello notion",
    "react angular vue svelte nodejs django flask fastapi pandas numpy pytorch tensorflow matplotlib sklearn linux unix"
    " ubuntu debian windows",
    "macos android ios html css latex vim emacs vscode chrome firefox safari outlook gmail wordpress shopify aws azure gcp"
    " haskell lua matlab",
    "julia spark kafka nginx apache jenkins airflow dart flutter spring laravel rails express graphql jupyter access zoom",
)

# Words whose capital letter, or capitals, make another word.
CAPITONYMS = words(
    "polish turkey china may march august apple amazon word excel access teams slack zoom meta oracle shell target gap visa swift rust go",
    "dart ruby julia crystal elixir spring flask node react express next bolt chrome safari edge opera signal telegram"
    " discord notion square",
    "stripe uber subway mercury mars mark bill will rose frank jack bob pat sue grace hope faith joy art rich nice reading"
    " cork bath mobile",
    "jordan chad georgia guinea us it who aids cat sat act ram rom sim pin lan wan rest soap dom ace ids led at or in is be"
    " no so do to by am",
    "pm ad add aid all arms ask ate bat bet bit boss bug cam can car care case cap cd crow date dot ear era fat fit fun gas gem"
    " ice ira lame let",
    "mad man map mid mit nice now nut off oil old one our out own pad pal pan par pat pet pie pit pot pro ran red sad san sea"
    " set she sin sir",
    "six sky son spa star step stop sun tag tan tap tea ten the tie tin tip top tot two use van war was wave win yes zip main dev dad ram",
    "prince queen king sting train bush brown black white green gray young banks cook baker butler hunter miller taylor smith"
    " page stone wood",
    "lima boxer hamburger frankfurter dodge ford mini beetle jaguar puma tide dove dash echo alexa java pascal delphi eclipse atom sketch",
    "pages numbers keynote messages mail notes photos music books maps home health watch wallet shortcuts files drive docs sheets slides",
    "forms meet chat classroom calendar play store pixel nest windows surface office outlook teams forge unity blender maya godot steam",
    "string integer object boolean double float character list array number symbol promise error exception true false none null byte long",
    "short class function type any interface record thread process void",
    "origin epic switch wii joker batman cars frozen up her it us them heat ghost titanic jaws alien rocky",
)
