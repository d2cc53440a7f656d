//! Dividing work among the device's threads.
//!
//! Never knows: what the work is. How work is divided must not change its result: every part
//! writes its own outputs, and nothing is summed across parts.

use super::CpuDevice;
use crate::rows::RowsMut;

/// Work below this many cycles (roughly) is not worth handing to another thread: waking one
/// costs some microseconds.
const MIN_PART_COST: usize = 30_000;

/// Outputs that can be cut in two and written by two threads.
pub(crate) trait Split: Sized + Send {
    fn len(&self) -> usize;
    fn split_at(self, index: usize) -> (Self, Self);
}

impl<T: Send> Split for RowsMut<'_, T> {
    fn len(&self) -> usize {
        self.num_rows()
    }

    fn split_at(self, index: usize) -> (Self, Self) {
        self.split_at_row(index)
    }
}

impl<T: Send> Split for &mut [T] {
    fn len(&self) -> usize {
        <[T]>::len(self)
    }

    fn split_at(self, index: usize) -> (Self, Self) {
        self.split_at_mut(index)
    }
}

/// Two outputs with an item each per index.
impl<A: Split, B: Split> Split for (A, B) {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn split_at(self, index: usize) -> (Self, Self) {
        let (a, b) = (self.0.split_at(index), self.1.split_at(index));
        ((a.0, b.0), (a.1, b.1))
    }
}

impl CpuDevice {
    /// Calls `work(first, part)` on parts that together are `items`, where `first` is the index of
    /// the part's first item. `item_cost` is the cost of one item, in cycles, roughly.
    pub(super) fn for_each_part<I: Split>(
        &self,
        items: I,
        item_cost: usize,
        work: impl Fn(usize, I) + Sync,
    ) {
        let min_items = (MIN_PART_COST / item_cost.max(1)).max(1);
        if self.num_threads() == 1 || items.len() <= min_items {
            if items.len() > 0 {
                work(0, items);
            }
            return;
        }
        // A few parts per thread, so that a thread that starts late costs little.
        let part = items.len().div_ceil(4 * self.num_threads()).max(min_items);
        self.run(|| split_and_work(0, items, part, &work));
    }

    /// This device, or itself with one thread if work of this `cost`, in cycles, roughly, is not
    /// worth dividing.
    pub(super) fn for_cost(&self, cost: usize) -> Self {
        let pool = if cost < 2 * MIN_PART_COST { None } else { self.pool.clone() };
        Self { pool, isa: self.isa }
    }

    /// Runs both, at the same time if a thread is free. Inside [`CpuDevice::run`] only.
    pub(super) fn join(&self, a: impl FnOnce() + Send, b: impl FnOnce() + Send) {
        if self.num_threads() == 1 {
            a();
            b();
        } else {
            rayon::join(a, b);
        }
    }
}

fn split_and_work<I: Split>(
    first: usize,
    items: I,
    max_part: usize,
    work: &(impl Fn(usize, I) + Sync),
) {
    let len = items.len();
    if len <= max_part {
        return work(first, items);
    }
    let half = len / 2;
    let (left, right) = items.split_at(half);
    rayon::join(
        || split_and_work(first, left, max_part, work),
        || split_and_work(first + half, right, max_part, work),
    );
}
