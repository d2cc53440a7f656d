//! Rotary position embedding with the optional norm of each head, a token at a time.
//!
//! Never knows: how the cosine and sine table was scaled.

use half::bf16;

use super::CpuDevice;
use super::norm::inverse_rms;
use super::simd::{Kernel, Operand, Simd};
use crate::ops::QkNorm;
use crate::rows::{Rows, RowsMut};
use crate::{DType, View, ViewMut};

pub(crate) fn qk_norm_rope(
    cpu: &CpuDevice,
    q: ViewMut<'_>,
    k: ViewMut<'_>,
    norm: Option<QkNorm<'_>>,
    positions: View<'_>,
    cos_sin: View<'_>,
) {
    match q.dtype() {
        DType::Bf16 => typed::<bf16>(cpu, q, k, norm, positions, cos_sin),
        _ => typed::<f32>(cpu, q, k, norm, positions, cos_sin),
    }
}

fn typed<T: Operand>(
    cpu: &CpuDevice,
    q: ViewMut<'_>,
    k: ViewMut<'_>,
    norm: Option<QkNorm<'_>>,
    positions: View<'_>,
    cos_sin: View<'_>,
) {
    let head_dim = q.shape().dims()[2];
    let q_norm = norm.map(|norm| (norm.q_weight.host_slice::<T>(), norm.eps));
    let k_norm = norm.map(|norm| (norm.k_weight.host_slice::<T>(), norm.eps));
    let (positions, cos_sin) = (positions.host_slice::<i32>(), cos_sin.host_rows::<f32>());
    let (q, k) = (q.host_rows::<T>(), k.host_rows::<T>());
    let token_cost = (q.row_len() + k.row_len()) / 2;
    cpu.for_each_part((q, k), token_cost, |first, (q, k)| {
        let positions = &positions[first..first + q.num_rows()];
        cpu.isa().run(NormRope { x: q, head_dim, norm: q_norm, positions, cos_sin });
        cpu.isa().run(NormRope { x: k, head_dim, norm: k_norm, positions, cos_sin });
    });
}

struct NormRope<'a, T> {
    /// The heads of one token per row.
    x: RowsMut<'a, T>,
    head_dim: usize,
    norm: Option<(&'a [T], f32)>,
    positions: &'a [i32],
    cos_sin: Rows<'a, f32>,
}

impl<T: Operand> Kernel for NormRope<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let half = self.cos_sin.row_len() / 2;
        for (token, &position) in self.positions.iter().enumerate() {
            let (cos, sin) = self.cos_sin.row(position as usize).split_at(half);
            for head in self.x.row_mut(token).chunks_exact_mut(self.head_dim.max(1)) {
                if let Some((weight, eps)) = self.norm {
                    let scale = inverse_rms(simd, head, eps);
                    for (x, weight) in head.iter_mut().zip(weight) {
                        let normalized = T::from_f32(x.to_f32() * scale);
                        *x = T::from_f32(normalized.to_f32() * weight.to_f32());
                    }
                }
                let (a, b) = head.split_at_mut(half);
                for (((a, b), &cos), &sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
                    let (old_a, old_b) = (a.to_f32(), b.to_f32());
                    *a = T::from_f32(simd.mul_add_scalar(old_a, cos, -(old_b * sin)));
                    *b = T::from_f32(simd.mul_add_scalar(old_b, cos, old_a * sin));
                }
            }
        }
    }
}
