//! Waiting, running, finished: the state of all open requests, and the two calls that move it on,
//! [`Scheduler::plan`] and [`Scheduler::commit`].
//!
//! Requests are admitted first come, first served, when pages for their whole life (prompt and
//! `max_tokens`) can be promised; nothing that runs is ever taken back. A step computes one token of
//! every request that decodes and up to `max_prefill_tokens` of prompts.
//!
//! State moves on when a step is *planned* (positions computed, tokens to be sampled), so that the
//! next one can be planned before its output is known. What was planned cannot be undone; so what a
//! finished request holds is released only when its last planned step is committed. Abort, stop and
//! errors all go through that one rule, in `release`.
//!
//! Never knows: the executor, time, text.

mod plan;
mod release;
mod running;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use minisgl_cache::{IntegrityError, KvManager, RowId, Usage};

use self::release::Releases;
use self::running::Running;
use crate::adjustment::{MAX_HELD_BACK, MAX_LOGIT_BIAS};
use crate::request::{Event, FinishReason, Request, RequestId};
use crate::step::{Sample, StepId, StepOutput};
use crate::{SchedError, SchedulerConfig};

/// Counts for logs and metrics; totals since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Requests not admitted yet.
    pub waiting: usize,
    /// Requests admitted and not finished.
    pub running: usize,
    /// Where the KV pages are.
    pub usage: Usage,
    /// Steps planned.
    pub steps: u64,
    /// Prompt tokens of admitted requests.
    pub prompt_tokens: u64,
    /// Those of them that came from the prefix cache.
    pub cached_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Scheduler {
    kv: KvManager,
    max_prefill_tokens: usize,
    max_seq_len: usize,
    open: BTreeSet<RequestId>,
    waiting: VecDeque<Request>,
    /// By row.
    running: Vec<Option<Running>>,
    /// The rows of `running` in the order they were admitted.
    order: Vec<RowId>,
    /// Steps planned and not committed, with the rows they sample for.
    in_flight: VecDeque<(StepId, Vec<RowId>)>,
    last_planned: StepId,
    last_committed: StepId,
    releases: Releases,
    prompt_tokens: u64,
    cached_tokens: u64,
    generated_tokens: u64,
}

impl Scheduler {
    /// Nothing to do yet.
    ///
    /// # Errors
    /// [`SchedError::Limit`] or [`SchedError::Cache`] if a limit makes no sense.
    pub fn new(config: SchedulerConfig) -> Result<Self, SchedError> {
        let kv = KvManager::new(config.kv_config()?)?;
        let pool_tokens = config.num_pages.saturating_mul(config.page_size.get());
        Ok(Self {
            kv,
            max_prefill_tokens: config.max_prefill_tokens,
            max_seq_len: config.max_seq_len.min(pool_tokens),
            open: BTreeSet::new(),
            waiting: VecDeque::new(),
            running: (0..config.max_running_requests).map(|_| None).collect(),
            order: Vec::new(),
            in_flight: VecDeque::new(),
            last_planned: StepId(0),
            last_committed: StepId(0),
            releases: Releases::default(),
            prompt_tokens: 0,
            cached_tokens: 0,
            generated_tokens: 0,
        })
    }

    /// Tokens a request may have, prompt and output: the configured limit, or what the whole pool
    /// holds if that is less.
    pub fn max_seq_len(&self) -> usize {
        self.max_seq_len
    }

    /// Puts `request` at the end of the queue.
    ///
    /// # Errors
    /// If it makes no sense or can never run; it then leaves no trace.
    pub fn add(&mut self, request: Request) -> Result<(), SchedError> {
        let Request { id, max_tokens, .. } = request;
        let prompt = request.prompt.len();
        if prompt == 0 {
            return Err(SchedError::EmptyPrompt { id });
        }
        if max_tokens == 0 {
            return Err(SchedError::NoTokens { id });
        }
        if prompt.saturating_add(max_tokens) > self.max_seq_len {
            return Err(SchedError::TooLong { id, prompt, max_tokens, max: self.max_seq_len });
        }
        check_adjustments(&request)?;
        if !self.open.insert(id) {
            return Err(SchedError::Duplicate { id });
        }
        self.waiting.push_back(request);
        Ok(())
    }

    /// Ends a request now, wherever it is; returns its last event, or `None` if it is not open.
    pub fn abort(&mut self, id: RequestId) -> Option<Event> {
        if !self.open.contains(&id) {
            return None;
        }
        if let Some(index) = self.waiting.iter().position(|request| request.id == id) {
            self.waiting.remove(index);
            self.open.remove(&id);
            return Some(Event::Finished { id, reason: FinishReason::Abort, cached_tokens: 0 });
        }
        let row = self.order.iter().copied().find(|row| self.running(*row).request.id == id)?;
        Some(self.finish(row, FinishReason::Abort))
    }

    /// Takes in the output of the oldest step in flight and returns what happened.
    ///
    /// # Panics
    /// If the output is of another step or has another number of samples: the executor is broken.
    pub fn commit(&mut self, output: StepOutput) -> Vec<Event> {
        let (step, sampled_rows) = self.in_flight.pop_front().expect("a step is in flight");
        assert_eq!(output.step, step, "steps are committed in the order they were planned");
        assert_eq!(output.samples.len(), sampled_rows.len(), "one sample per sampled sequence");
        self.last_committed = step;
        let mut events = Vec::with_capacity(sampled_rows.len());
        for (row, sample) in sampled_rows.into_iter().zip(output.samples) {
            // Finished since: its row is held back until this very commit, so it is nobody else's.
            let Some(running) = &mut self.running[row.0 as usize] else { continue };
            let Sample::Token { token, logprobs } = sample else {
                let reason = "the model produced logits that are not finite";
                events.push(self.finish(row, FinishReason::Error(reason.into())));
                continue;
            };
            self.generated_tokens += 1;
            running.tokens.push(token);
            events.push(Event::Token { id: running.request.id, token, logprobs });
            if let Some(reason) = running.finish_reason() {
                events.push(self.finish(row, reason));
            } else if running.num_outputs() == 1 {
                let prompt = &running.tokens[..running.prompt_len];
                let duplicates = self.kv.publish(&mut running.lease, prompt);
                // The step in flight, if there is one, still reads them.
                self.releases.pages(self.last_planned, duplicates);
            }
        }
        self.releases.run(&mut self.kv, self.last_committed);
        events
    }

    /// Ends every open request with an error and forgets every step in flight. For when the
    /// executor broke: nothing in the KV pool can be trusted, so nothing stays cached.
    pub fn fail_all(&mut self, reason: &str) -> Vec<Event> {
        let reason = FinishReason::Error(Arc::from(reason));
        let rows = self.order.clone();
        let mut events: Vec<Event> =
            rows.into_iter().map(|row| self.finish(row, reason.clone())).collect();
        for request in std::mem::take(&mut self.waiting) {
            self.open.remove(&request.id);
            events.push(Event::Finished {
                id: request.id,
                reason: reason.clone(),
                cached_tokens: 0,
            });
        }
        self.in_flight.clear();
        self.last_committed = self.last_planned;
        self.releases.run(&mut self.kv, self.last_committed);
        self.kv.flush();
        events
    }

    /// Whether there is nothing to plan and nothing to commit until a request is added.
    pub fn is_idle(&self) -> bool {
        self.open.is_empty() && self.in_flight.is_empty()
    }

    /// Counts for logs and metrics.
    pub fn stats(&self) -> Stats {
        Stats {
            waiting: self.waiting.len(),
            running: self.order.len(),
            usage: self.kv.usage(),
            steps: self.last_planned.0,
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            generated_tokens: self.generated_tokens,
        }
    }

    /// Proves that no page is lost or owned twice.
    ///
    /// # Errors
    /// [`IntegrityError`] with the first contradiction found: a bug.
    pub fn check(&self) -> Result<(), IntegrityError> {
        let running = self.running.iter().flatten().map(|running| &running.lease);
        self.kv.check(running.chain(self.releases.leases()), self.releases.retired())
    }

    fn running(&self, row: RowId) -> &Running {
        self.running[row.0 as usize].as_ref().expect("a row in `order` is running")
    }

    /// Ends the request in `row`; what it holds is released when no step in flight can touch it.
    fn finish(&mut self, row: RowId, reason: FinishReason) -> Event {
        let running = self.running[row.0 as usize].take().expect("a request is running there");
        self.order.retain(|other| *other != row);
        let id = running.request.id;
        self.open.remove(&id);
        let cached_tokens = running.cached_tokens;
        let keep = !matches!(reason, FinishReason::Error(_));
        let (lease, last_step, tokens) = running.into_parts(keep);
        self.releases.lease(last_step, lease, tokens);
        self.releases.run(&mut self.kv, self.last_committed);
        Event::Finished { id, reason, cached_tokens }
    }
}

/// Refuses what no executor has room for.
fn check_adjustments(request: &Request) -> Result<(), SchedError> {
    let Some(adjustments) = &request.adjustments else { return Ok(()) };
    let held_back = if adjustments.min_tokens > 0 { request.stop_token_ids.len() } else { 0 };
    for (what, count, max) in [
        ("entries of logit_bias", adjustments.logit_bias.len(), MAX_LOGIT_BIAS),
        ("stop tokens with min_tokens", held_back, MAX_HELD_BACK),
    ] {
        if count > max {
            return Err(SchedError::TooMany { id: request.id, what, count, max });
        }
    }
    Ok(())
}
