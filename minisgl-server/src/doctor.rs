//! `minisgl doctor`: what this machine has. Knows where a user may have put libraries, and how to
//! print what was found; the model crate looks.

use std::env;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use minisgl_model::{Finding, LibrarySearch};

/// Prints one line per topic.
///
/// # Errors
/// If standard output is gone.
pub(crate) fn run() -> Result<()> {
    let findings = minisgl_model::doctor(&library_search());
    let width = findings.iter().map(|finding| finding.topic.len()).max().unwrap_or(0);
    let mut out = std::io::stdout().lock();
    for Finding { topic, found } in findings {
        let (mark, text) = match found {
            Ok(text) => ("ok", text),
            Err(text) => ("--", text),
        };
        writeln!(out, "{mark}  {topic:width$}  {text}")?;
    }
    Ok(())
}

/// Beside the system's own folders: the active Python environment, where pip puts NVIDIA's
/// libraries, and a file that the user named.
pub(crate) fn library_search() -> LibrarySearch {
    let path = |variable| env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
    let environments = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(path);
    let system = ["/usr/local", "/usr"].map(PathBuf::from);
    LibrarySearch {
        python_prefixes: environments.chain(system).collect(),
        nccl: path("MINISGL_NCCL_SO"),
        kernels: path("MINISGL_KERNELS"),
    }
}

/// Whether NCCL is told that ranks may share a GPU; it reads the variable itself.
pub(crate) fn nccl_shares_gpus() -> bool {
    env::var_os("NCCL_MULTI_RANK_GPU_ENABLE").is_some_and(|value| value == "1")
}
