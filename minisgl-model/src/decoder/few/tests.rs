//! The layers for a few tokens against those for any number: the same bits on the CPU.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use minisgl_cache::pool::KvLayout;
use minisgl_cache::{KvPool, PageId, PageSize, RowId};
use minisgl_comm::SingleRank;
use minisgl_kernels::{DType, Device, Stream};
use minisgl_sched::{
    InputTokens, RequestId, SamplingParams, SequencePlan, StepId, StepPlan, TableUpdate,
};

use crate::batch::BatchBuilder;
use crate::decoder::{Decoder, Geometry};
use crate::engine::{Engine, PhaseBackends, StepLimits};
use crate::shard::Shard;
use crate::weights::{Loader, SafetensorsFiles, Source};
use crate::{Checkpoint, ModelConfig};

const LIMITS: StepLimits = StepLimits {
    max_tokens: 16,
    max_sequences: 4,
    max_pages_per_row: 16,
    page_size: 1,
    vocab_size: 0, // the model's
};

/// A golden checkpoint on the CPU, where up to `max_few` tokens go through [`Decoder::few`].
fn engine(case: &str, max_few: usize) -> Engine {
    let (stream, decoder, pool) = load(case, max_few);
    let comm = Box::new(SingleRank::new());
    let limits = StepLimits { vocab_size: decoder.geometry().vocab_size, ..LIMITS };
    Engine::new(stream, comm, decoder, pool, limits, PhaseBackends::CPU).unwrap()
}

fn load(case: &str, max_few: usize) -> (Stream, Decoder, KvPool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case);
    let checkpoint = Checkpoint::folder(folder).unwrap();
    let config = ModelConfig::load(&checkpoint).unwrap();
    let shard = Shard::new(&config, 0, 1).unwrap();
    let device = Device::cpu(NonZeroUsize::MIN).unwrap();
    let stream = device.new_stream().unwrap();
    let source = Source::Files(SafetensorsFiles::open(&checkpoint).unwrap());
    let loader = Loader::new(&source, &stream, DType::F32, &|_| Ok(()));
    let geometry = Geometry::new(&config, &shard, DType::F32);
    let layout = KvLayout {
        num_layers: config.num_layers,
        num_kv_heads: geometry.num_kv_heads,
        head_dim: geometry.head_dim,
        dtype: DType::F32,
        page_size: PageSize::new(1).unwrap(),
    };
    let mut decoder = Decoder::load(&config, &shard, 64, &loader, geometry, &device).unwrap();
    loader.finish().unwrap();
    assert_eq!(decoder.max_few, 0, "one after the other is as fast on the CPU");
    decoder.max_few = max_few;
    let pool = KvPool::new(&device, layout, 64).unwrap();
    (stream, decoder, pool)
}

/// The logits of `steps`, each of which computes the next tokens of some rows.
fn logits(engine: &mut Engine, steps: &[&[(u32, &[u32])]]) -> Vec<Vec<f32>> {
    let page_size = PageSize::new(1).unwrap();
    let mut builder = BatchBuilder::new(page_size, 4, LIMITS.max_pages_per_row, Vec::new());
    let mut lens = [0; 4];
    let mut run = |(step, rows): (usize, &&[(u32, &[u32])])| {
        let sequences = rows.iter().map(|&(row, tokens)| {
            let len = &mut lens[row as usize];
            let start = *len;
            *len += tokens.len();
            SequencePlan {
                request: RequestId(row.into()),
                row: RowId(row),
                start,
                input: InputTokens::Host(tokens.to_vec()),
                sampling: Some(SamplingParams::GREEDY),
                adjusting: None,
            }
        });
        let sequences: Vec<_> = sequences.collect();
        let updates = sequences.iter().map(|sequence| TableUpdate {
            row: sequence.row,
            first_page: sequence.start,
            pages: (0..sequence.input.len())
                .map(|i| PageId(sequence.row.0 * 16 + (sequence.start + i) as u32))
                .collect(),
        });
        let table_updates = updates.collect();
        let plan = StepPlan { step: StepId(step as u64), table_updates, sequences };
        let launched = engine.launch(&Arc::new(builder.build(&plan))).unwrap();
        engine.finish(launched).unwrap();
        engine.last_logits(rows.len()).unwrap()
    };
    steps.iter().enumerate().map(&mut run).collect()
}

#[test]
fn a_few_tokens_have_the_logits_that_they_have_among_many() {
    let steps: &[&[(u32, &[u32])]] = &[
        &[(0, &[5, 6, 7]), (1, &[8])],
        &[(0, &[9]), (1, &[10]), (2, &[11, 12, 13, 14, 15])], // too many
        &[(2, &[16])],
        &[(0, &[17]), (1, &[18]), (2, &[19]), (3, &[20])],
    ];
    for case in ["llama", "qwen3"] {
        let usual = logits(&mut engine(case, 0), steps);
        let few = logits(&mut engine(case, 4), steps);
        assert!(usual.iter().flatten().all(|x| x.is_finite()));
        assert_eq!(usual, few, "{case}");
    }
}

#[test]
fn biases_and_experts_are_never_few() {
    for (case, can) in [("llama", true), ("llama-bias", false), ("qwen3-moe", false)] {
        let (_, decoder, _) = load(case, 4);
        assert_eq!(decoder.can_be_few(), can, "{case}");
    }
}
