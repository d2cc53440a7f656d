"""Everyday nouns with a short definition, and questions about words, planets and units."""

from grammar import an, answer, join, say
from topic_world import ORDER

NOUNS = {}
for row in """apple:a round fruit that grows on trees:You can eat it raw or bake it in a pie
banana:a long yellow fruit:It is soft and sweet
bread:food baked from flour and water:Many people eat it for breakfast
butter:a soft yellow fat made from milk:People spread it on bread
cheese:food made from milk:There are many kinds of it
honey:a sweet golden food that bees make:It tastes good on bread or in tea
soup:a warm liquid food:It is often made with vegetables
cake:a sweet baked food:People like to eat it on birthdays
egg:a small round thing that a bird lays:Many people eat it for breakfast
tea:a hot drink made from leaves:You pour hot water on the leaves
coffee:a dark hot drink made from roasted beans:It keeps people awake
milk:a white drink that comes from cows:Babies and calves live on it
sugar:a sweet white powder:It makes food and drinks sweet
salt:a white powder that makes food salty:It comes from the sea or from the ground
rice:a grain that grows in wet fields:It is eaten all over the world
potato:a vegetable that grows under the ground:You can boil, bake or fry it
carrot:a long orange vegetable:Rabbits like it very much
onion:a round vegetable with many layers:It can make your eyes water
tomato:a soft red fruit:It is used in salads and sauces
pizza:a flat bread with tomato and cheese:It comes from Italy
house:a building where people live:It has walls, rooms and a roof
door:a thing that opens and closes the way into a room:You can lock it with a key
window:an opening with glass in a wall:It lets in light and air
roof:the top part of a house:It keeps out rain and snow
wall:a side of a house or a room:It is made of stone, brick or wood
bridge:a way over a river or a road:You can walk or drive across it
tower:a tall and narrow building:From the top you can see far
castle:a large old building with thick walls:Kings and queens lived there
lighthouse:a tower with a strong light by the sea:It shows ships the way at night
school:a place where children learn:There are teachers and classes
library:a place with many books:You can read them there or borrow them
hospital:a place where sick people get help:Doctors and nurses work there
museum:a building where old or beautiful things are shown:You can learn a lot there
market:a place where people buy and sell things:There is often fresh fruit
shop:a place where you can buy things:You pay at the counter
bakery:a shop where bread and cakes are made:It smells very good
farm:a place where animals and plants are raised:Farmers work there
garden:a piece of land with flowers or vegetables:It needs water and sunshine
park:a green place in a town:People go there to walk and play
street:a road in a town:It has houses on both sides
city:a very large town:Many people live and work there
village:a small group of houses in the country:Everybody knows everybody there
island:land with water all around it:You need a boat to get there
mountain:a very high hill:There may be snow at the top
river:a long stream of fresh water:It flows to a lake or to the sea
lake:a large body of water with land around it:You can swim or sail on it
sea:a very large body of salt water:Fish and whales live in it
ocean:the largest kind of sea:It lies between the continents
beach:a strip of sand by the sea:People go there to swim and rest
forest:a large area full of trees:Many animals live there
desert:a dry land with little rain:There is a lot of sand
volcano:a mountain that can throw out hot rock:The hot rock is called lava
cave:a hollow place in rock:Bats like to live there
valley:low land between hills:A river often flows through it
field:a piece of open land:Farmers grow grain there
meadow:a field of grass and flowers:Cows and sheep like it
tree:a tall plant with a trunk and branches:It gives shade and fresh air
flower:the colourful part of a plant:Bees visit it for nectar
grass:a green plant that covers meadows:Cows and sheep eat it
leaf:a flat green part of a plant:It catches the sunlight
seed:a small thing from which a plant grows:It needs water and warmth
root:the part of a plant under the ground:It drinks water from the soil
rose:a flower with thorns:It smells sweet
sun:the star in the middle of our solar system:It gives us light and warmth
moon:the round body that moves around the Earth:It shines at night
star:a huge ball of hot gas far away:You can see it at night
planet:a large body that moves around a star:The Earth is one
sky:the space above us:It is blue by day and black at night
cloud:many tiny drops of water in the air:Rain falls from it
rain:water that falls from clouds:Plants need it
snow:soft white ice that falls from the sky:Children build figures from it
ice:frozen water:It is cold and slippery
wind:moving air:It can turn a windmill
storm:very bad weather with strong wind:It is best to stay inside
rainbow:a coloured arch in the sky:It appears when the sun shines through rain
thunder:the loud noise after lightning:It comes during a storm
fire:the light and heat of something burning:It is hot and can be dangerous
water:a clear liquid that all living things need:It falls as rain and fills the rivers
air:the gas that we breathe:It is all around us
stone:a small hard piece of rock:You can find it by the river
sand:many tiny pieces of stone:You find it on the beach
gold:a precious yellow metal:Rings and coins are made of it
iron:a strong grey metal:Tools and bridges are made of it
glass:a hard clear material:Windows are made of it
wood:the hard material of trees:You can build houses and boats from it
paper:a thin material made from wood:You can write on it
book:many pages with text between two covers:You can read stories in it
letter:a message written on paper:It comes in an envelope
pen:a thing for writing with ink:You can find it on a desk
pencil:a thing for writing and drawing:You can rub out what it writes
map:a drawing of a place from above:It shows you the way
newspaper:sheets of paper with the news:Many people read it in the morning
table:a piece of furniture with a flat top:You can eat or work at it
chair:a seat for one person:It has a back and usually four legs
bed:a piece of furniture for sleeping:It is soft and warm
lamp:a thing that gives light:You switch it on when it is dark
candle:a stick of wax that burns:It gives a warm light
mirror:a glass in which you can see yourself:It often hangs on the wall
clock:a thing that shows the time:It has hands or numbers
key:a thing that opens a lock:Do not lose it
cup:a small thing to drink from:It often has a handle
plate:a flat dish for food:You put it on the table
spoon:a tool for eating soup:It is round at the end
fork:a tool for eating with three or four points:You hold it in your hand
knife:a tool for cutting:Be careful, it is sharp
bottle:a container for liquids:It is made of glass or plastic
basket:a container to carry things in:It is made of thin branches
box:a container with flat sides:You can keep things in it
bag:a soft container with handles:You can carry your shopping in it
umbrella:a thing that keeps you dry in the rain:You can fold it
hat:a thing that you wear on your head:It keeps you warm or gives shade
shoe:a thing that you wear on your foot:They always come in pairs
coat:a warm thing to wear outside:You need it in winter
scarf:a long piece of cloth for your neck:It keeps you warm
glove:a thing to keep your hand warm:It has five fingers
shirt:a thing to wear on the upper body:It often has buttons
ring:a small circle of metal for a finger:It may be made of gold
car:a vehicle with four wheels and a motor:It drives on roads
bus:a large vehicle for many people:It stops at bus stops
train:a row of wagons that runs on rails:It stops at stations
bicycle:a vehicle with two wheels:You move it with your feet
ship:a very large boat:It crosses the sea
boat:a small vehicle for the water:You can row or sail it
plane:a machine that flies:It carries people to far places
rocket:a machine that flies into space:It needs a lot of fuel
balloon:a bag filled with air or gas:A very big one can carry people
wheel:a round thing that turns:Cars and bicycles have them
road:a hard way for cars:It leads from one place to another
ball:a round toy:You can throw, kick or catch it
doll:a toy that looks like a small person:Children play with it
kite:a light toy that flies in the wind:You hold it by a string
puzzle:a game with pieces that fit together:You need patience for it
game:something that people play for fun:It often has rules
song:words with music:You can sing it
poem:a short text with a rhythm:It often rhymes
story:a tale about people or animals:It can be true or made up
picture:something that is drawn, painted or photographed:You can hang it on a wall
piano:a large instrument with black and white keys:You play it with your fingers
guitar:an instrument with six strings:You play it with your fingers
drum:a round instrument that you hit:It is loud
violin:a small instrument with four strings:You play it with a bow
flute:a thin instrument that you blow:It makes a soft sound
music:sounds that are nice to hear:People sing and dance to it
teacher:a person who helps others to learn:You meet one at school
doctor:a person who helps sick people:You find one in a hospital
baker:a person who makes bread and cakes:The work starts early in the morning
farmer:a person who grows plants and keeps animals:The work is outside
pilot:a person who flies planes:It takes a lot of training
sailor:a person who works on a ship:The sea is his or her home
painter:a person who paints pictures or walls:Colours are important for the work
king:a man who rules a country:He wears a crown
queen:a woman who rules a country:She wears a crown
friend:a person whom you like and trust:It is good to have one
neighbour:a person who lives next to you:You meet in the street or in the garden
family:parents and children together:They often live in one house
child:a young person:It likes to play and learn
baby:a very young child:It sleeps a lot
hand:the part of the body at the end of the arm:It has five fingers
foot:the part of the body at the end of the leg:You stand and walk on it
eye:the part of the body that sees:You have two of them
ear:the part of the body that hears:You have two of them
nose:the part of the face that smells:It is in the middle of the face
heart:the part of the body that moves the blood:It beats all the time
bone:a hard part inside the body:Milk is good for it
brain:the part of the body that thinks:It is inside the head
computer:a machine that works with data:You are using one now
robot:a machine that can do work by itself:It follows a program
telephone:a thing for talking to people far away:Most people carry one now
camera:a machine that takes pictures:There is one in most phones
radio:a machine that plays sounds sent through the air:You can hear music and news
internet:a network that connects computers all over the world:You can send messages through it
program:a list of instructions for a computer:I am one myself
keyboard:a board with keys for writing on a computer:Each key has a letter or sign
screen:the flat part of a computer that shows pictures:You are looking at one
server:a computer or program that answers requests:I run on one
password:a secret word that lets you in:Keep it to yourself
number:a word or sign that says how many:Two and seven are examples
word:a group of letters with a meaning:Sentences are made of them
sentence:a group of words that says something:It ends with a full stop
dictionary:a book that explains words:They are in alphabetical order
alphabet:all the letters of a language in order:In English there are twenty-six
circle:a perfectly round shape:A coin has this shape
square:a shape with four equal sides:A chess board has this shape
triangle:a shape with three sides:A slice of pizza has this shape
money:what you pay with:There are coins and notes
coin:a round piece of metal money:You can keep it in your pocket
gift:something that you give to somebody:People like to get one on their birthday
birthday:the day on which you were born:There is often a cake
holiday:a time without work or school:Many people travel then
dream:pictures and stories in your head while you sleep:It can be nice or strange
morning:the first part of the day:The sun comes up then
night:the dark part of the day:Most people sleep then
soap:a thing that makes your hands clean:You use it with water
brush:a tool with many hairs:You can paint or clean with it
ladder:a thing for climbing up:It has two long sides and many steps
hammer:a tool for hitting nails:It is heavy at one end
rope:a strong thick string:You can tie a boat with it
needle:a thin sharp tool for sewing:A thread goes through its eye
mill:a place where grain is made into flour:It is driven by water or wind
tent:a small house of cloth:You sleep in it when you camp
compass:a tool that points to the north:Sailors and hikers use it
telescope:a tool for looking at things far away:You can see the moon with it
microscope:a tool for looking at very small things:It is used in science""".split("\n"):
    noun, what, more = row.split(":")
    NOUNS[noun] = (what, more)
MASS = set("bread butter cheese honey soup tea coffee milk sugar salt rice grass snow ice rain wind thunder fire water air sand gold iron glass wood paper music money soap pizza cake".split())
UNIQUE = {"sun", "moon", "sky", "internet", "alphabet"}


def named(noun):
    return noun if noun in MASS else "the " + noun if noun in UNIQUE else an(noun)


def noun(rng):
    n = rng.choice(list(NOUNS))
    what, more = NOUNS[n]
    q = say(rng, ["What is <x>?", "What's <x>?", "What is <x>?", "Explain what <x> is.", "Tell me what <x> is.", "Do you know what <x> is?", "Can you explain what <x> is?", "Define the word <n>.", "What does the word <n> mean?", "What does <n> mean?", "Describe <x>.", "Tell me about <x>.", "Tell me something about <x>.", "What can you say about <x>?", "What do you know about <x>?"], x=named(n), n=n)
    return q, answer(rng, ["<x> is <w>. <m>.", "<x> is <w>. <m>.", "<x> is <w>."], x=named(n), w=what, m=more)


RHYMES = [g.split() for g in """cat hat bat mat rat|dog fog log frog|house mouse|tree bee sea key knee tea|moon spoon soon noon|star car far jar|sun fun run bun|night light bright kite|day play way say grey|rain train plane chain|cake lake snake make|boat goat coat float|ring king sing wing spring|fish dish wish|book cook look hook|ball wall tall fall small|bear chair hair pear|bed red head bread|box fox socks rocks|nose rose toes snows|cold gold old bold|snow blow go show|hand sand land band|town brown crown down|door floor four more|heart art part start|green queen seen bean|blue shoe two new|stone bone phone alone|tower flower hour power""".split("|")]
RHYMES = [g for g in RHYMES if len(g) > 1]
WORDS = sorted({w for g in RHYMES for w in g} | {n for n in NOUNS if len(n) <= 6} | set("cat dog cow horse sheep goat pig duck lion tiger bear wolf rabbit zebra monkey camel panda owl eagle snake spider ant whale shark red blue green yellow black white happy sad hot cold".split()))


def words(rng):
    r = rng.random()
    if r < 0.3:
        g = rng.choice(RHYMES)
        a, b = rng.sample(g, 2)
        q = say(rng, ["What rhymes with <a>?", "Which word rhymes with <a>?", "Find a rhyme for <a>.", "Give me a rhyme for <a>.", "Tell me a word that rhymes with <a>.", "I need a rhyme for <a>."], a=a)
        return q, answer(rng, ["<b> rhymes with <a>.", "a {word|rhyme} for <a> is <b>.", "<b> rhymes with <a>."], a=a, b=b)
    w = rng.choice(WORDS)
    if r < 0.5:
        q = say(rng, ["What is the first letter of <w>?", "Which letter does <w> start with?", "What letter does the word <w> begin with?", "With which letter does <w> begin?", "What's the first letter of the word <w>?"], w=w)
        return q, answer(rng, ["the first letter of <w> is <l>.", "the word <w> {starts|begins} with <l>.", "it is <l>."], w=w, l=w[0].upper())
    if r < 0.6:
        q = say(rng, ["What is the last letter of <w>?", "Which letter does <w> end with?", "What letter does the word <w> end with?"], w=w)
        return q, answer(rng, ["the last letter of <w> is <l>.", "the word <w> ends with <l>."], w=w, l=w[-1].upper())
    if r < 0.8:
        count = "zero one two three four five six seven eight nine ten eleven twelve".split()[len(w)]
        q = say(rng, ["How many letters does <w> have?", "How many letters are in <w>?", "How many letters are in the word <w>?", "Count the letters of <w>.", "How long is the word <w>?"], w=w)
        return q, answer(rng, ["the word <w> has <n> letters{: <s>|}.", "there are <n> letters in <w>{: <s>|}."], w=w, n=count, s="-".join(w.upper()))
    q = say(rng, ["Spell <w>.", "How do you spell <w>?", "Can you spell the word <w>?", "Please spell <w>.", "Spell the word <w>."], w=w)
    return q, answer(rng, ["<s>.", "<w> is spelled <s>.", "you spell it <s>."], w=w, s="-".join(w.upper()))


PLANETS = dict(Mercury="the smallest planet and the one closest to the sun", Venus="the hottest planet, wrapped in thick clouds", Earth="the planet we live on, with land, sea and air", Mars="the red planet, dry and cold", Jupiter="the largest planet, a huge ball of gas", Saturn="the planet with the wide rings", Uranus="a cold blue-green planet that lies on its side", Neptune="the planet farthest from the sun, cold and blue")
UNITS = [("metre", "centimetres", "a hundred"), ("kilometre", "metres", "a thousand"), ("kilogram", "grams", "a thousand"), ("minute", "seconds", "sixty"), ("hour", "minutes", "sixty"), ("day", "hours", "twenty-four"), ("week", "days", "seven"), ("year", "months", "twelve"), ("litre", "millilitres", "a thousand"), ("centimetre", "millimetres", "ten"), ("dozen", "things", "twelve"), ("century", "years", "a hundred"), ("decade", "years", "ten"), ("ton", "kilograms", "a thousand")]
FACTS = [
    (["Which planet is the largest?", "What is the largest planet?", "What is the biggest planet?"], ["The largest planet is Jupiter.", "Jupiter is the {largest|biggest} planet{ of our solar system|}."]),
    (["Which planet is the smallest?", "What is the smallest planet?"], ["The smallest planet is Mercury.", "Mercury is the smallest planet."]),
    (["Which planet has rings?", "What planet has big rings?"], ["Saturn is famous for its rings.", "Saturn has wide rings."]),
    (["Which planet is red?", "What is the red planet?", "Which planet is called the red planet?"], ["Mars is the red planet.", "Mars is called the red planet."]),
    (["Which planet is closest to the sun?", "What planet is nearest to the sun?"], ["Mercury is the closest to the sun."]),
    (["Which planet do we live on?", "On which planet do we live?", "What is our planet called?"], ["We live on the Earth."]),
    (["How many planets are there?", "Name the planets.", "List the planets.", "How many planets does the solar system have?", "What are the planets?"], [f"There are eight planets: {join(PLANETS)}.", f"The eight planets are {join(PLANETS)}."]),
    (["What is the largest animal?", "What is the biggest animal?", "Which animal is the largest?"], ["The blue whale is the largest animal.", "The largest animal is the blue whale."]),
    (["What is the tallest animal?", "Which animal is the tallest?"], ["The giraffe is the tallest animal."]), (["What is the fastest animal?", "Which land animal is the fastest?"], ["The cheetah is the fastest animal on land."]),
    (["What is the highest mountain?", "Which mountain is the highest?", "What is the highest mountain in the world?"], ["Mount Everest is the highest mountain in the world."]),
    (["What is the largest ocean?", "Which ocean is the largest?"], ["The Pacific Ocean is the largest ocean."]), (["What is the largest continent?", "Which continent is the largest?"], ["Asia is the largest continent."]),
    (["Name the continents.", "How many continents are there?", "What are the continents?"], ["There are seven continents: Africa, Antarctica, Asia, Australia, Europe, North America and South America."]),
    (["At what temperature does water boil?", "When does water boil?", "How hot is boiling water?"], ["Water boils at 100 degrees Celsius."]), (["When does water freeze?", "At what temperature does water freeze?"], ["Water freezes at 0 degrees Celsius."]),
    (["Why is the sky blue?", "Why does the sky look blue?"], ["The air scatters blue light more than red light, so the sky looks blue."]), (["Why is the grass green?", "Why are leaves green?"], ["Leaves and grass are green because of a green dye called chlorophyll, which catches sunlight."]),
    (["Where does the sun rise?", "In which direction does the sun rise?"], ["The sun rises in the east."]), (["Where does the sun set?", "In which direction does the sun set?"], ["The sun sets in the west."]),
    (["How many letters are in the alphabet?", "How many letters does the alphabet have?"], ["The English alphabet has twenty-six letters."]), (["What are the vowels?", "Name the vowels.", "Which letters are vowels?"], ["The vowels are A, E, I, O and U."]),
    (["How many fingers does a hand have?", "How many fingers are on one hand?"], ["A hand has five fingers."]), (["How many sides does a triangle have?", "How many corners does a triangle have?"], ["A triangle has three sides and three corners."]),
    (["How many sides does a square have?", "How many corners does a square have?"], ["A square has four equal sides and four corners."]), (["What are the primary colours?", "Name the primary colors."], ["The primary colours of paint are red, yellow and blue."]),
    (["What do you get when you mix blue and yellow?", "What colour do blue and yellow make?", "Mix blue and yellow."], ["Blue and yellow make green."]), (["What do you get when you mix red and yellow?", "What colour do red and yellow make?"], ["Red and yellow make orange."]),
    (["What do you get when you mix red and blue?", "What colour do red and blue make?"], ["Red and blue make purple."]), (["What do plants need to grow?", "What does a plant need?", "How do plants grow?"], ["Plants need water, light, air and soil to grow."]),
    (["Can penguins fly?", "Can a penguin fly?", "Do penguins fly?"], ["No, penguins cannot fly, but they swim very well."]), (["Can fish fly?", "Can a dog fly?", "Can pigs fly?", "Can a cat fly?", "Can cows fly?"], ["No, {they|such animals} cannot fly."]),
    (["Can birds fly?", "Can a bird fly?"], ["Yes, most birds can fly."]), (["Do fish live in water?", "Where do fish live?"], ["{Yes, f|F}ish live in water."]), (["Is the Earth round?", "Is the Earth flat?"], ["The Earth is round{, like a ball|}."]),
    (["Is the sun a star?", "Is the sun a planet?"], ["The sun is a star."]), (["Is a whale a fish?", "Are whales fish?"], ["No, a whale is a mammal that lives in the sea."]), (["Is water wet?"], ["Yes, water is wet."]), (["Is fire hot?", "Is ice cold?"], ["Yes, {of course|that is true}."]), (["Where does milk come from?", "Who gives milk?"], ["Milk comes from cows."]),
    (["Where does honey come from?", "Who makes honey?"], ["Bees make honey."]), (["What do cows drink?", "What should I drink?"], ["Water is always good."]), (["Which animal gives wool?", "Where does wool come from?"], ["Wool comes from sheep."]), (["Which animal barks?", "Who barks?"], ["Dogs bark."]), (["Which animal meows?", "Who meows?"], ["Cats meow."]),
    (["What are the colours of the rainbow?", "Which colours does a rainbow have?", "Name the colours of the rainbow."], ["The colours of the rainbow are red, orange, yellow, green, blue, indigo and violet."]),
]


def facts(rng):
    r = rng.random()
    if r < 0.25:
        p = rng.choice(list(PLANETS))
        q = say(rng, ["Tell me about <p>.", "What is <p>?", "What do you know about <p>?", "Describe <p>.", "Describe the planet <p>."], p=p)
        return q, answer(rng, ["<p> is <w>.", "<p> is <w>. It is the <o> planet from the sun."], p=p, w=PLANETS[p], o=ORDER[list(PLANETS).index(p)])
    if r < 0.5:
        big, small, n = rng.choice(UNITS)
        q = say(rng, ["How many <s> are in <b>?", "How many <s> does <b> have?", "How many <s> are there in <b>?", "How many <s> make <b>?"], s=small, b="an hour" if big == "hour" else an(big))
        return q, answer(rng, ["<b> has <n> <s>.", "there are <n> <s> in <b>."], s=small, n=n, b="an hour" if big == "hour" else an(big))
    questions, answers = rng.choice(FACTS)
    return say(rng, questions), answer(rng, answers)


TOPICS = {"noun": (20, noun), "words": (16, words), "facts": (9, facts)}
