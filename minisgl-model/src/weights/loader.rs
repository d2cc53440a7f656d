//! Cuts one rank's tensors out of a checkpoint, and collects everything that is wrong with it
//! before it says so. Knows names and ranges, not layers.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::Range;

use minisgl_kernels::convert::{CheckpointDType, copy_from_checkpoint};
use minisgl_kernels::{DType, Stream, Tensor, ViewMut};

use super::dummy;
use super::files::{FileDType, FileTensor, SafetensorsFiles};
use super::fp8::{self, Scales};
use crate::ModelError;

/// Where tensors come from.
#[derive(Debug)]
pub enum Source {
    /// A checkpoint.
    Files(SafetensorsFiles),
    /// Made up.
    Dummy,
}

/// Some rows of one named tensor.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its name in the checkpoint.
    pub name: String,
    /// Rows it must have there.
    pub num_rows: usize,
    /// Rows to take.
    pub rows: Range<usize>,
}

impl Part {
    /// Rows `rows` of `num_rows`.
    pub fn rows(name: String, num_rows: usize, rows: Range<usize>) -> Self {
        Self { name, num_rows, rows }
    }

    /// All of `num_rows` rows.
    pub fn all(name: String, num_rows: usize) -> Self {
        Self { name, num_rows, rows: 0..num_rows }
    }
}

/// Loads one rank's tensors.
pub struct Loader<'a> {
    source: &'a Source,
    stream: &'a Stream,
    dtype: DType,
    /// Called with the bytes of the checkpoint read, tensor by tensor.
    progress: &'a dyn Fn(u64),
    problems: RefCell<Vec<String>>,
    used: RefCell<BTreeSet<String>>,
    loaded_bytes: Cell<u64>,
}

impl<'a> Loader<'a> {
    /// Nothing loaded yet; tensors will be of `dtype`, on the stream's device.
    pub fn new(
        source: &'a Source,
        stream: &'a Stream,
        dtype: DType,
        progress: &'a dyn Fn(u64),
    ) -> Self {
        Self {
            source,
            stream,
            dtype,
            progress,
            problems: RefCell::default(),
            used: RefCell::default(),
            loaded_bytes: Cell::new(0),
        }
    }

    /// The parts one below the other, each `[num_rows, num_columns]` in the checkpoint, cut to
    /// `columns`.
    ///
    /// # Errors
    /// Of the device only; what is wrong with the checkpoint is reported by [`Loader::finish`].
    pub fn matrix(
        &self,
        parts: &[Part],
        num_columns: usize,
        columns: Range<usize>,
    ) -> Result<Tensor, ModelError> {
        let total_rows: usize = parts.iter().map(|part| part.rows.len()).sum();
        let shape = [total_rows, columns.len()];
        let mut tensor = self.stream.device().zeros(self.dtype, shape)?;
        let mut first_row = 0;
        for part in parts {
            let rows = first_row..first_row + part.rows.len();
            let target = tensor.view_mut().rows(rows.clone())?;
            self.copy(part, Some(num_columns), columns.clone(), target)?;
            first_row = rows.end;
        }
        Ok(tensor)
    }

    /// The parts one after the other, each `[num_rows]` in the checkpoint.
    ///
    /// # Errors
    /// Of the device only, as for [`Loader::matrix`].
    pub fn vector(&self, parts: &[Part]) -> Result<Tensor, ModelError> {
        let total: usize = parts.iter().map(|part| part.rows.len()).sum();
        let mut tensor = self.stream.device().zeros(self.dtype, [total])?;
        let mut first = 0;
        for part in parts {
            let range = first..first + part.rows.len();
            let target = tensor.view_mut().rows(range.clone())?;
            let target = target.reshape([range.len(), 1])?;
            self.copy(part, None, 0..1, target)?;
            first = range.end;
        }
        Ok(tensor)
    }

    /// Bytes of the tensors loaded, on the device.
    pub fn loaded_bytes(&self) -> u64 {
        self.loaded_bytes.get()
    }

    /// The names of the checkpoint's tensors that were not asked for.
    ///
    /// # Errors
    /// [`ModelError::Weights`] with every tensor that was missing or misshapen.
    pub fn finish(self) -> Result<Vec<String>, ModelError> {
        let problems = self.problems.into_inner();
        if !problems.is_empty() {
            return Err(ModelError::Weights { problems });
        }
        let used = self.used.into_inner();
        Ok(match self.source {
            Source::Dummy => Vec::new(),
            Source::Files(files) => {
                files.names().filter(|name| !used.contains(*name)).map(str::to_owned).collect()
            }
        })
    }

    /// Fills `target`, `[rows, columns]`, with a part; a vector has no `num_columns`.
    fn copy(
        &self,
        part: &Part,
        num_columns: Option<usize>,
        columns: Range<usize>,
        mut target: ViewMut<'_>,
    ) -> Result<(), ModelError> {
        let width = num_columns.unwrap_or(1);
        self.used.borrow_mut().insert(part.name.clone());
        let bytes = target.num_elements() * self.dtype.size_bytes();
        self.loaded_bytes.set(self.loaded_bytes.get() + bytes as u64);
        let files = match self.source {
            Source::Files(files) => files,
            Source::Dummy => {
                for (index, row) in part.rows.clone().enumerate() {
                    let values = dummy::row(&part.name, row, width, columns.clone());
                    let bytes: Vec<u8> =
                        values.iter().flat_map(|value| value.to_le_bytes()).collect();
                    let target = target.reborrow().rows(index..index + 1)?;
                    copy_from_checkpoint(self.stream, &bytes, CheckpointDType::F32, target)?;
                }
                return Ok(());
            }
        };
        let (tensor, scales) = match self.checked(files, part, num_columns) {
            Ok(found) => found,
            Err(problem) => {
                self.problems.borrow_mut().push(problem);
                return Ok(());
            }
        };
        if !self.problems.borrow().is_empty() {
            return Ok(()); // Only looking for more problems.
        }
        let element = match tensor.dtype {
            FileDType::Plain(dtype) => dtype.size_bytes(),
            FileDType::Fp8 | FileDType::Other => 1,
        };
        let row_bytes = width * element;
        match tensor.dtype {
            FileDType::Plain(dtype) if columns.len() == width => {
                let source = &tensor.bytes[part.rows.start * row_bytes..part.rows.end * row_bytes];
                copy_from_checkpoint(self.stream, source, dtype, target)?;
            }
            _ => {
                for (index, row) in part.rows.clone().enumerate() {
                    let start = row * row_bytes + columns.start * element;
                    let source = &tensor.bytes[start..start + columns.len() * element];
                    let target = target.reborrow().rows(index..index + 1)?;
                    match (tensor.dtype, &scales) {
                        (FileDType::Plain(dtype), _) => {
                            copy_from_checkpoint(self.stream, source, dtype, target)?;
                        }
                        (_, scales) => {
                            let scale = |column| {
                                scales.as_ref().map_or(1.0, |s| s.of(row, columns.start + column))
                            };
                            let bytes = fp8::to_f32_bytes(source, scale);
                            copy_from_checkpoint(
                                self.stream,
                                &bytes,
                                CheckpointDType::F32,
                                target,
                            )?;
                        }
                    }
                }
            }
        }
        (self.progress)((part.rows.len() * columns.len() * element) as u64);
        Ok(())
    }

    /// The tensor, if it is what `part` says, with its scales if it is quantized.
    fn checked<'f>(
        &self,
        files: &'f SafetensorsFiles,
        part: &Part,
        num_columns: Option<usize>,
    ) -> Result<(FileTensor<'f>, Option<Scales>), String> {
        let name = &part.name;
        let Some(tensor) = files.get(name) else { return Err(format!("{name} is missing")) };
        let expected: Vec<usize> = std::iter::once(part.num_rows).chain(num_columns).collect();
        if tensor.shape != expected {
            return Err(format!("{name} has shape {:?}, expected {expected:?}", tensor.shape));
        }
        match tensor.dtype {
            FileDType::Plain(_) => Ok((tensor, None)),
            FileDType::Fp8 => {
                let (scales, used) = Scales::find(files, name, tensor.shape)?;
                self.used.borrow_mut().insert(used);
                Ok((tensor, Some(scales)))
            }
            FileDType::Other => Err(format!("{name} is not of float32, float16, bfloat16 or fp8")),
        }
    }
}
