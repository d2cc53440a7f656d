//! Mixture of experts against the reference.

use minisgl_kernels::ops::moe;
use minisgl_kernels::reference;
use minisgl_kernels::{DType, Tensor};

use crate::support::{Array, FLOATS, Rng, assert_close, for_each_device, host, ids};

/// Tokens, experts, experts per token.
const SHAPES: [(usize, usize, usize); 5] =
    [(0, 4, 2), (1, 1, 1), (3, 8, 2), (17, 60, 4), (70, 128, 8)];

#[test]
fn route_is_the_reference() {
    for_each_device(|device, stream| {
        for (t, e, k) in SHAPES {
            for normalize in [false, true] {
                let mut rng = Rng((t * 1000 + e) as u64);
                // Few distinct values, so that there are ties.
                let logits: Vec<f32> =
                    (0..t * e).map(|_| rng.below(40) as f32 / 8.0 - 2.0).collect();
                let run = |device: &_, stream: Option<&_>| {
                    let logits = Array::new(device, DType::F32, [t, e], 3, &logits);
                    let mut weights = Array::poisoned(device, DType::F32, [t, k], 2);
                    let mut experts = ids(device, &vec![-1; t * k]);
                    let out = experts.view_mut().reshape([t, k]).unwrap();
                    let logits = logits.view();
                    match stream {
                        Some(s) => moe::route(s, logits, normalize, weights.view_mut(), out),
                        None => reference::route(logits, normalize, weights.view_mut(), out),
                    }
                    .unwrap();
                    (weights.values(), experts.to_vec::<i32>().unwrap())
                };
                let (got, want) = (run(device, Some(stream)), run(&host(), None));
                assert_eq!(got.1, want.1, "{t} of {k} of {e}");
                assert_close(DType::F32, &got.0, &want.0, &format!("{t} of {k} of {e}"));
            }
        }
    });
}

#[test]
fn group_is_the_reference_and_its_inverse() {
    for_each_device(|device, stream| {
        for (t, e, k) in SHAPES {
            let mut rng = Rng((t * 1000 + e) as u64);
            let experts: Vec<i32> = (0..t * k).map(|_| rng.below(e) as i32).collect();
            let run = |device: &_, stream: Option<&_>| {
                let experts = ids(device, &experts);
                let experts = experts.view().reshape([t, k]).unwrap();
                let mut tokens = ids(device, &vec![-1; t * k]);
                let mut grouped_rows = ids(device, &vec![-1; t * k]);
                let mut offsets = ids(device, &vec![-1; e + 1]);
                let rows = grouped_rows.view_mut().reshape([t, k]).unwrap();
                match stream {
                    Some(s) => moe::group(s, experts, tokens.view_mut(), rows, offsets.view_mut()),
                    None => reference::group(experts, tokens.view_mut(), rows, offsets.view_mut()),
                }
                .unwrap();
                [tokens, grouped_rows, offsets].map(|table| table.to_vec::<i32>().unwrap())
            };
            let [tokens, grouped_rows, offsets] = run(device, Some(stream));
            assert_eq!([&tokens, &grouped_rows, &offsets], run(&host(), None).each_ref());
            for (pair, row) in grouped_rows.iter().enumerate() {
                assert_eq!(tokens[*row as usize], (pair / k) as i32);
                let expert = experts[pair] as usize;
                assert!((offsets[expert]..offsets[expert + 1]).contains(row));
            }
        }
    });
}

#[test]
fn grouped_gemm_and_combine_are_the_reference() {
    for_each_device(|device, stream| {
        for dtype in FLOATS {
            for (t, e, k) in SHAPES {
                let (inner, n) = (37, 19);
                let mut rng = Rng((t * 1000 + e) as u64);
                let x = rng.floats(t * k * inner);
                let w = rng.floats(e * n * inner);
                let weights = rng.floats(t * k);
                let rows = rng.permutation(t * k);
                // Some experts get nothing.
                let mut bounds: Vec<i32> =
                    (0..e - 1).map(|_| rng.below(t * k + 1) as i32).collect();
                bounds.extend([0, (t * k) as i32]);
                bounds.sort_unstable();
                let run = |device: &_, stream: Option<&_>| {
                    let x = Array::new(device, dtype, [t * k, inner], 3, &x);
                    let w = Array::new(device, dtype, [e, n, inner], 0, &w);
                    let offsets = ids(device, &bounds);
                    let mut y = Array::poisoned(device, dtype, [t * k, n], 2);
                    let (x, w, offsets) = (x.view(), w.view(), offsets.view());
                    match stream {
                        Some(s) => moe::grouped_gemm(s, x, offsets, w, y.view_mut()),
                        None => reference::grouped_gemm(x, offsets, w, y.view_mut()),
                    }
                    .unwrap();
                    let weights = Array::new(device, DType::F32, [t, k], 1, &weights);
                    let rows: Tensor = ids(device, &rows);
                    let rows = rows.view().reshape([t, k]).unwrap();
                    let mut out = Array::poisoned(device, dtype, [t, n], 2);
                    let (y_view, weights) = (y.view(), weights.view());
                    match stream {
                        Some(s) => moe::combine(s, y_view, weights, rows, out.view_mut()),
                        None => reference::combine(y_view, weights, rows, out.view_mut()),
                    }
                    .unwrap();
                    (y.values(), out.values())
                };
                let (got, want) = (run(device, Some(stream)), run(&host(), None));
                assert_close(dtype, &got.0, &want.0, &format!("grouped gemm {t} {e} {k}"));
                assert_close(dtype, &got.1, &want.1, &format!("combine {t} {e} {k}"));
            }
        }
    });
}

#[test]
fn bad_tables_are_refused() {
    for_each_device(|device, stream| {
        let x = Array::new(device, DType::F32, [2, 4], 0, &[0.0; 8]);
        let w = Array::new(device, DType::F32, [2, 3, 4], 0, &[0.0; 24]);
        for offsets in [[0, 1, 3], [1, 1, 2], [0, 3, 2], [0, -1, 2], [0, 1, 1]] {
            let offsets = ids(device, &offsets);
            let mut out = Array::poisoned(device, DType::F32, [2, 3], 0);
            let result =
                moe::grouped_gemm(stream, x.view(), offsets.view(), w.view(), out.view_mut());
            assert!(result.unwrap_err().to_string().contains("offsets"));
            assert!(out.values().iter().all(|value| value.is_nan()), "nothing is written");
        }
        let experts = ids(device, &[0, 2]);
        let [mut tokens, mut rows] = [(); 2].map(|()| ids(device, &[7, 7]));
        let mut offsets = ids(device, &[7, 7, 7]);
        let result = moe::group(
            stream,
            experts.view().reshape([1, 2]).unwrap(),
            tokens.view_mut(),
            rows.view_mut().reshape([1, 2]).unwrap(),
            offsets.view_mut(),
        );
        assert!(result.unwrap_err().to_string().contains("experts[1] is 2, allowed is 0..2"));
        assert_eq!(offsets.to_vec::<i32>().unwrap(), [7, 7, 7]);
    });
}
