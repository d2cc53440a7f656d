//! Matrices that are 8-bit floats in the checkpoint, as they are there: nothing is rounded again.
//! Knows scales per row or per matrix; those of blocks are widened with the weights.

use std::ops::Range;

use minisgl_kernels::{DType, F8E4M3, Tensor};

use super::{BLOCK_ROWS, Encoding, Found, Loader, Part, Source};
use crate::ModelError;
use crate::config::Fp8Config;

/// A matrix of 8-bit floats with a scale for each row.
pub struct Fp8Matrix {
    /// `[rows, columns]` f8_e4m3
    pub values: Tensor,
    /// `[rows]` f32
    pub scales: Tensor,
}

impl Loader<'_> {
    /// The parts as [`Loader::matrix`] has them, if the checkpoint has all of them as 8-bit floats with
    /// scales that rows share. If it has not, or if anything is wrong with it (which `matrix` tells),
    /// `None`.
    ///
    /// # Errors
    /// Of the device, or what the listener of the progress returns.
    pub fn fp8_matrix(
        &self,
        parts: &[Part],
        num_columns: usize,
        columns: Range<usize>,
    ) -> Result<Option<Fp8Matrix>, ModelError> {
        let (Source::Files(files), Some(Fp8Config { block: None })) = (self.source, self.fp8.get())
        else {
            return Ok(None);
        };
        let found = parts.iter().map(|part| self.find(files, part, Some(num_columns)));
        let Ok(found) = found.collect::<Result<Vec<_>, _>>() else { return Ok(None) };
        let is_fp8 = |found: &Found<'_>| matches!(found.encoding, Encoding::Fp8(_));
        if !found.iter().all(is_fp8) {
            return Ok(None);
        }
        let num_rows: usize = parts.iter().map(|part| part.rows.len()).sum();
        let device = self.stream.device();
        let mut values = device.zeros(DType::F8E4M3, [num_rows, columns.len()])?;
        let mut scales = Vec::with_capacity(num_rows);
        for (part, Found { tensor, encoding }) in parts.iter().zip(&found) {
            let Encoding::Fp8(of_part) = encoding else { continue };
            self.used.borrow_mut().insert(part.name.clone());
            for first in part.rows.clone().step_by(BLOCK_ROWS) {
                let rows = first..part.rows.end.min(first + BLOCK_ROWS);
                let row = |row: usize| &tensor.bytes[row * num_columns..][columns.clone()];
                let block: Vec<F8E4M3> =
                    rows.clone().flat_map(row).map(|bits| F8E4M3::from_bits(*bits)).collect();
                let at = scales.len()..scales.len() + rows.len();
                self.stream.upload(&block, values.view_mut().rows(at)?)?;
                scales.extend(rows.map(|row| of_part.of(row, 0)));
            }
            let bytes = (part.rows.len() * columns.len()) as u64;
            self.loaded_bytes.set(self.loaded_bytes.get() + bytes);
            (self.progress)(bytes)?;
        }
        Ok(Some(Fp8Matrix { values, scales: Tensor::from_slice(device, [num_rows], &scales)? }))
    }
}
