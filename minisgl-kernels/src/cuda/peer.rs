//! Sums over GPUs of this process through memory that each of them reads from the others.
//!
//! Never knows: what is summed, or how ranks find each other; they are threads of one process and
//! hand their [`PeerMemory`] around.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cudarc::driver::sys::{self as driver, CUresult};

use super::call::{Call, code};
use super::device::{CudaDevice, failed};
use super::memory::{CudaBuffer, Pinned};
use super::sys;
use crate::ops::check::{self, check_float_rows};
use crate::{Device, Error, Stream, View, ViewMut};

const OP: &str = "peer_all_reduce";

/// The most ranks of a [`PeerGroup`].
pub const MAX_PEERS: usize = sys::MAX_PEERS;

/// What the other ranks read of one rank: staged data, and flags that say when it is there.
pub struct PeerMemory {
    device: CudaDevice,
    staging: CudaBuffer,
    flags: CudaBuffer,
}

impl PeerMemory {
    /// Zeroed memory on `device` for sums of up to `staging_bytes`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] on the CPU, [`Error::OutOfMemory`] if there is not so much.
    pub fn new(device: &Device, staging_bytes: usize) -> Result<Self, Error> {
        let Device::Cuda(device) = device else {
            return Err(needs_gpus());
        };
        // SAFETY: it only computes.
        let flag_bytes = unsafe { (device.kernels().functions.msgl_peer_flag_bytes)() };
        let flag_bytes = usize::try_from(flag_bytes).unwrap_or(0);
        Ok(Self {
            device: device.clone(),
            staging: CudaBuffer::zeroed(device, staging_bytes)?,
            flags: CudaBuffer::zeroed(device, flag_bytes)?,
        })
    }
}

/// Lets kernels that wait for other ranks give up.
pub struct AbortFlag {
    memory: Pinned,
    /// Where GPUs find it.
    device_address: u64,
}

impl AbortFlag {
    /// Not raised. `device` is any of the group's.
    ///
    /// # Errors
    /// [`Error::Unavailable`] on the CPU, [`Error::Device`] if the driver refuses.
    pub fn new(device: &Device) -> Result<Self, Error> {
        let Device::Cuda(device) = device else {
            return Err(needs_gpus());
        };
        let memory = Pinned::zeroed(device, size_of::<AtomicU32>())?;
        let device_address = memory.device_address()?;
        Ok(Self { memory, device_address })
    }

    fn flag(&self) -> &AtomicU32 {
        // SAFETY: the memory is aligned, zeroed and large enough, lives as long as `self`, and is
        // accessed atomically by the host; GPUs read it, and write a whole aligned word.
        unsafe { AtomicU32::from_ptr(self.memory.address().cast()) }
    }

    /// Makes every waiting kernel of the group give up, now and later.
    pub fn raise(&self) {
        self.flag().store(1, Ordering::SeqCst);
    }

    /// Whether somebody gave up the group.
    pub fn is_raised(&self) -> bool {
        self.flag().load(Ordering::SeqCst) != 0
    }
}

/// How a sum is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum PeerAlgorithm {
    /// Every rank reads everything of everybody: for small data.
    OneShot = 1,
    /// Every rank sums its part, then reads the other parts: for large data.
    TwoShot = 2,
}

/// One rank's view of the group. Cloning shares the memory.
#[derive(Clone)]
pub struct PeerGroup {
    rank: usize,
    members: Vec<Arc<PeerMemory>>,
    abort: Arc<AbortFlag>,
    staging_bytes: usize,
}

impl PeerGroup {
    /// Rank `rank` of the group of `members`, which are in the order of ranks and the same for all.
    /// Lets the rank's GPU read the others' memory.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if there are too many members, no such rank, or if a GPU cannot read
    /// another's memory; [`Error::Device`] if the driver refuses.
    pub fn connect(
        rank: usize,
        members: Vec<Arc<PeerMemory>>,
        abort: Arc<AbortFlag>,
    ) -> Result<Self, Error> {
        let Some(own) = members.get(rank).filter(|_| members.len() <= MAX_PEERS) else {
            let (size, most) = (members.len(), MAX_PEERS);
            let text = format!("rank {rank} of {size}: a group has up to {most} ranks");
            return Err(Error::Unavailable(text));
        };
        for member in &members {
            enable_access(&own.device, &member.device)?;
        }
        let staging_bytes = members.iter().map(|m| m.staging.bytes()).min().unwrap_or(0);
        Ok(Self { rank, members, abort, staging_bytes })
    }

    /// The most bytes of one sum.
    pub fn max_bytes(&self) -> usize {
        self.staging_bytes
    }

    /// Replaces `data` (f32 or bf16, contiguous, at most [`PeerGroup::max_bytes`]) by the sum over
    /// the ranks, added in f32 in the order of ranks and rounded once. Every rank must call it with
    /// the same size and algorithm, in the same order. Can be captured in a graph, which the group
    /// must then outlive.
    ///
    /// # Errors
    /// [`Error::DType`], [`Error::Layout`] or [`Error::Length`] if `data` does not fit,
    /// [`Error::Unavailable`] for a stream of the CPU.
    pub fn all_reduce(
        &self,
        stream: &Stream,
        data: ViewMut<'_>,
        algorithm: PeerAlgorithm,
    ) -> Result<(), Error> {
        check_float_rows(OP, "data", data.as_view())?;
        let Stream::Cuda(stream) = stream else {
            return Err(needs_gpus());
        };
        let bytes = data.num_elements() * data.dtype().size_bytes();
        if bytes > self.staging_bytes {
            let (got, expected) = (bytes, self.staging_bytes);
            return Err(Error::Length { op: OP, got, expected, unit: "bytes" });
        }
        let call = Call::new(OP, stream)?;
        let address = call.dense("data", data.as_view())?.cast_mut();
        if bytes == 0 {
            return Ok(());
        }
        let peers = self.describe();
        let (dtype, n) = (code(data.dtype()), data.num_elements() as i64);
        let all_reduce = call.functions().msgl_peer_all_reduce;
        // SAFETY: `data` is contiguous memory of the stream's device; the members' memory lives
        // as long as `self`, is large enough, and may be read from this device.
        call.done(unsafe { all_reduce(&peers, dtype, address, n, algorithm as i32, call.stream()) })
    }

    /// One-shot, with [`ops::add_rms_norm`](crate::ops::add_rms_norm) after it: adds the sum of `x`
    /// over the ranks to `residual`, and leaves that normalized in `x`. Rows must be multiples of 16
    /// bytes, and `x` at most half of [`PeerGroup::max_bytes`]. Otherwise as
    /// [`PeerGroup::all_reduce`].
    ///
    /// # Errors
    /// Those of both.
    pub fn all_reduce_add_rms_norm(
        &self,
        stream: &Stream,
        mut x: ViewMut<'_>,
        mut residual: ViewMut<'_>,
        weight: View<'_>,
        eps: f32,
    ) -> Result<(), Error> {
        const OP: &str = "peer_all_reduce_norm";
        check::add_rms_norm(x.as_view(), residual.as_view(), weight, eps)?;
        let Stream::Cuda(stream) = stream else {
            return Err(needs_gpus());
        };
        let bytes = x.num_elements() * x.dtype().size_bytes();
        if bytes > self.staging_bytes / 2 {
            let (got, expected) = (bytes, self.staging_bytes / 2);
            return Err(Error::Length { op: OP, got, expected, unit: "bytes" });
        }
        let call = Call::new(OP, stream)?;
        let rows = call.rows_mut("x", &mut x)?;
        let residual = call.rows_mut("residual", &mut residual)?;
        let weight = call.address("weight", weight)?;
        let (peers, dtype) = (self.describe(), code(x.dtype()));
        let all_reduce = call.functions().msgl_peer_all_reduce_norm;
        // SAFETY: the shapes are checked; the members' memory is as in `all_reduce`.
        call.done(unsafe { all_reduce(&peers, dtype, rows, residual, weight, eps, call.stream()) })
    }

    fn describe(&self) -> sys::Peers {
        let mut peers = sys::Peers {
            rank: self.rank as i32,
            world_size: self.members.len() as i32,
            staging: [std::ptr::null_mut(); MAX_PEERS],
            flags: [std::ptr::null_mut(); MAX_PEERS],
            staging_bytes: self.staging_bytes as i64,
            abort_flag: std::ptr::without_provenance_mut(self.abort.device_address as usize),
        };
        for (i, member) in self.members.iter().enumerate() {
            peers.staging[i] = member.staging.address().cast();
            peers.flags[i] = member.flags.address().cast();
        }
        peers
    }
}

fn needs_gpus() -> Error {
    Error::Unavailable("sums through peer memory need GPUs".to_owned())
}

/// Asks, and changes nothing, whether every one of these GPUs can read the memory of all others.
///
/// # Errors
/// [`Error::Unavailable`] that names two of which one cannot, or on the CPU; [`Error::Device`] if the
/// driver refuses.
pub fn check_peer_access(devices: &[Device]) -> Result<(), Error> {
    let mut gpus = Vec::new();
    for device in devices {
        match device {
            Device::Cuda(gpu) => gpus.push(gpu),
            Device::Cpu(_) => {
                return Err(Error::Unavailable("peer memory is for GPUs".to_owned()));
            }
        }
    }
    for reader in &gpus {
        for owner in &gpus {
            check_access(reader, owner)?;
        }
    }
    Ok(())
}

fn check_access(reader: &CudaDevice, owner: &CudaDevice) -> Result<(), Error> {
    if reader.ordinal() == owner.ordinal() {
        return Ok(());
    }
    let mut can = 0;
    // SAFETY: both devices are the driver's; one integer is written.
    let status =
        unsafe { driver::cuDeviceCanAccessPeer(&mut can, reader.handle(), owner.handle()) };
    status.result().map_err(failed("asking for peer access"))?;
    if can == 0 {
        let (a, b) = (reader.description(), owner.description());
        let (i, j) = (reader.ordinal(), owner.ordinal());
        let text = format!("GPU {i} ({a}) cannot read the memory of GPU {j} ({b})");
        return Err(Error::Unavailable(text));
    }
    Ok(())
}

/// Lets kernels on `reader` read memory of `owner`.
fn enable_access(reader: &CudaDevice, owner: &CudaDevice) -> Result<(), Error> {
    if reader.ordinal() == owner.ordinal() {
        return Ok(());
    }
    check_access(reader, owner)?;
    reader.make_current()?;
    // SAFETY: the context of `owner` is retained by it.
    match unsafe { driver::cuCtxEnablePeerAccess(owner.context(), 0) } {
        CUresult::CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED => Ok(()),
        status => status.result().map_err(failed("enabling peer access")),
    }
}
