//! Products of a few rows with what stands around them, against the reference.

use minisgl_kernels::{DType, ops, reference};

use crate::support::{Array, FLOATS, Rng, for_each_device, host, is_gpu};

/// `[m, n, k]`: one row and several; fewer and more columns than a GPU has warps for.
const SHAPES: [[usize; 3]; 9] = [
    [0, 5, 8],
    [1, 1, 8],
    [1, 17, 264],
    [1, 9001, 64],
    [2, 70, 520],
    [3, 33, 2056],
    [3, 4100, 64],
    [4, 65, 1024],
    [1, 40, 16384],
];

#[test]
fn a_product_is_added_to_what_is_there() {
    for_each_device(|device, stream| {
        for dtype in FLOATS {
            for [m, n, k] in SHAPES {
                if is_gpu(device) && ops::few_rows(device, dtype, 0) < m {
                    continue;
                }
                let mut rng = Rng::fresh((m * 7 + n) as u64);
                let (x, w) = (scaled(rng.floats(m * k), k), rng.floats(n * k));
                let residual = rng.floats(m * n);
                let run = |device: &_, stream: Option<&_>| {
                    let x = Array::new(device, dtype, [m, k], 8, &x);
                    let w = Array::new(device, dtype, [n, k], 16, &w);
                    let mut residual = Array::new(device, dtype, [m, n], 3, &residual);
                    let (x, w, to) = (x.view(), w.view(), residual.view_mut());
                    match stream {
                        Some(stream) => ops::gemm_add(stream, x, w, to),
                        None => reference::gemm_add(x, w, to),
                    }
                    .unwrap();
                    residual
                };
                let (got, want) = (run(device, Some(stream)), run(&host(), None));
                got.assert_close(&want, &format!("gemm_add {m}x{n}x{k}"));
            }
        }
    });
}

#[test]
fn a_norm_comes_before_the_product_and_the_activation_after_it() {
    for_each_device(|device, stream| {
        for dtype in FLOATS {
            for [m, n, k] in SHAPES {
                if is_gpu(device) && ops::few_rows(device, dtype, k) < m {
                    continue;
                }
                for silu in [false, true] {
                    let mut rng = Rng::fresh((m * 11 + n) as u64);
                    let (x, norm) = (rng.floats(m * k), scaled(rng.floats(k), k));
                    let factor = if silu { 2 } else { 1 };
                    let w = rng.floats(factor * n * k);
                    let run = |device: &_, stream: Option<&_>| {
                        let x = Array::new(device, dtype, [m, k], 8, &x);
                        let norm = Array::new(device, dtype, [k], 0, &norm);
                        let w = Array::new(device, dtype, [factor * n, k], 16, &w);
                        let mut out = Array::poisoned(device, dtype, [m, n], 3);
                        let (x, norm, w, to) = (x.view(), norm.view(), w.view(), out.view_mut());
                        match (stream, silu) {
                            (Some(s), false) => ops::norm_gemm(s, x, norm, 1e-6, w, to),
                            (Some(s), true) => ops::norm_gemm_silu(s, x, norm, 1e-6, w, to),
                            (None, false) => reference::norm_gemm(x, norm, 1e-6, w, to),
                            (None, true) => reference::norm_gemm_silu(x, norm, 1e-6, w, to),
                        }
                        .unwrap();
                        out
                    };
                    let (got, want) = (run(device, Some(stream)), run(&host(), None));
                    got.assert_close(&want, &format!("norm_gemm {m}x{n}x{k}, silu: {silu}"));
                }
            }
        }
    });
}

#[test]
fn a_gpu_says_how_many_rows_are_few() {
    for_each_device(|device, stream| {
        let most = ops::few_rows(device, DType::Bf16, 0);
        if !is_gpu(device) {
            assert_eq!(most, 0);
            return;
        }
        assert_eq!([most, ops::few_rows(device, DType::F32, 0)], [4, 0]);
        assert_eq!(
            [5120, 16384, 1 << 20, 12].map(|k| ops::few_rows(device, DType::Bf16, k)),
            [3, 0, 0, 0]
        );
        let x = Array::new(device, DType::Bf16, [5, 8], 0, &[0.0; 40]);
        let mut residual = Array::new(device, DType::Bf16, [5, 5], 0, &[0.0; 25]);
        let error = ops::gemm_add(stream, x.view(), x.view(), residual.view_mut()).unwrap_err();
        assert!(error.to_string().starts_with("gemm_add: number of rows is 5"), "{error}");
    });
}

/// So that sums of `k` of them stay near one.
fn scaled(mut values: Vec<f32>, k: usize) -> Vec<f32> {
    let scale = 1.0 / (k as f32).sqrt();
    values.iter_mut().for_each(|value| *value *= scale);
    values
}
