//! Outputs in the making, step by step. Knows events and text; never how the model was loaded.

use std::mem;

use minisgl_sched::{Event, Executor, FinishReason, Request, RequestId};

use super::{Generated, Llm};
use crate::ServerError;
use crate::generation::End;
use crate::output::{Delta, Output, OutputOptions};

/// Outputs in the making. Dropping it ends those that are not done.
#[derive(Debug)]
pub struct Generating<'a, E: Executor> {
    llm: &'a mut Llm<E>,
    /// The requests have consecutive numbers.
    first_id: u64,
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    output: Output,
    delta: Delta,
    result: Generated,
}

impl Open {
    fn new(output: Output) -> Self {
        Self {
            output,
            delta: Delta::default(),
            result: Generated {
                text: String::new(),
                token_ids: Vec::new(),
                end: None,
                logprobs: Vec::new(),
            },
        }
    }

    /// Returns the text that became certain.
    fn take_delta(&mut self) -> String {
        let Delta { text, tokens } = mem::take(&mut self.delta);
        self.result.text.push_str(&text);
        self.result.logprobs.extend(tokens);
        text
    }
}

impl<'a, E: Executor> Generating<'a, E> {
    /// None yet.
    pub(super) fn new(llm: &'a mut Llm<E>) -> Self {
        Self { first_id: llm.next_id, llm, open: Vec::new() }
    }

    /// Starts one more, which `continues` the text of its prompt or is one of its own.
    pub(super) fn add(
        &mut self,
        request: Request,
        options: &OutputOptions,
        continues: bool,
    ) -> Result<(), ServerError> {
        let id = RequestId(self.llm.next_id);
        let vocabulary = self.llm.text.tokenizer.token_bytes();
        let output = match continues {
            true => Output::after(options, vocabulary, &request.prompt),
            false => Output::new(options),
        };
        self.llm.driver.add(Request { id, ..request })?;
        self.llm.next_id += 1;
        self.open.push(Open::new(output));
        Ok(())
    }

    /// Whether all outputs have ended.
    pub fn is_done(&self) -> bool {
        self.open.iter().all(|open| open.result.end.is_some())
    }

    /// Runs one step. Returns the pieces of text that became certain, each with the index of its
    /// prompt; often none.
    ///
    /// # Errors
    /// If the engine fails.
    pub fn step(&mut self) -> Result<Vec<(usize, String)>, ServerError> {
        let events = match self.llm.driver.step() {
            Ok(events) => events,
            Err(error) => {
                let reason = error.to_string();
                self.llm.driver.fail_all(&reason);
                return Err(ServerError::Engine(reason.into()));
            }
        };
        let mut pieces = Vec::new();
        for event in events {
            if let Some((index, piece)) = self.apply(event)?
                && !piece.is_empty()
            {
                pieces.push((index, piece));
            }
        }
        Ok(pieces)
    }

    fn apply(&mut self, event: Event) -> Result<Option<(usize, String)>, ServerError> {
        let (Event::Token { id, .. } | Event::Finished { id, .. }) = &event;
        let id = *id;
        // A request of before, which was dropped, may still have a step in flight.
        let Some(index) = id.0.checked_sub(self.first_id) else { return Ok(None) };
        let Open { output, delta, result } = &mut self.open[index as usize];
        match event {
            Event::Token { token, logprobs, .. } => {
                result.token_ids.push(token);
                let vocabulary = self.llm.text.tokenizer.token_bytes();
                if output.push(vocabulary, token, logprobs, delta) {
                    result.end = Some(End::Stop);
                    self.llm.driver.abort(id);
                }
            }
            Event::Finished { reason, .. } => {
                let is_stopped = output.finish(delta);
                result.end = Some(match reason {
                    FinishReason::Stop => End::Stop,
                    _ if is_stopped => End::Stop,
                    FinishReason::Length => End::Length,
                    FinishReason::Error(reason) => return Err(ServerError::Engine(reason)),
                    FinishReason::Abort => return Err(ServerError::Engine("aborted".into())),
                });
            }
        }
        Ok(Some((index as usize, self.open[index as usize].take_delta())))
    }

    /// What there is by now.
    pub fn finish(mut self) -> Vec<Generated> {
        mem::take(&mut self.open).into_iter().map(|open| open.result).collect()
    }
}

impl<E: Executor> Drop for Generating<'_, E> {
    fn drop(&mut self) {
        // All of them: those that have ended are not open, and aborting them does nothing.
        for id in self.first_id..self.llm.next_id {
            self.llm.driver.abort(RequestId(id));
        }
    }
}
