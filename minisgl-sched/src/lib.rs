//! What runs next.
//!
//! A [`Scheduler`] admits requests, cuts prompts into chunks, batches decodes, and says in a
//! [`StepPlan`] what one forward pass computes; an [`Executor`] runs plans and answers with
//! [`StepOutput`]s; a [`Driver`] turns the crank, overlapped (the next step is planned and submitted
//! while the current one runs) or not.
//!
//! Never knows: devices, I/O, async, wall-clock time, text. The scheduler is a pure function of its
//! inputs: same calls, same plans.
//!
//! # Reading order
//! 1. [`request`]: what is asked for and what comes back; [`adjustment`]: what is done to logits.
//! 2. [`step`]: the plan and its output, the contract with the executor.
//! 3. [`scheduler`]: waiting, running, finished; admission and chunked prefill.
//! 4. [`driver`]: the loop.
//!
//! **Invariants:** every request ends in exactly one [`Event::Finished`]; a row or page is reused
//! only after every step that may touch it is done.
#![cfg_attr(
    feature = "test-util",
    doc = r#"
```
use minisgl_sched::sim::{self, SimExecutor};
use minisgl_sched::{Driver, Event, Scheduler, SchedulerConfig};

let config = SchedulerConfig::default();
let mut driver = Driver::new(Scheduler::new(config)?, SimExecutor::new(&config, 1), true);
driver.add(sim::request(7, vec![1, 2, 3], 5))?;
let mut events = Vec::new();
while !driver.is_idle() {
    events.extend(driver.step().expect("the simulator does not fail"));
}
assert_eq!(events.iter().filter(|event| matches!(event, Event::Token { .. })).count(), 5);
assert!(matches!(events.last(), Some(Event::Finished { .. })));
# Ok::<(), minisgl_sched::SchedError>(())
```
"#
)]
#![forbid(unsafe_code)]

pub mod adjustment;
pub mod config;
pub mod driver;
pub mod error;
pub mod executor;
pub mod request;
pub mod scheduler;
#[cfg(feature = "test-util")]
pub mod sim;
pub mod step;

pub use adjustment::{Adjusting, Adjustments, FirstAdjusting, TokenSet};
pub use config::SchedulerConfig;
pub use driver::Driver;
pub use error::SchedError;
pub use executor::{Executor, Ticket};
pub use minisgl_cache::{CacheKind, PageId, PageSize, RowId, TableUpdate, Usage, page::TokenId};
pub use request::{Event, FinishReason, Request, RequestId, SamplingParams, TokenLogprobs};
pub use scheduler::{Scheduler, Stats};
pub use step::{InputTokens, Sample, SequencePlan, StepId, StepOutput, StepPlan};
