//! A projection: its weights as the engine's floats, or as 8-bit floats with a scale per output feature.
//! Those multiply activations that are rounded to 8-bit floats on the way, with a scale per token.
//!
//! Never knows what is projected.
//!
//! With several ranks, each makes its scales from its own part: of a weight, the rows and columns it
//! has; of a token's activations, the columns it has. So scales of row-parallel projections (o, down)
//! differ from rank to rank, and the sum over the ranks is of products that are scaled already.

use minisgl_kernels::ops::{self, fp8};
use minisgl_kernels::{DType, Device, Error, Stream, Tensor, View, ViewMut};

use super::Geometry;

/// A weight and perhaps a bias.
#[derive(Debug)]
pub(super) struct Linear {
    /// `[out, in]` T, or f8_e4m3 with scales.
    weight: Tensor,
    /// `[out]` f32. In a box, since mostly there are none.
    scales: Option<Box<Tensor>>,
    /// `[out]` T
    bias: Option<Tensor>,
}

impl Linear {
    pub(super) fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, scales: None, bias }
    }

    /// With weights that are 8-bit floats, `[out, in]`, and their scales, `[out]`.
    pub(super) fn fp8(values: Tensor, scales: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight: values, scales: Some(Box::new(scales)), bias }
    }

    /// With `weight` rounded to 8-bit floats.
    pub(super) fn quantized(
        stream: &Stream,
        weight: &Tensor,
        bias: Option<Tensor>,
    ) -> Result<Self, Error> {
        let (device, shape) = (stream.device(), weight.shape());
        let mut values = device.zeros(DType::F8E4M3, shape)?;
        let mut scales = device.zeros(DType::F32, [shape.dims()[0]])?;
        fp8::quantize_rows(stream, weight.view(), values.view_mut(), scales.view_mut())?;
        Ok(Self::fp8(values, scales, bias))
    }

    /// The weight, if it is all that there is.
    pub(super) fn plain(&self) -> Option<View<'_>> {
        let is_plain = self.scales.is_none() && self.bias.is_none();
        is_plain.then(|| self.weight.view())
    }

    /// `out = x · weightᵀ + bias`; `scratch` is for activations as 8-bit floats, where weights are.
    pub(super) fn forward(
        &self,
        stream: &Stream,
        x: View<'_>,
        scratch: &mut Option<QuantizedRows>,
        out: ViewMut<'_>,
    ) -> Result<(), Error> {
        let (weight, bias) = (self.weight.view(), self.bias.as_ref().map(Tensor::view));
        match (&self.scales, scratch) {
            (None, _) => ops::gemm(stream, x, weight, bias, out),
            (Some(scales), Some(scratch)) => {
                let x = scratch.fill(stream, x)?;
                fp8::gemm(
                    stream,
                    x,
                    fp8::Scaled { values: weight, scales: scales.view() },
                    bias,
                    out,
                )
            }
            (Some(_), None) => {
                unreachable!("there is scratch memory where there are such weights")
            }
        }
    }
}

/// Room for the activations of a step as 8-bit floats.
#[derive(Debug)]
pub(super) struct QuantizedRows {
    /// `[t * k]` f8_e4m3, for the widest projection.
    values: Tensor,
    /// `[t]` f32
    scales: Tensor,
}

impl QuantizedRows {
    pub(super) fn new(
        device: &Device,
        geometry: &Geometry,
        max_tokens: usize,
    ) -> Result<Self, Error> {
        Ok(Self {
            values: device.zeros(DType::F8E4M3, [max_tokens * widest(geometry)])?,
            scales: device.zeros(DType::F32, [max_tokens])?,
        })
    }

    /// Bytes that [`QuantizedRows::new`] allocates per token.
    pub(super) fn bytes_per_token(geometry: &Geometry) -> usize {
        if geometry.fp8_projections { widest(geometry) + size_of::<f32>() } else { 0 }
    }

    fn fill(&mut self, stream: &Stream, x: View<'_>) -> Result<fp8::Scaled<'_>, Error> {
        let (shape, [t, k]) = (x.shape(), [x.shape().dims()[0], x.shape().dims()[1]]);
        let values = self.values.view_mut().rows(0..t * k)?.reshape(shape)?;
        let scales = self.scales.view_mut().rows(0..t)?;
        fp8::quantize_rows(stream, x, values, scales)?;
        Ok(fp8::Scaled {
            values: self.values.view().rows(0..t * k)?.reshape(shape)?,
            scales: self.scales.view().rows(0..t)?,
        })
    }
}

/// The most columns that a projection reads.
fn widest(geometry: &Geometry) -> usize {
    geometry.hidden_size.max(geometry.attention_size()).max(geometry.intermediate_size)
}
