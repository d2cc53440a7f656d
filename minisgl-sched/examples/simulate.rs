//! A burst of chats with a common system prompt on a simulated GPU: what the prefix cache saves.

use minisgl_sched::sim::{self, SimExecutor};
use minisgl_sched::{
    CacheKind, Driver, Event, PageSize, SchedError, Scheduler, SchedulerConfig, TokenId,
};

fn main() -> Result<(), SchedError> {
    for cache in [CacheKind::Naive, CacheKind::Radix] {
        let config = SchedulerConfig {
            num_pages: 20_000,
            page_size: PageSize::new(16)?,
            cache,
            max_running_requests: 64,
            max_prefill_tokens: 2048,
            max_seq_len: 8192,
        };
        let executor = SimExecutor::new(&config, 1);
        let mut driver = Driver::new(Scheduler::new(config)?, executor, true);
        let system_prompt: Vec<TokenId> = (0..1500).map(|at| at % sim::VOCAB_SIZE).collect();
        for id in 0..200 {
            let question = (0..50).map(|at| (id as u32 * 7 + at) % sim::VOCAB_SIZE);
            let prompt = system_prompt.iter().copied().chain(question).collect();
            driver.add(sim::request(id, prompt, 100))?;
        }
        let mut tokens = 0;
        while !driver.is_idle() {
            let Ok(events) = driver.step();
            tokens += events.iter().filter(|event| matches!(event, Event::Token { .. })).count();
        }
        let (stats, seconds) = (driver.stats(), driver.executor().elapsed_us() / 1e6);
        show(format_args!(
            "{cache}: {tokens} tokens in {} steps, {seconds:.2} simulated seconds, \
             {} of {} prompt tokens from the cache",
            stats.steps, stats.cached_tokens, stats.prompt_tokens
        ));
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
fn show(line: std::fmt::Arguments<'_>) {
    println!("{line}");
}
