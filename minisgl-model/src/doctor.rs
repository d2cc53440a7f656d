//! What this machine has for the engine, and what is missing. Looks; changes nothing, prints
//! nothing, and reads no environment.

use std::num::NonZeroUsize;

use minisgl_kernels::Device;
use minisgl_kernels::cuda::{self, LibraryInfo, LibrarySearch};

/// Where libraries are that no folder was searched for.
const BY_LOADER: &str = "found by the system's loader";

/// One thing looked for: what was found, or what is missing and how to get it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// What was looked for.
    pub topic: String,
    /// One sentence either way.
    pub found: Result<String, String>,
}

/// Looks for everything the engine can use.
pub fn doctor(search: &LibrarySearch) -> Vec<Finding> {
    let finding = |topic: &str, found| Finding { topic: topic.to_owned(), found };
    let mut findings = cpu();
    let report = cuda::probe(search);
    match report.driver {
        Err(missing) => findings.push(finding("NVIDIA driver", Err(missing))),
        Ok(driver) => {
            let (major, minor) = driver.version;
            findings.push(finding(
                "NVIDIA driver",
                Ok(format!("for CUDA {major}.{minor}, {BY_LOADER}")),
            ));
            for (ordinal, gpu) in driver.devices.iter().enumerate() {
                let (major, minor) = gpu.compute_capability;
                let text = format!(
                    "{}, {} of {} free, compute capability {major}.{minor}",
                    gpu.name,
                    gib(gpu.free_bytes),
                    gib(gpu.total_bytes)
                );
                findings.push(finding(&format!("GPU {ordinal}"), Ok(text)));
            }
        }
    }
    for (topic, library) in [
        ("cuBLASLt", report.cublaslt),
        ("NVRTC", report.nvrtc),
        ("NCCL", report.nccl),
        ("CUDA kernels", report.kernels),
    ] {
        findings.push(finding(topic, library.map(|library| describe(&library))));
    }
    findings
}

fn cpu() -> Vec<Finding> {
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let device = Device::cpu(cores);
    let description = device.as_ref().map(Device::description).map_err(ToString::to_string);
    let memory = device.as_ref().map_err(ToString::to_string).and_then(|device| {
        let memory = device.memory().map_err(|error| error.to_string())?;
        Ok(format!("{} of {} free", gib(memory.free_bytes), gib(memory.total_bytes)))
    });
    vec![
        Finding { topic: "CPU".to_owned(), found: description },
        Finding { topic: "memory".to_owned(), found: memory },
    ]
}

fn describe(library: &LibraryInfo) -> String {
    match &library.path {
        Some(path) => format!("{} in {}", library.version, path.display()),
        None => format!("{}, {BY_LOADER}", library.version),
    }
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_has_one_sentence() {
        let findings = doctor(&LibrarySearch::default());
        for topic in ["CPU", "memory", "NVIDIA driver", "cuBLASLt", "NVRTC", "NCCL", "CUDA kernels"]
        {
            let finding = findings.iter().find(|finding| finding.topic == topic).unwrap();
            let (Ok(text) | Err(text)) = &finding.found;
            assert!(!text.is_empty() && !text.contains('\n'), "{finding:?}");
        }
        assert!(findings[0].found.is_ok() && findings[1].found.is_ok());
    }
}
