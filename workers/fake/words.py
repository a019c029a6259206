"""The words the fake model speaks: each is one token, and several are not ASCII on purpose."""

_NOUNS = (
    "answer bridge capital city cloud country day engine field forest garden gateway house idea island "
    "journey kernel lake letter light machine market model morning mountain music network node number ocean "
    "paper people planet point problem question reason result river road school season ship signal song "
    "space star station step stone story stream street summer table theory thought time token tower town "
    "train tree value village voice water wind winter word world year"
)
_REST = (
    "about above after again all along also and around as at away back because before behind below between "
    "big both bright broad but by calm can carries clear close cold comes could dark deep early each east "
    "every far few finds first follows for from full gives good grows has here high holds how if in into is "
    "it its keeps large last late leads less light long low made makes many may meets more most moves much "
    "must near new next north not now of off old on once one only or other our out over past quiet quite "
    "reaches rises runs same seems several shows since small so some soon south still such takes than that "
    "the their then there these they this those through to together toward turns two under until up very "
    "warm was waits we well west when where which while white wide will with without yet"
)
_FOREIGN = (" café", " naïve", " Zürich", " 東京", " Москва", " ½", " 🙂", " “quoted”")

LOWER = tuple(dict.fromkeys(" " + w for w in f"{_NOUNS} {_REST}".split())) + _FOREIGN
OPENERS = ("The", "This", "It", "We", "Some", "One", "Every", "When", "Here", "That")
WORDS = LOWER + OPENERS + tuple(" " + w for w in OPENERS)
