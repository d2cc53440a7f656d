//! What the machine can do at best: reading memory, and multiply-adds on registers.

use std::hint::black_box;
use std::thread;

use memmap2::MmapMut;

/// `len` bytes of memory that was written to, in huge pages where the system gives them, as tensors
/// have it.
pub(crate) fn memory(len: usize) -> MmapMut {
    let mut map = MmapMut::map_anon(len).unwrap();
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    map.fill(1);
    map
}

/// Sums `bytes` on `num_threads` threads: how fast memory can be read.
pub(crate) fn read(bytes: &[u8], num_threads: usize) -> u64 {
    thread::scope(|scope| {
        let parts = bytes.chunks(bytes.len().div_ceil(num_threads));
        let threads: Vec<_> = parts.map(|part| scope.spawn(|| sum(part))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).fold(0, u64::wrapping_add)
    })
}

fn sum(bytes: &[u8]) -> u64 {
    let mut sums = [0u64; 32];
    for step in bytes.as_chunks::<{ 32 * 8 }>().0 {
        for (sum, word) in sums.iter_mut().zip(step.as_chunks::<8>().0) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    sums.iter().fold(0, |sum, word| sum.wrapping_add(*word))
}

/// Multiplications and additions of [`multiply_add`] on one thread.
pub(crate) fn flops(rounds: usize) -> u64 {
    (rounds * CHAINS * LANES * 2) as u64
}

/// Independent chains, enough to hide the latency of an instruction.
const CHAINS: usize = 12;
const LANES: usize = 8;

/// Multiply-adds that need no memory, on `num_threads` threads.
pub(crate) fn multiply_add(rounds: usize, num_threads: usize) {
    thread::scope(|scope| {
        for _ in 0..num_threads {
            scope.spawn(|| black_box(multiply_add_on_one(rounds)));
        }
    });
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "calls a function that needs a CPU feature")]
fn multiply_add_on_one(rounds: usize) -> [[f32; LANES]; CHAINS] {
    #[target_feature(enable = "avx2,fma")]
    fn fused(rounds: usize) -> [[f32; LANES]; CHAINS] {
        chains(rounds, f32::mul_add)
    }
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the CPU has the features, as just asked.
        unsafe { fused(rounds) }
    } else {
        chains(rounds, |a, b, c| a * b + c)
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn multiply_add_on_one(rounds: usize) -> [[f32; LANES]; CHAINS] {
    chains(rounds, f32::mul_add)
}

#[inline(always)]
fn chains(rounds: usize, fma: impl Fn(f32, f32, f32) -> f32) -> [[f32; LANES]; CHAINS] {
    let mut sums = black_box([[1.0f32; LANES]; CHAINS]);
    let (a, b) = black_box(([0.999f32; LANES], [0.001f32; LANES]));
    for _ in 0..rounds {
        for sum in &mut sums {
            for lane in 0..LANES {
                sum[lane] = fma(sum[lane], a[lane], b[lane]);
            }
        }
    }
    sums
}
