//! Work that was recorded once and is launched as a whole.
//!
//! Never knows: what was recorded.

use std::fmt;

use cudarc::driver::{result, sys};

use super::device::failed;
use super::stream::CudaStream;
use crate::Error;

/// A captured and instantiated graph.
pub(crate) struct CudaGraph {
    executable: sys::CUgraphExec,
    /// Whose scratch memory the graph uses.
    stream: CudaStream,
}

// SAFETY: the driver's handle may be used from every thread, by one at a time: launches of the
// same graph are queued one after the other by the driver.
unsafe impl Send for CudaGraph {}

/// Ends a capture, also if the work in it panics.
struct Capture<'a> {
    stream: &'a CudaStream,
    ended: bool,
}

impl Capture<'_> {
    fn end(mut self) -> Result<Recorded, Error> {
        self.ended = true;
        self.stream.set_capturing(false);
        // SAFETY: the stream is live and was capturing.
        let graph = unsafe { result::stream::end_capture(self.stream.handle()) };
        let graph = graph.map_err(failed("capturing a graph"))?;
        Ok(Recorded(graph))
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.stream.set_capturing(false);
            // SAFETY: as in `end`.
            let graph = unsafe { result::stream::end_capture(self.stream.handle()) };
            drop(graph.map(Recorded));
        }
    }
}

/// A graph that is not instantiated; null if the capture failed.
struct Recorded(sys::CUgraph);

impl Drop for Recorded {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the capture made it, and nobody has it any more.
            let _ = unsafe { result::graph::destroy(self.0) };
        }
    }
}

/// Records what `work` queues on `stream`.
pub(crate) fn capture<R, E: From<Error>>(
    stream: &CudaStream,
    work: impl FnOnce() -> Result<R, E>,
) -> Result<(CudaGraph, R), E> {
    stream.device().make_current()?;
    stream.refuse_while_capturing("capturing a graph")?;
    let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    // SAFETY: the stream is live and not capturing.
    unsafe { result::stream::begin_capture(stream.handle(), mode) }
        .map_err(failed("capturing a graph"))?;
    stream.set_capturing(true);
    let capture = Capture { stream, ended: false };
    let result = work();
    // The work may have made another device current.
    stream.device().make_current()?;
    let recorded = capture.end();
    let result = result?;
    let recorded = recorded?;
    if recorded.0.is_null() {
        let message = "a call in it is not allowed while capturing".to_owned();
        return Err(Error::Device { call: "capturing a graph", message }.into());
    }
    let flags = sys::CUgraphInstantiate_flags(0);
    // SAFETY: the graph is a captured one.
    let executable = unsafe { result::graph::instantiate(recorded.0, flags) }
        .map_err(failed("instantiating a graph"))?;
    let graph = CudaGraph { executable, stream: stream.clone() };
    // SAFETY: both handles are live.
    unsafe { result::graph::upload(graph.executable, stream.handle()) }
        .map_err(failed("uploading a graph"))?;
    Ok((graph, result))
}

impl CudaGraph {
    pub(crate) fn launch(&self, stream: &CudaStream) -> Result<(), Error> {
        stream.device().make_current()?;
        stream.refuse_while_capturing("launching a graph")?;
        // SAFETY: both handles are live. The memory the graph uses is device memory, and its
        // owner's promise (see `Graph`) is that it still exists.
        unsafe { result::graph::launch(self.executable, stream.handle()) }
            .map_err(failed("launching a graph"))
    }
}

impl Drop for CudaGraph {
    fn drop(&mut self) {
        if self.stream.device().make_current().is_ok() {
            // The driver keeps the graph until its launches are done.
            // SAFETY: `capture` instantiated it, and nobody has it any more.
            let _ = unsafe { result::graph::exec_destroy(self.executable) };
        }
    }
}

impl fmt::Debug for CudaGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CudaGraph({:?})", self.stream)
    }
}
