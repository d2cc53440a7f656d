"""Trains the demo model on a CPU.

    python train.py --data /tmp/demo/train.jsonl --tokenizer FOLDER --out FOLDER --steps 2000

Every row of a batch is one whole document, so a training text starts where a prompt starts;
rows of like length share a batch. The loss counts what the assistant says (and all of the
plain texts). Matrices learn with Muon, the rest with AdamW; warm-up, a constant half, and
linear decay.
With --state the run can be stopped and goes on where it was (other --data then begin at their
first line), and the model is exported on the way. Deterministic for one seed and one number of threads. On a shared machine set
OMP_WAIT_POLICY=PASSIVE, or waiting threads burn the time of the working ones.
"""

import argparse
import json
import os
import random
import time

import torch
from tokenizers import Tokenizer

from model import Model, Shape, export
from muon import Muon

WIDTHS = (32, 48, 64, 96, 128, 192, 256, 384)


def encode(tokenizer, item, rng):
    """Tokens, and for each whether it is to be learned."""
    end, start, stop = (tokenizer.token_to_id(t) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    if "text" in item:
        ids = tokenizer.encode(item["text"]).ids
        head = [end] if rng.random() < 0.5 else []
        return head + ids + [end], [False] * len(head) + [True] * (len(ids) + 1)
    ids, learn = [], []
    newline = tokenizer.encode("\n").ids
    for message in item["messages"]:
        head = [start] + tokenizer.encode(message["role"] + "\n").ids
        body = tokenizer.encode(message["content"]).ids + [stop]
        ids += head + body + newline
        learn += [False] * len(head) + [message["role"] == "assistant"] * len(body) + [False] * len(newline)
    return ids, learn


def batches(path, tokenizer, seed, tokens):
    """Endless batches (tokens, where, targets) of about `tokens` tokens, padding included."""
    rng = random.Random(seed)
    waiting = {width: [] for width in WIDTHS}
    while True:
        with open(path, encoding="utf-8") as file:
            for line in file:
                ids, learn = encode(tokenizer, json.loads(line), rng)
                width = next((w for w in WIDTHS if w >= len(ids) - 1), None)
                if width is None:
                    continue
                rows = waiting[width]
                rows.append((ids, learn))
                if len(rows) * width >= tokens:
                    yield collate(rows, width)
                    waiting[width] = []


def collate(rows, width):
    tokens = torch.zeros(len(rows), width, dtype=torch.long)
    where, targets = [], []
    for r, (ids, learn) in enumerate(rows):
        tokens[r, : len(ids) - 1] = torch.tensor(ids[:-1])
        for i in range(1, len(ids)):
            if learn[i]:
                where.append(r * width + i - 1)
                targets.append(ids[i])
    return tokens, torch.tensor(where), torch.tensor(targets)


def optimizers(model, lr, matrix_lr):
    matrices = {}
    for layer in model.layers:
        for w, blocks in ((layer.qkv, [256, 128, 128]), (layer.o, None), (layer.gate_up, [model.s.inner] * 2), (layer.down, None)):
            matrices.setdefault(str(blocks), dict(params=[], blocks=blocks))["params"].append(w)
    inside = {id(p) for g in matrices.values() for p in g["params"]}
    rest = [p for p in model.parameters() if id(p) not in inside]
    return [Muon(list(matrices.values()), lr=matrix_lr), torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--tokenizer", required=True, help="folder with tokenizer.json")
    parser.add_argument("--out", required=True, help="folder for the finished model")
    parser.add_argument("--state", help="file to keep the state of the run in")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--tokens", type=int, default=3072, help="tokens in a batch")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--matrix-lr", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=1919)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    tokenizer = Tokenizer.from_file(f"{args.tokenizer}/tokenizer.json")
    model = Model(Shape(vocab=tokenizer.get_vocab_size(), layers=args.layers))
    opts = optimizers(model, args.lr, args.matrix_lr)
    print("parameters:", sum(p.numel() for p in model.parameters()), flush=True)
    first, spent, seen, kept_data = 0, 0.0, 0, None
    if args.state and os.path.exists(args.state):
        state = torch.load(args.state)
        model.load_state_dict(state["model"])
        for opt, kept in zip(opts, state["opts"]):
            opt.load_state_dict(kept)
        first, spent, seen, kept_data = state["step"], state["spent"], state["seen"], state.get("data")
    data = batches(args.data, tokenizer, args.seed, args.tokens)
    for _ in range(first if not args.state or kept_data == args.data else 0):
        next(data)

    def save():
        export(model, args.out, tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>"))

    start, total, count = time.time() - spent, 0.0, 0
    for step in range(first, args.steps):
        scale = min((step + 1) / 100, (args.steps - step) / (0.5 * args.steps), 1.0)
        for opt, base in zip(opts, (args.matrix_lr, args.lr)):
            for group in opt.param_groups:
                group["lr"] = base * scale
        tokens, where, targets = next(data)
        loss = model(tokens, where, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad()
        seen, total, count = seen + tokens.numel(), total + loss.item(), count + 1
        if (step + 1) % 50 == 0:
            spent = time.time() - start
            print(f"step {step + 1} loss {total / count:.4f} tokens {seen} {seen / spent:.0f} tok/s {spent / 60:.1f} min", flush=True)
            total, count = 0.0, 0
        if args.state and ((step + 1) % 250 == 0 or step + 1 == args.steps):
            torch.save(dict(model=model.state_dict(), opts=[o.state_dict() for o in opts], step=step + 1, spent=time.time() - start, seen=seen, data=args.data), args.state)
            save()
    save()


if __name__ == "__main__":
    main()
