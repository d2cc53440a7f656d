//! Packing made-up parts.

use std::{fs, process::Command};

use super::{CHECKS, Part, SCRIPT, data_files, pack};

#[test]
fn an_archive_has_its_parts_and_the_script() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("some.txt");
    fs::write(&text, "text").unwrap();
    let part = |to: &str| Part::data(to, text.clone());
    let target = folder.path().join("dist");
    // A second time, with less: nothing is left of the first.
    for parts in [vec![part("a.txt"), part("inner/old.txt")], vec![part("inner/b.txt")]] {
        // Any small program will do, as long as `strip` knows its form.
        let program = Part::program("program", "/bin/true".into());
        let parts: Vec<_> = parts.into_iter().chain([program]).collect();
        pack(&target, "all", &parts).unwrap();
    }
    let archive = target.join("all.tar.xz");
    let mut tar = Command::new("tar");
    let output = tar.args(["--list", "--file"]).arg(&archive).output().unwrap();
    let listing = String::from_utf8(output.stdout).unwrap();
    let files: Vec<_> = listing.lines().filter(|line| !line.ends_with('/')).collect();
    assert_eq!(files, ["all/check-gpu.sh", "all/inner/b.txt", "all/program"]);
    let missing = Part::data("x", folder.path().join("none"));
    let error = pack(&target, "all", &[missing]).unwrap_err();
    assert!(error.to_string().contains("none"), "{error}");
}

#[test]
fn the_goldens_go_along_without_what_made_them() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("a-case")).unwrap();
    for file in ["a-case/config.json", "a-case/model.safetensors", "make.py", "README.md"] {
        fs::write(folder.path().join(file), "").unwrap();
    }
    let parts = data_files(folder.path(), "checks/golden").unwrap();
    let mut files: Vec<_> = parts.iter().map(|part| part.to.as_str()).collect();
    files.sort_unstable();
    let expected = ["a-case/config.json", "a-case/model.safetensors"];
    assert_eq!(files, expected.map(|file| format!("checks/golden/{file}")));
    assert!(parts.iter().all(|part| !part.program));
}

/// An archive whose programs are scripts, so that what the script concludes can be tried anywhere.
struct Made {
    folder: tempfile::TempDir,
}

impl Made {
    /// `gpus` GPUs, suites that end as `suite` does, and a benchmark that says `bench`.
    fn new(gpus: usize, suite: &str, bench: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let doctor: String =
            (0..gpus).map(|gpu| format!("echo 'ok  GPU {gpu}  made up'\n")).collect();
        let server =
            format!("#!/bin/sh\ncase $1 in\ndoctor) :\n{doctor};;\nbench) {bench};;\nesac\n");
        fs::create_dir(folder.path().join("checks")).unwrap();
        let programs = CHECKS.iter().map(|(name, _)| (format!("checks/{name}"), suite));
        for (name, text) in programs
            .chain([("minisgl".to_owned(), &*server), ("check-gpu.sh".to_owned(), SCRIPT.1)])
        {
            super::write_script(&folder.path().join(name), text).unwrap();
        }
        Self { folder }
    }

    /// Whether the script is content, and what it prints.
    fn run(&self, options: &[&str]) -> (bool, String) {
        let output = Command::new("sh")
            .arg(self.folder.path().join(SCRIPT.0))
            .args(options)
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    }
}

const PASSES: &str = "#!/bin/sh
[ \"$MINISGL_TEST_CUDA\" != \"\" ] || [ \"$(basename \"$0\")\" = minisgl-comm ] || exit 9
echo 'test result: ok. 7 passed; 0 failed; 0 ignored'
";

const BENCH: &str = "if [ $2 = kernels ]; then
    echo 'qkv, 1 x 5120 x 7168  20.0 us  3670.0 GB/s  92 %'
    exit
fi
cat <<'END'
offline: 256 sequences, 142827 tokens in, 133966 out; floor 5.20 s = 25740 tok/s
  round 1: 7.14 s, 18764 tok/s, 73 % of the floor; first token after 90 ms
  round 2: 7.05 s, 18992 tok/s, 74 % of the floor; first token after 90 ms
one sequence: 1 sequences, 128 tokens in, 256 out; floor 0.11 s = 2372 tok/s
  round 1: 0.32 s, 812 tok/s, 34 % of the floor; first token after 9 ms
END
";

#[test]
fn the_script_is_content_if_all_checks_pass_and_shows_the_best_rounds() {
    let (content, table) = Made::new(2, PASSES, BENCH).run(&[]);
    assert!(content, "{table}");
    for part in [
        "golden and CPU against GPU, to tp 2",
        "7 tests passed",
        "nodes with a GPU each, through NCCL",
        "Qwen3-14B, tp 2, offline",
        "18992 tok/s, 74 % of the floor",
        "812 tok/s, 34 % of the floor",
        "--attn fa,fi",
        "single operations",
        "\nqkv, 1 x 5120 x 7168  20.0 us  3670.0 GB/s  92 %\n",
        "== 0 failure(s)",
    ] {
        assert!(table.contains(part), "{part} is not in\n{table}");
    }
    assert!(!table.contains("tp 4"), "there are two GPUs: {table}");
}

#[test]
fn the_script_fails_with_a_check_without_a_gpu_and_for_an_unknown_option() {
    let broken = "#!/bin/sh\necho 'test result: FAILED. 6 passed; 1 failed'\nexit 101\n";
    let nothing = "#!/bin/sh\necho 'test result: ok. 0 passed; 0 failed'\n";
    for suite in [broken, nothing] {
        let (content, table) = Made::new(1, suite, BENCH).run(&["--no-timings"]);
        assert!(!content && table.contains("== 4 failure(s)"), "{table}");
    }
    assert!(!Made::new(0, PASSES, BENCH).run(&[]).0);
    assert!(!Made::new(1, PASSES, BENCH).run(&["--fast"]).0);
}

#[test]
fn what_a_gpu_lacks_is_no_failure_but_a_crash_is() {
    let bench = |says: &str| Made::new(1, PASSES, &format!("echo '{says}'; exit 1")).run(&[]);
    let (content, table) = bench("minisgl: --attn fa is not there");
    assert!(content && table.contains("no such kernels"), "{table}");
    assert!(table.contains("not run: two GPUs, or NCCL 2.30"), "{table}");
    let (content, table) = bench("minisgl: not enough memory on GPU 0: 40 are needed");
    assert!(content && table.contains("too little memory"), "{table}");
    let (content, table) = bench("minisgl: rank 0 is gone");
    assert!(!content && table.contains("FAILED"), "{table}");
    assert!(table.contains("see log/bench-kernels.txt"), "{table}");
}
