"""The checkpoints that `make.py` makes: configurations, and what is special about each."""

import dataclasses

import transformers
from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config, Qwen3MoeConfig


@dataclasses.dataclass(frozen=True)
class Case:
    """One checkpoint. `seed` picks weights and prompts, `edit` changes config.json after saving,
    `final_norm` scales the logits and with them the noise of rounding, `fp8` is how projections are
    quantized: rows and columns of a block, or "tensor"."""

    config: transformers.PretrainedConfig
    seed: int
    dtype: str = "float32"
    max_shard_size: str = "10MB"
    edit: tuple[str, ...] = ()
    final_norm: float = 1.0
    fp8: tuple[int, int] | str | None = None


def llama(**overrides):
    """Grouped-query attention, untied head, a vocabulary that no power of two divides."""
    geometry = dict(
        vocab_size=331,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=256,
        rms_norm_eps=1e-5,
        rope_theta=10_000.0,
    )
    return LlamaConfig(**(geometry | overrides))


def qwen3(**overrides):
    """RMSNorm on every query and key head, heads wider than hidden_size / num_attention_heads."""
    geometry = dict(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=256,
        rms_norm_eps=1e-6,
        rope_theta=1_000_000.0,
        tie_word_embeddings=True,
    )
    return Qwen3Config(**(geometry | overrides))


def qwen2(**overrides):
    """Biases on queries, keys and values, always."""
    geometry = dict(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=256,
        rms_norm_eps=1e-6,
        rope_theta=1_000_000.0,
        tie_word_embeddings=True,
    )
    return Qwen2Config(**(geometry | overrides))


def mistral(**overrides):
    """A sliding window in all layers."""
    geometry = dict(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=256,
        rms_norm_eps=1e-5,
        rope_theta=10_000.0,
        sliding_window=16,
        tie_word_embeddings=True,
    )
    return MistralConfig(**(geometry | overrides))


def qwen3_moe(**overrides):
    """Experts in some layers: 8 of them, 2 per token."""
    geometry = dict(
        vocab_size=320,
        hidden_size=48,
        intermediate_size=64,
        moe_intermediate_size=16,
        num_experts=8,
        num_experts_per_tok=2,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=256,
        rms_norm_eps=1e-6,
        rope_theta=1_000_000.0,
        tie_word_embeddings=True,
    )
    return Qwen3MoeConfig(**(geometry | overrides))


def yarn(**overrides):
    """A llama with YaRN scaling by 4."""
    scaling = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32)
    return llama(head_dim=32, max_position_embeddings=128, rope_scaling=scaling | overrides)


def wide_heads(head_dim):
    """A narrow llama with 8 wide query heads that share one KV head."""
    return llama(
        vocab_size=160,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_key_value_heads=1,
        head_dim=head_dim,
        tie_word_embeddings=True,
    )


LLAMA3_SCALING = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)

BF16 = dict(dtype="bfloat16", final_norm=0.5)
# "no-head-dim": config.json without head_dim, as Llama 2 and 3 ship it.
# "torch_dtype": the older name of `dtype`, as most published checkpoints have it.
CASES = {
    "llama": Case(llama(), seed=1, edit=("no-head-dim", "torch_dtype")),
    "llama3-rope": Case(
        llama(
            intermediate_size=80,
            head_dim=16,
            tie_word_embeddings=True,
            rope_scaling=LLAMA3_SCALING,
        ),
        seed=2,
        max_shard_size="200KB",
    ),
    "llama-bias": Case(
        llama(
            intermediate_size=80,
            num_key_value_heads=4,
            head_dim=16,
            attention_bias=True,
            mlp_bias=True,
            tie_word_embeddings=True,
        ),
        seed=3,
    ),
    "qwen3": Case(qwen3(), seed=4, edit=("torch_dtype",)),
    "qwen3-untied": Case(
        qwen3(
            intermediate_size=32, num_key_value_heads=8, head_dim=16, tie_word_embeddings=False
        ),
        seed=5,
    ),
    "qwen2": Case(qwen2(), seed=8),
    "qwen2-window": Case(
        qwen2(use_sliding_window=True, sliding_window=16, max_window_layers=1), seed=9
    ),
    "mistral": Case(mistral(), seed=10),
    # As Mistral-Small 3.1 has it: the text model's fields and tensors inside a multimodal one.
    "mistral3": Case(
        mistral(sliding_window=None, head_dim=8, tie_word_embeddings=False),
        seed=11,
        edit=("wrap",),
    ),
    "qwen3-moe": Case(qwen3_moe(norm_topk_prob=True, mlp_only_layers=[1]), seed=12),
    "qwen3-moe-sparse-step": Case(
        qwen3_moe(norm_topk_prob=False, decoder_sparse_step=2, tie_word_embeddings=False), seed=13
    ),
    "llama-yarn": Case(
        llama(
            num_hidden_layers=2,
            tie_word_embeddings=True,
            rope_scaling=dict(
                rope_type="yarn", factor=4.0, original_max_position_embeddings=64
            ),
        ),
        seed=14,
        edit=("rope_parameters",),
    ),
    "llama-linear": Case(
        llama(
            hidden_size=80,
            head_dim=40,
            intermediate_size=80,
            num_hidden_layers=1,
            tie_word_embeddings=True,
            rope_scaling=dict(rope_type="linear", factor=2.5),
        ),
        seed=15,
    ),
    # Up to `max_position_embeddings`, which is as far as an engine with a prefix cache can go.
    "llama-dynamic": Case(
        llama(
            num_hidden_layers=2,
            tie_word_embeddings=True,
            rope_scaling=dict(rope_type="dynamic", factor=2.0),
        ),
        seed=16,
    ),
    "llama-f16": Case(llama(tie_word_embeddings=True), seed=17, dtype="float16"),
    "llama-head80": Case(wide_heads(80), seed=19, dtype="float16"),
    "llama-head96": Case(wide_heads(96), seed=20, dtype="float16"),
    "llama-head128": Case(wide_heads(128), seed=21, dtype="float16"),
    "llama-head256": Case(wide_heads(256), seed=22, dtype="float16"),
    # Blocks that neither divide the projections nor are square.
    "qwen3-fp8": Case(qwen3(num_hidden_layers=2), seed=23, fp8=(24, 40)),
    "llama-fp8": Case(
        llama(num_hidden_layers=2, tie_word_embeddings=True), seed=24, fp8="tensor"
    ),
    # All experts for every token: in bf16, rounding turns a router's choice of fewer.
    "qwen3-moe-bf16": Case(qwen3_moe(num_experts=4, num_experts_per_tok=4), seed=18, **BF16),
    "llama-bf16": Case(llama(), seed=6, **BF16, edit=("no-head-dim", "torch_dtype")),
    "qwen3-bf16": Case(qwen3(), seed=7, **BF16, edit=("torch_dtype",)),
}
