//! Measuring from the inside: a model, a workload, no network and no text.
//!
//! Never knows what a token means; prompts are random ids.

pub(crate) mod comm;
mod floor;
mod idle;
pub(crate) mod kernels;
mod workload;

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use minisgl_model::{EngineLimits, EngineOptions, RankGroup, StepClock, device_bandwidth};
use minisgl_sched::{Driver, Event, FinishReason, Request, Scheduler};
use minisgl_server::llm::Silent;

use self::floor::Floor;
use self::idle::Idle;
use self::workload::Workload;
use crate::args::WorkloadArgs;
use crate::config::{Config, Mode};
use crate::logging::LoadProgress;
use crate::model_source::resolve_model;

/// Runs the offline workload of Mini-SGLang's `benchmark/offline/bench.py`, which is nano-vllm's: all
/// requests at once, random prompts, outputs of a fixed length.
///
/// # Errors
/// If the model does not load, the workload does not fit it, or the engine fails.
pub(crate) fn offline(config: &Config, args: &WorkloadArgs) -> Result<()> {
    ensure!(!matches!(config.mode, Mode::Shell(_)), "bench offline is no shell: leave out --shell");
    let random =
        Workload::random(args.num_seqs, args.max_input, args.max_output, args.temperature)?;
    let (checkpoint, name) = resolve_model(&config.model, !config.engine.dummy_weights)?;
    let bandwidth = device_bandwidth(&config.engine, &Silent)?;
    let begun = Instant::now();
    let clock = StepClock::default();
    let options = EngineOptions { step_clock: Some(clock.clone()), ..config.engine.clone() };
    let group = RankGroup::launch(&checkpoint, &options, &LoadProgress::new())?;
    let limits = group.limits().clone();
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "model {name}: {:.1} M parameters, {}, tp {}, on {}; ready in {:.2} s",
        limits.num_parameters as f64 / 1e6,
        limits.number_formats(),
        limits.tp_size,
        limits.device,
        begun.elapsed().as_secs_f64()
    )?;
    writeln!(
        out,
        "memory bandwidth, measured by reading and writing: {:.0} GB/s",
        bandwidth / 1e9
    )?;
    let scheduler = Scheduler::new(limits.scheduler)?;
    let mut driver = Driver::new(scheduler, group, config.overlap);

    let warm_up = Workload::of_one(64, 8, args.temperature);
    run(&mut driver, warm_up.requests(&limits, 0)?)?;
    clock.take()?;
    let cases =
        [("offline", random), ("one sequence", Workload::of_one(128, 256, args.temperature))];
    for (case, workload) in &cases {
        let (input, output) = workload.num_tokens();
        let floor = Floor::of(workload, &limits, bandwidth);
        writeln!(
            out,
            "{case}: {} sequences, {input} tokens in, {output} out; floor {:.2} s = {:.0} tok/s",
            workload.len(),
            floor.as_secs_f64(),
            output as f64 / floor.as_secs_f64()
        )?;
        for round in 1..=args.rounds {
            let requests = workload.requests(&limits, u64::from(round))?;
            let run = run(&mut driver, requests)?;
            writeln!(
                out,
                "  round {round}: {:.2} s, {:.0} tok/s, {:.0} % of the floor; first token after \
                 {:.0} ms, {} steps, {:.2} ms a step",
                run.total.as_secs_f64(),
                output as f64 / run.total.as_secs_f64(),
                100.0 * floor.as_secs_f64() / run.total.as_secs_f64(),
                1e3 * run.first_token.as_secs_f64(),
                run.steps,
                1e3 * run.total.as_secs_f64() / run.steps as f64
            )?;
            // A CPU is never idle between steps: what plans them runs on it, too.
            let times = clock.take()?;
            if let Some(idle) = Idle::of(times).filter(|_| limits.gpu_memory.is_some()) {
                writeln!(out, "    {idle}")?;
            }
        }
    }
    Ok(())
}

/// How one round went.
struct Run {
    total: Duration,
    first_token: Duration,
    steps: u64,
}

/// Runs all requests to their ends.
fn run(driver: &mut Driver<RankGroup>, requests: Vec<Request>) -> Result<Run> {
    let (begun, steps_before) = (Instant::now(), driver.stats().steps);
    let mut first_token = None;
    for request in requests {
        driver.add(request)?;
    }
    while !driver.is_idle() {
        for event in driver.step()? {
            match event {
                Event::Token { .. } => {
                    first_token.get_or_insert_with(|| begun.elapsed());
                }
                Event::Finished { reason, .. } => {
                    ensure!(reason == FinishReason::Length, "a request ended with {reason:?}");
                }
            }
        }
    }
    Ok(Run {
        total: begun.elapsed(),
        first_token: first_token.unwrap_or_default(),
        steps: driver.stats().steps - steps_before,
    })
}

/// The requests of one round.
impl Workload {
    fn requests(&self, limits: &EngineLimits, round: u64) -> Result<Vec<Request>> {
        let longest = self.longest();
        ensure!(
            longest <= limits.context_len,
            "the workload has sequences of {longest} tokens, but {} are the limit here: raise \
             --memory-ratio, or lower --max-input and --max-output",
            limits.context_len
        );
        Ok(self.with_prompts(limits.vocab_size, round))
    }
}
