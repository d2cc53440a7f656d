//! Which GPUs this machine has, as architectures to compile for.
//!
//! Never knows: what is done with the answer. It asks `nvidia-smi`, which comes with every driver.

use std::{collections::BTreeSet, process::Command};

use super::units::Arch;

/// The architectures of the GPUs of this machine, oldest first; none if there is no GPU, or none that
/// there are kernels for.
pub(super) fn archs() -> Vec<Arch> {
    let asked = Command::new("nvidia-smi")
        .args(["--query-gpu=compute_cap", "--format=csv,noheader"])
        .output();
    match asked {
        Ok(output) if output.status.success() => archs_of(&String::from_utf8_lossy(&output.stdout)),
        _ => Vec::new(),
    }
}

/// From one compute capability a line.
fn archs_of(capabilities: &str) -> Vec<Arch> {
    let arch = |capability: &str| match capability {
        // Code for 8.0 runs on all of 8.x, but there is better code for 8.9.
        "8.0" | "8.6" | "8.7" => Some("80"),
        "8.9" => Some("89"),
        "9.0" => Some("90a"),
        "10.0" => Some("100a"),
        "12.0" => Some("120a"),
        _ => None,
    };
    let names: BTreeSet<&str> = capabilities.lines().map(str::trim).filter_map(arch).collect();
    let archs: Vec<Arch> = names.into_iter().filter_map(|name| name.parse().ok()).collect();
    Arch::sorted(&archs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gpu_counts_once_and_unknown_ones_do_not() {
        let names = |text| archs_of(text).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names("9.0\n9.0\n 8.6\n"), ["80", "90a"]);
        assert_eq!(names("12.0\n7.5\n"), ["120a"]);
        assert!(names("").is_empty() && names("N/A\n").is_empty());
    }
}
