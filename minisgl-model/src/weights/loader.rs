//! Cuts one rank's tensors out of a checkpoint, and collects everything that is wrong with it
//! before it says so. Nothing is allocated for a tensor that is not what was asked for.
//! Knows names and ranges, not layers.

mod native;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::Range;

use minisgl_kernels::convert::{CheckpointDType, copy_from_checkpoint};
use minisgl_kernels::{DType, Stream, Tensor, ViewMut};

pub use self::native::Fp8Matrix;
use super::dummy;
use super::files::{FileDType, FileTensor, SafetensorsFiles};
use super::fp8::{self, Scales};
use crate::ModelError;
use crate::config::Fp8Config;

/// Rows that are cut out or widened from fp8 at a time: few enough that they stay in a cache, and
/// no whole tensor is ever held twice.
const BLOCK_ROWS: usize = 64;
/// Problems that are listed; a checkpoint of another model has one per tensor.
const MAX_PROBLEMS: usize = 100;

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
    /// Called with the bytes of the checkpoint read, tensor by tensor; its error ends the loading.
    progress: &'a dyn Fn(u64) -> Result<(), ModelError>,
    fp8: Cell<Option<Fp8Config>>,
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
        progress: &'a dyn Fn(u64) -> Result<(), ModelError>,
    ) -> Self {
        let problems = match source {
            Source::Files(files) => files.problems().to_vec(),
            Source::Dummy => Vec::new(),
        };
        Self {
            source,
            stream,
            dtype,
            progress,
            fp8: Cell::new(None),
            problems: RefCell::new(problems),
            used: RefCell::default(),
            loaded_bytes: Cell::new(0),
        }
    }

    /// Where tensors are loaded to.
    pub fn stream(&self) -> &Stream {
        self.stream
    }

    /// Lets tensors be quantized, as the checkpoint's config says; otherwise they may not be.
    pub fn expect_fp8(&self, fp8: Option<Fp8Config>) {
        self.fp8.set(fp8);
    }

    /// The parts one below the other, each `[num_rows, num_columns]` in the checkpoint, cut to
    /// `columns`.
    ///
    /// # Errors
    /// Of the device, or of `progress`; what is wrong with the checkpoint is reported by
    /// [`Loader::finish`].
    pub fn matrix(
        &self,
        parts: &[Part],
        num_columns: usize,
        columns: Range<usize>,
    ) -> Result<Tensor, ModelError> {
        let total_rows: usize = parts.iter().map(|part| part.rows.len()).sum();
        let fits = self.check(parts, Some(num_columns));
        let shape = if fits { [total_rows, columns.len()] } else { [0, columns.len()] };
        let mut tensor = self.stream.device().zeros(self.dtype, shape)?;
        if fits {
            let mut first_row = 0;
            for part in parts {
                let rows = first_row..first_row + part.rows.len();
                let target = tensor.view_mut().rows(rows.clone())?;
                self.copy(part, Some(num_columns), columns.clone(), target)?;
                first_row = rows.end;
            }
        }
        Ok(tensor)
    }

    /// The parts one after the other, each `[num_rows]` in the checkpoint.
    ///
    /// # Errors
    /// As for [`Loader::matrix`].
    pub fn vector(&self, parts: &[Part]) -> Result<Tensor, ModelError> {
        let total: usize = parts.iter().map(|part| part.rows.len()).sum();
        let fits = self.check(parts, None);
        let mut tensor = self.stream.device().zeros(self.dtype, [if fits { total } else { 0 }])?;
        if fits {
            let mut first = 0;
            for part in parts {
                let range = first..first + part.rows.len();
                let target = tensor.view_mut().rows(range.clone())?;
                let target = target.reshape([range.len(), 1])?;
                self.copy(part, None, 0..1, target)?;
                first = range.end;
            }
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
        let mut problems = self.problems.into_inner();
        if !problems.is_empty() {
            let more = problems.len().saturating_sub(MAX_PROBLEMS);
            problems.truncate(MAX_PROBLEMS);
            if more > 0 {
                problems.push(format!("and {more} more"));
            }
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

    /// Whether all parts, and all that was asked for before, are in the checkpoint as they should
    /// be. What is not is remembered, and after that one only looks for more of it.
    fn check(&self, parts: &[Part], num_columns: Option<usize>) -> bool {
        let mut problems = self.problems.borrow_mut();
        for part in parts {
            self.used.borrow_mut().insert(part.name.clone());
            if let Source::Files(files) = self.source {
                problems.extend(self.find(files, part, num_columns).err());
            }
        }
        problems.is_empty()
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
        let bytes = target.num_elements() * self.dtype.size_bytes();
        self.loaded_bytes.set(self.loaded_bytes.get() + bytes as u64);
        let found = match self.source {
            Source::Files(files) => self.find(files, part, num_columns),
            Source::Dummy => {
                self.make_up(part, width, columns, target)?;
                return (self.progress)(0);
            }
        };
        let Ok(Found { tensor, encoding }) = found else { return Ok(()) };
        let element = encoding.element_bytes();
        let row = |row: usize| {
            let start = (row * width + columns.start) * element;
            &tensor.bytes[start..start + columns.len() * element]
        };
        match encoding {
            Encoding::Plain(dtype) if columns.len() == width => {
                let source = part.rows.start * width * element..part.rows.end * width * element;
                copy_from_checkpoint(self.stream, &tensor.bytes[source], dtype, target)?;
            }
            _ => {
                let (decoder, mut block) = (fp8::Decoder::new(), Vec::new());
                for first in (0..part.rows.len()).step_by(BLOCK_ROWS) {
                    let rows = first..part.rows.len().min(first + BLOCK_ROWS);
                    block.clear();
                    for from in rows.clone().map(|index| part.rows.start + index) {
                        match &encoding {
                            Encoding::Plain(_) => block.extend_from_slice(row(from)),
                            Encoding::Fp8(scales) => {
                                decoder.append(&mut block, row(from), scales, from, columns.start);
                            }
                        }
                    }
                    let target = target.reborrow().rows(rows)?;
                    copy_from_checkpoint(self.stream, &block, encoding.read_as(), target)?;
                }
            }
        }
        (self.progress)((part.rows.len() * columns.len() * element) as u64)
    }

    /// Fills `target` with random numbers.
    fn make_up(
        &self,
        part: &Part,
        width: usize,
        columns: Range<usize>,
        mut target: ViewMut<'_>,
    ) -> Result<(), ModelError> {
        for (index, row) in part.rows.clone().enumerate() {
            let values = dummy::row(&part.name, row, width, columns.clone());
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let target = target.reborrow().rows(index..index + 1)?;
            copy_from_checkpoint(self.stream, &bytes, CheckpointDType::F32, target)?;
        }
        Ok(())
    }

    /// The tensor, if it is what `part` says, and how its bytes are read.
    fn find<'f>(
        &self,
        files: &'f SafetensorsFiles,
        part: &Part,
        num_columns: Option<usize>,
    ) -> Result<Found<'f>, String> {
        let name = &part.name;
        let Some(tensor) = files.get(name) else { return Err(format!("{name} is missing")) };
        let expected: Vec<usize> = std::iter::once(part.num_rows).chain(num_columns).collect();
        if tensor.shape != expected {
            return Err(format!("{name} has shape {:?}, expected {expected:?}", tensor.shape));
        }
        let encoding = match (tensor.dtype, self.fp8.get()) {
            (FileDType::Plain(dtype), _) => Encoding::Plain(dtype),
            (FileDType::Fp8, Some(Fp8Config { block })) => {
                let (scales, used) = Scales::find(files, name, tensor.shape, block)?;
                let mut all_used = self.used.borrow_mut();
                all_used.insert(used);
                // Of the activations, for those who round them too.
                if let Some(layer) = name.strip_suffix("weight") {
                    all_used.insert(format!("{layer}input_scale"));
                }
                Encoding::Fp8(scales)
            }
            (FileDType::Fp8, None) => {
                return Err(format!("{name} is fp8, but config.json has no quantization_config"));
            }
            (FileDType::Other, _) => {
                return Err(format!("{name} is not of float32, float16, bfloat16 or fp8"));
            }
        };
        Ok(Found { tensor, encoding })
    }
}

/// A tensor that is what was asked for.
struct Found<'f> {
    tensor: FileTensor<'f>,
    encoding: Encoding,
}

/// How a tensor's bytes are read.
enum Encoding {
    Plain(CheckpointDType),
    Fp8(Scales),
}

impl Encoding {
    fn element_bytes(&self) -> usize {
        match self {
            Self::Plain(dtype) => dtype.size_bytes(),
            Self::Fp8(_) => 1,
        }
    }

    /// What the bytes are when they go to the device.
    fn read_as(&self) -> CheckpointDType {
        match self {
            Self::Plain(dtype) => *dtype,
            Self::Fp8(_) => CheckpointDType::F32,
        }
    }
}
