"""Makes penalties.json: greedy tokens of a fixture with the logits processors of `transformers`.

    venv/bin/python penalties.py

Needs the fixture `qwen3` beside this script; README.md says how to set up the environment.
"""

import json
from pathlib import Path

import torch
import transformers
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
)

CASE = "qwen3"
NUM_STEPS = 16
HERE = Path(__file__).parent

# Favourites that would repeat for ever, unless something keeps them from it.
FAVOURITES = [[7, 9.0], [100, 8.0], [319, 7.5]]
SETTINGS = [
    dict(repetition_penalty=1.3, logit_bias=[], held_back=[], min_tokens=0),
    dict(repetition_penalty=2.0, logit_bias=FAVOURITES, held_back=[], min_tokens=0),
    dict(repetition_penalty=0.8, logit_bias=[[7, -100.0]], held_back=[], min_tokens=0),
    dict(repetition_penalty=1.5, logit_bias=FAVOURITES, held_back=[7, 100], min_tokens=6),
]


def processors(setting, prompt_len):
    chain = LogitsProcessorList()
    if setting["logit_bias"]:
        bias = {(token,): value for token, value in setting["logit_bias"]}
        chain.append(SequenceBiasLogitsProcessor(bias))
    chain.append(RepetitionPenaltyLogitsProcessor(setting["repetition_penalty"]))
    if setting["held_back"]:
        least = setting["min_tokens"]
        chain.append(MinNewTokensLengthLogitsProcessor(prompt_len, least, setting["held_back"]))
    return chain


@torch.no_grad()
def run(model, prompt, setting):
    """Tokens, and by how much each leads the next best after all processors. End tokens do not stop
    it, so that all of it is compared."""
    chain = processors(setting, len(prompt))
    ids, margins = list(prompt), []
    for _ in range(NUM_STEPS):
        tokens = torch.tensor([ids])
        scores = chain(tokens, model(tokens).logits[:, -1].float())[0]
        best = torch.topk(scores, 2)
        margins.append(round(float(best.values[0] - best.values[1]), 6))
        ids.append(int(best.indices[0]))
    return dict(token_ids=ids[len(prompt) :], margins=margins)


def main():
    model = transformers.AutoModelForCausalLM.from_pretrained(
        HERE / CASE, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    ).eval()
    prompts = json.loads((HERE / CASE / "golden.json").read_text())["prompts"]
    results = [
        dict(**setting, results=[run(model, prompt, setting) for prompt in prompts])
        for setting in SETTINGS
    ]
    golden = dict(case=CASE, transformers=transformers.__version__, settings=results)
    (HERE / "penalties.json").write_text(json.dumps(golden) + "\n")


main()
