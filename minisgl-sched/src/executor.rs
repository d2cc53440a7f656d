//! Who runs the steps: the model's rank group, or a simulator. Knows plans, not requests' lives.

use std::sync::Arc;

use crate::step::{StepId, StepOutput, StepPlan};

/// A step that was submitted and not yet waited for.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "wait for it, or its output is lost"]
pub struct Ticket(pub StepId);

/// Runs steps one after the other, in the order they are submitted.
pub trait Executor {
    /// What makes a step, and with it the executor, fail for good.
    type Error: std::error::Error;

    /// Starts a step; returns at once if it can, while earlier ones are still running.
    ///
    /// # Errors
    /// If the executor is broken: no step will run any more.
    fn submit(&mut self, plan: Arc<StepPlan>) -> Result<Ticket, Self::Error>;

    /// Blocks until the step is done.
    ///
    /// # Errors
    /// If the executor broke.
    fn wait(&mut self, ticket: Ticket) -> Result<StepOutput, Self::Error>;

    /// Calls `notify`, from whatever thread, when the executor breaks while nobody waits for a step,
    /// if it can notice that by itself; perhaps also when it breaks otherwise, or is dropped.
    fn on_failure(&mut self, notify: Box<dyn FnOnce() + Send>) {
        drop(notify);
    }

    /// Whether steps can still be run. Only asked when none is in flight.
    ///
    /// # Errors
    /// If the executor broke.
    fn check(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}
