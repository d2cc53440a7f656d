//! The program itself, as two and four processes on the loopback: the same answers as one; and how
//! processes that do not come, or leave, end the others. What happens to a group when a part of it
//! breaks is in `faults`.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use serde_json::{Value, json};

use crate::group::{Group, Process, free_address, rest};

/// A prompt that is cut into chunks, a short one, and log-probabilities.
fn questions() -> Vec<Value> {
    let long = "The quick brown fox jumps over the lazy dog. ".repeat(20);
    vec![
        json!({"prompt": long, "max_tokens": 24, "temperature": 0, "ignore_eos": true}),
        json!({"prompt": ["Once upon a time", "What is"], "max_tokens": 24, "temperature": 0,
            "ignore_eos": true, "logprobs": 0}),
    ]
}

async fn answers(group: &Group) -> Vec<(Vec<String>, Vec<Value>)> {
    let mut answers = Vec::new();
    for question in questions() {
        let response = group.post(&question).await;
        assert_eq!(response.status(), 200, "{}", response.text());
        let choices = response.json()["choices"].as_array().unwrap().clone();
        let text = |choice: &Value| choice["text"].as_str().unwrap().to_owned();
        let tokens = |choice: &Value| choice["logprobs"]["tokens"].clone();
        answers.push((choices.iter().map(text).collect(), choices.iter().map(tokens).collect()));
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn two_and_four_processes_answer_as_one() {
    // In float32 no choice of a token is so close that the order of a sum decides it.
    let float32 = "--dtype float32";
    let mut alone = Group::start(1, 1, float32);
    let expected = answers(&alone).await;
    alone.processes[0].signal("TERM");
    assert!(alone.processes[0].end().success());
    for (num_nodes, tp_size) in [(2, 2), (2, 4), (4, 4)] {
        let mut group = Group::start(num_nodes, tp_size, float32);
        assert_eq!(answers(&group).await, expected, "{tp_size} ranks on {num_nodes} nodes");
        // The others follow node 0 to a good end.
        group.processes[0].signal("TERM");
        for process in &mut group.processes {
            let status = process.end();
            assert!(status.success(), "{status}:\n{}", process.log.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_node_0_the_others_end() {
    for (signal, expected) in [("KILL", "node 0: it is gone"), ("STOP", "node 0: no sign of life")]
    {
        let mut group = Group::start(2, 2, "--dist-timeout 1.5");
        group.processes[0].signal(signal);
        let log = group.processes[1].end_with_failure();
        assert!(log.contains(expected), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_come_is_named_and_its_address_is_free_again() {
    let address = free_address();
    let group = |node: usize| {
        let options = format!(
            "--tp 2 --nnodes 2 --node-rank {node} --dist-init-addr {address} --port 0 \
             --dist-init-timeout 1"
        );
        let args: Vec<String> = options.split_whitespace().map(str::to_owned).collect();
        Process::start(&args)
    };
    let log = group(0).end_with_failure();
    let expected = format!("node 1 (of 2 nodes) did not come to {address} within 1 s");
    assert!(log.contains(&expected), "{log}");
    let log = group(1).end_with_failure();
    let expected = format!("node 0 cannot be reached at {address} within 1 s");
    assert!(log.contains(&expected), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ranks_are_started_again_and_serve() {
    let mut group = Group::start(2, 2, "--restart-on-failure");
    let question = &questions()[0];
    let before = group.post(question).await.json()["choices"].clone();
    let mut stream = group.stream().await;
    group.processes[1].signal("KILL");
    assert!(rest(&mut stream).await.contains("\"error\""));
    group.processes[0].log.wait_for("Starting the ranks again", 0);
    assert_eq!(group.health().await, 503);
    let refused = group.post(question).await;
    assert_eq!(refused.status(), 503, "{}", refused.text());

    // As an orchestrator would.
    group.processes[1].end();
    group.processes[1] = group.start_node(1);
    group.processes[0].log.wait_for("API server is ready to serve again", 0);
    assert_eq!(group.health().await, 200);
    assert_eq!(group.post(question).await.json()["choices"], before);

    // This time node 1 fails for what node 0 does, and comes back by itself: node 0 stands still
    // until node 1 has given it up.
    group.processes[0].signal("STOP");
    group.processes[1].log.wait_for("Starting again", 0);
    group.processes[0].signal("CONT");
    group.processes[0].log.wait_for("API server is ready to serve again", 1);
    assert_eq!(group.post(question).await.json()["choices"], before);
    group.processes[0].signal("TERM");
    for process in &mut group.processes {
        assert!(process.end().success(), "{}", process.log.text());
    }
}

/// The demo model as `org/demo`, in a cache as Python's tools have it.
fn cache_with_the_demo_model(home: &Path) {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo-model");
    let repository = home.join("hub/models--org--demo");
    let snapshot = repository.join("snapshots/abcdef");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), "abcdef").unwrap();
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        fs::copy(demo.join(file), snapshot.join(file)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranks_are_started_again_with_the_model_that_they_had() {
    let home = tempfile::tempdir().unwrap();
    cache_with_the_demo_model(home.path());
    let variables =
        vec![("HF_HOME", home.path().display().to_string()), ("HF_HUB_OFFLINE", "1".to_owned())];
    let options = "--model org/demo --restart-on-failure --dist-timeout 1.5";
    let mut group = Group::start_with(variables, 2, 2, options);
    // By now the branch is another commit, which nobody has asked for.
    fs::write(home.path().join("hub/models--org--demo/refs/main"), "fedcba").unwrap();
    group.processes[0].signal("STOP");
    group.processes[1].log.wait_for("Starting again", 0);
    group.processes[0].signal("CONT");
    group.processes[0].log.wait_for("API server is ready to serve again", 0);
    assert_eq!(group.post(&questions()[0]).await.status(), 200);
    group.processes[0].signal("TERM");
    for process in &mut group.processes {
        assert!(process.end().success(), "{}", process.log.text());
    }
}

/// Also as the first process of a container, for which signals that nobody listens to do nothing.
#[tokio::test(flavor = "multi_thread")]
async fn signals_end_a_download() {
    // A hub that takes every connection and never says a word.
    let hub = TcpListener::bind("127.0.0.1:0").unwrap();
    let home = tempfile::tempdir().unwrap();
    let variables = vec![
        ("HF_HOME", home.path().display().to_string()),
        ("HF_ENDPOINT", format!("http://{}", hub.local_addr().unwrap())),
    ];
    let node_1 = "--tp 2 --nnodes 2 --dist-init-addr 127.0.0.1:1 --node-rank 1";
    for (options, signal, code) in [
        ("--port 0", "TERM", 143),
        ("--port 0", "INT", 130),
        (node_1, "TERM", 143),
        ("--shell", "INT", 130),
    ] {
        let options = format!("--model org/demo --log-level info {options}");
        let options: Vec<String> = options.split_whitespace().map(str::to_owned).collect();
        let mut process = Process::start_with(&variables, &options);
        process.log.wait_for("Looking for org/demo", 0);
        process.signal(signal);
        assert_eq!(process.end().code(), Some(code), "{options:?}: {}", process.log.text());
    }
}
