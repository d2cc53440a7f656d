//! A small array of every rank, and its exchange. Knows collectives, not what the values mean.

use minisgl_comm::Communicator;
use minisgl_kernels::{DType, Device, Error, Stream, Tensor, View, ViewMut};

use crate::ModelError;

/// Up to `capacity` elements of this rank, with room for those of all ranks.
#[derive(Debug)]
pub(super) struct Column {
    local: Tensor,
    all: Tensor,
}

impl Column {
    pub(super) fn new(
        device: &Device,
        dtype: DType,
        capacity: usize,
        world_size: usize,
    ) -> Result<Self, Error> {
        // A single rank's elements are all there are.
        let others = if world_size == 1 { 0 } else { world_size * capacity };
        Ok(Self { local: device.zeros(dtype, [capacity])?, all: device.zeros(dtype, [others])? })
    }

    /// This rank's first `len` elements, to be written.
    pub(super) fn local(&mut self, len: usize) -> Result<ViewMut<'_>, Error> {
        self.local.view_mut().rows(0..len)
    }

    /// The first `len` elements of all ranks, `[world_size, len]`.
    pub(super) fn gather(
        &mut self,
        stream: &Stream,
        comm: &dyn Communicator,
        len: usize,
    ) -> Result<View<'_>, ModelError> {
        let world_size = comm.world_size();
        if world_size > 1 {
            let input = self.local.view().rows(0..len)?;
            let output = self.all.view_mut().rows(0..world_size * len)?;
            comm.all_gather(stream, input, output.reshape([world_size, len])?)?;
        }
        Ok(self.gathered(world_size, len)?)
    }

    /// What was gathered last.
    pub(super) fn gathered(&self, world_size: usize, len: usize) -> Result<View<'_>, Error> {
        let all = if world_size == 1 { &self.local } else { &self.all };
        all.view().rows(0..world_size * len)?.reshape([world_size, len])
    }
}
