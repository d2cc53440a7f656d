"""What the finished model can do: held-out perplexity, held-out sums, sample answers.

    python evaluate.py --model FOLDER --test /tmp/demo/test.jsonl

Prints Markdown for the README. Everything is greedy and unedited.
"""

import argparse
import json
import math
import random
import re

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import topic_sums
from grammar import held_out

SAMPLES = ["Hello!", "What is this server?", "What is a KV cache?", "How do I use two GPUs?", "My name is Marta.", "What is the capital of Portugal?", "What is 17 + 25?", "What is 43 minus 8?", "What is 7 times 8?",
           "What does a squirrel eat?", "Tell me a story about a fox and a lighthouse.", "Write a poem about the sea.", "Name four vegetables.", "How do I make tea?", "What is a telescope?", "How many letters does garden have?",
           "Tell me a joke.", "I am sad today.", "Will it rain tomorrow?", "Who won the chess championship in 1972?"]
CHATS = [["Hi, I am Brunhild.", "What is 4 times 6?", "Do you remember my name?"], ["What is the capital of Japan?", "And of Kenya?", "Thank you!"]]
PROSE = ["Once upon a time", "The capital of"]


def perplexities(model, tokenizer, items):
    """Mean loss per token over what the assistant says (and over plain texts)."""
    total, count, by_topic = 0.0, 0, {}
    start, stop = tokenizer.encode("<|im_start|>assistant\n", add_special_tokens=False), tokenizer.convert_tokens_to_ids("<|im_end|>")
    for item in items:
        if "text" in item:
            ids = tokenizer.encode(item["text"] + "<|endoftext|>")
            learn = [True] * len(ids)
        else:
            ids, learn = tokenizer.apply_chat_template(item["messages"]), []
            said = False
            for i, t in enumerate(ids):
                learn.append(said)
                said = (said and t != stop) or ids[max(0, i + 1 - len(start)): i + 1] == start
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, :-1].float()
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")[torch.tensor(learn[1:])]
        s = by_topic.setdefault(item["topic"], [0.0, 0])
        s[0] += losses.sum().item()
        s[1] += len(losses)
        total, count = total + losses.sum().item(), count + len(losses)
    return math.exp(total / count), count, {k: math.exp(v[0] / v[1]) for k, v in by_topic.items()}


def replies(model, tokenizer, chats, size=32, longest=220):
    """Greedy answers to many conversations."""
    out = []
    tokenizer.padding_side = "left"
    for i in range(0, len(chats), size):
        texts = [tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in chats[i: i + size]]
        batch = tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
        with torch.no_grad():
            ids = model.generate(**batch, do_sample=False, max_new_tokens=longest, temperature=None, top_p=None)
        out += tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1]:], skip_special_tokens=True)
    return out


def told(op, a, b):
    """Whether other texts give a pair away: doubles, neighbours, and the easy sums inside longer ones."""
    if op == "*":
        return 2 in (a, b)
    if op == "+":
        return a >= b or max(a, b) < 10 or a == 1 or 0 in (a % 10, b % 10)
    return a < b or b < 10 or b % 10 == 0


def held_out_sums(share=0.08):
    """All held-out pairs that no text gives away (each sum in one order)."""
    pairs = []
    for op, top in (("+", 50), ("-", 50), ("*", 12)):
        for a in range(top + 1):
            for b in range(top + 1):
                if held_out("sums: " + topic_sums.pair_key(op, a, b), share) and not told(op, a, b):
                    pairs.append((op, a, b))
    return pairs


def result_of(text):
    """The number that an answer gives as the result."""
    found = re.findall(r"(?:is|equals|=) (-?\d+)", text)
    return int(found[-1]) if found else None


def sums(model, tokenizer, limit):
    pairs = held_out_sums()
    random.Random(0).shuffle(pairs)
    result = {}
    for op in "+-*":
        some = [p for p in pairs if p[0] == op][:limit]
        word, _, f = topic_sums.OPS[op]
        said = replies(model, tokenizer, [[dict(role="user", content=f"What is {a} {word} {b}?")] for _, a, b in some], longest=24)
        good = sum(result_of(text) == f(a, b) for (_, a, b), text in zip(some, said))
        result[op] = (good, len(some))
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--limit", type=int, default=3000)
    parser.add_argument("--sums", type=int, default=400)
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    with open(args.test, encoding="utf-8") as file:
        items = [json.loads(line) for line in file][: args.limit]
    perplexity, count, topics = perplexities(model, tokenizer, items)
    print(f"held-out perplexity: {perplexity:.3f} over {count} tokens")
    print(", ".join(f"{k} {v:.2f}" for k, v in sorted(topics.items())))
    for op, (good, all_) in sums(model, tokenizer, args.sums).items():
        print(f"held-out sums {op}: {good} of {all_} ({100 * good / max(1, all_):.1f} %)")
    for question, text in zip(SAMPLES, replies(model, tokenizer, [[dict(role="user", content=q)] for q in SAMPLES])):
        print(f"\n> {question}\n\n{text}")
    for questions in CHATS:
        messages = []
        for q in questions:
            messages.append(dict(role="user", content=q))
            messages.append(dict(role="assistant", content=replies(model, tokenizer, [messages])[0]))
            print(f"\n> {q}\n\n{messages[-1]['content']}")
    for prompt in PROSE:
        ids = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        with torch.no_grad():
            out = model.generate(**ids, do_sample=False, max_new_tokens=120, temperature=None, top_p=None)
        print(f"\nCompletion of \"{prompt}\":\n\n{tokenizer.decode(out[0], skip_special_tokens=True)}")


if __name__ == "__main__":
    main()
