//! Planning a step: decodes, then chunks of prompts under the token budget, then admission.
//! Never looks at outputs.

use minisgl_cache::RowId;

use super::Scheduler;
use super::running::Running;
use crate::step::{SequencePlan, StepId, StepPlan};

impl Scheduler {
    /// Plans the next step, or `None` if there is nothing to compute now. What it returns must be
    /// submitted: the state has moved on.
    pub fn plan(&mut self) -> Option<StepPlan> {
        // Twins of cached pages come back when the step in flight is done. Until then both are in
        // use, and what was promised may not be there.
        let is_short = self.promised_pages() > self.kv.usage().available();
        if is_short && !self.in_flight.is_empty() {
            return None;
        }
        let step = StepId(self.last_planned.0 + 1);
        let mut sequences = Vec::new();
        let mut budget = self.max_prefill_tokens;
        let (prefilling, decoding): (Vec<RowId>, Vec<RowId>) =
            self.order.iter().partition(|row| self.running(**row).is_prefilling());
        for row in decoding {
            if !self.running(row).is_fully_planned() {
                sequences.push(self.advance(row, 1, step));
            }
        }
        for row in prefilling {
            self.prefill(row, &mut budget, step, &mut sequences);
        }
        while budget > 0
            && let Some(row) = self.admit()
        {
            self.prefill(row, &mut budget, step, &mut sequences);
        }
        if sequences.is_empty() {
            return None;
        }
        self.last_planned = step;
        let sampled = sequences.iter().filter(|sequence| sequence.sampling.is_some());
        self.in_flight.push_back((step, sampled.map(|sequence| sequence.row).collect()));
        Some(StepPlan { step, table_updates: self.kv.take_table_updates(), sequences })
    }

    fn prefill(
        &mut self,
        row: RowId,
        budget: &mut usize,
        step: StepId,
        sequences: &mut Vec<SequencePlan>,
    ) {
        if *budget > 0 {
            let sequence = self.advance(row, *budget, step);
            *budget -= sequence.input.len();
            sequences.push(sequence);
        }
    }

    /// Plans up to `budget` more tokens of the request in `row`.
    fn advance(&mut self, row: RowId, budget: usize, step: StepId) -> SequencePlan {
        let running = self.running[row.0 as usize].as_mut().expect("a row in `order` is running");
        let (start, input) = running.advance(budget, step);
        let grown = self.kv.grow(&running.lease, running.computed);
        assert!(grown.is_ok(), "pages were promised at admission: {grown:?}");
        SequencePlan {
            request: running.request.id,
            row,
            start,
            input,
            sampling: (!running.is_prefilling()).then_some(running.request.sampling),
            adjusting: running.adjusting(),
        }
    }

    /// Admits the first waiting request if a row is free and pages for its whole life can be
    /// promised; nobody overtakes it.
    fn admit(&mut self) -> Option<RowId> {
        let request = self.waiting.front()?;
        let lease = self.kv.open(&request.prompt)?;
        let page_size = self.kv.page_size();
        let total = page_size.pages_for(request.prompt.len() + request.max_tokens - 1);
        let wanted = total - lease.shared_pages();
        if wanted + self.promised_pages() > self.kv.usage().available() {
            self.kv.close(lease, &[]);
            return None;
        }
        let request = self.waiting.pop_front()?;
        let (row, cached_tokens) = (lease.row(), lease.shared_pages() * page_size.get());
        self.prompt_tokens += request.prompt.len() as u64;
        self.cached_tokens += cached_tokens as u64;
        self.running[row.0 as usize] = Some(Running::new(request, lease, cached_tokens));
        self.order.push(row);
        Some(row)
    }

    /// Pages that running requests may still ask for.
    fn promised_pages(&self) -> usize {
        let page_size = self.kv.page_size();
        let running = self.running.iter().flatten();
        let promised = running.map(|running| {
            page_size.pages_for(running.max_positions()) - self.kv.pages(&running.lease).len()
        });
        promised.sum()
    }
}
