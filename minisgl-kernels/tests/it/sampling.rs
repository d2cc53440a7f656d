//! Sampling against the reference, over shards, and in distribution.

use minisgl_kernels::ops::sampling::{
    NUM_BINS, ROUNDS, ThresholdMode, ThresholdState, argmax, gumbel_argmax, key_of,
    raise_threshold, sum_exp, sum_exp_above, threshold_histogram, threshold_refine, top_n, uniform,
    value_of,
};
use minisgl_kernels::{DType, Device, Stream, Tensor, View, reference};

use crate::support::{Array, Rng, assert_close, floats, for_each_device, host, ids};

/// Vocabulary sizes around vectors, stretches and segments.
const VOCABS: [usize; 7] = [1, 15, 16, 257, 4096, 4097, 10_001];

/// Logits with ties, in multiples of an eighth, with some -inf.
fn logits(rng: &mut Rng, n: usize, v: usize) -> Vec<f32> {
    let logit = |rng: &mut Rng| match rng.below(50) {
        0 => f32::NEG_INFINITY,
        _ => (rng.float() * 64.0).round() / 8.0,
    };
    (0..n * v).map(|_| logit(rng)).collect()
}

fn max_of(row: &[f32]) -> f32 {
    row.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

#[test]
fn argmax_is_the_reference_with_ties_and_broken_rows() {
    for_each_device(|device, stream| {
        for v in VOCABS {
            let n = 8;
            let mut rng = Rng::fresh(v as u64);
            let mut x = logits(&mut rng, n, v);
            x[rng.below(v)] = f32::NAN;
            x[v + rng.below(v)] = f32::INFINITY;
            x[2 * v..3 * v].fill(f32::NEG_INFINITY);
            x[3 * v..4 * v].fill(0.0);
            x[4 * v - 1] = f32::NAN; // the last one, in the tail
            let run = |device: &Device, stream: Option<&Stream>| {
                let logits = Array::new(device, DType::F32, [n, v], 3, &x);
                let mut value = floats(device, &vec![7.0; n]);
                let mut id = ids(device, &vec![-7; n]);
                let outs = (value.view_mut(), id.view_mut());
                match stream {
                    Some(s) => argmax(s, logits.view(), 1000, outs.0, outs.1),
                    None => reference::argmax(logits.view(), 1000, outs.0, outs.1),
                }
                .unwrap();
                let bits = value.to_vec::<f32>().unwrap().into_iter().map(f32::to_bits);
                (bits.collect::<Vec<_>>(), id.to_vec::<i32>().unwrap())
            };
            let got = run(device, Some(stream));
            assert_eq!(got, run(&host(), None), "argmax of {v}");
            assert_eq!(got.1[..4], [-1, -1, 1000, -1]);
        }
    });
}

#[test]
fn top_n_is_the_reference() {
    for_each_device(|device, stream| {
        for v in VOCABS {
            for c in [0, 1, 5, 20] {
                let n = 3;
                let mut x = logits(&mut Rng::fresh(v as u64), n, v);
                x[v / 2] = f32::NAN;
                let run = |device: &Device, stream: Option<&Stream>| {
                    let logits = Array::new(device, DType::F32, [n, v], 1, &x);
                    let mut values = Array::poisoned(device, DType::F32, [n, c], 2);
                    let mut out = Tensor::from_slice(device, [n, c], &vec![-7; n * c]).unwrap();
                    let outs = (values.view_mut(), out.view_mut());
                    match stream {
                        Some(s) => top_n(s, logits.view(), 50, outs.0, outs.1),
                        None => reference::top_n(logits.view(), 50, outs.0, outs.1),
                    }
                    .unwrap();
                    (values.bits(), out.to_vec::<i32>().unwrap())
                };
                assert_eq!(run(device, Some(stream)), run(&host(), None), "top {c} of {v}");
            }
        }
    });
}

#[test]
fn sums_of_exponentials_are_the_reference() {
    for_each_device(|device, stream| {
        for v in VOCABS {
            let n = 3;
            let x = logits(&mut Rng::fresh(v as u64), n, v);
            let maxima: Vec<f32> = x.chunks(v).map(max_of).map(|m| m.max(-8.0)).collect();
            let inv_temperature = [0.5, 1.0, 3.0];
            let run = |device: &Device, stream: Option<&Stream>| {
                let logits = Array::new(device, DType::F32, [n, v], 1, &x);
                let (maxima, inv_t) = (floats(device, &maxima), floats(device, &inv_temperature));
                let threshold = floats(device, &[1.0, f32::NEG_INFINITY, 7.0]);
                let (x, m, i, t) = (logits.view(), maxima.view(), inv_t.view(), threshold.view());
                let (mut all, mut above) = (floats(device, &[-1.0; 3]), floats(device, &[-1.0; 3]));
                match stream {
                    Some(s) => {
                        sum_exp(s, x, m, i, all.view_mut()).unwrap();
                        sum_exp_above(s, x, m, i, t, above.view_mut()).unwrap();
                    }
                    None => {
                        reference::sum_exp(x, m, i, all.view_mut()).unwrap();
                        reference::sum_exp_above(x, m, i, t, above.view_mut()).unwrap();
                    }
                }
                (all.to_vec::<f32>().unwrap(), above.to_vec::<f32>().unwrap())
            };
            let (got, want) = (run(device, Some(stream)), run(&host(), None));
            assert_close(DType::F32, &got.0, &want.0, &format!("sum_exp of {v}"));
            assert_close(DType::F32, &got.1, &want.1, &format!("sum_exp_above of {v}"));
        }
    });
}

/// Samples one token per row from shards of the given widths, combined as the module says.
fn sample_sharded(
    stream: &Stream,
    x: &[f32],
    shards: &[usize],
    inv_temperature: &[f32],
    threshold: &[f32],
    seeds: &[u64],
    positions: &[i32],
) -> Vec<(u32, i32)> {
    let device = stream.device();
    let v: usize = shards.iter().sum();
    let n = x.len() / v;
    let logits = Array::new(device, DType::F32, [n, v], 2, x);
    let (inv_t, threshold) = (floats(device, inv_temperature), floats(device, threshold));
    let seeds = Tensor::from_slice(device, [n], seeds).unwrap();
    let positions = ids(device, positions);
    let mut best = vec![(f32::NEG_INFINITY, -1); n];
    let mut first = 0;
    for width in shards {
        let shard = logits.view().columns(first..first + width).unwrap();
        let (mut value, mut id) = (floats(device, &vec![0.0; n]), ids(device, &vec![0; n]));
        gumbel_argmax(
            stream,
            shard,
            inv_t.view(),
            threshold.view(),
            seeds.view(),
            positions.view(),
            first as i32,
            value.view_mut(),
            id.view_mut(),
        )
        .unwrap();
        let found = value.to_vec::<f32>().unwrap().into_iter().zip(id.to_vec::<i32>().unwrap());
        for (best, found) in best.iter_mut().zip(found) {
            if found.0.is_nan() || found.0 > best.0 {
                *best = found;
            }
        }
        first += width;
    }
    best.into_iter().map(|(value, id)| (value.to_bits(), id)).collect()
}

#[test]
fn gumbel_argmax_is_the_reference_and_does_not_depend_on_sharding() {
    let (n, v) = (6, 9001);
    let mut rng = Rng::fresh(4);
    let mut x = logits(&mut rng, n, v);
    x[rng.below(v)] = f32::NAN;
    let inv_t = [1.0, 0.1, 1.0, 2.0, 100.0, 1.0];
    // Row 2 keeps only its maximum, row 3 nothing.
    let threshold = [f32::NEG_INFINITY, 0.0, max_of(&x[2 * v..3 * v]), 100.0, 1.0, -4.0];
    let seeds = [1, 2, u64::MAX, 4, 5, 6];
    let positions = [0, 1, 2, 3, i32::MAX, 5];
    for_each_device(|device, stream| {
        let sample = |shards: &[usize]| {
            sample_sharded(stream, &x, shards, &inv_t, &threshold, &seeds, &positions)
        };
        let whole = sample(&[v]);
        assert_eq!(whole, sample(&[4500, 4501]));
        assert_eq!(whole, sample(&[1, 3000, 17, 5983]));

        let host = host();
        let logits = Array::new(&host, DType::F32, [n, v], 0, &x);
        let (mut value, mut id) = (floats(&host, &[0.0; 6]), ids(&host, &[0; 6]));
        reference::gumbel_argmax(
            logits.view(),
            floats(&host, &inv_t).view(),
            floats(&host, &threshold).view(),
            Tensor::from_slice(&host, [n], &seeds).unwrap().view(),
            ids(&host, &positions).view(),
            0,
            value.view_mut(),
            id.view_mut(),
        )
        .unwrap();
        let (values, ids): (Vec<f32>, Vec<i32>) =
            whole.iter().map(|&(bits, id)| (f32::from_bits(bits), id)).unzip();
        assert_eq!(ids, id.to_vec::<i32>().unwrap(), "on {}", device.description());
        assert_close(DType::F32, &values, &value.to_vec::<f32>().unwrap(), "gumbel values");
        assert_eq!(ids[0], -1, "a NaN breaks the row");
        assert_eq!(x[2 * v + ids[2] as usize], threshold[2], "only the maximum was left");
        assert_eq!((values[3], ids[3]), (f32::NEG_INFINITY, -1), "nothing was left");
    });
}

#[test]
fn gumbel_argmax_samples_the_softmax() {
    let x = [0.5f32, 2.0, -1.0, 1.0, 0.0, f32::NEG_INFINITY, 1.5];
    let (inv_temperature, threshold) = (1.3f32, -0.5f32);
    let weight = |x: f32| if x >= threshold { f64::from(x * inv_temperature).exp() } else { 0.0 };
    let total: f64 = x.iter().map(|&x| weight(x)).sum();
    let n = 40_000;
    for_each_device(|_, stream| {
        let rows = x.repeat(n);
        let positions: Vec<i32> = (0..n as i32).collect();
        let (inv_t, threshold) = (vec![inv_temperature; n], vec![threshold; n]);
        let seeds = vec![77; n];
        let samples =
            sample_sharded(stream, &rows, &[x.len()], &inv_t, &threshold, &seeds, &positions);
        let mut chi2 = 0.0;
        for (id, &x) in x.iter().enumerate() {
            let count = samples.iter().filter(|sample| sample.1 == id as i32).count() as f64;
            let expected = weight(x) / total * n as f64;
            if expected == 0.0 {
                assert_eq!(count, 0.0, "id {id} is excluded");
            } else {
                chi2 += (count - expected).powi(2) / expected;
            }
        }
        // Four degrees of freedom: 30 is beyond the 1 - 5e-6 quantile.
        assert!(chi2 < 30.0, "chi-squared {chi2}");
    });
}

#[test]
fn keys_order_floats_and_decode() {
    let mut values = vec![f32::NEG_INFINITY, f32::MIN, -1.0, -1e-40, -0.0, 0.0, 1e-40, 1.0];
    values.extend([f32::MAX, f32::INFINITY]);
    for pair in values.windows(2) {
        assert!(key_of(pair[0]) < key_of(pair[1]), "{pair:?}");
    }
    for value in values {
        assert_eq!(value_of(key_of(value)).to_bits(), value.to_bits());
    }
    assert_eq!(value_of(0), f32::NEG_INFINITY);
    assert!((0.0..1.0).contains(&uniform(0, 0, 0)));
}

/// A copy of a vector where the reference can read it.
fn on_host(view: View<'_>, stream: &Stream) -> Tensor {
    let (host, n) = (host(), view.num_elements());
    if view.dtype() == DType::I32 {
        let mut values = vec![0i32; n];
        stream.download(view, &mut values).unwrap();
        return ids(&host, &values);
    }
    let mut values = vec![0f32; n];
    stream.download(view, &mut values).unwrap();
    floats(&host, &values)
}

/// Runs the whole search over shards of the logits and returns the thresholds.
fn search(
    stream: &Stream,
    x: &[f32],
    shards: &[usize],
    modes: &[ThresholdMode],
    targets: &[f32],
    inv_t: f32,
) -> Vec<f32> {
    let device = stream.device();
    let (n, v) = (modes.len(), shards.iter().sum());
    let maxima: Vec<f32> = x.chunks(v).map(max_of).collect();
    let modes: Vec<i32> = modes.iter().map(|&mode| mode as i32).collect();
    let host = host();
    let (host_maxima, host_inv_t) = (floats(&host, &maxima), floats(&host, &vec![inv_t; n]));
    let (host_mode, host_logits) =
        (ids(&host, &modes), Array::new(&host, DType::F32, [n, v], 0, x));
    let (maxima, inv_t) = (floats(device, &maxima), floats(device, &vec![inv_t; n]));
    let mode = ids(device, &modes);
    let (mut prefix, mut remaining) = (ids(device, &vec![0; n]), floats(device, targets));
    let logits = Array::new(device, DType::F32, [n, v], 1, x);
    let mut threshold = floats(device, &vec![f32::NEG_INFINITY; n]);
    let mut state = ThresholdState {
        mode: mode.view(),
        prefix: prefix.view_mut(),
        remaining: remaining.view_mut(),
    };
    for round in 0..ROUNDS {
        let mut total = vec![0f32; n * NUM_BINS];
        let mut first = 0;
        for &width in shards {
            let shard = logits.view().columns(first..first + width).unwrap();
            let mut hist = Array::poisoned(device, DType::F32, [n, NUM_BINS], 0);
            let (m, i) = (maxima.view(), inv_t.view());
            threshold_histogram(stream, shard, m, i, &state, round, hist.view_mut()).unwrap();

            // The reference gives the same histogram.
            let mut want = Array::poisoned(&host, DType::F32, [n, NUM_BINS], 0);
            let [mut prefix, mut remaining] = [state.prefix.as_view(), state.remaining.as_view()]
                .map(|view| on_host(view, stream));
            let state = ThresholdState {
                mode: host_mode.view(),
                prefix: prefix.view_mut(),
                remaining: remaining.view_mut(),
            };
            let shard = host_logits.view().columns(first..first + width).unwrap();
            let (m, i) = (host_maxima.view(), host_inv_t.view());
            reference::threshold_histogram(shard, m, i, &state, round, want.view_mut()).unwrap();
            hist.assert_close(&want, "histogram");
            for (total, part) in total.iter_mut().zip(hist.values()) {
                *total += part;
            }
            first += width;
        }
        let hist = Array::new(device, DType::F32, [n, NUM_BINS], 0, &total);
        let [mut prefix, mut remaining] =
            [state.prefix.as_view(), state.remaining.as_view()].map(|view| on_host(view, stream));
        threshold_refine(stream, hist.view(), &mut state, round).unwrap();
        let hist = Array::new(&host, DType::F32, [n, NUM_BINS], 0, &total);
        let mut want = ThresholdState {
            mode: host_mode.view(),
            prefix: prefix.view_mut(),
            remaining: remaining.view_mut(),
        };
        reference::threshold_refine(hist.view(), &mut want, round).unwrap();
        let mut bits = vec![0; n];
        stream.download(state.prefix.as_view(), &mut bits).unwrap();
        assert_eq!(bits, prefix.to_vec::<i32>().unwrap(), "refine");
    }
    raise_threshold(stream, &state, threshold.view_mut()).unwrap();
    threshold.to_vec().unwrap()
}

#[test]
fn the_threshold_of_a_count_is_the_kth_largest() {
    for_each_device(|_, stream| {
        for v in [1usize, 17, 5000] {
            let mut rng = Rng::fresh(v as u64);
            let counts = [1, 2, v.div_ceil(3), v, v + 10, 7];
            let x = logits(&mut rng, counts.len(), v);
            let mut modes = [ThresholdMode::Count; 6];
            modes[5] = ThresholdMode::Off;
            let targets = counts.map(|k| k as f32);
            for shards in
                [vec![v], vec![v.div_ceil(2), v / 2].into_iter().filter(|&w| w > 0).collect()]
            {
                let got = search(stream, &x, &shards, &modes, &targets, 1.0);
                for i in 0..5 {
                    let mut row = x[i * v..(i + 1) * v].to_vec();
                    row.sort_by(|a, b| b.total_cmp(a));
                    assert_eq!(got[i], row[counts[i].min(v) - 1], "k {} of {v}", counts[i]);
                }
                assert_eq!(got[5], f32::NEG_INFINITY, "a row that takes no part");
            }
        }
    });
}

#[test]
fn the_threshold_of_a_mass_keeps_just_enough() {
    for_each_device(|_, stream| {
        for v in [1usize, 17, 5000] {
            let inv_t = 0.7f32;
            let tops = [0.1, 0.5, 0.9, 0.999, 1.0];
            let mut rng = Rng::fresh(v as u64);
            let x: Vec<f32> = rng.floats(tops.len() * v).iter().map(|x| x * 9.0).collect();
            let mass = |row: &[f32], x: f32| f64::from((x - max_of(row)) * inv_t).exp();
            let total = |row: &[f32]| row.iter().map(|&x| mass(row, x)).sum::<f64>();
            let targets: Vec<f32> =
                x.chunks(v).zip(tops).map(|(row, p)| (total(row) * p) as f32).collect();
            let got = search(stream, &x, &[v], &[ThresholdMode::Mass; 5], &targets, inv_t);
            for (i, row) in x.chunks(v).enumerate() {
                let kept =
                    |t: f32| row.iter().filter(|&&x| x >= t).map(|&x| mass(row, x)).sum::<f64>();
                let (target, slack) = (f64::from(targets[i]), total(row) * 1e-5);
                let what = format!("p {} of {v}", tops[i]);
                assert!(row.contains(&got[i]), "{what}: the threshold is an element");
                assert!(kept(got[i]) >= target - slack, "{what}: enough is kept");
                let next =
                    row.iter().copied().filter(|&x| x > got[i]).fold(f32::INFINITY, f32::min);
                assert!(kept(next) <= target + slack, "{what}: no more than needed is kept");
            }
        }
    });
}
