//! The layers for a few tokens on one rank: the same numbers as the rest of the forward pass computes,
//! in six kernels of a layer instead of nine. With so few tokens a kernel takes about as long to start
//! as to run.
//!
//! Never knows requests or sampling.

use minisgl_cache::KvPool;
use minisgl_kernels::ops::{self, Attention};

use super::{Activations, Decoder, ForwardContext, Geometry, Mlp};
use crate::ModelError;

impl Decoder {
    /// Up to how many tokens [`Decoder::few`] is faster, and can.
    pub(super) fn most_few(&self) -> usize {
        let Geometry { dtype, hidden_size, .. } = self.geometry;
        if !self.can_be_few() {
            return 0;
        }
        ops::few_rows(self.embedding.device(), dtype, hidden_size)
    }

    /// Whether there are neither experts nor biases.
    fn can_be_few(&self) -> bool {
        self.layers.iter().all(|layer| {
            let Mlp::Dense { gate_up_proj, down_proj } = &layer.mlp else { return false };
            [&layer.qkv_proj, &layer.o_proj, gate_up_proj, down_proj]
                .iter()
                .all(|linear| linear.bias.is_none())
        })
    }

    /// From the embeddings in `residual` to their normalized output in `x`.
    pub(super) fn few(
        &self,
        context: &ForwardContext<'_>,
        attention: &mut Attention,
        pool: &mut KvPool,
        activations: &mut Activations,
    ) -> Result<(), ModelError> {
        let (stream, t) = (context.stream, context.num_tokens());
        let eps = self.geometry.rms_norm_eps;
        for (index, layer) in self.layers.iter().enumerate() {
            let Mlp::Dense { gate_up_proj, down_proj } = &layer.mlp else {
                unreachable!("layers with experts are never few");
            };
            let residual = activations.residual.view().rows(0..t)?;
            let (norm, weight) = (layer.input_norm.view(), layer.qkv_proj.weight.view());
            let qkv = activations.qkv.view_mut().rows(0..t)?;
            ops::norm_gemm(stream, residual, norm, eps, weight, qkv)?;

            self.attend(context, layer, attention, pool.layer_mut(index), activations)?;
            let heads = activations.attention.view().rows(0..t)?;
            let residual = activations.residual.view_mut().rows(0..t)?;
            ops::gemm_add(stream, heads, layer.o_proj.weight.view(), residual)?;

            let residual = activations.residual.view().rows(0..t)?;
            let (norm, weight) = (layer.post_attention_norm.view(), gate_up_proj.weight.view());
            let inner = activations.inner.view_mut().rows(0..t)?;
            ops::norm_gemm_silu(stream, residual, norm, eps, weight, inner)?;

            let inner = activations.inner.view().rows(0..t)?;
            let residual = activations.residual.view_mut().rows(0..t)?;
            ops::gemm_add(stream, inner, down_proj.weight.view(), residual)?;
        }
        let residual = activations.residual.view().rows(0..t)?;
        let x = activations.x.view_mut().rows(0..t)?;
        ops::rms_norm(stream, residual, self.final_norm.view(), eps, x)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
