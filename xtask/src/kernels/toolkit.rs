//! The CUDA toolkit and the FlashInfer headers: found on this machine, or set up from PyPI.
//!
//! Never knows: what is compiled with them.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::wheels::Wheels;

/// The oldest toolkit that knows all the architectures and flags that we use.
const OLDEST: Version = Version { major: 12, minor: 8 };

/// nvcc and what it needs, without any library but the runtime.
const CUDA: Wheels =
    Wheels { name: "cuda", requirements: include_str!("cuda.txt"), prefixes: &["nvidia/cu13/"] };

/// FlashInfer's headers, with the CUTLASS and CCCL that it was written for.
const FLASHINFER: Wheels = Wheels {
    name: "flashinfer",
    requirements: include_str!("flashinfer.txt"),
    prefixes: &[
        "flashinfer/data/cccl/cub/",
        "flashinfer/data/cccl/libcudacxx/include/",
        "flashinfer/data/cccl/thrust/",
        "flashinfer/data/cutlass/include/",
        "flashinfer/data/cutlass/tools/util/include/",
        "flashinfer/data/include/",
    ],
};

/// Folders of headers in the FlashInfer wheel, in the order in which they are searched. Its CCCL
/// comes before the toolkit's, which is older and lacks what it uses.
const FOLDERS: &[&str] = &[
    "cccl/libcudacxx/include",
    "cccl/cub",
    "cccl/thrust",
    "include",
    "cutlass/include",
    "cutlass/tools/util/include",
];

/// Headers that FlashInfer includes and uses nothing of. Empty ones stand in for them, and so what
/// they would include in turn is not needed.
const UNUSED_HEADERS: &[&str] = &[
    "cutlass/util/command_line.h",
    "cutlass/util/distribution.h",
    "cutlass/util/host_tensor.h",
    "cutlass/util/reference/device/gemm.h",
    "cutlass/util/reference/device/tensor_compare.h",
    "cutlass/util/reference/device/tensor_fill.h",
    "cutlass/util/tensor_view_io.h",
];

/// A toolkit's version.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    /// From what `nvcc --version` prints: `.. release 13.0, V13.0.88 ..`.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once("release ")?;
        let (version, _) = rest.split_once(',')?;
        let (major, minor) = version.trim().split_once('.')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A CUDA toolkit.
pub(super) struct Toolkit {
    /// Its folder, with `bin/nvcc`.
    pub(super) home: PathBuf,
    pub(super) version: Version,
    /// Two toolkits with the same identity compile alike.
    pub(super) identity: String,
}

impl Toolkit {
    /// The first that is new enough of `$CUDA_HOME`, `/usr/local/cuda` and the one whose nvcc is on
    /// the path; or else one from PyPI.
    pub(super) fn find_or_install() -> Result<Self> {
        for home in homes() {
            match Self::at(&home) {
                Ok(toolkit) if toolkit.version >= OLDEST => return Ok(toolkit),
                Ok(toolkit) => {
                    println!("CUDA {} in {} is too old", toolkit.version, home.display());
                }
                // Where there is none there is nothing to say, unless somebody named the place.
                Err(error) if env::var_os("CUDA_HOME").is_some_and(|named| home == named) => {
                    println!("no usable toolkit in CUDA_HOME: {error:#}");
                }
                Err(_) => {}
            }
        }
        let folder = CUDA.install(|folder| {
            // nvcc links from lib64; the wheels have lib.
            let home = folder.join("nvidia/cu13");
            std::os::unix::fs::symlink("lib", home.join("lib64")).context("cannot link lib64")
        })?;
        Self::at(&folder.join("nvidia/cu13")).context("the toolkit from PyPI does not work")
    }

    fn at(home: &Path) -> Result<Self> {
        let nvcc = home.join("bin/nvcc");
        let output = Command::new(&nvcc)
            .arg("--version")
            .output()
            .with_context(|| format!("cannot run {}", nvcc.display()))?;
        let identity = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = Version::parse(&identity)
            .with_context(|| format!("{} --version tells no version", nvcc.display()))?;
        let toolkit = Self { home: home.to_owned(), version, identity };
        toolkit.static_runtime()?;
        Ok(toolkit)
    }

    pub(super) fn nvcc(&self) -> PathBuf {
        self.home.join("bin/nvcc")
    }

    /// The runtime library to link in.
    pub(super) fn static_runtime(&self) -> Result<PathBuf> {
        let places = ["lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"];
        let files = places.map(|place| self.home.join(place).join("libcudart_static.a"));
        files
            .into_iter()
            .find(|file| file.is_file())
            .with_context(|| format!("no libcudart_static.a in {}", self.home.display()))
    }
}

/// Where a toolkit may be.
fn homes() -> Vec<PathBuf> {
    let mut homes: Vec<PathBuf> = env::var_os("CUDA_HOME").map(PathBuf::from).into_iter().collect();
    homes.push("/usr/local/cuda".into());
    let path = env::var_os("PATH").unwrap_or_default();
    let nvcc =
        env::split_paths(&path).map(|folder| folder.join("nvcc")).find(|file| file.is_file());
    // The nvcc on the path may be a link into the toolkit.
    if let Some(nvcc) = nvcc.and_then(|nvcc| nvcc.canonicalize().ok())
        && let Some(home) = nvcc.parent().and_then(Path::parent)
    {
        homes.push(home.to_owned());
    }
    homes
}

/// The headers beside the toolkit's own.
pub(super) struct Headers {
    /// In the order in which they are searched.
    pub(super) folders: Vec<PathBuf>,
    /// Two sets with the same identity are the same.
    pub(super) identity: String,
}

impl Headers {
    /// Those that are pinned, downloaded if need be.
    pub(super) fn install() -> Result<Self> {
        let folder = FLASHINFER.install(|folder| {
            for header in UNUSED_HEADERS {
                let path = folder.join("unused").join(header);
                fs::create_dir_all(path.parent().unwrap_or(folder))
                    .and_then(|()| fs::write(&path, ""))
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
            Ok(())
        })?;
        let data = folder.join("flashinfer/data");
        let mut folders = vec![folder.join("unused")];
        folders.extend(FOLDERS.iter().map(|name| data.join(name)));
        let identity = format!("{:016x} {FOLDERS:?} {UNUSED_HEADERS:?}", FLASHINFER.identity());
        Ok(Self { folders, identity })
    }
}

#[cfg(test)]
mod tests;
