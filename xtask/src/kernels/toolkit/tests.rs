//! What nvcc prints, and what is pinned.

use super::{CUDA, FLASHINFER, OLDEST, Version};

#[test]
fn the_version_is_that_of_the_release() {
    let text = "nvcc: NVIDIA (R) Cuda compiler driver\nBuilt on Wed_Aug_20_2025\n\
                Cuda compilation tools, release 13.0, V13.0.88\n";
    let version = Version::parse(text).unwrap();
    assert_eq!(version.to_string(), "13.0");
    assert!(version > OLDEST);
    assert!(Version::parse("release 12.10, V12.10.1").unwrap() > OLDEST);
    assert!(Version::parse("release 12.6, V12.6.20").unwrap() < OLDEST);
    for broken in ["", "release 13", "release x.y, V1", "13.0, V13.0.88"] {
        assert_eq!(Version::parse(broken), None, "{broken}");
    }
}

#[test]
fn every_wheel_is_pinned_by_version_and_hash() {
    for wheels in [CUDA, FLASHINFER] {
        let pins = wheels.requirements.matches("==").count();
        let hashes = wheels.requirements.matches("--hash=sha256:").count();
        assert!(pins > 0 && pins == hashes, "{}", wheels.name);
    }
    assert_ne!(CUDA.identity(), FLASHINFER.identity());
}
