//! Continues a few token ids, greedily, on a tiny checkpoint and two ranks.

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::Path;

use minisgl_model::{Checkpoint, EngineOptions, LaunchObserver, RankGroup};
use minisgl_sched::{Driver, Event, Request, RequestId, SamplingParams, Scheduler};

struct Log;

impl LaunchObserver for Log {
    fn rank_ready(&self, rank: usize, world_size: usize) {
        show(format_args!("rank {rank}/{world_size} ready"));
    }

    fn weights_loaded(&self, _bytes: u64, _total: u64) {}

    fn warn(&self, message: &str) {
        show(format_args!("{message}"));
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/qwen3");
    let options = EngineOptions {
        tp_size: NonZeroUsize::new(2).ok_or("two is not zero")?,
        num_pages: Some(1024),
        max_running_requests: 4,
        ..Default::default()
    };
    let group = RankGroup::launch(&Checkpoint::folder(folder)?, &options, &Log)?;
    let scheduler = Scheduler::new(group.limits().scheduler)?;
    let mut driver = Driver::new(scheduler, group, true);
    driver.add(Request {
        id: RequestId(1),
        prompt: vec![11, 22, 33],
        max_tokens: 10,
        stop_token_ids: [].into(),
        sampling: SamplingParams::GREEDY,
        adjustments: None,
    })?;
    while !driver.is_idle() {
        for event in driver.step()? {
            match event {
                Event::Token { token, .. } => show(format_args!("token {token}")),
                Event::Finished { reason, .. } => show(format_args!("{reason:?}")),
            }
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
fn show(line: std::fmt::Arguments<'_>) {
    println!("{line}");
}
