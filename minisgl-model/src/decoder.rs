//! The forward pass of one rank: a pre-norm transformer decoder with grouped-query attention over
//! the paged KV pool and a gated MLP, tensor-parallel in the manner of Megatron-LM (arXiv
//! 1909.08053): two sums over the ranks per layer.
//!
//! Never knows requests or sampling; it turns a batch of tokens into logits of this rank's share of
//! the vocabulary.

mod activations;
mod experts;
mod few;
mod geometry;
mod linear;
mod load;

use minisgl_cache::KvPool;
use minisgl_cache::pool::KvLayer;
use minisgl_comm::Communicator;
use minisgl_kernels::ops::{self, Attention, AttentionParams, KvStore, QkNorm};
use minisgl_kernels::{Stream, Tensor, View};

pub use self::activations::Activations;
use self::experts::Experts;
pub use self::geometry::{ExpertGeometry, Geometry};
use self::linear::Linear;
use crate::ModelError;
use crate::batch::{Field, StepInputs};

/// One rank's weights. `h` is the hidden size, `d` the head size; heads, `i` and `v` are this
/// rank's share.
#[derive(Debug)]
pub struct Decoder {
    geometry: Geometry,
    /// `[v, h]`
    embedding: Tensor,
    layers: Vec<Layer>,
    /// `[h]`
    final_norm: Tensor,
    /// `[v, h]`; none if tied to the embedding.
    lm_head: Option<Tensor>,
    /// `[max_positions, d]` f32: cosines, then sines.
    cos_sin: Tensor,
    /// Up to how many tokens go through `few`, if there is one rank.
    max_few: usize,
}

#[derive(Debug)]
struct Layer {
    /// `[h]`
    input_norm: Tensor,
    /// q, k, v: `[(qo_heads + 2 kv_heads) * d, h]`
    qkv_proj: Linear,
    /// `[d]` each, for queries and keys.
    qk_norm: Option<(Tensor, Tensor)>,
    /// `[h, qo_heads * d]`
    o_proj: Linear,
    /// `[h]`
    post_attention_norm: Tensor,
    mlp: Mlp,
    /// How many positions back a token sees.
    window: Option<usize>,
}

#[derive(Debug)]
enum Mlp {
    Dense {
        /// gate, up: `[2 i, h]`
        gate_up_proj: Linear,
        /// `[h, i]`
        down_proj: Linear,
    },
    Sparse(Experts),
}

/// What a forward pass works on besides weights and activations.
#[derive(Clone, Copy)]
pub struct ForwardContext<'a> {
    /// Where ops are queued.
    pub stream: &'a Stream,
    /// The other ranks.
    pub comm: &'a dyn Communicator,
    /// The batch.
    pub inputs: &'a StepInputs,
    /// `[rows, max_pages]` i32
    pub page_table: View<'a>,
    /// Tokens in a page.
    pub page_size: usize,
}

impl ForwardContext<'_> {
    fn num_tokens(&self) -> usize {
        self.inputs.layout().tokens
    }
}

impl Decoder {
    /// This rank's sizes.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Computes the batch, writes its keys and values to `pool`, and leaves the logits of its last
    /// tokens in [`Activations::logits`].
    ///
    /// # Errors
    /// If a kernel or a collective fails.
    pub fn forward(
        &self,
        context: &ForwardContext<'_>,
        attention: &mut Attention,
        pool: &mut KvPool,
        activations: &mut Activations,
    ) -> Result<(), ModelError> {
        let ForwardContext { stream, comm, inputs, .. } = *context;
        let (t, eps) = (context.num_tokens(), self.geometry.rms_norm_eps);

        let ids = inputs.field(Field::InputIds)?;
        let residual = activations.residual.view_mut().rows(0..t)?;
        let first_id = self.geometry.first_token_id;
        ops::embedding(stream, ids, self.embedding.view(), first_id, residual)?;
        comm.all_reduce(stream, activations.residual.view_mut().rows(0..t)?)?;
        if t <= self.max_few && comm.world_size() == 1 {
            self.few(context, attention, pool, activations)?;
            return self.logits(context, activations);
        }
        let first_norm = self.layers.first().map_or(&self.final_norm, |layer| &layer.input_norm);
        ops::rms_norm(
            stream,
            activations.residual.view().rows(0..t)?,
            first_norm.view(),
            eps,
            activations.x.view_mut().rows(0..t)?,
        )?;

        for (index, layer) in self.layers.iter().enumerate() {
            let next_norm =
                self.layers.get(index + 1).map_or(&self.final_norm, |next| &next.input_norm);
            self.attention(context, layer, attention, pool.layer_mut(index), activations)?;
            self.add_and_norm(context, &layer.post_attention_norm, activations)?;
            self.mlp(context, layer, activations)?;
            self.add_and_norm(context, next_norm, activations)?;
        }
        self.logits(context, activations)
    }

    /// From the last tokens of the normalized `x` to their logits.
    fn logits(
        &self,
        context: &ForwardContext<'_>,
        activations: &mut Activations,
    ) -> Result<(), ModelError> {
        let ForwardContext { stream, inputs, .. } = *context;
        let t = context.num_tokens();
        let last_tokens = inputs.field(Field::LastTokens)?;
        let m = last_tokens.num_elements();
        let x = activations.x.view().rows(0..t)?;
        ops::gather_rows(stream, x, last_tokens, activations.last.view_mut().rows(0..m)?)?;
        let lm_head = self.lm_head.as_ref().unwrap_or(&self.embedding);
        let last = activations.last.view().rows(0..m)?;
        let logits = activations.logits.view_mut().rows(0..m)?;
        ops::gemm(stream, last, lm_head.view(), None, logits)?;
        Ok(())
    }

    /// `x = attention(x)`, this rank's part of the sum.
    fn attention(
        &self,
        context: &ForwardContext<'_>,
        layer: &Layer,
        attention: &mut Attention,
        pool: &mut KvLayer,
        activations: &mut Activations,
    ) -> Result<(), ModelError> {
        let (stream, t) = (context.stream, context.num_tokens());
        let x = activations.x.view().rows(0..t)?;
        let qkv = activations.qkv.view_mut().rows(0..t)?;
        layer.qkv_proj.forward(stream, x, &mut activations.quantized, qkv)?;
        self.attend(context, layer, attention, pool, activations)?;
        let attention = activations.attention.view().rows(0..t)?;
        let x = activations.x.view_mut().rows(0..t)?;
        layer.o_proj.forward(stream, attention, &mut activations.quantized, x)?;
        Ok(())
    }

    /// From `qkv` to `attention`.
    fn attend(
        &self,
        context: &ForwardContext<'_>,
        layer: &Layer,
        attention: &mut Attention,
        pool: &mut KvLayer,
        activations: &mut Activations,
    ) -> Result<(), ModelError> {
        let ForwardContext { stream, inputs, .. } = *context;
        let Geometry { num_qo_heads, num_kv_heads, head_dim, rms_norm_eps, .. } = self.geometry;
        let t = context.num_tokens();
        let (q, kv) =
            activations.qkv.view_mut().rows(0..t)?.split_columns(num_qo_heads * head_dim)?;
        let (k, v) = kv.split_columns(num_kv_heads * head_dim)?;
        let mut q = q.reshape([t, num_qo_heads, head_dim])?;
        let k = k.reshape([t, num_kv_heads, head_dim])?;
        let v = v.reshape([t, num_kv_heads, head_dim])?;
        let norm = layer.qk_norm.as_ref().map(|(q_weight, k_weight)| QkNorm {
            q_weight: q_weight.view(),
            k_weight: k_weight.view(),
            eps: rms_norm_eps,
        });
        ops::qk_norm_rope_store(
            stream,
            q.reborrow(),
            k.as_view(),
            norm,
            inputs.field(Field::Positions)?,
            self.cos_sin.view(),
            KvStore {
                v: v.as_view(),
                slots: inputs.field(Field::OutLoc)?,
                k_pool: pool.k.view_mut(),
                v_pool: pool.v.view_mut(),
            },
        )?;
        let kv = pool.paged(context.page_table, context.page_size);
        let scale = 1.0 / (head_dim as f32).sqrt();
        let params = AttentionParams { scale, window: layer.window };
        let out = activations.attention.view_mut().rows(0..t)?;
        let out = out.reshape([t, num_qo_heads, head_dim])?;
        attention.run(stream, q.as_view(), kv, inputs.sequences()?, params, out)?;
        Ok(())
    }

    /// `x = mlp(x)`, this rank's part of the sum.
    fn mlp(
        &self,
        context: &ForwardContext<'_>,
        layer: &Layer,
        activations: &mut Activations,
    ) -> Result<(), ModelError> {
        let (stream, t) = (context.stream, context.num_tokens());
        let (gate_up_proj, down_proj) = match &layer.mlp {
            Mlp::Dense { gate_up_proj, down_proj } => (gate_up_proj, down_proj),
            Mlp::Sparse(experts) => return Ok(experts.forward(stream, t, activations)?),
        };
        let x = activations.x.view().rows(0..t)?;
        let gate_up = activations.gate_up.view_mut().rows(0..t)?;
        gate_up_proj.forward(stream, x, &mut activations.quantized, gate_up)?;
        let gate_up = activations.gate_up.view().rows(0..t)?;
        ops::silu_and_mul(stream, gate_up, activations.inner.view_mut().rows(0..t)?)?;
        let inner = activations.inner.view().rows(0..t)?;
        let x = activations.x.view_mut().rows(0..t)?;
        down_proj.forward(stream, inner, &mut activations.quantized, x)?;
        Ok(())
    }

    /// Sums `x` over the ranks, adds it to the residual stream, and normalizes that into `x`.
    fn add_and_norm(
        &self,
        context: &ForwardContext<'_>,
        weight: &Tensor,
        activations: &mut Activations,
    ) -> Result<(), ModelError> {
        let (stream, t) = (context.stream, context.num_tokens());
        let x = activations.x.view_mut().rows(0..t)?;
        let residual = activations.residual.view_mut().rows(0..t)?;
        let (weight, eps) = (weight.view(), self.geometry.rms_norm_eps);
        context.comm.all_reduce_add_rms_norm(stream, x, residual, weight, eps)?;
        Ok(())
    }
}
