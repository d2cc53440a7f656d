"""Small sums: plus, minus, times, comparing, counting, before and after, even and odd."""

from grammar import answer, say

ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty".split()
TENS = {20: "twenty", 30: "thirty", 40: "forty", 50: "fifty"}


def word(n):
    if n < 0:
        return "minus " + word(-n)
    if n <= 20:
        return ONES[n]
    tens, ones = n // 10 * 10, n % 10
    return TENS[tens] + ("-" + ONES[ones] if ones else "")


OPS = {"+": ("plus", "{added to|and}", lambda a, b: a + b), "-": ("minus", "minus", lambda a, b: a - b), "*": ("times", "{times|multiplied by}", lambda a, b: a * b)}
SUM_ASKS = ["What is <a> <w> <b>?", "What's <a> <w> <b>?", "What is <a> <o> <b>?", "<a> <o> <b>", "<a> <o> <b> = ?", "<a> <o> <b> =", "<a><o><b>", "<a><o><b>=", "How much is <a> <w> <b>?", "Calculate <a> <o> <b>.",
            "Compute <a> <w> <b>.", "Can you tell me what <a> <w> <b> is?", "Do you know what <a> <w> <b> makes?", "Please calculate <a> <w> <b>.", "What does <a> <w> <b> make?", "<a> <w> <b>?", "Solve <a> <o> <b>.", "Work out <a> <w> <b>.", "What do you get for <a> <o> <b>?", "What is the result of <a> <o> <b>?"]
SUM_STORY = {
    "+": ["I have <a> {apples|coins|books|eggs|stones} and get <b> more. How many do I have?", "Add <a> and <b>.", "What is the sum of <a> and <b>?", "If I have <a> and add <b>, what do I get?", "Add <b> to <a>."],
    "-": ["I have <a> {apples|coins|books|eggs|stones} and give away <b>. How many are left?", "Subtract <b> from <a>.", "Take <b> away from <a>.", "What is the difference between <a> and <b>?", "If I take <b> from <a>, what is left?"],
    "*": ["I have <a> boxes with <b> {apples|coins|books|eggs|stones} each. How many is that?", "Multiply <a> by <b>.", "What is the product of <a> and <b>?", "What is <a> multiplied by <b>?"],
}
SUM_ANSWERS = ["<a> <w> <b> is <c>.", "<a> <w> <b> is <c>.", "<a> <w> <b> equals <c>.", "<a> <o> <b> = <c>"]


def draw_pair(rng):
    op = rng.choice("++++----**")
    if op == "*":
        top = rng.choice((9, 10, 12))
        return op, rng.randint(0, top), rng.randint(0, top)
    top = rng.choice((9, 9, 20, 50, 50))
    a, b = rng.randint(0, top), rng.randint(0, top)
    if op == "-" and a < b and rng.random() < 0.85:
        a, b = b, a
    return op, a, b


def pair_key(op, a, b):
    """A held-out sum is held out in both orders, except for the times table."""
    return f"sum {op} {a} {b}" if op != "+" else f"sum + {min(a, b)} {max(a, b)}"


def sum_question(rng, op, a, b, names=str):
    w, _, _ = OPS[op]
    o = rng.choice(("*", "x")) if op == "*" else op
    asks = SUM_STORY[op] if rng.random() < 0.25 else SUM_ASKS
    return say(rng, asks, a=names(a), b=names(b), w=w, o=o)


def by_steps(op, a, b):
    """The way to a two-digit result through easier ones, or nothing where none is needed."""
    if op == "+" and max(a, b) > 10 and a % 10 and b % 10:
        ones = f"{a % 10} + {b % 10} is {a % 10 + b % 10}"
        if min(a, b) < 10:
            return f"{ones}, and {max(a, b) // 10 * 10} + {a % 10 + b % 10} is {a + b}"
        tens = f"{a // 10 * 10} + {b // 10 * 10} is {(a // 10 + b // 10) * 10}"
        return f"{ones}, and {tens}"
    if op == "-" and a >= b > 10 and b % 10:
        return f"{a} - {b // 10 * 10} is {a - b // 10 * 10}, and {a - b // 10 * 10} - {b % 10} is {a - b}"
    return None


def sums(rng):
    op, a, b = draw_pair(rng)
    w, _, f = OPS[op]
    names = word if max(a, b, abs(f(a, b))) <= 20 and rng.random() < 0.12 else str
    q = sum_question(rng, op, a, b, names)
    way = by_steps(op, a, b)
    if way and names is str:
        return q, say(rng, ["<way>, so <a> <o> <b> is <c>.", "<way>. So <a> <o> <b> = <c>."], way=way, a=a, b=b, c=f(a, b), o=op), pair_key(op, a, b)
    text = answer(rng, SUM_ANSWERS if names is str else SUM_ANSWERS[:3], a=names(a), b=names(b), c=names(f(a, b)), w=w, o="x" if op == "*" else op)
    return q, text, pair_key(op, a, b)


def compare(rng):
    top = rng.choice((10, 20, 100))
    a, b = rng.sample(range(top + 1), 2)
    big, small = max(a, b), min(a, b)
    kind = rng.randrange(3)
    if kind == 0:
        q = say(rng, ["Which is {bigger|larger|greater|more}, <a> or <b>?", "What is {bigger|larger|greater}: <a> or <b>?", "Which number is {bigger|larger|greater}, <a> or <b>?", "Is <a> or <b> the {bigger|larger} number?"], a=a, b=b)
        t = answer(rng, ["<x> is {bigger|larger|greater} than <y>.", "The {bigger|larger} number is <x>."], x=big, y=small)
    elif kind == 1:
        q = say(rng, ["Which is {smaller|less}, <a> or <b>?", "What is smaller: <a> or <b>?", "Which number is smaller, <a> or <b>?"], a=a, b=b)
        t = answer(rng, ["<y> is {smaller|less} than <x>.", "The smaller number is <y>."], x=big, y=small)
    else:
        q = say(rng, ["Is <a> {bigger|larger|greater|more} than <b>?", "Is <a> really {bigger|greater} than <b>?"], a=a, b=b)
        t = answer(rng, ["Yes, <a> is {bigger|larger|greater} than <b>."] if a > b else ["No, <a> is {smaller|less} than <b>."], a=a, b=b)
    return q, t, f"compare {small} {big}"


def count(rng):
    down = rng.random() < 0.35
    a = rng.randint(0, 20) if rng.random() < 0.6 else 1
    n = rng.randint(3, 10)
    names = word if rng.random() < 0.25 and a + n <= 20 else str
    lo, hi = (a, a + n)
    series = list(range(lo, hi + 1))
    first, last = (hi, lo) if down else (lo, hi)
    if down:
        series.reverse()
        q = say(rng, ["Count down from <a> to <b>.", "Count backwards from <a> to <b>.", "Can you count down from <a> to <b>?"], a=names(first), b=names(last))
    else:
        q = say(rng, ["Count from <a> to <b>.", "Can you count from <a> to <b>?", "Please count from <a> to <b>.", "Count up from <a> to <b>.", "List the numbers from <a> to <b>.", "Which numbers are there from <a> to <b>?"] + (["Count to <b>.", "Can you count to <b>?", "Count up to <b>."] if lo == 1 else []), a=names(first), b=names(last))
    body = ", ".join(names(i) for i in series)
    return q, answer(rng, [f"{body}.", f"{{Sure|Of course|Gladly}}: {body}.", f"{body}. {{Done!|That's it.|There you go.}}"]), f"count {first} {last}"


def neighbour(rng):
    n = rng.randint(1, 99)
    if rng.random() < 0.5:
        return say(rng, ["What comes after <n>?", "Which number comes after <n>?", "What number follows <n>?", "What is the next number after <n>?", "What is one more than <n>?"], n=n), answer(rng, ["After <n> comes <m>.", "<m> comes after <n>.", "The number after <n> is <m>."], n=n, m=n + 1), f"after {n}"
    return say(rng, ["What comes before <n>?", "Which number comes before <n>?", "What number is before <n>?", "What is one less than <n>?"], n=n), answer(rng, ["Before <n> comes <m>.", "<m> comes before <n>.", "The number before <n> is <m>."], n=n, m=n - 1), f"before {n}"


def parity(rng):
    n = rng.randint(0, 99)
    q = say(rng, ["Is <n> even or odd?", "Is <n> odd or even?", "Is <n> an even number?", "Is <n> an odd number?", "Is the number <n> even?", "Is <n> odd?"], n=n)
    kind, end = ("even", "it can be divided by two") if n % 2 == 0 else ("odd", "it cannot be divided by two")
    asked = "even" if "or" in q.split() else ("odd" if "odd" in q else "even")
    yes = "" if " or " in q else ("Yes, " if asked == kind else "No, ")
    return q, answer(rng, [f"{yes}<n> is {{an {kind} number|{kind}}}.", f"{yes}<n> is {kind}, because {end}."], n=n), f"parity {n}"


def double(rng):
    n = rng.randint(1, 25)
    if rng.random() < 0.5:
        return say(rng, ["What is {double|twice} <n>?", "Double <n>.", "What is the double of <n>?"], n=n), answer(rng, ["{Double|Twice} <n> is <m>.", "Two times <n> is <m>."], n=n, m=2 * n), f"double {n}"
    return say(rng, ["What is half of <n>?", "Halve <n>.", "What is <n> divided by 2?", "What is <n> divided by two?"], n=2 * n), answer(rng, ["Half of <n> is <m>.", "<n> divided by two is <m>."], n=2 * n, m=n), f"half {n}"


def big_sum(rng):
    """Sums beyond what a model of this size can learn: say so."""
    op = rng.choice(("plus", "minus", "times", "divided by", "+", "-", "*", "/"))
    a = rng.randint(200, 99999)
    b = rng.randint(51, 9999)
    q = say(rng, ["What is <a> <o> <b>?", "Calculate <a> <o> <b>.", "<a> <o> <b>", "How much is <a> <o> <b>?", "Compute <a> <o> <b>.", "What is the square root of <a>?"], a=a, b=b, o=op)
    return q, answer(rng, ["{I am sorry, these|Those|These} numbers are too big for me. {I can only do small sums.|I am a small demo model and only do small sums.|Please use a calculator.}", "I can only do sums with small numbers, {sorry|I am afraid}. {A calculator will help you.|}"]), f"big {a} {b}"


TOPICS = {"sums": (100, sums), "compare": (4, compare), "count": (4, count), "neighbour": (4, neighbour), "parity": (2.5, parity), "double": (2.5, double), "big_sum": (1.5, big_sum)}
