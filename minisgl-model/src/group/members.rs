//! How the ranks of this process reach each other: nothing for one, threads for those of a CPU, NCCL
//! and peer memory for GPUs.
//! Knows devices and collectives; never what is exchanged.

use minisgl_comm::nccl::{NcclGroup, NcclId, NcclLibrary, NcclTimeouts};
use minisgl_comm::peers::{PeerLimits, PeerSetup};
use minisgl_comm::{AbortHandle, CommError, Communicator, SingleRank, thread_group};
use minisgl_kernels::Device;
use minisgl_kernels::cuda::find_nccl;

use crate::options::AllReduceChoice;
use crate::{EngineOptions, LaunchObserver, ModelError};

/// Makes a rank's communicator, on the rank's own thread; waits there for the other ranks.
pub(crate) type Connect = Box<dyn FnOnce() -> Result<Box<dyn Communicator>, ModelError> + Send>;

/// A rank's way to the others, with what aborts the group.
pub(super) struct Member {
    pub(super) connect: Connect,
    pub(super) abort: AbortHandle,
}

impl Member {
    /// Of a communicator that is there already.
    pub(super) fn of(comm: Box<dyn Communicator>, abort: AbortHandle) -> Self {
        Self { connect: Box::new(move || Ok(comm)), abort }
    }
}

/// One for each rank, whose devices these are.
pub(super) fn members(
    devices: &[Device],
    options: &EngineOptions,
    observer: &dyn LaunchObserver,
) -> Result<Vec<Member>, ModelError> {
    if devices.len() == 1 {
        let rank = SingleRank::new();
        let abort = rank.abort_handle();
        return Ok(vec![Member::of(Box::new(rank), abort)]);
    }
    if matches!(devices[0], Device::Cpu(_)) {
        return threads(devices.len());
    }
    let peers = match options.all_reduce {
        AllReduceChoice::Nccl => None,
        AllReduceChoice::P2p => Some(peer_setup(devices)?),
        AllReduceChoice::Auto => match peer_setup(devices) {
            Ok(peers) => Some(peers),
            // NCCL finds another way.
            Err(error) => {
                observer.warn(&format!(
                    "sums of small arrays will be slow, since they cannot go through the GPUs' own \
                     memory (GPUs want NVLink, or PCIe that lets them read each other): {error}"
                ));
                None
            }
        },
    };
    if share_a_gpu(devices) {
        return shared(devices, peers);
    }
    let info = find_nccl(&options.libraries).map_err(minisgl_kernels::Error::Unavailable)?;
    let library = NcclLibrary::load(&info)?;
    let id = NcclId::new(&library)?;
    let timeouts = NcclTimeouts { init: options.init_timeout, collective: options.nccl_timeout };
    let group = NcclGroup::new(library, id, devices.len(), timeouts)?;
    let member = |(rank, device): (usize, &Device)| {
        let (group, device, peers) = (group.clone(), device.clone(), peers.clone());
        let abort = group.abort_handle();
        let connect = move || -> Result<Box<dyn Communicator>, ModelError> {
            let base = Box::new(group.connect(rank, &device)?);
            let abort = group.abort_handle();
            Ok(match peers {
                Some(peers) => Box::new(peers.connect(base, abort)?),
                None => base,
            })
        };
        Member { connect: Box::new(connect), abort }
    };
    Ok(devices.iter().enumerate().map(member).collect())
}

/// Refuses ways to sum that these devices do not have.
pub(super) fn check_all_reduce(
    devices: &[Device],
    options: &EngineOptions,
    observer: &dyn LaunchObserver,
) -> Result<(), ModelError> {
    let name = match options.all_reduce {
        AllReduceChoice::Auto => return Ok(()),
        AllReduceChoice::Nccl => "nccl",
        AllReduceChoice::P2p => "p2p",
    };
    let problem = match &devices[0] {
        Device::Cpu(_) => format!("{name} is for GPUs: use auto on CPUs"),
        Device::Cuda(_) if options.all_reduce == AllReduceChoice::Nccl && share_a_gpu(devices) => {
            "nccl refuses ranks that share a GPU: use auto or p2p".to_owned()
        }
        Device::Cuda(_) if devices.len() == 1 => {
            observer.warn(&format!("--all-reduce {name} does nothing: one rank has all there is"));
            return Ok(());
        }
        Device::Cuda(_) => return Ok(()),
    };
    Err(ModelError::Option { option: "--all-reduce", problem })
}

/// As [`members`], for ranks that need no abort from outside.
pub(crate) fn connect_all(
    devices: &[Device],
    options: &EngineOptions,
    observer: &dyn LaunchObserver,
) -> Result<Vec<Connect>, ModelError> {
    let members = members(devices, options, observer)?;
    Ok(members.into_iter().map(|member| member.connect).collect())
}

/// Whether two ranks are on one GPU: good for tests, never for speed. NCCL refuses it, and nothing
/// that waits for another rank may then be in a graph.
pub(super) fn share_a_gpu(devices: &[Device]) -> bool {
    let ordinal = |device: &Device| match device {
        Device::Cpu(_) => None,
        Device::Cuda(device) => Some(device.ordinal()),
    };
    let mut ordinals: Vec<usize> = devices.iter().filter_map(ordinal).collect();
    ordinals.sort_unstable();
    ordinals.windows(2).any(|pair| pair[0] == pair[1])
}

fn peer_setup(devices: &[Device]) -> Result<PeerSetup, CommError> {
    PeerSetup::new(devices, PeerLimits::for_world(devices.len()))
}

fn threads(world_size: usize) -> Result<Vec<Member>, ModelError> {
    let member = |rank: minisgl_comm::ThreadRank| {
        let abort = rank.abort_handle();
        Member::of(Box::new(rank), abort)
    };
    Ok(thread_group(world_size)?.into_iter().map(member).collect())
}

/// Through the host, but for what peer memory sums.
fn shared(devices: &[Device], peers: Option<PeerSetup>) -> Result<Vec<Member>, ModelError> {
    if devices.iter().any(|device| device.description() != devices[0].description()) {
        let problem = "ranks share a GPU, and others do not: name one GPU for all of them, or \
                       each once"
            .to_owned();
        return Err(ModelError::Option { option: "--devices", problem });
    }
    let Some(peers) = peers else { return threads(devices.len()) };
    let member = |base: Member| {
        let (peers, abort) = (peers.clone(), base.abort.clone());
        let connect = move || -> Result<Box<dyn Communicator>, ModelError> {
            Ok(Box::new(peers.connect((base.connect)()?, base.abort)?))
        };
        Member { connect: Box::new(connect), abort }
    };
    Ok(threads(devices.len())?.into_iter().map(member).collect())
}
