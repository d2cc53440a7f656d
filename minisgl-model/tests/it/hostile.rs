//! Files made to do harm: whatever is in them, they are read or refused, without a panic and within
//! little memory.

use std::fs;
use std::path::Path;
use std::process::Command;

use minisgl_model::weights::SafetensorsFiles;
use minisgl_model::{Checkpoint, DTypeChoice, ModelConfig, RankGroup};

use crate::files::Rng;
use crate::harness::{self, Quiet};

/// Set in the process whose memory is limited.
const IS_LIMITED: &str = "MINISGL_TEST_LIMITED";
/// Address space of that process, in KiB: room for the program, its threads and the files, and far
/// less than what damaged headers claim to need.
const LIMIT_KIB: usize = 3 << 19;

/// Runs `check` in a process of its own, the same test again, that cannot have much memory: there, an
/// allocation that believes what a file says fails.
fn within_little_memory(test: &str, check: impl FnOnce()) {
    if std::env::var_os(IS_LIMITED).is_some() {
        return check();
    }
    let script = format!("ulimit -v {LIMIT_KIB} && exec \"$0\" \"$@\"");
    let output = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads=1", "--nocapture"])
        .env(IS_LIMITED, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// Changes a few bytes among the first `end`, or cuts the file off.
fn damage(file: &mut Vec<u8>, end: usize, rng: &mut Rng) {
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(end.min(file.len()).max(1));
        let Some(byte) = file.get_mut(at) else { return };
        match rng.below(16) {
            0..5 => *byte = rng.next() as u8,
            5..9 => *byte ^= 1 << rng.below(8),
            9..15 => *byte = b"0123456789[]{},:\"-eE"[rng.below(20)],
            _ => file.truncate(at.max(rng.below(file.len()))),
        }
    }
}

#[test]
fn damaged_safetensors_files_are_read_or_refused() {
    within_little_memory("hostile::damaged_safetensors_files_are_read_or_refused", || {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = copy_of("qwen3-fp8", folder.path());
        let path = folder.path().join("model.safetensors");
        let whole = fs::read(&path).unwrap();
        let header_len = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
        let mut rng = Rng(11);
        let (mut refused, mut launched) = (0, 0);
        for round in 0..2000 {
            let mut file = whole.clone();
            damage(&mut file, 8 + header_len, &mut rng);
            match round % 20 {
                0 => file[..8].copy_from_slice(&rng.next().to_le_bytes()),
                // A gigabyte or so of header, if the length were believed.
                1 => file[..8].copy_from_slice(&(rng.next() >> 34).to_le_bytes()),
                _ => {}
            }
            // Put in its place, not written over: a rank of the last launch may still have that mapped.
            let new = folder.path().join("new");
            fs::write(&new, &file).unwrap();
            fs::rename(&new, &path).unwrap();
            let Ok(files) = SafetensorsFiles::open(&checkpoint) else {
                refused += 1;
                continue;
            };
            for name in files.names() {
                assert!(files.get(name).unwrap().bytes.len() <= file.len());
            }
            let tp_size = 1 << (round % 2);
            let options = harness::options(tp_size, DTypeChoice::Auto);
            launched += usize::from(RankGroup::launch(&checkpoint, &options, &Quiet).is_ok());
        }
        assert!(refused > 1000, "{refused} of 2000 were refused");
        assert!(launched < 200, "{launched} of 2000 were believed");
    });
}

#[test]
fn damaged_json_is_read_or_refused() {
    within_little_memory("hostile::damaged_json_is_read_or_refused", || {
        let mut rng = Rng(12);
        for case in ["qwen3-fp8", "llama3-rope", "qwen3-moe", "mistral3", "qwen2-window"] {
            let whole = fs::read(harness::golden().join(case).join("config.json")).unwrap();
            let mut refused = 0;
            for _ in 0..3000 {
                let mut json = whole.clone();
                let end = json.len();
                damage(&mut json, end, &mut rng);
                refused += usize::from(ModelConfig::parse(&json).is_err());
            }
            assert!(refused > 1000, "{case}: {refused} of 3000 were refused");
        }

        let folder = tempfile::tempdir().unwrap();
        let checkpoint = copy_of("llama3-rope", folder.path());
        let index = folder.path().join("model.safetensors.index.json");
        let whole = fs::read(&index).unwrap();
        let mut wrong = 0;
        for _ in 0..1000 {
            let mut json = whole.clone();
            let end = json.len();
            damage(&mut json, end, &mut rng);
            fs::write(&index, &json).unwrap();
            let opened = SafetensorsFiles::open(&checkpoint);
            wrong += usize::from(opened.is_err() || !opened.unwrap().problems().is_empty());
        }
        assert!(wrong > 500, "{wrong} of 1000 were found out");
    });
}

#[test]
fn a_header_of_gigabytes_is_refused_before_it_is_read() {
    within_little_memory("hostile::a_header_of_gigabytes_is_refused_before_it_is_read", || {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = copy_of("llama", folder.path());
        // The file has them all; on the disk it is a hole.
        let file = fs::File::create(folder.path().join("model.safetensors")).unwrap();
        file.set_len(1 << 29).unwrap();
        std::io::Write::write_all(&mut &file, &((1u64 << 29) - 8).to_le_bytes()).unwrap();
        let error = SafetensorsFiles::open(&checkpoint).unwrap_err().to_string();
        assert!(error.contains("model.safetensors is not a valid safetensors file"), "{error}");
    });
}

/// The files of a fixture in a folder of their own.
fn copy_of(case: &str, folder: &Path) -> Checkpoint {
    for name in harness::checkpoint(case).file_names().unwrap() {
        fs::copy(harness::golden().join(case).join(&name), folder.join(&name)).unwrap();
    }
    Checkpoint::folder(folder).unwrap()
}
