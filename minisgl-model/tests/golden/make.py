"""Golden fixtures: tiny random checkpoints and what Hugging Face `transformers` computes from them.

    python -m venv venv && venv/bin/pip install -r requirements.txt
    venv/bin/python make.py                      # remake every fixture beside this script
    venv/bin/python make.py --case llama         # only this one (repeatable); `rope` is rope.json
    venv/bin/python make.py --out /tmp/golden    # somewhere else, for instance to compare

Each case is a folder with an ordinary checkpoint and `golden.json`: five prompts, their greedy
continuations, and log-probabilities. README.md describes the format. The same versions on the same
machine write the same bytes. It never needs a network or a GPU, and no test runs it.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
import transformers
from cases import CASES, LLAMA3_SCALING, llama, yarn
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

NUM_STEPS = 16  # greedy tokens after each prompt
NUM_TOP = 5
PAGE = 16  # prompts share prefixes that are whole pages of this many tokens
DISTINCT_MIN = 6  # different tokens in a continuation: a model that repeats itself tests little

# Random prompts to choose each prompt from, by the dtype of the checkpoint: coarser rounding needs
# clearer winners.
NUM_CANDIDATES = {"float32": 100, "float16": 100, "bfloat16": 600}
# How far an engine of the run's dtype, adding in another order, may stray from the recorded
# natural-log probabilities: the worst of them, and the root mean square over the vocabulary at one
# position, which is the sharper test. `measure_noise` holds both honest.
TOLERANCE = {
    "float32": {"max": 1e-4, "rms": 2e-5},
    "bfloat16": {"max": 0.05, "rms": 0.02},
}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# What the reference computes in, by the dtype of the checkpoint.
RUNS = {"float32": ["float32"], "float16": ["float32"], "bfloat16": ["bfloat16", "float32"]}


# === checkpoint ===


def randomize(model, final_norm, rng):
    """Draws every parameter anew, large enough that leaving any one of them out shows."""
    for name, parameter in sorted(model.named_parameters()):
        shape = tuple(parameter.shape)
        if name.endswith("norm.weight"):
            values = rng.uniform(0.5, 1.5, shape)
        elif name.endswith(".bias"):
            values = rng.normal(0.0, 0.1, shape)
        else:
            values = rng.normal(0.0, 0.9 / shape[-1] ** 0.5, shape)
        if name == "model.norm.weight":
            values *= final_norm
        parameter.data.copy_(torch.from_numpy(values))


def save_checkpoint(case, folder, rng):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(case.config)
    randomize(model, case.final_norm, rng)
    model.to(DTYPES[case.dtype]).save_pretrained(folder, max_shard_size=case.max_shard_size)
    (folder / "generation_config.json").unlink(missing_ok=True)

    path = folder / "config.json"
    config = json.loads(path.read_text())
    if "no-head-dim" in case.edit:
        del config["head_dim"]
    if "torch_dtype" in case.edit:
        config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


FP8_MAX = 448.0  # the largest number of float8_e4m3fn


def quantize(case, folder):
    """Quantizes every projection to fp8 as published checkpoints are. Leaves what the fp8 numbers
    stand for, in float32, in the folder, for the reference to compute with, and returns the
    quantized tensors and their `quantization_config`."""
    path = folder / "model.safetensors"
    plain = load_file(path)
    quantized = dict(plain)
    for name, weight in plain.items():
        if not name.endswith("_proj.weight"):
            continue
        rows, columns = weight.shape
        height, width = (rows, columns) if case.fp8 == "tensor" else case.fp8
        scales = torch.zeros(-(-rows // height), -(-columns // width))
        numbers = torch.zeros(rows, columns, dtype=torch.float8_e4m3fn)
        for i, j in np.ndindex(*scales.shape):
            block = np.s_[i * height : (i + 1) * height, j * width : (j + 1) * width]
            scales[i, j] = weight[block].abs().max() / FP8_MAX
            numbers[block] = (weight[block] / scales[i, j]).to(torch.float8_e4m3fn)
            plain[name][block] = numbers[block].float() * scales[i, j]
        quantized[name] = numbers
        if case.fp8 == "tensor":
            quantized[f"{name}_scale"] = scales[0, 0]
        else:
            quantized[f"{name}_scale_inv"] = scales
    save_file(plain, path, metadata={"format": "pt"})
    config = dict(quant_method="fp8", activation_scheme="dynamic", fmt="e4m3")
    if case.fp8 != "tensor":
        config["weight_block_size"] = list(case.fp8)
    return quantized, config


def disguise(case, folder):
    """Rewrites the checkpoint in another spelling of the same, which this `transformers` does not
    read, after it is recorded."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if "rope_parameters" in case.edit:  # transformers 5
        theta = config.pop("rope_theta")
        config["rope_parameters"] = config.pop("rope_scaling") | dict(rope_theta=theta)
    if "wrap" in case.edit:  # a text model inside a multimodal one
        outer = dict(
            architectures=["Mistral3ForConditionalGeneration"],
            model_type="mistral3",
            dtype=config.pop("dtype"),
            text_config=config,
            vision_config=dict(model_type="pixtral", hidden_size=8),
        )
        del config["architectures"]
        config, path_tensors = outer, folder / "model.safetensors"
        tensors = load_file(path_tensors)
        tensors = {f"language_model.{name}": tensor for name, tensor in tensors.items()}
        tensors["vision_tower.patch_conv.weight"] = torch.zeros(8, 3)
        tensors["multi_modal_projector.norm.weight"] = torch.ones(8)
        save_file(tensors, path_tensors, metadata={"format": "pt"})
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def load_checkpoint(folder, dtype):
    """The model as anybody would load it from the files, so that the files are what is recorded."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", local_files_only=True
    )
    return model.eval()


# === reference runs ===


@torch.no_grad()
def logprobs_at_end(model, ids):
    """Natural-log probabilities (float64) of the token after `ids`; no KV cache, no batch."""
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
    return torch.log_softmax(logits.double(), dim=-1).numpy()


def rank_tokens(logprobs):
    """Token ids, most probable first, ties by the lowest id."""
    return np.lexsort((np.arange(len(logprobs)), -logprobs))


def greedy(model, prompt, margin_min=0.0):
    """Log-probabilities at each of `NUM_STEPS` greedy steps; None as soon as a margin is not above
    `margin_min`."""
    ids, steps = list(prompt), []
    for _ in range(NUM_STEPS):
        logprobs = logprobs_at_end(model, ids)
        if margin(logprobs) <= margin_min:
            return None
        steps.append(logprobs)
        ids.append(int(rank_tokens(logprobs)[0]))
    return steps


def margin(logprobs):
    """How far the best token leads the second."""
    best, second = rank_tokens(logprobs)[:2]
    return logprobs[best] - logprobs[second]


def continuation(steps):
    return [int(rank_tokens(logprobs)[0]) for logprobs in steps]


def least_margin(models, prompt, margin_min):
    """The least margin of all steps and models, or `margin_min` if it is not above that, if the
    models continue differently, or if the continuation is the same token over and over."""
    runs = []
    for model in models:
        steps = greedy(model, prompt, margin_min)
        if steps is None or len(set(continuation(steps))) < DISTINCT_MIN:
            return margin_min
        runs.append(steps)
    if any(continuation(steps) != continuation(runs[0]) for steps in runs):
        return margin_min
    return min(margin(logprobs) for steps in runs for logprobs in steps)


def find_prompt(models, case, prefix, length, rng):
    """Of many random prompts that start with `prefix`, the one with the clearest continuation, so
    that greedy ids are safe to compare."""
    best, best_margin = None, 0.0
    for _ in range(NUM_CANDIDATES[case.dtype]):
        suffix = rng.integers(0, case.config.vocab_size, length - len(prefix))
        prompt = prefix + suffix.tolist()
        prompt_margin = least_margin(models, prompt, best_margin)
        if prompt_margin > best_margin:
            best, best_margin = prompt, prompt_margin
    assert best, f"no usable prompt of {length} tokens: change the seed"
    return best


def find_prompts(models, case, rng):
    """Five prompts. The fourth starts with one page of the third, the fifth with three pages of
    the fourth, so that a prefix cache has something to hit."""

    def find(prefix, length):
        return find_prompt(models, case, prefix, length, rng)

    one, two, third = find([], 1), find([], 2), find([], PAGE + 1)
    fourth = find(third[:PAGE], 60)
    fifth = find(fourth[: 3 * PAGE], 150)
    return [one, two, third, fourth, fifth]


def measure_noise(dtype, exact, prompts, runs):
    """The worst difference that the dtype's rounding alone makes, against the same model in a wider
    dtype (where `transformers` still computes norms and softmax in float32). Must be below the
    tolerance."""
    noise = {"max": 0.0, "rms": 0.0}
    for prompt, steps in zip(prompts, runs):
        tokens = continuation(steps)
        for step, logprobs in enumerate(steps):
            difference = logprobs_at_end(exact, prompt + tokens[:step]) - logprobs
            noise["max"] = max(noise["max"], f32(np.abs(difference).max()))
            noise["rms"] = max(noise["rms"], f32(np.sqrt(np.mean(difference**2))))
    for kind, value in noise.items():
        assert value < TOLERANCE[dtype][kind], f"{dtype} {kind}: noise {value} is too large"
    return noise


# === files ===


def f32(value):
    """The shortest decimal that reads back as the same float32."""
    return float(str(np.float32(value)))


def describe(prompt_steps):
    """One prompt's record in golden.json."""
    steps = []
    for logprobs in prompt_steps:
        order = rank_tokens(logprobs)
        top = [[int(token), f32(logprobs[token])] for token in order[:NUM_TOP]]
        steps.append({"top": top, "margin": f32(margin(logprobs))})
    return {
        "token_ids": continuation(prompt_steps),
        "steps": steps,
        "last_prompt_position_logprobs": [f32(value) for value in prompt_steps[0]],
    }


def dump(value, indent=""):
    """JSON with one innermost list or record per line: small, and readable in a diff."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if not any(isinstance(part, (dict, list)) for part in parts) or "margin" in value:
        return json.dumps(value)
    inner = indent + " "
    if isinstance(value, dict):
        lines = [f"{inner}{json.dumps(key)}: {dump(part, inner)}" for key, part in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + dump(part, inner) for part in value) + f"\n{indent}]"


def provenance(name):
    return {
        "command": f"python make.py --case {name}",
        "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
    }


def make_case(name, case, folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(case.seed)
    save_checkpoint(case, folder, rng)
    quantized = quantize(case, folder) if case.fp8 else None

    run_dtypes = RUNS[case.dtype]
    models = {dtype: load_checkpoint(folder, DTYPES[dtype]) for dtype in run_dtypes}
    prompts = find_prompts(list(models.values()), case, rng)
    runs = {dtype: [greedy(models[dtype], p) for p in prompts] for dtype in run_dtypes}

    golden = provenance(name) | {"dtype": case.dtype, "prompts": prompts, "runs": []}
    for dtype in run_dtypes:
        exact = load_checkpoint(folder, torch.float64 if dtype == "float32" else torch.float32)
        noise = measure_noise(dtype, exact, prompts, runs[dtype])
        results = [describe(steps) for steps in runs[dtype]]
        golden["runs"].append(
            {"dtype": dtype, "tolerance": TOLERANCE[dtype], "noise": noise, "results": results}
        )
        margins = [step["margin"] for result in results for step in result["steps"]]
        print(name, dtype, f"margin min {min(margins)} median {np.median(margins):.3f}", noise)
    (folder / "golden.json").write_text(dump(golden) + "\n")
    disguise(case, folder)
    if quantized:
        tensors, quantization_config = quantized
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        path = folder / "config.json"
        config = json.loads(path.read_text()) | dict(quantization_config=quantization_config)
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def make_rope(path):
    """Inverse frequencies and attention factors by rope type, and rows of the cos/sin table."""
    wide = dict(head_dim=128, max_position_embeddings=131_072, rope_theta=500_000.0)
    real = LLAMA3_SCALING | dict(original_max_position_embeddings=8192)
    configs = {
        "default": llama(),
        "default, wide heads": llama(**wide),
        "default, partial": llama(head_dim=16, partial_rotary_factor=0.5),
        "linear": llama(head_dim=16, rope_scaling=dict(rope_type="linear", factor=2.5)),
        "dynamic": llama(head_dim=16, rope_scaling=dict(rope_type="dynamic", factor=2.0)),
        "llama3": llama(head_dim=16, rope_scaling=LLAMA3_SCALING),
        "llama3, Llama 3.1 8B": llama(**wide, rope_scaling=real),
        "yarn": yarn(),
        "yarn, attention_factor": yarn(attention_factor=1.25, beta_fast=16.0, beta_slow=2.0),
        "yarn, mscale": yarn(mscale=0.7, mscale_all_dim=1.1),
    }
    positions = [0, 1, 2, 31, 32, 150, 255]
    cases = []
    for name, config in configs.items():
        rope_type = (config.rope_scaling or {}).get("rope_type", "default")
        inv_freq, attention_factor = ROPE_INIT_FUNCTIONS[rope_type](config, device="cpu")
        angles = torch.tensor(positions, dtype=torch.float32)[:, None] * inv_freq[None, :]
        cases.append(
            {
                "name": name,
                "head_dim": config.head_dim,
                "partial_rotary_factor": getattr(config, "partial_rotary_factor", 1.0),
                "max_position_embeddings": config.max_position_embeddings,
                "rope_theta": config.rope_theta,
                "rope_scaling": config.rope_scaling,
                "inv_freq": [f32(v) for v in inv_freq],
                "attention_factor": f32(attention_factor),
                "positions": positions,
                "cos": [[f32(v) for v in row] for row in angles.cos() * attention_factor],
                "sin": [[f32(v) for v in row] for row in angles.sin() * attention_factor],
            }
        )
    path.write_text(dump(provenance("rope") | {"cases": cases}) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to fill")
    parser.add_argument("--case", action="append", choices=[*CASES, "rope"], help="default: all")
    arguments = parser.parse_args()

    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.case or [*CASES, "rope"]:
        if name == "rope":
            make_rope(arguments.out / "rope.json")
        else:
            make_case(name, CASES[name], arguments.out / name)


if __name__ == "__main__":
    main()
