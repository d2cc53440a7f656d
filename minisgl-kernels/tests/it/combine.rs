//! The small steps between the sampling ops against the reference: bit for bit.

use minisgl_kernels::ops::sampling::{
    best_of_shards, choose_ids, mass_target, min_p_threshold, pick_logits,
};
use minisgl_kernels::{DType, Device, Stream, Tensor, reference};

use crate::support::{Array, Rng, floats, for_each_device, host, ids};

const ROWS: [usize; 4] = [0, 1, 7, 1030];

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

#[test]
fn the_best_of_shards_is_the_reference() {
    for_each_device(|device, stream| {
        for (w, n) in [1, 2, 5, 8].into_iter().flat_map(|w| ROWS.map(|n| (w, n))) {
            let mut rng = Rng::fresh((w * 1000 + n) as u64);
            // Ties, nothing found, -inf found, NaN.
            let (values, found): (Vec<f32>, Vec<i32>) = (0..w * n)
                .map(|i| match rng.below(12) {
                    0 => (f32::NEG_INFINITY, -1),
                    1 => (f32::NEG_INFINITY, i as i32),
                    2 if rng.below(4) == 0 => (f32::NAN, -1),
                    _ => ((rng.float() * 3.0).round(), i as i32),
                })
                .unzip();
            let run = |device: &Device, stream: Option<&Stream>| {
                let values = Tensor::from_slice(device, [w, n], &values).unwrap();
                let found = Tensor::from_slice(device, [w, n], &found).unwrap();
                let (mut value, mut id) = (floats(device, &vec![7.0; n]), ids(device, &vec![7; n]));
                let outs = (value.view_mut(), id.view_mut());
                match stream {
                    Some(s) => best_of_shards(s, values.view(), found.view(), outs.0, outs.1),
                    None => reference::best_of_shards(values.view(), found.view(), outs.0, outs.1),
                }
                .unwrap();
                // All NaN are one.
                let values = value.to_vec::<f32>().unwrap();
                let values = values.into_iter().map(|x| if x.is_nan() { 1 } else { x.to_bits() });
                (values.collect::<Vec<_>>(), id.to_vec::<i32>().unwrap())
            };
            assert_eq!(run(device, Some(stream)), run(&host(), None), "{w} shards of {n}");
        }
        let values = Tensor::from_slice(device, [2, 3], &[1.0, f32::NAN, 2.0, 1.0, 5.0, 3.0]);
        let found = Tensor::from_slice(device, [2, 3], &[4, -1, 5, 104, 105, -1]);
        let (mut value, mut id) = (floats(device, &[0.0; 3]), ids(device, &[0; 3]));
        let (values, found) = (values.unwrap(), found.unwrap());
        let outs = (value.view_mut(), id.view_mut());
        best_of_shards(stream, values.view(), found.view(), outs.0, outs.1).unwrap();
        assert_eq!(id.to_vec::<i32>().unwrap(), [4, -1, 5]);
    });
}

#[test]
fn picked_logits_are_the_reference() {
    for_each_device(|device, stream| {
        for n in ROWS {
            let (v, first_id) = (37, 100);
            let mut rng = Rng::fresh(n as u64);
            let x = rng.floats(n * v);
            let mut wanted: Vec<i32> = (0..n).map(|_| 80 + rng.below(80) as i32).collect();
            wanted.iter_mut().zip([i32::MIN, i32::MAX, -1]).for_each(|(id, x)| *id = x);
            let run = |device: &Device, stream: Option<&Stream>| {
                let logits = Array::new(device, DType::F32, [n, v], 3, &x);
                let (wanted, mut out) = (ids(device, &wanted), floats(device, &vec![7.0; n]));
                let (x, wanted) = (logits.view(), wanted.view());
                match stream {
                    Some(s) => pick_logits(s, x, wanted, first_id, out.view_mut()),
                    None => reference::pick_logits(x, wanted, first_id, out.view_mut()),
                }
                .unwrap();
                bits(&out)
            };
            assert_eq!(run(device, Some(stream)), run(&host(), None), "{n} rows");
        }
    });
}

#[test]
fn targets_and_thresholds_are_the_reference() {
    for_each_device(|device, stream| {
        for n in ROWS {
            let mut rng = Rng::fresh(n as u64);
            let [a, mut b, c, d] = [(); 4].map(|()| rng.floats(n));
            b.iter_mut().zip([f32::NEG_INFINITY]).for_each(|(b, x)| *b = x);
            let inv_t: Vec<f32> = c.iter().map(|c| c.abs() + 0.1).collect();
            let run = |device: &Device, stream: Option<&Stream>| {
                let [a, b, inv_t] = [&a, &b, &inv_t].map(|values| floats(device, values));
                let (a, b, inv_t) = (a.view(), b.view(), inv_t.view());
                let (mut target, mut threshold) =
                    (floats(device, &vec![7.0; n]), floats(device, &d));
                let outs = (target.view_mut(), threshold.view_mut());
                match stream {
                    Some(s) => {
                        mass_target(s, a, inv_t, outs.0).unwrap();
                        min_p_threshold(s, a, b, inv_t, outs.1).unwrap();
                    }
                    None => {
                        reference::mass_target(a, inv_t, outs.0).unwrap();
                        reference::min_p_threshold(a, b, inv_t, outs.1).unwrap();
                    }
                }
                (bits(&target), threshold.to_vec::<f32>().unwrap())
            };
            let (got, want) = (run(device, Some(stream)), run(&host(), None));
            assert_eq!(got.0, want.0, "{n} rows");
            crate::support::assert_close(DType::F32, &got.1, &want.1, "min_p");
            if n > 0 {
                assert_eq!(got.1[0], d[0], "-inf keeps everything");
            }
        }
    });
}

#[test]
fn chosen_ids_are_the_reference() {
    for_each_device(|device, stream| {
        for n in ROWS {
            let mut rng = Rng::fresh(n as u64);
            let [take_a, a, b] =
                [(); 3].map(|()| (0..n).map(|_| rng.below(4) as i32 - 1).collect::<Vec<_>>());
            let run = |device: &Device, stream: Option<&Stream>| {
                let [take_a, a, b] = [&take_a, &a, &b].map(|values| ids(device, values));
                let (take_a, a, b) = (take_a.view(), a.view(), b.view());
                let mut out = ids(device, &vec![7; n]);
                match stream {
                    Some(s) => choose_ids(s, take_a, a, b, out.view_mut()),
                    None => reference::choose_ids(take_a, a, b, out.view_mut()),
                }
                .unwrap();
                out.to_vec::<i32>().unwrap()
            };
            assert_eq!(run(device, Some(stream)), run(&host(), None), "{n} rows");
        }
    });
}
