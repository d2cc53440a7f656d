//! One request at a time: what is refused, how each way to end ends, what overlap may waste.

use std::sync::Arc;

use minisgl_sched::adjustment::{MAX_HELD_BACK, MAX_LOGIT_BIAS};
use minisgl_sched::sim::{self, SimExecutor};
use minisgl_sched::{
    Adjusting, Adjustments, CacheKind, Driver, Event, Executor, FinishReason, InputTokens,
    PageSize, Request, RequestId, SchedError, Scheduler, SchedulerConfig, TokenId, TokenSet,
};

const SEED: u64 = 11;

fn driver(config: SchedulerConfig, overlap: bool) -> Driver<SimExecutor> {
    Driver::new(Scheduler::new(config).unwrap(), SimExecutor::new(&config, SEED), overlap)
}

fn drain(driver: &mut Driver<SimExecutor>) -> Vec<Event> {
    let mut events = Vec::new();
    while !driver.is_idle() {
        let Ok(stepped) = driver.step();
        events.extend(stepped);
        driver.scheduler().check().unwrap();
    }
    events
}

fn tokens(events: &[Event]) -> Vec<TokenId> {
    let token = |event: &Event| match event {
        Event::Token { token, .. } => Some(*token),
        Event::Finished { .. } => None,
    };
    events.iter().filter_map(token).collect()
}

/// Why the only request ended, and how much of its prompt was cached.
fn end(events: &[Event]) -> (FinishReason, usize) {
    match events.last() {
        Some(Event::Finished { reason, cached_tokens, .. }) => (reason.clone(), *cached_tokens),
        other => panic!("not the end: {other:?}"),
    }
}

#[test]
fn what_can_never_run_is_refused() {
    let config = SchedulerConfig { num_pages: 100, max_seq_len: 120, ..Default::default() };
    let mut scheduler = Scheduler::new(config).unwrap();
    assert_eq!(scheduler.max_seq_len(), 100, "the pool is smaller than the limit");
    let mut refuse = |prompt: usize, max_tokens| {
        scheduler.add(sim::request(1, vec![0; prompt], max_tokens)).unwrap_err().to_string()
    };
    assert_eq!(refuse(0, 1), "request 1: the prompt is empty");
    assert_eq!(refuse(1, 0), "request 1: max_tokens is 0, at least 1 is needed");
    assert!(refuse(50, 51).contains("exceed the 100 tokens"));
    assert!(refuse(1, usize::MAX).contains("exceed the 100 tokens"));
    scheduler.add(sim::request(1, vec![0; 50], 50)).unwrap();
    let again = scheduler.add(sim::request(1, vec![0], 1));
    assert!(matches!(again, Err(SchedError::Duplicate { id: RequestId(1) })));
    assert!(Scheduler::new(SchedulerConfig { max_running_requests: 0, ..config }).is_err());
    assert!(Scheduler::new(SchedulerConfig { num_pages: 0, ..config }).is_err());
}

#[test]
fn the_largest_request_that_fits_runs() {
    for (page_size, num_pages) in [(1, 64), (16, 4)] {
        let page_size = PageSize::new(page_size).unwrap();
        let config =
            SchedulerConfig { num_pages, page_size, max_seq_len: 64, ..Default::default() };
        for prompt in [1, 30, 63] {
            let mut driver = driver(config, true);
            driver.add(sim::request(1, vec![3; prompt], 64 - prompt)).unwrap();
            let events = drain(&mut driver);
            assert_eq!(tokens(&events).len(), 64 - prompt);
            assert_eq!(end(&events).0, FinishReason::Length);
        }
    }
}

#[test]
fn a_stop_token_ends_the_output_and_is_its_last() {
    let free = sim::request(1, vec![1, 2, 3], 40);
    let (unstopped, _) = sim::expected(&free, SEED, None);
    let stop = unstopped[10];
    let request = Request { stop_token_ids: [stop].into(), ..free };
    for overlap in [false, true] {
        let mut driver = driver(SchedulerConfig::default(), overlap);
        driver.add(request.clone()).unwrap();
        let events = drain(&mut driver);
        let first = unstopped.iter().position(|token| *token == stop).unwrap();
        assert_eq!(tokens(&events), unstopped[..=first]);
        assert_eq!(end(&events).0, FinishReason::Stop);
    }
}

/// What the plans of a driverless scheduler say about adjustments, chunk by chunk.
#[test]
fn the_first_token_comes_with_the_whole_prompt() {
    let config = SchedulerConfig {
        max_prefill_tokens: 16,
        page_size: PageSize::new(4).unwrap(),
        ..Default::default()
    };
    let mut scheduler = Scheduler::new(config).unwrap();
    let mut executor = SimExecutor::new(&config, SEED);
    let adjustments = Adjustments { repetition_penalty: 1.5, min_tokens: 2, ..Adjustments::NONE };
    let prompt: Vec<u32> = (0..41).map(|at| at % 13).collect();
    let free = sim::request(1, prompt.clone(), 3);
    let (output, _) = sim::expected(&free, SEED, None);
    let unused = (0..sim::VOCAB_SIZE).find(|token| !output.contains(token)).unwrap();
    let stop_token_ids: Arc<[u32]> = [unused].into();
    // The second time most of the prompt is in the cache.
    for (id, chunks) in [(1, 3), (2, 1)] {
        let request = Request {
            id: RequestId(id),
            stop_token_ids: stop_token_ids.clone(),
            adjustments: Some(Arc::new(adjustments.clone())),
            ..free.clone()
        };
        scheduler.add(request).unwrap();
        let mut said = Vec::new();
        while !scheduler.is_idle() {
            let plan = scheduler.plan().unwrap();
            said.push(plan.sequences[0].adjusting.clone());
            let ticket = executor.submit(Arc::new(plan)).unwrap();
            scheduler.commit(executor.wait(ticket).unwrap());
        }
        assert_eq!(said.len(), chunks + 2);
        assert!(said[..chunks - 1].iter().all(Option::is_none));
        let Some(Adjusting::First(first)) = &said[chunks - 1] else { panic!("{said:?}") };
        assert_eq!(*first.adjustments, adjustments);
        assert_eq!(first.prompt, TokenSet::of(&prompt));
        assert_eq!(first.held_back, stop_token_ids);
        assert_eq!(said[chunks..], [Some(Adjusting::Next), Some(Adjusting::Next)]);
    }
}

#[test]
fn more_than_there_is_room_for_is_refused() {
    let mut scheduler = Scheduler::new(SchedulerConfig::default()).unwrap();
    let mut refused = |adjustments, stop: usize| {
        let request = Request {
            stop_token_ids: (0..stop as u32).collect(),
            adjustments: Some(Arc::new(adjustments)),
            ..sim::request(1, vec![1], 1)
        };
        let error = scheduler.add(request).unwrap_err().to_string();
        assert!(scheduler.is_idle());
        error
    };
    let logit_bias = (0..=MAX_LOGIT_BIAS as u32).map(|id| (id, 1.0)).collect();
    let error = refused(Adjustments { logit_bias, ..Adjustments::NONE }, 0);
    assert!(error.contains("1025 entries of logit_bias, at most 1024"), "{error}");
    let error = refused(Adjustments { min_tokens: 1, ..Adjustments::NONE }, MAX_HELD_BACK + 1);
    assert!(error.contains("257 stop tokens with min_tokens, at most 256"), "{error}");
}

#[test]
fn an_abort_ends_at_once_wherever_the_request_is() {
    let config = SchedulerConfig { max_running_requests: 1, ..Default::default() };
    for overlap in [false, true] {
        for steps_before in 0..8 {
            let mut driver = driver(config, overlap);
            // Three chunks of prompt, then decode; the second one waits for the only row.
            driver.add(sim::request(1, (0..150).map(|at| at % 50).collect(), 20)).unwrap();
            driver.add(sim::request(2, vec![4, 5], 3)).unwrap();
            for _ in 0..steps_before {
                let Ok(_) = driver.step();
            }
            let event = driver.abort(RequestId(1));
            assert!(matches!(event, Some(Event::Finished { reason: FinishReason::Abort, .. })));
            assert_eq!(driver.abort(RequestId(1)), None);
            let events = drain(&mut driver);
            let second = sim::expected(&sim::request(2, vec![4, 5], 3), SEED, None).0;
            assert_eq!(tokens(&events), second, "nothing more of the first");
            assert_eq!(driver.stats().usage.held, 0);
        }
    }
    let mut driver = driver(config, true);
    driver.add(sim::request(1, vec![1], 5)).unwrap();
    driver.add(sim::request(2, vec![1], 5)).unwrap();
    assert!(driver.abort(RequestId(2)).is_some(), "while it waits");
    assert_eq!(tokens(&drain(&mut driver)).len(), 5);
}

#[test]
fn prefixes_are_reused_in_whole_pages_and_never_to_the_last_token() {
    let page_size = PageSize::new(4).unwrap();
    let config = SchedulerConfig { page_size, num_pages: 64, ..Default::default() };
    for (cache, cached_tokens) in [(CacheKind::Radix, 8), (CacheKind::Naive, 0)] {
        let mut driver = driver(SchedulerConfig { cache, ..config }, true);
        let prompt: Vec<TokenId> = (0..12).collect();
        let mut outputs = Vec::new();
        for (id, cached) in [(1, 0), (2, cached_tokens)] {
            driver.add(sim::request(id, prompt.clone(), 6)).unwrap();
            let events = drain(&mut driver);
            assert_eq!(end(&events).1, cached);
            outputs.push(tokens(&events));
        }
        assert_eq!(outputs[0], outputs[1]);
        // The output of the first is cached too: ask with it as part of the prompt.
        let longer: Vec<TokenId> = prompt.iter().chain(&outputs[0]).copied().collect();
        driver.add(sim::request(3, longer, 1)).unwrap();
        let expected = if cache == CacheKind::Radix { 16 } else { 0 };
        assert_eq!(end(&drain(&mut driver)).1, expected);
    }
}

#[test]
fn overlap_feeds_the_sampled_token_on_the_device() {
    for overlap in [false, true] {
        let config = SchedulerConfig::default();
        let mut scheduler = Scheduler::new(config).unwrap();
        let mut executor = SimExecutor::new(&config, SEED);
        scheduler.add(sim::request(1, vec![1, 2, 3], 3)).unwrap();
        let mut pending = None;
        let mut inputs = Vec::new();
        loop {
            let plan = scheduler.plan();
            inputs.extend(plan.as_ref().map(|plan| plan.sequences[0].input.clone()));
            let submitted = plan.map(|plan| executor.submit(plan.into()).unwrap());
            let due = if overlap { std::mem::replace(&mut pending, submitted) } else { submitted };
            match due {
                Some(ticket) => drop(scheduler.commit(executor.wait(ticket).unwrap())),
                None if scheduler.is_idle() => break,
                None => {}
            }
        }
        let sampled =
            inputs.iter().filter(|input: &&InputTokens| **input == InputTokens::Sampled).count();
        assert_eq!(inputs.len(), 3, "no step is wasted when the length is known");
        assert_eq!(sampled, if overlap { 2 } else { 0 });
    }
}

#[test]
fn a_broken_executor_ends_everything_and_leaves_clean_books() {
    let mut driver =
        driver(SchedulerConfig { max_running_requests: 2, ..Default::default() }, true);
    for id in 0..5 {
        driver.add(sim::request(id, vec![1, 2, 3], 9)).unwrap();
    }
    for _ in 0..3 {
        let Ok(_) = driver.step();
    }
    let events = driver.fail_all("rank 1 is gone");
    assert_eq!(events.len(), 5);
    for event in events {
        let Event::Finished { reason: FinishReason::Error(reason), .. } = event else {
            panic!("not an error: {event:?}");
        };
        assert_eq!(&*reason, "rank 1 is gone");
    }
    assert!(driver.is_idle());
    driver.scheduler().check().unwrap();
    assert_eq!(driver.stats().usage.free, 256);
}

/// Between the publishing of a prompt that the cache has got to know meanwhile and the end of the
/// step in flight, both copies of it are in use; pages promised to others can be short for so long.
#[test]
fn twins_of_cached_pages_do_not_break_promises() {
    let config = SchedulerConfig {
        num_pages: 100,
        max_seq_len: 100,
        max_prefill_tokens: 20,
        ..Default::default()
    };
    for overlap in [false, true] {
        let mut driver = driver(config, overlap);
        let prefix: Vec<TokenId> = (0..20).collect();
        // Ends at once and leaves the prefix in the cache, while the second computes it again.
        let requests = [
            sim::request(1, prefix.clone(), 1),
            sim::request(2, [prefix, vec![30; 20]].concat(), 2),
            // Fits only into what the cache has to give.
            sim::request(3, vec![40; 40], 19),
        ];
        for request in &requests {
            driver.add(request.clone()).unwrap();
        }
        let events = drain(&mut driver);
        for request in requests {
            let own = events.iter().filter(|event| match event {
                Event::Token { id, .. } | Event::Finished { id, .. } => *id == request.id,
            });
            let own: Vec<Event> = own.cloned().collect();
            assert_eq!(tokens(&own), sim::expected(&request, SEED, None).0, "overlap {overlap}");
        }
        assert_eq!(driver.stats().usage.held, 0);
    }
}

#[test]
fn a_first_sample_that_is_none_ends_the_request_alone() {
    let config = SchedulerConfig::default();
    for overlap in [false, true] {
        let executor = SimExecutor::new(&config, SEED).with_not_finite_every(1);
        let mut driver = Driver::new(Scheduler::new(config).unwrap(), executor, overlap);
        driver.add(sim::request(1, vec![1, 2, 3], 5)).unwrap();
        let events = drain(&mut driver);
        assert!(matches!(end(&events), (FinishReason::Error(_), 0)), "{events:?}");
        assert!(tokens(&events).is_empty() && driver.stats().usage.free == 256);
    }
}
