//! A group of one rank.
//!
//! Never knows: other ranks. It checks what a larger group would check, so that code which runs on
//! one rank runs on several.

use std::sync::Arc;

use minisgl_kernels::{Stream, View, ViewMut, ops};

use crate::call::Call;
use crate::rendezvous::Rendezvous;
use crate::{AbortHandle, CommError, Communicator};

/// The only rank of a group of one: sums, broadcasts and barriers have nothing to do, and a gather
/// copies.
pub struct SingleRank {
    rendezvous: Arc<Rendezvous>,
}

impl SingleRank {
    /// A group of one.
    pub fn new() -> Self {
        Self { rendezvous: Arc::new(Rendezvous::new(1, 0)) }
    }

    /// Aborts this group from anywhere.
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle::new(self.rendezvous.clone())
    }

    /// Meets nobody, but learns of an abort; a call with wrong arguments is one, as in any group.
    fn meet(&self, call: Result<Call, CommError>) -> Result<(), CommError> {
        let met = call.and_then(|call| self.rendezvous.meet(0, call));
        self.rendezvous.abort_on_error(0, met)
    }
}

impl Default for SingleRank {
    fn default() -> Self {
        Self::new()
    }
}

impl Communicator for SingleRank {
    fn rank(&self) -> usize {
        0
    }

    fn world_size(&self) -> usize {
        1
    }

    fn all_reduce(&self, _stream: &Stream, data: ViewMut<'_>) -> Result<(), CommError> {
        self.meet(Call::all_reduce(data.as_view()))
    }

    fn all_gather(
        &self,
        stream: &Stream,
        input: View<'_>,
        output: ViewMut<'_>,
    ) -> Result<(), CommError> {
        self.meet(Call::all_gather(input, output.as_view(), 1))?;
        let copied = output
            .reshape(input.shape())
            .and_then(|output| ops::copy(stream, input, output))
            .map_err(CommError::from);
        self.rendezvous.abort_on_error(0, copied)
    }

    fn broadcast(&self, _stream: &Stream, data: ViewMut<'_>, root: usize) -> Result<(), CommError> {
        self.meet(Call::broadcast(data.as_view(), root, 1))
    }

    fn barrier(&self) -> Result<(), CommError> {
        self.meet(Ok(Call::Barrier))
    }

    fn check(&self) -> Result<(), CommError> {
        self.rendezvous.check()
    }

    fn abort(&self, reason: &str) {
        self.rendezvous.abort(reason);
    }
}
