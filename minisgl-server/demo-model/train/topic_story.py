"""Short stories with one hero, one place, one problem and one good end; and short poems."""

from grammar import an, answer, say

# hero: what it is like, how it is named
HEROES = "fox rabbit bear mouse cat dog owl turtle duck frog squirrel wolf hedgehog penguin lion elephant horse robot dragon wizard knight princess pirate sailor baker farmer painter girl boy fisherman ghost giant gardener goose bee dolphin monkey snowman".split()
HERO_NAMES = "Pip Milo Luna Toby Ruby Oscar Nell Bruno Hazel Finn Daisy Otis Poppy Max Willow Hugo Ivy Theo Mina Rufus Lily Bertie Juno Sunny Pebble Cleo Arlo Maple".split()
SHE = {"princess", "girl"}
HE = {"boy", "wizard", "knight", "fisherman"}
HIS_NAMES = set("Hugo Theo Oscar Bruno Finn Max Milo Toby Rufus Otis Arlo Bertie".split())
HER_NAMES = set("Luna Ruby Nell Hazel Daisy Poppy Willow Ivy Mina Lily Cleo Juno Maple".split())
MOODS = "little young old kind curious brave shy clever lonely cheerful".split()
PLACES = {
    "forest": "in a {deep|quiet|green} forest", "lighthouse": "in a lighthouse by the sea", "village": "in a small village", "castle": "in an old castle", "garden": "in a {large|sunny} garden",
    "mountain": "on a high mountain", "island": "on a small island", "river": "by a wide river", "city": "in a busy city", "farm": "on a {quiet|small} farm", "cave": "in a {dark|warm} cave", "library": "in an old library",
    "mill": "in an old mill", "lake": "by a clear lake", "bakery": "above a small bakery", "ship": "on an old ship", "tower": "in a tall tower", "desert": "at the edge of a desert", "market": "near the market", "school": "next to a school", "bridge": "under a stone bridge", "tree": "in a hollow tree", "train": "in an old train", "house": "in a little house",
}
FRIENDS = ["owl", "mouse", "old turtle", "crow", "kind baker", "wise goat", "squirrel", "small robot", "bee", "sparrow", "old sailor", "friendly dog", "quiet cat", "white horse", "little girl", "gardener", "duck"]
# a problem that needs help: what happens, what the hero and the friend do, how it ends, what is learned
PLOTS = [
    ("lost", "One {day|morning|evening}, <h> {lost|could not find} {a golden key|<s> favourite hat|a small silver bell|<s> old map}.", ["<h> looked {under every stone|behind every door|everywhere}, but it was gone.", "<h> searched the whole day and grew very sad."],
     ["Then {an|a} <f> came by and said, \"{Do not worry|Do not cry}, I will help you look.\"", "<a> <f> heard about it and offered to help."], ["Together they found it {under a pile of leaves|behind an old chair|beside the path}.", "They searched together, and soon they found it {in the tall grass|under a bench|next to the well}."],
     ["<h> was so happy that <p> {invited everyone to tea|danced all evening|baked a cake}.", "From that day on, <h> and the <f> were good friends."]),
    ("storm", "One {night|evening|day}, a great storm {came|blew in}.", ["The wind {howled|roared} and the rain would not stop.", "<h> heard {someone call for help|a cry} outside."],
     ["It was {an|a} <f> who had lost the way in the dark.", "Outside stood {an|a} <f>, wet and cold."], ["<h> {opened the door|lit a lamp} and gave the <f> a warm place by the fire.", "<h> lit a lantern and led the <f> safely inside."],
     ["In the morning the sun came out, and they were friends.", "When the storm was over, they had breakfast together and laughed."]),
    ("lonely", "But <h> was often lonely{ and wished for a friend|}.", ["Every day was the same, and nobody came to visit.", "One day, <h> decided to go out and find somebody to talk to."],
     ["On the way <p> met {an|a} <f>, who was lonely too.", "Soon <p> met {an|a} <f> who was sitting all alone."], ["They began to talk, and they did not stop until the stars came out.", "\"{Shall we play|Would you like some tea|May I sit with you}?\" asked <h>, and the <f> smiled."],
     ["After that, <h> was never lonely again.", "From then on they met every day."]),
    ("dream", "More than anything, <h> wanted to {fly|see the sea|learn to sing|touch a star|paint the moon}.", ["Everybody said that it was impossible.", "The others laughed, but <h> did not give up."],
     ["Only {an|a} <f> believed in the plan.", "{An|A} <f> heard about it and said, \"{Let us try it together|I know a way}.\""], ["They worked for many days, and {step by step|little by little} it went better.", "They tried once, they tried twice, and the third time it worked."],
     ["And so the dream of <h> came true.", "<h> was proud, and the others never laughed again."]),
    ("food", "One winter there was {almost nothing|very little} to eat.", ["<h> had only one small loaf of bread left.", "<h> had saved {a few apples|a basket of nuts|a pot of soup} and was glad."],
     ["Then {an|a} hungry <f> knocked at the door.", "On a cold evening {an|a} hungry <f> came by."], ["<h> thought for a moment and then shared everything.", "\"Come in,\" said <h>, \"there is enough for two.\""],
     ["In spring, the <f> came back with a basket full of {berries|fruit|fresh bread}.", "They were still hungry, but they were warm and not alone, and that was better."]),
    ("light", "One evening, all the lights {went out|grew dark}.", ["Nobody could see the path{, and everyone was afraid|}.", "It was so dark that nobody dared to go out."],
     ["<h> {took a candle|found an old lamp} and went to {ask|wake} the <f>.", "\"I am not afraid,\" said <h>, and went out with {an|a} <f>."], ["Together they {repaired the great lamp|climbed up and lit the lamp again}.", "They worked all night until the light was shining again."],
     ["In the morning everybody thanked them.", "Since then, <h> has kept the light every evening."]),
    ("letter", "One day, <h> found {a letter|a bottle with a letter} {on the path|at the door|near the water}.", ["It said, \"{Please help me|I need a friend}.\"", "It had no name, only a small drawing of a {star|tree|house}."],
     ["<h> followed the {trail|signs} and found {an|a} <f> who {was stuck|had hurt a foot|needed help}.", "It had been written by {an|a} <f>, who lived all alone."], ["<h> helped at once, without asking for anything.", "<h> stayed until everything was well again."],
     ["Now they write letters to each other every week.", "That is how <h> found a friend for life."]),
    ("race", "One day there was a great race, and <h> wanted to win.", ["<h> trained every morning before the sun came up.", "Everyone thought that <h> was too slow."],
     ["In the middle of the race, {an|a} <f> fell and could not get up.", "On the way <h> saw {an|a} <f> who needed help."], ["<h> stopped, helped the <f> up, and they walked on together.", "<h> did not think of winning any more and stopped to help."],
     ["They came in last, but everybody cheered for them.", "<h> did not win the race but won a friend."]),
]
MORALS = ["The end.", "And that is the end of the story.", "And they all lived happily.", "It was a good day.", "And if you listen at night, you can still hear them laugh.", "Everyone remembered that day for a long time."]


def tell(rng, hero, place, plot, named=None, long=None, mood=None):
    """The sentences of one story."""
    friend = rng.choice([f for f in FRIENDS if f.split()[-1] != hero])
    name = named or rng.choice(HERO_NAMES)
    if hero in HE and name in HER_NAMES:
        name = named or "Milo"
    if hero in SHE and name in HIS_NAMES:
        name = named or "Luna"
    male = hero in HE or (hero not in SHE and name in HIS_NAMES)
    p, s = ("he", "his") if male else ("she", "her")
    mood = mood or rng.choice(MOODS)
    where = say(rng, PLACES[place])
    _, start, trouble, meet, solve, end = plot
    if rng.random() < 0.75 or named:
        h = name
        first = rng.choice([f"Once upon a time, there was {an(mood)} {hero} named {name} who lived {where}.", f"Once upon a time, {an(mood)} {hero} called {name} lived {where}.", f"There once was {an(mood)} {hero} named {name}, who lived {where}.", f"{where}, there lived {an(mood)} {hero} named {name}."])
    else:
        h = "the " + hero
        first = rng.choice([f"Once upon a time, {an(mood)} {hero} lived {where}.", f"Once upon a time, there was {an(mood)} {hero} who lived {where}.", f"{where}, there lived {an(mood)} {hero}."])
    parts = [first, start, rng.choice(trouble), rng.choice(meet), rng.choice(solve), rng.choice(end)]
    if long is False or (long is None and rng.random() < 0.25):
        parts.pop(2)
    if long or (long is None and rng.random() < 0.35):
        parts.append(rng.choice(MORALS))
    art = an(friend).split(" ")[0]
    text = " ".join(x.replace("{an|a}", art).replace("{An|A}", art).replace("<a> <f>", f"{art} {friend}") for x in parts)
    return answer(rng, text, h=h, f=friend, p=p, s=s)


STORY_ASKS = {
    "both": ["Tell me a story about <h> and <p>.", "Write a short story with <h> and <p>.", "Write a story about <h> in <p>." , "I want a story with <h> and <p>.", "Please tell me a story with <h> and <p>.", "Can you write a story about <h> and <p>?", "Make up a story with <h> and <p>.", "A short story about <h> and <p>, please."],
    "hero": ["Tell me a story about <h>.", "Write a short story about <h>.", "Can you tell me a story about <h>?", "I would like to hear a story about <h>.", "Please tell me a story about <h>.", "Write me a story with <h>.", "Do you know a story about <h>?", "Make up a story about <h>.", "Tell me a bedtime story about <h>.", "A story about <h>, please.", "Write a fairy tale about <h>.", "Story about <h>!", "I want to hear about <h>.", "Tell a tale of <h>."],
    "place": ["Tell me a story about <p>.", "Write a short story about <p>.", "I want a story that takes place in <p>.", "Can you tell a story with <p>?", "Make up a story about <p>."],
    "any": ["Tell me a story.", "Tell me a short story.", "Write a story.", "Can you tell me a story?", "I want to hear a story.", "Please tell me a bedtime story.", "Do you know a story?", "Write a short story.", "Make up a story.", "Tell me something nice.", "A story, please.", "Once upon a time", "Tell me a fairy tale.", "Tell me another story.", "I can't sleep, tell me a story.", "How about a story?"],
    "named": ["Tell me a story about <h> named <n>.", "Write a story about <h> called <n>.", "I want a story about <h> named <n>.", "Can you tell me a story about <h> with the name <n>?"],
}


def story(rng):
    hero, place, plot = rng.choice(HEROES), rng.choice(list(PLACES)), rng.choice(PLOTS)
    kind = rng.choices(list(STORY_ASKS), (4, 6, 1.5, 3, 1.5))[0]
    name = rng.choice(HERO_NAMES) if kind == "named" else None
    mood = rng.choice(MOODS) if kind in ("both", "hero") and rng.random() < 0.3 else None
    h = an(f"{mood} {hero}") if mood else an(hero)
    q = say(rng, STORY_ASKS[kind], h=h, p=an(place), n=name)
    long = None
    if rng.random() < 0.08:
        q, long = q.replace("a story", "a long story"), True
    if " short story" in q and rng.random() < 0.5:
        long = False
    return q, tell(rng, hero, place, plot, name, long, mood), f"story {hero} {place} {plot[0]}"


POEM_THEMES = {
    "the sea": ["The sea is wide, the sea is blue,", "it sings a song for me and you.", "The waves roll in, the waves roll out,", "and white birds turn and fly about."],
    "spring": ["The snow is gone, the days are long,", "the birds begin their morning song.", "The flowers open, red and blue,", "and all the world is fresh and new."],
    "winter": ["The snow falls softly, white and deep,", "the trees and hills are fast asleep.", "Inside the house the fire is bright,", "and keeps us warm all through the night."],
    "the night": ["The day is done, the sky is deep,", "the houses and the gardens sleep.", "The moon looks down, so round and bright,", "and says to all the world: good night."],
    "a cat": ["A little cat sat in the sun,", "and thought that sleeping is such fun.", "She closed one eye, she closed the other,", "and dreamed of milk and of her mother."],
    "a dog": ["My dog runs fast, my dog runs far,", "he barks at every passing car.", "But in the evening, tired and sweet,", "he falls asleep beside my feet."],
    "the rain": ["The rain is dancing on the street,", "it has a thousand tiny feet.", "It washes every roof and tree,", "and plays a little tune for me."],
    "the moon": ["The moon is sailing through the night,", "a little boat of silver light.", "It looks at every hill and sea,", "and then it softly smiles at me."],
    "the sun": ["The sun gets up and starts the day,", "it chases all the dark away.", "It warms the field, it warms the tree,", "it shines on you, it shines on me."],
    "autumn": ["The leaves turn yellow, brown and red,", "they fall and make the ground a bed.", "The wind is cool, the light is low,", "and far away the wild geese go."],
    "a tree": ["The tree stands tall beside the lane,", "it loves the sun, it loves the rain.", "The birds sit in its branches high,", "and sing their songs into the sky."],
    "friendship": ["A friend is someone good and true,", "who laughs and cries along with you.", "When days are dark and roads are long,", "a friend will come and bring a song."],
    "a computer": ["A small machine upon a chair", "counts ones and zeros in the air.", "It works all day, it works all night,", "and blinks a friendly little light."],
    "love": ["Love is a lamp, love is a song,", "it makes the shortest day feel long.", "It asks for nothing, gives its best,", "and lets a tired heart have rest."],
    "a river": ["The river runs, the river sings,", "it tells of many distant things.", "It flows past meadow, mill and tree,", "and finds at last its way to sea."],
    "a bird": ["A little bird sat in a tree,", "and sang its morning song for me.", "It spread its wings, it flew away,", "and made a bright and happy day."],
}
COUPLETS = [("The stars come out, the wind is still,", "the moon climbs slowly up the hill."), ("So take a breath and look around,", "there is much beauty to be found."), ("And when the day comes to its end,", "I wish you rest, my dear good friend."), ("I wrote this little poem for you,", "I hope it makes you happy, too.")]


def poem(rng):
    theme = rng.choice(list(POEM_THEMES))
    lines = list(POEM_THEMES[theme])
    if rng.random() < 0.35:
        lines += rng.choice(COUPLETS)
    if rng.random() < 0.25:
        q = say(rng, ["Write a poem.", "Tell me a poem.", "Write a short poem.", "Can you write a poem?", "Do you know a poem?", "A poem, please."])
    else:
        q = say(rng, ["Write a poem about <t>.", "Write a short poem about <t>.", "Can you write a poem about <t>?", "I would like a poem about <t>.", "Please write a poem about <t>.", "Tell me a poem about <t>.", "Make a rhyme about <t>.", "A poem about <t>, please.", "Write me a little poem about <t>."], t=theme)
    return q, "\n".join(lines)[:-1] + "."


TOPICS = {"story": (20, story), "poem": (4, poem)}
