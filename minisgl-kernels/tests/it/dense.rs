//! Ops on whole rows against the reference.

use minisgl_kernels::ops::{KvStore, QkNorm};
use minisgl_kernels::{DType, ops, reference};

use crate::support::{Array, FLOATS, Rng, STORED, for_each_device, host, ids, is_gpu};

/// Odd sizes: below, at and above the widths of vectors, tiles and blocks.
const WIDTHS: [usize; 9] = [1, 3, 16, 17, 31, 64, 100, 256, 1031];
const ROWS: [usize; 6] = [0, 1, 2, 5, 17, 70];

#[test]
fn gemm_is_the_reference() {
    let shapes = [
        (0, 5, 7),
        (1, 1, 1),
        (1, 130, 33),
        (2, 3, 0),
        (3, 17, 64),
        (4, 4, 1024),
        (5, 67, 100),
        (9, 6, 2049),
        (33, 65, 257),
        (70, 130, 40),
        (131, 9, 5000),
    ];
    for_each_device(|device, stream| {
        for dtype in FLOATS {
            for (i, (m, n, k)) in shapes.into_iter().enumerate() {
                let mut rng = Rng::fresh(i as u64);
                let scale = 1.0 / (k as f32).max(1.0).sqrt();
                let x: Vec<f32> = rng.floats(m * k).iter().map(|x| x * scale).collect();
                let (w, bias) = (rng.floats(n * k), rng.floats(n));
                for (out_dtype, with_bias) in [(dtype, true), (DType::F32, false)] {
                    let run = |device: &_, stream: Option<&_>| {
                        let x = Array::new(device, dtype, [m, k], 5, &x);
                        let w = Array::new(device, dtype, [n, k], 3, &w);
                        let bias = Array::new(device, dtype, [n], 0, &bias);
                        let bias = with_bias.then_some(bias.view());
                        let mut out = Array::poisoned(device, out_dtype, [m, n], 2);
                        match stream {
                            Some(s) => ops::gemm(s, x.view(), w.view(), bias, out.view_mut()),
                            None => reference::gemm(x.view(), w.view(), bias, out.view_mut()),
                        }
                        .unwrap();
                        out
                    };
                    let (got, want) = (run(device, Some(stream)), run(&host(), None));
                    let what = format!("gemm {m}x{n}x{k}, bias {with_bias}");
                    if is_gpu(device) && with_bias {
                        // Some algorithms of cuBLASLt round before they add the bias, too.
                        got.assert_close_twice_rounded(&want, &what);
                    } else {
                        got.assert_close(&want, &what);
                    }
                }
            }
        }
    });
}

/// Rows that are aligned to 16 bytes, of which a GPU has a kernel of its own for a few.
#[test]
fn gemm_of_a_few_aligned_rows_is_the_reference() {
    for_each_device(|device, stream| {
        for dtype in FLOATS {
            for (i, (m, n, k)) in [
                (1, 5, 8),
                (1, 4099, 2048),
                (2, 17, 1000),
                (3, 130, 264),
                (4, 33, 3072),
                (5, 9, 64),
            ]
            .into_iter()
            .enumerate()
            {
                let mut rng = Rng::fresh(i as u64);
                let scale = 1.0 / (k as f32).sqrt();
                let x: Vec<f32> = rng.floats(m * k).iter().map(|x| x * scale).collect();
                let w = rng.floats(n * k);
                for out_dtype in [dtype, DType::F32] {
                    let run = |device: &_, stream: Option<&_>| {
                        let x = Array::new(device, dtype, [m, k], 8, &x);
                        let w = Array::new(device, dtype, [n, k], 0, &w);
                        let mut out = Array::poisoned(device, out_dtype, [m, n], 3);
                        match stream {
                            Some(s) => ops::gemm(s, x.view(), w.view(), None, out.view_mut()),
                            None => reference::gemm(x.view(), w.view(), None, out.view_mut()),
                        }
                        .unwrap();
                        out
                    };
                    let (got, want) = (run(device, Some(stream)), run(&host(), None));
                    got.assert_close(&want, &format!("gemm {m}x{n}x{k}"));
                }
            }
        }
    });
}

#[test]
fn rms_norm_is_the_reference() {
    for_each_device(|device, stream| {
        for dtype in FLOATS {
            for h in WIDTHS {
                for t in ROWS {
                    let mut rng = Rng::fresh((h * 100 + t) as u64);
                    let (x, weight) = (rng.floats(t * h), rng.floats(h));
                    let run = |device: &_, stream: Option<&_>| {
                        let x = Array::new(device, dtype, [t, h], 3, &x);
                        let weight = Array::new(device, dtype, [h], 0, &weight);
                        let mut out = Array::poisoned(device, dtype, [t, h], 1);
                        match stream {
                            Some(s) => {
                                ops::rms_norm(s, x.view(), weight.view(), 1e-5, out.view_mut())
                            }
                            None => {
                                reference::rms_norm(x.view(), weight.view(), 1e-5, out.view_mut())
                            }
                        }
                        .unwrap();
                        out
                    };
                    let (got, want) = (run(device, Some(stream)), run(&host(), None));
                    got.assert_close(&want, &format!("rms_norm {t}x{h}"));
                }
            }
        }
    });
}

#[test]
fn add_rms_norm_is_the_reference() {
    for_each_device(|device, stream| {
        for dtype in FLOATS {
            for h in WIDTHS {
                for t in ROWS {
                    let mut rng = Rng::fresh((h * 100 + t) as u64);
                    let (x, residual) = (rng.floats(t * h), rng.floats(t * h));
                    let weight = rng.floats(h);
                    let run = |device: &_, stream: Option<&_>| {
                        let mut x = Array::new(device, dtype, [t, h], 3, &x);
                        let mut residual = Array::new(device, dtype, [t, h], 7, &residual);
                        let weight = Array::new(device, dtype, [h], 0, &weight);
                        let (a, b) = (x.view_mut(), residual.view_mut());
                        match stream {
                            Some(s) => ops::add_rms_norm(s, a, b, weight.view(), 1e-6),
                            None => reference::add_rms_norm(a, b, weight.view(), 1e-6),
                        }
                        .unwrap();
                        (x, residual)
                    };
                    let (got, want) = (run(device, Some(stream)), run(&host(), None));
                    got.0.assert_close(&want.0, &format!("add_rms_norm {t}x{h}: x"));
                    assert_eq!(got.1.bits(), want.1.bits(), "add_rms_norm {t}x{h}: residual");
                }
            }
        }
    });
}

#[test]
fn qk_norm_rope_is_the_reference() {
    // (tokens, query heads, kv heads, head_dim, rotary_dim)
    let shapes = [
        (0, 2, 1, 8, 8),
        (1, 1, 1, 2, 2),
        (3, 4, 2, 16, 16),
        (5, 3, 1, 17, 6),
        (7, 8, 2, 64, 32),
        (9, 2, 2, 96, 0),
        (40, 8, 4, 128, 128),
    ];
    for_each_device(|device, stream| {
        for dtype in FLOATS {
            for (t, hq, hkv, d, rotary) in shapes {
                let mut rng = Rng::fresh((t * 1000 + d) as u64);
                let (q, k) = (rng.floats(t * hq * d), rng.floats(t * hkv * d));
                let (q_weight, k_weight) = (rng.floats(d), rng.floats(d));
                let positions: Vec<i32> = (0..t).map(|_| rng.below(50) as i32).collect();
                let cos_sin = rng.floats(50 * rotary);
                for with_norm in [false, true] {
                    let run = |device: &_, stream: Option<&_>| {
                        let mut q = Array::new(device, dtype, [t, hq, d], 3, &q);
                        let mut k = Array::new(device, dtype, [t, hkv, d], 5, &k);
                        let q_weight = Array::new(device, dtype, [d], 0, &q_weight);
                        let k_weight = Array::new(device, dtype, [d], 0, &k_weight);
                        let gap = if is_gpu(device) { 0 } else { 2 };
                        let cos_sin = Array::new(device, DType::F32, [50, rotary], gap, &cos_sin);
                        let positions = ids(device, &positions);
                        let (positions, cos_sin) = (positions.view(), cos_sin.view());
                        let norm = with_norm.then_some(QkNorm {
                            q_weight: q_weight.view(),
                            k_weight: k_weight.view(),
                            eps: 1e-6,
                        });
                        let (a, b) = (q.view_mut(), k.view_mut());
                        match stream {
                            Some(s) => ops::qk_norm_rope(s, a, b, norm, positions, cos_sin),
                            None => reference::qk_norm_rope(a, b, norm, positions, cos_sin),
                        }
                        .unwrap();
                        (q, k)
                    };
                    let (got, want) = (run(device, Some(stream)), run(&host(), None));
                    let what = format!("qk_norm_rope t={t} d={d} norm={with_norm}");
                    got.0.assert_close(&want.0, &format!("{what}: q"));
                    got.1.assert_close(&want.1, &format!("{what}: k"));
                }
            }
        }
    });
}

#[test]
fn qk_norm_rope_store_is_the_two_ops_bit_for_bit() {
    // (tokens, query heads, kv heads, head_dim, rotary_dim)
    let shapes = [
        (0, 2, 1, 8, 8),
        (1, 1, 1, 2, 2),
        (5, 3, 1, 17, 6),
        (7, 8, 2, 64, 32),
        (40, 8, 4, 128, 128),
        (3, 16, 8, 256, 64),
    ];
    for_each_device(|device, stream| {
        for [dtype, kv_dtype] in STORED {
            for (t, hq, hkv, d, rotary) in shapes {
                let mut rng = Rng::fresh((t * 1000 + d) as u64);
                let (q, k) = (rng.floats(t * hq * d), rng.floats(t * hkv * d));
                let v = rng.floats(t * hkv * d);
                let (q_weight, k_weight) = (rng.floats(d), rng.floats(d));
                let positions: Vec<i32> = (0..t).map(|_| rng.below(50) as i32).collect();
                let cos_sin = rng.floats(50 * rotary);
                let num_slots = t + 5;
                let slots = &rng.permutation(num_slots)[..t];
                for with_norm in [false, true] {
                    // Fused, as two ops, or by the reference.
                    let run = |device: &_, stream: Option<&_>, fused: bool| {
                        let mut q = Array::new(device, dtype, [t, hq, d], 3, &q);
                        let mut k = Array::new(device, dtype, [t, hkv, d], 5, &k);
                        let v = Array::new(device, dtype, [t, hkv, d], 1, &v);
                        let q_weight = Array::new(device, dtype, [d], 0, &q_weight);
                        let k_weight = Array::new(device, dtype, [d], 0, &k_weight);
                        let cos_sin = Array::new(device, DType::F32, [50, rotary], 0, &cos_sin);
                        let (positions, slots) = (ids(device, &positions), ids(device, slots));
                        let (positions, cos_sin) = (positions.view(), cos_sin.view());
                        let norm = with_norm.then_some(QkNorm {
                            q_weight: q_weight.view(),
                            k_weight: k_weight.view(),
                            eps: 1e-6,
                        });
                        let pool = [num_slots, hkv, d];
                        let mut k_pool = Array::poisoned(device, kv_dtype, pool, 0);
                        let mut v_pool = Array::poisoned(device, kv_dtype, pool, 0);
                        let before = k.bits();
                        let store = KvStore {
                            v: v.view(),
                            slots: slots.view(),
                            k_pool: k_pool.view_mut(),
                            v_pool: v_pool.view_mut(),
                        };
                        let a = q.view_mut();
                        match (stream, fused) {
                            (Some(s), true) => {
                                let k = k.view();
                                ops::qk_norm_rope_store(s, a, k, norm, positions, cos_sin, store)
                            }
                            (Some(s), false) => {
                                let b = k.view_mut();
                                ops::qk_norm_rope(s, a, b, norm, positions, cos_sin).unwrap();
                                let KvStore { v, slots, k_pool, v_pool } = store;
                                ops::store_kv(s, k.view(), v, slots, k_pool, v_pool)
                            }
                            (None, _) => reference::qk_norm_rope_store(
                                a,
                                k.view(),
                                norm,
                                positions,
                                cos_sin,
                                store,
                            ),
                        }
                        .unwrap();
                        assert!(!fused || k.bits() == before, "k is left as it was");
                        (q, k_pool, v_pool)
                    };
                    let what = format!("t={t} d={d} norm={with_norm}, {dtype} in {kv_dtype}");
                    let got = run(device, Some(stream), true);
                    let two = run(device, Some(stream), false);
                    let want = run(&host(), None, true);
                    for (got, two) in [(&got.0, &two.0), (&got.1, &two.1), (&got.2, &two.2)] {
                        assert!(got.bits() == two.bits(), "{what}: fused and in two ops");
                    }
                    got.0.assert_close(&want.0, &format!("{what}: q"));
                    got.1.assert_close(&want.1, &format!("{what}: keys"));
                    assert!(got.2.bits() == want.2.bits(), "{what}: values");
                }
            }
        }
    });
}

#[test]
fn silu_and_mul_is_the_reference() {
    for_each_device(|device, stream| {
        for dtype in FLOATS {
            for i in WIDTHS {
                for t in ROWS {
                    let mut rng = Rng::fresh((i * 100 + t) as u64);
                    let mut x: Vec<f32> = rng.floats(t * 2 * i).iter().map(|x| x * 20.0).collect();
                    if let Some(first) = x.first_mut() {
                        *first = -200.0; // exp(200) overflows; silu is then 0
                    }
                    let run = |device: &_, stream: Option<&_>| {
                        let x = Array::new(device, dtype, [t, 2 * i], 3, &x);
                        let mut out = Array::poisoned(device, dtype, [t, i], 1);
                        match stream {
                            Some(s) => ops::silu_and_mul(s, x.view(), out.view_mut()),
                            None => reference::silu_and_mul(x.view(), out.view_mut()),
                        }
                        .unwrap();
                        out
                    };
                    let (got, want) = (run(device, Some(stream)), run(&host(), None));
                    got.assert_close(&want, &format!("silu_and_mul {t}x{i}"));
                }
            }
        }
    });
}

#[test]
fn sums_are_the_reference_bit_for_bit() {
    for_each_device(|device, stream| {
        for dtype in FLOATS {
            for h in WIDTHS {
                for t in ROWS {
                    let mut rng = Rng::fresh((h * 100 + t) as u64);
                    let data: Vec<Vec<f32>> = (0..4).map(|_| rng.floats(t * h)).collect();
                    let run = |device: &_, stream: Option<&_>| {
                        let parts: Vec<Array> =
                            data.iter().map(|x| Array::new(device, dtype, [t, h], 3, x)).collect();
                        let views: Vec<_> = parts.iter().map(Array::view).collect();
                        let mut sum = Array::poisoned(device, dtype, [t, h], 1);
                        let mut y = Array::new(device, dtype, [t, h], 2, &data[0]);
                        match stream {
                            Some(s) => {
                                ops::reduce_sum(s, &views, sum.view_mut()).unwrap();
                                ops::add(s, views[1], y.view_mut()).unwrap();
                            }
                            None => {
                                reference::reduce_sum(&views, sum.view_mut()).unwrap();
                                reference::add(views[1], y.view_mut()).unwrap();
                            }
                        }
                        (sum.bits(), y.bits())
                    };
                    assert_eq!(run(device, Some(stream)), run(&host(), None), "{t}x{h}, {dtype}");
                }
            }
        }
    });
}
