//! Nodes with GPUs, as processes of one machine that talk NCCL: the same tokens as in one process.
//!
//! With two GPUs each node has its own. With one they share it, for which NCCL 2.30 is needed, and
//! which says nothing about speed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use minisgl_comm::nccl::NcclLibrary;
use minisgl_kernels::cuda::find_nccl;
use minisgl_model::{AllReduceChoice, DTypeChoice, EngineOptions, NodeConfig, RankGroup, Secret};
use minisgl_sched::{Request, SamplingParams, TokenId};

use crate::harness::{self, Quiet};

const CASES: [&str; 2] = ["llama", "qwen3"];
/// What the processes are told: their number, where node 0 is, where its tokens go, which GPU, how
/// large graphs get.
const PROCESS: &str = "MINISGL_TEST_NODE_PROCESS";

/// Prompts that take several steps, and decodes of changing sizes.
fn requests() -> Vec<Request> {
    let request = |id: u64| {
        let prompt: Vec<TokenId> =
            (0..5 + 20 * id).map(|at| ((at * 29 + id * 7) % 300) as TokenId).collect();
        harness::request(id, &prompt, 12, SamplingParams::GREEDY)
    };
    (0..7).map(request).collect()
}

fn options(graphs: usize) -> EngineOptions {
    EngineOptions {
        all_reduce: AllReduceChoice::Nccl,
        cuda_graph_max_bs: Some(graphs),
        ..harness::options(2, DTypeChoice::Float32)
    }
}

/// The tokens of a case, as text.
fn tokens(case: &str, options: &EngineOptions) -> String {
    let group = harness::launch(case, options).unwrap();
    let outputs = harness::run(&mut harness::driver(group, true), requests());
    let lines = outputs.iter().map(|output| format!("{case} {:?}\n", output.tokens));
    lines.collect()
}

/// The tokens of all cases on one rank.
fn alone() -> String {
    let one = harness::options(1, DTypeChoice::Float32);
    CASES.iter().map(|case| tokens(case, &one)).collect()
}

/// Whether there is an NCCL that can be told that ranks share a GPU.
fn nccl_can_share() -> bool {
    let info = find_nccl(&options(0).libraries);
    info.is_ok_and(|info| NcclLibrary::load(&info).unwrap().can_share_gpus())
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("minisgl-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Starts this test program again, for `test` alone.
fn start(test: &str, told: &str, variables: &[(&str, &str)]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(PROCESS, told)
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn end(process: Child) {
    let output = process.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// What two nodes say, on these GPUs.
fn two_nodes(gpus: [usize; 2], graphs: usize, variables: &[(&str, &str)]) -> String {
    let folder = folder("gpu-nodes");
    let file = folder.join("tokens");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nodes = [0, 1].map(|node| {
        let told = format!("{node} 127.0.0.1:{port} {} {} {graphs}", file.display(), gpus[node]);
        start("gpu_nodes::one_node", &told, variables)
    });
    nodes.into_iter().for_each(end);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    text
}

#[test]
fn two_nodes_with_a_gpu_each_sample_what_one_process_samples() {
    if !harness::on_gpu() {
        println!("skipped, since MINISGL_TEST_CUDA names no number of GPUs");
        return;
    }
    let expected = alone();
    if harness::tp_sizes().contains(&2) {
        let together: String = CASES.iter().map(|case| tokens(case, &options(8))).collect();
        assert_eq!(together, expected, "one process");
        // As NCCL chooses, which is NVLink on one machine; and over the network, as between machines.
        let network = [("NCCL_P2P_DISABLE", "1"), ("NCCL_SHM_DISABLE", "1")];
        for (graphs, variables) in [(0, &[][..]), (8, &[]), (8, &network)] {
            let got = two_nodes([0, 1], graphs, variables);
            assert_eq!(got, expected, "graphs {graphs}, {variables:?}");
        }
    } else if nccl_can_share() {
        let share = [("NCCL_MULTI_RANK_GPU_ENABLE", "1"), ("NCCL_MAX_CTAS", "4")];
        assert_eq!(two_nodes([0, 0], 0, &share), expected, "on one GPU");
    } else {
        println!("skipped, since there is one GPU, and no NCCL of 2.30 or later");
    }
}

#[test]
fn ranks_of_one_process_share_a_gpu_through_nccl_of_2_30() {
    if !harness::on_gpu() || !nccl_can_share() {
        println!("skipped, since there is no GPU, or no NCCL of 2.30 or later");
        return;
    }
    let folder = folder("gpu-shared");
    let file = folder.join("tokens");
    let share = [("NCCL_MULTI_RANK_GPU_ENABLE", "1"), ("NCCL_MAX_CTAS", "4")];
    end(start("gpu_nodes::one_process_on_one_gpu", &file.display().to_string(), &share));
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(text, alone());
}

#[test]
#[ignore = "a part of the first test, which starts it"]
fn one_node() {
    let told = std::env::var(PROCESS).unwrap();
    let [node, address, file, gpu, graphs] = told.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{told}")
    };
    let node: usize = node.parse().unwrap();
    let mut text = String::new();
    for case in CASES {
        let nodes = NodeConfig {
            num_nodes: 2,
            node,
            address: address.to_owned(),
            secret: Secret::new("the tests' own".to_owned()),
            join_timeout: Duration::from_secs(120),
            timeout: Duration::from_secs(60),
        };
        let options = EngineOptions {
            nodes: Some(nodes),
            gpus: Some(vec![gpu.parse().unwrap()]),
            ..options(graphs.parse().unwrap())
        };
        if node == 0 {
            text.push_str(&tokens(case, &options));
        } else {
            RankGroup::serve_node(&harness::checkpoint(case), &options, &Quiet, |_| {}).unwrap();
        }
    }
    if node == 0 {
        std::fs::write(Path::new(file), text).unwrap();
    }
}

#[test]
#[ignore = "a part of the second test, which starts it"]
fn one_process_on_one_gpu() {
    let file = std::env::var(PROCESS).unwrap();
    let shared = EngineOptions { gpus: Some(vec![0, 0]), nccl_shares_gpus: true, ..options(0) };
    let text: String = CASES.iter().map(|case| tokens(case, &shared)).collect();
    std::fs::write(file, text).unwrap();
}
