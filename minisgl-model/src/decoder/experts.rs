//! A mixture of experts in place of the MLP: every token goes through the few experts that the
//! router gives the highest probabilities. Each expert is split over the ranks like a dense MLP, so
//! all ranks route alike.
//!
//! Never knows the layer around it.

use minisgl_kernels::ops::{self, moe};
use minisgl_kernels::{DType, Device, Error, Stream, Tensor};

use super::{Activations, Geometry};
use crate::config::MoeConfig;

/// One layer's experts; `e` of them, `i` is this rank's share of an expert's inner layer.
#[derive(Debug)]
pub(super) struct Experts {
    num_experts: usize,
    top_k: usize,
    normalize_weights: bool,
    /// `[e, h]`
    router: Tensor,
    /// gate, up: `[e * 2 i, h]`
    gate_up_proj: Tensor,
    /// `[e * h, i]`
    down_proj: Tensor,
}

impl Experts {
    pub(super) fn new(
        config: &MoeConfig,
        router: Tensor,
        gate_up_proj: Tensor,
        down_proj: Tensor,
    ) -> Self {
        Self {
            num_experts: config.num_experts,
            top_k: config.top_k,
            normalize_weights: config.normalize_weights,
            router,
            gate_up_proj,
            down_proj,
        }
    }

    /// `x = experts(x)` of the first `t` tokens, this rank's part of the sum.
    pub(super) fn forward(
        &self,
        stream: &Stream,
        t: usize,
        activations: &mut Activations,
    ) -> Result<(), Error> {
        let Some(scratch) = &mut activations.experts else { return Ok(()) };
        let (e, k) = (self.num_experts, self.top_k);
        let pairs = t * k;
        let x = activations.x.view().rows(0..t)?;

        // In f32: a router's choice turns on small differences.
        let logits = scratch.router_logits.view_mut().rows(0..t)?;
        ops::gemm(stream, x, self.router.view(), None, logits)?;
        moe::route(
            stream,
            scratch.router_logits.view().rows(0..t)?,
            self.normalize_weights,
            scratch.weights.view_mut().rows(0..t)?,
            scratch.chosen.view_mut().rows(0..t)?,
        )?;
        moe::group(
            stream,
            scratch.chosen.view().rows(0..t)?,
            scratch.tokens.view_mut().rows(0..pairs)?,
            scratch.grouped_rows.view_mut().rows(0..t)?,
            scratch.offsets.view_mut(),
        )?;

        let tokens = scratch.tokens.view().rows(0..pairs)?;
        ops::gather_rows(stream, x, tokens, scratch.grouped.view_mut().rows(0..pairs)?)?;
        let [rows, h] = [self.gate_up_proj.shape().dims()[0] / e, x.shape().dims()[1]];
        moe::grouped_gemm(
            stream,
            scratch.grouped.view().rows(0..pairs)?,
            scratch.offsets.view(),
            self.gate_up_proj.view().reshape([e, rows, h])?,
            scratch.gate_up.view_mut().rows(0..pairs)?,
        )?;
        let gate_up = scratch.gate_up.view().rows(0..pairs)?;
        ops::silu_and_mul(stream, gate_up, scratch.inner.view_mut().rows(0..pairs)?)?;
        moe::grouped_gemm(
            stream,
            scratch.inner.view().rows(0..pairs)?,
            scratch.offsets.view(),
            self.down_proj.view().reshape([e, h, rows / 2])?,
            scratch.grouped.view_mut().rows(0..pairs)?,
        )?;
        moe::combine(
            stream,
            scratch.grouped.view().rows(0..pairs)?,
            scratch.weights.view().rows(0..t)?,
            scratch.grouped_rows.view().rows(0..t)?,
            activations.x.view_mut().rows(0..t)?,
        )
    }
}

/// Scratch memory for up to `t` tokens through `k` experts each, `p = t * k`.
#[derive(Debug)]
pub(super) struct ExpertActivations {
    /// `[t, e]` f32
    router_logits: Tensor,
    /// `[t, k]` f32
    weights: Tensor,
    /// `[t, k]` i32
    chosen: Tensor,
    /// `[p]` i32
    tokens: Tensor,
    /// `[t, k]` i32
    grouped_rows: Tensor,
    /// `[e + 1]` i32
    offsets: Tensor,
    /// `[p, h]` what goes into the experts, and what comes out.
    grouped: Tensor,
    /// `[p, 2 i]`
    gate_up: Tensor,
    /// `[p, i]`
    inner: Tensor,
}

impl ExpertActivations {
    /// # Errors
    /// If the device has no room.
    pub(super) fn new(
        device: &Device,
        geometry: &Geometry,
        max_tokens: usize,
    ) -> Result<Self, Error> {
        let (e, k, i) = sizes(geometry);
        let (pairs, dtype) = (max_tokens * k, geometry.dtype);
        Ok(Self {
            router_logits: device.zeros(DType::F32, [max_tokens, e])?,
            weights: device.zeros(DType::F32, [max_tokens, k])?,
            chosen: device.zeros(DType::I32, [max_tokens, k])?,
            tokens: device.zeros(DType::I32, [pairs])?,
            grouped_rows: device.zeros(DType::I32, [max_tokens, k])?,
            offsets: device.zeros(DType::I32, [e + 1])?,
            grouped: device.zeros(dtype, [pairs, geometry.hidden_size])?,
            gate_up: device.zeros(dtype, [pairs, 2 * i])?,
            inner: device.zeros(dtype, [pairs, i])?,
        })
    }

    /// Bytes that [`ExpertActivations::new`] allocates per token, but for the few of the offsets.
    pub(super) fn bytes_per_token(geometry: &Geometry) -> usize {
        let (e, k, i) = sizes(geometry);
        4 * e + k * (4 * 4 + (geometry.hidden_size + 3 * i) * geometry.dtype.size_bytes())
    }
}

fn sizes(geometry: &Geometry) -> (usize, usize, usize) {
    geometry.experts.map_or((0, 0, 0), |experts| {
        (experts.num_experts, experts.top_k, experts.intermediate_size)
    })
}
