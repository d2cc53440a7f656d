//! The layers for a few tokens on one rank: the same numbers as the rest of the forward pass computes,
//! in six kernels of a layer instead of nine. With so few tokens a kernel takes about as long to start
//! as to run.
//!
//! Never knows requests or sampling.

use minisgl_cache::KvPool;
use minisgl_kernels::View;
use minisgl_kernels::ops::{self, Attention};

use super::{Activations, Decoder, ForwardContext, Geometry, Layer, Mlp};
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

    /// Whether there are neither experts, biases nor 8-bit floats.
    fn can_be_few(&self) -> bool {
        self.layers.iter().all(|layer| plain_weights(layer).is_some())
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
            let Some([qkv_proj, o_proj, gate_up_proj, down_proj]) = plain_weights(layer) else {
                unreachable!("then there are no few");
            };
            let residual = activations.residual.view().rows(0..t)?;
            let qkv = activations.qkv.view_mut().rows(0..t)?;
            ops::norm_gemm(stream, residual, layer.input_norm.view(), eps, qkv_proj, qkv)?;

            self.attend(context, layer, attention, pool.layer_mut(index), activations)?;
            let heads = activations.attention.view().rows(0..t)?;
            ops::gemm_add(stream, heads, o_proj, activations.residual.view_mut().rows(0..t)?)?;

            let residual = activations.residual.view().rows(0..t)?;
            let norm = layer.post_attention_norm.view();
            let inner = activations.inner.view_mut().rows(0..t)?;
            ops::norm_gemm_silu(stream, residual, norm, eps, gate_up_proj, inner)?;

            let inner = activations.inner.view().rows(0..t)?;
            ops::gemm_add(stream, inner, down_proj, activations.residual.view_mut().rows(0..t)?)?;
        }
        let residual = activations.residual.view().rows(0..t)?;
        let x = activations.x.view_mut().rows(0..t)?;
        ops::rms_norm(stream, residual, self.final_norm.view(), eps, x)?;
        Ok(())
    }
}

/// The projections in their order, if there is nothing to them but weights.
fn plain_weights(layer: &Layer) -> Option<[View<'_>; 4]> {
    let Mlp::Dense { gate_up_proj, down_proj } = &layer.mlp else { return None };
    Some([
        layer.qkv_proj.plain()?,
        layer.o_proj.plain()?,
        gate_up_proj.plain()?,
        down_proj.plain()?,
    ])
}

#[cfg(test)]
mod tests;
