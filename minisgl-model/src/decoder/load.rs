//! The names and shapes of a decoder's weights in a Hugging Face checkpoint, and which part of each
//! this rank loads. Knows names and the sharding rules' results; never files.

use std::ops::Range;

use minisgl_kernels::{DType, Device, Stream, Tensor};

use super::experts::Experts;
use super::linear::Linear;
use super::{Decoder, Geometry, Layer, Mlp};
use crate::arch::DecoderParts;
use crate::rope::cos_sin_table;
use crate::shard::Shard;
use crate::weights::{Loader, Part};
use crate::{ModelConfig, ModelError};

/// A matrix of the checkpoint and the part of it that is loaded.
struct Projection<'a> {
    /// Without `.weight`; in order, one below the other.
    names: &'a [(&'a str, usize, Range<usize>)],
    num_columns: usize,
    columns: Range<usize>,
    bias: bool,
}

impl Decoder {
    /// Loads the share of `shard`, with rotary tables for `max_positions` positions. What is wrong
    /// with the checkpoint is told by [`Loader::finish`].
    ///
    /// # Errors
    /// If the device fails.
    pub fn load(
        config: &ModelConfig,
        shard: &Shard,
        max_positions: usize,
        loader: &Loader<'_>,
        geometry: Geometry,
        device: &Device,
    ) -> Result<Self, ModelError> {
        loader.expect_fp8(config.fp8);
        let h = config.hidden_size;
        let vocabulary = |name: &str| {
            let part = Part::rows(name.to_owned(), config.vocab_size, shard.vocab.clone());
            loader.matrix(&[part], h, 0..h)
        };
        let embedding = vocabulary("model.embed_tokens.weight")?;
        let parts = config.architecture.parts(config);
        let layers: Result<Vec<Layer>, ModelError> = (0..config.num_layers)
            .map(|index| LayerLoader { config, shard, loader, parts, geometry, index }.load())
            .collect();
        let mut decoder = Self {
            geometry,
            embedding,
            layers: layers?,
            final_norm: loader.vector(&[Part::all("model.norm.weight".to_owned(), h)])?,
            lm_head: if config.tie_word_embeddings {
                None
            } else {
                Some(vocabulary("lm_head.weight")?)
            },
            cos_sin: rotary_table(config, max_positions, loader.stream(), device)?,
            max_few: 0,
        };
        decoder.max_few = decoder.most_few();
        Ok(decoder)
    }
}

/// Cosines and sines for all positions, made a block at a time: a context of millions of positions
/// is an error of the device if it does not fit, and never held twice.
fn rotary_table(
    config: &ModelConfig,
    max_positions: usize,
    stream: &Stream,
    device: &Device,
) -> Result<Tensor, ModelError> {
    const BLOCK: usize = 4096;
    let mut table = device.zeros(DType::F32, [max_positions, config.head_dim])?;
    for first in (0..max_positions).step_by(BLOCK) {
        let positions = first..max_positions.min(first + BLOCK);
        let rows = cos_sin_table(&config.rope, config.head_dim, positions.clone());
        stream.upload(&rows, table.view_mut().rows(positions)?)?;
    }
    Ok(table)
}

struct LayerLoader<'a> {
    config: &'a ModelConfig,
    shard: &'a Shard,
    loader: &'a Loader<'a>,
    parts: DecoderParts,
    geometry: Geometry,
    index: usize,
}

impl LayerLoader<'_> {
    fn load(&self) -> Result<Layer, ModelError> {
        let Self { config, shard, parts, .. } = self;
        let (h, d) = (config.hidden_size, config.head_dim);
        let heads = |range: &Range<usize>| range.start * d..range.end * d;
        let (q_size, kv_size) = (config.num_qo_heads * d, config.num_kv_heads * d);
        let (q, kv) = (heads(&shard.qo_heads), heads(&shard.kv_heads));
        let first_rank = shard.rank == 0;
        Ok(Layer {
            input_norm: self.norm("input_layernorm", h)?,
            qkv_proj: self.linear(Projection {
                names: &[
                    ("self_attn.q_proj", q_size, q.clone()),
                    ("self_attn.k_proj", kv_size, kv.clone()),
                    ("self_attn.v_proj", kv_size, kv),
                ],
                num_columns: h,
                columns: 0..h,
                bias: parts.qkv_bias,
            })?,
            qk_norm: if parts.qk_norm {
                Some((self.norm("self_attn.q_norm", d)?, self.norm("self_attn.k_norm", d)?))
            } else {
                None
            },
            o_proj: self.linear(Projection {
                names: &[("self_attn.o_proj", h, 0..h)],
                num_columns: q_size,
                columns: q,
                bias: parts.o_bias && first_rank,
            })?,
            post_attention_norm: self.norm("post_attention_layernorm", h)?,
            mlp: if config.is_sparse(self.index) { self.experts()? } else { self.dense()? },
            window: config.windows[self.index],
        })
    }

    fn dense(&self) -> Result<Mlp, ModelError> {
        let (h, i) = (self.config.hidden_size, self.config.intermediate_size);
        let (bias, inner) = (self.parts.mlp_bias, self.shard.intermediate.clone());
        Ok(Mlp::Dense {
            gate_up_proj: self.linear(Projection {
                names: &[("mlp.gate_proj", i, inner.clone()), ("mlp.up_proj", i, inner.clone())],
                num_columns: h,
                columns: 0..h,
                bias,
            })?,
            down_proj: self.linear(Projection {
                names: &[("mlp.down_proj", h, 0..h)],
                num_columns: i,
                columns: inner,
                bias: bias && self.shard.rank == 0,
            })?,
        })
    }

    /// Every expert is split like a dense MLP; the router is on all ranks.
    fn experts(&self) -> Result<Mlp, ModelError> {
        let Some(moe) = &self.config.moe else { return self.dense() };
        let (h, i) = (self.config.hidden_size, moe.intermediate_size);
        let inner = self.shard.expert_intermediate.clone();
        let part = |expert: usize, name: &str, num_rows, rows: Range<usize>| {
            let name = self.name(&format!("mlp.experts.{expert}.{name}.weight"));
            Part::rows(name, num_rows, rows)
        };
        let gate_up: Vec<Part> = (0..moe.num_experts)
            .flat_map(|expert| {
                ["gate_proj", "up_proj"].map(|name| part(expert, name, i, inner.clone()))
            })
            .collect();
        let down: Vec<Part> =
            (0..moe.num_experts).map(|expert| part(expert, "down_proj", h, 0..h)).collect();
        let router = Part::all(self.name("mlp.gate.weight"), moe.num_experts);
        Ok(Mlp::Sparse(Experts::new(
            moe,
            self.loader.matrix(&[router], h, 0..h)?,
            self.loader.matrix(&gate_up, h, 0..h)?,
            self.loader.matrix(&down, i, inner)?,
        )))
    }

    fn linear(&self, projection: Projection<'_>) -> Result<Linear, ModelError> {
        let parts = |suffix: &str| -> Vec<Part> {
            let part = |(name, num_rows, rows): &(&str, usize, Range<usize>)| {
                Part::rows(self.name(&format!("{name}.{suffix}")), *num_rows, rows.clone())
            };
            projection.names.iter().map(part).collect()
        };
        let Projection { num_columns, columns, bias, .. } = projection;
        let (loader, weights) = (self.loader, parts("weight"));
        let bias = bias.then(|| loader.vector(&parts("bias"))).transpose()?;
        if self.geometry.fp8_projections
            && let Some(weight) = loader.fp8_matrix(&weights, num_columns, columns.clone())?
        {
            return Ok(Linear::fp8(weight.values, weight.scales, bias));
        }
        let weight = loader.matrix(&weights, num_columns, columns)?;
        // One projection at a time is held in both forms.
        if self.geometry.fp8_projections {
            return Ok(Linear::quantized(self.loader.stream(), &weight, bias)?);
        }
        Ok(Linear::new(weight, bias))
    }

    fn norm(&self, name: &str, size: usize) -> Result<Tensor, ModelError> {
        self.loader.vector(&[Part::all(self.name(&format!("{name}.weight")), size)])
    }

    fn name(&self, suffix: &str) -> String {
        format!("model.layers.{}.{suffix}", self.index)
    }
}
