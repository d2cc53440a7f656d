"""Qwen3 for training on a CPU: f32 weights, bf16 matrix products, fused projections.

It computes what transformers' Qwen3ForCausalLM computes, about twice as fast there;
`export` writes the ordinary Hugging Face files.
"""

import json
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

BF16 = torch.bfloat16


@dataclass
class Shape:
    vocab: int = 4096
    hidden: int = 256
    inner: int = 768
    layers: int = 6
    heads: int = 8
    kv_heads: int = 4
    head_dim: int = 32
    theta: float = 10000.0
    eps: float = 1e-6


def weight(*shape, std=0.02):
    return nn.Parameter(torch.randn(*shape) * std)


class Layer(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.s = s
        out_std = 0.02 / (2 * s.layers) ** 0.5
        self.norm1, self.norm2 = (nn.Parameter(torch.ones(s.hidden)) for _ in range(2))
        self.q_norm, self.k_norm = (nn.Parameter(torch.ones(s.head_dim)) for _ in range(2))
        self.qkv = weight((s.heads + 2 * s.kv_heads) * s.head_dim, s.hidden)
        self.o = weight(s.hidden, s.heads * s.head_dim, std=out_std)
        self.gate_up = weight(2 * s.inner, s.hidden)
        self.down = weight(s.hidden, s.inner, std=out_std)

    def forward(self, x, cos, sin):
        s, (b, t, _) = self.s, x.shape
        h = F.rms_norm(x, (s.hidden,), self.norm1, s.eps).to(BF16)
        q, k, v = (h @ self.qkv.to(BF16).t()).split([s.heads * s.head_dim, s.kv_heads * s.head_dim, s.kv_heads * s.head_dim], -1)
        q = rotate(F.rms_norm(q.view(b, t, s.heads, -1).float(), (s.head_dim,), self.q_norm, s.eps), cos, sin)
        k = rotate(F.rms_norm(k.view(b, t, s.kv_heads, -1).float(), (s.head_dim,), self.k_norm, s.eps), cos, sin)
        group = s.heads // s.kv_heads
        k = k.repeat_interleave(group, 2)
        v = v.reshape(b, t, s.kv_heads, -1).repeat_interleave(group, 2)
        a = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        x = x + a.transpose(1, 2).reshape(b, t, -1) @ self.o.to(BF16).t()
        h = F.rms_norm(x, (s.hidden,), self.norm2, s.eps).to(BF16)
        gate, up = (h @ self.gate_up.to(BF16).t()).chunk(2, -1)
        return x + (F.silu(gate) * up) @ self.down.to(BF16).t()


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(BF16)


def attend(q, k, v):
    """Causal attention, spelled out: on short rows torch's own backward is several times slower."""
    t = q.shape[2]
    future = torch.full((t, t), float("-inf")).triu(1)
    scores = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5 + future
    return scores.softmax(-1).to(BF16) @ v


class Model(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.s = shape
        self.embed = weight(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.Parameter(torch.ones(shape.hidden))

    def forward(self, tokens, where, targets):
        """Mean loss at the flat positions `where`, against the tokens `targets`."""
        s = self.s
        angle = torch.arange(tokens.shape[1])[:, None] * s.theta ** (-torch.arange(0, s.head_dim, 2) / s.head_dim)
        cos, sin = angle.cos()[None, :, None], angle.sin()[None, :, None]
        x = F.embedding(tokens, self.embed)
        for layer in self.layers:
            x = layer(x, cos, sin)
        x = x.reshape(-1, s.hidden).index_select(0, where)
        x = F.rms_norm(x, (s.hidden,), self.norm, s.eps).to(BF16)
        return F.cross_entropy((x @ self.embed.to(BF16).t()).float(), targets)


def tensors(model):
    """The weights under their Hugging Face names, in bf16."""
    s, out = model.s, {"model.embed_tokens.weight": model.embed, "model.norm.weight": model.norm}
    for i, layer in enumerate(model.layers):
        q, k, v = layer.qkv.split([s.heads * s.head_dim, s.kv_heads * s.head_dim, s.kv_heads * s.head_dim])
        gate, up = layer.gate_up.chunk(2)
        named = {"input_layernorm": layer.norm1, "post_attention_layernorm": layer.norm2, "self_attn.q_norm": layer.q_norm, "self_attn.k_norm": layer.k_norm,
                 "self_attn.q_proj": q, "self_attn.k_proj": k, "self_attn.v_proj": v, "self_attn.o_proj": layer.o,
                 "mlp.gate_proj": gate, "mlp.up_proj": up, "mlp.down_proj": layer.down}
        out.update({f"model.layers.{i}.{name}.weight": w for name, w in named.items()})
    return {name: w.detach().to(BF16).contiguous() for name, w in out.items()}


def config(s, eos):
    return {
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": None, "eos_token_id": eos,
        "head_dim": s.head_dim, "hidden_act": "silu", "hidden_size": s.hidden, "initializer_range": 0.02, "intermediate_size": s.inner,
        "layer_types": ["full_attention"] * s.layers, "max_position_embeddings": 2048, "max_window_layers": s.layers, "model_type": "qwen3",
        "num_attention_heads": s.heads, "num_hidden_layers": s.layers, "num_key_value_heads": s.kv_heads, "pad_token_id": 0, "rms_norm_eps": s.eps, "rope_scaling": None,
        "rope_theta": s.theta, "sliding_window": None, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "transformers_version": "4.57.3",
        "use_cache": True, "use_sliding_window": False, "vocab_size": s.vocab,
    }


def export(model, folder, eos, also_stop):
    """config.json, generation_config.json and model.safetensors."""
    save_file(tensors(model), f"{folder}/model.safetensors", metadata={"format": "pt"})
    generation = {"do_sample": True, "eos_token_id": [eos, also_stop], "pad_token_id": also_stop, "temperature": 0.6, "top_p": 0.9, "transformers_version": "4.57.3"}
    for name, value in (("config.json", config(model.s, eos)), ("generation_config.json", generation)):
        with open(f"{folder}/{name}", "w") as file:
            file.write(json.dumps(value, indent=2) + "\n")
