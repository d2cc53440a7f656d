//! Biases, penalties and counts against the reference, bit for bit, and over shards.

use std::ops::Range;

use minisgl_kernels::ops::sampling::{
    Biases, History, Penalties, bias_logits, clear_counts, count_ids, penalize_logits,
};
use minisgl_kernels::{DType, Device, Error, Stream, Tensor, reference};

use crate::support::{Array, Rng, floats, for_each_device, host, ids};

/// Vocabulary sizes around words, blocks and stretches of blocks.
const VOCABS: [usize; 7] = [1, 31, 33, 256, 2047, 2049, 10_001];
const TABLE_ROWS: usize = 5;
const BATCHES: [usize; 3] = [0, 1, 7];

fn table(device: &Device, columns: usize, values: &[i32]) -> Tensor {
    Tensor::from_slice(device, [TABLE_ROWS, columns], values).unwrap()
}

fn below(rng: &mut Rng, count: usize, end: usize) -> Vec<i32> {
    (0..count).map(|_| rng.below(end) as i32).collect()
}

/// Counts that are mostly 0, some of them large.
fn counts(rng: &mut Rng, count: usize) -> Vec<i32> {
    let one = |rng: &mut Rng| match rng.below(20) {
        0 => 1 + rng.below(5) as i32,
        1 => rng.below(1 << 26) as i32,
        _ => 0,
    };
    (0..count).map(|_| one(rng)).collect()
}

#[test]
fn counting_and_clearing_are_the_reference() {
    for_each_device(|device, stream| {
        for (v, n) in VOCABS.into_iter().flat_map(|v| BATCHES.map(|n| (v, n))) {
            let mut rng = Rng::fresh((v * 10 + n) as u64);
            let known = counts(&mut rng, TABLE_ROWS * v);
            let first_id = 1000;
            // Some rows twice, some ids of other shards or of nobody.
            let rows = below(&mut rng, n, TABLE_ROWS);
            let mut found: Vec<i32> = (0..n).map(|_| 995 + rng.below(v + 10) as i32).collect();
            found.iter_mut().zip([-1, i32::MIN, i32::MAX]).for_each(|(id, x)| *id = x);
            let run = |device: &Device, stream: Option<&Stream>| {
                let mut counts = table(device, v, &known);
                let (rows, found) = (ids(device, &rows), ids(device, &found));
                let clears = n.min(2);
                let cleared = rows.view().rows(0..clears).unwrap();
                match stream {
                    Some(s) => {
                        clear_counts(s, counts.view_mut(), cleared).unwrap();
                        count_ids(s, counts.view_mut(), rows.view(), found.view(), first_id)
                            .unwrap();
                    }
                    None => {
                        reference::clear_counts(counts.view_mut(), cleared).unwrap();
                        reference::count_ids(
                            counts.view_mut(),
                            rows.view(),
                            found.view(),
                            first_id,
                        )
                        .unwrap();
                    }
                }
                counts.to_vec::<i32>().unwrap()
            };
            assert_eq!(run(device, Some(stream)), run(&host(), None), "{n} of {v}");
        }
    });
}

#[test]
fn biased_logits_are_the_reference() {
    for_each_device(|device, stream| {
        for (v, n) in VOCABS.into_iter().flat_map(|v| BATCHES.map(|n| (v, n))) {
            let mut rng = Rng::fresh((v * 10 + n) as u64);
            let entries = 300;
            let x = rng.floats(n * v);
            let rows = below(&mut rng, n, TABLE_ROWS);
            // Ids around the shard, each once in a list.
            let first_id = 70;
            let lists: Vec<i32> = (0..TABLE_ROWS)
                .flat_map(|_| {
                    let order = rng.permutation(v.max(entries) + 100);
                    order.into_iter().take(entries).collect::<Vec<_>>()
                })
                .collect();
            let value = |rng: &mut Rng| match rng.below(9) {
                0 => f32::NEG_INFINITY,
                _ => rng.float() * 100.0,
            };
            let values: Vec<f32> = (0..TABLE_ROWS * entries).map(|_| value(&mut rng)).collect();
            let mut begins = below(&mut rng, n, entries + 1);
            let mut ends = below(&mut rng, n, entries + 1);
            begins.iter_mut().zip([0]).for_each(|(begin, x)| *begin = x);
            ends.iter_mut().zip([entries as i32]).for_each(|(end, x)| *end = x);
            let run = |device: &Device, stream: Option<&Stream>| {
                let mut logits = Array::new(device, DType::F32, [n, v], 3, &x);
                let lists = table(device, entries, &lists);
                let values = Tensor::from_slice(device, [TABLE_ROWS, entries], &values).unwrap();
                let [rows, begins, ends] =
                    [&rows, &begins, &ends].map(|values| ids(device, values));
                let biases = Biases {
                    ids: lists.view(),
                    values: values.view(),
                    begins: begins.view(),
                    ends: ends.view(),
                };
                let target = logits.view_mut();
                match stream {
                    Some(s) => bias_logits(s, target, &biases, rows.view(), first_id),
                    None => reference::bias_logits(target, &biases, rows.view(), first_id),
                }
                .unwrap();
                logits.bits()
            };
            assert_eq!(run(device, Some(stream)), run(&host(), None), "{n} of {v}");
        }
    });
}

/// A batch with a history, for the whole vocabulary.
struct Case {
    n: usize,
    v: usize,
    x: Vec<f32>,
    counts: Vec<i32>,
    prompts: Vec<i32>,
    rows: Vec<i32>,
    penalties: [Vec<f32>; 3],
}

impl Case {
    fn new(n: usize, v: usize, words: usize) -> Self {
        let mut rng = Rng::fresh((v * 10 + n) as u64);
        let logit = |rng: &mut Rng| match rng.below(40) {
            0 => f32::NEG_INFINITY,
            1 => 0.0,
            2 => -0.0,
            _ => rng.float() * 20.0,
        };
        let x = (0..n * v).map(|_| logit(&mut rng)).collect();
        let counts = counts(&mut rng, TABLE_ROWS * v);
        // About every eighth token.
        let word = |rng: &mut Rng| (rng.next() & rng.next() & rng.next()) as i32;
        let prompts = (0..TABLE_ROWS * words).map(|_| word(&mut rng)).collect();
        let rows = below(&mut rng, n, TABLE_ROWS);
        let mut penalty =
            |values: [f32; 4]| -> Vec<f32> { (0..n).map(|_| values[rng.below(4)]).collect() };
        let penalties = [
            penalty([1.0, 1.1, 0.7, 2.0]),
            penalty([0.0, 0.3, -2.0, 1.7]),
            penalty([0.0, 0.1, 2.0, -1.3]),
        ];
        Self { n, v, x, counts, prompts, rows, penalties }
    }

    /// The bits of what a shard of `columns` becomes.
    fn run(&self, device: &Device, stream: Option<&Stream>, columns: Range<usize>) -> Vec<u32> {
        let x: Vec<f32> =
            self.x.chunks(self.v).flat_map(|row| row[columns.clone()].to_vec()).collect();
        let mut logits = Array::new(device, DType::F32, [self.n, columns.len()], 3, &x);
        let counts = table(device, self.v, &self.counts);
        let prompts = table(device, self.prompts.len() / TABLE_ROWS, &self.prompts);
        let rows = ids(device, &self.rows);
        let [repetition, frequency, presence] =
            [0, 1, 2].map(|index| floats(device, &self.penalties[index]));
        let history = History {
            counts: counts.view().columns(columns.clone()).unwrap(),
            prompts: prompts.view(),
        };
        let penalties = Penalties {
            repetition: repetition.view(),
            frequency: frequency.view(),
            presence: presence.view(),
        };
        let (target, first_id) = (logits.view_mut(), columns.start as i32);
        match stream {
            Some(s) => penalize_logits(s, target, &history, rows.view(), &penalties, first_id),
            None => reference::penalize_logits(target, &history, rows.view(), &penalties, first_id),
        }
        .unwrap();
        logits.bits()
    }
}

#[test]
fn penalized_logits_are_the_reference_in_every_shard() {
    for_each_device(|device, stream| {
        for (v, n) in VOCABS.into_iter().flat_map(|v| BATCHES.map(|n| (v, n))) {
            // A prompt may name fewer words than there are, or more.
            for words in [0, 1, v.div_ceil(32), v.div_ceil(32) + 2] {
                let case = Case::new(n, v, words);
                let whole = case.run(&host(), None, 0..v);
                let what = format!("{n} of {v}, {words} words");
                assert_eq!(case.run(device, Some(stream), 0..v), whole, "{what}");
                let middle = v / 2 + 1;
                for shard in [0..middle, middle..v].into_iter().filter(|shard| !shard.is_empty()) {
                    let got = case.run(device, Some(stream), shard.clone());
                    let rows = whole.chunks(v).flat_map(|row| row[shard.clone()].to_vec());
                    assert_eq!(got, rows.collect::<Vec<_>>(), "{what}, {shard:?}");
                }
            }
        }
    });
}

#[test]
fn penalties_are_what_they_are_said_to_be() {
    for_each_device(|device, stream| {
        // In the prompt; output twice; both; neither. Then the same, negative.
        let mut logits =
            Tensor::from_slice(device, [1, 8], &[3.0f32, 3.0, 3.0, 3.0, -3.0, -3.0, -3.0, -3.0])
                .unwrap();
        let counts = Tensor::from_slice(device, [1, 8], &[0, 2, 2, 0, 0, 2, 2, 0]).unwrap();
        let prompts = Tensor::from_slice(device, [1, 1], &[0b0101_0101]).unwrap();
        let [repetition, frequency, presence] =
            [2.0, 0.25, 0.5].map(|penalty| floats(device, &[penalty]));
        let history = History { counts: counts.view(), prompts: prompts.view() };
        let penalties = Penalties {
            repetition: repetition.view(),
            frequency: frequency.view(),
            presence: presence.view(),
        };
        let rows = ids(device, &[0]);
        penalize_logits(stream, logits.view_mut(), &history, rows.view(), &penalties, 0).unwrap();
        let expected = [1.5, 0.5, 0.5, 3.0, -6.0, -7.0, -7.0, -3.0];
        assert_eq!(logits.to_vec::<f32>().unwrap(), expected);
    });
}

#[test]
fn what_is_out_of_range_is_refused_before_anything_is_written() {
    let device = host();
    let stream = device.new_stream().unwrap();
    let mut counts = table(&device, 3, &[7; 15]);
    let rows = ids(&device, &[0, 5]);
    let is_row = |error: Error| matches!(error, Error::Index { argument: "rows", value: 5, .. });
    assert!(is_row(clear_counts(&stream, counts.view_mut(), rows.view()).unwrap_err()));
    let found = ids(&device, &[0, 0]);
    let error = count_ids(&stream, counts.view_mut(), rows.view(), found.view(), 0).unwrap_err();
    assert!(is_row(error));
    assert_eq!(counts.to_vec::<i32>().unwrap(), [7; 15]);

    let mut logits = Tensor::from_slice(&device, [1, 3], &[1.0f32; 3]).unwrap();
    let values = Tensor::from_slice(&device, [TABLE_ROWS, 3], &[1.0f32; 15]).unwrap();
    let lists = table(&device, 3, &[0; 15]);
    let (begin, end) = (ids(&device, &[0]), ids(&device, &[4]));
    let biases =
        Biases { ids: lists.view(), values: values.view(), begins: begin.view(), ends: end.view() };
    let row = ids(&device, &[0]);
    let error = bias_logits(&stream, logits.view_mut(), &biases, row.view(), 0).unwrap_err();
    assert!(matches!(error, Error::Index { argument: "ends", value: 4, .. }), "{error}");
    assert_eq!(logits.to_vec::<f32>().unwrap(), [1.0; 3]);
}
