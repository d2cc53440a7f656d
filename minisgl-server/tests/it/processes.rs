//! The program itself, as two and four processes on the loopback: the same answers as one, and what
//! clients and the other processes see when one of them is killed or stopped.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Connection, Response, request};
use crate::server::JSON;

const COMPLETIONS: &str = "/v1/completions";
/// Far longer than anything here takes, but for a machine that is very busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// One process of a group.
pub(crate) struct Process {
    child: Child,
    pub(crate) log: Log,
}

/// Variables of a process's environment.
pub(crate) type Variables = Vec<(&'static str, String)>;

/// What a process has said so far, line by line.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<(Mutex<Lines>, Condvar)>);

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    is_closed: bool,
}

impl Log {
    /// Waits for a line with `text` in it, after the first `skip` such lines.
    pub(crate) fn wait_for(&self, text: &str, skip: usize) -> String {
        let (lines, changed) = &*self.0;
        let deadline = Instant::now() + PATIENCE;
        let mut lines = lines.lock().unwrap();
        loop {
            let found = lines.lines.iter().filter(|line| line.contains(text)).nth(skip);
            if let Some(line) = found {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !lines.is_closed && !left.is_zero(),
                "waited in vain for `{text}`:\n{}",
                lines.lines.join("\n")
            );
            lines = changed.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// Waits for the last line of a process that has ended.
    fn wait_for_end(&self) {
        let (lines, changed) = &*self.0;
        let waited =
            changed.wait_timeout_while(lines.lock().unwrap(), PATIENCE, |lines| !lines.is_closed);
        let timed_out = waited.unwrap().1.timed_out();
        assert!(!timed_out, "its output does not end:\n{}", self.text());
    }

    pub(crate) fn text(&self) -> String {
        self.0.0.lock().unwrap().lines.join("\n")
    }
}

impl Process {
    pub(crate) fn start(args: &[String], variables: &[(&'static str, String)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_minisgl"))
            .args(args)
            .env("MINISGL_DIST_SECRET", "a secret of the tests")
            .env_remove("MINISGL_LOG")
            .env_remove("MINISGL_API_KEY")
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Log::default();
        let (stderr, writing) = (child.stderr.take().unwrap(), log.clone());
        std::thread::spawn(move || {
            let (lines, changed) = &*writing.0;
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap().lines.push(line);
                changed.notify_all();
            }
            lines.lock().unwrap().is_closed = true;
            changed.notify_all();
        });
        Self { child, log }
    }

    pub(crate) fn signal(&self, signal: &str) {
        let command = format!("kill -{signal} {}", self.child.id());
        assert!(Command::new("sh").arg("-c").arg(command).status().unwrap().success());
    }

    /// Waits for the end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.log.wait_for_end();
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.log.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for an end by its own decision, with a failure.
    pub(crate) fn end_with_failure(&mut self) -> String {
        let status = self.end();
        assert_eq!(status.code(), Some(1), "{status}:\n{}", self.log.text());
        self.log.text()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended, as it should.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A group of processes with the demo model.
pub(crate) struct Group {
    pub(crate) processes: Vec<Process>,
    /// Of the server.
    pub(crate) address: SocketAddr,
    options: Vec<String>,
    variables: Variables,
}

impl Group {
    fn start(num_nodes: usize, tp_size: usize, more: &[&str]) -> Self {
        Self::start_with(Vec::new(), num_nodes, tp_size, more)
    }

    pub(crate) fn start_with(
        variables: Variables,
        num_nodes: usize,
        tp_size: usize,
        more: &[&str],
    ) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let nodes = match num_nodes {
            1 => String::new(),
            _ => format!("--nnodes {num_nodes} --dist-init-addr 127.0.0.1:{port}"),
        };
        let mut options: Vec<String> = format!(
            "--tp {tp_size} {nodes} --port 0 --cpu-threads 1 --num-pages 4096 \
             --max-running-requests 8 --max-prefill-length 128"
        )
        .split_whitespace()
        .map(str::to_owned)
        .collect();
        options.extend(more.iter().map(|option| (*option).to_owned()));
        let mut group =
            Self { processes: Vec::new(), address: ([127, 0, 0, 1], 0).into(), options, variables };
        for node in 0..num_nodes {
            let process = group.start_node(node);
            group.processes.push(process);
        }
        let line = group.processes[0].log.wait_for("API server is ready to serve on ", 0);
        group.address = line.rsplit(' ').next().unwrap().parse().unwrap();
        group
    }

    fn start_node(&self, node: usize) -> Process {
        let mut args = self.options.clone();
        args.extend(["--node-rank".to_owned(), node.to_string()]);
        Process::start(&args, &self.variables)
    }

    pub(crate) async fn post(&self, body: &Value) -> Response {
        request(self.address, "POST", COMPLETIONS, &[JSON], body.to_string().as_bytes()).await
    }

    pub(crate) async fn health(&self) -> u16 {
        request(self.address, "GET", "/health", &[], b"").await.status()
    }

    /// Begins an endless stream and waits for its first event.
    async fn stream(&self) -> Connection {
        let mut connection = Connection::open(self.address).await;
        let body = endless().to_string();
        connection.send("POST", COMPLETIONS, &[JSON], body.as_bytes()).await;
        assert_eq!(connection.head().await.unwrap().status, 200);
        assert!(!connection.chunk().await.unwrap().is_empty());
        connection
    }
}

/// Longer than any test.
fn endless() -> Value {
    json!({"prompt": "Once upon a time", "max_tokens": 2000, "ignore_eos": true, "stream": true,
        "temperature": 0})
}

/// All that a stream still sends.
async fn rest(connection: &mut Connection) -> String {
    let mut text = Vec::new();
    while let Some(chunk) = connection.chunk().await
        && !chunk.is_empty()
    {
        text.extend_from_slice(&chunk);
    }
    String::from_utf8(text).unwrap()
}

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
    let float32 = ["--dtype", "float32"];
    let mut alone = Group::start(1, 1, &float32);
    let expected = answers(&alone).await;
    alone.processes[0].signal("TERM");
    assert!(alone.processes[0].end().success());
    for (num_nodes, tp_size) in [(2, 2), (2, 4), (4, 4)] {
        let mut group = Group::start(num_nodes, tp_size, &float32);
        assert_eq!(answers(&group).await, expected, "{tp_size} ranks on {num_nodes} nodes");
        // The others follow node 0 to a good end.
        group.processes[0].signal("TERM");
        for process in &mut group.processes {
            let status = process.end();
            assert!(status.success(), "{status}:\n{}", process.log.text());
        }
    }
}

/// Kills or stops node 1 and looks on as a client. Returns what node 0 says of it.
async fn lose_node_1(signal: &str, is_idle: bool) -> String {
    let mut group = Group::start(2, 2, &["--dist-timeout", "1.5"]);
    let mut stream = if is_idle { None } else { Some(group.stream().await) };
    assert_eq!(group.health().await, 200);
    group.processes[1].signal(signal);
    if let Some(stream) = &mut stream {
        let text = rest(stream).await;
        assert!(text.contains("\"error\"") && text.ends_with("data: [DONE]\n\n"), "{text}");
    }
    group.processes[0].end_with_failure()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_ends_the_group() {
    for is_idle in [true, false] {
        let log = lose_node_1("KILL", is_idle).await;
        assert!(log.contains("node 1: it is gone"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stands_still_ends_the_group() {
    for is_idle in [true, false] {
        let log = lose_node_1("STOP", is_idle).await;
        assert!(log.contains("node 1: no sign of life for 1.2 s"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_node_0_the_others_end() {
    for (signal, expected) in [("KILL", "node 0: it is gone"), ("STOP", "node 0: no sign of life")]
    {
        let mut group = Group::start(2, 2, &["--dist-timeout", "1.5"]);
        group.processes[0].signal(signal);
        let log = group.processes[1].end_with_failure();
        assert!(log.contains(expected), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_come_is_named_and_its_address_is_free_again() {
    let group = |node: usize| {
        let options = "--tp 2 --nnodes 2 --dist-init-addr 127.0.0.1:29417 --port 0 \
                       --dist-init-timeout 1";
        let mut args: Vec<String> = options.split_whitespace().map(str::to_owned).collect();
        args.extend(["--node-rank".to_owned(), node.to_string()]);
        Process::start(&args, &Vec::new())
    };
    let log = group(0).end_with_failure();
    assert!(
        log.contains("node 1 (of 2 nodes) did not come to 127.0.0.1:29417 within 1 s"),
        "{log}"
    );
    let log = group(1).end_with_failure();
    assert!(log.contains("node 0 cannot be reached at 127.0.0.1:29417 within 1 s"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ranks_are_started_again_and_serve() {
    let mut group = Group::start(2, 2, &["--restart-on-failure"]);
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
    let options = ["--model", "org/demo", "--restart-on-failure", "--dist-timeout", "1.5"];
    let mut group = Group::start_with(variables, 2, 2, &options);
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
    let variables = [
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
        let mut process = Process::start(&options, &variables);
        process.log.wait_for("Looking for org/demo", 0);
        process.signal(signal);
        assert_eq!(process.end().code(), Some(code), "{options:?}: {}", process.log.text());
    }
}
