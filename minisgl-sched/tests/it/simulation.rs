//! Tens of thousands of steps of random traffic on the simulator, books checked after each.

use std::collections::BTreeMap;

use minisgl_sched::sim::{SimExecutor, VOCAB_SIZE, expected};
use minisgl_sched::{
    CacheKind, Driver, Event, FinishReason, PageSize, Request, RequestId, SamplingParams,
    Scheduler, SchedulerConfig, StepPlan, TokenId,
};

/// SplitMix64: enough randomness for traffic, the same on every machine.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

#[derive(Clone, Copy, Debug)]
struct Traffic {
    seed: u64,
    steps: usize,
    overlap: bool,
    config: SchedulerConfig,
    not_finite_every: Option<u64>,
}

struct Tracked {
    request: Request,
    output: Vec<TokenId>,
    aborted: bool,
    finished: Option<FinishReason>,
}

/// A prompt that often shares its start with others.
fn prompt(rng: &mut Rng, max_seq_len: usize) -> Vec<TokenId> {
    let family = rng.below(4) as u32;
    let shared = rng.below(max_seq_len / 2);
    let own = 1 + rng.below(max_seq_len / 4);
    let shared = (0..shared as u32).map(|at| (at * 7 + family * 13) % VOCAB_SIZE);
    shared.chain((0..own).map(|_| rng.below(3) as u32)).collect()
}

fn request(rng: &mut Rng, id: u64, config: &SchedulerConfig) -> Request {
    let prompt = prompt(rng, config.max_seq_len);
    let room = config.max_seq_len - prompt.len();
    let stop_token_ids: Vec<TokenId> = (0..rng.below(3) as u32).collect();
    Request {
        id: RequestId(id),
        max_tokens: 1 + rng.below(room.min(24)),
        prompt,
        stop_token_ids: stop_token_ids.into(),
        sampling: SamplingParams { seed: rng.next(), ..SamplingParams::GREEDY },
        adjustments: None,
    }
}

/// Runs the traffic; panics where an invariant breaks. Returns every event in order.
fn run(traffic: Traffic) -> Vec<Event> {
    let Traffic { seed, steps, overlap, config, not_finite_every } = traffic;
    let mut rng = Rng(seed);
    let mut executor = SimExecutor::new(&config, seed);
    if let Some(samples) = not_finite_every {
        executor = executor.with_not_finite_every(samples);
    }
    let mut driver = Driver::new(Scheduler::new(config).unwrap(), executor, overlap);
    let mut requests: BTreeMap<RequestId, Tracked> = BTreeMap::new();
    let mut events = Vec::new();
    let mut step = 0;
    while step < steps || !driver.is_idle() {
        step += 1;
        assert!(step < steps + 5000, "what is open ends");
        // Load swings between idle and far too much.
        let quiet = step >= steps || (step / 200) % 3 == 2 || driver.stats().waiting > 20;
        for _ in 0..if quiet { 0 } else { rng.below(3) } {
            let request = request(&mut rng, requests.len() as u64, &config);
            driver.add(request.clone()).unwrap();
            let tracked = Tracked { request, output: Vec::new(), aborted: false, finished: None };
            requests.insert(tracked.request.id, tracked);
        }
        let mut new_events = Vec::new();
        if rng.below(10) == 0 && !requests.is_empty() {
            let recent = requests.len().min(30);
            let id = RequestId((requests.len() - 1 - rng.below(recent)) as u64);
            let event = driver.abort(id);
            let tracked = requests.get_mut(&id).unwrap();
            assert_eq!(event.is_some(), tracked.finished.is_none(), "open is what has not ended");
            tracked.aborted |= event.is_some();
            new_events.extend(event);
        }
        let Ok(stepped) = driver.step();
        new_events.extend(stepped);
        driver.scheduler().check().unwrap_or_else(|error| panic!("{traffic:?}: {error}"));
        for event in &new_events {
            match event {
                Event::Token { id, token, .. } => {
                    let tracked = requests.get_mut(id).unwrap();
                    assert!(tracked.finished.is_none(), "{id}: a token after the end");
                    tracked.output.push(*token);
                }
                Event::Finished { id, reason, .. } => {
                    let before = requests.get_mut(id).unwrap().finished.replace(reason.clone());
                    assert_eq!(before, None, "{id} ended twice");
                }
            }
        }
        events.extend(new_events);
    }
    for tracked in requests.values() {
        let (output, reason) = expected(&tracked.request, seed, not_finite_every);
        let finished = tracked.finished.as_ref().expect("every request ends");
        if tracked.aborted {
            assert_eq!(*finished, FinishReason::Abort);
            assert!(output.starts_with(&tracked.output));
        } else {
            assert_eq!(tracked.output, output, "{} in {traffic:?}", tracked.request.id);
            assert_eq!(std::mem::discriminant(finished), std::mem::discriminant(&reason));
        }
    }
    let stats = driver.stats();
    assert_eq!((stats.waiting, stats.running, stats.usage.held), (0, 0, 0), "nothing is kept");
    assert!(requests.len() > steps / 50, "{} requests", requests.len());
    events
}

fn config(page_size: usize, cache: CacheKind, max_prefill_tokens: usize) -> SchedulerConfig {
    let page_size_tokens = PageSize::new(page_size).unwrap();
    SchedulerConfig {
        // Room for about three long requests, so that admission waits and eviction works.
        num_pages: 240 / page_size,
        page_size: page_size_tokens,
        cache,
        max_running_requests: 6,
        max_prefill_tokens,
        max_seq_len: 80,
    }
}

#[test]
fn every_request_gets_its_own_tokens_and_no_page_is_lost() {
    let mut seed = 1;
    for page_size in [1, 4, 16] {
        for cache in [CacheKind::Radix, CacheKind::Naive] {
            for max_prefill_tokens in [1, 7, 64] {
                for overlap in [false, true] {
                    let config = config(page_size, cache, max_prefill_tokens);
                    run(Traffic { seed, steps: 1200, overlap, config, not_finite_every: None });
                    seed += 1;
                }
            }
        }
    }
}

#[test]
fn pools_that_are_tight_in_many_ways_serve_everybody() {
    let mut rng = Rng(6);
    for _ in 0..30 {
        let page_size = [1, 2, 3, 8][rng.below(4)];
        let max_seq_len = 40 + rng.below(120);
        let config = SchedulerConfig {
            // For one long request, up to four.
            num_pages: max_seq_len.div_ceil(page_size) * (10 + rng.below(30)) / 10,
            page_size: PageSize::new(page_size).unwrap(),
            cache: CacheKind::Radix,
            max_running_requests: 1 + rng.below(9),
            max_prefill_tokens: 1 + rng.below(60),
            max_seq_len,
        };
        let not_finite_every = (rng.below(2) == 0).then_some(30);
        let (seed, overlap) = (rng.next(), rng.below(4) > 0);
        run(Traffic { seed, steps: 300, overlap, config, not_finite_every });
    }
}

#[test]
fn one_request_with_bad_logits_fails_alone() {
    for overlap in [false, true] {
        let config = config(4, CacheKind::Radix, 16);
        let traffic =
            Traffic { seed: 99, steps: 3000, overlap, config, not_finite_every: Some(40) };
        let events = run(traffic);
        let failed = |event: &&Event| {
            matches!(event, Event::Finished { reason: FinishReason::Error(_), .. })
        };
        assert!(events.iter().filter(failed).count() > 100);
    }
}

#[test]
fn the_same_traffic_gives_the_same_events() {
    let config = config(4, CacheKind::Radix, 16);
    let traffic = Traffic { seed: 5, steps: 2000, overlap: true, config, not_finite_every: None };
    assert_eq!(run(traffic), run(traffic));
}

#[test]
fn plans_keep_to_the_budget_and_to_first_come_first_served() {
    let config = config(4, CacheKind::Radix, 16);
    let mut rng = Rng(3);
    let mut scheduler = Scheduler::new(config).unwrap();
    let mut admitted = Vec::new();
    let mut executor = SimExecutor::new(&config, 3);
    for id in 0..400 {
        scheduler.add(request(&mut rng, id, &config)).unwrap();
    }
    while let Some(plan) = scheduler.plan() {
        assert!(prefill_tokens(&plan) <= 16 && plan.sequences.len() <= 6 + 16);
        for sequence in &plan.sequences {
            if !admitted.contains(&sequence.request) {
                admitted.push(sequence.request);
            }
        }
        let ticket = minisgl_sched::Executor::submit(&mut executor, plan.into()).unwrap();
        let output = minisgl_sched::Executor::wait(&mut executor, ticket).unwrap();
        scheduler.commit(output);
    }
    assert!(scheduler.is_idle());
    assert_eq!(admitted.len(), 400);
    assert!(admitted.is_sorted(), "nobody overtakes");
}

/// Tokens of prompts: all but one per sequence that decodes.
fn prefill_tokens(plan: &StepPlan) -> usize {
    let first_of_prefill =
        plan.sequences.iter().position(|sequence| sequence.input.len() > 1).unwrap_or(0);
    plan.sequences[first_of_prefill..]
        .iter()
        .map(|sequence| sequence.input.len())
        .filter(|len| *len > 1)
        .sum()
}
