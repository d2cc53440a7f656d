//! What a request generates, and the bits of its logits, do not depend on the prefix cache, the
//! chunk size, the page size, overlap, or who else is in the batch.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use minisgl_cache::{KvLayout, KvPool};
use minisgl_comm::SingleRank;
use minisgl_kernels::{DType, Device};
use minisgl_model::batch::BatchBuilder;
use minisgl_model::decoder::{Decoder, Geometry};
use minisgl_model::engine::{Engine, PhaseBackends, StepLimits};
use minisgl_model::shard::Shard;
use minisgl_model::weights::{Loader, SafetensorsFiles, Source};
use minisgl_model::{ModelConfig, ModelError};
use minisgl_sched::{
    CacheKind, Driver, Executor, PageSize, Request, RequestId, SamplingParams, Scheduler,
    SchedulerConfig, StepOutput, StepPlan, Ticket, TokenId,
};

use crate::harness::{self, Output};

/// By request and position: the bits of the logits a token was chosen from.
type Logits = BTreeMap<(RequestId, usize), Vec<u32>>;

/// One rank in this thread, which writes down all logits. Runs a step when it is waited for.
struct Recorder {
    engine: Engine,
    builder: BatchBuilder,
    submitted: Vec<Arc<StepPlan>>,
    logits: Logits,
}

impl Executor for Recorder {
    type Error = ModelError;

    fn submit(&mut self, plan: Arc<StepPlan>) -> Result<Ticket, ModelError> {
        let ticket = Ticket(plan.step);
        self.submitted.push(plan);
        Ok(ticket)
    }

    fn wait(&mut self, ticket: Ticket) -> Result<StepOutput, ModelError> {
        let plan = self.submitted.remove(0);
        assert_eq!(plan.step, ticket.0);
        let batch = Arc::new(self.builder.build(&plan));
        let step = self.engine.launch(&batch)?;
        let samples = self.engine.finish(step)?;
        let logits = self.engine.last_logits(samples.len())?;
        let rows = logits.chunks_exact((logits.len() / samples.len().max(1)).max(1));
        for (sequence, row) in plan.sampled().zip(rows) {
            let position = sequence.start + sequence.input.len();
            let bits = row.iter().map(|logit| logit.to_bits()).collect();
            self.logits.insert((sequence.request, position), bits);
        }
        Ok(StepOutput { step: plan.step, samples })
    }
}

#[derive(Clone, Copy, Debug)]
struct Setting {
    cache: CacheKind,
    chunk: usize,
    page_size: usize,
    overlap: bool,
    threads: usize,
    /// All requests at once, or one after the other.
    together: bool,
}

const PLAIN: Setting = Setting {
    cache: CacheKind::Naive,
    chunk: 64,
    page_size: 1,
    overlap: false,
    threads: 1,
    together: false,
};

/// Of which numbers everything is.
#[derive(Clone, Copy, Debug)]
struct Formats {
    dtype: DType,
    fp8_projections: bool,
    kv_dtype: DType,
}

impl From<DType> for Formats {
    fn from(dtype: DType) -> Self {
        Self { dtype, fp8_projections: false, kv_dtype: dtype }
    }
}

fn recorder(case: &str, formats: Formats, setting: Setting) -> (Recorder, SchedulerConfig) {
    let Formats { dtype, fp8_projections, kv_dtype } = formats;
    let checkpoint = harness::checkpoint(case);
    let config = ModelConfig::load(&checkpoint).unwrap();
    let page_size = PageSize::new(setting.page_size).unwrap();
    let scheduler = SchedulerConfig {
        num_pages: 8192 / setting.page_size,
        page_size,
        cache: setting.cache,
        max_running_requests: 32,
        max_prefill_tokens: setting.chunk,
        max_seq_len: config.max_position_embeddings,
    };
    let device = Device::cpu(NonZeroUsize::new(setting.threads).unwrap()).unwrap();
    let stream = device.new_stream().unwrap();
    let source = Source::Files(SafetensorsFiles::open(&checkpoint).unwrap());
    let loader = Loader::new(&source, &stream, dtype, &|_| Ok(()));
    let shard = Shard::new(&config, 0, 1).unwrap();
    let geometry = Geometry::new(&config, &shard, dtype);
    let geometry = Geometry { fp8_projections, kv_dtype, ..geometry };
    let positions = scheduler.max_seq_len;
    let decoder = Decoder::load(&config, &shard, positions, &loader, geometry, &device).unwrap();
    loader.finish().unwrap();
    let layout = KvLayout {
        num_layers: config.num_layers,
        num_kv_heads: config.num_kv_heads,
        head_dim: config.head_dim,
        dtype: kv_dtype,
        page_size,
    };
    let pool = KvPool::new(&device, layout, scheduler.num_pages).unwrap();
    let limits = StepLimits {
        max_tokens: setting.chunk + 32,
        max_sequences: 32,
        max_pages_per_row: page_size.pages_for(positions),
        page_size: setting.page_size,
        vocab_size: config.vocab_size,
    };
    let comm = Box::new(SingleRank::new());
    let attention = PhaseBackends::CPU;
    let engine = Engine::new(stream, comm, decoder, pool, limits, attention).unwrap();
    let builder = BatchBuilder::new(page_size, 32, limits.max_pages_per_row, Vec::new());
    (Recorder { engine, builder, submitted: Vec::new(), logits: Logits::new() }, scheduler)
}

/// 32 prompts, many with common prefixes, half of them sampled with a seed, and half of all with
/// adjusted logits.
fn requests() -> Vec<Request> {
    let token = |family: u64, at: u64| ((family * 131 + at * 29 + at * at) % 320) as TokenId;
    let request = |id: u64| {
        let shared = (id % 5) * 21;
        let own = 1 + (id * 7) % 40;
        let prompt: Vec<TokenId> = (0..shared)
            .map(|at| token(id % 2, at))
            .chain((0..own).map(|at| token(100 + id, at)))
            .collect();
        let sampling = if id.is_multiple_of(2) {
            SamplingParams::GREEDY
        } else {
            SamplingParams {
                temperature: 0.9,
                top_k: if id.is_multiple_of(3) { 30 } else { 0 },
                top_p: 0.9,
                seed: id,
                ..SamplingParams::GREEDY
            }
        };
        let request = harness::request(id, &prompt, 6, sampling);
        // Greedy and sampled ones.
        if id % 4 < 2 { request } else { harness::adjusted(request, harness::adjustments(id)) }
    };
    (0..32).map(request).collect()
}

fn run(case: &str, formats: Formats, setting: Setting) -> (Vec<Output>, Logits) {
    let (recorder, config) = recorder(case, formats, setting);
    let mut driver = Driver::new(Scheduler::new(config).unwrap(), recorder, setting.overlap);
    let outputs = if setting.together {
        harness::run(&mut driver, requests())
    } else {
        let alone = |request| harness::run(&mut driver, vec![request]).remove(0);
        requests().into_iter().map(alone).collect()
    };
    let logits = driver.executor().logits.clone();
    (outputs, logits)
}

fn check(case: &str, formats: impl Into<Formats>, settings: &[Setting]) {
    let formats = formats.into();
    let (expected, expected_logits) = run(case, formats, PLAIN);
    assert_eq!(expected_logits.len(), 32 * 6);
    let mut cached = 0;
    for setting in settings {
        let (outputs, logits) = run(case, formats, *setting);
        for (output, expected) in outputs.iter().zip(&expected) {
            assert_eq!(output.tokens, expected.tokens, "{case} {setting:?}");
            cached += output.cached_tokens;
        }
        for (place, bits) in &expected_logits {
            // With overlap, a step after the last token may be in the record too.
            assert!(logits[place] == *bits, "{case} {setting:?}: other logits at {place:?}");
        }
    }
    assert!(cached > 0, "some prompts came from the cache");
}

fn settings() -> Vec<Setting> {
    let mut settings = vec![
        Setting { cache: CacheKind::Radix, ..PLAIN },
        Setting { overlap: true, ..PLAIN },
        Setting { together: true, ..PLAIN },
        Setting { threads: 3, ..PLAIN },
    ];
    for chunk in [1, 7, 64] {
        for page_size in [1, 4, 16] {
            let cache = CacheKind::Radix;
            settings.push(Setting {
                chunk,
                page_size,
                cache,
                overlap: true,
                together: true,
                ..PLAIN
            });
        }
    }
    settings
}

#[test]
fn llama_in_f32() {
    check("llama", DType::F32, &settings());
}

#[test]
fn qwen3_in_f32() {
    check("qwen3", DType::F32, &settings());
}

#[test]
fn qwen3_in_bf16() {
    check("qwen3-bf16", DType::Bf16, &settings());
}

#[test]
fn windows_in_f32() {
    check("mistral", DType::F32, &settings());
}

#[test]
fn experts_in_f32() {
    check("qwen3-moe", DType::F32, &settings());
}

#[test]
fn projections_in_8_bit_floats() {
    let formats = Formats { fp8_projections: true, ..DType::F32.into() };
    check("llama-bias", formats, &settings());
    check("qwen3-bf16", Formats { fp8_projections: true, ..DType::Bf16.into() }, &settings());
}

#[test]
fn keys_and_values_in_8_bit_floats() {
    let kv_dtype = DType::F8E4M3;
    check("mistral", Formats { kv_dtype, ..DType::F32.into() }, &settings());
    check("qwen3-bf16", Formats { kv_dtype, ..DType::Bf16.into() }, &settings());
}
