//! What is to be released once a step is done: leases of finished requests, and pages that turned
//! out to be duplicates. Knows step numbers and what they hold, not why.

use std::collections::VecDeque;

use minisgl_cache::page::TokenId;
use minisgl_cache::{KvManager, Lease, PageId};

use crate::step::StepId;

#[derive(Debug)]
enum Held {
    /// With the tokens to keep in the prefix cache.
    Lease(Lease, Vec<TokenId>),
    Pages(Vec<PageId>),
}

/// First in, first out; a later entry never waits for an earlier step than one before it.
#[derive(Debug, Default)]
pub(super) struct Releases {
    queue: VecDeque<(StepId, Held)>,
}

impl Releases {
    /// Close `lease` when `step` is done.
    pub(super) fn lease(&mut self, step: StepId, lease: Lease, tokens: Vec<TokenId>) {
        self.queue.push_back((step, Held::Lease(lease, tokens)));
    }

    /// Free `pages` when `step` is done.
    pub(super) fn pages(&mut self, step: StepId, pages: Vec<PageId>) {
        if !pages.is_empty() {
            self.queue.push_back((step, Held::Pages(pages)));
        }
    }

    /// Releases all that waited for steps up to `done`.
    pub(super) fn run(&mut self, kv: &mut KvManager, done: StepId) {
        let (ready, waiting) = std::mem::take(&mut self.queue)
            .into_iter()
            .partition::<VecDeque<_>, _>(|(step, _)| *step <= done);
        self.queue = waiting;
        for (_, held) in ready {
            match held {
                Held::Lease(lease, tokens) => kv.close(lease, &tokens),
                Held::Pages(pages) => kv.free(pages),
            }
        }
    }

    /// Leases that wait.
    pub(super) fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.queue.iter().filter_map(|(_, held)| match held {
            Held::Lease(lease, _) => Some(lease),
            Held::Pages(_) => None,
        })
    }

    /// Pages that wait.
    pub(super) fn retired(&self) -> impl Iterator<Item = &PageId> {
        self.queue
            .iter()
            .filter_map(|(_, held)| match held {
                Held::Pages(pages) => Some(pages),
                Held::Lease(..) => None,
            })
            .flatten()
    }
}
