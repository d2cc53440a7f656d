"""Little facts: countries, animals, colours, opposites, the calendar, planets, units."""

from grammar import an, answer, join, say

CAPITALS = dict(p.split(":") for p in """France:Paris;Germany:Berlin;Italy:Rome;Spain:Madrid;Portugal:Lisbon;England:London;Scotland:Edinburgh;Ireland:Dublin;Austria:Vienna;Switzerland:Bern;Belgium:Brussels;the Netherlands:Amsterdam;Denmark:Copenhagen;Norway:Oslo;Sweden:Stockholm;Finland:Helsinki;Iceland:Reykjavik;Poland:Warsaw;Czechia:Prague;Hungary:Budapest;Greece:Athens;Turkey:Ankara;Russia:Moscow;Ukraine:Kyiv;Romania:Bucharest;Bulgaria:Sofia;Croatia:Zagreb;Serbia:Belgrade;Estonia:Tallinn;Latvia:Riga;Lithuania:Vilnius;China:Beijing;Japan:Tokyo;South Korea:Seoul;India:New Delhi;Thailand:Bangkok;Vietnam:Hanoi;Indonesia:Jakarta;the Philippines:Manila;Nepal:Kathmandu;Mongolia:Ulaanbaatar;Iran:Tehran;Iraq:Baghdad;Saudi Arabia:Riyadh;Egypt:Cairo;Morocco:Rabat;Kenya:Nairobi;Ghana:Accra;Ethiopia:Addis Ababa;Senegal:Dakar;Australia:Canberra;New Zealand:Wellington;the United States:Washington, D.C.;Canada:Ottawa;Mexico:Mexico City;Cuba:Havana;Brazil:Brasilia;Argentina:Buenos Aires;Chile:Santiago;Peru:Lima;Colombia:Bogota;Uruguay:Montevideo;Ecuador:Quito;Venezuela:Caracas""".split(";"))
CONTINENTS = {"Europe": 31, "Asia": 44, "Africa": 50, "Australia and Oceania": 52, "North America": 56, "South America": 64}


def continent(country):
    if country in ("Turkey", "Russia"):
        return "Europe and Asia"
    place = list(CAPITALS).index(country)
    return next(name for name, end in CONTINENTS.items() if place < end)


def the(country):
    return country[0].upper() + country[1:]


CAPITAL_A = ["the capital of <c> is <k>.", "the capital of <c> is <k>.", "<k> is the capital of <c>.", "it is <k>, the capital of <c>."]


def capital(rng):
    c = rng.choice(list(CAPITALS))
    k = CAPITALS[c]
    r = rng.random()
    if r < 0.72:
        q = say(rng, ["What is the capital of <c>?", "What's the capital of <c>?", "Which city is the capital of <c>?", "Name the capital of <c>.", "Tell me the capital of <c>.", "Do you know the capital of <c>?", "Capital of <c>?", "Can you tell me the capital of <c>?", "What is the capital city of <c>?", "Please name the capital of <c>.", "What city is the capital of <c>?", "I need the capital of <c>."], c=c)
        return q, answer(rng, CAPITAL_A, c=c, k=k).replace("D.C..", "D.C.")
    if r < 0.82:
        q = say(rng, ["Which country has the capital <k>?", "<k> is the capital of which country?", "What country is <k> the capital of?", "Of which country is <k> the capital?", "In which country is <k>?", "Where is <k>?", "In what country is <k>?"], k=k)
        return q, answer(rng, ["<k> is the capital of <c>.", "<k> is in <c>{, and it is the capital|}."], c=c, k=k)
    if r < 0.91:
        other = rng.choice(list(CAPITALS.values())) if rng.random() < 0.5 else k
        q = say(rng, ["Is <o> the capital of <c>?", "Is the capital of <c> <o>?"], c=c, o=other)
        return q, answer(rng, ["Yes, <k> is the capital of <c>."] if other == k else ["No, the capital of <c> is <k>."], c=c, k=k).replace("D.C..", "D.C.")
    q = say(rng, ["Where is <c>?", "On which continent is <c>?", "On which continent does <c> lie?", "Which continent is <c> on?", "What is <c>?", "Tell me about <c>."], c=c)
    return q, answer(rng, ["<C> is a country in <p>. Its capital is <k>.", "<C> lies in <p>, and its capital is <k>."], C=the(c), c=c, p=continent(c), k=k).replace("D.C..", "D.C.")


def capital_chain(rng):
    """A question about one capital, then `And of ...?`."""
    turns = []
    for i, c in enumerate(rng.sample(list(CAPITALS), rng.choice((2, 2, 3)))):
        if i == 0:
            q = say(rng, ["What is the capital of <c>?", "Name the capital of <c>.", "Capital of <c>?"], c=c)
        else:
            q = say(rng, ["And of <c>?", "And <c>?", "What about <c>?", "And the capital of <c>?", "How about <c>?", "What is it for <c>?", "And for <c>?"], c=c)
        turns.append((q, answer(rng, CAPITAL_A, c=c, k=CAPITALS[c]).replace("D.C..", "D.C.")))
    return turns


# name: legs, sound, food, home, what it is, colour, young
ANIMALS = {}
for row in """dog:4:barks:meat and dog food:with people:a friendly pet:brown or black:puppy
cat:4:meows:fish and meat:with people:a quiet pet:grey or black:kitten
cow:4:moos:grass:on farms:a large farm animal:brown or white:calf
horse:4:neighs:grass and hay:on farms and meadows:a strong and fast animal:brown:foal
sheep:4:bleats:grass:on meadows:a woolly farm animal:white:lamb
goat:4:bleats:grass and leaves:on farms and mountains:a farm animal with horns:white or brown:kid
pig:4:oinks:roots and vegetables:on farms:a clever farm animal:pink:piglet
chicken:2:clucks:grains and worms:on farms:a bird that lays eggs:brown or white:chick
duck:2:quacks:water plants and insects:on ponds:a bird that swims:green and brown:duckling
goose:2:honks:grass:on ponds and meadows:a large water bird:white or grey:gosling
lion:4:roars:meat:in Africa:a big wild cat:golden:cub
tiger:4:roars:meat:in the forests of Asia:a big striped cat:orange and black:cub
bear:4:growls:fish, berries and honey:in forests:a large and strong animal:brown:cub
wolf:4:howls:meat:in forests:a wild relative of the dog:grey:pup
fox:4:barks:mice and berries:in forests and fields:a clever wild animal:red:cub
rabbit:4:squeaks:grass and carrots:in burrows:a small animal with long ears:brown or grey:kit
mouse:4:squeaks:seeds and cheese:in holes and houses:a tiny animal with a long tail:grey:pup
squirrel:4:chatters:nuts and seeds:in trees:a small animal with a bushy tail:red or grey:kit
deer:4:bellows:grass and leaves:in forests:a shy forest animal:brown:fawn
elephant:4:trumpets:grass, leaves and fruit:in Africa and Asia:the largest land animal:grey:calf
giraffe:4:hums:leaves:in Africa:the tallest animal:yellow and brown:calf
zebra:4:brays:grass:in Africa:a striped relative of the horse:black and white:foal
monkey:4:chatters:fruit and leaves:in warm forests:a clever climbing animal:brown:infant
camel:4:grunts:grass and dry plants:in deserts:a desert animal with a hump:light brown:calf
kangaroo:4:chatters:grass:in Australia:a jumping animal with a pouch:reddish brown:joey
koala:4:grunts:eucalyptus leaves:in Australia:a sleepy tree animal:grey:joey
panda:4:bleats:bamboo:in the forests of China:a black and white bear:black and white:cub
penguin:2:squawks:fish:in the cold south:a bird that swims but cannot fly:black and white:chick
owl:2:hoots:mice:in forests:a bird of the night:brown:owlet
eagle:2:screeches:small animals and fish:in the mountains:a large bird of prey:brown:eaglet
parrot:2:squawks:seeds and fruit:in warm forests:a colourful bird that can copy words:green or red:chick
crow:2:caws:almost anything:in fields and towns:a clever black bird:black:chick
sparrow:2:chirps:seeds and insects:in towns and gardens:a small bird:brown:chick
swan:2:hisses:water plants:on lakes:a large white water bird:white:cygnet
frog:4:croaks:flies and insects:near ponds:a jumping animal with smooth skin:green:tadpole
snake:0:hisses:mice and other small animals:in grass, forests and deserts:a long animal without legs:green or brown:snakelet
turtle:4:hisses:plants and small animals:in water and on land:a slow animal with a shell:green:hatchling
crocodile:4:growls:fish and meat:in warm rivers:a large reptile with many teeth:green:hatchling
spider:8:makes no sound:flies and insects:in webs:a small animal that spins webs:black or brown:spiderling
ant:6:makes no sound:seeds and crumbs:in nests under the ground:a tiny insect that works in teams:black or red:larva
bee:6:buzzes:nectar and pollen:in hives:an insect that makes honey:yellow and black:larva
butterfly:6:makes no sound:nectar:in gardens and meadows:an insect with colourful wings:many colours:caterpillar
whale:0:sings:krill and fish:in the sea:the largest animal of the sea:blue or grey:calf
dolphin:0:clicks and whistles:fish:in the sea:a clever sea animal:grey:calf
shark:0:makes no sound:fish:in the sea:a large fish with sharp teeth:grey:pup
octopus:8:makes no sound:crabs and shells:in the sea:a soft sea animal with eight arms:red or brown:larva
hedgehog:4:snuffles:insects and worms:in gardens and hedges:a small animal with spines:brown:hoglet
bat:2:squeaks:insects and fruit:in caves and attics:a flying animal of the night:black or brown:pup""".split("\n"):
    name, legs, sound, food, home, what, colour, young = row.split(":")
    ANIMALS[name] = dict(legs=int(legs), sound=sound, food=food, home=home, what=what, colour=colour, young=young)
NUMBER = {0: "no", 2: "two", 4: "four", 6: "six", 8: "eight"}
PLURAL = {"sheep": "sheep", "mouse": "mice", "goose": "geese", "wolf": "wolves", "deer": "deer", "fox": "foxes", "ostrich": "ostriches", "butterfly": "butterflies", "octopus": "octopuses", "monkey": "monkeys"}


def plural(name):
    return PLURAL.get(name, name + "s")


ANIMAL_TOPICS = {
    "food": (["What does <an> eat?", "What do <pl> eat?", "What is the food of <an>?", "What do you feed <an>?", "What does a hungry <n> eat?", "What do <pl> like to eat?"],
             ["<pl> eat <food>.", "<an> eats <food>.", "mostly <food>: that is what <pl> eat."]),
    "home": (["Where does <an> live?", "Where do <pl> live?", "Where can I find <pl>?", "What is the home of <an>?", "Where is <an> at home?"],
             ["<pl> live <home>.", "<an> lives <home>.", "you can find <pl> <home>."]),
    "legs": (["How many legs does <an> have?", "How many legs do <pl> have?", "How many legs has <an>?", "Tell me the number of legs of <an>.", "Does <an> have legs?"],
             ["<an> has <legs>.", "<pl> have <legs>."]),
    "sound": (["What sound does <an> make?", "What does <an> say?", "What sound do <pl> make?", "How does <an> sound?", "Which noise does <an> make?"],
              ["<an> <sound>.", "<an> <sound>."]),
    "colour": (["What colour is <an>?", "What color is <an>?", "What colour are <pl>?", "Which colour does <an> have?", "What color are <pl>?"],
               ["<an> is usually <colour>.", "most <pl> are <colour>.", "<pl> are mostly <colour>."]),
    "young": (["What is a baby <n> called?", "What do you call a young <n>?", "What is the name for a young <n>?", "What is a young <n> called?", "How is a baby <n> called?"],
              ["a {young|baby} <n> is called <young>.", "it is called <young>."]),
    "what": (["What is <an>?", "Tell me about <pl>.", "Describe <an>.", "What do you know about <pl>?", "Tell me something about the <n>.", "What kind of animal is <an>?", "What's <an>?", "Do you know what <an> is?", "Tell me a fact about <pl>."],
             ["<an> is <what>. {It lives <home>.|It eats <food>.|<pl> live <home> and eat <food>.|It lives <home> and eats <food>.|}", "<an> is <what>. It has <legs>{ and eats <food>|}."]),
}


def animal_answer(rng, kind, name):
    d = ANIMALS[name]
    legs = f"{NUMBER[d['legs']]} legs"
    if name == "octopus":
        legs = "eight arms"
    if d["colour"] == "many colours" and kind == "colour":
        return answer(rng, "{Butterflies come in many colours.|A butterfly can have many colours.}")
    return answer(rng, ANIMAL_TOPICS[kind][1], n=name, an=an(name), pl=plural(name), food=d["food"], home=d["home"], legs=legs, sound=d["sound"], colour=d["colour"], young=an(d["young"]), what=d["what"])


def animal(rng):
    name, kind = rng.choice(list(ANIMALS)), rng.choice(list(ANIMAL_TOPICS))
    if rng.random() < 0.08:
        other = rng.choice([n for n in ANIMALS if ANIMALS[n]["legs"] != ANIMALS[name]["legs"]])
        big, small = sorted((name, other), key=lambda n: -ANIMALS[n]["legs"])
        q = say(rng, ["Which has more legs, <a> or <b>?", "Who has more legs: <a> or <b>?"], a=an(name), b=an(other))
        leg = {n: NUMBER[ANIMALS[n]["legs"]] + (" arms" if n == "octopus" else "") for n in (big, small)}
        return q, answer(rng, ["<x> has more legs: <i> against <j>.", "<x>. It has <i>, and <y> has <j>."], x=an(big), y=an(small), i=leg[big], j=leg[small])
    q = say(rng, ANIMAL_TOPICS[kind][0], n=name, an=an(name), pl=plural(name))
    return q, animal_answer(rng, kind, name)


def animal_chain(rng):
    """Two or three questions about the same animal, the later ones with `it`."""
    name = rng.choice(list(ANIMALS))
    kinds = rng.sample(list(ANIMAL_TOPICS), 3)[: rng.choice((2, 2, 3))]
    follow = {"food": ["What does it eat?", "And what does it eat?", "What do they eat?"], "home": ["Where does it live?", "And where does it live?", "Where do they live?"],
              "legs": ["How many legs does it have?", "And how many legs?"], "sound": ["What sound does it make?", "How does it sound?"], "colour": ["What colour is it?", "And its colour?", "What color is it?"],
              "young": ["What is its baby called?", "What are the young called?"], "what": ["Tell me more about it.", "Tell me more.", "What kind of animal is it?"]}
    turns = [(say(rng, ANIMAL_TOPICS[kinds[0]][0], n=name, an=an(name), pl=plural(name)), animal_answer(rng, kinds[0], name))]
    return turns + [(rng.choice(follow[k]), animal_answer(rng, k, name)) for k in kinds[1:]]


THINGS = dict(p.split(":") for p in "the sky:blue;grass:green;snow:white;a banana:yellow;a lemon:yellow;a tomato:red;a strawberry:red;a carrot:orange;an orange:orange;coal:black;blood:red;milk:white;the sun:yellow;a leaf:green;a fire engine:red;chocolate:brown;a frog:green;the sea:blue;the night sky:black;a cherry:red;a cucumber:green;a pumpkin:orange;gold:yellow;an elephant:grey;a flamingo:pink;a plum:purple;an eggplant:purple;a rose:red;a sunflower:yellow;coffee:brown;a cloud:white;ink:blue or black;salt:white;a pea:green;a raven:black;honey:golden;a pig:pink;wood:brown;an apple:red or green;a polar bear:white;paper:white;a stop sign:red;an emerald:green;a ruby:red;sand:light brown;a lime:green;rice:white;cheese:yellow;a brick:red;a swan:white".split(";"))


def colour(rng):
    t, c = rng.choice(list(THINGS.items()))
    if rng.random() < 0.25:
        o = c if rng.random() < 0.5 else rng.choice("red blue green yellow black white orange pink purple".split())
        yes = o in c.split(" ")
        return say(rng, "Is <t> <o>?", t=t, o=o), answer(rng, ["Yes, <t> is {usually |}<c>."] if yes else ["No, <t> is {usually |}<c>."], t=t, c=c)
    q = say(rng, ["What colour is <t>?", "What color is <t>?", "Which colour does <t> have?", "Tell me the colour of <t>.", "What is the colour of <t>?", "What's the color of <t>?", "Do you know the colour of <t>?"], t=t)
    return q, answer(rng, ["<t> is <c>.", "<t> is usually <c>.", "the colour of <t> is <c>."], t=t, c=c)


OPPOSITES = [p.split(":") for p in "hot:cold;big:small;fast:slow;high:low;long:short;old:young;happy:sad;light:dark;good:bad;rich:poor;wet:dry;hard:soft;full:empty;open:closed;early:late;loud:quiet;near:far;left:right;up:down;day:night;black:white;strong:weak;thick:thin;heavy:light;clean:dirty;easy:difficult;cheap:expensive;true:false;new:old;first:last;begin:end;win:lose;buy:sell;push:pull;give:take;love:hate;war:peace;north:south;east:west;inside:outside;brave:afraid;kind:mean;sweet:sour;sharp:blunt;deep:shallow;wide:narrow;alive:dead;awake:asleep;same:different;always:never;more:less;friend:enemy;question:answer;summer:winter;sunrise:sunset;yes:no;come:go;remember:forget;laugh:cry;find:lose".split(";")]


def opposite(rng):
    a, b = rng.choice(OPPOSITES)
    if rng.random() < 0.4 and a not in ("light", "new", "find", "heavy"):
        a, b = b, a
    if a == "light":
        b = "dark"
    if a == "old":
        b = "young"
    if a == "lose":
        b = "win"
    q = say(rng, ["What is the opposite of <a>?", "What's the opposite of <a>?", "Opposite of <a>?", "Tell me the opposite of <a>.", "Which word is the opposite of <a>?", "Name the opposite of <a>.", "What is the contrary of <a>?", "Give me the opposite of the word <a>."], a=a)
    return q, answer(rng, ["the opposite of <a> is <b>.", "the opposite of <a> is <b>.", "<b> is the opposite of <a>.", "it is <b>."], a=a, b=b)


DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
ORDER = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()
SEASON = {"spring": ("March, April and May", "the flowers bloom and the days get longer"), "summer": ("June, July and August", "it is warm and the days are long"), "autumn": ("September, October and November", "the leaves turn yellow and fall"), "winter": ("December, January and February", "it is cold and the days are short")}
LENGTH = dict(zip(MONTHS, "31,28 or 29,31,30,31,30,31,31,30,31,30,31".split(",")))


def calendar(rng):
    r = rng.random()
    if r < 0.45:
        row, kind = (DAYS, "day") if rng.random() < 0.5 else (MONTHS, "month")
        i = rng.randrange(len(row))
        if rng.random() < 0.5:
            j, q, t = i + 1, ["What comes after <x>?", "Which <k> comes after <x>?", "What <k> follows <x>?", "What is the <k> after <x>?"], ["after <x> comes <y>.", "<y> comes after <x>.", "the <k> after <x> is <y>."]
        else:
            j, q, t = i - 1, ["What comes before <x>?", "Which <k> comes before <x>?", "What is the <k> before <x>?"], ["before <x> comes <y>.", "<y> comes before <x>.", "the <k> before <x> is <y>."]
        s = dict(x=row[i], y=row[j % len(row)], k=kind)
        return say(rng, q, **s), answer(rng, t, **s)
    if r < 0.6:
        row, kind, whole = (DAYS, "day", "week") if rng.random() < 0.4 else (MONTHS, "month", "year")
        i = rng.randrange(len(row))
        s = dict(x=row[i], k=kind, w=whole, o=ORDER[i] if i < len(row) - 1 else "last")
        if rng.random() < 0.7:
            return say(rng, ["What is the <o> <k> of the <w>?", "Which is the <o> <k> of the <w>?", "Name the <o> <k> of the <w>."], **s), answer(rng, ["the <o> <k> of the <w> is <x>.", "<x> is the <o> <k> of the <w>."], **s)
        return say(rng, ["Which <k> of the <w> is <x>?", "What is <x>?"], **s), answer(rng, "<x> is the <o> <k> of the <w>.", **s)
    if r < 0.72:
        s = rng.choice(list(SEASON))
        months, what = SEASON[s]
        q = say(rng, ["Tell me about <s>.", "What is <s> like?", "When is <s>?", "Which months are in <s>?", "What happens in <s>?", "What is <s>?"], s=s)
        if "months" in q or "When" in q:
            return q, answer(rng, ["<s> is in <m>, at least in the north.", "the months of <s> are <m>."], s=s, m=months)
        return q, answer(rng, ["<s> is the season when <w>.", "in <s>, <w>. {In the north it lasts through <m>.|}", "<s> is in <m>, at least in the north."], s=s, w=what, m=months)
    if r < 0.82:
        m = rng.choice(MONTHS)
        return say(rng, ["How many days does <m> have?", "How many days are in <m>?", "How many days has <m>?", "How long is <m>?"], m=m), answer(rng, ["<m> has <n> days.", "there are <n> days in <m>."], m=m, n=LENGTH[m])
    q, t = rng.choice([
        (["What are the days of the week?", "Name the days of the week.", "List the days of the week."], [f"The days of the week are {join(DAYS)}.", f"{join(DAYS)}."]),
        (["What are the months of the year?", "Name the months.", "List all months.", "Name the months of the year."], [f"The months are {join(MONTHS)}.", f"{join(MONTHS)}."]),
        (["What are the four seasons?", "Name the seasons.", "How many seasons are there?", "List the seasons."], ["The four seasons are spring, summer, autumn and winter.", "There are four seasons: spring, summer, autumn and winter."]),
        (["How many days are in a week?", "How many days does a week have?", "How long is a week?"], ["A week has seven days."]),
        (["How many months are in a year?", "How many months does a year have?"], ["A year has twelve months.", "There are twelve months in a year."]),
        (["How many days are in a year?", "How long is a year?", "How many days does a year have?"], ["A year has 365 days{, and a leap year has 366|}."]),
        (["Which days are the weekend?", "What is the weekend?", "When is the weekend?"], ["The weekend is Saturday and Sunday."]),
        (["Which season comes after winter?", "What comes after winter?"], ["After winter comes spring."]), (["What comes after spring?", "Which season comes after spring?"], ["After spring comes summer."]),
        (["What comes after summer?", "Which season comes after summer?"], ["After summer comes autumn."]), (["What comes after autumn?", "Which season comes after autumn?"], ["After autumn comes winter."]),
    ])
    return say(rng, q), answer(rng, t)


TOPICS = {"capital": (14, capital), "animal": (14, animal), "colour": (4, colour), "opposite": (4, opposite), "calendar": (6, calendar)}
