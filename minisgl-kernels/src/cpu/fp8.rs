//! Products of 8-bit floats: the weights stay as they are in memory, and are widened to bf16 a few
//! rows at a time, which is exact.
//!
//! Never knows: which rows are weights.
//!
//! **Invariant:** as for [`gemm`](super::gemm), whose sums these are.

use half::bf16;

use super::CpuDevice;
use super::gemm::Problem;
use super::simd::{Kernel, Operand, Simd};
use crate::dtype::Float;
use crate::ops::fp8::{Scaled, scale_of};
use crate::rows::{Rows, RowsMut};
use crate::{DType, F8E4M3, View, ViewMut};

/// Rows of weights that are widened at a time: few enough to stay in a cache, and as many as a strip
/// of the product takes.
const WIDENED: usize = 16;

/// Columns of the output per part of the work.
const MAX_COLUMNS: usize = 64;

pub(crate) fn quantize_rows(cpu: &CpuDevice, x: View<'_>, out: ViewMut<'_>, scales: ViewMut<'_>) {
    match x.dtype() {
        DType::Bf16 => typed_quantize::<bf16>(cpu, x, out, scales),
        _ => typed_quantize::<f32>(cpu, x, out, scales),
    }
}

fn typed_quantize<T: Operand>(cpu: &CpuDevice, x: View<'_>, out: ViewMut<'_>, scales: ViewMut<'_>) {
    let (x, out) = (x.host_rows::<T>(), out.host_rows::<F8E4M3>());
    let scales = scales.host_slice::<f32>();
    cpu.for_each_part((out, scales), x.row_len(), |first, (out, scales)| {
        cpu.isa().run(Quantize { x, first, out, scales });
    });
}

struct Quantize<'a, T> {
    x: Rows<'a, T>,
    /// The row of `x` that becomes the first of `out`.
    first: usize,
    out: RowsMut<'a, F8E4M3>,
    scales: &'a mut [f32],
}

impl<T: Operand> Kernel for Quantize<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, _simd: S) {
        for (i, scale) in self.scales.iter_mut().enumerate() {
            let row = self.x.row(self.first + i);
            *scale = row_scale(row);
            for (out, x) in self.out.row_mut(i).iter_mut().zip(row) {
                *out = F8E4M3::from_f32(x.to_f32() / *scale);
            }
        }
    }
}

/// Of magnitudes as bits, which are in the order of the numbers, and NaN above all of them: a maximum
/// of integers has no order to keep, so that the loop becomes vector code.
#[inline(always)]
fn row_scale<T: Operand>(row: &[T]) -> f32 {
    let bits = row.iter().fold(0, |largest: u32, x| largest.max(x.to_f32().abs().to_bits()));
    let largest = f32::from_bits(bits);
    if largest.is_finite() { scale_of(largest) } else { f32::NAN }
}

pub(crate) fn gemm(
    cpu: &CpuDevice,
    x: Scaled<'_>,
    w: Scaled<'_>,
    bias: Option<View<'_>>,
    out: ViewMut<'_>,
) {
    let bias = bias.map(|bias| match bias.dtype() {
        DType::Bf16 => bias.host_slice::<bf16>().iter().map(|&x| Float::to_f32(x)).collect(),
        _ => bias.host_slice::<f32>().to_vec(),
    });
    let values = x.values.host_rows::<F8E4M3>();
    let mut widened = vec![bf16::ZERO; values.num_rows() * values.row_len()];
    let (m, k) = (values.num_rows(), values.row_len());
    cpu.for_each_part(RowsMut::dense(&mut widened, m, k), k / 4, |first, out| {
        cpu.isa().run(Widen { values, first, out });
    });
    let problem = Product {
        x: Rows::dense(&widened, m, k),
        x_scales: x.scales.host_slice(),
        w: w.values.host_rows(),
        w_scales: w.scales.host_slice(),
        bias,
    };
    match out.dtype() {
        DType::Bf16 => problem.run(cpu, out.host_rows::<bf16>()),
        _ => problem.run(cpu, out.host_rows::<f32>()),
    }
}

struct Widen<'a> {
    values: Rows<'a, F8E4M3>,
    /// The row of `values` that becomes the first of `out`.
    first: usize,
    out: RowsMut<'a, bf16>,
}

impl Kernel for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, _simd: S) {
        for i in 0..self.out.num_rows() {
            let row = self.values.row(self.first + i);
            for (out, value) in self.out.row_mut(i).iter_mut().zip(row) {
                // Four bits of mantissa are the upper ones: nothing is rounded.
                *out = bf16::from_bits((value.to_f32().to_bits() >> 16) as u16);
            }
        }
    }
}

struct Product<'a> {
    x: Rows<'a, bf16>,
    x_scales: &'a [f32],
    w: Rows<'a, F8E4M3>,
    w_scales: &'a [f32],
    bias: Option<Vec<f32>>,
}

impl Product<'_> {
    fn run<O: Float>(&self, cpu: &CpuDevice, out: RowsMut<'_, O>) {
        let cost = out.row_len().saturating_mul(self.w.row_len() * (2 + out.num_rows()) / 16);
        let cpu = cpu.for_cost(cost);
        cpu.run(|| self.divide(&cpu, 0, out));
    }

    /// Computes the columns of the output from `column` on.
    fn divide<O: Float>(&self, cpu: &CpuDevice, column: usize, out: RowsMut<'_, O>) {
        let num_columns = out.row_len();
        if num_columns > MAX_COLUMNS {
            let half = num_columns.div_ceil(MAX_COLUMNS) / 2 * MAX_COLUMNS;
            let (left, right) = out.split_at_column(half);
            cpu.join(|| self.divide(cpu, column, left), || self.divide(cpu, column + half, right));
        } else {
            self.columns(cpu, column, out);
        }
    }

    fn columns<O: Float>(&self, cpu: &CpuDevice, column: usize, mut out: RowsMut<'_, O>) {
        let (num_rows, k) = (out.num_rows(), self.w.row_len());
        let mut widened = vec![bf16::ZERO; WIDENED.min(out.row_len()) * k];
        let mut sums = vec![0f32; num_rows * WIDENED.min(out.row_len())];
        for first in (0..out.row_len()).step_by(WIDENED) {
            let count = WIDENED.min(out.row_len() - first);
            let w = RowsMut::dense(&mut widened[..count * k], count, k);
            cpu.isa().run(Widen { values: self.w, first: column + first, out: w });
            let w = Rows::dense(&widened[..count * k], count, k);
            let sums = &mut sums[..num_rows * count];
            let problem = Problem { x: self.x, w, bias: None };
            problem.divide(cpu, 0, 0, RowsMut::dense(sums, num_rows, count));
            for (i, sums) in sums.chunks_exact(count).enumerate() {
                let out = &mut out.row_mut(i)[first..first + count];
                for (j, (out, sum)) in out.iter_mut().zip(sums).enumerate() {
                    let feature = column + first + j;
                    let scaled = sum * self.x_scales[i] * self.w_scales[feature];
                    let bias = self.bias.as_ref().map_or(0.0, |bias| bias[feature]);
                    *out = O::from_f32(scaled + bias);
                }
            }
        }
    }
}
