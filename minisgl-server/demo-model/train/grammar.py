"""A tiny template language, shared by every topic.

`{a|b|c}` picks one alternative (they nest), `<slot>` is filled in first.
"""

import hashlib
import re

_CHOICE = re.compile(r"\{([^{}]*)\}")
_START = re.compile(r"(^|[.!?]\s+|\n)([a-z])")


def say(rng, template, **slots):
    """Expand one template; a list of templates means one of them."""
    if isinstance(template, (list, tuple)):
        template = rng.choice(template)
    for name, value in slots.items():
        template = template.replace(f"<{name}>", str(value))
    while (m := _CHOICE.search(template)) is not None:
        template = template[: m.start()] + rng.choice(m[1].split("|")) + template[m.end():]
    return re.sub(r" +", " ", template).strip()


def answer(rng, template, **slots):
    """Like `say`, with every sentence starting in upper case."""
    return _START.sub(lambda m: m[1] + m[2].upper(), say(rng, template, **slots))


def an(noun):
    """`a` or `an` in front of a noun."""
    special = noun.startswith(("uni", "use", "euro", "one"))
    return ("an " if noun[0].lower() in "aeiou" and not special else "a ") + noun


def join(words, last="and"):
    """`a, b and c`."""
    words = list(words)
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + f" {last} " + words[-1]


def plain(text):
    """The text without case and punctuation: what a combination is known by."""
    return " ".join(re.findall(r"[a-z0-9+*/-]+", text.lower()))


def held_out(key, share=0.04):
    """Whether this combination is kept away from training; a fixed hash decides."""
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32


def _typo(rng, text):
    words = text.split(" ")
    spots = [i for i, w in enumerate(words) if len(w) > 3 and w.isalpha() and w.islower()]
    if not spots:
        return text
    i = rng.choice(spots)
    w, j = words[i], rng.randrange(1, len(words[i]) - 1)
    words[i] = rng.choice([
        w[:j] + w[j + 1:],                       # a letter lost
        w[:j] + w[j] + w[j:],                    # a letter twice
        w[:j] + w[j + 1] + w[j] + w[j + 2:],     # two letters swapped
    ])
    return " ".join(words)


def noise(rng, text):
    """How people really type: lower case, no full stop, a typo now and then."""
    r = rng.random()
    if r < 0.22:
        text = text.lower()
    elif r < 0.235:
        text = text.upper()
    elif r > 0.97:
        text = text[0].lower() + text[1:]
    r = rng.random()
    if r < 0.25:
        text = text.rstrip(".?!")
    elif r < 0.28:
        text = text.rstrip(".?!") + rng.choice(["??", "!", "...", " ?", "?!"])
    if rng.random() < 0.07:
        text = _typo(rng, text)
    return text


def polite(rng, question):
    """Now and then a greeting before the question or a thank-you after it."""
    r = rng.random()
    if r < 0.05:
        return say(rng, "{Hi|Hello|Hey|Hi there|Hey there|Good morning|Good evening}{!|,|.} ") + " " + question
    if r < 0.09:
        return say(rng, "{Quick question:|I have a question.|One more question:|Question:|Okay,|So,|Tell me,|I was wondering:|Do you know:}") + " " + question
    if r < 0.11:
        return question + " " + say(rng, "{Please.|Please and thank you.|Thanks!|Thank you!|Thanks in advance.}")
    return question
