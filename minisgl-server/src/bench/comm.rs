//! What sums over ranks cost: a table of sizes, numbers of ranks and ways to sum.
//!
//! Never knows a model.

use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::{Result, ensure};
use minisgl_model::comm_bench::{time_memcpy, time_sums, time_wake};
use minisgl_model::{AllReduceChoice, DeviceChoice, EngineOptions};
use minisgl_server::llm::Silent;

use crate::args::CommArgs;
use crate::doctor::{library_search, nccl_shares_gpus};

const MAX_RANKS: usize = 64;
const MAX_BYTES: usize = 1 << 30;

/// Prints the table.
///
/// # Errors
/// If an option makes no sense, or the ranks cannot be started.
pub(crate) fn comm(args: &CommArgs) -> Result<()> {
    for ranks in &args.ranks {
        let allowed = (2..=MAX_RANKS).contains(ranks);
        ensure!(allowed, "--ranks {ranks} is not allowed: use 2 to {MAX_RANKS}");
    }
    for bytes in &args.sizes {
        let allowed = (2..=MAX_BYTES).contains(bytes) && bytes % 2 == 0;
        ensure!(allowed, "--sizes {bytes} is not allowed: use even numbers from 2 to {MAX_BYTES}");
    }
    ensure!(
        args.device != DeviceChoice::Cpu || args.all_reduce == [AllReduceChoice::Auto],
        "--all-reduce is for GPUs: ranks on the CPU have one way to sum"
    );
    let mut out = io::stdout().lock();
    writeln!(out, "one thread wakes another in {}", micros(time_wake()))?;
    writeln!(out, "{:>10} {:>5} {:>9} {:>12} {:>10}", "bytes", "ranks", "way", "time", "bus GB/s")?;
    for bytes in &args.sizes {
        let time = time_memcpy(*bytes);
        line(&mut out, *bytes, "1", "memcpy", time, 1.0)?;
    }
    let mut device = None;
    for &ranks in &args.ranks {
        for &choice in &args.all_reduce {
            let options = EngineOptions {
                tp_size: NonZeroUsize::new(ranks).unwrap_or(NonZeroUsize::MIN),
                device: args.device,
                gpus: args.devices.clone(),
                all_reduce: choice,
                libraries: library_search(),
                nccl_shares_gpus: nccl_shares_gpus(),
                ..EngineOptions::default()
            };
            let sums = time_sums(&options, &args.sizes, &Silent)?;
            ensure!(
                sums.on_gpus || args.all_reduce == [AllReduceChoice::Auto],
                "--all-reduce is for GPUs, and there are none: ranks on the CPU have one way to sum"
            );
            let way = match choice {
                _ if !sums.on_gpus => "threads",
                AllReduceChoice::Auto => "auto",
                AllReduceChoice::Nccl => "nccl",
                AllReduceChoice::P2p => "p2p",
            };
            for (bytes, time) in args.sizes.iter().zip(sums.times) {
                let factor = 2.0 * (ranks - 1) as f64 / ranks as f64;
                line(&mut out, *bytes, &ranks.to_string(), way, time, factor)?;
            }
            if let Some(measured) = sums.measured {
                writeln!(out, "{ranks} ranks, {way}, as measured at the start: {measured}")?;
            }
            device = Some(sums.device);
        }
    }
    if let Some(device) = device {
        writeln!(out, "bfloat16 on {device}")?;
    }
    Ok(())
}

/// One line; `factor` is how much each rank must at least send of each byte (for a copy, what it
/// copies).
fn line(
    out: &mut impl io::Write,
    bytes: usize,
    ranks: &str,
    way: &str,
    time: Duration,
    factor: f64,
) -> io::Result<()> {
    let rate = factor * bytes as f64 / time.as_secs_f64() / 1e9;
    writeln!(out, "{bytes:>10} {ranks:>5} {way:>9} {:>12} {rate:>10.2}", micros(time))
}

fn micros(time: Duration) -> String {
    format!("{:.1} us", time.as_secs_f64() * 1e6)
}
