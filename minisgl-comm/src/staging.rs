//! Memory through which ranks hand each other data.
//!
//! Never knows: whose turn it is to read or write; see `threads` for that.

use minisgl_kernels::{DType, Device, Error, Tensor, View, ViewMut};

/// Room for one block, per dtype. It belongs to the group and not to a rank, so it stays valid for
/// the others whatever becomes of the rank that filled it.
#[derive(Default)]
pub(crate) struct Staging {
    // At most one of each dtype.
    tensors: Vec<Tensor>,
}

impl Staging {
    /// A matrix to write to. Grows to the largest asked for so far, rounded up.
    pub(crate) fn room(
        &mut self,
        device: &Device,
        dtype: DType,
        dims: [usize; 2],
    ) -> Result<ViewMut<'_>, Error> {
        let len = dims[0] * dims[1];
        let index = match self.tensors.iter().position(|tensor| tensor.dtype() == dtype) {
            Some(index) => index,
            None => {
                self.tensors.push(device.zeros(dtype, [0])?);
                self.tensors.len() - 1
            }
        };
        let tensor = &mut self.tensors[index];
        if tensor.num_elements() < len {
            *tensor = device.zeros(dtype, [len.next_power_of_two()])?;
        }
        tensor.view_mut().columns(0..len)?.reshape(dims)
    }

    /// The matrix that was written last: of the same dtype and dimensions as the room for it was.
    pub(crate) fn filled(&self, dtype: DType, dims: [usize; 2]) -> Result<View<'_>, Error> {
        let tensor = self.tensors.iter().find(|tensor| tensor.dtype() == dtype);
        let tensor = tensor.expect("ranks that met for a call have filled their staging for it");
        tensor.view().columns(0..dims[0] * dims[1])?.reshape(dims)
    }
}
