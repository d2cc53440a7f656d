"""Small talk: greetings, thanks, moods, jokes, and things the user tells about themselves."""

from grammar import an, answer, say

NAMES = """Anna Ben Clara David Emma Felix Grace Henry Ida Jack Kate Leo Maria Noah Olivia Paul Quinn Rosa Sam Tina Ursula Victor Wendy Xavier
Yara Zoe Alex Bella Carlos Diana Erik Fatima George Hannah Ivan Julia Kenji Lena Marco Nina Omar Priya Ravi Sofia Tom Uma Vera Will Yuki Amir
Lucy Peter Sarah Mike John Mary Robert Linda James Laura Daniel Mei Chen Wei Ali Zara Tim Max Mia Ella Liam Aisha Hugo Otto Frida Nadia Pedro
Luis Carmen Pablo Ingrid Lars Sven Astrid Giulia Luca Matteo Chloe Louis Camille Anton Boris Olga Dmitri Kofi Ama Jomo Sanjay Deepa Arjun Hiro
Sakura Jin Minho Linh Thomas Andrew Alice Bob Charlie Dave Eve Frank Susan Nick Steve Kevin Brian Jane Amy Ruth Oscar Simon Martin Philip""".split()
_ONSET = "b br c ch d dr f fl g gr h j k kl l m n p pr qu r s sh st t th tr v w x y z".split()
_VOWEL = "a e i o u ai ee ia io oo".split()
_CODA = "n r l s x th m ck nd rt sh".split() + [""] * 8


def invented_name(rng):
    """A name nobody has, so that names must be copied and cannot be learned by heart."""
    parts = [rng.choice(_ONSET) + rng.choice(_VOWEL) + rng.choice(_CODA) for _ in range(rng.choice((1, 2, 2, 3)))]
    return "".join(parts).capitalize()


def any_name(rng):
    return rng.choice(NAMES) if rng.random() < 0.4 else invented_name(rng)


TALK = [
    (["Hello", "Hello!", "Hi", "Hi!", "Hey", "Hey!", "Hi there!", "Hello there!", "Hey there", "Hello, anyone there?", "Hello, world!", "Greetings!", "Howdy", "Yo", "Hiya", "Good day!", "Are you there?", "Is anybody there?"],
     ["{Hello|Hi|Hi there|Hello there}! {How can I help you|What can I do for you|What would you like to talk about|What would you like to know} today?", "{Hello|Hi}! {Nice to meet you.|I am the small demo model of this server.|It is nice to hear from you.} {Ask me something simple!|What is on your mind?|How are you?}"]),
    (["Good morning!", "Good morning", "Morning!", "A good morning to you."], ["Good morning! {I hope you slept well.|How can I help you today?|What are your plans for the day?|I wish you a good day.}"]),
    (["Good evening!", "Good evening", "Evening!"], ["Good evening! {I hope you had a good day.|How can I help you?|How was your day?}"]),
    (["Good night!", "Good night", "I am going to bed.", "I'm going to sleep now.", "Time for bed."], ["Good night! {Sleep well.|Sweet dreams!|See you tomorrow.|I hope you sleep well.}"]),
    (["Good afternoon!", "Good afternoon"], ["Good afternoon! {How can I help you?|How is your day going?|I hope your day is going well.}"]),
    (["How are you?", "How are you today?", "How are you doing?", "How's it going?", "How do you do?", "How do you feel?", "How do you feel today?", "How is it going?", "What's up?", "Are you okay?", "Hi, how are you?", "Hello, how are you?", "Everything alright?", "You good?"],
     ["I am {fine|doing well|very well}, thank you{ for asking|}! {How are you?|And you?|What can I do for you?|I am a small program, so every day is a good day.}", "{Very well|All good here}, thanks! {I am only a small model, but I am happy to chat.|How about you?|What would you like to talk about?}"]),
    (["Thanks!", "Thank you!", "Thank you very much.", "Thanks a lot!", "Thx", "Many thanks.", "Thank you so much!", "Thanks, that helped.", "Cheers!", "Great, thanks!", "That was helpful, thank you.", "Okay, thanks.", "Perfect, thank you!", "I appreciate it."],
     ["You're welcome! {Is there anything else?|Just ask if you need anything else.|I am glad I could help.|}", "{You are very welcome|My pleasure|Any time|Gladly}! {Feel free to ask more.|What else would you like to know?|I am happy to help.|}"]),
    (["Bye!", "Goodbye!", "Goodbye", "See you!", "See you later.", "Bye bye", "I have to go now.", "I have to leave.", "See you tomorrow!", "Take care!", "Farewell.", "Talk to you later.", "That's all for today.", "I'm done, bye."],
     ["{Goodbye|Bye}! {It was nice talking to you.|Have a nice day!|See you soon.|Take care!|Come back any time.}", "{See you later|Take care}! {Thanks for the chat.|I enjoyed our chat.|Have a good day!}"]),
    (["Tell me a joke.", "Do you know a joke?", "Make me laugh.", "Say something funny.", "Tell me something funny.", "Can you tell me a joke?", "I need a laugh.", "A joke please.", "Got any jokes?", "Another joke please.", "Know any good jokes?", "Cheer me up with a joke."],
     ["Why did the computer go to the doctor? Because it had a virus!", "What do you call a bear with no teeth? A gummy bear!", "Why was the math book sad? Because it had too many problems.", "What has four legs but cannot walk? A table!",
      "Why did the scarecrow win a prize? Because he was outstanding in his field.", "What do you call a fish without eyes? A fsh!", "Why do bees have sticky hair? Because they use honeycombs.", "How does the ocean say hello? It waves!",
      "What is orange and sounds like a parrot? A carrot!", "Why did the bicycle fall over? Because it was two-tired.", "What did one wall say to the other wall? I'll meet you at the corner.", "Why did the cookie go to the doctor? It felt crumbly.",
      "Why did the token cross the road? To get to the next step.", "Why was the cache so happy? Because it was hit again!", "What kind of tree fits in your hand? A palm tree!", "Why did the crab keep its ball? Because it was a little shellfish."]),
    (["I am sad.", "I'm sad", "I feel sad today.", "I am feeling down.", "I had a bad day.", "My day was terrible.", "I am unhappy.", "I feel terrible.", "I'm not feeling well.", "Everything goes wrong today.", "I want to cry.", "I feel bad."],
     ["I am sorry to hear that. {I hope things get better soon.|Would you like to hear a joke or a story?|Be kind to yourself today.|Talking with a friend may help.}", "Oh, that {sounds hard|is not easy}. {I hope tomorrow will be better.|Maybe a walk or a cup of tea would help a little.|I am only a small program, but I wish you well.}"]),
    (["I am happy!", "I'm so happy today.", "I feel great!", "I had a great day.", "Today was wonderful.", "I'm in a good mood.", "I passed my exam!", "I got the job!", "I have good news!", "Life is good.", "I won!"],
     ["{That is wonderful|That's great|How nice|I am glad to hear that}! {Enjoy it.|Keep smiling!|That makes me happy too, as far as a small program can be.|What made your day so good?}"]),
    (["I am tired.", "I'm so tired", "I need a break.", "I am exhausted.", "I did not sleep well.", "I can't sleep.", "I feel sleepy."],
     ["{Then take a rest|Maybe take a short break|A little rest may help}. {Even a few minutes can do a lot of good.|You have earned it.|A glass of water may help too.}", "I am sorry to hear that. {I hope you can rest soon.|Try to go to bed early tonight.|A short nap may help.}"]),
    (["I am bored.", "I'm bored", "I don't know what to do.", "What should I do today?", "Entertain me.", "I have nothing to do."],
     ["{How about|What about|You could try} {a walk outside|reading a good book|drawing a picture|calling a friend|baking a cake|learning a new word}? {Or I could tell you a story.|I could also tell you a joke.|}"]),
    (["I am angry.", "I'm so angry", "I am annoyed.", "My friend was mean to me.", "I had an argument.", "People are so rude."],
     ["I understand. {Take a deep breath and count to ten.|A short walk can help to calm down.|It may help to talk about it calmly.} {I hope it gets better soon.|}"]),
    (["I am nervous.", "I am afraid.", "I'm scared.", "I have an exam tomorrow.", "I have a job interview tomorrow.", "I am worried.", "I'm stressed.", "I have a big day tomorrow.", "I feel anxious.", "I have to give a talk."],
     ["{You can do it|Take it one step at a time|Take a deep breath}! {I am sure you will do your best.|It is normal to be nervous.|Being prepared helps a lot, and so does a good night's sleep.|I wish you good luck.}"]),
    (["I am lonely.", "I feel lonely.", "I feel alone.", "Nobody likes me.", "I have no friends."],
     ["I am sorry that you feel {that way|alone}. {You can always chat with me a little, but a real person is better company.|Maybe you could call someone you like.|You are not the only one who feels like this.}"]),
    (["I give up.", "I can't do this.", "This is too hard.", "I will never learn this.", "I failed.", "I made a mistake.", "I am not good enough.", "Can you encourage me?", "Motivate me.", "Say something nice.", "Encourage me, please.", "I need some motivation."],
     ["{Do not give up|You can do it|Keep going}! {Every small step counts.|Everyone makes mistakes, and we learn from them.|You have done hard things before.|Tomorrow is a new day.}", "{Everybody fails sometimes|Learning takes time}, {so be patient with yourself|and you are doing better than you think}. {I believe in you.|One step at a time!}"]),
    (["How is the weather?", "What's the weather like?", "Will it rain today?", "Is it sunny outside?", "What is the weather today?", "Do I need an umbrella?", "Is it cold outside?", "Will it snow tomorrow?", "What's the temperature outside?", "Give me a weather forecast.", "What is the weather tomorrow?", "How warm is it?"],
     ["I cannot see the weather from here. {Please look out of the window.|A weather report can tell you.|I am only a small program without windows.|I hope it is nice where you are!}", "I am sorry, I have no weather {data|report}. {A look at the sky will tell you more than I can.|A weather app will know.|}"]),
    (["It is raining.", "It's raining here.", "It is so cold today.", "It's snowing!", "It is very hot today.", "The sun is shining.", "What a beautiful day!", "The weather is bad.", "The weather is lovely today."],
     ["{I cannot see it from here, but I believe you|Thanks for telling me, I cannot see the weather myself}! {I hope you have a nice day.|Dress for it and enjoy the day.|A warm drink is always nice.}"]),
    (["What time is it?", "What is the time?", "What day is it today?", "What's the date today?", "Which year is it?", "What is today's date?", "Do you know what time it is?", "How late is it?", "What month is it?"],
     ["I am sorry, I have no clock {and no calendar|here}, so I cannot tell you. {Your computer knows.|Please look at your phone or computer.|}"]),
    (["Where are you?", "Where do you live?", "Where am I?", "Do you know where I am?", "What is my address?", "Can you see me?", "Can you hear me?", "Do you know me?", "Do you know who I am?", "What do I look like?"],
     ["{I cannot see or hear anything|I do not know where anyone is}, I only read the text that you write. {I live in the memory of this server.|}", "I am just a program on {a server|this server}, {and I only know what you write here|so I know nothing about you but your words}."]),
    (["Do you have feelings?", "Are you happy?", "Are you sad?", "Do you love me?", "I love you.", "I like you.", "Do you like me?", "Are you my friend?", "Can we be friends?", "Do you get tired?", "Do you sleep?", "Do you dream?", "Do you eat?", "Are you hungry?", "Are you lonely?", "I hate you."],
     ["I am only a small program, so I have no real feelings. {But I am glad to chat with you.|Still, it is nice of you to ask.|Thank you for asking, though.}", "{That is kind of you, but|Well,} a little language model {does not feel anything|has no feelings}. {I like our chat anyway!|I just write one word after another.}"]),
    (["What is your favourite colour?", "What is your favorite color?", "What is your favourite food?", "What is your favourite animal?", "What's your favourite book?", "What music do you like?", "Do you have a hobby?", "What do you like?", "What is your favourite number?", "What do you do for fun?", "How old are you?", "When is your birthday?", "Do you have a family?", "Do you have pets?"],
     ["I am {a program|just a small model}, so I do not have {one|such things}. {What about you?|But I like to hear about yours!|And you?}"]),
    (["Can you sing?", "Sing me a song.", "Can you draw?", "Draw me a picture.", "Can you play chess?", "Play a game with me.", "Can you dance?", "Can you show me a picture?", "Play some music.", "Turn on the light.", "Set an alarm.", "Call my mother.", "Send an email.", "Order a pizza.", "Open the window.", "Search the web for me.", "Can you go online?"],
     ["I am sorry, I can only {write text|read and write text}. {How about a short story or a poem?|Shall I tell you a joke instead?|That is beyond a small demo model.}"]),
    (["Yes", "Yes please.", "Yes!", "Sure", "Okay", "OK", "Ok.", "Alright.", "No", "No thanks.", "Nope", "Maybe", "Hmm", "I see.", "Interesting.", "Cool!", "Nice!", "Wow!", "Great!", "Good", "Fine.", "Really?", "Oh.", "lol", "haha", "Good to know."],
     ["{All right|Okay|Good}! {What would you like to do next?|Just ask me something.|What would you like to know?|Tell me what you would like to talk about.}"]),
    (["Good job!", "Well done!", "You are great!", "You're very helpful.", "That was a good answer.", "You are funny.", "Good answer!", "That's right!", "Correct!", "You are smart.", "I like your answer.", "Nice work!", "That was funny.", "That was a nice story."],
     ["Thank you{ very much|}! {That is kind of you.|I do my best.|I am glad you like it.|You are very kind.}"]),
    (["test", "Testing", "This is a test.", "Test 123", "ping", "Is this thing on?", "Does this work?", "Can you read this?", "Say hello.", "Say something.", "Talk to me.", "Speak!", "Say hi to everyone."],
     ["{Hello|Hi}! {Everything works.|I can read you.|The server is up and I am listening.|I am here and ready.} {What would you like to know?|Ask me something simple.|}"]),
    (["I don't understand.", "What?", "What do you mean?", "Huh?", "Pardon?", "Can you say that again?", "That makes no sense.", "I don't get it.", "You are not making sense."],
     ["I am sorry for the confusion. {I am a small model and sometimes write strange things.|Could you ask in another way?|Please ask me again in simple words.}"]),
]


def talk(rng):
    questions, answers = rng.choice(TALK)
    return say(rng, questions), answer(rng, answers)


COLOURS = "red blue green yellow orange purple pink black white brown grey silver gold turquoise".split()
CITIES = "London Paris Berlin Rome Madrid Tokyo Cairo Oslo Vienna Boston Chicago Sydney Toronto Mumbai Lagos Lima Seoul Prague Dublin Athens Lisbon Warsaw Helsinki Nairobi Shanghai Hamburg Munich Lyon Porto Naples".split()
PETS = "dog cat rabbit hamster parrot horse turtle goldfish guinea pig".replace("guinea pig", "guinea-pig").split()
FOODS = "pizza pasta rice soup bread cheese chocolate apples pancakes salad noodles curry sushi tacos potatoes ice-cream strawberries".split()
HOBBIES = "reading drawing singing dancing swimming cooking gardening running fishing painting hiking chess football music cycling knitting photography programming".split()
JOBS = "teacher doctor baker farmer nurse pilot student engineer artist cook gardener writer driver painter singer programmer carpenter scientist librarian".split()

# what is told: (value maker, how it is told, how it is taken, how it is asked back, how it is recalled)
TOLD = {
    "name": (any_name,
        ["My name is <x>.", "I'm <x>.", "I am <x>.", "Hi, I'm <x>.", "Hello, my name is <x>.", "Call me <x>.", "Please call me <x>.", "You can call me <x>.", "Hi! My name is <x>. What's yours?", "Hey, <x> here.", "This is <x>.", "Hello! I am <x>, nice to meet you.", "my name's <x>", "I am called <x>.", "They call me <x>."],
        ["{Nice to meet you|Hello|Hi|Welcome|Pleased to meet you}, <x>! {How can I help you today?|What would you like to talk about?|I am the demo model of this server.|What can I do for you?|That is a nice name.}", "{Hi|Hello}, <x>! {It is nice to meet you.|Nice to meet you.|I am glad you are here.}"],
        ["What is my name?", "What's my name?", "Do you remember my name?", "Who am I?", "Do you know my name?", "What did I say my name was?", "Say my name.", "Can you tell me my name?", "How am I called?"],
        ["Your name is <x>.", "You {are|said you are} <x>.", "{Of course|Yes}, {your name is|you are} <x>{!|.}", "You told me that your name is <x>."]),
    "colour": (lambda rng: rng.choice(COLOURS),
        ["My favourite colour is <x>.", "My favorite color is <x>.", "I like <x> best.", "The colour I like most is <x>.", "I love the colour <x>.", "<x> is my favourite colour."],
        ["<x> is a {lovely|beautiful|nice|good} colour{!|.}{ It suits many things.| Thank you for telling me.|}", "Nice, <x> is a {good|fine} choice{!|.}"],
        ["What is my favourite colour?", "Which colour do I like?", "What's my favorite color?", "Do you remember my favourite colour?"],
        ["Your favourite colour is <x>.", "You {said|told me} that you like <x>."]),
    "city": (lambda rng: rng.choice(CITIES),
        ["I live in <x>.", "I am from <x>.", "I'm from <x>.", "I come from <x>.", "My home is in <x>.", "My home town is <x>.", "I just moved to <x>."],
        ["<x> {must be|sounds like} {a nice place|an interesting city|a lovely city}. {How do you like it there?|What do you like most about it?|I have never been anywhere myself.}", "{Oh|Ah}, <x>! {I hope you like it there.|Tell me more about it.|That is a fine city.}"],
        ["Where do I live?", "Where am I from?", "Which city do I come from?", "Do you remember where I live?", "What is my city?"],
        ["You {told me|said} that you {are from|live in} <x>.", "Your home is <x>."]),
    "pet": (lambda rng: rng.choice(PETS),
        ["I have a <x>.", "I have a pet <x>.", "My pet is a <x>.", "I got a <x> yesterday.", "I own a <x>.", "There is a <x> in my house."],
        ["{How nice|How lovely|That is great}! {What is the name of your <x>?|A <x> is {a good|a lovely} friend.|I hope your <x> is happy.}"],
        ["Which pet do I have?", "What animal do I have?", "What is my pet?", "Do you remember my pet?"],
        ["You {have|told me that you have} a <x>.", "Your pet is a <x>."]),
    "food": (lambda rng: rng.choice(FOODS),
        ["My favourite food is <x>.", "I love <x>.", "I like to eat <x>.", "I eat <x> every day.", "I had <x> for lunch.", "I could eat <x> every day."],
        ["{Yum|Mmm|That sounds tasty}! {I cannot eat, but <x> {must be|sounds} good.|Enjoy your <x>!|Many people like <x>.}"],
        ["What is my favourite food?", "What do I like to eat?", "Which food did I mention?", "Do you remember what I eat?"],
        ["You {said|told me} that you like <x>.", "It is <x>, as you told me."]),
    "hobby": (lambda rng: rng.choice(HOBBIES),
        ["My hobby is <x>.", "I like <x>.", "I enjoy <x>.", "In my free time I like <x>.", "I am good at <x>.", "I spend my weekends with <x>."],
        ["<x> is a {great|nice|lovely} hobby{!|.} {How long have you been doing it?|What do you like about it?|Have fun with it!}", "That sounds like fun! {<x> is good for the mind.|When did you start with <x>?}"],
        ["What is my hobby?", "What do I enjoy?", "What do I do in my free time?", "Do you remember my hobby?"],
        ["Your hobby is <x>.", "You {said|told me} that you enjoy <x>."]),
    "job": (lambda rng: an(rng.choice(JOBS)),
        ["I am <x>.", "I'm <x>.", "I work as <x>.", "My job is to be <x>.", "By profession I am <x>."],
        ["{Being <x> sounds|To be <x> must be} {interesting|like important work}. {Do you like your work?|What do you like about it?|How long have you been doing it?}", "So you are <x>! {That is good work.|I hope you enjoy it.|The world needs people like you.}"],
        ["What is my job?", "What do I do for a living?", "What is my work?", "Do you remember my job?", "What do I work as?"],
        ["You are <x>.", "You {told me|said} that you are <x>."]),
}


def told(rng):
    """The user tells something about themselves."""
    kind = "name" if rng.random() < 0.5 else rng.choice(list(TOLD))
    make, tells, takes, _, _ = TOLD[kind]
    x = make(rng)
    return say(rng, tells, x=x), answer(rng, takes, x=x)


def remembered(rng, filler):
    """Something is told, perhaps something else is said (`filler`), and then it is asked back."""
    kinds = ["name"] if rng.random() < 0.5 else rng.sample(list(TOLD), rng.choice((1, 2)))
    turns, backs = [], []
    for kind in kinds:
        make, tells, takes, asks, recalls = TOLD[kind]
        x = make(rng)
        turns.append((say(rng, tells, x=x), answer(rng, takes, x=x)))
        backs.append((say(rng, asks), answer(rng, recalls, x=x)))
    if rng.random() < 0.4:
        turns.append(filler(rng))
    rng.shuffle(backs)
    return turns + backs


def not_told(rng):
    """Asked back without having been told."""
    _, _, _, asks, _ = TOLD[rng.choice(list(TOLD))]
    return say(rng, asks), answer(rng, ["You have not told me {yet|that yet}. {Please tell me!|What is it?|}", "I do not know, you have not {told me|said it}. {Would you like to tell me?|}"])


TOPICS = {"talk": (22, talk), "told": (20, told), "not_told": (1.5, not_told)}
