//! What is not NCCL, and NCCL where this machine has it. Collectives need GPUs.

mod pretended;

use std::path::PathBuf;

use minisgl_kernels::cuda::{LibraryInfo, LibrarySearch, find_nccl};

use super::*;

fn load(path: &str) -> Result<Arc<NcclLibrary>, CommError> {
    let version = "0".to_owned();
    NcclLibrary::load(&LibraryInfo { path: Some(PathBuf::from(path)), version })
}

#[test]
fn what_is_not_nccl_is_an_error_value_that_names_it() {
    let error = load("no/such/libnccl.so.2").unwrap_err().to_string();
    assert!(error.starts_with("NCCL cannot be used from no/such/libnccl.so.2: "), "{error}");
    // A library of the system that is no NCCL.
    let error = load("libc.so.6").unwrap_err().to_string();
    assert!(error.ends_with("it has no function ncclGetVersion"), "{error}");
}

#[test]
fn ids_travel_as_bytes() {
    let bytes = std::array::from_fn(|i| i as u8);
    assert_eq!(NcclId::from_bytes(bytes).to_bytes(), bytes);
}

/// NCCL, if the tests are told where it is or the system has it.
fn nccl() -> Option<Arc<NcclLibrary>> {
    let nccl = std::env::var_os("MINISGL_NCCL_SO").map(PathBuf::from);
    let info = find_nccl(&LibrarySearch { nccl, ..LibrarySearch::default() }).ok()?;
    Some(NcclLibrary::load(&info).unwrap())
}

#[test]
fn where_there_is_nccl_it_makes_ids_and_refuses_a_cpu() {
    let Some(library) = nccl() else { return };
    assert!(library.version().starts_with("2."), "{library:?}");
    let ids = [(); 2].map(|()| NcclId::new(&library).unwrap().to_bytes());
    assert_ne!(ids[0], ids[1]);
    let timeouts =
        NcclTimeouts { init: Duration::from_secs(60), collective: Duration::from_secs(60) };
    let id = NcclId::from_bytes(ids[0]);
    let group = NcclGroup::new(library, 2..4, 4, timeouts).unwrap();
    let cpu = Device::cpu(std::num::NonZeroUsize::MIN).unwrap();
    let refused = |rank| group.connect(id, rank, &cpu).err().unwrap().to_string();
    assert!(refused(2).contains("NCCL needs a GPU, this is "), "{}", refused(2));
    assert!(group.abort_handle().reason().unwrap().starts_with("rank 2: NCCL needs a GPU"));
}
