//! How fast single operations of a decoder are on one device, beside the ceilings that were measured
//! in the same run: moving memory, and one large product. Never knows a model.
//!
//! Every time is the median of five rounds of about 40 ms (see `kernel_bench/timer.rs`), and is
//! taken by events on the device's stream. Operations that are short on a GPU run inside of a captured
//! graph, as they do in a decode step, so that the host's launches are in no time. What an operation
//! reads was not read for long before: copies of it take turns, so that no cache holds it.

mod attention;
mod fill;
mod product;
mod rows;
mod sizes;
mod timer;
mod work;

use minisgl_kernels::ops::{self, AttentionBackend};
use minisgl_kernels::{DType, Device, Error, Stream};

use self::sizes::Sizes;
use self::timer::Timer;
pub use self::work::{Bound, Ceilings, Work};
use crate::engine::phases::{FA_IS_FOR_PREFILL, needs_a_gpu};
use crate::group::devices;
use crate::options::AttentionBackend as Choice;
use crate::{EngineOptions, LaunchObserver, ModelError};

/// One thing that the measuring has to say.
#[derive(Clone, Debug)]
pub enum Report {
    /// The device, first of all.
    Device(String),
    /// What all others are compared with.
    Ceilings(Ceilings),
    /// What the next ones have in common.
    Section(String),
    /// An operation was timed.
    Timed(Timed),
    /// Something was not timed.
    LeftOut {
        /// What.
        what: String,
        /// Why not.
        reason: String,
    },
}

/// The time of one operation.
#[derive(Clone, Debug)]
pub struct Timed {
    /// Which operation.
    pub what: String,
    /// Of one call.
    pub seconds: f64,
    /// What a call has to move and to compute at least.
    pub work: Work,
    /// Something to compare with, if there is anything.
    pub note: String,
}

/// Times the operations on the first device of `options`, with the attention backends that it
/// names, or all that the device has. The sizes depend on the kind of device: a CPU gets smaller ones.
/// `report` hears what there is to say as soon as it is known.
///
/// # Errors
/// If there is no such device, `--attn` names what this kind of device never has, or an
/// operation fails. What only this device or this build lacks, or has no memory for, is reported.
pub fn time_kernels(
    options: &EngineOptions,
    observer: &dyn LaunchObserver,
    report: &mut dyn FnMut(Report),
) -> Result<(), ModelError> {
    let devices = devices(options, observer)?;
    let device = &devices[0];
    let (prefill, decode) = (options.attention.prefill, options.attention.decode);
    let backends =
        Backends { prefill: of_prefill(prefill, device)?, decode: of_decode(decode, device)? };
    let sizes = match device {
        Device::Cpu(_) => Sizes::CPU,
        Device::Cuda(_) => Sizes::GPU,
    };
    Ok(run(device, &sizes, &backends, report)?)
}

/// Those that are timed, by phase.
struct Backends {
    prefill: Vec<AttentionBackend>,
    decode: Vec<AttentionBackend>,
}

fn of_prefill(choice: Choice, device: &Device) -> Result<Vec<AttentionBackend>, ModelError> {
    named(choice, device, &[AttentionBackend::Fa, AttentionBackend::Fi])
}

fn of_decode(choice: Choice, device: &Device) -> Result<Vec<AttentionBackend>, ModelError> {
    if choice == Choice::Fa {
        let problem = FA_IS_FOR_PREFILL.to_owned();
        return Err(ModelError::Option { option: "--attn", problem });
    }
    named(choice, device, &[AttentionBackend::Fi, AttentionBackend::Native])
}

fn named(
    choice: Choice,
    device: &Device,
    all: &[AttentionBackend],
) -> Result<Vec<AttentionBackend>, ModelError> {
    let one = match (choice, device) {
        (Choice::Auto, Device::Cpu(_)) => AttentionBackend::Native,
        (_, Device::Cpu(_)) => return Err(needs_a_gpu(&choice)),
        (Choice::Auto, Device::Cuda(_)) => return Ok(all.to_vec()),
        (Choice::Fa, _) => AttentionBackend::Fa,
        (Choice::Fi, _) => AttentionBackend::Fi,
        (Choice::Native, _) => AttentionBackend::Native,
    };
    Ok(vec![one])
}

fn run(
    device: &Device,
    sizes: &Sizes,
    backends: &Backends,
    report: &mut dyn FnMut(Report),
) -> Result<(), Error> {
    report(Report::Device(device.description()));
    let stream = device.new_stream()?;
    let timer = Timer::new(&stream, sizes.round_seconds)?;
    let mut bench = Bench { stream, timer, sizes, report };
    let ceilings = bench.ceilings()?;
    (bench.report)(Report::Ceilings(ceilings));
    bench.decode(&backends.decode)?;
    bench.one_sequence(&backends.decode)?;
    bench.prefill(&backends.prefill)?;
    bench.products()?;
    bench.rows()
}

/// What all measurements share.
struct Bench<'a> {
    stream: Stream,
    timer: Timer,
    sizes: &'a Sizes,
    report: &'a mut dyn FnMut(Report),
}

impl Bench<'_> {
    /// The memory of the device by a copy, and by a sum of arrays, which mostly reads; and one large
    /// product.
    fn ceilings(&self) -> Result<Ceilings, Error> {
        const PARTS: usize = 8;
        const COLUMNS: usize = 1024;
        let num_rows = self.sizes.ceiling_bytes / DType::Bf16.size_bytes() / COLUMNS;
        let source = fill::noise(&self.stream, [num_rows, COLUMNS], 1.0)?;
        let mut target = self.stream.device().zeros(DType::Bf16, [num_rows, COLUMNS])?;
        let bytes = (num_rows * COLUMNS * DType::Bf16.size_bytes()) as f64;
        let seconds = self.timer.in_graph(&self.stream, 4, |stream, _| {
            ops::copy(stream, source.view(), target.view_mut())
        })?;
        let copy = 2.0 * bytes / seconds;
        let part_rows = num_rows / PARTS;
        let seconds = self.timer.in_graph(&self.stream, 4, |stream, _| {
            let part = |part: usize| source.view().rows(part * part_rows..(part + 1) * part_rows);
            let parts = (0..PARTS).map(part).collect::<Result<Vec<_>, _>>()?;
            ops::reduce_sum(stream, &parts, target.view_mut().rows(0..part_rows)?)
        })?;
        let read = bytes * (1.0 + 1.0 / PARTS as f64) / seconds;
        let product = self.sizes.ceiling_product;
        Ok(Ceilings { copy, read, product, flops: self.time_ceiling_product(product)? })
    }

    fn section(&mut self, title: String) {
        (self.report)(Report::Section(title));
    }

    fn timed(&mut self, what: String, seconds: f64, work: Work, note: String) {
        (self.report)(Report::Timed(Timed { what, seconds, work, note }));
    }

    fn left_out(&mut self, what: String, reason: String) {
        (self.report)(Report::LeftOut { what, reason });
    }

    /// Reports what this device lacks or has no memory for; any other error is one.
    fn unless_lacking(
        &mut self,
        what: impl FnOnce() -> String,
        result: Result<(), Error>,
    ) -> Result<(), Error> {
        match result {
            Err(error @ (Error::Unavailable(_) | Error::OutOfMemory { .. })) => {
                self.left_out(what(), error.to_string());
                Ok(())
            }
            result => result,
        }
    }
}

#[cfg(test)]
mod tests;
