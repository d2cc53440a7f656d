//! How long the first rank's device had nothing to do between two steps, for benchmarks.
//! Knows marks on a stream; never what a step computes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use minisgl_kernels::{Error, Event, Stream};

/// Marks of steps that are not read yet: more than may be launched, so that reading never waits.
const UNREAD: usize = 4;

/// Takes the times of steps by a mark before and one after the work of each on the device's stream. A
/// handle: whoever passes it on in [`EngineOptions`](crate::EngineOptions) keeps another one.
///
/// What is idle between two marks of one step, since the host is late in queueing, is not seen.
#[derive(Clone, Debug, Default)]
pub struct StepClock {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Of the steps that were launched last, in their order.
    unread: VecDeque<Marks>,
    /// To be used again.
    unused: Vec<Marks>,
    times: StepTimes,
}

#[derive(Debug)]
struct Marks {
    start: Event,
    end: Event,
}

/// What a [`StepClock`] saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepTimes {
    /// Seconds from the end of each step to the start of the next one.
    pub gaps: Vec<f64>,
    /// Seconds that all steps took together.
    pub busy: f64,
}

impl StepClock {
    /// Before the first work of a step is queued.
    pub(crate) fn start(&self, stream: &Stream) -> Result<(), Error> {
        let mut state = self.lock();
        while state.unread.len() >= UNREAD {
            state.read_oldest()?;
        }
        let marks = match state.unused.pop() {
            Some(marks) => marks,
            None => {
                let device = stream.device();
                Marks { start: Event::timed(device)?, end: Event::timed(device)? }
            }
        };
        marks.start.record(stream)?;
        state.unread.push_back(marks);
        Ok(())
    }

    /// After the last work of that step was queued.
    pub(crate) fn end(&self, stream: &Stream) -> Result<(), Error> {
        self.lock().unread.back().map_or(Ok(()), |marks| marks.end.record(stream))
    }

    /// What was seen since the last call, or the beginning. Call it while no step runs; the step
    /// after it has no gap to the one before.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn take(&self) -> Result<StepTimes, Error> {
        let mut state = self.lock();
        if let Some(last) = state.unread.back() {
            last.end.wait()?;
        }
        while !state.unread.is_empty() {
            state.read_oldest()?;
        }
        Ok(std::mem::take(&mut state.times))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The oldest step, which is done, and so is the start of the one after it.
    fn read_oldest(&mut self) -> Result<(), Error> {
        let Some(oldest) = self.unread.pop_front() else { return Ok(()) };
        self.times.busy += oldest.end.seconds_since(&oldest.start)?;
        if let Some(next) = self.unread.front() {
            self.times.gaps.push(next.start.seconds_since(&oldest.end)?);
        }
        self.unused.push(oldest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use minisgl_kernels::Device;

    use super::*;

    #[test]
    fn there_is_a_gap_between_any_two_steps_of_a_series() {
        let stream = Device::cpu(NonZeroUsize::MIN).unwrap().new_stream().unwrap();
        let clock = StepClock::default();
        assert_eq!(clock.take().unwrap(), StepTimes::default());
        for num_steps in [1, 3, UNREAD, UNREAD + 1, 3 * UNREAD] {
            for _ in 0..num_steps {
                clock.start(&stream).unwrap();
                clock.end(&stream).unwrap();
            }
            let times = clock.take().unwrap();
            assert_eq!(times.gaps.len(), num_steps - 1);
            assert!(times.gaps.iter().all(|gap| *gap >= 0.0) && times.busy >= 0.0, "{times:?}");
            assert_eq!(clock.take().unwrap(), StepTimes::default());
        }
        // However many steps there were, few marks are made.
        assert_eq!(clock.lock().unused.len(), UNREAD);
    }
}
