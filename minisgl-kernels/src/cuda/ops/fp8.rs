//! Rounding rows to 8-bit floats.
//!
//! Never knows: what is multiplied with them.

use crate::cuda::call::{Call, code};
use crate::cuda::stream::CudaStream;
use crate::{Error, View, ViewMut};

pub(crate) fn quantize_rows(
    stream: &CudaStream,
    x: View<'_>,
    mut out: ViewMut<'_>,
    mut scales: ViewMut<'_>,
) -> Result<(), Error> {
    let call = Call::new("quantize_rows", stream)?;
    let (rows, target) = (call.rows("x", x)?, call.rows_mut("out", &mut out)?);
    let scales = call.elements_mut("scales", &mut scales)?;
    if rows.rows == 0 {
        return Ok(());
    }
    let quantize = call.functions().msgl_quantize_rows;
    // SAFETY: the op has checked the shapes.
    call.done(unsafe { quantize(code(x.dtype()), rows, target, scales, call.stream()) })
}
