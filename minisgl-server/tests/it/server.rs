//! A server in this process: the real API and sockets, the simulator in the place of a model.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use minisgl_model::{DeviceChoice, EngineOptions};
use minisgl_sched::sim::{self, SimExecutor};
use minisgl_sched::{
    Driver, Executor, FinishReason, Request, RequestId, SamplingParams, Scheduler, SchedulerConfig,
    StepOutput, StepPlan, Ticket,
};
use minisgl_server::api::{Api, ApiOptions};
use minisgl_server::demo;
use minisgl_server::engine::{self, Engine, EngineConfig};
use minisgl_server::http::{self, BoundAddress, HttpLimits};
use minisgl_server::llm::{self, Silent};
use minisgl_server::text::TextModel;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::client::{Connection, Response, request};
use crate::fixture::{EOS, text_model};

/// The simulator's.
pub(crate) const SEED: u64 = 7;
pub(crate) const MODEL: &str = "org/test-model";

/// What a test may change.
pub(crate) struct Setup {
    pub(crate) scheduler: SchedulerConfig,
    pub(crate) engine: EngineConfig,
    pub(crate) api_key: Option<String>,
    pub(crate) max_body_bytes: usize,
    pub(crate) limits: HttpLimits,
    pub(crate) not_finite_every: Option<u64>,
    pub(crate) text: Option<TextModel>,
}

impl Default for Setup {
    fn default() -> Self {
        let scheduler =
            SchedulerConfig { num_pages: 4096, max_seq_len: 512, ..SchedulerConfig::default() };
        Self {
            scheduler,
            engine: EngineConfig { max_open_requests: 256, step_timeout: Duration::from_secs(300) },
            api_key: None,
            max_body_bytes: 64 << 10,
            limits: HttpLimits::default(),
            not_finite_every: None,
            text: None,
        }
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) engine: Engine,
    pub(crate) gate: Gate,
    pub(crate) text: Arc<TextModel>,
    pub(crate) ended: Option<oneshot::Receiver<Option<Arc<str>>>>,
    stop: watch::Sender<bool>,
    serving: Option<JoinHandle<()>>,
}

impl Setup {
    pub(crate) async fn start(mut self) -> Server {
        let text = self.text.take().unwrap_or_else(|| text_model(self.scheduler.max_seq_len));
        let mut sim = SimExecutor::new(&self.scheduler, SEED);
        if let Some(samples) = self.not_finite_every {
            sim = sim.with_not_finite_every(samples);
        }
        let gate = Gate::default();
        let executor = GatedExecutor { sim, gate: gate.clone() };
        let driver = Driver::new(Scheduler::new(self.scheduler).unwrap(), executor, true);
        self.serve(driver, gate, text).await
    }

    /// With the demo model in the place of the simulator.
    pub(crate) async fn start_demo(self, change: impl FnOnce(&mut TextModel)) -> Server {
        let options = EngineOptions {
            device: DeviceChoice::Cpu,
            cpu_threads: Some(NonZeroUsize::MIN),
            num_pages: Some(4096),
            ..EngineOptions::default()
        };
        let (group, mut text) =
            llm::load_model(&demo::checkpoint(), &options, None, &Silent).unwrap();
        change(&mut text);
        let scheduler = Scheduler::new(group.limits().scheduler).unwrap();
        self.serve(Driver::new(scheduler, group, true), Gate::default(), text).await
    }

    async fn serve<E: Executor + Send + 'static>(
        self,
        driver: Driver<E>,
        gate: Gate,
        text: TextModel,
    ) -> Server {
        let text = Arc::new(text);
        let (engine, ended) = engine::start(driver, self.engine).unwrap();
        let options = ApiOptions {
            model_name: MODEL.to_owned(),
            api_key: self.api_key,
            max_body_bytes: self.max_body_bytes,
            num_tokenizers: 1,
        };
        let api = Arc::new(Api::new(engine.clone(), text.clone(), options));
        let bound = BoundAddress::bind("127.0.0.1", 0).unwrap();
        let address = bound.address();
        let (stop, stopping) = watch::channel(false);
        let listener = bound.listen().unwrap();
        let serving = Some(tokio::spawn(http::serve(listener, api, self.limits, stopping)));
        Server { address, engine, gate, text, ended: Some(ended), stop, serving }
    }
}

impl Setup {
    pub(crate) fn with_max_open(max_open_requests: usize) -> Self {
        let mut setup = Self::default();
        setup.engine.max_open_requests = max_open_requests;
        setup
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Setup::default().start().await
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        request(self.address, "GET", path, &[], b"").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        self.post_bytes(path, body.to_string().as_bytes()).await
    }

    pub(crate) async fn post_bytes(&self, path: &str, body: &[u8]) -> Response {
        request(self.address, "POST", path, &[JSON], body).await
    }

    /// Sends a request and leaves the connection open.
    pub(crate) async fn begin(&self, path: &str, body: &Value) -> Connection {
        let mut connection = Connection::open(self.address).await;
        connection.send("POST", path, &[JSON], body.to_string().as_bytes()).await;
        connection
    }

    /// The value of a metric.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let page = self.get("/metrics").await.text();
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
    }

    /// Waits until the server holds nothing for anybody.
    pub(crate) async fn quiet(&self) {
        until("all requests to end", || {
            let stats = self.engine.stats();
            self.engine.open_requests() + stats.running + stats.waiting == 0
        })
        .await;
        let usage = self.engine.stats().usage;
        assert_eq!(usage.free + usage.cached(), usage.total, "pages are held for nobody");
    }

    /// Checks that the server still gives the right answer.
    pub(crate) async fn canary(&self) {
        let body = json!({"prompt": "abc", "max_tokens": 5, "seed": 3, "ignore_eos": true});
        let response = self.post("/v1/completions", &body).await;
        let expected = self.expected(&self.encode("abc"), 5, 3, true);
        assert_eq!(response.json()["choices"][0]["text"], expected.text.as_str());
    }

    pub(crate) fn encode(&self, text: &str) -> Vec<u32> {
        self.text.tokenizer.encode(text, minisgl_server::tokenizer::AddSpecial::Yes).unwrap()
    }

    /// What the simulator makes of a prompt.
    pub(crate) fn expected(
        &self,
        prompt: &[u32],
        max_tokens: usize,
        seed: i64,
        ignore_eos: bool,
    ) -> Expected {
        let request = Request {
            id: RequestId(0),
            prompt: prompt.to_vec(),
            max_tokens,
            stop_token_ids: if ignore_eos { [].into() } else { [EOS].into() },
            sampling: SamplingParams { seed: seed as u64, ..SamplingParams::GREEDY },
            adjustments: None,
        };
        let (mut tokens, reason) = sim::expected(&request, SEED, None);
        let completion_tokens = tokens.len();
        if reason == FinishReason::Stop {
            tokens.pop();
        }
        Expected {
            text: self.text.tokenizer.decode(&tokens, true),
            tokens,
            completion_tokens,
            finish_reason: if reason == FinishReason::Stop { "stop" } else { "length" },
        }
    }

    /// Stops listening and waits for it.
    pub(crate) async fn close(&mut self) {
        self.stop.send_replace(true);
        self.serving.take().unwrap().await.unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.engine.stop();
        self.gate.open();
    }
}

pub(crate) const JSON: (&str, &str) = ("Content-Type", "application/json");

/// What must come out.
pub(crate) struct Expected {
    pub(crate) text: String,
    /// Without the end token.
    pub(crate) tokens: Vec<u32>,
    pub(crate) completion_tokens: usize,
    pub(crate) finish_reason: &'static str,
}

/// Waits for something that must happen.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

/// Lets steps run, or not, or fail.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Default)]
struct GateState {
    is_closed: bool,
    /// Steps that may pass all the same.
    passes: usize,
    fault: Option<Fault>,
}

/// How the executor breaks.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    Error,
    Panic,
}

impl Gate {
    fn change(&self, change: impl FnOnce(&mut GateState)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }

    /// No step ends from now on.
    pub(crate) fn close(&self) {
        self.change(|state| state.is_closed = true);
    }

    pub(crate) fn open(&self) {
        self.change(|state| state.is_closed = false);
    }

    /// Lets `steps` more steps end.
    pub(crate) fn pass(&self, steps: usize) {
        self.change(|state| state.passes += steps);
    }

    /// The next step breaks.
    pub(crate) fn fail(&self, fault: Fault) {
        self.change(|state| state.fault = Some(fault));
    }

    fn wait(&self) -> Option<Fault> {
        let (state, changed) = &*self.0;
        let is_shut =
            |state: &mut GateState| state.is_closed && state.passes == 0 && state.fault.is_none();
        let mut state = changed.wait_while(state.lock().unwrap(), is_shut).unwrap();
        state.passes = state.passes.saturating_sub(1);
        state.fault
    }
}

struct GatedExecutor {
    sim: SimExecutor,
    gate: Gate,
}

#[derive(Debug, thiserror::Error)]
#[error("rank 3 has burnt down")]
pub(crate) struct Broken;

impl Executor for GatedExecutor {
    type Error = Broken;

    fn submit(&mut self, plan: Arc<StepPlan>) -> Result<Ticket, Broken> {
        let Ok(ticket) = self.sim.submit(plan);
        Ok(ticket)
    }

    fn wait(&mut self, ticket: Ticket) -> Result<StepOutput, Broken> {
        match self.gate.wait() {
            Some(Fault::Error) => Err(Broken),
            Some(Fault::Panic) => panic!("the executor panics, as it was told to"),
            None => {
                let Ok(output) = self.sim.wait(ticket);
                Ok(output)
            }
        }
    }
}
