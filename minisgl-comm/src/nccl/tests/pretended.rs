//! NCCL and GPUs that are not there (`tests/pretend`): how ranks come together, what aborts and errors
//! do, and collectives over two processes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use minisgl_kernels::cuda::CudaLibraries;
use minisgl_kernels::{DType, Tensor};

use super::super::handle::Handle;
use super::super::watchdog::Watch;
use super::*;
use crate::Communicator as _;
use crate::nodes::{Node, NodeConfig, Secret};

/// A folder with the pretended libraries; gone when dropped.
struct Machine(PathBuf);

impl Machine {
    /// With NCCL alone. `defined`: for `nccl.c`, in the form of a compiler's arguments.
    fn new(name: &str, defined: &[&str]) -> Self {
        Self::with("nccl", name, defined)
    }

    fn with(what: &str, name: &str, defined: &[&str]) -> Self {
        let folder =
            std::env::temp_dir().join(format!("minisgl-nccl-{name}-{}", std::process::id()));
        let machine = Self(folder);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pretend/build.sh");
        let mut build = Command::new("sh");
        build.arg(script).arg(what).arg(&machine.0).args(defined);
        let built = build.output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        machine
    }

    /// What became of the communicators, in an order that does not depend on the threads'.
    fn noted(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.0.join("nccl.log")).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    }

    fn nccl(&self) -> PathBuf {
        self.0.join("libnccl.so.2")
    }

    /// Starts this test program again, for `test` alone.
    fn start(&self, test: &str, node: &str, id: &Path) -> std::process::Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("nccl::tests::pretended::{test}"), "--ignored"])
            .env("LD_LIBRARY_PATH", &self.0)
            .env("MINISGL_NCCL_SO", self.nccl())
            .env("MINISGL_KERNELS", self.0.join("libminisgl_kernels.so"))
            .env(NODE, node)
            .env(ID_FILE, id)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn load(&self) -> Result<Arc<NcclLibrary>, CommError> {
        let version = "0".to_owned();
        NcclLibrary::load(&LibraryInfo { path: Some(self.nccl()), version })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // What is left of it is in the system's folder for that.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const LONG: NcclTimeouts =
    NcclTimeouts { init: Duration::from_secs(60), collective: Duration::from_secs(60) };

fn group(library: &Arc<NcclLibrary>, ranks: Range<usize>, world_size: usize) -> NcclGroup {
    NcclGroup::new(library.clone(), ranks, world_size, LONG).unwrap()
}

#[test]
fn a_library_that_is_too_old_or_incomplete_is_an_error_that_says_so() {
    let error = Machine::new("old", &["-DVERSION=21804"]).load().unwrap_err().to_string();
    assert!(error.ends_with("it is version 2.18.4, 2.19 or later is needed"), "{error}");
    let error = Machine::new("part", &["-DWITHOUT_ABORT"]).load().unwrap_err().to_string();
    assert!(error.ends_with("it has no function ncclCommAbort"), "{error}");
}

#[test]
fn ranks_may_share_a_gpu_from_2_30_on() {
    let versions = [("22907", "2.29.7", false), ("23004", "2.30.4", true)];
    for (code, version, can_share) in versions {
        let library = Machine::new(code, &[&format!("-DVERSION={code}")]).load().unwrap();
        assert_eq!((library.version().as_str(), library.can_share_gpus()), (version, can_share));
    }
}

#[test]
fn a_group_has_the_ranks_of_its_process_alone() {
    let machine = Machine::new("ranks", &[]);
    let library = machine.load().unwrap();
    let new = |ranks, world_size| NcclGroup::new(library.clone(), ranks, world_size, LONG).err();
    assert!(matches!(new(0..0, 0), Some(CommError::WorldSize { world_size: 0 })));
    assert!(matches!(new(2..2, 4), Some(CommError::Rank { .. })));
    let error = new(2..5, 4).unwrap().to_string();
    assert_eq!(error, "there is no rank 4 here, there are 0 to 3");
    // A rank of another process.
    let group = group(&library, 2..4, 4);
    let id = NcclId::from_bytes([0; NcclId::BYTES]);
    let cpu = Device::cpu(std::num::NonZeroUsize::MIN).unwrap();
    let error = group.connect(id, 1, &cpu).err().unwrap().to_string();
    assert_eq!(error, "there is no rank 1 here, there are 2 to 3");
    assert_eq!(
        &*group.abort_handle().reason().unwrap(),
        "rank 1: there is no rank 1 here, there are 2 to 3"
    );
}

#[test]
fn ranks_of_two_groups_meet_by_the_id_and_end_their_communicators_once() {
    let machine = Machine::new("meet", &[]);
    let library = machine.load().unwrap();
    let id = NcclId::new(&library).unwrap();
    let groups = [group(&library, 0..1, 2), group(&library, 1..2, 2)];
    // An end is an error to those who have not met yet.
    let met = &std::sync::Barrier::new(2);
    thread::scope(|scope| {
        for (rank, group) in groups.iter().enumerate() {
            // The id as it comes from another process.
            let id = NcclId::from_bytes(id.to_bytes());
            scope.spawn(move || {
                let handle = Handle::connect(group, id, rank).unwrap();
                met.wait();
                handle.abort();
                let error = handle.async_error("nothing").unwrap_err();
                assert!(matches!(error, CommError::Aborted { .. }), "{error}");
            });
        }
    });
    assert_eq!(machine.noted(), ["aborted 0", "aborted 1", "made 0", "made 1"]);
}

#[test]
fn ranks_that_do_not_come_are_waited_for_until_the_time_is_over_or_an_abort() {
    let machine = Machine::new("never", &["-DNEVER_MEETS"]);
    let library = machine.load().unwrap();
    let id = NcclId::new(&library).unwrap();
    let init = Duration::from_millis(50);
    let short = NcclTimeouts { init, ..LONG };
    let group_in_haste = NcclGroup::new(library.clone(), 0..1, 2, short).unwrap();
    let error = Handle::connect(&group_in_haste, id, 0).err().unwrap().to_string();
    assert_eq!(error, "ncclCommInitRankConfig: not done within 0.05 s");

    let patient = group(&library, 1..2, 2);
    let abort = patient.abort_handle();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| Handle::connect(&patient, id, 1).err().unwrap());
        while !machine.noted().contains(&"made 1".to_owned()) {
            thread::yield_now();
        }
        abort.abort("node 1: no sign of life");
        assert!(
            matches!(waiting.join().unwrap(), CommError::Aborted { reason } if &*reason == "node 1: no sign of life")
        );
    });
    assert_eq!(machine.noted(), ["aborted 0", "aborted 1", "made 0", "made 1"]);
}

/// A rank alone, with a watchdog that has nothing to watch but what NCCL says.
fn watched(group: &NcclGroup, id: NcclId, rank: usize) -> (Arc<Watch>, thread::JoinHandle<()>) {
    let handle = Handle::connect(group, id, rank).unwrap();
    let cpu = Device::cpu(std::num::NonZeroUsize::MIN).unwrap();
    let rendezvous = group.rendezvous.clone();
    Watch::start(rank, &cpu, handle, rendezvous, LONG.collective).unwrap()
}

#[test]
fn an_error_that_shows_later_ends_the_group() {
    let file = std::env::temp_dir().join(format!("minisgl-nccl-now-{}", std::process::id()));
    let defined = format!("-DERROR_FILE=\"{}\"", file.display());
    let machine = Machine::new("later", &["-DLATER_ERROR=2", &defined]);
    let group = group(&machine.load().unwrap(), 0..1, 1);
    let id = NcclId::new(&group.library).unwrap();
    let (_watch, thread) = watched(&group, id, 0);
    std::fs::write(&file, "").unwrap();
    thread.join().unwrap();
    std::fs::remove_file(&file).unwrap();
    let reason = group.abort_handle().reason().unwrap();
    assert_eq!(&*reason, "rank 0: a collective: a pretended error");
    assert_eq!(machine.noted(), ["aborted 0", "made 0"]);
}

/// Status 6 is `ncclRemoteError`.
#[test]
fn that_a_rank_elsewhere_is_gone_waits_for_the_reason() {
    let machine = Machine::new("remote", &["-DLATER_ERROR=6"]);
    let library = machine.load().unwrap();
    let connect = |group: &NcclGroup| {
        let id = NcclId::new(&library).unwrap();
        Handle::connect(group, id, 0).err().unwrap().to_string()
    };
    let alone = group(&library, 0..1, 1);
    assert_eq!(connect(&alone), "ncclCommInitRankConfig: a pretended rank is gone");
    let told = group(&library, 0..1, 1);
    let abort = told.abort_handle();
    let link = thread::spawn(move || abort.abort("rank 5 has burnt down"));
    assert_eq!(connect(&told), "the group of ranks was aborted: rank 5 has burnt down");
    link.join().unwrap();
}

#[test]
fn an_abort_on_one_node_ends_the_communicators_of_all() {
    let machine = Machine::new("links", &[]);
    let library = machine.load().unwrap();
    let id = NcclId::new(&library).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let met = &std::sync::Barrier::new(3);
    thread::scope(|scope| {
        for node in 0..3 {
            let group = group(&library, node..node + 1, 3);
            let config = NodeConfig {
                num_nodes: 3,
                node,
                address: address.clone(),
                secret: Secret::new("the tests' own".to_owned()),
                join_timeout: Duration::from_secs(60),
                timeout: Duration::from_secs(60),
            };
            scope.spawn(move || {
                let abort = group.abort_handle();
                let mut links = Vec::new();
                for (link, receiver) in Node::join(config, &[]).unwrap().into_links(&abort) {
                    receiver.spawn(abort.clone(), |_| {}).unwrap();
                    links.push(link);
                }
                let (_watch, thread) = watched(&group, id, node);
                met.wait();
                if node == 2 {
                    abort.abort("rank 2: a GPU fell off the bus");
                }
                thread.join().unwrap();
                assert_eq!(&*abort.reason().unwrap(), "rank 2: a GPU fell off the bus");
            });
        }
    });
    let noted = machine.noted();
    assert_eq!(noted, ["aborted 0", "aborted 1", "aborted 2", "made 0", "made 1", "made 2"]);
}

/// What the processes of the next test are told: their number, and the id.
const NODE: &str = "MINISGL_TEST_PRETENDED_NODE";
const ID_FILE: &str = "MINISGL_TEST_PRETENDED_ID";

#[test]
fn ranks_of_two_processes_sum_gather_and_broadcast_and_again_in_a_graph() {
    let machine = Machine::with("all", "sums", &[]);
    let id = machine.0.join("id");
    let bytes = NcclId::new(&machine.load().unwrap()).unwrap().to_bytes();
    std::fs::write(&id, bytes).unwrap();
    let nodes = [0, 1].map(|node| machine.start("one_process", &node.to_string(), &id));
    nodes.into_iter().for_each(end);
}

#[test]
fn a_collective_that_hangs_is_ended_by_the_watchdog() {
    let machine = Machine::with("all", "hangs", &[]);
    let id = machine.0.join("id");
    let bytes = NcclId::new(&machine.load().unwrap()).unwrap().to_bytes();
    std::fs::write(&id, bytes).unwrap();
    end(machine.start("one_process_that_hangs", "0", &id));
    assert_eq!(machine.noted(), ["aborted 0", "aborted 1", "made 0", "made 1"]);
}

fn end(process: std::process::Child) {
    let output = process.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// What a process is told: the number of its node, the id of the group, and the libraries.
fn told() -> (usize, NcclId, PathBuf, Arc<NcclLibrary>, CudaLibraries) {
    let path = |name| std::env::var_os(name).map(PathBuf::from);
    let search = LibrarySearch {
        nccl: path("MINISGL_NCCL_SO"),
        kernels: path("MINISGL_KERNELS"),
        ..LibrarySearch::default()
    };
    let node = std::env::var(NODE).unwrap().parse().unwrap();
    let id_file = path(ID_FILE).unwrap();
    let id = NcclId::from_bytes(std::fs::read(&id_file).unwrap().try_into().unwrap());
    let library = NcclLibrary::load(&find_nccl(&search).unwrap()).unwrap();
    let folder = id_file.parent().unwrap().to_owned();
    (node, id, folder, library, CudaLibraries::load(&search).unwrap())
}

/// Two ranks of four, on two GPUs.
#[test]
#[ignore = "a part of the test above, which starts it"]
fn one_process() {
    let (node, id, folder, library, gpus) = told();
    let ranks = 2 * node..2 * node + 2;
    let group = &group(&library, ranks.clone(), 4);
    thread::scope(|scope| {
        for (gpu, rank) in ranks.enumerate() {
            let device = Device::cuda(gpu, &gpus).unwrap();
            let folder = &folder;
            scope.spawn(move || {
                let connected = group.connect(id, rank, &device).unwrap();
                collectives(&connected, &device);
                // Who leaves earlier aborts what the others still do.
                std::fs::write(folder.join(format!("done-{rank}")), "").unwrap();
                let done = |rank: usize| folder.join(format!("done-{rank}")).exists();
                while !(0..4).all(done) && group.abort_handle().reason().is_none() {
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
    });
    assert!(group.abort_handle().reason().unwrap().contains("left the group"));
}

/// Two ranks, one of which does not come to the sum.
#[test]
#[ignore = "a part of the test above, which starts it"]
fn one_process_that_hangs() {
    let (_, id, _, library, gpus) = told();
    let timeouts = NcclTimeouts { collective: Duration::from_millis(300), ..LONG };
    let group = &NcclGroup::new(library, 0..2, 2, timeouts).unwrap();
    let open = |gpu| Device::cuda(gpu, &gpus).unwrap();
    let expected = "rank 0: a collective takes longer than 0.3 s";
    thread::scope(|scope| {
        let devices = [open(0), open(1)];
        for (rank, device) in devices.into_iter().enumerate() {
            scope.spawn(move || {
                let connected = group.connect(id, rank, &device).unwrap();
                let stream = device.new_stream().unwrap();
                let mut data = device.zeros(DType::F32, [4]).unwrap();
                if rank == 0 {
                    connected.all_reduce(&stream, data.view_mut()).unwrap();
                    stream.synchronize().unwrap();
                }
                while group.abort_handle().reason().is_none() {
                    thread::sleep(Duration::from_millis(1));
                }
                match connected.barrier() {
                    Err(CommError::Aborted { reason }) => assert_eq!(&*reason, expected),
                    other => panic!("{other:?}"),
                }
            });
        }
    });
}

fn collectives(rank: &NcclRank, device: &Device) {
    let stream = device.new_stream().unwrap();
    let own = rank.rank() as f32;
    assert_eq!(rank.world_size(), 4);
    // More than a block of the pretended NCCL.
    let values: Vec<f32> = (0..50_000).map(|i| own + i as f32).collect();
    let mut data = Tensor::from_slice(device, [50_000], &values).unwrap();
    rank.all_reduce(&stream, data.view_mut()).unwrap();
    stream.synchronize().unwrap();
    let sums: Vec<f32> = (0..50_000).map(|i| (6 + 4 * i) as f32).collect();
    assert_eq!(data.to_vec::<f32>().unwrap(), sums);

    // Columns of a matrix: in parts, and the other columns stay.
    let mut matrix = Tensor::from_slice(device, [3, 4], &[own; 12]).unwrap();
    rank.all_reduce(&stream, matrix.view_mut().columns(1..3).unwrap()).unwrap();
    stream.synchronize().unwrap();
    assert_eq!(matrix.to_vec::<f32>().unwrap(), [own, 6.0, 6.0, own].repeat(3));

    let input = Tensor::from_slice(device, [2], &[rank.rank() as i32, -1]).unwrap();
    let mut output = device.zeros(DType::I32, [4, 2]).unwrap();
    rank.all_gather(&stream, input.view(), output.view_mut()).unwrap();
    stream.synchronize().unwrap();
    assert_eq!(output.to_vec::<i32>().unwrap(), [0, -1, 1, -1, 2, -1, 3, -1]);

    for root in 0..4 {
        let mut seeds = Tensor::from_slice(device, [1], &[u64::MAX - rank.rank() as u64]).unwrap();
        rank.broadcast(&stream, seeds.view_mut(), root).unwrap();
        stream.synchronize().unwrap();
        assert_eq!(seeds.to_vec::<u64>().unwrap(), [u64::MAX - root as u64]);
    }
    rank.barrier().unwrap();

    // Captured, then run twice on what is there by then: 1 on each rank, then 4.
    let mut ones = Tensor::from_slice(device, [5], &[1.0f32; 5]).unwrap();
    let (graph, ()) = stream.capture(|| rank.all_reduce(&stream, ones.view_mut())).unwrap();
    rank.barrier().unwrap();
    graph.launch(&stream).unwrap();
    graph.launch(&stream).unwrap();
    stream.synchronize().unwrap();
    assert_eq!(ones.to_vec::<f32>().unwrap(), [16.0; 5]);
    drop(graph);
    rank.barrier().unwrap();
}
