//! The log, on standard error: `[2026-01-31|23:59:59] INFO message`, in UTC. And how a model's
//! download and its loading are shown. The only place that knows how log lines look.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};
use minisgl_model::LaunchObserver;
use minisgl_server::calendar::DateTime;
use minisgl_server::hub;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Everything of this workspace, and what goes wrong elsewhere.
const DEFAULT_FILTER: &str = "warn,minisgl=info";

/// Starts logging at `level`: a level for this workspace, or a filter as in `minisgl_sched=trace`.
///
/// # Errors
/// If it is neither.
pub(crate) fn init(level: Option<&str>) -> Result<()> {
    let filter = match level {
        None | Some("") => Some(EnvFilter::new(DEFAULT_FILTER)),
        Some(level) if level.parse::<tracing::Level>().is_ok() => {
            Some(EnvFilter::new(format!("warn,minisgl={level}")))
        }
        // A word alone would be a module: of a level that is misspelt, nothing at all is logged.
        Some(filter) if filter.contains('=') => EnvFilter::try_new(filter).ok(),
        Some("off") => Some(EnvFilter::new("off")),
        Some(_) => None,
    };
    let filter = filter.with_context(|| {
        format!(
            "--log-level {} is not allowed: use error, warn, info, debug, trace, off, or a filter \
             such as minisgl_sched=trace",
            level.unwrap_or_default()
        )
    })?;
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        // It would be said on standard error as well, and whoever says it panics.
        .log_internal_errors(false)
        .with_env_filter(filter)
        .event_format(LineFormat)
        .init();
    Ok(())
}

struct LineFormat;

impl<S, N> FormatEvent<S, N> for LineFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let time = DateTime::now().strftime("%F|%T");
        write!(writer, "[{time}] {} ", event.metadata().level())?;
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// A progress bar on a terminal, lines in a file.
pub(crate) struct LoadProgress {
    start: Instant,
    bar: ProgressBar,
    is_done: Cell<bool>,
}

impl LoadProgress {
    pub(crate) fn new() -> Self {
        // It draws nothing where standard error is not a terminal.
        let bar = ProgressBar::no_length();
        let template = "Loading {bar:40} {bytes}/{total_bytes} {bytes_per_sec}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { start: Instant::now(), bar, is_done: Cell::new(false) }
    }
}

impl LaunchObserver for LoadProgress {
    fn initializing(&self, world_size: usize, on_gpus: bool) {
        let ranks = if on_gpus { "GPUs" } else { "CPU ranks" };
        tracing::info!("Initializing tensor parallelism with {world_size} {ranks}");
    }

    fn rank_ready(&self, rank: usize, world_size: usize) {
        self.bar.suspend(|| tracing::info!("Rank {rank}/{world_size} ready"));
    }

    fn weights_loaded(&self, bytes: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(bytes);
        if bytes == total && !self.is_done.replace(true) {
            self.bar.finish_and_clear();
            let seconds = self.start.elapsed().as_secs_f64().max(1e-6);
            let (megabytes, speed) = (total as f64 / 1e6, total as f64 / 1e9 / seconds);
            tracing::info!("Loaded {megabytes:.1} MB in {seconds:.2} s ({speed:.2} GB/s)");
        }
    }

    fn sums_measured(&self, found: &str) {
        self.bar.suspend(|| {
            tracing::info!("Sums over ranks through the GPUs' own memory, as measured: {found}");
        });
    }

    fn tuning_gemms(&self, num_shapes: usize, file: &Path) {
        self.bar.suspend(|| {
            tracing::info!(
                "Measuring which algorithms multiply {num_shapes} shapes of matrices the fastest; \
                 this is done once for a GPU and a model, and kept in {}",
                file.display()
            );
        });
    }

    fn gemms_tuned(&self, took: Duration) {
        self.bar.suspend(|| tracing::info!("Measured them in {:.1} s", took.as_secs_f64()));
    }

    fn graphs_captured(&self, count: usize, took: Duration) {
        let seconds = took.as_secs_f64();
        self.bar.suspend(|| tracing::info!("Captured {count} CUDA graphs in {seconds:.2} s"));
    }

    fn warn(&self, message: &str) {
        self.bar.suspend(|| tracing::warn!("{message}"));
    }
}

/// How a download is shown: a progress bar on a terminal, lines in a file.
#[derive(Default)]
pub(crate) struct DownloadProgress {
    batch: Mutex<Batch>,
}

/// Files that come together.
struct Batch {
    bar: ProgressBar,
    total: u64,
    /// Of which a line told.
    tenths: u64,
}

impl Default for Batch {
    fn default() -> Self {
        Self { bar: ProgressBar::hidden(), total: 0, tenths: 0 }
    }
}

impl Batch {
    /// Smaller downloads are done before a line about them is read.
    const SMALL: u64 = 16 << 20;

    fn new(total: u64) -> Self {
        let bar = ProgressBar::new(total);
        let template = "Downloading {bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, total, tenths: 0 }
    }
}

impl hub::Observer for DownloadProgress {
    fn progress(&self, done: u64, total: u64) {
        // Nothing is lost with a line that another thread failed to write.
        let Ok(mut batch) = self.batch.lock() else { return };
        if batch.total != total {
            *batch = Batch::new(total);
        }
        batch.bar.set_position(done);
        if done >= total {
            batch.bar.finish_and_clear();
        }
        let tenths = done.saturating_mul(10) / total.max(1);
        if batch.bar.is_hidden() && total >= Batch::SMALL && tenths > batch.tenths {
            batch.tenths = tenths;
            let (done, total) = (done as f64 / 1e9, total as f64 / 1e9);
            tracing::info!("Downloaded {done:.2} of {total:.2} GB");
        }
    }

    fn note(&self, message: &str) {
        let log = || tracing::warn!("{message}");
        match self.batch.lock() {
            Ok(batch) => batch.bar.suspend(log),
            Err(_) => log(),
        }
    }
}
