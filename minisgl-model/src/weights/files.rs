//! The tensors of a checkpoint's safetensors files, one file or several, memory-mapped.
//! Checks headers and offsets; never knows what the tensors should be.
//!
//! Of a multimodal checkpoint, only the language model is seen, under the names it would have alone.

use std::collections::{BTreeMap, BTreeSet};

use minisgl_kernels::convert::CheckpointDType;
use minisgl_kernels::mapped::MappedFile;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata};
use serde::Deserialize;

use crate::{Checkpoint, ModelError};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Mistral's own format of the same weights, beside the Hugging Face one.
const CONSOLIDATED: &str = "consolidated";
/// Prefixes of a multimodal checkpoint's tensors, and what the language model alone has for them.
const LANGUAGE_MODEL: [(&str, &str); 2] =
    [("language_model.", ""), ("model.language_model.", "model.")];
/// How the integer weights of AWQ and GPTQ end, also where the config does not mention them.
const PACKED: &str = ".qweight";
const OTHER_MODALITIES: [&str; 4] = [
    "vision_tower.",
    "multi_modal_projector.",
    "model.vision_tower.",
    "model.multi_modal_projector.",
];

/// One tensor in a file.
#[derive(Clone, Copy, Debug)]
pub struct FileTensor<'a> {
    /// Element type in the file.
    pub dtype: FileDType,
    /// Sizes, outermost first.
    pub shape: &'a [usize],
    /// Row-major, little-endian.
    pub bytes: &'a [u8],
}

/// Element types this build reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileDType {
    /// 16 or 32 bits.
    Plain(CheckpointDType),
    /// 8 bits: 4 of exponent, 3 of mantissa, no infinities. Needs a scale.
    Fp8,
    /// Anything else.
    Other,
}

/// See the [module](self).
#[derive(Debug)]
pub struct SafetensorsFiles {
    files: Vec<OneFile>,
    by_name: BTreeMap<String, Place>,
    problems: Vec<String>,
}

/// Where a tensor is: in which file, and under what name there.
#[derive(Debug)]
struct Place {
    file: usize,
    name: String,
}

#[derive(Debug)]
struct OneFile {
    bytes: FileBytes,
    metadata: Metadata,
    /// Where the data begins, after the header.
    data_start: usize,
}

#[derive(Debug)]
enum FileBytes {
    Mapped(MappedFile),
    Embedded(&'static [u8]),
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl SafetensorsFiles {
    /// Opens the files that `model.safetensors.index.json` names, or `model.safetensors`, or else all
    /// `*.safetensors` there are (but `consolidated*`, which are the same weights again). An index whose
    /// files are not all there counts for nothing beside a `model.safetensors`.
    ///
    /// # Errors
    /// [`ModelError`] that names the file: missing or broken. What is wrong with single tensors is
    /// in [`SafetensorsFiles::problems`].
    pub fn open(checkpoint: &Checkpoint) -> Result<Self, ModelError> {
        let index = checkpoint.read(INDEX)?.map(|json| parse_index(&json)).transpose()?;
        let index = match index {
            Some(index) if is_left_behind(&index, checkpoint)? => None,
            other => other,
        };
        let names: BTreeSet<String> = match &index {
            Some(index) => index.weight_map.values().cloned().collect(),
            None => file_names(checkpoint)?,
        };
        let mut files = Vec::new();
        let mut by_name: BTreeMap<String, Place> = BTreeMap::new();
        let mut problems = Vec::new();
        for name in &names {
            let file = OneFile::open(checkpoint, name)?;
            let tensors: BTreeSet<String> = file.metadata.tensors().into_keys().collect();
            for tensor in tensors {
                if tensor.ends_with(PACKED) {
                    return Err(ModelError::Unsupported {
                        what: "quantization",
                        got: "AWQ or GPTQ".to_owned(),
                        allowed: format!(
                            "{tensor} is packed; float32, float16, bfloat16 and fp8 weights are"
                        ),
                    });
                }
                if OTHER_MODALITIES.iter().any(|prefix| tensor.starts_with(prefix)) {
                    continue;
                }
                let alone = language_model_name(&tensor);
                if let Some(twin) = by_name.get(&alone) {
                    let in_file = |file: usize| names.iter().nth(file).map_or("", String::as_str);
                    let (first, second) = (in_file(twin.file), in_file(files.len()));
                    problems.push(format!("{tensor} is given twice, in {first} and in {second}"));
                    continue;
                }
                by_name.insert(alone, Place { file: files.len(), name: tensor });
            }
            files.push(file);
        }
        let listed = index.iter().flat_map(|index| &index.weight_map);
        for (tensor, file) in listed {
            let index = names.iter().position(|name| name == file);
            let info = index.and_then(|index| files[index].metadata.info(tensor));
            if info.is_none() {
                problems.push(format!("{tensor} is not in {file}, where {INDEX} says it is"));
            }
        }
        Ok(Self { files, by_name, problems })
    }

    /// The tensor `name`.
    pub fn get(&self, name: &str) -> Option<FileTensor<'_>> {
        let place = self.by_name.get(name)?;
        let file = &self.files[place.file];
        let info = file.metadata.info(&place.name)?;
        let (start, end) = info.data_offsets;
        let dtype = match info.dtype {
            Dtype::F32 => FileDType::Plain(CheckpointDType::F32),
            Dtype::F16 => FileDType::Plain(CheckpointDType::F16),
            Dtype::BF16 => FileDType::Plain(CheckpointDType::Bf16),
            Dtype::F8_E4M3 => FileDType::Fp8,
            _ => FileDType::Other,
        };
        let bytes = file.bytes.get().get(file.data_start + start..file.data_start + end)?;
        Some(FileTensor { dtype, shape: &info.shape, bytes })
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// Tensors that are given twice, or not where the index says; one line each.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Bytes of all tensors.
    pub fn total_bytes(&self) -> u64 {
        let bytes = |name| self.get(name).map_or(0, |tensor| tensor.bytes.len() as u64);
        self.names().map(bytes).sum()
    }
}

impl OneFile {
    fn open(checkpoint: &Checkpoint, name: &str) -> Result<Self, ModelError> {
        let missing = || ModelError::MissingFile(name.to_owned());
        let bytes = match checkpoint {
            Checkpoint::Config(_) => return Err(missing()),
            Checkpoint::Embedded(files) => {
                let found = files.iter().find(|(file, _)| *file == name);
                FileBytes::Embedded(found.ok_or_else(missing)?.1)
            }
            Checkpoint::Folder(folder) => {
                let path = folder.join(name);
                if !path.exists() {
                    return Err(missing());
                }
                FileBytes::Mapped(MappedFile::open(&path)?)
            }
        };
        let broken = |problem: String| ModelError::Safetensors { file: name.to_owned(), problem };
        let (header_len, metadata) =
            SafeTensors::read_metadata(bytes.get()).map_err(|error| broken(error.to_string()))?;
        // The header's own length stands in the 8 bytes before it.
        let data_start = header_len + 8;
        let length = bytes.get().len() - data_start;
        if metadata.data_len() != length {
            let problem = format!(
                "its header describes {} bytes of data, it has {length}",
                metadata.data_len()
            );
            return Err(broken(problem));
        }
        Ok(Self { bytes, metadata, data_start })
    }
}

impl FileBytes {
    fn get(&self) -> &[u8] {
        match self {
            Self::Mapped(file) => file.bytes(),
            Self::Embedded(bytes) => bytes,
        }
    }
}

/// The name that a tensor has in a checkpoint of the language model alone.
fn language_model_name(name: &str) -> String {
    let mut prefixes = LANGUAGE_MODEL.iter();
    let found = prefixes.find_map(|(prefix, alone)| Some((name.strip_prefix(prefix)?, alone)));
    found.map_or_else(|| name.to_owned(), |(rest, alone)| format!("{alone}{rest}"))
}

/// The names of the safetensors files of a checkpoint without an index.
fn file_names(checkpoint: &Checkpoint) -> Result<BTreeSet<String>, ModelError> {
    let all = checkpoint.file_names()?;
    if all.iter().any(|name| name == SINGLE) {
        return Ok(BTreeSet::from([SINGLE.to_owned()]));
    }
    let safetensors = |name: &&String| name.ends_with(".safetensors");
    let shards = all.iter().filter(safetensors).filter(|name| !name.starts_with(CONSOLIDATED));
    let shards: BTreeSet<String> = shards.cloned().collect();
    if !shards.is_empty() {
        return Ok(shards);
    }
    let pickled = [".bin", ".pt", ".pth"];
    match all.iter().find(|name| pickled.iter().any(|ending| name.ends_with(ending))) {
        Some(name) => Err(ModelError::Unsupported {
            what: "weight file",
            got: name.clone(),
            allowed: "pickled weights can run code when they are loaded; convert them to \
                      safetensors"
                .to_owned(),
        }),
        None => Err(ModelError::MissingFile(SINGLE.to_owned())),
    }
}

/// Whether it is of shards that were there once, and the weights are in one file now.
fn is_left_behind(index: &Index, checkpoint: &Checkpoint) -> Result<bool, ModelError> {
    let all: BTreeSet<String> = checkpoint.file_names()?.into_iter().collect();
    Ok(all.contains(SINGLE) && !index.weight_map.values().all(|shard| all.contains(shard)))
}

fn parse_index(json: &[u8]) -> Result<Index, ModelError> {
    let index: Index = serde_json::from_slice(json)
        .map_err(|source| ModelError::Json { file: INDEX.to_owned(), source })?;
    for file in index.weight_map.values() {
        // A name, never a path: an index must not reach outside its folder.
        let plain = !file.contains(['/', '\\', ':', '\0']) && file.ends_with(".safetensors");
        if !plain {
            let problem = format!("{file:?} is not the name of a safetensors file");
            return Err(ModelError::Safetensors { file: INDEX.to_owned(), problem });
        }
    }
    Ok(index)
}

#[cfg(test)]
mod tests;
