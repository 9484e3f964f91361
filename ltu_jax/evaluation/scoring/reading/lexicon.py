"""The words by which the reader of answers tells denials, clauses and compounds."""


def words_of(text: str) -> frozenset[str]:
    """Return the words of a text, so that a list of them stays readable."""
    return frozenset(text.split())


SUBJECTS = words_of(
    "i you he she it we they this that these those there here it's that's he's she's there's "
    "they're i'm i'd i'll it'd i've we're"
)
DETERMINERS = words_of("a an the its his her their my our this that these those some any")
AUXILIARIES = words_of(
    "is are was were be been being am do does did has have had can could will would shall "
    "should may might must"
)
ASKING = words_of("what which who whose where when why how")
YES_OR_NO = frozenset(["yes", "no", "nope"])
# A clause begins here.
TURNS = words_of("but however although though while whereas because yet maybe perhaps")
# "Anything but a dog" goes on.
BEFORE_BUT = frozenset(["anything", "all", "them"])
# ... and here, after a comma.
AFTER_COMMA = words_of("just only rather instead probably actually possibly likely simply merely")
# Spelled without their apostrophe.
CONTRACTED = words_of(
    "isnt arent wasnt werent dont doesnt didnt cant cannot couldnt wont wouldnt hasnt havent "
    "hadnt shouldnt aint"
)
# What follows is said not to be.
DENIALS = CONTRACTED | words_of(
    "not no never neither nor without non none nobody nothing nowhere hardly scarcely lack "
    "lacks lacking absence"
)
# What follows is not said to be: a condition, a doubt, a failure.
DOUBTS = words_of(
    "if whether unless unlikely doubtful doubt doubts doubted impossible unable unsure "
    "uncertain unclear fails failed exclude excludes excluding refute denies"
)
# Several words, as denials; "toggle" ones turn a denial round: "no sound except rain".
DENYING_PHRASES = (
    "far from",
    "instead of",
    "rather than",
    "as opposed to",
    "in contrast to",
    "contrary to",
    "mistaken for",
    "confused with",
    "rule out",
    "rules out",
    "ruled out",
    "ruling out",
    "wrong to",
    "incorrect to",
    "all but",
    "all of them but",
    "free of",
    "free from",
    "compared to",
    "compared with",
)
UNTIL_COMMA = frozenset(
    ["instead of", "rather than", "as opposed to", "in contrast to", "contrary to", "unlike"]
    + ["compared to", "compared with", "without"]
)
TOGGLES = ("anything but", "except for", "except", "other than", "apart from", "aside from")
# Denials in form only.
EMPHASIS = (
    "no doubt",
    "without a doubt",
    "without doubt",
    "without any doubt",
    "beyond doubt",
    "beyond any doubt",
    "no question",
    "without question",
    "not only",
    "not just",
    "not merely",
    "not to mention",
    "no surprise",
    "no wonder",
    "none other than",
    "nothing other than",
    "nothing else than",
    "nothing less than",
    "can't help but",
    "not surprisingly",
    "if not mistaken",
    "if i'm not mistaken",
    "if i am not mistaken",
    "not alone",
    "not far",
)
# "A dog is absent": said of what stands before.
_GONE = "absent missing wrong incorrect false impossible unlikely excluded inaudible ruled"
DENYING_PREDICATES = frozenset(_GONE.split())
# What does not stop is there.
ENDING = words_of("stop stops stopping cease ceases end ends pause pauses quit let")
# A clause of these alone that denies is about the one before: "but it is not", "I don't think so".
PRO_FORMS = (
    SUBJECTS
    | AUXILIARIES
    | words_of(
        "no nope not never so think believe say present one at all true correct right case the "
        "actually really certainly definitely probably of course to in fact but though however "
        "and"
    )
)
# Words between a subject and its verb: "a dog, however, in the background, is not".
BETWEEN = AUXILIARIES | words_of(
    "also certainly clearly definitely probably likely actually really simply alone however"
)
PREPOSITIONS = words_of("in on at near behind from of by outside inside")

# What may stand behind a noun without making another noun of it.
_FUNCTION = (
    SUBJECTS
    | DETERMINERS
    | AUXILIARIES
    | PREPOSITIONS
    | DENIALS
    | ASKING
    | TURNS
    | words_of(
        "and or with over to into onto as for through across around under above along among "
        "beside between down up off out about against during after before then than like too "
        "again once twice still now nearby outdoors indoors overhead away far close somewhere "
        "else only instead rather indeed itself alone together both either who whom whose per ago "
        "please via followed mixed loud sometimes often always today yes no sure heard towards "
        "toward within beyond upon until since if whether so etc"
    )
)
# Sounds as nouns, and what else names what is heard or played: "a dog bark", "rain sounds".
_HEADS = words_of(
    "sound noise audio clip recording effect sample voice call song music tune band piece "
    "track beat style genre ballad solo riff rhythm melody singer artist performance standard "
    "album concert ensemble trio quartet orchestra guitar piano saxophone trumpet vocal vibe "
    "feel number anthem groove bass group emotion tone mood chord note player"
)
_SOUNDING = words_of(
    "bark howl growl whine whimper yelp yap yip woof pant snarl meow mew purr hiss moo low "
    "bleat baa oink grunt squeal snort cluck crow cackle peep chirp tweet sing caw squawk "
    "screech hoot coo quack honk croak ribbit buzz hum drone chatter roar rumble crackle pop "
    "snap hiss sizzle drip drop splash gush trickle babble lap crash roll rage blow whistle "
    "rustle rattle clatter bang boom clap thunder ring toll chime ding peal strike tick tock "
    "beep blare wail sound sneeze cough laugh giggle cry sob scream shout yell whisper talk "
    "speak say murmur mumble snore breathe sniff sip gulp chew brush knock tap click clack "
    "type creak squeak slam shatter break smash open close start stop run rev idle whir spin "
    "chug pass go come fly hover take land approach move drive play perform strum pluck beat "
    "explode burst fire shoot flush pour fall patter hit fade continue begin rise cut saw "
    "scrape echo resound reverberate dominate cheer applaud walk step stomp hammer drill "
    "grind vibrate get make keep appear seem become bounce bubble boil burn flow surge wash "
    "work crunch wheeze hiccup burp blast fizz gurgle swoosh whoosh thud thump clang clank "
    "jingle jangle tinkle trill warble chitter flap flutter gallop trot neigh whinny bray"
)
HEADS_AND_VERBS = _HEADS | _SOUNDING
# Of these the bare word is a tool: "a dog whistle", where "the dog whistles" is a dog.
TOOLS = words_of("whistle chime drill hammer saw brush drum strum pop tick")
WEATHER = frozenset(["rain", "thunder", "storm", "snow", "hail"])
VERBS = _SOUNDING | WEATHER
# Adjectives go before any noun, "a sad man", which makes no compound of them.
ADJECTIVES = words_of(
    "angry happy sad mad fast slow quick high low loud quiet soft calm tense good bad big "
    "small old young new long short deep bright dark warm cold male female one two three four "
    "five six seven eight nine ten eleven twelve several many few"
)
ADJECTIVE_ENDINGS = ("al", "ive", "ful", "ous", "ic", "less", "ant", "ent", "able", "ed", "ing")
# Two words that are a third thing.
OTHER_THINGS = (
    "hot dog",
    "hot dogs",
    "corn dog",
    "corn dogs",
    "prairie dog",
    "prairie dogs",
    "guinea pig",
    "guinea pigs",
    "sea lion",
    "sea lions",
    "wind chime",
    "wind chimes",
    "bird watching",
    "train spotting",
    "wind surfing",
    "train of thought",
    "man made",
    "man cave",
    "copy cat",
    "happy to help",
    "happy to assist",
    "happy to answer",
    "sad to say",
    "sadly ,",
)
# Not a crow: what these do.
SUBJECTS_OF = {"crow": frozenset(["rooster", "roosters", "cock", "cockerel", "cocks"])}
# Words of one meaning that no inflection joins.
FAMILIES = {"laughter": "laugh", "anger": "angry", "windy": "wind", "rainy": "rain"}


def denies(text: str) -> bool:
    """Tell whether a word denies what follows it."""
    return text in DENIALS or text.endswith("n't")


def function_word(text: str) -> bool:
    """Tell whether a word behind a noun begins something else than a second noun."""
    return text in _FUNCTION or denies(text)
