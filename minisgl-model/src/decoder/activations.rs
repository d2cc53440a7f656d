//! Scratch memory of one forward pass. Knows shapes, not what is computed in them.

use minisgl_kernels::{DType, Device, Error, Tensor, View};

use super::Geometry;
use super::experts::ExpertActivations;
use super::linear::QuantizedRows;

/// Scratch memory of one forward pass, for up to `t` tokens of which `m` are sampled; allocated once.
#[derive(Debug)]
pub struct Activations {
    /// `[t, h]` the residual stream.
    pub(super) residual: Tensor,
    /// `[t, h]` what a block reads and what it adds.
    pub(super) x: Tensor,
    /// `[t, (qo_heads + 2 kv_heads) * d]`
    pub(super) qkv: Tensor,
    /// `[t, qo_heads * d]`
    pub(super) attention: Tensor,
    /// `[t, 2 i]`
    pub(super) gate_up: Tensor,
    /// `[t, i]`
    pub(super) inner: Tensor,
    /// `[m, h]`
    pub(super) last: Tensor,
    /// `[m, v]` f32
    pub(super) logits: Tensor,
    /// For layers with experts.
    pub(super) experts: Option<ExpertActivations>,
    /// For projections as 8-bit floats.
    pub(super) quantized: Option<QuantizedRows>,
}

impl Activations {
    /// Room for `max_tokens` tokens, `max_sampled` of them sampled.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn new(
        device: &Device,
        geometry: &Geometry,
        max_tokens: usize,
        max_sampled: usize,
    ) -> Result<Self, Error> {
        let tokens = |columns| device.zeros(geometry.dtype, [max_tokens, columns]);
        Ok(Self {
            residual: tokens(geometry.hidden_size)?,
            x: tokens(geometry.hidden_size)?,
            qkv: tokens(geometry.qkv_size())?,
            attention: tokens(geometry.attention_size())?,
            gate_up: tokens(2 * geometry.intermediate_size)?,
            inner: tokens(geometry.intermediate_size)?,
            experts: match geometry.experts {
                Some(_) => Some(ExpertActivations::new(device, geometry, max_tokens)?),
                None => None,
            },
            quantized: match geometry.fp8_projections {
                true => Some(QuantizedRows::new(device, geometry, max_tokens)?),
                false => None,
            },
            last: device.zeros(geometry.dtype, [max_sampled, geometry.hidden_size])?,
            logits: device.zeros(DType::F32, [max_sampled, geometry.vocab_size])?,
        })
    }

    /// The logits of the last forward pass, of its `num_sampled` last tokens: `[m, v]` f32, for the
    /// token ids of this rank.
    ///
    /// # Errors
    /// If there is no room for so many.
    pub fn logits(&self, num_sampled: usize) -> Result<View<'_>, Error> {
        self.logits.view().rows(0..num_sampled)
    }

    /// Bytes that [`Activations::new`] allocates.
    pub fn bytes(geometry: &Geometry, max_tokens: usize, max_sampled: usize) -> usize {
        let per_token = 2 * geometry.hidden_size
            + geometry.qkv_size()
            + geometry.attention_size()
            + 3 * geometry.intermediate_size;
        let element = geometry.dtype.size_bytes();
        let others =
            ExpertActivations::bytes_per_token(geometry) + QuantizedRows::bytes_per_token(geometry);
        max_tokens * (per_token * element + others)
            + max_sampled * (geometry.hidden_size * element + geometry.vocab_size * 4)
    }
}
