//! Bit-exactness on the CPU: a result does not depend on who else is in the batch, on the number of threads,
//! on how a sequence is cut into chunks, or on the page size.

use minisgl_kernels::ops::{self, AttentionParams, PagedKv, VarlenBatch};
use minisgl_kernels::{DType, Device, InstructionSet, Stream, Tensor};

use crate::attention::{Case, Step};
use crate::support::{Array, FLOATS, Rng, STORED, for_each_cpu, ids, threads};

fn gemm(device: &Device, stream: &Stream, dtype: DType, x: &[f32], w: &[f32], k: usize) -> Array {
    let (m, n) = (x.len() / k, w.len() / k);
    let x = Array::new(device, dtype, [m, k], 0, x);
    let w = Array::new(device, dtype, [n, k], 0, w);
    let mut out = Array::poisoned(device, DType::F32, [m, n], 0);
    ops::gemm(stream, x.view(), w.view(), None, out.view_mut()).unwrap();
    out
}

#[test]
fn gemm_of_many_rows_is_many_gemms_of_one_row() {
    for_each_cpu(|device, stream| {
        for dtype in FLOATS {
            for (m, n, k) in [(2, 3, 31), (7, 70, 100), (11, 5, 4100), (150, 9, 300)] {
                let mut rng = Rng(k as u64);
                let (x, w) = (rng.floats(m * k), rng.floats(n * k));
                let whole = gemm(device, stream, dtype, &x, &w, k).bits();
                let rows = x.chunks(k).flat_map(|x| gemm(device, stream, dtype, x, &w, k).bits());
                assert_eq!(whole, rows.collect::<Vec<_>>(), "{m}x{n}x{k}, {dtype}: by rows");
                // And every column alone.
                for (j, w) in w.chunks(k).enumerate() {
                    let column = gemm(device, stream, dtype, &x, w, k).bits();
                    let want: Vec<u32> = whole.iter().copied().skip(j).step_by(n).collect();
                    assert_eq!(column, want, "{m}x{n}x{k}, {dtype}: column {j}");
                }
            }
        }
    });
}

#[test]
fn one_thread_and_three_threads_give_the_same_bits() {
    for set in InstructionSet::ALL.into_iter().filter(|set| set.is_available()) {
        for dtype in FLOATS {
            let results = [1, 3].map(|n| {
                let device = Device::cpu_with(threads(n), set).unwrap();
                let stream = device.new_stream().unwrap();
                let mut rng = Rng(1);
                let (m, n, k) = (40, 300, 500);
                let (x, w) = (rng.floats(m * k), rng.floats(n * k));
                let product = gemm(&device, &stream, dtype, &x, &w, k).bits();

                let case = Case {
                    num_q_heads: 8,
                    num_kv_heads: 4,
                    head_dim: 48,
                    page_size: 4,
                    window: None,
                    sequences: vec![(90, 400), (1, 700), (33, 33)],
                };
                let mut step = Step::new(&device, dtype, &case, 3);
                step.run(Some(&stream));
                (product, step.out.bits())
            });
            assert_eq!(results[0].0, results[1].0, "gemm, {set}, {dtype}");
            assert_eq!(results[0].1, results[1].1, "attention, {set}, {dtype}");
        }
    }
}

/// One sequence of 300 positions whose queries come in steps of `chunk`; the KV pool is filled step
/// by step, as an engine does it. Other sequences may share the steps.
fn in_chunks(
    device: &Device,
    stream: &Stream,
    [dtype, kv_dtype]: [DType; 2],
    page_size: usize,
    chunk: usize,
    window: Option<usize>,
) -> Vec<u32> {
    const LEN: usize = 300;
    let (num_q_heads, num_kv_heads, d) = (6, 2, 40);
    let (q_row, kv_row) = (num_q_heads * d, num_kv_heads * d);
    let mut rng = Rng(9);
    let (q, k, v) = (rng.floats(LEN * q_row), rng.floats(LEN * kv_row), rng.floats(LEN * kv_row));
    let num_pages = LEN.div_ceil(page_size);
    let pages = Rng(page_size as u64).permutation(num_pages);
    let slot_of = |p: usize| pages[p / page_size] * page_size as i32 + (p % page_size) as i32;

    let pool_shape = [num_pages * page_size, num_kv_heads, d];
    let mut k_pool = Array::poisoned(device, kv_dtype, pool_shape, 0);
    let mut v_pool = Array::poisoned(device, kv_dtype, pool_shape, 0);
    let page_table = Tensor::from_slice(device, [1, num_pages], &pages).unwrap();
    let rows = ids(device, &[0]);
    let mut bits = Vec::new();
    for start in (0..LEN).step_by(chunk) {
        let end = LEN.min(start + chunk);
        let t = end - start;
        let slots: Vec<i32> = (start..end).map(slot_of).collect();
        let kv_shape = [t, num_kv_heads, d];
        let k = Array::new(device, dtype, kv_shape, 0, &k[start * kv_row..end * kv_row]);
        let v = Array::new(device, dtype, kv_shape, 0, &v[start * kv_row..end * kv_row]);
        let slots = ids(device, &slots);
        let (k_mut, v_mut) = (k_pool.view_mut(), v_pool.view_mut());
        ops::store_kv(stream, k.view(), v.view(), slots.view(), k_mut, v_mut).unwrap();

        let q = Array::new(device, dtype, [t, num_q_heads, d], 0, &q[start * q_row..end * q_row]);
        let mut out = Array::poisoned(device, dtype, [t, num_q_heads, d], 0);
        let (cu_seqlens_q, kv_lens) = (ids(device, &[0, t as i32]), ids(device, &[end as i32]));
        let kv = PagedKv {
            k_pool: k_pool.view(),
            v_pool: v_pool.view(),
            page_table: page_table.view(),
            page_size,
        };
        let batch = VarlenBatch {
            rows: rows.view(),
            cu_seqlens_q: cu_seqlens_q.view(),
            kv_lens: kv_lens.view(),
        };
        let params = AttentionParams { scale: 0.3, window };
        ops::paged_attention(stream, q.view(), kv, batch, params, out.view_mut()).unwrap();
        bits.extend(out.bits());
    }
    bits
}

#[test]
fn attention_in_chunks_and_pages_of_any_size_gives_the_same_bits() {
    for_each_cpu(|device, stream| {
        for dtypes in STORED {
            for window in [None, Some(70), Some(170)] {
                let whole = in_chunks(device, stream, dtypes, 16, 300, window);
                for (page_size, chunk) in [(1, 300), (4, 64), (16, 7), (16, 1), (300, 128)] {
                    let parts = in_chunks(device, stream, dtypes, page_size, chunk, window);
                    let what = format!("page {page_size}, chunk {chunk}, window {window:?}");
                    assert!(whole == parts, "{what}, {dtypes:?}: bits differ");
                }
            }
        }
    });
}

#[test]
fn attention_of_a_sequence_does_not_depend_on_the_batch() {
    for_each_cpu(|device, stream| {
        for dtypes in STORED {
            let case = Case {
                num_q_heads: 4,
                num_kv_heads: 2,
                head_dim: 32,
                page_size: 4,
                window: None,
                sequences: vec![(1, 200), (9, 140), (1, 5), (40, 40)],
            };
            let mut batch = Step::stored(device, dtypes, &case, 5, [7, 5]);
            batch.run(Some(stream));
            // Each query alone.
            let row = case.num_q_heads * case.head_dim;
            let all = batch.out.bits();
            let mut first = 0;
            for j in 0..case.sequences.len() {
                let (q_len, _) = case.sequences[j];
                for i in 0..q_len {
                    let alone = batch.run_one(stream, j, i);
                    let want = &all[(first + i) * row..(first + i + 1) * row];
                    assert_eq!(alone, want, "sequence {j}, query {i}, {dtypes:?}");
                }
                first += q_len;
            }
        }
    });
}

#[test]
fn row_ops_do_not_depend_on_the_batch() {
    for_each_cpu(|device, stream| {
        for dtype in FLOATS {
            let (t, h) = (67, 259);
            let mut rng = Rng(2);
            let (x, weight) = (rng.floats(t * h), rng.floats(h));
            let weight = Array::new(device, dtype, [h], 0, &weight);
            let run = |x: &[f32]| {
                let t = x.len() / h;
                let x = Array::new(device, dtype, [t, h], 0, x);
                let mut norm = Array::poisoned(device, dtype, [t, h], 0);
                ops::rms_norm(stream, x.view(), weight.view(), 1e-6, norm.view_mut()).unwrap();
                let mut silu = Array::poisoned(device, dtype, [t, h / 2], 0);
                let x = x.view().columns(0..h / 2 * 2).unwrap();
                ops::silu_and_mul(stream, x, silu.view_mut()).unwrap();
                (norm.bits(), silu.bits())
            };
            let whole = run(&x);
            let rows: Vec<_> = x.chunks(h).map(run).collect();
            assert_eq!(whole.0, rows.iter().flat_map(|r| r.0.clone()).collect::<Vec<_>>());
            assert_eq!(whole.1, rows.iter().flat_map(|r| r.1.clone()).collect::<Vec<_>>());
        }
    });
}
