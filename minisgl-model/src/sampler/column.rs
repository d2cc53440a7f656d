//! A small array of every rank, and its exchange. Knows collectives, not what the values mean.

use std::marker::PhantomData;

use minisgl_comm::Communicator;
use minisgl_kernels::{Device, Error, HostElement, Stream, Tensor, ViewMut};

use crate::ModelError;

/// Up to `capacity` elements of this rank, with room for those of all ranks.
#[derive(Debug)]
pub(super) struct Column<T> {
    local: Tensor,
    all: Tensor,
    element: PhantomData<T>,
}

impl<T: HostElement + Default> Column<T> {
    pub(super) fn new(device: &Device, capacity: usize, world_size: usize) -> Result<Self, Error> {
        Ok(Self {
            local: device.zeros(T::DTYPE, [capacity])?,
            all: device.zeros(T::DTYPE, [world_size * capacity])?,
            element: PhantomData,
        })
    }

    /// This rank's first `len` elements, to be written.
    pub(super) fn local(&mut self, len: usize) -> Result<ViewMut<'_>, Error> {
        self.local.view_mut().rows(0..len)
    }

    /// The first `len` elements of all ranks, rank by rank.
    pub(super) fn gather(
        &mut self,
        stream: &Stream,
        comm: &dyn Communicator,
        len: usize,
    ) -> Result<Vec<T>, ModelError> {
        let world_size = comm.world_size();
        let input = self.local.view().rows(0..len)?;
        let output = self.all.view_mut().rows(0..world_size * len)?;
        comm.all_gather(stream, input, output.reshape([world_size, len])?)?;
        let mut gathered = vec![T::default(); world_size * len];
        stream.download(self.all.view().rows(0..world_size * len)?, &mut gathered)?;
        Ok(gathered)
    }
}

impl Column<f32> {
    /// The first `len` elements, summed over all ranks.
    pub(super) fn sum_of_ranks(
        &mut self,
        stream: &Stream,
        comm: &dyn Communicator,
        len: usize,
    ) -> Result<Vec<f32>, ModelError> {
        comm.all_reduce(stream, self.local.view_mut().rows(0..len)?)?;
        let mut sums = vec![0.0; len];
        stream.download(self.local.view().rows(0..len)?, &mut sums)?;
        Ok(sums)
    }
}
