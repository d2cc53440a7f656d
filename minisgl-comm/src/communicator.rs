//! The contract between a rank and its group.
//!
//! Never knows: how ranks reach each other.

use minisgl_kernels::{Stream, View, ViewMut, ops};

use crate::CommError;

/// One rank's end of a group.
///
/// All ranks of a group make the same calls in the same order, with the same dtypes, shapes and
/// roots; strides may differ. A collective returns when this rank's part is done; the others may
/// still be at theirs. Collectives are ordered with the other work on `stream`.
///
/// # Errors
/// A call that returns an error has aborted the group: from then on every call on every rank
/// returns [`CommError::Aborted`] with the first reason. That goes for wrong arguments too, since
/// the other ranks are already waiting for this one. After an error the contents of the arrays
/// that the call was to write are unspecified.
pub trait Communicator: Send {
    /// This rank's number, in `0..world_size`.
    fn rank(&self) -> usize;

    /// The number of ranks in the group.
    fn world_size(&self) -> usize;

    /// Replaces `data` on every rank by the sum over all ranks.
    ///
    /// - `data`: any shape, f32 or bf16; the outermost dimension may be strided. Changed in place.
    ///
    /// Elements are added in f32 in the order of the ranks and rounded once, so all ranks get the
    /// same bits in every run.
    ///
    /// # Errors
    /// [`CommError::DType`] for another dtype, [`CommError::Kernel`] for another layout, and
    /// [`CommError::Aborted`].
    fn all_reduce(&self, stream: &Stream, data: ViewMut<'_>) -> Result<(), CommError>;

    /// The sum of `x` over the ranks is added to `residual`, and what is there then goes to `x`,
    /// normalized: [`Communicator::all_reduce`] and [`ops::add_rms_norm`], which may be one kernel.
    ///
    /// # Errors
    /// Those of both.
    fn all_reduce_add_rms_norm(
        &self,
        stream: &Stream,
        x: ViewMut<'_>,
        residual: ViewMut<'_>,
        weight: View<'_>,
        eps: f32,
    ) -> Result<(), CommError> {
        sum_then_norm(self, stream, x, residual, weight, eps)
    }

    /// Collects every rank's `input` on every rank.
    ///
    /// - `input`: up to three dimensions, any dtype; the outermost dimension may be strided.
    /// - `output`: `[world_size, ..input's shape]`, contiguous: the inputs in the order of the ranks.
    ///
    /// # Errors
    /// [`CommError::GatherShape`] or [`CommError::DType`] if the output does not fit the input,
    /// [`CommError::Kernel`] for another layout, and [`CommError::Aborted`].
    fn all_gather(
        &self,
        stream: &Stream,
        input: View<'_>,
        output: ViewMut<'_>,
    ) -> Result<(), CommError>;

    /// Replaces `data` on every rank by that of rank `root`.
    ///
    /// - `data`: any shape and dtype; the outermost dimension may be strided. Changed in place.
    ///
    /// # Errors
    /// [`CommError::Root`] if there is no such rank, [`CommError::Kernel`] for another layout, and
    /// [`CommError::Aborted`].
    fn broadcast(&self, stream: &Stream, data: ViewMut<'_>, root: usize) -> Result<(), CommError>;

    /// Waits until every rank of the group has called this.
    ///
    /// # Errors
    /// [`CommError::Aborted`].
    fn barrier(&self) -> Result<(), CommError>;

    /// Finds out, where there are several ways to sum, which of them is the fastest at which size, and
    /// takes that one from then on: to be called once, on every rank, before any graph is captured.
    /// Returns what was found, for people to read; `None` if there is no choice.
    ///
    /// # Errors
    /// [`CommError::Aborted`], [`CommError::Kernel`].
    fn measure(&mut self, stream: &Stream) -> Result<Option<String>, CommError> {
        let _ = stream;
        Ok(None)
    }

    /// Whether the group is still whole. On a GPU collectives are only queued, and those of an aborted
    /// group end with anything in their arrays: what they computed is good if this is asked after
    /// they are done, and finds no fault.
    ///
    /// # Errors
    /// [`CommError::Aborted`].
    fn check(&self) -> Result<(), CommError>;

    /// Makes every call that waits now, and every later one, on any rank of the group, fail with
    /// [`CommError::Aborted`]. If the group has been aborted before, the first reason stays.
    fn abort(&self, reason: &str);
}

/// [`Communicator::all_reduce_add_rms_norm`] in two steps.
pub(crate) fn sum_then_norm(
    comm: &(impl Communicator + ?Sized),
    stream: &Stream,
    mut x: ViewMut<'_>,
    residual: ViewMut<'_>,
    weight: View<'_>,
    eps: f32,
) -> Result<(), CommError> {
    comm.all_reduce(stream, x.reborrow())?;
    ops::add_rms_norm(stream, x, residual, weight, eps).map_err(|error| {
        comm.abort(&format!("rank {}: {error}", comm.rank()));
        error.into()
    })
}
