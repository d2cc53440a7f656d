"""Writes the whole training text, as JSON lines, from the topic grammars and one seed.

    python corpus.py --out /tmp/demo --train 200000 --test 3000

A line is {"messages": [...], "topic": ..., "key": ...} or {"text": ..., "topic": ...}.
Held out are whole combinations (see `grammar.held_out`): a question in one wording
with one slot value, a pair of numbers, a hero with a place and a plot. The chains (several
questions about one animal, several capitals, things told and asked back) are held out as
wholes, so that a single question held out elsewhere may stand in one of them.
"""

import argparse
import json
import os
import random

import topic_other
import topic_server
import topic_story
import topic_sums
import topic_talk
import topic_words
import topic_world
from grammar import answer, held_out, noise, plain, polite, say

TOPICS = {}
for module in (topic_server, topic_talk, topic_sums, topic_world, topic_words, topic_story, topic_other):
    TOPICS.update(module.TOPICS)
NO_FRAME = {"talk", "told", "not_told", "gibberish", "echo"}
# what everybody tries first is never held out
ALWAYS = {"talk: hello", "talk: hi there", "talk: thx", "me: please introduce yourself", "term: what is chunked prefill", "term: what is continuous batching"}
SHARE = {"sums": 0.08}

SYSTEM = ["You are a helpful assistant.", "You are a helpful assistant.", "You are a friendly assistant.", "You are a {kind|polite|friendly|careful} assistant{ who answers in short sentences| who likes to help|}.", "Answer the questions of the user.", "You are the demo model of Mini-SGLang.",
          "Be {brief|polite|friendly|helpful}.", "You are an AI assistant.", "Please answer {briefly|politely|in simple English}.", "You are a chatbot. Be {nice|helpful|polite}.", "Answer {briefly|in one or two sentences}.", "You are a helpful, honest and harmless assistant."]


def key_of(topic, item):
    return f"{topic}: {item[2] if len(item) > 2 else plain(item[0]) or item[0]}"


def is_held_out(topic, key):
    return key not in ALWAYS and held_out(key, SHARE.get(topic, 0.04))


def turn(rng, split, topic_wanted=None):
    """One question with its answer from the wanted side of the split."""
    while True:
        topic = topic_wanted or rng.choices(*WEIGHTS)[0]
        item = TOPICS[topic][1](rng)
        key = key_of(topic, item)
        if item[0] and item[1] and is_held_out(topic, key) == (split == "test"):
            question = item[0] if topic in NO_FRAME else polite(rng, item[0])
            return topic, (noise(rng, question), item[1]), key


WEIGHTS = (list(TOPICS), [w for w, _ in TOPICS.values()])


def whole(rng, split, make):
    """A conversation that is one combination as a whole."""
    while True:
        turns = make(rng)
        key = plain(" ".join(q for q, _ in turns))
        if held_out(key) == (split == "test"):
            return [(noise(rng, q), a) for q, a in turns], key


def named_assistant(rng):
    """The system message gives the assistant a name."""
    n = topic_talk.any_name(rng)
    system = say(rng, ["You are <n>, a {helpful|friendly|kind} assistant.", "Your name is <n>.", "You are called <n>.", "You are <n>."], n=n)
    q = say(rng, ["What is your name?", "Who are you?", "What are you called?", "Tell me your name.", "What's your name?", "How are you called?", "Introduce yourself."])
    return system, q, answer(rng, ["My name is <n>.", "I am <n>. {How can I help you?|Nice to meet you.}", "You can call me <n>."], n=n)


def raw(rng, split):
    """Prose without a chat: what a plain completion continues."""
    r = rng.random()
    if r < 0.6:
        while True:
            hero, place, plot = rng.choice(topic_story.HEROES), rng.choice(list(topic_story.PLACES)), rng.choice(topic_story.PLOTS)
            if held_out(f"story: story {hero} {place} {plot[0]}") == (split == "test"):
                return topic_story.tell(rng, hero, place, plot)
    if r < 0.65:
        return topic_story.poem(rng)[1]
    topic = rng.choice(("animal", "noun", "capital", "calendar", "facts", "term", "colour", "opposite", "sums"))
    texts = []
    while len(texts) < rng.choice((1, 2, 3, 4)):
        text = turn(rng, split, topic)[1][1]
        if not text.startswith(("No,", "Yes", "It is", "Sorry", "I ")) and text not in texts:
            texts.append(text)
    return " ".join(texts)


def conversation(rng, split):
    """One document: topic, its turns (or text), its key and a system message or none."""
    r = rng.random()
    system = say(rng, SYSTEM) if rng.random() < 0.2 else None
    if r < 0.06:
        return dict(topic="raw", text=raw(rng, split))
    if r < 0.11:
        turns, key = whole(rng, split, lambda g: topic_talk.remembered(g, lambda h: turn(h, split)[1]))
        return chat("remembered", system, turns, key)
    if r < 0.14:
        turns, key = whole(rng, split, topic_world.capital_chain)
        return chat("capital_chain", system, turns, key)
    if r < 0.17:
        turns, key = whole(rng, split, topic_world.animal_chain)
        return chat("animal_chain", system, turns, key)
    if r < 0.18:
        system, q, a = named_assistant(rng)
        return chat("named_assistant", system, [(noise(rng, q), a)], system)
    if r < 0.76:
        topic, t, key = turn(rng, split)
        return chat(topic, system, [t], key)
    turns, keys = [], []
    for _ in range(rng.choice((2, 2, 2, 3, 3, 4))):
        topic, t, key = turn(rng, split)
        turns.append(t)
        keys.append(key)
    return chat("mixed", system, turns, " / ".join(keys))


def chat(topic, system, turns, key):
    messages = [dict(role="system", content=system)] if system else []
    for q, a in turns:
        messages += [dict(role="user", content=q), dict(role="assistant", content=a)]
    return dict(topic=topic, key=key, messages=messages)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="folder for train.jsonl and test.jsonl")
    parser.add_argument("--train", type=int, default=200000)
    parser.add_argument("--test", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1919)
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    for split, count in (("train", args.train), ("test", args.test)):
        rng = random.Random(f"{args.seed} {split}")
        with open(f"{args.out}/{split}.jsonl", "w", encoding="utf-8") as file:
            for _ in range(count):
                file.write(json.dumps(conversation(rng, split), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
