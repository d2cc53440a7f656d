//! The texts of the system's files.

use std::path::Path;

use super::{cgroup_path, limited, parse_meminfo};
use crate::MemoryInfo;

const INFO: MemoryInfo = MemoryInfo { total_bytes: 1000, free_bytes: 600 };

#[test]
fn meminfo_is_in_kib() {
    let text = "MemTotal:       24000 kB\nMemFree:  5 kB\nMemAvailable:   23000 kB\n";
    let want = MemoryInfo { total_bytes: 24_000 * 1024, free_bytes: 23_000 * 1024 };
    assert_eq!(parse_meminfo(text), Some(want));
    assert_eq!(parse_meminfo("MemTotal: 24000 kB\n"), None);
    assert_eq!(parse_meminfo("MemTotal: x kB\nMemAvailable: 1 kB\n"), None);
}

#[test]
fn the_group_is_found_among_other_hierarchies() {
    let text = "12:memory:/docker/abc\n0::/user.slice/a.service\n";
    assert_eq!(cgroup_path(text), Some(Path::new("user.slice/a.service")));
    assert_eq!(cgroup_path("0::/\n"), Some(Path::new("")));
    assert_eq!(cgroup_path(""), None);
}

#[test]
fn a_limit_lowers_what_is_there_and_never_raises_it() {
    assert_eq!(limited(INFO, "max\n", "5\n", ""), INFO);
    assert_eq!(limited(INFO, "", "", ""), INFO);
    assert_eq!(limited(INFO, "5000\n", "100\n", ""), INFO);
    let want = MemoryInfo { total_bytes: 500, free_bytes: 250 };
    assert_eq!(limited(INFO, "500\n", "300\n", "anon 1\ninactive_file 50\n"), want);
    let full = MemoryInfo { total_bytes: 500, free_bytes: 0 };
    assert_eq!(limited(INFO, "500\n", "700\n", "x"), full);
}
