//! The program on GPUs that are not there (`minisgl-comm/tests/pretend`), as one process and as several
//! nodes: everything but what kernels compute. So answers have their lengths and no sense.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::client::{Response, request};
use crate::group::{Group, Process, Variables, free_address};
use crate::server::JSON;

/// Libraries to take in place of those of a machine with two GPUs.
struct Machine(PathBuf);

impl Machine {
    /// `defined`: for `nccl.c`, in the form of a compiler's arguments.
    fn new(name: &str, defined: &[&str]) -> Self {
        // The folder of the others is too deep for the name in an NCCL id.
        let folder =
            std::env::temp_dir().join(format!("minisgl-gpus-{}-{name}", std::process::id()));
        let script = "../minisgl-comm/tests/pretend/build.sh";
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
        let mut build = Command::new("sh");
        let built = build.arg(script).arg("all").arg(&folder).args(defined).output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Self(folder)
    }

    /// What a process on it finds in its environment.
    fn variables(&self) -> Variables {
        let file = |name: &str| self.0.join(name).display().to_string();
        vec![
            ("LD_LIBRARY_PATH", self.0.display().to_string()),
            ("MINISGL_NCCL_SO", file("libnccl.so.2")),
            ("MINISGL_KERNELS", file("libminisgl_kernels.so")),
            // What is measured on it says nothing about others.
            ("XDG_CACHE_HOME", file("cache")),
        ]
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Small enough for a machine that pretends: two sizes of graphs.
const OPTIONS: &str = "--device cuda --page-size 16 --cuda-graph-max-bs 2 --dist-timeout 1.5";

impl Machine {
    fn start(&self, num_nodes: usize, tp_size: usize, more: &str) -> Group {
        let options = format!("{OPTIONS} {more}");
        Group::start_with(self.variables(), num_nodes, tp_size, &options)
    }
}

/// A process that is not meant to serve.
fn start(line: &str, machine: &Machine, more: Variables) -> Process {
    let line = format!("{OPTIONS} --num-pages 4096 --port 0 {line}");
    let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    Process::start_with(&machine.variables().into_iter().chain(more).collect(), &args)
}

/// The options of one of two nodes, whose number comes next.
fn nodes_at(address: &str) -> String {
    format!("--tp 2 --nnodes 2 --all-reduce nccl --dist-init-addr {address} --node-rank")
}

fn end_well(group: &mut Group) {
    group.processes[0].signal("TERM");
    for process in &mut group.processes {
        let status = process.end();
        assert!(status.success(), "{status}:\n{}", process.log.text());
    }
}

/// A prompt that is cut into chunks beside two short ones: steps with graphs and without.
async fn serves(group: &Group) {
    let long = "The quick brown fox jumps over the lazy dog. ".repeat(20);
    let prompts = json!([long, "Once upon a time", "What is"]);
    let question =
        json!({"prompt": prompts, "max_tokens": 24, "temperature": 0, "ignore_eos": true});
    let response = group.post(&question).await;
    assert_eq!(response.status(), 200, "{}", response.text());
    assert_eq!(response.json()["usage"]["completion_tokens"], 3 * 24);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_gpus_meet_through_nccl_serve_and_end() {
    let machine = Machine::new("serve", &[]);
    let said = "all sums go through NCCL";
    for (num_nodes, tp_size, way) in
        [(1, 2, "nccl"), (2, 2, "auto"), (2, 4, "nccl"), (4, 8, "nccl")]
    {
        let mut group = machine.start(num_nodes, tp_size, &format!("--all-reduce {way}"));
        serves(&group).await;
        end_well(&mut group);
        for process in &group.processes {
            let log = process.log.text();
            assert!(log.contains("Initializing tensor parallelism with"), "{log}");
            assert_eq!(log.contains(said), way == "auto", "{log}");
        }
    }
    // Every communicator had its end, and none had two.
    let log = std::fs::read_to_string(machine.0.join("nccl.log")).unwrap();
    let count = |what: &str| log.lines().filter(|line| line.starts_with(what)).count();
    assert_eq!((count("made "), count("aborted ")), (2 + 2 + 4 + 8, 2 + 2 + 4 + 8), "{log}");
}

/// Asks for more than can be computed in a test, and waits until some of it runs.
async fn occupy(group: &Group) -> tokio::task::JoinHandle<Response> {
    let question = json!({"prompt": vec!["Once upon a time"; 64], "max_tokens": 1500,
        "temperature": 0, "ignore_eos": true});
    let (address, body) = (group.address, question.to_string());
    let asking = tokio::spawn(async move {
        request(address, "POST", "/v1/completions", &[JSON], body.as_bytes()).await
    });
    loop {
        let metrics = request(group.address, "GET", "/metrics", &[], b"").await.text();
        if metrics.lines().any(|line| line == "minisgl_num_running_reqs 8") {
            return asking;
        }
        assert!(!asking.is_finished(), "{}", asking.await.unwrap().text());
    }
}

/// Kills or stops a node, idle or in decode steps, and looks on from the other one.
async fn lose(machine: &Machine, node: usize, signal: &str, is_idle: bool) -> String {
    let mut group = machine.start(2, 2, "--all-reduce nccl");
    let asking = if is_idle { None } else { Some(occupy(&group).await) };
    assert_eq!(group.health().await, 200);
    group.processes[node].signal(signal);
    if let Some(asking) = asking.filter(|_| node == 1) {
        let response = asking.await.unwrap();
        assert!(response.status() >= 500, "{}", response.text());
        assert!(response.text().contains("the engine has failed"), "{}", response.text());
    }
    group.processes[1 - node].end_with_failure()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_gpus_that_is_killed_or_stands_still_ends_the_group() {
    let machine = Machine::new("lose", &[]);
    for (node, signal, is_idle, what) in [
        (1, "KILL", true, "node 1: it is gone"),
        (1, "KILL", false, "node 1: it is gone"),
        (1, "STOP", true, "node 1: no sign of life for 1.2 s"),
        (1, "STOP", false, "node 1: no sign of life for 1.2 s"),
        (0, "KILL", true, "node 0: it is gone"),
        (0, "KILL", false, "node 0: it is gone"),
        (0, "STOP", false, "node 0: no sign of life for 1.2 s"),
    ] {
        let log = lose(&machine, node, signal, is_idle).await;
        assert!(log.contains(what), "{what} is not in:\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_nccl_on_an_idle_node_ends_both_with_the_reason() {
    let file = std::env::temp_dir().join(format!("minisgl-gpus-{}-now", std::process::id()));
    let defined = format!("-DERROR_FILE=\"{}\"", file.display());
    let machine = Machine::new("error", &["-DLATER_ERROR=2", "-DERROR_RANK=1", &defined]);
    let mut group = machine.start(2, 2, "--all-reduce nccl");
    serves(&group).await;
    std::fs::write(&file, "").unwrap();
    let logs = [0, 1].map(|node| group.processes[node].end_with_failure());
    std::fs::remove_file(&file).unwrap();
    let reason = "rank 1: a collective: a pretended error";
    assert!(logs.iter().all(|log| log.contains(reason)), "{logs:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_lost_while_nccl_meets_is_named() {
    let machine = Machine::new("meet", &["-DNEVER_MEETS"]);
    let nodes = nodes_at(&free_address());
    let mut processes = [0, 1].map(|node| start(&format!("{nodes} {node}"), &machine, Vec::new()));
    let log = machine.0.join("nccl.log");
    let both = || std::fs::read_to_string(&log).is_ok_and(|log| log.lines().count() == 2);
    while !both() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    processes[1].signal("KILL");
    let log = processes[0].end_with_failure();
    assert!(log.contains("node 1: it is gone"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_other_versions_of_nccl_or_without_gpus_are_named() {
    let here = Machine::new("here", &[]);
    let there = Machine::new("there", &["-DVERSION=23004"]);
    let nodes = nodes_at(&free_address());
    let version = "node 1 differs from node 0: NCCL is 2.30.4 there and 2.28.9 on node 0";
    let device = "device is CPU there and GPU on node 0";
    let cpu = format!("--device cpu {}", nodes.replace("nccl", "auto"));
    for (line, machine, what) in [(&nodes, &there, version), (&cpu, &here, device)] {
        let mut node_0 = start(&format!("{nodes} 0"), &here, Vec::new());
        // The last of two options counts.
        let line = format!("{OPTIONS} --port 0 {line} 1");
        let line = line.replacen("--device cuda ", "", usize::from(line.contains("--device cpu")));
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let mut node_1 = Process::start_with(&machine.variables(), &args);
        for log in [node_0.end_with_failure(), node_1.end_with_failure()] {
            assert!(log.contains(what), "{what} is not in:\n{log}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ways_to_sum_that_there_are_not_are_refused_and_nccl_of_2_30_shares_a_gpu() {
    let old = Machine::new("old", &[]);
    let new = Machine::new("new", &["-DVERSION=23004"]);
    let enabled = || vec![("NCCL_MULTI_RANK_GPU_ENABLE", "1".to_owned())];
    let nodes = format!("--nnodes 2 --dist-init-addr {}", free_address());
    for (line, machine, more, what) in [
        (
            format!("--tp 2 {nodes} --all-reduce p2p"),
            &new,
            Vec::new(),
            "--all-reduce p2p is for GPUs of one process",
        ),
        (
            "--tp 2 --devices 0,0 --all-reduce nccl".to_owned(),
            &new,
            Vec::new(),
            "only if NCCL_MULTI_RANK_GPU_ENABLE=1 is set",
        ),
        (
            format!("--tp 4 --devices 0,0 {nodes}"),
            &new,
            Vec::new(),
            "only if NCCL_MULTI_RANK_GPU_ENABLE=1 is set",
        ),
        (
            "--tp 2 --devices 0,0 --all-reduce nccl".to_owned(),
            &old,
            enabled(),
            "--devices names a GPU for several ranks, which NCCL 2.28.9 refuses",
        ),
        (format!("--tp 4 --devices 0,1,1 {nodes}"), &new, enabled(), "3 GPUs for 2 ranks"),
    ] {
        let log = start(&line, machine, more).end_with_failure();
        assert!(log.contains(what), "{what} is not in:\n{log}");
    }
    let variables = new.variables().into_iter().chain(enabled()).collect();
    let shared = "--device cuda --devices 0,0 --all-reduce nccl --page-size 16";
    let mut group = Group::start_with(variables, 1, 2, shared);
    serves(&group).await;
    end_well(&mut group);
    let log = std::fs::read_to_string(new.0.join("nccl.log")).unwrap();
    assert!(log.contains("made 0") && log.contains("made 1"), "{log}");
}
