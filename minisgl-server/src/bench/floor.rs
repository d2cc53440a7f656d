//! The least time a workload can take: bytes over bandwidth.
//!
//! Never knows how anything is computed.

use std::time::Duration;

use minisgl_model::EngineLimits;

use super::workload::Workload;

/// See [`Floor::of`].
pub(super) struct Floor;

impl Floor {
    /// Every decode step reads all weights of a step once and the keys and values of every sequence
    /// that still runs; prompts are left out. Divided by `bandwidth` in bytes per second, of all
    /// ranks together.
    pub(super) fn of(workload: &Workload, limits: &EngineLimits, bandwidth: f64) -> Duration {
        let steps = workload.lengths().map(|(_, output)| output).max().unwrap_or(0);
        // The first token of an output comes from the prompt's step.
        let positions = |(input, output): (usize, usize)| -> usize {
            (1..output).map(|step| input + step).sum()
        };
        let positions: usize = workload.lengths().map(positions).sum();
        let weights = limits.step_weight_bytes as f64 * steps as f64;
        let kv = limits.kv_bytes_per_token as f64 * positions as f64;
        Duration::from_secs_f64((weights + kv) / bandwidth)
    }
}
