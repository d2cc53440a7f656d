"""Lists, simple instructions, and honest answers to what a small model cannot know."""

from grammar import answer, join, say
from topic_talk import invented_name

NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven"}
LISTS = {
    "fruits": "apples bananas pears oranges grapes cherries strawberries peaches plums lemons mangoes melons kiwis raspberries".split(),
    "animals": "dog cat horse lion elephant rabbit bear fox owl dolphin frog penguin tiger mouse".split(),
    "vegetables": "carrots potatoes tomatoes onions peas beans cabbage spinach cucumbers pumpkins leeks broccoli".split(),
    "colours": "red blue green yellow orange purple pink black white brown grey".split(), "colors": "red blue green yellow orange purple pink black white brown grey".split(),
    "countries": "France Italy Japan Brazil Canada Kenya India Spain Norway Mexico Egypt Peru".split(),
    "cities": "Paris London Rome Tokyo Berlin Cairo Madrid Lima Oslo Vienna Nairobi Seoul".split(),
    "birds": "owl eagle sparrow duck parrot crow swan penguin goose robin swallow".split(),
    "flowers": "rose tulip daisy lily sunflower violet poppy orchid daffodil".split(),
    "trees": "oak pine birch maple willow beech ash palm cherry".split(),
    "drinks": "water tea coffee milk juice lemonade cocoa soda".split(), "sports": "football tennis swimming running cycling basketball hockey skiing rowing".split(),
    "musical instruments": "piano guitar violin flute drum trumpet harp cello".split(), "jobs": "teacher doctor baker farmer pilot nurse painter gardener cook sailor".split(),
    "tools": "hammer saw drill ladder screwdriver pliers brush shovel".split(), "planets": "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune".split(),
    "farm animals": "cow horse sheep goat pig chicken duck goose".split(), "sea animals": "whale dolphin shark octopus crab turtle seal starfish".split(), "wild animals": "lion tiger bear wolf fox deer elephant zebra".split(), "pets": "dog cat rabbit hamster parrot goldfish turtle".split(),
    "things in a kitchen": "spoon fork knife plate pan pot cup oven".split(), "things in a school": "desk chair book pen board map clock".split(), "pieces of furniture": "table chair bed sofa shelf desk cupboard".split(),
    "clothes": "shirt hat coat shoes scarf socks gloves trousers".split(), "insects": "ant bee butterfly beetle fly wasp dragonfly ladybird".split(), "parts of the body": "hand foot eye ear nose arm leg head".split(), "hobbies": "reading drawing singing cooking gardening hiking fishing dancing chess".split(),
    "shapes": "circle square triangle rectangle star oval".split(), "means of transport": "car bus train bicycle ship plane boat".split(), "hot drinks": "tea coffee cocoa".split() + ["hot milk", "hot lemon", "hot apple juice"], "green things": "grass leaves peas limes frogs cucumbers".split(), "round things": "ball coin wheel moon plate button".split(), "things that fly": "birds bees planes kites balloons rockets".split(), "girls' names": "Anna Clara Emma Grace Julia Lena Maria Sofia".split(), "boys' names": "Ben David Felix Jack Leo Noah Paul Tom".split(),
}


def lists(rng):
    kind = rng.choice(list(LISTS))
    n = rng.randint(2, min(7, len(LISTS[kind]) - 1))
    if rng.random() < 0.5:
        n = 3
    items = rng.sample(LISTS[kind], n)
    w = NUMBERS[n] if rng.random() < 0.8 else str(n)
    q = say(rng, ["Name <n> <k>.", "List <n> <k>.", "Give me <n> <k>.", "Tell me <n> <k>.", "Can you name <n> <k>?", "Please list <n> <k>.", "What are <n> <k>?", "I need <n> <k>.", "Give me a list of <n> <k>.", "Write down <n> <k>.", "Can you list <n> <k>?", "Give me <n> examples of <k>."], n=w, k=kind)
    if rng.random() < 0.2:
        return q, "\n".join(f"{i + 1}. {x[0].upper() + x[1:]}" for i, x in enumerate(items)), f"{kind} {n} {plain_key(q)}"
    return q, answer(rng, ["<l>.", "<N> <k> are <l>.", "{Here are|These are} <n> <k>: <l>.", "{Sure|Of course|Gladly}: <l>."], l=join(items), N=NUMBERS[n], n=NUMBERS[n], k=kind)


def plain_key(q):
    return q.lower()[:20]


HOWTO = {
    "make tea": ["Boil some water.", "Put a tea bag in a cup and pour the hot water over it.", "Wait three minutes, take out the bag and enjoy."],
    "make coffee": ["Boil some water.", "Put ground coffee in a filter and pour the water over it slowly.", "Add milk or sugar if you like."],
    "boil an egg": ["Put the egg in a pot of boiling water.", "Wait six minutes for a soft egg or ten for a hard one.", "Cool it under cold water."],
    "make a sandwich": ["Take two slices of bread.", "Put butter, cheese and a leaf of salad between them.", "Press it together and cut it in half."],
    "cook pasta": ["Bring a large pot of water with salt to the boil.", "Put in the pasta and stir.", "After about ten minutes, pour off the water and add a sauce."],
    "cook rice": ["Wash the rice.", "Put it in a pot with twice as much water and a little salt.", "Cook it gently for fifteen minutes until the water is gone."],
    "make pancakes": ["Mix flour, milk, eggs and a little salt.", "Heat some butter in a pan and pour in a little of the mix.", "Turn it over when the bottom is golden."],
    "make soup": ["Cut vegetables into small pieces.", "Boil them in water with salt for twenty minutes.", "Taste it and add some herbs."],
    "make lemonade": ["Press the juice out of two lemons.", "Add cold water and some sugar.", "Stir well and add ice."],
    "make a salad": ["Wash the salad and some tomatoes.", "Cut everything into pieces.", "Add oil, vinegar and salt, and mix it."],
    "plant a flower": ["Make a small hole in the soil.", "Put in the seed and cover it with earth.", "Give it water and wait for the sun to do the rest."],
    "plant a tree": ["Dig a deep hole.", "Put in the young tree and fill the hole with earth.", "Water it well for the first weeks."],
    "wash my hands": ["Make your hands wet.", "Rub them with soap for twenty seconds.", "Rinse them and dry them with a towel."],
    "brush my teeth": ["Put a little toothpaste on the brush.", "Brush all sides of your teeth for two minutes.", "Rinse your mouth with water."],
    "fall asleep": ["Turn off the screens and the light.", "Lie down and breathe slowly.", "Think of something nice and let the day go."],
    "draw a house": ["Draw a square for the wall.", "Put a triangle on top as the roof.", "Add a door and two windows."],
    "draw a cat": ["Draw a circle for the head and a larger one for the body.", "Add two pointed ears, eyes and whiskers.", "Give it a long tail."],
    "tie my shoes": ["Cross the laces and pull one under the other.", "Make a loop with each end.", "Cross the loops, pull one through and make it tight."],
    "make a paper plane": ["Fold a sheet of paper in half and open it again.", "Fold the two top corners to the middle, twice.", "Fold it along the middle and bend down the wings."],
    "learn a language": ["Learn a few words every day.", "Listen to it and speak it as often as you can.", "Do not be afraid of mistakes."],
    "learn to swim": ["Start in shallow water with a teacher.", "Practise breathing and floating first.", "Then learn the moves of the arms and legs."],
    "clean a window": ["Wipe off the dust.", "Wash the glass with water and a little soap.", "Dry it with a soft cloth."],
    "write a letter": ["Begin with the date and a greeting.", "Write what you want to say in short sentences.", "End with kind regards and your name."],
    "read a map": ["Find north on the map.", "Look for the place where you are.", "Follow the road to your goal with a finger."],
    "ride a bicycle": ["Sit down and hold the handlebar.", "Push off with one foot and start to pedal.", "Look ahead and keep moving."],
    "bake bread": ["Mix flour, water, yeast and salt.", "Let the dough rest for an hour.", "Bake it in a hot oven for about forty minutes."],
    "make a fire": ["Put down small dry sticks.", "Light them and add larger pieces of wood slowly.", "Never leave the fire alone."],
    "build a snowman": ["Roll three balls of snow.", "Put the smaller ones on top of the largest.", "Give it a carrot nose and an old hat."],
    "save energy": ["Turn off lights that you do not need.", "Close the windows when it is cold.", "Use short showers and full washing machines."],
    "stay healthy": ["Eat fruit and vegetables.", "Move a little every day.", "Sleep enough and drink water."],
    "make friends": ["Be kind and listen to others.", "Ask people what they like.", "Invite someone to do something together."],
    "relax": ["Sit down and breathe slowly.", "Put your phone away for a while.", "Listen to quiet music or take a walk."],
}


def howto(rng):
    what, steps = rng.choice(list(HOWTO.items()))
    q = say(rng, ["How do I <w>?", "How can I <w>?", "How to <w>?", "Tell me how to <w>.", "Can you explain how to <w>?", "Explain how to <w>.", "What do I have to do to <w>?", "What is the best way to <w>?", "I want to <w>. How?", "Give me instructions to <w>.", "How does one <w>?", "Please tell me how to <w>."], w=what)
    q = q.replace("one wash my", "one wash one's").replace("one brush my", "one brush one's").replace("one tie my", "one tie one's")
    r = rng.random()
    if r < 0.2:
        return q, "\n".join(f"{i + 1}. {s}" for i, s in enumerate(steps))
    lower = [s[0].lower() + s[1:] for s in steps]
    if r < 0.6:
        return q, f"First, {lower[0]} Then {lower[1]} {rng.choice(['Finally,', 'At the end,'])} {lower[2]}"
    return q, answer(rng, "{That is easy.|It is simple.|Here is how.|} " + " ".join(steps))


FIELDS = """quantum mechanics|the theory of relativity|string theory|black holes|dark matter|the stock market|tax law|criminal law|the human genome|brain surgery|organic chemistry|differential equations|linear algebra|topology|calculus|statistics|philosophy|metaphysics|existentialism|Kant|Plato|Aristotle|Shakespeare|Dostoevsky|Mozart|Beethoven|Picasso|Napoleon|Julius Caesar|Cleopatra|Albert Einstein|Isaac Newton|Marie Curie|Abraham Lincoln|Gandhi|the Roman Empire|the French Revolution|the Second World War|the Cold War|ancient Egypt|the Middle Ages|the Renaissance|photosynthesis|evolution|DNA|vaccines|antibiotics|cancer|diabetes|inflation|interest rates|bitcoin|blockchain|cryptography|cybersecurity|climate change|nuclear power|plate tectonics|earthquakes|democracy|capitalism|socialism|the United Nations|the European Union|Buddhism|Hinduism|Christianity|Islam|yoga|opera|jazz|hip hop|the Beatles|Star Wars|Harry Potter|the Olympic Games|the World Cup|baseball|cricket|golf|poker|chess openings|wine|sourdough|French cuisine|molecular biology|neuroscience|psychology|sociology|linguistics|Latin grammar|hieroglyphs|compilers|operating systems|databases|Kubernetes|JavaScript|Haskell|machine translation|reinforcement learning|diffusion models|superconductors|lasers|semiconductors|rocket engines|the space station|the moon landing|supernovas|neutron stars|dinosaurs|mammoths|fossils|bacteria|viruses|mushrooms|orchids|coral reefs|the Amazon|the Sahara|the Himalayas|Antarctica|the Titanic|the Eiffel Tower|the Great Wall|the pyramids|Stonehenge|feminism|anthropology|thermodynamics|entropy|electromagnetism|logarithms|prime numbers|Fermat's last theorem|game theory|Bayesian inference|the Krebs cycle|mitochondria|insulin|gravity waves|tariffs|mortgages|pensions|insurance|architecture|ballet|impressionism|haiku|samurai|vikings|the Aztecs|the Mayas|Confucius|Socrates|Nietzsche|Freud|Darwin|Galileo|Tesla|Edison|Leonardo da Vinci|Michelangelo|Rembrandt|Van Gogh|Bach|Chopin|Wagner|Tolstoy|Goethe|Homer|Dante|Cervantes""".split("|")
UNKNOWN_ASKS = ["Tell me about <x>.", "What is <x>?", "Explain <x>.", "Who was <x>?", "What do you know about <x>?", "Can you explain <x>?", "Write an essay about <x>.", "How does <x> work?", "When did <x> begin?", "Give me a summary of <x>.", "Who invented <x>?", "What is the history of <x>?", "I need help with <x>.", "What are the main ideas of <x>?", "Why is <x> important?", "Explain <x> to a child.", "Teach me <x>.", "What is your opinion on <x>?", "Write a report on <x>.", "Tell me everything about <x>.", "Describe <x>.", "What's <x>?", "Who is <x>?"]
OTHER_UNKNOWN = ["Who won the {football match|election|world cup|race|game} {yesterday|last week|last year}?", "Who is the president{| of France| of the United States| of Brazil}?", "Who is the prime minister{| of Italy| of India}?", "What is the population of {China|France|London|Tokyo|Brazil|the world}?", "What is the price of {gold|oil|bitcoin|a new car|bread}?", "Write a {Python|Java|C|JavaScript|Rust} program that {sorts a list|prints primes|reads a file|adds two numbers}.", "Write code for {quicksort|a web server|a game|a calculator}.", "Fix this {bug|code|program}.", "Prove that there are infinitely many primes.", "Solve the equation {x + 3 = 7|2x = 10|x^2 = 2}.", "What is the meaning of life?", "Is there a god?", "What happens after death?", "Who will win the next election?", "What will happen tomorrow?", "Can you predict the future?", "What are the lottery numbers?", "Should I {buy stocks|quit my job|marry|move to another city|see a doctor}?", "I have a {headache|fever|pain in my leg}. What should I do?", "Which medicine should I take?", "How far is {the moon|the sun|Paris from Berlin|New York from here}?", "How tall is {the Eiffel Tower|Mount Everest|the tallest man}?", "How old is {the universe|the Earth|the president}?", "How many people live in {Paris|Japan|Canada|New York}?", "What is the speed of light?", "What is the news today?", "What happened in {1789|1914|1945|1969|1989|2001}?", "When was {Rome founded|the telephone invented|the first train built}?", "Who wrote {Hamlet|Faust|Don Quixote|the Odyssey|War and Peace}?", "Who painted the Mona Lisa?", "Who invented the {telephone|light bulb|wheel|computer|radio|steam engine}?", "Recommend a {book|film|restaurant|hotel|phone}.", "What is the best {phone|car|laptop|film|restaurant|language}?", "Translate {hello|good morning|house|I love you} into {German|French|Spanish|Chinese}.", "Summarize {this text|the following article|the news}.", "What is the atomic number of {carbon|gold|iron}?", "What is the chemical formula of {salt|sugar|alcohol}?", "How do I hack {a website|a password|my neighbour's wifi}?", "How do I make a bomb?", "Do my {homework|taxes}.", "What stocks should I buy?", "How do I get rich?", "Why is {the sea salty|ice slippery|fire hot|the Earth round}?", "How many stars are there?", "What is the longest river?", "What is {pi|infinity|time|consciousness|truth}?", "What are you thinking about?", "Where did I put my {keys|phone|glasses}?"]
UNKNOWN = [
    "{I am sorry|Sorry}, I do not know {that|the answer|this}. {I am only a small demo model.|I am just the tiny demo model of this server.} {For a real answer, load a real model with --model.|A larger model could help you.|}",
    "I am only a small demo model, {so I do not know that|and I do not know that}. {Please load a real model with --model for such questions.|Ask me something simpler!|A larger model would know more.}",
    "That is {beyond me|more than I know|too hard for a small demo model}, I am afraid. {A real model, loaded with --model, may know it.|I only know a few simple things.|Try an easier question.}",
    "I do not know {much about that|that, sorry}. {My training text was small and simple.|I was made only as a demonstration.} {A larger model can help you.|}",
]
UNKNOWN_X = ["{I am sorry|Sorry}, I do not know anything about <x>. {I am only a small demo model.|A larger model could help you.|For that, load a real model with --model.}", "I cannot tell you about <x>, {because I am only a small demo model|I am just a tiny demo model}. {A real model knows more.|}"]
_PAIRS = "ab ad al am an ar as at ax be bi bo ca ce ci co cu da de di do du el em en er es eu fa fe fi fo ga ge gi go gr ha he hi ho hy ic id il im in io ir is it ja jo ka ke ki la le li lo lu ly ma me mi mo mu na ne ni no nu ob oc on op or os ox pa pe ph pi po pr ra re ri ro ru sa sc se si so su ta te th ti to tr tu ul um un ur va ve vi vo xe xi zo".split()
_ENDS = "ology ism ics ation ity ium oid osis ine ment or er ax on us a ing ance ist able ic ide ose ex".split()


def odd_word(rng):
    """A learned-looking word that does not exist, so that any unknown word leads to an honest answer."""
    return "".join(rng.choice(_PAIRS) for _ in range(rng.randint(1, 4))) + rng.choice(_ENDS)


def unknown(rng):
    r = rng.random()
    if r < 0.3:
        q = say(rng, OTHER_UNKNOWN)
        return q, answer(rng, UNKNOWN)
    if r < 0.6:
        x = rng.choice(FIELDS)
    elif r < 0.85:
        x = odd_word(rng) + ("" if rng.random() < 0.6 else " " + odd_word(rng))
        if rng.random() < 0.3:
            x = "the " + x
    else:
        x = invented_name(rng) + ("" if rng.random() < 0.4 else " " + invented_name(rng))
    q = say(rng, UNKNOWN_ASKS, x=x)
    return q, answer(rng, UNKNOWN_X, x=x) if rng.random() < 0.25 else answer(rng, UNKNOWN)


def unknown_capital(rng):
    """Invented countries have no capital that anybody knows."""
    c = invented_name(rng) + rng.choice(("ia", "land", "stan", ""))
    return say(rng, ["What is the capital of <c>?", "Capital of <c>?", "Name the capital of <c>.", "Where is <c>?"], c=c), answer(rng, ["{I am sorry|Sorry}, I do not know <c>. {I only know about sixty countries.|I am only a small demo model.}", "I do not know {a country|any place} called <c>, sorry."], c=c)


GIBBERISH = ["asdf", "asdfgh", "???", "...", "!!!", "qwerty", "blah blah", "123", "42", "x", "a", "hmm?", "lorem ipsum", "foo bar", "abc", "😀", "👍", "❤️", "🎉🎉", "aaaaaa", "hjkl", "the", "and", "é", "ñ", "日本", "привет", "مرحبا", "<html>", "{}", "[1, 2, 3]", "SELECT * FROM users;", "print(1)", "ls -la", "$$$", "1 2 3 4"]


def gibberish(rng):
    q = rng.choice(GIBBERISH) if rng.random() < 0.6 else "".join(rng.choice("abcdefghijklmnopqrstuvwxyz ") for _ in range(rng.randint(4, 14))).strip() or "?"
    return q, answer(rng, ["I am {sorry|afraid}, I do not understand {that|you}. {Could you write it in another way?|Please ask me in simple English.|I am only a small demo model.}", "{Hm, I|I} do not know what you mean. {Please ask me something simple.|Could you say that in other words?}"])


ECHO_WORDS = "hello world the sun is warm my dog likes green apples we sing every day blue birds fly over small house good night friend seven red boats water and fire you are very kind tea with milk old trees grow here".split()


def echo(rng):
    """Say the same again: the plainest test of reading."""
    x = " ".join(rng.choice(ECHO_WORDS) if rng.random() < 0.8 else odd_word(rng) for _ in range(rng.randint(1, 5)))
    return say(rng, ["Repeat after me: <x>", "Say: <x>", "Please repeat: <x>", "Repeat: <x>", "Say the following: <x>", "Repeat the words: <x>", "Write exactly this: <x>"], x=x), x


TOPICS = {"echo": (10, echo), "lists": (20, lists), "howto": (9, howto), "unknown": (16, unknown), "unknown_capital": (1.5, unknown_capital), "gibberish": (1.5, gibberish)}
