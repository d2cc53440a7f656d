//! How often ranks may be started again. Knows the clock; never why they failed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What fails more often than this within [`WINDOW`] will not be mended by starting it again.
const MAX_RESTARTS: usize = 5;
const WINDOW: Duration = Duration::from_secs(600);

/// The restarts so far.
#[derive(Debug)]
pub(crate) struct Restarts {
    is_allowed: bool,
    recent: VecDeque<Instant>,
}

impl Restarts {
    /// None so far.
    pub(crate) fn new(is_allowed: bool) -> Self {
        Self { is_allowed, recent: VecDeque::new() }
    }

    /// Whether another one may be tried now; counts it if so.
    pub(crate) fn may_restart(&mut self) -> bool {
        self.may_restart_at(Instant::now())
    }

    fn may_restart_at(&mut self, now: Instant) -> bool {
        while self.recent.front().is_some_and(|then| now.duration_since(*then) > WINDOW) {
            self.recent.pop_front();
        }
        let may = self.is_allowed && self.recent.len() < MAX_RESTARTS;
        if may {
            self.recent.push_back(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_within_the_window_and_none_if_not_allowed() {
        let start = Instant::now();
        let mut restarts = Restarts::new(true);
        for _ in 0..MAX_RESTARTS {
            assert!(restarts.may_restart_at(start));
        }
        assert!(!restarts.may_restart_at(start + WINDOW));
        assert!(restarts.may_restart_at(start + WINDOW + Duration::from_secs(1)));
        assert!(!Restarts::new(false).may_restart_at(start));
    }
}
