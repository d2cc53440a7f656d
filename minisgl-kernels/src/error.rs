//! What can go wrong in this crate.

use std::path::PathBuf;

use crate::{DType, Shape};

/// Every error of this crate. An op that returns one has not touched its outputs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument has the wrong element type.
    #[error("{op}: {argument} has dtype {got}, expected {expected}")]
    DType {
        /// The op that was called.
        op: &'static str,
        /// The name of its argument.
        argument: &'static str,
        /// The dtype it came with.
        got: DType,
        /// The dtype, or dtypes, it may have.
        expected: &'static str,
    },
    /// An argument has the wrong number of dimensions.
    #[error("{op}: {argument} has shape {got}, expected {expected} dimensions")]
    Rank {
        /// The op that was called.
        op: &'static str,
        /// The name of its argument.
        argument: &'static str,
        /// The shape it came with.
        got: Shape,
        /// The number of dimensions it must have.
        expected: usize,
    },
    /// An argument's shape does not fit the other arguments.
    #[error("{op}: {argument} has shape {got}, expected {expected}")]
    Shape {
        /// The op that was called.
        op: &'static str,
        /// The name of its argument.
        argument: &'static str,
        /// The shape it came with.
        got: Shape,
        /// The shape the other arguments ask for.
        expected: Shape,
    },
    /// An argument's rows are not contiguous: only the outermost dimension may be strided.
    #[error("{op}: {argument} has gaps inside its rows (shape {shape}, strides {strides:?})")]
    Layout {
        /// The op that was called.
        op: &'static str,
        /// The name of its argument.
        argument: &'static str,
        /// The shape it came with.
        shape: Shape,
        /// The strides it came with, in elements.
        strides: Vec<usize>,
    },
    /// An element of an index table points outside what it indexes.
    #[error("{op}: {argument}[{position}] is {value}, allowed is {min}..{max}")]
    Index {
        /// The op that was called.
        op: &'static str,
        /// The name of the index table.
        argument: &'static str,
        /// Where in the table, counted in elements, row by row.
        position: usize,
        /// The value found there.
        value: i64,
        /// The smallest value allowed.
        min: i64,
        /// One more than the largest value allowed.
        max: i64,
    },
    /// A scalar parameter is outside its domain.
    #[error("{op}: {parameter} is {value}, allowed is {allowed}")]
    Parameter {
        /// The op that was called.
        op: &'static str,
        /// The name of the parameter.
        parameter: &'static str,
        /// Its value, printed.
        value: String,
        /// The domain, in words.
        allowed: &'static str,
    },
    /// A slice of host memory has another length than the view it is copied from or to.
    #[error("{op}: the host slice has {got} {unit}, the view needs {expected}")]
    Length {
        /// The function that was called.
        op: &'static str,
        /// Length of the host slice.
        got: usize,
        /// Length the view asks for.
        expected: usize,
        /// What both are counted in: `"elements"` or `"bytes"`.
        unit: &'static str,
    },
    /// A range of rows or columns is not inside the view.
    #[error("range {start}..{end} is not inside dimension {axis} of shape {shape}")]
    Range {
        /// The dimension that was sliced.
        axis: usize,
        /// First index of the range.
        start: usize,
        /// One more than its last index.
        end: usize,
        /// The shape of the view.
        shape: Shape,
    },
    /// A view cannot be seen with another shape without moving elements.
    #[error("a view of shape {from} and strides {strides:?} cannot be reshaped to {to}")]
    Reshape {
        /// The shape it has.
        from: Shape,
        /// The strides it has, in elements.
        strides: Vec<usize>,
        /// The shape that was asked for.
        to: Shape,
    },
    /// The number of elements or bytes of a shape does not fit in a `usize`.
    #[error("shape {shape} is too large to address")]
    ShapeOverflow {
        /// The shape.
        shape: Shape,
    },
    /// The operating system refused memory.
    #[error("cannot allocate {bytes} bytes")]
    OutOfMemory {
        /// How much was asked for.
        bytes: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// The device's worker threads could not be started.
    #[error("cannot start {num_threads} worker threads")]
    Threads {
        /// How many were asked for.
        num_threads: usize,
        /// Why not.
        source: std::io::Error,
    },
    /// A file could not be opened, mapped or read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A call to the driver or to a library of a GPU failed.
    #[error("{call}: {message}")]
    Device {
        /// The op or call.
        call: &'static str,
        /// What the driver or library said.
        message: String,
    },
    /// An argument's memory is not that of the stream's device.
    #[error("{op}: {argument} is memory of {got}, the stream is of {expected}")]
    OtherDevice {
        /// The op that was called.
        op: &'static str,
        /// The name of its argument.
        argument: &'static str,
        /// The device that holds it.
        got: String,
        /// The device of the stream.
        expected: String,
    },
    /// This machine or this build cannot do what was asked; the text says what is missing and how
    /// to get it.
    #[error("{0}")]
    Unavailable(String),
}
