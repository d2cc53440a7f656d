//! NCCL's functions as they are declared in `nccl.h`, and opening the library that has them.
//!
//! Never knows: ranks.
//!
//! Written by hand against the header of 2.28.9, and only what is used. All of it is the same in 2.19
//! and later: NCCL keeps its functions, and takes a configuration that says which version it is of.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use libloading::Library;
use minisgl_kernels::DType;
use minisgl_kernels::cuda::LibraryInfo;

use crate::CommError;

/// `ncclComm_t`.
pub(super) type Comm = *mut c_void;
/// `ncclResult_t`.
pub(super) type Status = c_int;
/// `cudaStream_t`.
pub(super) type RawStream = *mut c_void;

pub(super) const SUCCESS: Status = 0;
/// A rank of another process is gone, or the network to it.
pub(super) const REMOTE_ERROR: Status = 6;
pub(super) const IN_PROGRESS: Status = 7;
/// `ncclSum`.
pub(super) const SUM: c_int = 0;

/// The oldest version that is known to work: 2.19.
const MIN_VERSION: c_int = 21_900;
/// The first version that can be told that ranks may share a GPU: 2.30.
const SHARING_VERSION: c_int = 23_000;
const ID_BYTES: usize = 128;

/// `ncclDataType_t`.
pub(super) fn data_type(dtype: DType) -> c_int {
    match dtype {
        // Bytes: these are moved, never summed.
        DType::F8E4M3 => 1,
        DType::I32 => 2,
        DType::U64 => 5,
        DType::F32 => 7,
        DType::Bf16 => 9,
    }
}

/// `ncclUniqueId`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct RawId {
    internal: [u8; ID_BYTES],
}

/// `ncclConfig_t` as of 2.18; later ones only have more at the end.
#[repr(C)]
pub(super) struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
    cga_cluster_size: c_int,
    min_ctas: c_int,
    max_ctas: c_int,
    net_name: *const c_char,
    split_share: c_int,
}

impl Config {
    /// Calls return at once; everything else is NCCL's choice, or that of its environment variables.
    pub(super) fn non_blocking() -> Self {
        const UNDEFINED: c_int = c_int::MIN;
        Self {
            size: size_of::<Self>(),
            magic: 0xcafe_beef,
            version: MIN_VERSION as c_uint,
            blocking: 0,
            cga_cluster_size: UNDEFINED,
            min_ctas: UNDEFINED,
            max_ctas: UNDEFINED,
            net_name: std::ptr::null(),
            split_share: UNDEFINED,
        }
    }
}

type AllReduce = unsafe extern "C" fn(
    *const c_void,
    *mut c_void,
    usize,
    c_int,
    c_int,
    Comm,
    RawStream,
) -> Status;
type AllGather =
    unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, Comm, RawStream) -> Status;

/// The functions that are used.
pub(super) struct Functions {
    get_version: unsafe extern "C" fn(*mut c_int) -> Status,
    get_unique_id: unsafe extern "C" fn(*mut RawId) -> Status,
    get_error_string: unsafe extern "C" fn(Status) -> *const c_char,
    get_last_error: unsafe extern "C" fn(Comm) -> *const c_char,
    pub(super) comm_init_rank_config:
        unsafe extern "C" fn(*mut Comm, c_int, RawId, c_int, *mut Config) -> Status,
    pub(super) comm_abort: unsafe extern "C" fn(Comm) -> Status,
    pub(super) comm_get_async_error: unsafe extern "C" fn(Comm, *mut Status) -> Status,
    pub(super) all_reduce: AllReduce,
    pub(super) all_gather: AllGather,
    /// Has the parameters of an all_reduce, the root in the place of the operation.
    pub(super) broadcast: AllReduce,
    pub(super) group_start: unsafe extern "C" fn() -> Status,
    pub(super) group_end: unsafe extern "C" fn() -> Status,
}

impl Functions {
    fn load(library: &Library) -> Result<Self, String> {
        /// Of the type that the field has, which is that in the header.
        fn get<T: Copy>(library: &Library, name: &str) -> Result<T, String> {
            // SAFETY: the fields above have the types of `nccl.h`; a library whose pointers
            // are kept is never unloaded.
            let symbol = unsafe { library.get::<T>(name.as_bytes()) };
            symbol.map(|symbol| *symbol).map_err(|_| format!("it has no function {name}"))
        }
        Ok(Self {
            get_version: get(library, "ncclGetVersion")?,
            get_unique_id: get(library, "ncclGetUniqueId")?,
            get_error_string: get(library, "ncclGetErrorString")?,
            get_last_error: get(library, "ncclGetLastError")?,
            comm_init_rank_config: get(library, "ncclCommInitRankConfig")?,
            comm_abort: get(library, "ncclCommAbort")?,
            comm_get_async_error: get(library, "ncclCommGetAsyncError")?,
            all_reduce: get(library, "ncclAllReduce")?,
            all_gather: get(library, "ncclAllGather")?,
            broadcast: get(library, "ncclBroadcast")?,
            group_start: get(library, "ncclGroupStart")?,
            group_end: get(library, "ncclGroupEnd")?,
        })
    }
}

/// NCCL, opened.
pub struct NcclLibrary {
    pub(super) functions: Functions,
    version: c_int,
}

impl NcclLibrary {
    /// Opens the library that was found, for which see
    /// [`find_nccl`](minisgl_kernels::cuda::find_nccl).
    ///
    /// # Errors
    /// [`CommError::NcclLibrary`] if it does not load, lacks a function, or is older than 2.19.
    pub fn load(info: &LibraryInfo) -> Result<Arc<Self>, CommError> {
        let path = info.path.as_deref().unwrap_or(Path::new("libnccl.so.2"));
        let failed = |problem: String| CommError::NcclLibrary { path: path.to_owned(), problem };
        // SAFETY: runs the initializers of a library that is called NCCL; those of NCCL have no
        // preconditions. Whoever could put another one there could replace NCCL.
        let library = unsafe { Library::new(path) }.map_err(|error| failed(error.to_string()))?;
        let functions = Functions::load(&library).map_err(failed)?;
        let mut version = 0;
        // SAFETY: it writes one integer.
        unsafe { (functions.get_version)(&mut version) };
        if version < MIN_VERSION {
            let got = version_text(version);
            return Err(failed(format!("it is version {got}, 2.19 or later is needed")));
        }
        // Never unloaded: NCCL has threads of its own (an id has one that listens for ranks), which
        // would run on in code that is gone.
        std::mem::forget(library);
        Ok(Arc::new(Self { functions, version }))
    }

    /// Its version, such as `2.28.9`.
    pub fn version(&self) -> String {
        version_text(self.version)
    }

    /// Whether ranks may share a GPU if the environment variable `NCCL_MULTI_RANK_GPU_ENABLE` is 1,
    /// which NCCL reads when the first rank connects. Older versions refuse it in any case.
    pub fn can_share_gpus(&self) -> bool {
        self.version >= SHARING_VERSION
    }

    /// What `status` of `call` on `comm` means, as an error if it is one.
    ///
    /// # Safety
    /// `comm` is null or a communicator of this library that has not been destroyed.
    pub(super) unsafe fn check(
        &self,
        call: &'static str,
        status: Status,
        comm: Comm,
    ) -> Result<(), CommError> {
        if matches!(status, SUCCESS | IN_PROGRESS) {
            return Ok(());
        }
        // SAFETY: NCCL returns static strings for all numbers, known or not.
        let what = unsafe { text((self.functions.get_error_string)(status)) };
        // SAFETY: by the contract of this function; NCCL returns a string that it owns, and which is
        // copied at once.
        let details = unsafe { text((self.functions.get_last_error)(comm)) };
        let message = if details.is_empty() { what } else { format!("{what}: {details}") };
        Err(CommError::Nccl { call, message })
    }
}

/// # Safety
/// `string` is null or a C string.
unsafe fn text(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: by the contract of this function.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().trim().to_owned()
}

/// Since 2.9 the code is major · 10000 + minor · 100 + patch.
fn version_text(code: c_int) -> String {
    format!("{}.{}.{}", code / 10_000, code / 100 % 100, code % 100)
}

impl fmt::Debug for NcclLibrary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NcclLibrary({})", self.version())
    }
}

/// By which the ranks of one group find each other: made once, known to all of them.
#[derive(Clone, Copy)]
pub struct NcclId(pub(super) RawId);

impl NcclId {
    /// Bytes of an id.
    pub const BYTES: usize = ID_BYTES;

    /// A new one. This process then listens for the other ranks.
    ///
    /// # Errors
    /// [`CommError::Nccl`] if NCCL finds no network interface, for one.
    pub fn new(library: &NcclLibrary) -> Result<Self, CommError> {
        let mut id = RawId { internal: [0; ID_BYTES] };
        // SAFETY: it writes one id.
        let status = unsafe { (library.functions.get_unique_id)(&mut id) };
        // SAFETY: there is no communicator yet.
        unsafe { library.check("ncclGetUniqueId", status, std::ptr::null_mut()) }?;
        Ok(Self(id))
    }

    /// To be sent to other processes.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        self.0.internal
    }

    /// What another process has sent.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(RawId { internal: bytes })
    }
}
