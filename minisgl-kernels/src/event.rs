//! Marks in a stream's work, to ask and wait for.
//!
//! Never knows: what was queued before the mark.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::cuda::CudaEvent;
use crate::{Device, Error, Stream};

/// A mark that a stream passes when everything queued before it is done. It can be recorded again
/// and again; the last record counts.
///
/// On the CPU work is done when it is queued, so the mark is passed when it is recorded.
#[derive(Debug)]
pub struct Event {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// When it was recorded.
    Cpu(Mutex<Option<Instant>>),
    Cuda(CudaEvent),
}

impl Event {
    /// A mark that is nowhere yet, which counts as passed.
    ///
    /// # Errors
    /// Errors of the device. None on the CPU.
    pub fn new(device: &Device) -> Result<Self, Error> {
        Self::with_timing(device, false)
    }

    /// As [`Event::new`], for [`Event::seconds_since`].
    ///
    /// # Errors
    /// Errors of the device. None on the CPU.
    pub fn timed(device: &Device) -> Result<Self, Error> {
        Self::with_timing(device, true)
    }

    fn with_timing(device: &Device, timed: bool) -> Result<Self, Error> {
        let kind = match device {
            Device::Cpu(_) => Kind::Cpu(Mutex::default()),
            Device::Cuda(device) => Kind::Cuda(CudaEvent::new(device, timed)?),
        };
        Ok(Self { kind })
    }

    /// Puts the mark behind everything that is queued on `stream`, which must be of the event's
    /// device.
    ///
    /// # Errors
    /// [`Error::OtherDevice`] if it is of the other kind of device, and errors of the device.
    pub fn record(&self, stream: &Stream) -> Result<(), Error> {
        match (&self.kind, stream) {
            (Kind::Cpu(recorded), Stream::Cpu(_)) => {
                *recorded.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                Ok(())
            }
            (Kind::Cuda(event), Stream::Cuda(stream)) => event.record(stream),
            _ => Err(self.other_device(stream)),
        }
    }

    /// Whether the stream has passed the mark.
    ///
    /// # Errors
    /// Errors of the device, also those of the work before the mark.
    pub fn is_done(&self) -> Result<bool, Error> {
        match &self.kind {
            Kind::Cpu(_) => Ok(true),
            Kind::Cuda(event) => event.is_done(),
        }
    }

    /// Waits until the stream has passed the mark.
    ///
    /// # Errors
    /// Errors of the device, also those of the work before the mark.
    pub fn wait(&self) -> Result<(), Error> {
        match &self.kind {
            Kind::Cpu(_) => Ok(()),
            Kind::Cuda(event) => event.wait(),
        }
    }

    /// Makes what is queued on `stream` from now on wait for the mark, without the host waiting.
    ///
    /// # Errors
    /// [`Error::OtherDevice`] if it is of the other kind of device, and errors of the device.
    pub fn hold(&self, stream: &Stream) -> Result<(), Error> {
        match (&self.kind, stream) {
            (Kind::Cpu(_), Stream::Cpu(_)) => Ok(()),
            (Kind::Cuda(event), Stream::Cuda(stream)) => event.hold(stream),
            _ => Err(self.other_device(stream)),
        }
    }

    /// Seconds between the passing of the two marks, both [`timed`](Event::timed) and passed.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if one was never recorded or they are of different kinds of devices,
    /// and errors of the device.
    pub fn seconds_since(&self, earlier: &Self) -> Result<f64, Error> {
        match (&self.kind, &earlier.kind) {
            (Kind::Cuda(end), Kind::Cuda(start)) => end.seconds_since(start),
            (Kind::Cpu(end), Kind::Cpu(start)) => {
                let time = |mark: &Mutex<Option<Instant>>| {
                    *mark.lock().unwrap_or_else(PoisonError::into_inner)
                };
                match (time(start), time(end)) {
                    (Some(start), Some(end)) => Ok(end.duration_since(start).as_secs_f64()),
                    _ => Err(Error::Unavailable("an event was never recorded".to_owned())),
                }
            }
            _ => Err(Error::Unavailable("the events are of different devices".to_owned())),
        }
    }

    fn other_device(&self, stream: &Stream) -> Error {
        let got = match &self.kind {
            Kind::Cpu(_) => "the CPU",
            Kind::Cuda(_) => "a GPU",
        };
        let expected = stream.device().description();
        Error::OtherDevice { op: "event", argument: "event", got: got.to_owned(), expected }
    }
}
