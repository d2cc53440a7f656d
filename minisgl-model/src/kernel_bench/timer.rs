//! How long an operation takes. Never knows which one.

use minisgl_kernels::{Device, Error, Event, Stream};

/// The median of so many rounds counts.
const ROUNDS: usize = 5;
/// Repetitions in a round.
const MAX_REPETITIONS: f64 = 10_000.0;

/// Times what is queued on a stream by two events: nothing else may be queued meanwhile.
pub(super) struct Timer {
    start: Event,
    end: Event,
    round_seconds: f64,
}

impl Timer {
    /// `round_seconds`: about how long a round of repetitions takes; at least one repetition.
    pub(super) fn new(stream: &Stream, round_seconds: f64) -> Result<Self, Error> {
        let device = stream.device();
        Ok(Self { start: Event::timed(device)?, end: Event::timed(device)?, round_seconds })
    }

    /// Seconds of one call of `call`, which hears how many calls there were before: on a GPU as one of
    /// `calls` in a captured graph, so that no time of the host is in it. A CPU has no graphs and
    /// simply calls.
    pub(super) fn in_graph(
        &self,
        stream: &Stream,
        calls: usize,
        mut call: impl FnMut(&Stream, usize) -> Result<(), Error> + Send,
    ) -> Result<f64, Error> {
        if let Device::Cpu(_) = stream.device() {
            return self.as_is(stream, call);
        }
        // Once outside of the graph: libraries choose their kernels at the first call.
        call(stream, 0)?;
        stream.synchronize()?;
        let (graph, ()) =
            stream.capture(|| (0..calls).try_for_each(|number| call(stream, number)))?;
        // It is gone before what `call` holds, which it names.
        let seconds = self.as_is(stream, move |stream, _| graph.launch(stream))?;
        Ok(seconds / calls as f64)
    }

    /// As [`Timer::in_graph`], launched one by one: for what takes much longer than its launch.
    pub(super) fn as_is(
        &self,
        stream: &Stream,
        mut call: impl FnMut(&Stream, usize) -> Result<(), Error> + Send,
    ) -> Result<f64, Error> {
        // On the CPU inside the device's own threads, as a step of a model is.
        stream.run(|| {
            let mut number = 0;
            let mut round = |repetitions: usize| {
                self.start.record(stream)?;
                for _ in 0..repetitions {
                    call(stream, number)?;
                    number += 1;
                }
                self.end.record(stream)?;
                self.end.wait()?;
                Ok::<f64, Error>(self.end.seconds_since(&self.start)? / repetitions as f64)
            };
            round(1)?;
            let repetitions = (self.round_seconds / round(1)?).clamp(1.0, MAX_REPETITIONS) as usize;
            let mut seconds = [0.0; ROUNDS];
            for seconds in &mut seconds {
                *seconds = round(repetitions)?;
            }
            seconds.sort_by(f64::total_cmp);
            Ok(seconds[ROUNDS / 2])
        })
    }
}
