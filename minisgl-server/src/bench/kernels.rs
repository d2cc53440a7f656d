//! What single operations cost: a table of times, rates and shares of what this device reaches.
//!
//! Never knows a model.

use std::io::{self, Write as _};

use anyhow::Result;
use minisgl_model::EngineOptions;
use minisgl_model::kernel_bench::{Bound, Ceilings, Report, Timed, time_kernels};
use minisgl_server::llm::Silent;

use crate::args::KernelsArgs;
use crate::doctor::library_search;

/// Prints the table.
///
/// # Errors
/// If an option makes no sense here, or the device fails.
pub(crate) fn kernels(args: &KernelsArgs) -> Result<()> {
    let options = EngineOptions {
        device: args.device,
        gpus: args.devices.clone(),
        cpu_threads: args.cpu_threads,
        attention: args.attention_backend,
        libraries: library_search(),
        ..EngineOptions::default()
    };
    let mut out = io::stdout().lock();
    let (mut ceilings, mut written) = (None, Ok(()));
    time_kernels(&options, &Silent, &mut |report| {
        if let Report::Ceilings(found) = &report {
            ceilings = Some(*found);
        }
        if written.is_ok() {
            written = writeln!(out, "{}", line(&report, ceilings.as_ref()));
        }
    })?;
    Ok(written?)
}

/// One line of the table, or two.
fn line(report: &Report, ceilings: Option<&Ceilings>) -> String {
    match report {
        Report::Device(device) => format!("bfloat16 on {device}"),
        Report::Ceilings(ceilings) => {
            let [m, k, n] = ceilings.product;
            format!(
                "ceilings: copying {:.0} GB/s, summing arrays {:.0} GB/s (the better one counts); a \
                 product {m} x {k} x {n} {}\n{:<40} {:>12} {:>16} {:>7}",
                ceilings.copy / 1e9,
                ceilings.read / 1e9,
                operations(ceilings.flops, ceilings),
                "operation",
                "time",
                "rate",
                "share"
            )
        }
        Report::Section(title) => format!("-- {title}"),
        Report::Timed(timed) => timed_line(timed, ceilings),
        Report::LeftOut { what, reason } => format!("{what:<40} left out: {reason}"),
    }
}

fn timed_line(timed: &Timed, ceilings: Option<&Ceilings>) -> String {
    let Timed { what, seconds, work, note } = timed;
    let time = format!("{:.1} us", 1e6 * seconds);
    let Some(ceilings) = ceilings else { return format!("{what:<40} {time:>12}") };
    let (bound, rate, share) = ceilings.rate(*work, *seconds);
    let rate = match bound {
        Bound::Bytes => format!("{:.1} GB/s", rate / 1e9),
        Bound::Flops => operations(rate, ceilings),
    };
    let line = format!("{what:<40} {time:>12} {rate:>16} {:>5.0} %  {note}", 100.0 * share);
    line.trim_end().to_owned()
}

/// Operations per second, in the unit that fits the device.
fn operations(rate: f64, ceilings: &Ceilings) -> String {
    const LARGE: f64 = 1e13;
    if ceilings.flops >= LARGE {
        format!("{:.1} TFLOP/s", rate / 1e12)
    } else {
        format!("{:.1} GFLOP/s", rate / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use minisgl_model::kernel_bench::Work;

    use super::*;

    const GPU: Ceilings =
        Ceilings { copy: 3.0e12, read: 4.0e12, product: [8192, 8192, 8192], flops: 7.0e14 };

    fn timed(seconds: f64, work: Work, note: &str) -> Report {
        Report::Timed(Timed { what: "qkv".to_owned(), seconds, work, note: note.to_owned() })
    }

    #[test]
    fn a_line_says_what_bounds_and_how_much_of_the_ceiling_that_is() {
        let words = |report: &Report, ceilings: &Ceilings| {
            let line = line(report, Some(ceilings));
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
        };
        let weights = Work { bytes: 73_400_320, flops: 73_400_320 };
        let report = timed(20e-6, weights, "");
        assert_eq!(words(&report, &GPU), "qkv 20.0 us 3670.0 GB/s 92 %");
        let prompt = Work { bytes: 73_400_320, flops: 601_295_421_440 };
        let report = timed(1e-3, prompt, "tuned 990.0 us");
        assert_eq!(words(&report, &GPU), "qkv 1000.0 us 601.3 TFLOP/s 86 % tuned 990.0 us");
        let cpu = Ceilings { copy: 2e10, read: 1e10, product: [1, 2, 3], flops: 5e10 };
        assert_eq!(words(&timed(24.0, prompt, ""), &cpu), "qkv 24000000.0 us 25.1 GFLOP/s 50 %");
        let ceilings = line(&Report::Ceilings(cpu), None);
        assert!(ceilings.contains("copying 20 GB/s, summing arrays 10 GB/s"), "{ceilings}");
        assert!(ceilings.contains("a product 1 x 2 x 3 50.0 GFLOP/s"), "{ceilings}");
        let report = Report::LeftOut { what: "fa".to_owned(), reason: "no Hopper".to_owned() };
        assert_eq!(words(&report, &GPU), "fa left out: no Hopper");
    }
}
