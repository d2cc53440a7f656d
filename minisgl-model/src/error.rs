//! Errors of this crate: what is wrong with a checkpoint or an option, or what broke in a rank.

use std::path::PathBuf;

/// Every error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A model folder that is not one.
    #[error("{} is not a model folder: {reason}", path.display())]
    NotAModel {
        /// What was given.
        path: PathBuf,
        /// Why it is not.
        reason: String,
    },
    /// A file of the checkpoint is missing.
    #[error("the checkpoint has no {0}")]
    MissingFile(String),
    /// A file of the checkpoint is larger than such a file may be.
    #[error("{file} has {bytes} bytes, at most {max} are allowed")]
    FileTooLarge {
        /// Which file.
        file: String,
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// A file could not be read.
    #[error("cannot read {file}: {source}")]
    Io {
        /// Which file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not the JSON it should be.
    #[error("{file} is not valid: {source}")]
    Json {
        /// Which file.
        file: String,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A field of `config.json` has a value that makes no sense.
    #[error("config.json: {field} {problem}")]
    Config {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Something this build does not do.
    #[error("{what} `{got}` is not supported: {allowed}")]
    Unsupported {
        /// What it is, such as "architecture".
        what: &'static str,
        /// The value found.
        got: String,
        /// What is supported, as a phrase.
        allowed: String,
    },
    /// A safetensors file is broken.
    #[error("{file} is not a valid safetensors file: {problem}")]
    Safetensors {
        /// Which file.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// Tensors are missing, misshapen or given twice; one line each.
    #[error("the checkpoint does not fit its config.json:\n  {}", problems.join("\n  "))]
    Weights {
        /// One line per tensor.
        problems: Vec<String>,
    },
    /// The model cannot be split over so many ranks.
    #[error("--tp {tp} does not work for this model: {problem}")]
    TensorParallel {
        /// The number of ranks asked for.
        tp: usize,
        /// What does not divide.
        problem: String,
    },
    /// An option that makes no sense for this model or machine.
    #[error("{option} {problem}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// What is wrong with its value, and what is allowed.
        problem: String,
    },
    /// The model does not fit.
    #[error(
        "not enough memory on {device}: {needed} are needed for {what}, {available} are available; \
         {advice}"
    )]
    OutOfMemory {
        /// The device.
        device: String,
        /// What the memory is for.
        what: &'static str,
        /// How much.
        needed: String,
        /// How much there is.
        available: String,
        /// What to change.
        advice: &'static str,
    },
    /// A kernel or the device failed.
    #[error(transparent)]
    Kernel(#[from] minisgl_kernels::Error),
    /// A collective failed.
    #[error(transparent)]
    Comm(#[from] minisgl_comm::CommError),
    /// The KV pool.
    #[error(transparent)]
    Cache(#[from] minisgl_cache::CacheError),
    /// A rank failed; the group is gone.
    #[error("rank {rank} failed: {message}")]
    Rank {
        /// Which rank.
        rank: usize,
        /// What it said.
        message: String,
    },
    /// Ranks did not get on in time.
    #[error("{what} {option}, {seconds} s{}", who_hangs(.ranks))]
    Timeout {
        /// What took too long; the sentence up to how long.
        what: &'static str,
        /// The option that says how long it may take.
        option: &'static str,
        /// How long that is.
        seconds: f64,
        /// Ranks of this process that do not answer any more.
        ranks: Vec<usize>,
    },
    /// Another node has left in good order.
    #[error("node {node} has left")]
    NodeLeft {
        /// Which one.
        node: usize,
    },
    /// A thread could not be started.
    #[error("cannot start a thread for rank {rank}: {source}")]
    Thread {
        /// Whose.
        rank: usize,
        /// What the system said.
        source: std::io::Error,
    },
}

fn who_hangs(ranks: &[usize]) -> String {
    let names: Vec<String> = ranks.iter().map(usize::to_string).collect();
    match &names[..] {
        [] => String::new(),
        [rank] => format!(": rank {rank} does not answer"),
        _ => format!(": ranks {} do not answer", names.join(", ")),
    }
}
