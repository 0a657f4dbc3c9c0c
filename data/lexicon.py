"""The words of the grammar corpus, English and German, with what the grammar must know about each.

Tables of text, one entry a line, read into small records at import. Nothing here knows of sentences. A tag says what a
noun is; verbs and adjectives name the tags that they go with, so that people eat soup and not tables.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    """`oblique` is what a weak noun adds in the accusative and dative singular; a mass noun has no plural."""

    en: str
    en_plural: str
    gender: str  # m, f or n
    de: str
    de_plural: str
    oblique: str
    tags: frozenset[str]
    kind: str  # the first tag: nouns of one kind are compared with each other


@dataclass(frozen=True)
class Adjective:
    """`de_stem` takes the endings (teuer, teur-); comparatives and superlatives are stems too, empty for colours."""

    en: str
    en_comp: str
    en_sup: str
    de: str
    de_stem: str
    de_comp: str
    de_sup: str
    slot: str  # "size", "colour" or "-": a size may stand before a colour
    tags: frozenset[str]


@dataclass(frozen=True)
class Verb:
    """A pair of verbs. `frame` says what it governs, `flags`: p progressive in English, f perfect is natural."""

    en: str
    en_past: str
    en_part: str
    en_particle: str  # "for" of "look for"
    en_split: bool  # "pick her up": the particle follows a pronoun
    prefix: str  # "an" of "anrufen"
    de: str  # infinitive without the separable prefix
    de_third: str
    de_past: str
    de_part: str
    aux: str  # haben or sein
    frame: str
    subj: frozenset[str]
    obj: frozenset[str]
    flags: str


@dataclass(frozen=True)
class Modal:
    """English is a plain auxiliary (can), `be` + participle (is allowed to) or a verb with `to` (wants to)."""

    en: str
    en_past: str
    kind: str  # "aux", "be" or "verb"
    de: str
    de_first: str
    de_second: str
    de_past: str


@dataclass(frozen=True)
class Adverbial:
    """A fixed phrase; `tenses` names the tenses that it goes with, "habit" being the simple present of English."""

    en: str
    de: str
    tenses: frozenset[str] = frozenset()


# English, plural | German, plural ("-" for none) | tags; "Junge+n": a weak noun
_NOUNS = """
man men | m Mann Männer | person
woman women | f Frau Frauen | person
child children | n Kind Kinder | person kin
boy boys | m Junge+n Jungen | person
girl girls | n Mädchen Mädchen | person
teacher teachers | m Lehrer Lehrer | person kin job
doctor doctors | m Arzt Ärzte | person kin job
farmer farmers | m Bauer+n Bauern | person job
cook cooks | m Koch Köche | person job
baker bakers | m Bäcker Bäcker | person job
painter painters | m Maler Maler | person job
student students | m Student+en Studenten | person job
neighbour neighbours | m Nachbar+n Nachbarn | person kin
friend friends | m Freund Freunde | person kin
guest guests | m Gast Gäste | person kin
tourist tourists | m Tourist+en Touristen | person
mother mothers | f Mutter Mütter | person kin one
father fathers | m Vater Väter | person kin one
grandmother grandmothers | f Großmutter Großmütter | person kin
grandfather grandfathers | m Großvater Großväter | person kin
brother brothers | m Bruder Brüder | person kin
sister sisters | f Schwester Schwestern | person kin
son sons | m Sohn Söhne | person kin
daughter daughters | f Tochter Töchter | person kin
uncle uncles | m Onkel Onkel | person kin
aunt aunts | f Tante Tanten | person kin
dog dogs | m Hund Hunde | animal pet dog
cat cats | f Katze Katzen | animal pet
horse horses | n Pferd Pferde | animal
cow cows | f Kuh Kühe | animal
bird birds | m Vogel Vögel | animal
duck ducks | f Ente Enten | animal
mouse mice | f Maus Mäuse | animal
rabbit rabbits | n Kaninchen Kaninchen | animal pet
goat goats | f Ziege Ziegen | animal
bear bears | m Bär+en Bären | animal
monkey monkeys | m Affe+n Affen | animal
elephant elephants | m Elefant+en Elefanten | animal
apple apples | m Apfel Äpfel | food small fruit
pear pears | f Birne Birnen | food small fruit
cherry cherries | f Kirsche Kirschen | food fruit
cake cakes | m Kuchen Kuchen | food baked
egg eggs | n Ei Eier | food cooked
potato potatoes | f Kartoffel Kartoffeln | food cooked
tomato tomatoes | f Tomate Tomaten | food fruit
carrot carrots | f Karotte Karotten | food cooked
sausage sausages | f Wurst Würste | food
bread - | n Brot - | food baked
cheese - | m Käse - | food
soup - | f Suppe - | food cooked
meat - | n Fleisch - | food
rice - | m Reis - | food cooked
chocolate - | f Schokolade - | food
water - | n Wasser - | drink
milk - | f Milch - | drink
coffee - | m Kaffee - | drink hot
tea - | m Tee - | drink hot
juice - | m Saft - | drink
wine - | m Wein - | drink
book books | n Buch Bücher | text thing small gift
letter letters | m Brief Briefe | text thing small gift written
newspaper newspapers | f Zeitung Zeitungen | text thing small
story stories | f Geschichte Geschichten | text written told
poem poems | n Gedicht Gedichte | text written
shirt shirts | n Hemd Hemden | wear thing small gift
coat coats | m Mantel Mäntel | wear thing
hat hats | m Hut Hüte | wear thing small gift
dress dresses | n Kleid Kleider | wear thing gift
jacket jackets | f Jacke Jacken | wear thing gift
skirt skirts | m Rock Röcke | wear thing
bottle bottles | f Flasche Flaschen | vessel thing
glass glasses | n Glas Gläser | vessel thing
cup cups | f Tasse Tassen | vessel thing gift
plate plates | m Teller Teller | vessel thing
vase vases | f Vase Vasen | vessel thing gift
key keys | m Schlüssel Schlüssel | tool thing small gift
knife knives | n Messer Messer | tool thing small
spoon spoons | m Löffel Löffel | tool thing small
fork forks | f Gabel Gabeln | tool thing small
ball balls | m Ball Bälle | toy thing small gift
doll dolls | f Puppe Puppen | toy thing small gift
picture pictures | n Bild Bilder | art thing small gift
car cars | n Auto Autos | vehicle thing machine
bicycle bicycles | n Fahrrad Fahrräder | vehicle thing machine gift
bus buses | m Bus Busse | vehicle arrive
train trains | m Zug Züge | vehicle arrive
radio radios | n Radio Radios | machine thing switch
computer computers | m Computer Computer | machine thing switch
lamp lamps | f Lampe Lampen | machine thing switch
table tables | m Tisch Tische | furniture thing on under
chair chairs | m Stuhl Stühle | furniture thing on
bed beds | n Bett Betten | furniture thing on under
sofa sofas | n Sofa Sofas | furniture thing on
cupboard cupboards | m Schrank Schränke | furniture thing on
window windows | n Fenster Fenster | opening at
door doors | f Tür Türen | opening at
tree trees | m Baum Bäume | plant under
flower flowers | f Blume Blumen | plant gift
house houses | n Haus Häuser | building in home
hotel hotels | n Hotel Hotels | building in
school schools | f Schule Schulen | building in
church churches | f Kirche Kirchen | building in
museum museums | n Museum Museen | building in
restaurant restaurants | n Restaurant Restaurants | building in
hospital hospitals | n Krankenhaus Krankenhäuser | building in
castle castles | n Schloss Schlösser | building in home
library libraries | f Bibliothek Bibliotheken | building in
kitchen kitchens | f Küche Küchen | room in
room rooms | n Zimmer Zimmer | room in
garden gardens | m Garten Gärten | land in
park parks | m Park Parks | land in
forest forests | m Wald Wälder | land in
city cities | f Stadt Städte | land in home
village villages | n Dorf Dörfer | land in home
meadow meadows | f Wiese Wiesen | land on-land
street streets | f Straße Straßen | land on-land
lake lakes | m See Seen | land at
station stations | m Bahnhof Bahnhöfe | building at
"""

# English, comparative, superlative ("+": -er, -est; "-": none) | German, stem, comparative, superlative | slot | tags
_ADJECTIVES = """
big bigger biggest | groß groß größer größt | size | person animal thing building room land plant vehicle
small + | klein klein kleiner kleinst | size | person animal thing building room land plant vehicle
old older oldest | alt alt älter ältest | size | person animal thing building vehicle plant
young + | jung jung jünger jüngst | - | person animal
new newer newest | neu neu neuer neuest | - | thing text vehicle building
good better best | gut gut besser best | - | food drink text job restaurant hotel
beautiful more most | schön schön schöner schönst | - | land building plant wear art text
cheap + | billig billig billiger billigst | - | thing food
expensive more most | teuer teur teurer teuerst | - | thing wear
heavy heavier heaviest | schwer schwer schwerer schwerst | - | furniture machine
fast + | schnell schnell schneller schnellst | - | vehicle
strong + | stark stark stärker stärkst | - | person animal
friendly friendlier friendliest | freundlich freundlich freundlicher freundlichst | - | person pet
famous more most | berühmt berühmt berühmter berühmtest | - | job building
rich + | reich reich reicher reichst | - | person
poor + | arm arm ärmer ärmst | - | person
happy happier happiest | glücklich glücklich glücklicher glücklichst | - | person
sad sadder saddest | traurig traurig trauriger traurigst | - | person told
tired - - | müde müd - - | - | person animal
hungry hungrier hungriest | hungrig hungrig hungriger hungrigst | - | person animal
sick - - | krank krank - - | - | person animal
clever + | klug klug klüger klügst | - | person pet
lazy lazier laziest | faul faul fauler faulst | - | person pet
dangerous more most | gefährlich gefährlich gefährlicher gefährlichst | - | bear
fresh + | frisch frisch frischer frischst | - | fruit baked
sweet + | süß süß süßer süßest | - | fruit baked
hot hotter hottest | heiß heiß heißer heißest | - | drink-hot
cold + | kalt kalt kälter kältest | - | drink
warm + | warm warm wärmer wärmst | - | room wear
dark + | dunkel dunkl dunkler dunkelst | - | room forest
quiet + | ruhig ruhig ruhiger ruhigst | - | room land
long + | lang lang länger längst | - | written
interesting more most | interessant interessant interessanter interessantest | - | text museum
red - - | rot rot - - | colour | wear vehicle furniture plant toy
green - - | grün grün - - | colour | wear vehicle furniture vessel opening
blue - - | blau blau - - | colour | wear vehicle furniture vessel toy
white - - | weiß weiß - - | colour | wear vehicle furniture vessel animal
black - - | schwarz schwarz - - | colour | wear vehicle furniture animal
brown - - | braun braun - - | colour | wear furniture animal
"""

# English base, past, participle | German infinitive, third person, past, participle ("*": with sein) | frame | subject
# | object or "-" | flags. English "look_for" has a preposition, "pick+up" a particle; German "an.rufen" a prefix.
_VERBS = """
buy bought bought | kaufen kauft kaufte gekauft | acc | person | food thing drink | pf
sell sold sold | verkaufen verkauft verkaufte verkauft | acc | person | food thing vehicle | pf
eat ate eaten | essen isst aß gegessen | acc | person | food | pf
drink drank drunk | trinken trinkt trank getrunken | acc | person | drink | pf
read read read | lesen liest las gelesen | acc | person | text | pf
write wrote written | schreiben schreibt schrieb geschrieben | acc | person | written | pf
see saw seen | sehen sieht sah gesehen | acc | person animal | person animal vehicle | f
hear heard heard | hören hört hörte gehört | acc | person | person dog arrive | f
love loved loved | lieben liebt liebte geliebt | acc | person | person pet food | -
know knew known | kennen kennt kannte gekannt | acc | person | person told museum city village | -
need needed needed | brauchen braucht brauchte gebraucht | acc | person | thing food machine | -
have had had | haben hat hatte gehabt | acc | person | thing pet machine | -
look_for looked looked | suchen sucht suchte gesucht | acc | person | thing person pet | pf
find found found | finden findet fand gefunden | acc | person | thing pet | f
visit visited visited | besuchen besucht besuchte besucht | acc | person | person museum castle church city village | pf
greet greeted greeted | grüßen grüßt grüßte gegrüßt | acc | person | person | pf
carry carried carried | tragen trägt trug getragen | acc | person | small vessel furniture | pf
paint painted painted | malen malt malte gemalt | acc | person | art plant animal | pf
repair repaired repaired | reparieren repariert reparierte repariert | acc | person | machine furniture | pf
wash washed washed | waschen wäscht wusch gewaschen | acc | person | wear vessel vehicle dog | pf
cook cooked cooked | kochen kocht kochte gekocht | acc | person | cooked | pf
bake baked baked | backen backt backte gebacken | acc | person | baked | pf
forget forgot forgotten | vergessen vergisst vergaß vergessen | acc | person | small wear | f
lose lost lost | verlieren verliert verlor verloren | acc | person | small | f
order ordered ordered | bestellen bestellt bestellte bestellt | acc | person | food drink | pf
feed fed fed | füttern füttert fütterte gefüttert | acc | person | animal | pf
draw drew drawn | zeichnen zeichnet zeichnete gezeichnet | acc | person | person animal building plant | pf
understand understood understood | verstehen versteht verstand verstanden | acc | person | person told | f
open opened opened | auf.machen macht machte aufgemacht | acc | person | opening | pf
close closed closed | zu.machen macht machte zugemacht | acc | person | opening | pf
turn+on turned turned | an.machen macht machte angemacht | acc | person | switch | pf
turn+off turned turned | aus.machen macht machte ausgemacht | acc | person | switch | pf
put+on put put | an.ziehen zieht zog angezogen | acc | person | wear | pf
try+on tried tried | an.probieren probiert probierte anprobiert | acc | person | wear | pf
call called called | an.rufen ruft rief angerufen | acc | person | person | pf
pick+up picked picked | ab.holen holt holte abgeholt | acc | person | person | pf
invite invited invited | ein.laden lädt lud eingeladen | acc | person | person | pf
help helped helped | helfen hilft half geholfen | dat | person | person | pf
thank thanked thanked | danken dankt dankte gedankt | dat | person | person | pf
follow followed followed | folgen folgt folgte gefolgt* | dat | person pet | person animal | pf
answer answered answered | antworten antwortet antwortete geantwortet | dat | person | person | pf
congratulate congratulated congratulated | gratulieren gratuliert gratulierte gratuliert | dat | person | person | pf
listen_to listened listened | zu.hören hört hörte zugehört | dat | person | person | pf
belong_to belonged belonged | gehören gehört gehörte gehört | dat | thing building pet | person | -
give gave given | geben gibt gab gegeben | both | person | gift | pf
show showed shown | zeigen zeigt zeigte gezeigt | both | person | gift vehicle | pf
send sent sent | schicken schickt schickte geschickt | both | person | gift | pf
lend lent lent | leihen leiht lieh geliehen | both | person | book vehicle-thing wear | pf
bring brought brought | bringen bringt brachte gebracht | both | person | gift vessel | pf
tell told told | erzählen erzählt erzählte erzählt | both | person | told | pf
sleep slept slept | schlafen schläft schlief geschlafen | none | person animal | - | pf
work worked worked | arbeiten arbeitet arbeitete gearbeitet | none | person | - | pf
laugh laughed laughed | lachen lacht lachte gelacht | none | person | - | pf
cry cried cried | weinen weint weinte geweint | none | person | - | pf
sing sang sung | singen singt sang gesungen | none | person | - | pf
dance danced danced | tanzen tanzt tanzte getanzt | none | person | - | pf
wait waited waited | warten wartet wartete gewartet | none | person pet | - | pf
play played played | spielen spielt spielte gespielt | none | person pet | - | pf
bark barked barked | bellen bellt bellte gebellt | none | dog | - | pf
live lived lived | wohnen wohnt wohnte gewohnt | home | person | - | -
sit sat sat | sitzen sitzt saß gesessen | seat | person pet | - | p
lie lay lain | liegen liegt lag gelegen | surface | small | - | -
stand stood stood | stehen steht stand gestanden | surface | vessel | - | -
get_up got got | auf.stehen steht stand aufgestanden* | bare | person | - | pf
wake_up woke woken | auf.wachen wacht wachte aufgewacht* | bare | person animal | - | pf
fall_asleep fell fallen | ein.schlafen schläft schlief eingeschlafen* | bare | person animal | - | pf
come_back came come | zurück.kommen kommt kam zurückgekommen* | bare | person | - | pf
arrive arrived arrived | an.kommen kommt kam angekommen* | bare | person arrive | - | pf
depart departed departed | ab.fahren fährt fuhr abgefahren* | bare | arrive | - | pf
go went gone | gehen geht ging gegangen* | goal | person | - | pf
run ran run | rennen rennt rannte gerannt* | goal | person animal | - | pf
come came come | kommen kommt kam gekommen* | goal | person | - | pf
jump jumped jumped | springen springt sprang gesprungen* | onto | pet | - | pf
put put put | legen legt legte gelegt | lay | person | small | pf
put put put | stellen stellt stellte gestellt | lay | person | vessel | pf
think thought thought | glauben glaubt glaubte geglaubt | that | person | - | -
know knew known | wissen weiß wusste gewusst | that+ask | person | - | -
say said said | sagen sagt sagte gesagt | that | person | - | -
hope hoped hoped | hoffen hofft hoffte gehofft | that | person | - | -
ask asked asked | fragen fragt fragte gefragt | ask | person | - | -
rain rained rained | regnen regnet regnete geregnet | weather | - | - | p
snow snowed snowed | schneien schneit schneite geschneit | weather | - | - | p
be was been | sein ist war gewesen* | be | - | - | -
"""

MODALS = (
    Modal("can", "able", "aux", "können", "kann", "kannst", "konnte"),
    Modal("should", "", "aux", "sollen", "sollte", "solltest", "sollte"),
    Modal("allowed", "allowed", "be", "dürfen", "darf", "darfst", "durfte"),
    Modal("have", "had", "verb", "müssen", "muss", "musst", "musste"),
    Modal("want", "wanted", "verb", "wollen", "will", "willst", "wollte"),
)

_TIMES = """
today | heute | present perfect modal future
now | jetzt | present modal
tomorrow | morgen | future modal
soon | bald | future
next week | nächste Woche | future modal
next year | nächstes Jahr | future
on Monday | am Montag | past future modal
on Saturday | am Samstag | past future modal
on Sunday | am Sonntag | past future modal
yesterday | gestern | past
last week | letzte Woche | past
last year | letztes Jahr | past
two days ago | vor zwei Tagen | past
three weeks ago | vor drei Wochen | past
this week | diese Woche | perfect modal
every day | jeden Tag | habit past
every evening | jeden Abend | habit past
every morning | jeden Morgen | habit
in the evening | am Abend | habit past modal
in the morning | am Morgen | habit past modal
"""

_MANNERS = """
slowly | langsam
quickly | schnell
quietly | leise
loudly | laut
alone | allein
together | zusammen
"""

# German stands where "nicht" stands; English before the verb, but for "yet".
PARTICLES = (
    Adverbial("often", "oft", frozenset({"habit", "past"})),
    Adverbial("always", "immer", frozenset({"habit", "past"})),
    Adverbial("never", "nie", frozenset({"habit", "past", "perfect"})),
    Adverbial("sometimes", "manchmal", frozenset({"habit", "past"})),
    Adverbial("already", "schon", frozenset({"perfect"})),
    Adverbial("yet", "noch", frozenset({"perfect"})),  # only with a negation: "not ... yet", "noch nicht"
)

NAMES = (("Anna", "f"), ("Maria", "f"), ("Julia", "f"), ("Peter", "m"), ("Thomas", "m"), ("Paul", "m"))
NUMBERS = (("two", "zwei"), ("three", "drei"), ("four", "vier"), ("five", "fünf"), ("ten", "zehn"))


def _rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().split("\n")]


def _tags(cell: str) -> frozenset[str]:
    return frozenset(cell.split())


def _noun(en: str, de: str, tags: str) -> Noun:
    singular, plural = en.split()
    gender, de_singular, de_plural = de.split()
    stem, _, oblique = de_singular.partition("+")
    # A noun is a kind of its own too, so that an adjective or verb can name it (dangerous bears).
    own = frozenset({singular}) | frozenset(f"{tags.split()[0]}-{tag}" for tag in tags.split()[1:])
    plural, de_plural = plural.replace("-", ""), de_plural.replace("-", "")
    return Noun(singular, plural, gender, stem, de_plural, oblique, _tags(tags) | own, tags.split()[0])


def _adjective(en: str, de: str, slot: str, tags: str) -> Adjective:
    base, comp, sup = (en + " +").split()[:3] if "+" in en else en.split()
    if comp == "+":
        stem = base.removesuffix("e")
        comp, sup = f"{stem}er", f"{stem}est"
    elif comp == "more":
        comp, sup = f"more {base}", f"most {base}"
    forms = [form.replace("-", "") for form in de.split()]
    de_base, stem, de_comp, de_sup = forms
    return Adjective(
        base, comp.replace("-", ""), sup.replace("-", ""), de_base, stem, de_comp, de_sup, slot, _tags(tags)
    )


def _verb(en: str, de: str, frame: str, subj: str, obj: str, flags: str) -> Verb:
    base, past, part = en.split()
    base, split, particle = base.partition("+" if "+" in base else "_")
    infinitive, third, de_past, de_part = de.split()
    prefix, _, stem = infinitive.rpartition(".")
    aux = "sein" if de_part.endswith("*") else "haben"
    english = (base, past, part, particle, split == "+")
    return Verb(*english, prefix, stem, third, de_past, de_part.rstrip("*"), aux, frame, _tags(subj), _tags(obj), flags)


NOUNS = tuple(_noun(*row) for row in _rows(_NOUNS))
ADJECTIVES = tuple(_adjective(*row) for row in _rows(_ADJECTIVES))
VERBS = tuple(_verb(*row) for row in _rows(_VERBS))
TIMES = tuple(Adverbial(en, de, _tags(tenses)) for en, de, tenses in _rows(_TIMES))
MANNERS = tuple(Adverbial(en, de) for en, de in _rows(_MANNERS))


def noun(en: str) -> Noun:
    """Return the noun with this English singular. Raises KeyError for none."""
    return _find(NOUNS, en)


def adjective(en: str) -> Adjective:
    """Return the adjective with this English base form. Raises KeyError for none."""
    return _find(ADJECTIVES, en)


def verb(de: str) -> Verb:
    """Return the verb with this German infinitive, separable prefix included. Raises KeyError for none."""
    for entry in VERBS:
        if entry.prefix + entry.de == de:
            return entry
    raise KeyError(de)


def _find(entries, en):  # type: ignore[no-untyped-def]
    for entry in entries:
        if entry.en == en:
            return entry
    raise KeyError(en)
