//! The loop that owns a scheduler and an executor. With overlap on, step N+1 is planned and
//! submitted before the output of step N is looked at, so that the executor never waits for the
//! scheduler. Never knows where requests come from or events go.

use std::sync::Arc;

use crate::executor::{Executor, Ticket};
use crate::request::{Event, Request, RequestId};
use crate::scheduler::{Scheduler, Stats};
use crate::{SchedError, step::StepPlan};

/// See the [module](self).
#[derive(Debug)]
pub struct Driver<E> {
    scheduler: Scheduler,
    executor: E,
    overlap: bool,
    in_flight: Option<Ticket>,
}

impl<E: Executor> Driver<E> {
    /// Nothing to do yet.
    pub fn new(scheduler: Scheduler, executor: E, overlap: bool) -> Self {
        Self { scheduler, executor, overlap, in_flight: None }
    }

    /// See [`Scheduler::add`].
    ///
    /// # Errors
    /// As there.
    pub fn add(&mut self, request: Request) -> Result<(), SchedError> {
        self.scheduler.add(request)
    }

    /// See [`Scheduler::abort`].
    pub fn abort(&mut self, id: RequestId) -> Option<Event> {
        self.scheduler.abort(id)
    }

    /// Whether [`Driver::step`] has nothing to do until something is added.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.scheduler.is_idle()
    }

    /// Counts of the scheduler.
    pub fn stats(&self) -> Stats {
        self.scheduler.stats()
    }

    /// The executor.
    pub fn executor(&self) -> &E {
        &self.executor
    }

    /// The scheduler.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// Submits the next step, if there is one, and waits for one that was submitted: the one
    /// before with overlap, this one without.
    ///
    /// # Errors
    /// The executor's error; it is broken then: call [`Driver::fail_all`].
    pub fn step(&mut self) -> Result<Vec<Event>, E::Error> {
        let plan: Option<StepPlan> = self.scheduler.plan();
        let submitted = plan.map(|plan| self.executor.submit(Arc::new(plan))).transpose()?;
        let due = if self.overlap {
            std::mem::replace(&mut self.in_flight, submitted)
        } else {
            submitted
        };
        match due {
            Some(ticket) => Ok(self.scheduler.commit(self.executor.wait(ticket)?)),
            None => Ok(Vec::new()),
        }
    }

    /// See [`Executor::on_failure`].
    pub fn on_failure(&mut self, notify: Box<dyn FnOnce() + Send>) {
        self.executor.on_failure(notify);
    }

    /// Asks the executor how it is, unless a step is in flight, which will say.
    ///
    /// # Errors
    /// The executor's error; it is broken then: call [`Driver::fail_all`].
    pub fn check(&mut self) -> Result<(), E::Error> {
        if self.in_flight.is_some() { Ok(()) } else { self.executor.check() }
    }

    /// Ends every open request with an error, after the executor broke.
    pub fn fail_all(&mut self, reason: &str) -> Vec<Event> {
        self.in_flight = None;
        self.scheduler.fail_all(reason)
    }
}
