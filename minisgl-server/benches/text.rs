//! What text costs per token: tokenizing, detokenizing, templates, stop strings, events; and what
//! it costs to get tokens from the engine thread to their clients. For comparing versions; an engine
//! that computes takes thousands of times longer per token.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::hint::black_box;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use minisgl_sched::{
    Driver, Event, Executor, Request, RequestId, Sample, SamplingParams, Scheduler,
    SchedulerConfig, StepOutput, StepPlan, Ticket,
};
use minisgl_server::api::{Api, ApiOptions};
use minisgl_server::demo;
use minisgl_server::detokenizer::Detokenizer;
use minisgl_server::engine::{self, Engine, EngineConfig};
use minisgl_server::http::{self, BoundAddress, HttpLimits};
use minisgl_server::output::{Delta, Output, OutputOptions};
use minisgl_server::stop::StopStrings;
use minisgl_server::template::ChatMessage;
use minisgl_server::text::TextModel;
use minisgl_server::tokenizer::AddSpecial;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// About two thousand tokens.
fn text() -> String {
    "The server takes a prompt, looks for it in the prefix cache, and computes the rest. "
        .repeat(100)
}

fn model() -> TextModel {
    TextModel::load(&demo::checkpoint(), None, &[], 4096, 1 << 20).expect("the demo model loads")
}

fn tokens(criterion: &mut Criterion) {
    let (model, text) = (model(), text());
    let tokenizer = &model.tokenizer;
    let ids = tokenizer.encode(&text, AddSpecial::Yes).expect("it is text");
    let mut group = criterion.benchmark_group("text");
    group.throughput(Throughput::Elements(ids.len() as u64));
    group.bench_function("tokenize", |bencher| {
        bencher.iter(|| tokenizer.encode(black_box(&text), AddSpecial::Yes));
    });
    group.bench_function("detokenize", |bencher| {
        bencher.iter(|| {
            let mut detokenizer = Detokenizer::new(true);
            let mut out = String::new();
            for id in &ids {
                out.clear();
                detokenizer.push(tokenizer.token_bytes(), *id, &mut out);
                black_box(&out);
            }
        });
    });
    let stop = Arc::new(StopStrings::new(["\n\n", "<|im_end|>", "The end", "###"]));
    for (name, stop) in [("output", Arc::default()), ("output with 4 stop strings", stop)] {
        let options = OutputOptions { stop, ..OutputOptions::default() };
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut output = Output::new(&options);
                let mut delta = Delta::default();
                for id in &ids {
                    delta.text.clear();
                    output.push(tokenizer.token_bytes(), *id, None, &mut delta);
                    black_box(&delta);
                }
            });
        });
    }
    group.finish();
}

fn template(criterion: &mut Criterion) {
    let model = model();
    let chat = |messages: usize| {
        let message = |index| ChatMessage::new(["user", "assistant"][index % 2], "Hello there!");
        (0..messages).map(message).collect::<Vec<_>>()
    };
    let mut group = criterion.benchmark_group("template");
    for messages in [1, 99] {
        let chat = chat(messages);
        group.throughput(Throughput::Elements(messages as u64));
        group.bench_function(format!("{messages} messages"), |bencher| {
            bencher.iter(|| model.render(black_box(&chat), &[]));
        });
    }
    group.finish();
}

/// Requests of this many tokens, all at once.
const OUTPUT_TOKENS: usize = 64;

/// Computes nothing, so that the time is that of everything else.
struct NoModel {
    in_flight: VecDeque<Arc<StepPlan>>,
}

impl Executor for NoModel {
    type Error = Infallible;

    fn submit(&mut self, plan: Arc<StepPlan>) -> Result<Ticket, Infallible> {
        let ticket = Ticket(plan.step);
        self.in_flight.push_back(plan);
        Ok(ticket)
    }

    fn wait(&mut self, ticket: Ticket) -> Result<StepOutput, Infallible> {
        let plan = self.in_flight.pop_front().expect("a step was submitted");
        let sample = |_| Sample::Token { token: 300, logprobs: None };
        Ok(StepOutput { step: ticket.0, samples: plan.sampled().map(sample).collect() })
    }
}

fn driver(max_running_requests: usize) -> Driver<NoModel> {
    let config = SchedulerConfig {
        num_pages: 1 << 16,
        max_running_requests,
        max_prefill_tokens: 1 << 16,
        ..SchedulerConfig::default()
    };
    let scheduler = Scheduler::new(config).expect("the limits make sense");
    Driver::new(scheduler, NoModel { in_flight: VecDeque::new() }, true)
}

fn request(client: usize) -> Request {
    Request {
        id: RequestId(client as u64),
        prompt: vec![client as u32; 4],
        max_tokens: OUTPUT_TOKENS,
        stop_token_ids: [].into(),
        sampling: SamplingParams::GREEDY,
        adjustments: None,
    }
}

/// From the engine thread through the router to as many clients; compare with `driver alone`.
fn engine_to_clients(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let mut group = criterion.benchmark_group("engine");
    for clients in [1usize, 64, 256] {
        group.throughput(Throughput::Elements((clients * OUTPUT_TOKENS) as u64));
        group.bench_function(format!("driver alone, {clients} requests"), |bencher| {
            bencher.iter_batched_ref(
                || driver(clients),
                |driver| {
                    (0..clients).for_each(|client| driver.add(request(client)).expect("it fits"));
                    while !driver.is_idle() {
                        black_box(driver.step().expect("nothing can fail"));
                    }
                },
                BatchSize::PerIteration,
            );
        });
        let _in_runtime = runtime.enter();
        let (engine, _ended) =
            engine::start(driver(clients), limits(clients)).expect("a thread starts");
        group.bench_function(format!("engine and {clients} clients"), |bencher| {
            bencher.iter(|| runtime.block_on(run_clients(&engine, clients)));
        });
        engine.stop();
    }
    group.finish();
}

fn limits(max_open_requests: usize) -> EngineConfig {
    EngineConfig { max_open_requests, step_timeout: Duration::from_secs(300) }
}

async fn run_clients(engine: &Engine, clients: usize) {
    let client = |client| {
        let mut submission = engine.open(1).expect("there is room");
        submission.submit(0, request(client));
        tokio::spawn(async move {
            loop {
                let updates = submission.updates().await;
                if updates.iter().any(|update| matches!(update.event, Event::Finished { .. })) {
                    return;
                }
            }
        })
    };
    for client in (0..clients).map(client).collect::<Vec<_>>() {
        client.await.expect("a client ends");
    }
}

/// The same through sockets, as server-sent events; client and server share the cores.
fn sockets(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let mut group = criterion.benchmark_group("http");
    for clients in [1usize, 64] {
        let _in_runtime = runtime.enter();
        let (engine, _ended) =
            engine::start(driver(clients), limits(clients)).expect("a thread starts");
        let options = ApiOptions {
            model_name: demo::NAME.to_owned(),
            api_key: None,
            max_body_bytes: 1 << 20,
            num_tokenizers: 1,
        };
        let api = Arc::new(Api::new(engine.clone(), Arc::new(model()), options));
        let bound = BoundAddress::bind("127.0.0.1", 0).expect("a port is free");
        let address = bound.address();
        let listener = bound.listen().expect("a port is free");
        let (stop, stopping) = watch::channel(false);
        runtime.spawn(http::serve(listener, api, HttpLimits::default(), stopping));
        group.throughput(Throughput::Elements((clients * OUTPUT_TOKENS) as u64));
        group.bench_function(format!("{clients} streams"), |bencher| {
            bencher.iter(|| {
                let streams: Vec<_> =
                    (0..clients).map(|_| runtime.spawn(read_stream(address))).collect();
                for stream in streams {
                    runtime.block_on(stream).expect("a stream ends").expect("a stream is read");
                }
            });
        });
        stop.send_replace(true);
        engine.stop();
    }
    group.finish();
}

async fn read_stream(address: SocketAddr) -> io::Result<usize> {
    let body = format!(
        "{{\"prompt\":\"Hello\",\"max_tokens\":{OUTPUT_TOKENS},\"ignore_eos\":true,\"stream\":true}}"
    );
    let head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                Content-Type: application/json\r\n";
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await
}

criterion_group!(benches, tokens, template, engine_to_clients, sockets);
criterion_main!(benches);
