//! Ranks on threads, arrays with known contents, random numbers.

use std::num::NonZeroUsize;
use std::thread;

use minisgl_comm::{CommError, ThreadRank, thread_group};
use minisgl_kernels::convert::{CheckpointDType, copy_from_checkpoint};
use minisgl_kernels::{DType, Device, Shape, Stream, Tensor};

/// SplitMix64 (Steele, Lea and Flood 2014).
pub(crate) struct Random(u64);

impl Random {
    /// A generator for this seed and purpose.
    pub(crate) fn new(seed: u64, purpose: usize) -> Self {
        let mut random = Self(seed ^ (purpose as u64) << 32);
        random.next();
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// Numbers of very different sizes, so that the order of a sum shows in its bits.
    pub(crate) fn float(&mut self) -> f32 {
        let unit = (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        unit * [1e-3, 1.0, 1e3][self.below(3)]
    }

    pub(crate) fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.float()).collect()
    }

    /// Lets other threads run for a while, or not.
    pub(crate) fn dawdle(&mut self) {
        for _ in 0..[0, 0, 0, 1, 20][self.below(5)] {
            thread::yield_now();
        }
    }
}

/// A CPU device and stream of one thread.
pub(crate) fn device_and_stream() -> (Device, Stream) {
    let device = Device::cpu(NonZeroUsize::MIN).unwrap();
    let stream = device.new_stream().unwrap();
    (device, stream)
}

/// Runs `body` as every rank of a group, each on a thread of its own with a device of its own, and
/// returns their results. A rank is dropped when its body returns.
pub(crate) fn run_ranks<R: Send>(
    world_size: usize,
    body: impl Fn(ThreadRank, &Device, &Stream) -> R + Sync,
) -> Vec<R> {
    let body = &body;
    thread::scope(|scope| {
        let ranks: Vec<_> = thread_group(world_size)
            .unwrap()
            .into_iter()
            .map(|rank| {
                scope.spawn(move || {
                    let (device, stream) = device_and_stream();
                    body(rank, &device, &stream)
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// A float tensor with these values, rounded to `dtype`.
pub(crate) fn tensor(
    device: &Device,
    dtype: DType,
    shape: impl Into<Shape>,
    values: &[f32],
) -> Tensor {
    let mut tensor = device.zeros(dtype, shape).unwrap();
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let stream = device.new_stream().unwrap();
    copy_from_checkpoint(&stream, &bytes, CheckpointDType::F32, tensor.view_mut()).unwrap();
    tensor
}

/// `value` rounded to `dtype` and widened again.
pub(crate) fn rounded(dtype: DType, value: f32) -> f32 {
    if dtype == DType::F32 {
        return value;
    }
    let bits = value.to_bits();
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

/// What an all_reduce of `parts`, in rank order, must give: f32 sums, rounded once.
pub(crate) fn sum(dtype: DType, parts: &[Vec<f32>]) -> Vec<f32> {
    let part = |rank: usize, i: usize| rounded(dtype, parts[rank][i]);
    let total = |i| (0..parts.len()).fold(0.0, |sum, rank| sum + part(rank, i));
    (0..parts[0].len()).map(|i| rounded(dtype, total(i))).collect()
}

/// Floats as bits, so that equality means the same bits.
pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The reason of an abort.
pub(crate) fn abort_reason(result: Result<(), CommError>) -> String {
    match result {
        Err(CommError::Aborted { reason }) => reason.to_string(),
        other => panic!("expected an abort, got {other:?}"),
    }
}
