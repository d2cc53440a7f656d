//! Another try, after a while, and not for ever.
//! Never knows: what is tried.

use std::time::Duration;

use super::{HubError, Observer};

/// How long to wait, and how often to try again.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For the next bytes.
    pub stall: Duration,
    /// Tries that get no further, the first included.
    pub tries: u32,
    /// The wait after the first failure; it doubles with each one.
    pub first_wait: Duration,
    /// The longest wait between tries, whatever the hub asks for.
    pub longest_wait: Duration,
    /// For another process that fetches the same file and gets no further.
    pub lock: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            tries: 6,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(60),
            lock: Duration::from_secs(600),
        }
    }
}

/// A try that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: HubError,
    /// Whether another try may help.
    pub(super) is_passing: bool,
    /// Whether it got further than the one before.
    pub(super) got_further: bool,
    /// What the hub asks to wait.
    pub(super) wait: Option<Duration>,
}

impl Failure {
    /// One that another try may help.
    pub(super) fn passing(error: HubError) -> Self {
        Self { error, is_passing: true, got_further: false, wait: None }
    }
}

impl From<HubError> for Failure {
    /// One that no other try will help.
    fn from(error: HubError) -> Self {
        Self { error, is_passing: false, got_further: false, wait: None }
    }
}

/// Tries until it works, until it cannot, or until [`Patience::tries`] tries got no further.
/// `last_word` makes the error of the last one, which came after so many.
pub(super) fn with_retries<T>(
    patience: &Patience,
    observer: &dyn Observer,
    mut attempt: impl FnMut() -> Result<T, Failure>,
    last_word: impl Fn(u32, HubError) -> HubError,
) -> Result<T, HubError> {
    let mut failed = 0;
    loop {
        let failure = match attempt() {
            Ok(value) => return Ok(value),
            Err(failure) if !failure.is_passing => return Err(failure.error),
            Err(failure) => failure,
        };
        failed = if failure.got_further { 1 } else { failed + 1 };
        if failed >= patience.tries {
            return Err(last_word(failed, failure.error));
        }
        let doubled = patience.first_wait.saturating_mul(1 << (failed - 1).min(16));
        let wait = failure.wait.unwrap_or(doubled).min(patience.longest_wait);
        let seconds = wait.as_secs_f64();
        let problem = failure.error.brief();
        observer.note(&format!("{problem}; another try in {seconds:.1} s"));
        std::thread::sleep(wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Silent;

    impl Observer for Silent {
        fn progress(&self, _done: u64, _total: u64) {}

        fn note(&self, _message: &str) {}
    }

    #[test]
    fn tries_are_bounded_unless_they_get_further() {
        let patience = Patience {
            tries: 3,
            first_wait: Duration::from_micros(1),
            longest_wait: Duration::from_micros(2),
            ..Patience::default()
        };
        let mut calls = 0;
        let result: Result<(), _> = with_retries(
            &patience,
            &Silent,
            || {
                calls += 1;
                // A day is not waited for.
                let wait = Some(Duration::from_secs(86_400));
                Err(Failure { got_further: calls < 5, wait, ..Failure::passing(HubError::Stopped) })
            },
            |_, error| error,
        );
        assert!(result.is_err());
        // Four that got further, of which the last counts, and two that did not.
        assert_eq!(calls, 6);
        let mut calls = 0;
        let result: Result<(), _> = with_retries(
            &patience,
            &Silent,
            || {
                calls += 1;
                Err(HubError::Stopped.into())
            },
            |_, error| error,
        );
        assert!(result.is_err() && calls == 1);
    }
}
