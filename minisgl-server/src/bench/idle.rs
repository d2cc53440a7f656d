//! How long a GPU had nothing to do between steps, in words.
//!
//! Never knows why.

use std::fmt;

use minisgl_model::step_clock::StepTimes;

/// See the fields.
#[derive(Debug, PartialEq)]
pub(super) struct Idle {
    /// Seconds: half of the gaps are shorter.
    median: f64,
    /// Seconds: 99 of 100 are shorter.
    p99: f64,
    /// All gaps together, as a share of the time from the first step to the last one.
    share: f64,
}

impl Idle {
    /// `None` if there were not two steps.
    pub(super) fn of(StepTimes { mut gaps, busy }: StepTimes) -> Option<Self> {
        let last = gaps.len().checked_sub(1)?;
        gaps.sort_by(f64::total_cmp);
        let at = |percent: usize| gaps[(gaps.len() * percent / 100).min(last)];
        let sum: f64 = gaps.iter().sum();
        Some(Self { median: at(50), p99: at(99), share: sum / (sum + busy) })
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, p99, share } = self;
        write!(
            f,
            "GPU idle between steps: median {:.1} us, p99 {:.1} us, {:.2} % of the time",
            1e6 * median,
            1e6 * p99,
            100.0 * share
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_a_median_a_tail_and_a_share() {
        assert_eq!(Idle::of(StepTimes { gaps: Vec::new(), busy: 1.0 }), None);
        let one = Idle::of(StepTimes { gaps: vec![1e-6], busy: 1e-6 });
        assert_eq!(one, Some(Idle { median: 1e-6, p99: 1e-6, share: 0.5 }));
        // Of any order: 1 to 200 us.
        let gaps = (0..200).map(|index| f64::from((index * 7) % 200 + 1) * 1e-6).collect();
        let idle = Idle::of(StepTimes { gaps, busy: 0.1809 }).unwrap();
        let expected = "GPU idle between steps: median 101.0 us, p99 199.0 us, 10.00 % of the time";
        assert_eq!(idle.to_string(), expected);
    }
}
