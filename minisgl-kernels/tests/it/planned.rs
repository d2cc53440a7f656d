//! Planned attention against the reference, for every backend the device has.

use minisgl_kernels::ops::{Attention, AttentionBackend, AttentionConfig, HostBatch};
use minisgl_kernels::{DType, Device, Error, Stream};

use crate::attention::{Case, Step};
use crate::support::{
    STORED, assert_close_twice_rounded, for_each_device, gpu_or_skip, gpu_turn, host, is_gpu,
};

const BACKENDS: [AttentionBackend; 3] =
    [AttentionBackend::Native, AttentionBackend::Fi, AttentionBackend::Fa];

fn config(
    case: &Case,
    backend: AttentionBackend,
    [dtype, kv_dtype]: [DType; 2],
) -> AttentionConfig {
    let pages = case.sequences.iter().map(|&(_, kv_len)| kv_len.div_ceil(case.page_size));
    AttentionConfig {
        backend,
        dtype,
        kv_dtype,
        num_q_heads: case.num_q_heads,
        num_kv_heads: case.num_kv_heads,
        head_dim: case.head_dim,
        page_size: case.page_size,
        max_sequences: case.sequences.len() + 3,
        max_tokens: case.sequences.iter().map(|&(q_len, _)| q_len).sum::<usize>() + 5,
        max_pages: pages.sum::<usize>() + 7,
    }
}

/// The backend for a case, or `None` (said aloud) if the device does not have it.
#[expect(clippy::print_stdout, reason = "what a device does not have, and so is not tested")]
fn attention(stream: &Stream, config: &AttentionConfig) -> Option<Attention> {
    match Attention::new(stream, config) {
        Ok(attention) => Some(attention),
        Err(Error::Unavailable(reason)) => {
            assert_ne!(config.backend, AttentionBackend::Native, "{reason}");
            assert!(Attention::device_bytes(stream.device(), config).is_err());
            println!("not here: {config:?}: {reason}");
            None
        }
        Err(error) => panic!("{config:?}: {error}"),
    }
}

fn host_batch(case: &Case, fixed_batch: bool) -> (Vec<i32>, Vec<i32>, bool) {
    let mut cu_seqlens_q = vec![0];
    for &(q_len, _) in &case.sequences {
        cu_seqlens_q.push(cu_seqlens_q[cu_seqlens_q.len() - 1] + q_len as i32);
    }
    let kv_lens = case.sequences.iter().map(|&(_, kv_len)| kv_len as i32).collect();
    (cu_seqlens_q, kv_lens, fixed_batch)
}

/// Plans and runs a case on a backend, and compares with the reference.
fn check(
    device: &Device,
    stream: &Stream,
    dtypes: [DType; 2],
    case: &Case,
    fixed: bool,
    seed: u64,
) {
    for backend in BACKENDS {
        let config = config(case, backend, dtypes);
        if !is_gpu(device) && backend != AttentionBackend::Native {
            assert!(matches!(Attention::new(stream, &config), Err(Error::Unavailable(_))));
            continue;
        }
        // The Hopper kernels are for prefill and extend.
        if backend == AttentionBackend::Fa && fixed {
            continue;
        }
        let Some(mut attention) = attention(stream, &config) else { continue };
        let (cu_seqlens_q, kv_lens, fixed_batch) = host_batch(case, fixed);
        let host_batch = HostBatch { cu_seqlens_q: &cu_seqlens_q, kv_lens: &kv_lens, fixed_batch };
        let mut want = Step::stored(&host(), dtypes, case, seed, [7, 5]);
        want.run(None);
        // Aligned for the widest loads, or not at all.
        for gaps in [[8, 0], [7, 5]] {
            let mut got = Step::stored(device, dtypes, case, seed, gaps);
            attention.plan(stream, got.kv(), got.batch(), host_batch).unwrap();
            if backend == AttentionBackend::Fa && case.window.is_some() {
                let error = got.try_run_planned(&mut attention, stream).unwrap_err();
                assert!(error.to_string().contains("window"), "{error}");
                continue;
            }
            // Two layers of one plan.
            for _ in 0..2 {
                got.run_planned(&mut attention, stream);
            }
            let what = format!("{backend:?}, {dtypes:?}, {case:?}, gaps {gaps:?}");
            got.out.assert_close_twice_rounded(&want.out, &what);
        }
    }
}

#[test]
fn prefill_extend_and_decode_are_the_reference() {
    let mixed = vec![(1, 1), (1, 300), (5, 5), (17, 150), (1, 128), (3, 129), (130, 130)];
    for_each_device(|device, stream| {
        for dtypes in STORED {
            let mut seed = 0;
            for head_dim in [64, 80, 96, 128, 256] {
                for (page_size, group) in [(1, 1), (16, 4), (64, 5), (16, 8), (1, 3)] {
                    let case = Case {
                        num_q_heads: 2 * group,
                        num_kv_heads: 2,
                        head_dim,
                        page_size,
                        window: if group == 3 { Some(70) } else { None },
                        sequences: mixed.clone(),
                    };
                    seed += 1;
                    // All this on every CPU takes too long; there, one size is as good as all.
                    if is_gpu(device) || head_dim == 64 {
                        check(device, stream, dtypes, &case, false, seed);
                    }
                }
            }
        }
    });
}

#[test]
fn a_fixed_batch_of_decodes_is_the_reference() {
    for_each_device(|device, stream| {
        for dtypes in STORED {
            for (seed, group) in (1..=8).enumerate() {
                let (head_dim, page_size) = [(128, 16), (64, 1), (256, 64), (80, 16)][seed % 4];
                let case = Case {
                    num_q_heads: 2 * group,
                    num_kv_heads: 2,
                    head_dim,
                    page_size,
                    window: (group == 6).then_some(50),
                    sequences: vec![(1, 1), (1, 2), (1, 500), (1, 64), (1, 65), (1, 1500)],
                };
                if is_gpu(device) || group < 3 {
                    check(device, stream, dtypes, &case, true, seed as u64);
                }
            }
        }
    });
}

#[test]
fn one_graph_serves_every_context_length() {
    let Some(device) = gpu_or_skip("one graph serves every context length") else { return };
    let _turn = gpu_turn();
    let stream = device.new_stream().unwrap();
    for backend in [AttentionBackend::Native, AttentionBackend::Fi] {
        for dtypes in STORED {
            let case = |lens: [usize; 4]| Case {
                num_q_heads: 8,
                num_kv_heads: 2,
                head_dim: 128,
                page_size: 16,
                window: None,
                sequences: lens.map(|kv_len| (1, kv_len)).to_vec(),
            };
            let longest = case([2000, 2000, 2000, 2000]);
            let Some(mut attention) = attention(&stream, &config(&longest, backend, dtypes)) else {
                continue;
            };
            let mut step = Step::stored(device, dtypes, &longest, 1, [8, 0]);
            let plan = |attention: &mut Attention, step: &Step, case: &Case| {
                let (cu_seqlens_q, kv_lens, fixed_batch) = host_batch(case, true);
                let host =
                    HostBatch { cu_seqlens_q: &cu_seqlens_q, kv_lens: &kv_lens, fixed_batch };
                attention.plan(&stream, step.kv(), step.batch(), host).unwrap();
            };
            plan(&mut attention, &step, &longest);
            step.run_planned(&mut attention, &stream);
            let (graph, ()) = stream
                .capture(|| {
                    step.run_into_out(&mut attention, &stream);
                    Ok::<(), Error>(())
                })
                .unwrap();
            for lens in [[1, 1, 1, 1], [1, 2000, 17, 333], [0, 1, 1999, 64], [2000, 0, 0, 7]] {
                // The same memory, shorter sequences.
                step.shorten(&stream, &lens);
                plan(&mut attention, &step, &case(lens));
                graph.launch(&stream).unwrap();
                stream.synchronize().unwrap();
                let mut want = Step::stored(&host(), dtypes, &longest, 1, [7, 5]);
                // The reference knows no padding.
                want.shorten(&host().new_stream().unwrap(), &lens.map(|kv_len| kv_len.max(1)));
                want.run(None);
                let row = 8 * 128;
                let (got, want) = (step.out.values(), want.out.values());
                for (j, (got, want)) in got.chunks(row).zip(want.chunks(row)).enumerate() {
                    let what = format!("{backend:?}, {lens:?}, sequence {j}");
                    match lens[j] {
                        0 => assert!(got.iter().all(|&x| x == 0.0), "{what}: padding gets zeros"),
                        _ => assert_close_twice_rounded(dtypes[0], got, want, &what),
                    }
                }
            }
        }
    }
}

#[test]
fn plans_that_do_not_fit_are_refused() {
    for_each_device(|device, stream| {
        let case = Case {
            num_q_heads: 4,
            num_kv_heads: 2,
            head_dim: 64,
            page_size: 16,
            window: None,
            sequences: vec![(1, 20), (2, 30)],
        };
        let good = config(&case, AttentionBackend::Native, [DType::Bf16; 2]);
        let mut step = Step::new(device, DType::Bf16, &case, 1);
        let plan = |config: AttentionConfig, cu_seqlens_q: &[i32], kv_lens: &[i32], fixed_batch| {
            let mut attention = Attention::new(stream, &config).unwrap();
            let host = HostBatch { cu_seqlens_q, kv_lens, fixed_batch };
            let planned = attention.plan(stream, step.kv(), step.batch(), host);
            planned.map(|()| attention).map_err(|error| error.to_string())
        };
        let refused = |config, cu_seqlens_q: &[i32], kv_lens: &[i32], fixed| {
            plan(config, cu_seqlens_q, kv_lens, fixed).unwrap_err()
        };
        let lens = ([0, 1, 3], [20, 30]);
        let small = AttentionConfig { max_sequences: 1, ..good };
        assert!(refused(small, &lens.0, &lens.1, false).contains("number of sequences is 2"));
        let small = AttentionConfig { max_tokens: 2, ..good };
        assert!(refused(small, &lens.0, &lens.1, false).contains("number of queries is 3"));
        let small = AttentionConfig { max_pages: 3, ..good };
        assert!(refused(small, &lens.0, &lens.1, false).contains("number of pages is 4"));
        assert!(refused(good, &lens.0, &lens.1, true).contains("queries of a sequence is 2"));
        assert!(refused(good, &[0, 1, 3], &[20], false).contains("1 elements"));
        assert!(refused(good, &[0, 1, 3], &[20, 1], false).contains("kv_len is 1"));
        assert!(refused(good, &[1, 1, 3], &[20, 30], false).contains("cu_seqlens_q[0] is 1"));
        let narrow = AttentionConfig { kv_dtype: DType::F8E4M3, ..good };
        assert!(refused(narrow, &lens.0, &lens.1, false).contains("k_pool has dtype bfloat16"));
        let mut attention = plan(good, &lens.0, &lens.1, false).unwrap();
        step.run_planned(&mut attention, stream);
        let bad = AttentionConfig { num_q_heads: 3, ..good };
        assert!(matches!(Attention::new(stream, &bad), Err(Error::Parameter { .. })));
        let bad = AttentionConfig { kv_dtype: DType::F32, ..good };
        assert!(matches!(Attention::new(stream, &bad), Err(Error::DType { .. })));
        let mut fresh = Attention::new(stream, &good).unwrap();
        let error = step.try_run_planned(&mut fresh, stream).unwrap_err().to_string();
        assert!(error.contains("the last plan"), "{error}");
    });
}
