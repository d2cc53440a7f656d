//! Marks in a stream's work.
//!
//! Never knows: what was queued before the mark.

use cudarc::driver::{result, sys};

use super::device::{CudaDevice, failed};
use super::stream::CudaStream;
use crate::Error;

/// A mark in the work of a stream.
#[derive(Debug)]
pub(crate) struct CudaEvent {
    raw: sys::CUevent,
    device: CudaDevice,
}

// SAFETY: the driver's handle may be used from every thread.
unsafe impl Send for CudaEvent {}
// SAFETY: as for Send.
unsafe impl Sync for CudaEvent {}

impl CudaEvent {
    pub(crate) fn new(device: &CudaDevice, timed: bool) -> Result<Self, Error> {
        device.make_current()?;
        let flags = if timed {
            sys::CUevent_flags::CU_EVENT_DEFAULT
        } else {
            sys::CUevent_flags::CU_EVENT_DISABLE_TIMING
        };
        let raw = result::event::create(flags).map_err(failed("creating an event"))?;
        Ok(Self { raw, device: device.clone() })
    }

    pub(crate) fn record(&self, stream: &CudaStream) -> Result<(), Error> {
        stream.device().make_current()?;
        // SAFETY: both handles live as long as their owners.
        unsafe { result::event::record(self.raw, stream.handle()) }
            .map_err(failed("recording an event"))
    }

    /// Whether the work before the mark is done. True before the first mark.
    pub(crate) fn is_done(&self) -> Result<bool, Error> {
        self.device.make_current()?;
        // SAFETY: the handle lives as long as `self`.
        match unsafe { result::event::query(self.raw) } {
            Ok(()) => Ok(true),
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            Err(error) => Err(failed("asking for an event")(error)),
        }
    }

    pub(crate) fn wait(&self) -> Result<(), Error> {
        self.device.make_current()?;
        // SAFETY: the handle lives as long as `self`.
        unsafe { result::event::synchronize(self.raw) }.map_err(failed("waiting for an event"))
    }

    /// Makes later work of `stream` wait for the mark.
    pub(crate) fn hold(&self, stream: &CudaStream) -> Result<(), Error> {
        stream.device().make_current()?;
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: both handles live as long as their owners.
        unsafe { result::stream::wait_event(stream.handle(), self.raw, flags) }
            .map_err(failed("waiting for an event in a stream"))
    }

    /// Seconds from the mark of `earlier` to this one, both of which must be done.
    pub(crate) fn seconds_since(&self, earlier: &Self) -> Result<f64, Error> {
        self.device.make_current()?;
        // SAFETY: both handles live as long as their owners.
        let milliseconds = unsafe { result::event::elapsed(earlier.raw, self.raw) };
        Ok(f64::from(milliseconds.map_err(failed("reading the time of an event"))?) / 1e3)
    }
}

impl Drop for CudaEvent {
    fn drop(&mut self) {
        if self.device.make_current().is_ok() {
            // SAFETY: `new` created it. The driver keeps what is still needed.
            let _ = unsafe { result::event::destroy(self.raw) };
        }
    }
}
