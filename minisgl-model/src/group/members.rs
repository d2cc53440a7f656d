//! How the ranks of this process reach each other: nothing for one, threads for those of a CPU, NCCL
//! and peer memory for GPUs. NCCL also reaches those of other processes.
//! Knows devices and collectives; never what is exchanged.

use std::sync::Arc;

use minisgl_comm::nccl::{NcclGroup, NcclId, NcclLibrary, NcclTimeouts};
use minisgl_comm::peers::{PeerLimits, PeerSetup, share_a_gpu};
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

/// One for each rank of a group in this process alone, whose devices these are.
pub(super) fn members(
    devices: &[Device],
    options: &EngineOptions,
    nccl: Option<Arc<NcclLibrary>>,
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
    let Some(library) = nccl else { return shared(devices, peers) };
    // Who says p2p wants it for all that it can do.
    let measures = options.all_reduce == AllReduceChoice::Auto && !share_a_gpu(devices);
    let peers = if measures { peers.map(PeerSetup::measured) } else { peers };
    let id = NcclId::new(&library)?;
    let group = nccl_group(library, options)?;
    Ok(nccl_members(&group, id, devices, peers.as_ref()))
}

/// NCCL, if these devices' ranks need it: GPUs on which NCCL sums what peer memory does not.
///
/// # Errors
/// If there is no NCCL, or if it is too old for ranks that share a GPU.
pub(super) fn load_nccl(
    devices: &[Device],
    options: &EngineOptions,
) -> Result<Option<Arc<NcclLibrary>>, ModelError> {
    if matches!(devices[0], Device::Cpu(_)) || options.tp_size.get() == 1 {
        return Ok(None);
    }
    let shares = share_a_gpu(devices);
    if shares && !sums_by_nccl_alone(options) {
        return Ok(None);
    }
    let info = find_nccl(&options.libraries).map_err(minisgl_kernels::Error::Unavailable)?;
    let library = NcclLibrary::load(&info)?;
    if shares && !library.can_share_gpus() {
        let problem = format!(
            "names a GPU for several ranks, which NCCL {} refuses: 2.30 or later is needed",
            library.version()
        );
        return Err(ModelError::Option { option: "--devices", problem });
    }
    Ok(Some(library))
}

/// Whether peer memory has no part in it, by what the user has chosen.
fn sums_by_nccl_alone(options: &EngineOptions) -> bool {
    options.nodes.is_some() || options.all_reduce == AllReduceChoice::Nccl
}

/// The ranks of this process, as NCCL sees them.
pub(super) fn nccl_group(
    library: Arc<NcclLibrary>,
    options: &EngineOptions,
) -> Result<NcclGroup, ModelError> {
    let timeouts = NcclTimeouts { init: options.init_timeout, collective: options.nccl_timeout };
    Ok(NcclGroup::new(library, options.local_ranks()?, options.tp_size.get(), timeouts)?)
}

/// One for each rank of `group`, whose devices these are; all ranks of all processes meet by `id`.
pub(super) fn nccl_members(
    group: &NcclGroup,
    id: NcclId,
    devices: &[Device],
    peers: Option<&PeerSetup>,
) -> Vec<Member> {
    let group = group.clone();
    let group = if share_a_gpu(devices) { group.with_shared_gpus() } else { group };
    let member = |(rank, device): (usize, &Device)| {
        let (group, device, peers) = (group.clone(), device.clone(), peers.cloned());
        let abort = group.abort_handle();
        let connect = move || -> Result<Box<dyn Communicator>, ModelError> {
            let base = Box::new(group.connect(id, rank, &device)?);
            let abort = group.abort_handle();
            Ok(match peers {
                Some(peers) => Box::new(peers.connect(base, abort)?),
                None => base,
            })
        };
        Member { connect: Box::new(connect), abort }
    };
    group.ranks().zip(devices).map(member).collect()
}

/// Refuses ways to sum that these devices do not have.
pub(super) fn check_all_reduce(
    devices: &[Device],
    options: &EngineOptions,
    observer: &dyn LaunchObserver,
) -> Result<(), ModelError> {
    let refuse =
        |option, problem: &str| Err(ModelError::Option { option, problem: problem.to_owned() });
    let choice = options.all_reduce;
    let name = match choice {
        AllReduceChoice::Auto => "auto",
        AllReduceChoice::Nccl => "nccl",
        AllReduceChoice::P2p => "p2p",
    };
    if matches!(devices[0], Device::Cpu(_)) {
        return match choice {
            AllReduceChoice::Auto => Ok(()),
            _ => refuse("--all-reduce", &format!("{name} is for GPUs: use auto on CPUs")),
        };
    }
    if options.tp_size.get() == 1 {
        if choice != AllReduceChoice::Auto {
            observer.warn(&format!("--all-reduce {name} does nothing: one rank has all there is"));
        }
        return Ok(());
    }
    if sums_by_nccl_alone(options) && share_a_gpu(devices) && !options.nccl_shares_gpus {
        let problem = "names a GPU for several ranks, which NCCL takes from 2.30 on, and only if \
                       NCCL_MULTI_RANK_GPU_ENABLE=1 is set; without --nnodes, --all-reduce auto \
                       and p2p do without NCCL there";
        return refuse("--devices", problem);
    }
    match choice {
        AllReduceChoice::P2p if options.nodes.is_some() => refuse(
            "--all-reduce",
            "p2p is for GPUs of one process, which read each other's memory: use nccl with \
             --nnodes, or auto, which is then the same",
        ),
        AllReduceChoice::Auto if options.nodes.is_some() => {
            observer.warn(
                "all sums go through NCCL, small ones too: GPUs of several nodes do not read each \
                 other's memory (--all-reduce nccl says that you know)",
            );
            Ok(())
        }
        _ => Ok(()),
    }
}

/// As [`members`], for ranks that need no abort from outside.
pub(crate) fn connect_all(
    devices: &[Device],
    options: &EngineOptions,
    observer: &dyn LaunchObserver,
) -> Result<Vec<Connect>, ModelError> {
    let members = members(devices, options, load_nccl(devices, options)?, observer)?;
    Ok(members.into_iter().map(|member| member.connect).collect())
}

fn peer_setup(devices: &[Device]) -> Result<PeerSetup, CommError> {
    let limits = if share_a_gpu(devices) {
        PeerLimits::sharing_a_gpu()
    } else {
        PeerLimits::for_world(devices.len())
    };
    PeerSetup::new(devices, limits)
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
