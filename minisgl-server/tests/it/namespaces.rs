//! Two nodes with a network of their own each, as on two machines, and a cable between them that can
//! be pulled: then nobody is told that a connection has ended, and no goodbye gets through.
//!
//! Needs Linux, root and iproute2, and says so where it is skipped. All traffic stays within the two
//! namespaces.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use serde_json::json;

use crate::group::{Group, Process, Setup, rest};

/// The address of each namespace; on the cable there is nobody else.
const HOSTS: [&str; 2] = ["10.77.0.1", "10.77.0.2"];
const DEVICE: &str = "cable";

/// Two namespaces and a cable; they go with it.
struct Network {
    names: [String; 2],
}

impl Network {
    /// Names that no other run uses.
    fn new() -> Result<Self, String> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |end| format!("minisgl-{}-{number}-{end}", std::process::id());
        let network = Self { names: [name("a"), name("b")] };
        let [a, b] = &network.names;
        ip(&["netns", "add", a])?;
        ip(&["netns", "add", b])?;
        ip(&["-n", a, "link", "add", DEVICE, "type", "veth", "peer", "name", DEVICE, "netns", b])?;
        for (name, host) in network.names.iter().zip(HOSTS) {
            ip(&["-n", name, "addr", "add", &format!("{host}/30"), "dev", DEVICE])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
            ip(&["-n", name, "link", "set", DEVICE, "up"])?;
        }
        Ok(network)
    }

    /// Pulls out node 0's end of the cable, or puts it in again.
    fn set_cable(&self, state: &str) {
        ip(&["-n", &self.names[0], "link", "set", DEVICE, state]).unwrap();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.names {
            // It may not be there.
            let _ = ip(&["netns", "del", name]);
        }
    }
}

fn ip(args: &[&str]) -> Result<(), String> {
    let what = format!("ip {}", args.join(" "));
    let output = Command::new("ip").args(args).output();
    let Output { status, stderr, .. } = output.map_err(|error| format!("{what}: {error}"))?;
    let problem = || format!("{what}: {}", String::from_utf8_lossy(&stderr).trim());
    if status.success() { Ok(()) } else { Err(problem()) }
}

/// Runs `body` on a thread whose network, and that of what it starts, is namespace `name`.
fn within<R: Send>(name: &str, body: impl FnOnce() -> R + Send) -> R {
    let file = File::open(Path::new("/run/netns").join(name)).unwrap();
    thread::scope(|scope| {
        let inside = move || {
            setns(file, CloneFlags::CLONE_NEWNET).unwrap();
            body()
        };
        scope.spawn(inside).join().unwrap()
    })
}

/// Runs `body` on node 0's machine, if there can be one.
fn on_two_machines(body: impl AsyncFnOnce(&Network, Setup) + Send) {
    let network = match Network::new() {
        Ok(network) => network,
        Err(problem) => {
            // To be seen although the test passes.
            let text = format!("skipped: no network namespaces here: {problem}\n");
            return std::io::stderr().write_all(text.as_bytes()).unwrap();
        }
    };
    let [a, b] = network.names.clone();
    let start = move |node: usize, args: Vec<String>| {
        within(if node == 0 { &a } else { &b }, || Process::start(&args))
    };
    let setup = Setup {
        host: HOSTS[0].to_owned(),
        listen: format!("{}:20000", HOSTS[0]),
        start: Box::new(start),
        ..Setup::new(2, 2, "--dist-timeout 3")
    };
    within(&network.names[0], || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(body(&network, setup));
    });
}

async fn expect_error(group: &Group, network: &Network) {
    let mut stream = group.stream().await;
    network.set_cable("down");
    let text = rest(&mut stream).await;
    assert!(text.contains("\"engine_failed\"") && text.ends_with("data: [DONE]\n\n"), "{text}");
}

#[test]
fn both_ends_of_a_cable_that_is_pulled_end() {
    on_two_machines(async |network, setup| {
        let mut group = setup.start();
        expect_error(&group, network).await;
        for (node, other) in [(0, 1), (1, 0)] {
            let log = group.processes[node].end_with_failure();
            assert!(log.contains(&format!("node {other}: no sign of life for 2.4 s")), "{log}");
        }
    });
}

#[test]
fn an_idle_group_ends_at_both_ends_of_the_cable_as_well() {
    on_two_machines(async |network, setup| {
        let mut group = setup.start();
        network.set_cable("down");
        for (node, other) in [(0, 1), (1, 0)] {
            let log = group.processes[node].end_with_failure();
            assert!(log.contains(&format!("node {other}: no sign of life for 2.4 s")), "{log}");
        }
    });
}

#[test]
fn a_group_comes_back_with_its_cable() {
    on_two_machines(async |network, mut setup| {
        setup.options.push_str(" --restart-on-failure");
        let mut group = setup.start();
        let question = json!({"prompt": "What is", "max_tokens": 12, "temperature": 0,
            "ignore_eos": true});
        let before = group.post(&question).await.json()["choices"].clone();
        assert!(before.is_array());
        expect_error(&group, network).await;
        while group.health().await != 503 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        group.processes[1].log.wait_for("Starting again", 0);
        network.set_cable("up");
        group.processes[0].log.wait_for("API server is ready to serve again", 0);
        assert_eq!(group.health().await, 200);
        assert_eq!(group.post(&question).await.json()["choices"], before);
        group.processes[0].signal("TERM");
        for process in &mut group.processes {
            assert!(process.end().success(), "{}", process.log.text());
        }
    });
}
