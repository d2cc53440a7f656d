//! The program itself, as one process or as several on the loopback that are one group; and what
//! clients of it do.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Connection, Response, request};
use crate::server::JSON;

pub(crate) const COMPLETIONS: &str = "/v1/completions";
/// Far longer than anything here takes, but for a machine that is very busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a process finds in its environment besides what this one has.
pub(crate) type Variables = Vec<(&'static str, String)>;

/// One process of a group.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) log: Log,
}

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

    /// Whether all is read that there will be.
    fn is_closed(&self) -> bool {
        self.0.0.lock().unwrap().is_closed
    }

    pub(crate) fn text(&self) -> String {
        self.0.0.lock().unwrap().lines.join("\n")
    }
}

impl Process {
    pub(crate) fn start(args: &[String]) -> Self {
        Self::start_with(&Variables::new(), args)
    }

    pub(crate) fn start_with(variables: &Variables, args: &[String]) -> Self {
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
            if let Some(status) = self.child.try_wait().unwrap()
                && self.log.is_closed()
            {
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

/// Starts a node's process.
pub(crate) type StartNode = Box<dyn Fn(usize, Vec<String>) -> Process + Send + Sync>;

/// How a group is started.
pub(crate) struct Setup {
    pub(crate) num_nodes: usize,
    pub(crate) tp_size: usize,
    /// The address of the server.
    pub(crate) host: String,
    /// Where node 0 waits for the others.
    pub(crate) listen: String,
    /// Where the others go to, if not there.
    pub(crate) via: Option<String>,
    pub(crate) max_prefill_length: usize,
    /// More options.
    pub(crate) options: String,
    /// How the process of a node is started.
    pub(crate) start: StartNode,
}

impl Setup {
    /// All on this machine.
    pub(crate) fn new(num_nodes: usize, tp_size: usize, options: &str) -> Self {
        let listen = free_address();
        Self {
            num_nodes,
            tp_size,
            host: host_of(&listen),
            listen,
            via: None,
            max_prefill_length: 128,
            options: options.to_owned(),
            start: Box::new(|_, args| Process::start(&args)),
        }
    }

    /// Starts all nodes, and waits until they serve.
    pub(crate) fn start(self) -> Group {
        let mut group =
            Group { processes: Vec::new(), address: ([127, 0, 0, 1], 0).into(), setup: self };
        for node in 0..group.setup.num_nodes {
            let process = group.start_node(node);
            group.processes.push(process);
        }
        let line = group.processes[0].log.wait_for("API server is ready to serve on ", 0);
        group.address = line.rsplit(' ').next().unwrap().parse().unwrap();
        group
    }

    fn args(&self, node: usize) -> Vec<String> {
        let Self { num_nodes, tp_size, host, max_prefill_length, options, .. } = self;
        let nodes = match (num_nodes, &self.via) {
            (1, _) => String::new(),
            (_, Some(via)) if node > 0 => format!("--nnodes {num_nodes} --dist-init-addr {via}"),
            _ => format!("--nnodes {num_nodes} --dist-init-addr {}", self.listen),
        };
        let args = format!(
            "--tp {tp_size} {nodes} --node-rank {node} --host {host} --port 0 --cpu-threads 1 \
             --num-pages 4096 --max-running-requests 8 --max-prefill-length {max_prefill_length} {options}"
        );
        args.split_whitespace().map(str::to_owned).collect()
    }
}

/// The address without its port.
pub(crate) fn host_of(address: &str) -> String {
    address.rsplit_once(':').unwrap().0.to_owned()
}

/// An address that nobody listens on now, nor will: of the loopback's many, one that no other test
/// uses, and from which nobody calls.
pub(crate) fn free_address() -> String {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let host = match cfg!(target_os = "linux") {
        true => [127, 1 + (process >> 8) as u8 % 250, process as u8, count],
        false => [127, 0, 0, 1],
    };
    TcpListener::bind((Ipv4Addr::from(host), 0)).unwrap().local_addr().unwrap().to_string()
}

/// A group of processes with the demo model.
pub(crate) struct Group {
    pub(crate) processes: Vec<Process>,
    /// Of the server.
    pub(crate) address: SocketAddr,
    pub(crate) setup: Setup,
}

impl Group {
    pub(crate) fn start(num_nodes: usize, tp_size: usize, options: &str) -> Self {
        Setup::new(num_nodes, tp_size, options).start()
    }

    pub(crate) fn start_with(
        variables: Variables,
        num_nodes: usize,
        tp_size: usize,
        options: &str,
    ) -> Self {
        let start: StartNode = Box::new(move |_, args| Process::start_with(&variables, &args));
        Setup { start, ..Setup::new(num_nodes, tp_size, options) }.start()
    }

    pub(crate) fn start_node(&self, node: usize) -> Process {
        (self.setup.start)(node, self.setup.args(node))
    }

    pub(crate) async fn post(&self, body: &Value) -> Response {
        request(self.address, "POST", COMPLETIONS, &[JSON], body.to_string().as_bytes()).await
    }

    pub(crate) async fn health(&self) -> u16 {
        Self::health_at(self.address).await
    }

    pub(crate) async fn health_at(address: SocketAddr) -> u16 {
        request(address, "GET", "/health", &[], b"").await.status()
    }

    /// The value of a metric.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let page = request(self.address, "GET", "/metrics", &[], b"").await.text();
        let prefix = format!("minisgl_{name} ");
        let value = page.lines().find_map(|line| line.strip_prefix(&prefix));
        value.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
    }

    /// Sends a request and does not wait for its answer.
    pub(crate) async fn begin(&self, body: &Value) -> Connection {
        let mut connection = Connection::open(self.address).await;
        connection.send("POST", COMPLETIONS, &[JSON], body.to_string().as_bytes()).await;
        connection
    }

    /// Begins an endless stream and waits for its first event.
    pub(crate) async fn stream(&self) -> Connection {
        let mut connection = self.begin(&endless()).await;
        assert_eq!(connection.head().await.unwrap().status, 200);
        assert!(!connection.chunk().await.unwrap().is_empty());
        connection
    }
}

/// Longer than any test.
pub(crate) fn endless() -> Value {
    json!({"prompt": "Once upon a time", "max_tokens": 2000, "ignore_eos": true, "stream": true,
        "temperature": 0})
}

/// All that a stream still sends.
pub(crate) async fn rest(connection: &mut Connection) -> String {
    let mut text = Vec::new();
    while let Some(chunk) = connection.chunk().await
        && !chunk.is_empty()
    {
        text.extend_from_slice(&chunk);
    }
    String::from_utf8(text).unwrap()
}
