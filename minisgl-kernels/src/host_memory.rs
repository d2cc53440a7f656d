//! How much memory the host has: the system's figures and the control group's limit.
//!
//! Never knows: what it is used for.

use crate::{Error, MemoryInfo};

/// Total and available memory of the system or of the control group, whichever is less.
#[cfg(target_os = "linux")]
pub(crate) fn read() -> Result<MemoryInfo, Error> {
    use std::path::Path;

    let read = |path: &Path| {
        let error = |source| Error::File { path: path.to_owned(), source };
        std::fs::read_to_string(path).map_err(error)
    };
    let meminfo = Path::new("/proc/meminfo");
    let mut info = parse_meminfo(&read(meminfo)?).ok_or_else(|| Error::File {
        path: meminfo.to_owned(),
        source: std::io::Error::other("it has no line MemTotal or MemAvailable"),
    })?;
    // A process without control groups has no such file, and no such limit.
    let membership = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    if let Some(group) = cgroup_path(&membership) {
        // Each ancestor's limit holds too; in a container the group is often the root of the tree.
        for group in group.ancestors() {
            let folder = Path::new("/sys/fs/cgroup").join(group);
            let file = |name: &str| read(&folder.join(name)).unwrap_or_default();
            info =
                limited(info, &file("memory.max"), &file("memory.current"), &file("memory.stat"));
        }
    }
    Ok(info)
}

/// Total and available memory of the system or of the control group, whichever is less.
#[cfg(not(target_os = "linux"))]
pub(crate) fn read() -> Result<MemoryInfo, Error> {
    let reason = "the amount of memory is known on Linux only; give the KV pool's size instead";
    Err(Error::Unavailable(reason.to_owned()))
}

/// The text of `/proc/meminfo` (proc_meminfo(5)), whose figures are in KiB.
#[cfg(any(target_os = "linux", test))]
fn parse_meminfo(text: &str) -> Option<MemoryInfo> {
    let kib = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    let total_bytes = kib("MemTotal:")?.checked_mul(1024)?;
    let free_bytes = kib("MemAvailable:")?.checked_mul(1024)?;
    Some(MemoryInfo { total_bytes, free_bytes })
}

/// The group in the text of `/proc/self/cgroup` (cgroups(7), version 2), without the leading `/`.
#[cfg(any(target_os = "linux", test))]
fn cgroup_path(text: &str) -> Option<&std::path::Path> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(std::path::Path::new(path.trim_end()))
}

/// Applies a group's limit: the texts of its `memory.max`, `memory.current` and `memory.stat`.
#[cfg(any(target_os = "linux", test))]
fn limited(info: MemoryInfo, max: &str, current: &str, stat: &str) -> MemoryInfo {
    // "max" means no limit, and does not parse.
    let (Ok(max), Ok(current)) = (max.trim().parse::<u64>(), current.trim().parse::<u64>()) else {
        return info;
    };
    // Pages of files that were not used lately count as used, but are given up when needed.
    let inactive_file = stat
        .lines()
        .find_map(|line| line.strip_prefix("inactive_file "))
        .and_then(|bytes| bytes.trim().parse::<u64>().ok())
        .unwrap_or(0);
    let used = current.saturating_sub(inactive_file);
    MemoryInfo {
        total_bytes: info.total_bytes.min(max),
        free_bytes: info.free_bytes.min(max.saturating_sub(used)),
    }
}

#[cfg(test)]
mod tests;
