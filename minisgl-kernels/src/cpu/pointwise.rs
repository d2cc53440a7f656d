//! Copies and sums of whole arrays, row by row.
//!
//! Never knows: what the arrays are.

use half::bf16;

use super::CpuDevice;
use super::simd::{Kernel, Operand, Simd};
use crate::rows::{Rows, RowsMut};
use crate::{DType, F8E4M3, HostElement, View, ViewMut};

pub(crate) fn copy(cpu: &CpuDevice, source: View<'_>, target: ViewMut<'_>) {
    match source.dtype() {
        DType::F32 => typed_copy::<f32>(cpu, source, target),
        DType::Bf16 => typed_copy::<bf16>(cpu, source, target),
        DType::F8E4M3 => typed_copy::<F8E4M3>(cpu, source, target),
        DType::I32 => typed_copy::<i32>(cpu, source, target),
        DType::U64 => typed_copy::<u64>(cpu, source, target),
    }
}

fn typed_copy<T: HostElement>(cpu: &CpuDevice, source: View<'_>, target: ViewMut<'_>) {
    let (source, target) = (source.host_rows::<T>(), target.host_rows::<T>());
    cpu.for_each_part(target, source.row_len() / 8, |first, mut target| {
        for i in 0..target.num_rows() {
            target.row_mut(i).copy_from_slice(source.row(first + i));
        }
    });
}

pub(crate) fn add(cpu: &CpuDevice, x: View<'_>, y: ViewMut<'_>) {
    match x.dtype() {
        DType::Bf16 => typed_add::<bf16>(cpu, x, y),
        _ => typed_add::<f32>(cpu, x, y),
    }
}

fn typed_add<T: Operand>(cpu: &CpuDevice, x: View<'_>, y: ViewMut<'_>) {
    let (x, y) = (x.host_rows::<T>(), y.host_rows::<T>());
    cpu.for_each_part(y, x.row_len() / 4, |first, y| {
        cpu.isa().run(Add { x, first, y });
    });
}

struct Add<'a, T> {
    x: Rows<'a, T>,
    /// The row of `x` that is added to the first of `y`.
    first: usize,
    y: RowsMut<'a, T>,
}

impl<T: Operand> Kernel for Add<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, _simd: S) {
        for i in 0..self.y.num_rows() {
            for (y, x) in self.y.row_mut(i).iter_mut().zip(self.x.row(self.first + i)) {
                *y = T::from_f32(y.to_f32() + x.to_f32());
            }
        }
    }
}

pub(crate) fn reduce_sum(cpu: &CpuDevice, parts: &[View<'_>], out: ViewMut<'_>) {
    match out.dtype() {
        DType::Bf16 => typed_reduce_sum::<bf16>(cpu, parts, out),
        _ => typed_reduce_sum::<f32>(cpu, parts, out),
    }
}

fn typed_reduce_sum<T: Operand>(cpu: &CpuDevice, parts: &[View<'_>], out: ViewMut<'_>) {
    let parts: Vec<Rows<'_, T>> = parts.iter().map(|part| part.host_rows()).collect();
    let out = out.host_rows::<T>();
    let row_cost = parts.len() * out.row_len() / 8;
    cpu.for_each_part(out, row_cost, |first, out| {
        cpu.isa().run(ReduceSum { parts: &parts, first, out });
    });
}

struct ReduceSum<'a, T> {
    parts: &'a [Rows<'a, T>],
    /// The row of the parts whose sum is the first of `out`.
    first: usize,
    out: RowsMut<'a, T>,
}

impl<T: Operand> Kernel for ReduceSum<'_, T> {
    type Output = ();

    /// Sums stay in f32 until all parts are added: a stretch of a row at a time.
    #[inline(always)]
    fn run<S: Simd>(mut self, _simd: S) {
        const STRETCH: usize = 256;
        for i in 0..self.out.num_rows() {
            for (s, out) in self.out.row_mut(i).chunks_mut(STRETCH).enumerate() {
                let mut sums = [0f32; STRETCH];
                for part in self.parts {
                    let part = &part.row(self.first + i)[s * STRETCH..][..out.len()];
                    for (sum, x) in sums.iter_mut().zip(part) {
                        *sum += x.to_f32();
                    }
                }
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out = T::from_f32(sum);
                }
            }
        }
    }
}
