//! Devices under test, arrays with gaps, and their comparison.

use std::env;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use half::bf16;
use minisgl_kernels::cuda::{CudaLibraries, LibrarySearch};
use minisgl_kernels::{
    DType, Device, F8E4M3, InstructionSet, Shape, Stream, Tensor, View, ViewMut,
};

use crate::tolerance::{tolerance, twice_rounded_tolerance};

pub(crate) const FLOATS: [DType; 2] = [DType::F32, DType::Bf16];

/// What attention computes in, and what its keys and values are stored as.
pub(crate) const STORED: [[DType; 2]; 4] = [
    [DType::F32, DType::F32],
    [DType::Bf16, DType::Bf16],
    [DType::F32, DType::F8E4M3],
    [DType::Bf16, DType::F8E4M3],
];

/// Every device that must agree with the reference. A new one is one more line.
pub(crate) fn devices() -> Vec<Device> {
    let mut devices = cpus();
    devices.extend(gpu().cloned());
    devices
}

/// The first GPU, if `MINISGL_TEST_CUDA` is 1; then one must be there, with the kernels library
/// (which `MINISGL_KERNELS` may name), or the test fails.
pub(crate) fn gpu() -> Option<&'static Device> {
    static GPU: OnceLock<Option<Device>> = OnceLock::new();
    let gpu = GPU.get_or_init(|| {
        if env::var_os("MINISGL_TEST_CUDA").is_none_or(|value| value != "1") {
            return None;
        }
        let path = |name| env::var_os(name).map(PathBuf::from);
        let prefixes = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(path);
        let system = ["/usr/local", "/usr"].map(PathBuf::from);
        let search = LibrarySearch {
            python_prefixes: prefixes.chain(system).collect(),
            nccl: None,
            kernels: path("MINISGL_KERNELS"),
        };
        let libraries = CudaLibraries::load(&search).expect("MINISGL_TEST_CUDA asks for a GPU");
        Some(Device::cuda(0, &libraries).expect("MINISGL_TEST_CUDA asks for a GPU"))
    });
    gpu.as_ref()
}

/// The GPU, if there is one to test. If not, that is printed.
#[expect(clippy::print_stdout, reason = "a test that did not run says so")]
pub(crate) fn gpu_or_skip(test: &str) -> Option<&'static Device> {
    let gpu = gpu();
    if gpu.is_none() {
        println!("{test}: skipped, since MINISGL_TEST_CUDA is not 1");
    }
    gpu
}

/// One test at a time uses the GPU: reading a tensor waits for everybody's work, which a graph that
/// is being captured forbids.
pub(crate) fn gpu_turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn is_gpu(device: &Device) -> bool {
    matches!(device, Device::Cuda(_))
}

/// Every instruction set, with one thread and with several.
pub(crate) fn cpus() -> Vec<Device> {
    let mut devices = Vec::new();
    for set in InstructionSet::ALL.into_iter().filter(|set| set.is_available()) {
        devices.extend([1, 3].map(|n| Device::cpu_with(threads(n), set).unwrap()));
    }
    devices
}

/// Where the reference runs.
pub(crate) fn host() -> Device {
    Device::cpu(NonZeroUsize::MIN).unwrap()
}

pub(crate) fn threads(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

/// Runs `test` with a stream of each device.
pub(crate) fn for_each_device(test: impl Fn(&Device, &Stream)) {
    for_each(devices(), test);
}

/// Runs `test` with a stream of each CPU device: for what no GPU promises.
pub(crate) fn for_each_cpu(test: impl Fn(&Device, &Stream)) {
    for_each(cpus(), test);
}

#[expect(clippy::print_stdout, reason = "shown if a test fails: on which device, with what data")]
fn for_each(devices: Vec<Device>, test: impl Fn(&Device, &Stream)) {
    for device in devices {
        println!("on {}, MINISGL_TEST_SEED={}", device.description(), salt());
        let _turn = is_gpu(&device).then(gpu_turn);
        test(&device, &device.new_stream().unwrap());
    }
}

/// What makes the data of a run its own. `MINISGL_TEST_SEED`, or else the time if a GPU is tested,
/// or else 0: a gate must not fail by chance.
fn salt() -> u64 {
    static SALT: OnceLock<u64> = OnceLock::new();
    *SALT.get_or_init(|| match env::var("MINISGL_TEST_SEED") {
        Ok(seed) => seed.parse().expect("MINISGL_TEST_SEED is a number"),
        Err(_) if gpu().is_none() => 0,
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs(),
    })
}

/// A small generator (SplitMix64), so that tests are the same on every run with the same salt.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    /// A generator whose data differ from run to run, if the run has a salt.
    pub(crate) fn fresh(seed: u64) -> Self {
        Self(seed ^ salt().wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// In `-1..1`.
    pub(crate) fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }

    pub(crate) fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }

    /// A random order of `0..n`.
    pub(crate) fn permutation(&mut self, n: usize) -> Vec<i32> {
        let mut order: Vec<i32> = (0..n as i32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

/// A float tensor seen through a view with NaN-filled gaps of `gap` elements between its rows.
pub(crate) struct Array {
    tensor: Tensor,
    shape: Shape,
    row_len: usize,
    gap: usize,
}

impl Array {
    pub(crate) fn new(
        device: &Device,
        dtype: DType,
        shape: impl Into<Shape>,
        gap: usize,
        values: &[f32],
    ) -> Self {
        let shape = shape.into();
        assert_eq!(shape.num_elements().unwrap(), values.len());
        let gap = if shape.rank() < 2 { 0 } else { gap };
        let row_len = shape.dims()[1.min(shape.rank() - 1)..].iter().product::<usize>();
        let num_rows = if shape.rank() < 2 { 1 } else { shape.dims()[0] };
        let mut stored = vec![f32::NAN; num_rows * (row_len + gap)];
        for (row, values) in
            stored.chunks_mut((row_len + gap).max(1)).zip(values.chunks(row_len.max(1)))
        {
            row[..row_len].copy_from_slice(values);
        }
        let stored_shape = [num_rows, row_len + gap];
        let tensor = match dtype {
            DType::Bf16 => {
                let stored: Vec<bf16> = stored.into_iter().map(bf16::from_f32).collect();
                Tensor::from_slice(device, stored_shape, &stored)
            }
            DType::F8E4M3 => {
                let stored: Vec<F8E4M3> = stored.into_iter().map(F8E4M3::from_f32).collect();
                Tensor::from_slice(device, stored_shape, &stored)
            }
            _ => Tensor::from_slice(device, stored_shape, &stored),
        };
        Self { tensor: tensor.unwrap(), shape, row_len, gap }
    }

    /// All NaN: what an op does not write shows.
    pub(crate) fn poisoned(
        device: &Device,
        dtype: DType,
        shape: impl Into<Shape>,
        gap: usize,
    ) -> Self {
        let shape = shape.into();
        let values = vec![f32::NAN; shape.num_elements().unwrap()];
        Self::new(device, dtype, shape, gap, &values)
    }

    pub(crate) fn view(&self) -> View<'_> {
        self.tensor.view().columns(0..self.row_len).unwrap().reshape(self.shape).unwrap()
    }

    pub(crate) fn view_mut(&mut self) -> ViewMut<'_> {
        let view = self.tensor.view_mut().columns(0..self.row_len).unwrap();
        view.reshape(self.shape).unwrap()
    }

    /// The elements without the gaps, which must still be NaN.
    pub(crate) fn values(&self) -> Vec<f32> {
        let all = self.tensor.to_f32_vec().unwrap();
        let mut values = Vec::new();
        for row in all.chunks((self.row_len + self.gap).max(1)) {
            let (row, gap) = row.split_at(self.row_len);
            assert!(gap.iter().all(|x| x.is_nan()), "an op wrote between rows");
            values.extend_from_slice(row);
        }
        values
    }

    /// As [`Array::values`], as bits, which compare NaN and zero exactly.
    pub(crate) fn bits(&self) -> Vec<u32> {
        self.values().into_iter().map(f32::to_bits).collect()
    }

    pub(crate) fn assert_close(&self, want: &Self, what: &str) {
        assert_close(self.tensor.dtype(), &self.values(), &want.values(), what);
    }

    pub(crate) fn assert_close_twice_rounded(&self, want: &Self, what: &str) {
        assert_close_twice_rounded(self.tensor.dtype(), &self.values(), &want.values(), what);
    }
}

/// As [`assert_close`], but for attention, where a GPU's tensor cores take the weights in bf16:
/// every element may differ, by what the rounding of the weights makes.
pub(crate) fn assert_close_twice_rounded(dtype: DType, got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let (absolute, relative) = twice_rounded_tolerance(dtype);
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let close = (got - want).abs() <= absolute + relative * want.abs();
        assert!(close, "{what}, {dtype}: element {i} is {got}, the reference has {want}");
    }
}

pub(crate) fn assert_close(dtype: DType, got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let tolerance = tolerance(dtype);
    let mut num_inexact = 0;
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let allowed = tolerance.absolute + tolerance.relative * want.abs();
        let close = got == want || (got - want).abs() <= allowed || got.is_nan() && want.is_nan();
        assert!(close, "{what}, {dtype}: element {i} is {got}, the reference has {want}");
        num_inexact += usize::from(got != want && !got.is_nan());
    }
    let allowed = 1.0 + tolerance.inexact * got.len() as f32;
    let of = got.len();
    assert!(num_inexact as f32 <= allowed, "{what}, {dtype}: {num_inexact} of {of} differ");
}

pub(crate) fn ids(device: &Device, ids: &[i32]) -> Tensor {
    Tensor::from_slice(device, [ids.len()], ids).unwrap()
}

pub(crate) fn floats(device: &Device, values: &[f32]) -> Tensor {
    Tensor::from_slice(device, [values.len()], values).unwrap()
}
