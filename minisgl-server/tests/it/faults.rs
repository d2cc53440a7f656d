//! A group of processes, a part of which breaks: at the start, while it idles, in a prefill or in a
//! decode. Every open request gets an error, all processes end with a failure and leave their ports;
//! or, with `--restart-on-failure`, come back and serve.
//!
//! Nothing in the program helps with that: processes are killed and stopped by signals, threads by
//! ptrace, connections by a proxy. Ranks that panic or fail by themselves are in `minisgl-model`,
//! `group/tests.rs`, and `lifecycle`.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::client::Connection;
use crate::freeze::freeze;
use crate::group::{Group, Process, Setup, endless, free_address, rest};
use crate::proxy::Proxy;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Node 1 is gone.
    Kill,
    /// Node 1 stands still, and gives no sign of life.
    Stop,
    /// Node 1 stands still, and nobody minds but those who wait for a step.
    Hang,
    /// A rank's thread stands still, and its process goes on.
    Freeze,
    /// The connections between the nodes end.
    Cut,
    /// The connections between the nodes bring nothing any more.
    Silence,
}

impl Fault {
    /// Options with which it is noticed as it should be, and nothing else is.
    fn timeouts(self) -> &'static str {
        match self {
            // At once, long before any time is up.
            Self::Kill | Self::Cut => "--dist-timeout 600",
            Self::Stop | Self::Silence => "--dist-timeout 3",
            Self::Hang => "--dist-timeout 600 --watchdog-timeout 2",
            Self::Freeze => "--watchdog-timeout 2",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Idle,
    Prefill,
    Decode,
}

const PHASES: [Phase; 3] = [Phase::Idle, Phase::Prefill, Phase::Decode];

/// A group that can be broken.
struct Breakable {
    group: Group,
    proxy: Proxy,
    fault: Fault,
}

impl Breakable {
    fn start(fault: Fault, options: &str) -> Self {
        let num_nodes = if fault == Fault::Freeze { 1 } else { 2 };
        let mut setup = Setup::new(num_nodes, 2, options);
        // So that a long prompt takes a while.
        setup.max_prefill_length = 4;
        let proxy = Proxy::to(setup.listen.clone());
        if matches!(fault, Fault::Cut | Fault::Silence) {
            setup.via = Some(proxy.address.clone());
        }
        Self { group: setup.start(), proxy, fault }
    }

    /// Breaks it; false if this machine does not let us.
    fn break_it(&self) -> bool {
        let last = self.group.processes.last().unwrap();
        match self.fault {
            Fault::Kill => last.signal("KILL"),
            Fault::Stop | Fault::Hang => last.signal("STOP"),
            Fault::Cut => self.proxy.cut(),
            Fault::Silence => self.proxy.fall_silent(),
            Fault::Freeze => {
                if let Err(error) = freeze(last.child.id(), "rank-1") {
                    // To be seen although the test passes.
                    let text = format!("skipped: ptrace is not allowed here: {error}\n");
                    std::io::stderr().write_all(text.as_bytes()).unwrap();
                    return false;
                }
            }
        }
        true
    }

    /// What node 0 says of it.
    fn expected(&self) -> &'static str {
        match self.fault {
            Fault::Kill | Fault::Cut => "node 1: it is gone",
            Fault::Stop | Fault::Silence => "node 1: no sign of life for 2.4 s",
            Fault::Hang => "a step takes longer than --watchdog-timeout, 2 s",
            Fault::Freeze => "longer than --watchdog-timeout, 2 s: rank 1 does not answer",
        }
    }

    /// Opens requests and waits until they are where the fault is to find them: a stream, and one
    /// that wants its answer as a whole.
    async fn open(&self, phase: Phase) -> Vec<Connection> {
        let mut whole = endless();
        whole["stream"] = json!(false);
        let stream = match phase {
            Phase::Idle => return Vec::new(),
            Phase::Prefill => {
                let mut body = endless();
                for body in [&mut body, &mut whole] {
                    body["prompt"] = json!(vec![7; 1500]);
                    body["max_tokens"] = json!(100);
                }
                let mut stream = self.group.begin(&body).await;
                assert_eq!(stream.head().await.unwrap().status, 200);
                stream
            }
            Phase::Decode => self.group.stream().await,
        };
        let whole = self.group.begin(&whole).await;
        while self.group.metric("num_open_reqs").await < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        vec![stream, whole]
    }
}

/// A runtime whose threads go on while the test waits for processes.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// What clients must see of a fault.
async fn expect_errors(mut connections: Vec<Connection>) {
    let Some(mut whole) = connections.pop() else { return };
    let response = whole.response(false).await.unwrap();
    assert_eq!(response.status(), 500, "{}", response.text());
    assert_eq!(response.json()["error"]["code"], "engine_failed");
    let mut stream = connections.pop().unwrap();
    let text = rest(&mut stream).await;
    assert!(text.contains("\"engine_failed\"") && text.ends_with("data: [DONE]\n\n"), "{text}");
}

/// Breaks a group, and looks on until all of it has ended.
fn break_and_end(fault: Fault, phase: Phase) {
    let mut broken = Breakable::start(fault, fault.timeouts());
    runtime().block_on(async {
        let connections = broken.open(phase).await;
        if !broken.break_it() {
            return;
        }
        let is_noticed_by_work_alone = matches!(fault, Fault::Hang | Fault::Freeze);
        if phase == Phase::Idle && is_noticed_by_work_alone {
            // Longer than a step may take: nothing is late while there is no step.
            tokio::time::sleep(Duration::from_millis(2200)).await;
            assert_eq!(broken.group.health().await, 200);
            let mut whole = endless();
            whole["stream"] = json!(false);
            let response = broken.group.post(&whole).await;
            assert_eq!(response.status(), 500, "{}", response.text());
        }
        expect_errors(connections).await;
        let log = broken.group.processes[0].end_with_failure();
        assert!(log.contains(broken.expected()), "{fault:?} in {phase:?}: {log}");
        if let Some(other) = broken.group.processes.get_mut(1) {
            match fault {
                Fault::Kill => assert!(!other.end().success()),
                // It finds node 0 gone.
                Fault::Stop | Fault::Hang => {
                    other.signal("CONT");
                    other.end_with_failure();
                }
                _ => drop(other.end_with_failure()),
            }
        }
    });
    for address in [broken.group.address.to_string(), broken.group.setup.listen.clone()] {
        TcpListener::bind(&address).unwrap_or_else(|error| panic!("{address}: {error}"));
    }
}

fn in_every_phase(fault: Fault) {
    thread::scope(|scope| {
        for phase in PHASES {
            scope.spawn(move || break_and_end(fault, phase));
        }
    });
}

#[test]
fn a_node_that_is_killed_ends_the_group() {
    in_every_phase(Fault::Kill);
}

#[test]
fn a_node_that_stands_still_ends_the_group() {
    in_every_phase(Fault::Stop);
}

#[test]
fn a_node_that_hangs_ends_the_group_at_its_next_step() {
    in_every_phase(Fault::Hang);
}

#[test]
fn a_rank_that_hangs_ends_the_group_at_its_next_step() {
    in_every_phase(Fault::Freeze);
}

#[test]
fn connections_that_are_cut_end_the_group() {
    in_every_phase(Fault::Cut);
}

#[test]
fn connections_that_bring_nothing_end_the_group() {
    in_every_phase(Fault::Silence);
}

/// The step is not late, and the server is told to stop.
#[test]
fn a_server_that_is_told_to_stop_while_a_rank_hangs_ends_with_a_failure() {
    let mut broken = Breakable::start(Fault::Freeze, "--shutdown-timeout 1");
    runtime().block_on(async {
        let mut connections = broken.open(Phase::Decode).await;
        if !broken.break_it() {
            return;
        }
        broken.group.processes[0].signal("TERM");
        let text = rest(&mut connections[0]).await;
        assert!(text.contains("\"shutting_down\"") && text.ends_with("data: [DONE]\n\n"), "{text}");
        let log = broken.group.processes[0].end_with_failure();
        assert!(log.contains("the threads of ranks [0, 1] do not end"), "{log}");
    });
}

/// Breaks a group that is to come back.
fn break_and_come_back(fault: Fault, phase: Phase) {
    let mut broken = Breakable::start(fault, &format!("{} --restart-on-failure", fault.timeouts()));
    runtime().block_on(async {
        let question = json!({"prompt": "What is", "max_tokens": 12, "temperature": 0,
            "ignore_eos": true});
        let before = broken.group.post(&question).await.json()["choices"].clone();
        assert!(before.is_array());
        let connections = broken.open(phase).await;
        if !broken.break_it() {
            return;
        }
        expect_errors(connections).await;
        while broken.group.health().await != 503 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let log = broken.group.processes[0].log.clone();
        log.wait_for("Starting the ranks again", 0);
        assert!(log.text().contains(broken.expected()), "{}", log.text());
        match fault {
            Fault::Stop => broken.group.processes[1].signal("CONT"),
            Fault::Cut => broken.proxy.mend(),
            // What hangs is left behind.
            _ => {}
        }
        log.wait_for("API server is ready to serve again", 0);
        assert_eq!(broken.group.health().await, 200);
        assert_eq!(broken.group.post(&question).await.json()["choices"], before);
        broken.group.processes[0].signal("TERM");
        for process in &mut broken.group.processes {
            assert!(process.end().success(), "{}", process.log.text());
        }
    });
}

#[test]
fn a_group_comes_back_when_its_connections_were_cut() {
    break_and_come_back(Fault::Cut, Phase::Decode);
}

#[test]
fn a_group_comes_back_when_a_node_stood_still() {
    break_and_come_back(Fault::Stop, Phase::Prefill);
}

#[test]
fn a_group_comes_back_when_a_rank_hangs_and_leaves_that_one_behind() {
    break_and_come_back(Fault::Freeze, Phase::Decode);
}

/// A node that is lost while the group starts: before it has come, or while it loads.
fn lose_at_start(signal: &str, after: &str) {
    let listen = free_address();
    let start = |node: usize| {
        let options = format!(
            "--tp 2 --nnodes 2 --node-rank {node} --dist-init-addr {listen} --port 0 \
             --cpu-threads 1 --num-pages 4096 --dist-init-timeout 4 --dist-timeout 3"
        );
        let args: Vec<String> = options.split_whitespace().map(str::to_owned).collect();
        Process::start(&args)
    };
    let mut first = start(0);
    let mut other = start(1);
    other.log.wait_for(after, 0);
    other.signal(signal);
    let log = first.end_with_failure();
    let reasons = ["node 1 (of 2 nodes) did not come", "node 1: it is gone", "node 1: no sign of"];
    assert!(reasons.iter().any(|reason| log.contains(reason)), "{log}");
    if signal == "STOP" {
        other.signal("CONT");
        other.end_with_failure();
    }
    TcpListener::bind(&listen).unwrap();
}

#[test]
fn a_node_that_is_lost_at_the_start_fails_the_start() {
    thread::scope(|scope| {
        for signal in ["KILL", "STOP"] {
            for after in ["Initializing tensor parallelism", "Rank 1/2 ready"] {
                scope.spawn(move || lose_at_start(signal, after));
            }
        }
    });
}

/// A folder with the demo model, whose config promises a layer that is not in its weights: then every
/// rank fails while it loads.
fn model_without_its_last_layer() -> tempfile::TempDir {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo-model");
    let folder = tempfile::tempdir().unwrap();
    for name in ["model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(demo.join(name), folder.path().join(name)).unwrap();
    }
    let config = std::fs::read_to_string(demo.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["num_hidden_layers"] = json!(7);
    config["layer_types"] = json!(vec!["full_attention"; 7]);
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

#[test]
fn ranks_that_fail_while_they_load_end_all_processes() {
    let model = model_without_its_last_layer();
    for num_nodes in [1, 2] {
        let (address, listen) = (free_address(), free_address());
        let (host, port) = address.rsplit_once(':').unwrap();
        let mut processes: Vec<Process> = (0..num_nodes)
            .map(|node| {
                let nodes = format!("--nnodes {num_nodes} --dist-init-addr {listen}");
                let options = format!(
                    "--model {} --tp 2 --node-rank {node} {} --host {host} --port {port} --cpu-threads 1 \
                     --num-pages 4096 --restart-on-failure",
                    model.path().display(),
                    if num_nodes > 1 { &nodes } else { "" }
                );
                let args: Vec<String> = options.split_whitespace().map(str::to_owned).collect();
                Process::start(&args)
            })
            .collect();
        // A start that fails is not tried again, since it was not a failure of what had served.
        let log = processes[0].end_with_failure();
        assert!(log.contains("model.layers.6.") && log.contains("is missing"), "{log}");
        for address in [address, listen] {
            TcpListener::bind(&address).unwrap_or_else(|error| panic!("{address}: {error}"));
        }
        if let Some(other) = processes.get_mut(1) {
            // It would follow a node 0 that comes back.
            other.log.wait_for("Starting again", 0);
        }
    }
}
