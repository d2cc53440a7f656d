//! The gated activation, element by element.
//!
//! Never knows: the projections around it.

use half::bf16;

use super::CpuDevice;
use super::math::exp;
use super::simd::{Kernel, Operand, Simd};
use crate::rows::{Rows, RowsMut};
use crate::{DType, View, ViewMut};

pub(crate) fn silu_and_mul(cpu: &CpuDevice, gate_up: View<'_>, out: ViewMut<'_>) {
    match gate_up.dtype() {
        DType::Bf16 => typed::<bf16>(cpu, gate_up, out),
        _ => typed::<f32>(cpu, gate_up, out),
    }
}

fn typed<T: Operand>(cpu: &CpuDevice, gate_up: View<'_>, out: ViewMut<'_>) {
    let (gate_up, out) = (gate_up.host_rows::<T>(), out.host_rows::<T>());
    cpu.for_each_part(out, gate_up.row_len(), |first, out| {
        cpu.isa().run(SiluAndMul { gate_up, first, out });
    });
}

struct SiluAndMul<'a, T> {
    gate_up: Rows<'a, T>,
    /// The row of `gate_up` that becomes the first of `out`.
    first: usize,
    out: RowsMut<'a, T>,
}

impl<T: Operand> Kernel for SiluAndMul<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        for i in 0..self.out.num_rows() {
            let (gate, up) = self.gate_up.row(self.first + i).split_at(self.out.row_len());
            for ((out, gate), up) in self.out.row_mut(i).iter_mut().zip(gate).zip(up) {
                let gate = gate.to_f32();
                let silu = T::from_f32(gate / (1.0 + exp(simd, -gate)));
                *out = T::from_f32(silu.to_f32() * up.to_f32());
            }
        }
    }
}
