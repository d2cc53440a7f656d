//! Measuring which algorithm is the fastest, as a decode step meets it: with weights that are not
//! in the cache.
//!
//! Never knows: files; what was found is saved as text by the caller.

use std::ffi::c_void;
use std::fmt::Write as _;

use cudarc::cublaslt::sys;
use cudarc::driver;

use super::plan::{Descriptors, Key};
use super::{MAX_ALIGNMENT, Operands, fp8};
use crate::cuda::device::{CudaDevice, failed};
use crate::cuda::event::CudaEvent;
use crate::cuda::memory::CudaBuffer;
use crate::cuda::stream::CudaStream;
use crate::ops::tuning::{GemmShape, Tuned};
use crate::{DType, Error};

/// How many of the library's guesses are timed.
const NUM_CANDIDATES: usize = 8;

/// How often each is timed; the least counts.
const NUM_ROUNDS: usize = 3;

/// Multiplications per timing: at least, and at most.
const MIN_RUNS: usize = 4;
const MAX_RUNS: usize = 64;

/// What one timing may take, roughly; [`MIN_RUNS`] may take longer.
const SECONDS_PER_TIMING: f64 = 1e-3;

/// A candidate this much slower than the best is timed no more.
const HOPELESS: f64 = 1.25;

/// Small floats that no multiplication overflows: the bf16 0.0117.
const FILL: u16 = 0x3c40;

/// The matrices of a shape, with so many copies of the weights that none is in the cache when it
/// is its turn.
struct Bench {
    memory: CudaBuffer,
    w_bytes: usize,
    num_copies: usize,
    x: usize,
    bias: usize,
    out: usize,
    /// Of the rows of `x` and of `w`, if they have any.
    scales: Option<[usize; 2]>,
}

impl Bench {
    fn new(
        device: &CudaDevice,
        shape: &GemmShape,
        has_scales: bool,
        stream: &CudaStream,
    ) -> Result<Self, Error> {
        let GemmShape { m, n, k, dtype, out_dtype, .. } = *shape;
        let size =
            |elements: usize, dtype: DType| (elements * dtype.size_bytes()).next_multiple_of(256);
        let w_bytes = size(n * k, dtype);
        let num_copies = (2 * device.l2_bytes()).div_ceil(w_bytes.max(1)).clamp(1, MAX_RUNS) + 1;
        let x = w_bytes * num_copies;
        let bias = x + size(m * k, dtype);
        let out = bias + size(n, dtype);
        let x_scales = out + size(m * n, out_dtype);
        let w_scales = x_scales + if has_scales { size(m, DType::F32) } else { 0 };
        let total = w_scales + if has_scales { size(n, DType::F32) } else { 0 };
        let memory = CudaBuffer::new(device, total)?;
        // SAFETY: inside the memory, which is ours; the stream is live.
        unsafe {
            driver::sys::cuMemsetD16Async(memory.raw(), FILL, total / 2, stream.raw().cast())
        }
        .result()
        .map_err(failed("filling memory of a GPU"))?;
        let scales = has_scales.then_some([x_scales, w_scales]);
        Ok(Self { memory, w_bytes, num_copies, x, bias, out, scales })
    }

    fn operands(&self, copy: usize) -> Operands {
        let at = |offset: usize| self.memory.address().wrapping_add(offset).cast::<c_void>();
        Operands {
            x: at(self.x),
            w: at(self.w_bytes * (copy % self.num_copies)),
            bias: at(self.bias),
            out: at(self.out),
            scales: self.scales.map(|scales| scales.map(|offset| at(offset).cast_const())),
        }
    }
}

/// Times the library's best guesses for `shape` and keeps the fastest for all later calls.
pub(crate) fn tune(stream: &CudaStream, shape: &GemmShape) -> Result<Tuned, Error> {
    stream.refuse_while_capturing("tuning a gemm")?;
    let device = stream.device();
    device.make_current()?;
    let has_scales = shape.dtype == DType::F8E4M3 && fp8::has_row_scales(device);
    let bench = Bench::new(device, shape, has_scales, stream)?;
    let workspace = stream.workspace()?;
    let strides = [shape.k, shape.k, shape.n].map(|stride| stride as i64);
    let key = Key { shape: *shape, strides, alignment: MAX_ALIGNMENT, has_scales };
    let descriptors = Descriptors::new(&key, bench.operands(0))?;
    let (start, end) = (CudaEvent::new(device, true)?, CudaEvent::new(device, true)?);
    let mut gemms = device.gemms();
    let handle = gemms.handle()?;
    let candidates = descriptors.candidates(handle, MAX_ALIGNMENT, workspace.1, NUM_CANDIDATES)?;

    let time = |algorithm: &sys::cublasLtMatmulAlgo_t, runs: usize| -> Result<f64, Error> {
        start.record(stream)?;
        for copy in 0..runs {
            descriptors.run(handle, algorithm, bench.operands(copy), workspace, stream)?;
        }
        end.record(stream)?;
        end.wait()?;
        Ok(end.seconds_since(&start)? / runs as f64)
    };
    // A few for warmth, and to know how many make some milliseconds.
    let first = candidates[0];
    let guess = time(&first, 2).and_then(|_| time(&first, 2))?;
    let runs = ((SECONDS_PER_TIMING / guess.max(1e-6)) as usize).clamp(MIN_RUNS, MAX_RUNS);
    let mut seconds = vec![f64::INFINITY; candidates.len()];
    for _ in 0..NUM_ROUNDS {
        let least = seconds.iter().copied().fold(f64::INFINITY, f64::min);
        for (seconds, algorithm) in seconds.iter_mut().zip(&candidates) {
            if seconds.is_finite() && *seconds > HOPELESS * least {
                continue;
            }
            // A candidate that does not run is no candidate.
            if let Ok(time) = time(algorithm, runs) {
                *seconds = seconds.min(time);
            }
        }
    }
    let best = (0..candidates.len()).min_by(|&a, &b| seconds[a].total_cmp(&seconds[b]));
    let best = best.unwrap_or(0);
    gemms.tuned.insert(*shape, candidates[best]);
    gemms.plans.retain(|key, _| key.shape != *shape);
    Ok(Tuned { seconds: seconds[best], first_guess_seconds: seconds[0] })
}

/// What the algorithms are good for: another library or GPU has others.
fn heading(device: &CudaDevice) -> String {
    format!("cuBLASLt {} on {}", device.libraries().cublaslt().version, device.name())
}

/// The tuned algorithms as text.
pub(crate) fn save(device: &CudaDevice) -> String {
    let mut lines: Vec<String> = Vec::new();
    for (shape, algorithm) in &device.gemms().tuned {
        let GemmShape { m, n, k, dtype, out_dtype, bias } = shape;
        let mut line = format!("{m} {n} {k} {dtype} {out_dtype} {}", u8::from(*bias));
        for word in algorithm.data {
            // Writing to a string cannot fail.
            let _ = write!(line, " {word:x}");
        }
        lines.push(line);
    }
    lines.sort();
    lines.insert(0, heading(device));
    lines.push(String::new());
    lines.join("\n")
}

/// Takes over what [`save`] wrote, if it was written for this GPU and library. Returns how many
/// algorithms there are.
pub(crate) fn load(device: &CudaDevice, text: &str) -> usize {
    let mut lines = text.lines();
    if lines.next() != Some(heading(device).as_str()) {
        return 0;
    }
    let mut gemms = device.gemms();
    let mut count = 0;
    for (shape, data) in lines.filter_map(parse) {
        gemms.tuned.insert(shape, sys::cublasLtMatmulAlgo_t { data });
        gemms.plans.retain(|key, _| key.shape != shape);
        count += 1;
    }
    count
}

fn parse(line: &str) -> Option<(GemmShape, [u64; 8])> {
    let words: Vec<&str> = line.split(' ').collect();
    let [m, n, k, dtype, out_dtype, bias, data @ ..] = words.as_slice() else { return None };
    let size = |text: &str| text.parse::<usize>().ok();
    let float = |name: &str| {
        [DType::F32, DType::Bf16, DType::F8E4M3].into_iter().find(|dtype| dtype.name() == name)
    };
    let shape = GemmShape {
        m: size(m)?,
        n: size(n)?,
        k: size(k)?,
        dtype: float(dtype)?,
        out_dtype: float(out_dtype)?,
        bias: *bias == "1",
    };
    let data: Option<Vec<u64>> =
        data.iter().map(|word| u64::from_str_radix(word, 16).ok()).collect();
    Some((shape, data?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_back_and_others_are_not() {
        let (shape, data) = parse("1 4096 512 bfloat16 float32 1 1 2 3 4 5 6 7 ff").unwrap();
        assert_eq!((shape.m, shape.n, shape.k, shape.bias), (1, 4096, 512, true));
        assert_eq!((shape.dtype, shape.out_dtype), (DType::Bf16, DType::F32));
        assert_eq!(data, [1, 2, 3, 4, 5, 6, 7, 255]);
        let (shape, _) = parse("8 64 512 float8_e4m3fn bfloat16 0 1 2 3 4 5 6 7 8").unwrap();
        assert_eq!((shape.dtype, shape.out_dtype), (DType::F8E4M3, DType::Bf16));
        for bad in ["", "1 2 3", "1 4 5 bfloat16 int32 1 1 2 3 4 5 6 7 8"] {
            assert!(parse(bad).is_none(), "{bad}");
        }
        assert!(parse("1 4 5 bfloat16 float32 1 1 2 3 4 5 6 7").is_none(), "seven words");
    }
}
