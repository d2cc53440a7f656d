//! Sampling from logits that are split over the vocabulary, against the same computed from whole rows
//! in the plainest way: sorted, in f64, on one rank.

use std::num::NonZeroUsize;
use std::sync::Arc;

use minisgl_comm::{Communicator, SingleRank, thread_group};
use minisgl_kernels::ops::sampling::uniform;
use minisgl_kernels::{Device, Tensor};
use minisgl_model::batch::{BatchBuilder, Field, HostBatch};
use minisgl_model::sampler::{Results, Sampler};
use minisgl_sched::{
    InputTokens, PageId, PageSize, RequestId, RowId, Sample, SamplingParams, SequencePlan, StepId,
    StepPlan, TableUpdate, TokenId, TokenLogprobs,
};

use crate::files::Rng;

/// One row to be sampled.
#[derive(Clone, Debug)]
struct Row {
    logits: Vec<f32>,
    params: SamplingParams,
    position: i32,
}

/// What the ranks choose, each with its own share of the columns; all must choose the same.
fn sample(rows: &[Row], tp_size: usize) -> Vec<Sample> {
    let comms: Vec<Box<dyn Communicator>> = if tp_size == 1 {
        vec![Box::new(SingleRank::new())]
    } else {
        let ranks = thread_group(tp_size).unwrap().into_iter();
        ranks.map(|rank| Box::new(rank) as Box<dyn Communicator>).collect()
    };
    let answers: Vec<Vec<Sample>> = std::thread::scope(|scope| {
        let start = |(rank, comm): (usize, Box<dyn Communicator>)| {
            scope.spawn(move || sample_share(rows, rank, tp_size, &*comm))
        };
        let ranks: Vec<_> = comms.into_iter().enumerate().map(start).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| *answer == answers[0]), "ranks differ");
    answers[0].clone()
}

fn sample_share(rows: &[Row], rank: usize, tp_size: usize, comm: &dyn Communicator) -> Vec<Sample> {
    let vocab_size = rows[0].logits.len();
    let each = vocab_size.div_ceil(tp_size);
    let ids = rank * each..vocab_size.min((rank + 1) * each);
    let share: Vec<f32> = rows.iter().flat_map(|row| row.logits[ids.clone()].to_vec()).collect();
    let device = Device::cpu(NonZeroUsize::MIN).unwrap();
    let stream = device.new_stream().unwrap();
    let logits = Tensor::from_slice(&device, [rows.len(), ids.len()], &share).unwrap();
    let mut sampler =
        Sampler::new(&device, ids.start as i32, ids.len(), vocab_size, rows.len(), tp_size)
            .unwrap();
    let mut results = Results::new(&device, rows.len(), tp_size).unwrap();
    let batch = Arc::new(batch(rows));
    let positions = batch.field(Field::SampledPositions);
    let positions = Tensor::from_slice(&device, [rows.len()], positions).unwrap();
    let places =
        Tensor::from_slice(&device, [rows.len()], batch.field(Field::SampledRows)).unwrap();
    sampler.find_most_likely(&stream, comm, logits.view()).unwrap();
    let (logits, places) = (logits.view(), places.view());
    sampler.choose(&stream, comm, logits, places, positions.view(), &batch).unwrap();
    results.start(&stream, &sampler, &batch).unwrap();
    results.finish().unwrap()
}

/// A decode step of all rows.
fn batch(rows: &[Row]) -> HostBatch {
    let longest = rows.iter().map(|row| row.position as usize).max().unwrap();
    let page_size = PageSize::new(1).unwrap();
    let mut builder = BatchBuilder::new(page_size, rows.len(), longest, Vec::new());
    let update = |(row, of): (usize, &Row)| TableUpdate {
        row: RowId(row as u32),
        first_page: 0,
        pages: vec![PageId(0); of.position as usize],
    };
    let sequence = |(row, of): (usize, &Row)| SequencePlan {
        request: RequestId(row as u64),
        row: RowId(row as u32),
        start: of.position as usize - 1,
        input: InputTokens::Host(vec![0]),
        sampling: Some(of.params),
        adjusting: None,
    };
    builder.build(&StepPlan {
        step: StepId(1),
        table_updates: rows.iter().enumerate().map(update).collect(),
        sequences: rows.iter().enumerate().map(sequence).collect(),
    })
}

/// The ids that the filters leave, or `None` if rounding could decide about one.
fn kept(row: &Row) -> Option<Vec<usize>> {
    let SamplingParams { temperature, top_k, top_p, min_p, .. } = row.params;
    let scaled: Vec<f64> =
        row.logits.iter().map(|x| f64::from(*x) / f64::from(temperature)).collect();
    let mut order: Vec<usize> = (0..scaled.len()).collect();
    order.sort_by(|a, b| scaled[*b].total_cmp(&scaled[*a]));
    if top_k > 0 && (top_k as usize) < order.len() {
        let last = scaled[order[top_k as usize - 1]];
        order.retain(|id| scaled[*id] >= last); // Ties stay together.
    }
    let weight = |id: &usize| (scaled[*id] - scaled[order[0]]).exp();
    if top_p < 1.0 {
        let target = f64::from(top_p) * order.iter().map(weight).sum::<f64>();
        let mut mass = 0.0;
        let reached = order.iter().position(|id| {
            mass += weight(id);
            mass >= target
        });
        let last = reached?;
        if (mass - target).abs() < 1e-4 * target
            || (mass - weight(&order[last]) - target).abs() < 1e-4 * target
        {
            return None;
        }
        let lowest = scaled[order[last]];
        order.retain(|id| scaled[*id] >= lowest);
    }
    if min_p > 0.0 {
        let relative = |id: &usize| (scaled[*id] - scaled[order[0]]).exp() / f64::from(min_p);
        if order.iter().any(|id| (relative(id) - 1.0).abs() < 1e-4) {
            return None;
        }
        let (first, min) = (order[0], f64::from(min_p));
        order.retain(|id| (scaled[*id] - scaled[first]).exp() >= min);
    }
    Some(order)
}

/// The token that whole rows give, or `None` where rounding could decide.
fn expected(row: &Row) -> Option<TokenId> {
    if row.params.temperature == 0.0 {
        let best = row.logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        return Some(row.logits.iter().position(|x| *x == best).unwrap() as TokenId);
    }
    let sum = |id: usize| {
        let u = f64::from(uniform(row.params.seed, row.position, id as i32));
        f64::from(row.logits[id]) / f64::from(row.params.temperature) - (-(-u).ln_1p()).ln()
    };
    let mut sums: Vec<(f64, usize)> = kept(row)?.into_iter().map(|id| (sum(id), id)).collect();
    sums.sort_by(|a, b| b.0.total_cmp(&a.0));
    let clear = sums.len() == 1 || sums[0].0 - sums[1].0 > 1e-4;
    clear.then_some(sums[0].1 as TokenId)
}

fn rows(vocab_size: usize, rng: &mut Rng) -> Vec<Row> {
    let greedy = SamplingParams::GREEDY;
    let mut kinds = vec![greedy];
    for temperature in [0.3, 1.0, 1.7] {
        let plain = SamplingParams { temperature, ..greedy };
        kinds.push(plain);
        for top_k in [1, 2, 7, 50, vocab_size as u32, u32::MAX] {
            kinds.push(SamplingParams { top_k, ..plain });
        }
        for top_p in [0.05, 0.5, 0.9, 0.999] {
            kinds.push(SamplingParams { top_p, ..plain });
            kinds.push(SamplingParams { top_p, top_k: 20, min_p: 0.02, ..plain });
        }
        kinds.push(SamplingParams { min_p: 0.1, ..plain });
    }
    let rows = (0..4 * kinds.len()).map(|index| {
        let coarse = index % 3 == 0; // Many equal logits: ties across the borders of ranks.
        let logit = |_| {
            let x = (rng.below(1 << 16) as f32 / 65536.0 - 0.5) * 12.0;
            if coarse { x.round() } else { x }
        };
        let logits = (0..vocab_size).map(logit).collect();
        let params = SamplingParams {
            seed: rng.next(),
            logprobs: Some(index as u32 % 21),
            ..kinds[index % kinds.len()]
        };
        Row { logits, params, position: 1 + rng.below(5000) as i32 }
    });
    rows.collect()
}

#[test]
fn tokens_are_those_of_whole_rows() {
    let mut rng = Rng(3);
    // Split evenly, with a short last rank, and with few columns for each.
    for vocab_size in [512, 331, 57] {
        let rows = rows(vocab_size, &mut rng);
        let expected: Vec<Option<TokenId>> = rows.iter().map(expected).collect();
        let clear = expected.iter().flatten().count();
        assert!(clear * 10 > rows.len() * 9, "{clear} of {} are clear", rows.len());
        for tp_size in [1, 2, 4, 8] {
            for (index, sample) in sample(&rows, tp_size).iter().enumerate() {
                let Sample::Token { token, .. } = sample else { panic!("{sample:?}") };
                let what = format!("vocabulary {vocab_size} tp {tp_size} row {index}");
                if let Some(expected) = expected[index] {
                    assert_eq!(*token, expected, "{what} {:?}", rows[index].params);
                }
            }
        }
    }
}

#[test]
fn log_probabilities_are_those_of_whole_rows() {
    let mut rng = Rng(4);
    for vocab_size in [512, 331, 57] {
        let rows = rows(vocab_size, &mut rng);
        for tp_size in [1, 2, 4, 8] {
            for (row, sample) in rows.iter().zip(sample(&rows, tp_size)) {
                let Sample::Token { token, logprobs: Some(ours) } = sample else {
                    panic!("{sample:?}")
                };
                let TokenLogprobs { chosen, top } = ours;
                let sum: f64 = row.logits.iter().map(|x| f64::from(*x).exp()).sum();
                let logprob = |id: TokenId| f64::from(row.logits[id as usize]) - sum.ln();
                let close = |ours: f32, id| (f64::from(ours) - logprob(id)).abs() < 1e-5;
                assert!(close(chosen, token), "{chosen} {}", logprob(token));
                // Exactly these ids in exactly this order: equal ones by the lowest id.
                let mut order: Vec<TokenId> = (0..vocab_size as TokenId).collect();
                order.sort_by(|a, b| {
                    row.logits[*b as usize].total_cmp(&row.logits[*a as usize]).then(a.cmp(b))
                });
                let count = row.params.logprobs.unwrap() as usize;
                let ids: Vec<TokenId> = top.iter().map(|(id, _)| *id).collect();
                assert_eq!(ids, order[..count], "tp {tp_size}");
                assert!(top.iter().all(|(id, ours)| close(*ours, *id)));
            }
        }
    }
}
