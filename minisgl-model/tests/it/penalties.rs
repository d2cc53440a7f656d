//! Penalties, bias and held-back stop tokens: step by step against the same computed from whole rows
//! of logits in the plainest way, and against transformers; and what a request gets of them.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use minisgl_comm::{Communicator, SingleRank, thread_group};
use minisgl_kernels::ops::sampling::uniform;
use minisgl_kernels::{Device, Tensor};
use minisgl_model::batch::{BatchBuilder, Field};
use minisgl_model::sampler::{Results, Sampler};
use minisgl_model::{DTypeChoice, EngineOptions};
use minisgl_sched::{
    Adjusting, Adjustments, Driver, Event, Executor, FirstAdjusting, InputTokens, PageId, PageSize,
    Request, RequestId, RowId, Sample, SamplingParams, SequencePlan, StepId, StepPlan, TableUpdate,
    TokenId, TokenSet,
};

use serde::Deserialize;

use crate::files::Rng;
use crate::harness::{self, Output};

const ROWS: usize = 8;
const STEPS: usize = 60;

/// A request as the plain computation knows it.
#[derive(Clone)]
struct Known {
    params: SamplingParams,
    adjustments: Option<Arc<Adjustments>>,
    prompt: Vec<TokenId>,
    stop: Vec<TokenId>,
    num_sampled: usize,
}

impl Known {
    fn random(rng: &mut Rng, vocab_size: usize) -> Self {
        let token = |rng: &mut Rng| rng.below(vocab_size) as TokenId;
        let one_of = |rng: &mut Rng, values: [f32; 4]| values[rng.below(4)];
        let mut logit_bias: BTreeMap<TokenId, f32> = BTreeMap::new();
        for _ in 0..rng.below(8) {
            logit_bias.insert(token(rng), one_of(rng, [-100.0, -1.5, 2.25, 100.0]));
        }
        let stop: Vec<TokenId> = (0..rng.below(9)).map(|_| token(rng)).collect();
        if let Some(stop) = stop.first() {
            logit_bias.insert(*stop, 100.0); // forced, as soon as it may come
        }
        let adjustments = Adjustments {
            repetition_penalty: one_of(rng, [1.0, 1.1, 2.0, 0.6]),
            frequency_penalty: one_of(rng, [0.0, 0.4, 2.0, -0.7]),
            presence_penalty: one_of(rng, [0.0, 0.3, 2.0, -1.0]),
            logit_bias: logit_bias.into_iter().collect(),
            min_tokens: rng.below(6),
        };
        let temperature = one_of(rng, [0.0, 0.0, 0.5, 1.0]);
        Self {
            params: SamplingParams {
                temperature,
                top_k: if rng.below(3) == 0 { 5 } else { 0 },
                seed: rng.next(),
                logprobs: (rng.below(2) == 0).then_some(3),
                ..SamplingParams::GREEDY
            },
            adjustments: (rng.below(4) > 0).then(|| Arc::new(adjustments)),
            prompt: (0..1 + rng.below(30)).map(|_| token(rng)).collect(),
            stop,
            num_sampled: 0,
        }
    }

    fn sequence(&self, row: usize) -> SequencePlan {
        let adjusting = self.adjustments.as_ref().map(|adjustments| match self.num_sampled {
            0 => {
                let has = adjustments.repetition_penalty != 1.0;
                let held_back: &[TokenId] =
                    if adjustments.min_tokens > 0 { &self.stop } else { &[] };
                Adjusting::First(Box::new(FirstAdjusting {
                    adjustments: Arc::clone(adjustments),
                    prompt: TokenSet::of(if has { &self.prompt } else { &[] }),
                    held_back: held_back.into(),
                }))
            }
            _ => Adjusting::Next,
        });
        SequencePlan {
            request: RequestId(row as u64),
            row: RowId(row as u32),
            start: self.prompt.len() + self.num_sampled - 1,
            input: InputTokens::Host(vec![0]),
            sampling: Some(self.params),
            adjusting,
        }
    }

    /// The definition, token by token.
    fn adjusted(&self, logits: &[f32], output: &[TokenId]) -> Vec<f32> {
        let Some(adjustments) = &self.adjustments else { return logits.to_vec() };
        let one = |(id, logit): (usize, &f32)| {
            let id = id as TokenId;
            let mut x = *logit;
            if let Some((_, bias)) = adjustments.logit_bias.iter().find(|(of, _)| *of == id) {
                x += bias;
            }
            if output.len() < adjustments.min_tokens && self.stop.contains(&id) {
                x = f32::NEG_INFINITY;
            }
            let count = output.iter().filter(|of| **of == id).count();
            if count > 0 || self.prompt.contains(&id) {
                let penalty = adjustments.repetition_penalty;
                x = if x > 0.0 { x / penalty } else { x * penalty };
            }
            x -= adjustments.frequency_penalty * count as f32;
            if count > 0 {
                x -= adjustments.presence_penalty;
            }
            x
        };
        logits.iter().enumerate().map(one).collect()
    }

    /// The token that is chosen from `logits`; `None` where rounding could decide.
    fn chosen(&self, logits: &[f32], position: usize) -> Option<TokenId> {
        if self.params.temperature == 0.0 {
            let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            return logits.iter().position(|x| *x == best).map(|id| id as TokenId);
        }
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        if self.params.top_k > 0 {
            let last = logits[order[self.params.top_k as usize - 1]];
            order.retain(|id| logits[*id] >= last);
        }
        let sum = |id: usize| {
            let u = f64::from(uniform(self.params.seed, position as i32, id as i32));
            f64::from(logits[id]) / f64::from(self.params.temperature) - (-(-u).ln_1p()).ln()
        };
        let mut sums: Vec<(f64, usize)> = order.into_iter().map(|id| (sum(id), id)).collect();
        sums.sort_by(|a, b| b.0.total_cmp(&a.0));
        let is_clear = sums.len() == 1 || sums[0].0 - sums[1].0 > 1e-4;
        is_clear.then_some(sums[0].1 as TokenId)
    }
}

/// What happens in one step: the requests by row, before the step, and the logits of each.
struct Step {
    rows: Vec<(usize, Known, Vec<f32>)>,
}

/// Requests that come and go in [`ROWS`] rows; in some steps nobody has adjustments.
fn history(vocab_size: usize) -> Vec<Step> {
    let mut rng = Rng(vocab_size as u64);
    let mut rows: Vec<Option<Known>> = vec![None; ROWS];
    let mut steps = Vec::new();
    while steps.len() < STEPS {
        for row in &mut rows {
            match row {
                None if rng.below(2) == 0 => *row = Some(Known::random(&mut rng, vocab_size)),
                Some(_) if rng.below(12) == 0 => *row = None,
                _ => {}
            }
        }
        let only_plain = steps.len() % 7 == 6;
        let mut step = Step { rows: Vec::new() };
        for (index, row) in rows.iter_mut().enumerate() {
            let Some(known) = row else { continue };
            if only_plain && known.adjustments.is_some() {
                continue;
            }
            let logit = |_| (rng.below(1 << 16) as f32 / 65536.0 - 0.5) * 12.0;
            step.rows.push((index, known.clone(), (0..vocab_size).map(logit).collect()));
            known.num_sampled += 1;
        }
        if !step.rows.is_empty() {
            steps.push(step);
        }
    }
    steps
}

fn samples(steps: &[Step], vocab_size: usize, tp_size: usize) -> Vec<Vec<Sample>> {
    let comms: Vec<Box<dyn Communicator>> = if tp_size == 1 {
        vec![Box::new(SingleRank::new())]
    } else {
        let ranks = thread_group(tp_size).unwrap().into_iter();
        ranks.map(|rank| Box::new(rank) as Box<dyn Communicator>).collect()
    };
    let answers: Vec<Vec<Vec<Sample>>> = std::thread::scope(|scope| {
        let start = |(rank, comm): (usize, Box<dyn Communicator>)| {
            scope.spawn(move || samples_of_rank(steps, vocab_size, rank, tp_size, &*comm))
        };
        let ranks: Vec<_> = comms.into_iter().enumerate().map(start).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| *answer == answers[0]), "ranks differ");
    answers[0].clone()
}

fn samples_of_rank(
    steps: &[Step],
    vocab_size: usize,
    rank: usize,
    tp_size: usize,
    comm: &dyn Communicator,
) -> Vec<Vec<Sample>> {
    let each = vocab_size.div_ceil(tp_size);
    let ids = rank * each..vocab_size.min((rank + 1) * each);
    let device = Device::cpu(NonZeroUsize::MIN).unwrap();
    let stream = device.new_stream().unwrap();
    let mut sampler =
        Sampler::new(&device, ids.start as i32, ids.len(), vocab_size, ROWS, tp_size).unwrap();
    let mut results = Results::new(&device, ROWS, tp_size).unwrap();
    let mut builder = BatchBuilder::new(PageSize::new(1).unwrap(), ROWS, 200, Vec::new());
    let mut run = |(index, step): (usize, &Step)| {
        let update = |(row, ..): &(usize, Known, Vec<f32>)| TableUpdate {
            row: RowId(*row as u32),
            first_page: 0,
            pages: vec![PageId(0); 150],
        };
        let batch = Arc::new(builder.build(&StepPlan {
            step: StepId(index as u64 + 1),
            table_updates: step.rows.iter().map(update).collect(),
            sequences: step.rows.iter().map(|(row, known, _)| known.sequence(*row)).collect(),
        }));
        let m = step.rows.len();
        let share: Vec<f32> =
            step.rows.iter().flat_map(|(.., logits)| logits[ids.clone()].to_vec()).collect();
        let logits = Tensor::from_slice(&device, [m, ids.len()], &share).unwrap();
        let [rows, positions] = [Field::SampledRows, Field::SampledPositions]
            .map(|field| Tensor::from_slice(&device, [m], batch.field(field)).unwrap());
        let (rows, positions) = (rows.view(), positions.view());
        sampler.find_most_likely(&stream, comm, logits.view()).unwrap();
        sampler.choose(&stream, comm, logits.view(), rows, positions, &batch).unwrap();
        results.start(&stream, &sampler, &batch).unwrap();
        assert_eq!(logits.to_vec::<f32>().unwrap(), share, "the model's logits stay");
        results.finish().unwrap()
    };
    steps.iter().enumerate().map(&mut run).collect()
}

#[test]
fn tokens_are_those_of_whole_adjusted_rows() {
    for vocab_size in [331, 64, 57] {
        let steps = history(vocab_size);
        for tp_size in [1, 2, 4] {
            let mut outputs: BTreeMap<usize, Vec<TokenId>> = BTreeMap::new();
            let (mut clear, mut all, mut changed) = (0, 0, 0);
            for (index, samples) in samples(&steps, vocab_size, tp_size).iter().enumerate() {
                for ((row, known, logits), sample) in steps[index].rows.iter().zip(samples) {
                    let Sample::Token { token, logprobs } = sample else { panic!("{sample:?}") };
                    if known.num_sampled == 0 {
                        outputs.insert(*row, Vec::new());
                    }
                    let output = outputs.get_mut(row).unwrap();
                    assert_eq!(output.len(), known.num_sampled);
                    let what = format!("vocabulary {vocab_size} tp {tp_size} step {index}");
                    let position = known.prompt.len() + known.num_sampled;
                    let adjusted = known.adjusted(logits, output);
                    all += 1;
                    if let Some(expected) = known.chosen(&adjusted, position) {
                        assert_eq!(*token, expected, "{what} row {row}");
                        clear += 1;
                        changed += usize::from(known.chosen(logits, position) != Some(expected));
                    }
                    output.push(*token);
                    assert_eq!(logprobs.is_some(), known.params.logprobs.is_some());
                    if let Some(logprobs) = logprobs {
                        // Of the model, whatever is done to the logits.
                        let sum: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
                        let of = |id: TokenId| f64::from(logits[id as usize]) - sum.ln();
                        let close = |ours: f32, id| (f64::from(ours) - of(id)).abs() < 1e-5;
                        assert!(close(logprobs.chosen, *token), "{what} row {row}");
                        assert!(logprobs.top.iter().all(|(id, ours)| close(*ours, *id)));
                    }
                }
            }
            assert!(clear * 10 > all * 9, "{clear} of {all} are clear");
            assert!(changed * 3 > all, "only {changed} of {all} are other tokens than without");
        }
    }
}

/// What the logits processors of transformers make of a fixture.
#[derive(Deserialize)]
struct Golden {
    settings: Vec<Setting>,
}

#[derive(Deserialize)]
struct Setting {
    repetition_penalty: f32,
    logit_bias: Vec<(TokenId, f32)>,
    held_back: Vec<TokenId>,
    min_tokens: usize,
    /// By prompt.
    results: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    token_ids: Vec<TokenId>,
    /// By how much each of them leads the next best.
    margins: Vec<f32>,
}

/// Whole outputs, of prompts that are partly in the prefix cache and come in chunks.
#[test]
fn greedy_outputs_are_those_of_transformers() {
    let read = |name: &str| std::fs::read(harness::golden().join(name)).unwrap();
    let golden: Golden = serde_json::from_slice(&read("penalties.json")).unwrap();
    let fixture: serde_json::Value = serde_json::from_slice(&read("qwen3/golden.json")).unwrap();
    let prompts: Vec<Vec<TokenId>> = serde_json::from_value(fixture["prompts"].clone()).unwrap();
    for &tp_size in harness::tp_sizes() {
        let options = harness::options(tp_size, DTypeChoice::Float32);
        let mut driver = harness::driver(harness::launch("qwen3", &options).unwrap(), true);
        for (index, setting) in golden.settings.iter().enumerate() {
            let adjustments = Adjustments {
                repetition_penalty: setting.repetition_penalty,
                logit_bias: setting.logit_bias.clone(),
                min_tokens: setting.min_tokens,
                ..Adjustments::NONE
            };
            let requests = prompts.iter().zip(0..).map(|(prompt, id)| {
                let request = harness::request(id, prompt, 16, SamplingParams::GREEDY);
                // The reference goes on after a stop token.
                let stop_token_ids = setting.held_back.as_slice().into();
                Request { stop_token_ids, ..harness::adjusted(request, adjustments.clone()) }
            });
            let outputs = run_to_stop(&mut driver, requests.collect());
            for (prompt, (output, expected)) in outputs.iter().zip(&setting.results).enumerate() {
                let is_stop = |token: &TokenId| setting.held_back.contains(token);
                let stop = expected.token_ids.iter().position(is_stop);
                let end = stop.map_or(expected.token_ids.len(), |stop| stop + 1);
                assert!(stop.is_none_or(|stop| stop >= setting.min_tokens));
                assert!(expected.margins[..end].iter().all(|margin| *margin > 2e-4));
                let what = format!("tp {tp_size} setting {index} prompt {prompt}");
                assert_eq!(*output, expected.token_ids[..end], "{what}");
            }
        }
    }
}

/// The tokens of each request, up to a stop token.
fn run_to_stop<E: Executor>(driver: &mut Driver<E>, requests: Vec<Request>) -> Vec<Vec<TokenId>> {
    let mut outputs: BTreeMap<RequestId, Vec<TokenId>> = BTreeMap::new();
    for request in requests {
        outputs.insert(request.id, Vec::new());
        driver.add(request).unwrap();
    }
    while !driver.is_idle() {
        for event in driver.step().unwrap() {
            if let Event::Token { id, token, .. } = event {
                outputs.get_mut(&id).unwrap().push(token);
            }
        }
    }
    outputs.into_values().collect()
}

fn run(options: &EngineOptions, requests: Vec<Request>) -> Vec<Output> {
    let mut driver = harness::driver(harness::launch("qwen3", options).unwrap(), true);
    harness::run(&mut driver, requests)
}

/// Additive penalties can be checked from outside: with the log-probabilities of more tokens than
/// were output, the best of the adjusted ones is among them.
#[test]
fn greedy_outputs_follow_additive_penalties() {
    let sampling = SamplingParams { logprobs: Some(20), ..SamplingParams::GREEDY };
    for &tp_size in harness::tp_sizes() {
        let options = harness::options(tp_size, DTypeChoice::Float32);
        for (frequency_penalty, presence_penalty) in [(0.0, 2.0), (1.5, 0.0), (0.3, 0.4)] {
            let adjustments =
                Adjustments { frequency_penalty, presence_penalty, ..Adjustments::NONE };
            let request = harness::request(1, &[5, 17, 200, 43], 18, sampling);
            let output = &run(&options, vec![harness::adjusted(request, adjustments)])[0];
            for (step, logprobs) in output.logprobs.iter().enumerate() {
                let before = &output.tokens[..step];
                let score = |(id, logprob): &(TokenId, f32)| {
                    let count = before.iter().filter(|of| *of == id).count();
                    let presence = if count > 0 { presence_penalty } else { 0.0 };
                    logprob - frequency_penalty * count as f32 - presence
                };
                let chosen = logprobs.top.iter().find(|(id, _)| *id == output.tokens[step]);
                let best = logprobs.top.iter().map(score).fold(f32::NEG_INFINITY, f32::max);
                assert!(score(chosen.unwrap()) > best - 1e-4, "tp {tp_size} step {step}");
            }
        }
    }
}

#[test]
fn a_bias_bans_and_forces_and_stop_tokens_wait() {
    let greedy = |adjustments, stop: &[TokenId]| {
        let request = Request {
            stop_token_ids: stop.into(),
            ..harness::request(1, &[5, 17, 200, 43], 4, SamplingParams::GREEDY)
        };
        let options = harness::options(2.min(harness::tp_sizes().len()), DTypeChoice::Float32);
        run(&options, vec![harness::adjusted(request, adjustments)]).remove(0).tokens
    };
    let plain = greedy(Adjustments::NONE, &[]);
    let bias = |id, bias| Adjustments { logit_bias: vec![(id, bias)], ..Adjustments::NONE };
    let banned = greedy(bias(plain[0], -100.0), &[]);
    assert!(banned[0] != plain[0] && !banned.contains(&plain[0]), "{banned:?}");
    assert_eq!(greedy(bias(300, 100.0), &[]), [300; 4]);
    // All four tokens are needed, so none of them may be the one that would come first.
    let waits = Adjustments { min_tokens: 4, ..Adjustments::NONE };
    let waiting = greedy(waits.clone(), &plain[..1]);
    assert_eq!(waiting, greedy(bias(plain[0], f32::NEG_INFINITY), &[]));
    // Even one that is forced waits.
    let forced = Adjustments { logit_bias: vec![(300, 100.0)], ..waits };
    assert!(!greedy(forced, &[300]).contains(&300));
}

/// The same bits; on a GPU, whose sums depend on the size of the batch, the same tokens and nearly the
/// same bits.
fn assert_same(got: &Output, want: &Output, id: u64) {
    if !harness::on_gpu() {
        assert_eq!(got, want, "request {id}");
        return;
    }
    assert_eq!(got.tokens, want.tokens, "request {id}");
    for (got, want) in got.logprobs.iter().zip(&want.logprobs) {
        assert!((got.chosen - want.chosen).abs() < 1e-4, "request {id}: {got:?}, {want:?}");
    }
}

/// Who else is in the batch, and that somebody has adjustments, changes nobody's bits.
#[test]
fn neighbours_change_nothing() {
    let sampling = |id: u64| SamplingParams {
        temperature: if id.is_multiple_of(2) { 0.0 } else { 0.9 },
        seed: id,
        logprobs: Some(5),
        ..SamplingParams::GREEDY
    };
    let plain = |id: u64| {
        let prompt: Vec<TokenId> =
            (0..3 + id % 40).map(|at| ((id * 31 + at * 7) % 300) as u32).collect();
        harness::request(id, &prompt, 8, sampling(id))
    };
    let with = |id: u64| harness::adjusted(plain(id), harness::adjustments(id));
    let tp_size = *harness::tp_sizes().last().unwrap();
    let options = harness::options(tp_size.min(2), DTypeChoice::Float32);
    let without: Vec<Output> = run(&options, (0..32).map(plain).collect());
    let mixed = |id: u64| if id % 8 == 5 { with(id) } else { plain(id) };
    let together = run(&options, (0..32).map(mixed).collect());
    let mut changed = 0;
    for id in 0..32 {
        let index = id as usize;
        if id % 8 == 5 {
            assert_same(&run(&options, vec![with(id)])[0], &together[index], id);
            changed += usize::from(together[index].tokens != without[index].tokens);
        } else {
            assert_same(&together[index], &without[index], id);
        }
    }
    assert_eq!(changed, 4, "penalties and favourites make other tokens");
}

/// Rows go from one request to the next, some of them from one that was aborted while a step of it
/// was in flight; nothing of its output or prompt is left.
#[test]
fn a_row_begins_anew_after_an_abort() {
    let request = |id: u64| {
        let prompt: Vec<TokenId> =
            (0..5 + id).map(|at| ((id * 31 + at * 7) % 300) as u32).collect();
        let adjustments = Adjustments {
            repetition_penalty: 1.4,
            frequency_penalty: 0.5,
            logit_bias: vec![(id as u32, 2.0)],
            ..Adjustments::NONE
        };
        let request = harness::request(id, &prompt, 9, SamplingParams::GREEDY);
        harness::adjusted(request, adjustments)
    };
    let options = EngineOptions {
        max_running_requests: 2,
        ..harness::options(2.min(harness::tp_sizes().len()), DTypeChoice::Float32)
    };
    let alone: Vec<Output> = (3..8).map(|id| run(&options, vec![request(id)]).remove(0)).collect();
    let group = harness::launch("qwen3", &options).unwrap();
    let mut driver = harness::driver(group, true);
    for num_steps in 1..6 {
        driver.add(request(1)).unwrap();
        for _ in 0..num_steps {
            driver.step().unwrap();
        }
        assert!(driver.abort(RequestId(1)).is_some());
        let after = harness::run(&mut driver, (3..8).map(request).collect());
        for (after, alone) in after.iter().zip(&alone) {
            assert_eq!(after.tokens, alone.tokens, "after {num_steps} steps");
        }
    }
}
