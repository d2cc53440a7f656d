"""What 8-bit floats make of some fixtures, computed by `transformers` with the rounding spelled out.

    venv/bin/python make_fp8.py                  # remake fp8.json beside this script

Of a fixture of `make.py` its checkpoint and prompts are taken. Every projection of attention and MLP
becomes a product of 8-bit floats (OCP E4M3): weights rounded with a scale per row, activations with a
scale per token. With `tp` ranks, o_proj and down_proj are cut into as many stretches of columns, each
with scales of its own, and the products are summed. With `kv`, keys and values are rounded to 8-bit
floats (scale 1, saturating) before attention looks at them. All else is float32. No test runs it.
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from transformers import AutoModelForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

HERE = Path(__file__).parent
CASES = ["llama", "llama-bias", "qwen3"]
RUNS = [
    {"weights": True, "kv": False, "tp": 1},
    {"weights": True, "kv": False, "tp": 2},
    {"weights": True, "kv": False, "tp": 4},
    {"weights": True, "kv": False, "tp": 8},
    {"weights": False, "kv": True, "tp": 1},
    {"weights": True, "kv": True, "tp": 2},
]
NUM_STEPS = 8
NUM_TOP = 5
LARGEST = 448.0
SMALLEST_SCALE = torch.finfo(torch.float32).tiny
ROW_PARALLEL = ("o_proj", "down_proj")


def to_fp8(x):
    """To the nearest 8-bit float, saturating, as float32."""
    return x.clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn).to(torch.float32)


def quantize(x):
    """Rows as 8-bit floats, and a scale for each."""
    scale = (x.abs().amax(dim=-1, keepdim=True) / LARGEST).clamp(min=SMALLEST_SCALE)
    return to_fp8(x / scale), scale


class Fp8Linear(torch.nn.Module):
    def __init__(self, linear, num_parts):
        super().__init__()
        self.parts = [quantize(part) for part in linear.weight.detach().chunk(num_parts, dim=1)]
        self.bias = linear.bias

    def forward(self, x):
        total = 0
        for part, (weight, weight_scale) in zip(x.chunk(len(self.parts), dim=-1), self.parts):
            values, scale = quantize(part)
            total = total + F.linear(values, weight) * scale * weight_scale.T[0]
        return total if self.bias is None else total + self.bias


def quantize_model(model, tp):
    for layer in model.model.layers:
        for block in (layer.self_attn, layer.mlp):
            for name, child in list(block.named_children()):
                if isinstance(child, torch.nn.Linear):
                    parts = tp if name in ROW_PARALLEL else 1
                    setattr(block, name, Fp8Linear(child, parts))


def fp8_attention(module, query, key, value, attention_mask, **kwargs):
    plain = transformers.models.llama.modeling_llama.eager_attention_forward
    return plain(module, query, to_fp8(key), to_fp8(value), attention_mask, **kwargs)


def run(case, weights, kv, tp, prompts):
    model = AutoModelForCausalLM.from_pretrained(
        HERE / case, torch_dtype=torch.float32, attn_implementation="eager"
    )
    if weights:
        quantize_model(model, tp)
    if kv:
        ALL_ATTENTION_FUNCTIONS["fp8"] = fp8_attention
        model.config._attn_implementation = "fp8"
    results = []
    for prompt in prompts:
        ids, steps = list(prompt), []
        for _ in range(NUM_STEPS):
            size = len(ids)
            # Spelled out, since an attention function of an unknown name gets no mask made for it.
            mask = torch.full((size, size), float("-inf")).triu(1)[None, None]
            logits = model(torch.tensor([ids]), attention_mask=mask, use_cache=False).logits[0, -1]
            logprobs = logits.float().log_softmax(-1)
            top = logprobs.topk(NUM_TOP)
            steps.append(
                {"top": [[int(i), round(float(p), 6)] for p, i in zip(top.values, top.indices)]}
            )
            ids.append(int(top.indices[0]))
        results.append(steps)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "fp8.json")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    cases = []
    for case in CASES:
        prompts = json.loads((HERE / case / "golden.json").read_text())["prompts"]
        runs = []
        with torch.no_grad():
            for setting in RUNS:
                plain = run(case, False, False, 1, prompts)
                results = run(case, setting["weights"], setting["kv"], setting["tp"], prompts)
                first = abs(plain[0][0]["top"][0][1] - results[0][0]["top"][0][1])
                print(f"{case} {setting}: {first:.4f} from float32 at the first step")
                runs.append({**setting, "results": results})
        cases.append({"case": case, "prompts": prompts, "runs": runs})
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    out.write_text(json.dumps({**versions, "cases": cases}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
