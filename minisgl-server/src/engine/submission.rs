//! The requests of one API call, from reservation to the last event. A client that went away is
//! one whose submission was dropped; nothing else is done about it.
//! Never knows what the requests are for.

use std::future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use minisgl_sched::{Event, Request, RequestId};
use tokio::sync::mpsc;

use super::{Command, Route, Shared};

/// An event of the request that was submitted with this index.
#[derive(Debug)]
pub struct Update {
    /// Which request.
    pub index: usize,
    /// What happened.
    pub event: Event,
}

/// The requests of one API call. Dropping it ends those that are still open.
#[derive(Debug)]
pub struct Submission {
    shared: Arc<Shared>,
    reserved: usize,
    /// By index; `None` if not submitted or ended.
    open: Vec<Option<RequestId>>,
    updates: mpsc::UnboundedReceiver<Update>,
    /// For the routes of requests to come; also keeps the channel open.
    sender: mpsc::UnboundedSender<Update>,
}

impl Submission {
    pub(super) fn new(shared: Arc<Shared>, reserved: usize) -> Self {
        // Bounded all the same: a request has at most `max_tokens + 1` events.
        let (sender, updates) = mpsc::unbounded_channel();
        Self { shared, reserved, open: vec![None; reserved], updates, sender }
    }

    /// Sends `request` to the scheduler; its number is chosen here. `index`, below the number of
    /// requests reserved, will be in its updates.
    pub fn submit(&mut self, index: usize, mut request: Request) {
        let shared = &self.shared;
        let id = RequestId(shared.next_id.fetch_add(1, Ordering::Relaxed));
        request.id = id;
        self.open[index] = Some(id);
        if let Some(routes) = shared.routes().as_mut() {
            routes.insert(id, Route { index, updates: self.sender.clone() });
            // If nobody receives it, the router will say so to every route.
            let _ = shared.commands.send(Command::Submit(request));
        } else {
            let _ = self.sender.send(Update { index, event: shared.lost(id) });
        }
    }

    /// Asks to end the request with this index, if it is open. Its last update will say so; tokens
    /// may come before.
    pub fn abort(&mut self, index: usize) {
        if let Some(id) = self.open[index] {
            // If nobody receives it, the router will say so to every route.
            let _ = self.shared.commands.send(Command::Abort(id));
        }
    }

    /// Takes all updates that are there, or waits for some.
    pub fn poll_updates(&mut self, context: &mut Context<'_>, out: &mut Vec<Update>) -> Poll<()> {
        let start = out.len();
        if self.updates.poll_recv_many(context, out, usize::MAX).is_pending() {
            return Poll::Pending;
        }
        for update in &out[start..] {
            if matches!(update.event, Event::Finished { .. }) {
                self.open[update.index] = None;
            }
        }
        Poll::Ready(())
    }

    /// [`Submission::poll_updates`] as a future.
    pub async fn updates(&mut self) -> Vec<Update> {
        let mut updates = Vec::new();
        future::poll_fn(|context| self.poll_updates(context, &mut updates)).await;
        updates
    }
}

impl Drop for Submission {
    fn drop(&mut self) {
        let shared = &self.shared;
        for id in self.open.iter().flatten() {
            if let Some(routes) = shared.routes().as_mut() {
                routes.remove(id);
            }
            let _ = shared.commands.send(Command::Abort(*id));
        }
        shared.open.fetch_sub(self.reserved, Ordering::AcqRel);
    }
}
