//! Wrong arguments: the error names the op, the argument, what it is and what it may be, and the
//! outputs are as they were.

use minisgl_kernels::ops::sampling::{self, ThresholdState};
use minisgl_kernels::ops::{self, AttentionParams, PagedKv, VarlenBatch};
use minisgl_kernels::{DType, Error, Stream, Tensor};

use crate::support::{floats, for_each_cpu, for_each_device, ids};

fn message(result: Result<(), Error>) -> String {
    result.expect_err("it must be refused").to_string()
}

#[test]
fn dtypes_ranks_shapes_and_gaps_are_named() {
    for_each_device(|device, stream| {
        let zeros = |dtype, shape: [usize; 2]| device.zeros(dtype, shape).unwrap();
        let (x, w) = (zeros(DType::F32, [2, 3]), zeros(DType::F32, [4, 3]));
        let mut out = zeros(DType::F32, [2, 4]);
        let gemm = |x: &Tensor, w: &Tensor, out: &mut Tensor| {
            message(ops::gemm(stream, x.view(), w.view(), None, out.view_mut()))
        };
        assert_eq!(
            gemm(&zeros(DType::I32, [2, 3]), &w, &mut out),
            "gemm: x has dtype int32, expected float32 or bfloat16"
        );
        assert_eq!(
            gemm(&x, &zeros(DType::Bf16, [4, 3]), &mut out),
            "gemm: w has dtype bfloat16, expected float32"
        );
        assert_eq!(
            gemm(&x, &zeros(DType::F32, [4, 5]), &mut out),
            "gemm: w has shape [4, 5], expected [4, 3]"
        );
        assert_eq!(
            gemm(&floats(device, &[1.0]), &w, &mut out),
            "gemm: x has shape [1], expected 2 dimensions"
        );
        assert_eq!(
            gemm(&x, &w, &mut zeros(DType::Bf16, [2, 4])),
            "gemm: out has dtype bfloat16, expected float32"
        );

        let pool = device.zeros(DType::F32, [4, 2, 6]).unwrap();
        let holes = pool.view().columns(0..3).unwrap();
        let mut target = device.zeros(DType::F32, [4, 2, 3]).unwrap();
        assert_eq!(
            message(ops::copy(stream, holes, target.view_mut())),
            "copy: source has gaps inside its rows (shape [4, 2, 3], strides [12, 6, 1])"
        );
        assert_eq!(
            message(stream.download(x.view(), &mut [0.0f32; 5])),
            "download: the host slice has 5 elements, the view needs 6"
        );
        assert_eq!(
            message(ops::reduce_sum(stream, &[], out.view_mut())),
            "reduce_sum: parts is empty, allowed is at least one part"
        );
    });
}

#[test]
fn bad_scalars_are_named() {
    for_each_device(|device, stream| {
        let x = device.zeros(DType::F32, [1, 3]).unwrap();
        let weight = device.zeros(DType::F32, [3]).unwrap();
        let mut out = device.zeros(DType::F32, [1, 3]).unwrap();
        for eps in [-1e-6, f32::NAN, f32::INFINITY] {
            let result = ops::rms_norm(stream, x.view(), weight.view(), eps, out.view_mut());
            assert!(message(result).contains("rms_norm: eps is"));
        }
        let mut q = device.zeros(DType::F32, [1, 1, 4]).unwrap();
        let mut k = device.zeros(DType::F32, [1, 1, 4]).unwrap();
        for rotary_dim in [3, 6] {
            let table = device.zeros(DType::F32, [8, rotary_dim]).unwrap();
            let positions = ids(device, &[0]);
            let (q, k) = (q.view_mut(), k.view_mut());
            let result = ops::qk_norm_rope(stream, q, k, None, positions.view(), table.view());
            assert!(message(result).contains("rotary_dim"));
        }
        let (mut value, mut id) = (floats(device, &[0.0]), ids(device, &[0]));
        let argmax = |width: usize, first_id, value: &mut Tensor, id: &mut Tensor| {
            let logits = device.zeros(DType::F32, [1, width]).unwrap();
            let outs = (value.view_mut(), id.view_mut());
            message(sampling::argmax(stream, logits.view(), first_id, outs.0, outs.1))
        };
        assert!(argmax(0, 0, &mut value, &mut id).contains("number of logits"));
        assert!(argmax(2, i32::MAX - 1, &mut value, &mut id).contains("first_id"));
    });
}

#[test]
fn bad_indices_are_found_before_anything_is_written() {
    for_each_cpu(|device, stream| {
        for bad in [-1, 4, i32::MAX, i32::MIN] {
            let slots = ids(device, &[0, bad]);
            let mut pools = [0, 1].map(|_| device.zeros(DType::F32, [4, 1, 2]).unwrap());
            let kv = Tensor::from_slice(device, [2, 1, 2], &[1.0f32; 4]).unwrap();
            let [k_pool, v_pool] = &mut pools;
            let (k_mut, v_mut) = (k_pool.view_mut(), v_pool.view_mut());
            let result = ops::store_kv(stream, kv.view(), kv.view(), slots.view(), k_mut, v_mut);
            assert_eq!(message(result), format!("store_kv: slots[1] is {bad}, allowed is 0..4"));
            for pool in &pools {
                assert_eq!(pool.to_vec::<f32>().unwrap(), [0.0; 8], "something was written");
            }

            let mut table = ids(device, &[0; 4]);
            let result = ops::scatter_ids(
                stream,
                ids(device, &[5, 5]).view(),
                slots.view(),
                table.view_mut(),
            );
            assert!(message(result).contains("scatter_ids: indices[1]"));
            assert_eq!(table.to_vec::<i32>().unwrap(), [0; 4]);
            let mut out = ids(device, &[0; 2]);
            let result = ops::gather_ids(stream, table.view(), slots.view(), out.view_mut());
            assert!(message(result).contains("gather_ids: indices[1]"));
        }
        let mut q = device.zeros(DType::F32, [1, 1, 4]).unwrap();
        let mut k = device.zeros(DType::F32, [1, 1, 4]).unwrap();
        let (positions, table) = (ids(device, &[8]), device.zeros(DType::F32, [8, 4]).unwrap());
        let (q, k) = (q.view_mut(), k.view_mut());
        let result = ops::qk_norm_rope(stream, q, k, None, positions.view(), table.view());
        assert_eq!(message(result), "qk_norm_rope: positions[0] is 8, allowed is 0..8");
    });
}

/// Attention of two sequences of 3 queries and 5 keys each, in pages of 4 of a pool of 15 slots.
struct Attention {
    rows: [i32; 2],
    cu_seqlens_q: [i32; 3],
    kv_lens: [i32; 2],
    page_table: [i32; 4],
    page_size: usize,
    num_q_heads: usize,
    window: Option<usize>,
}

const GOOD: Attention = Attention {
    rows: [0, 1],
    cu_seqlens_q: [0, 3, 6],
    kv_lens: [5, 5],
    page_table: [0, 1, 2, 3],
    page_size: 4,
    num_q_heads: 2,
    window: None,
};

fn attend(stream: &Stream, case: &Attention) -> Result<(), Error> {
    let device = stream.device();
    let q = device.zeros(DType::F32, [6, case.num_q_heads, 8])?;
    let mut out = device.zeros(DType::F32, [6, case.num_q_heads, 8])?;
    let pool = device.zeros(DType::F32, [15, 2, 8])?;
    let page_table = Tensor::from_slice(device, [2, 2], &case.page_table)?;
    let (rows, kv_lens) = (ids(device, &case.rows), ids(device, &case.kv_lens));
    let cu_seqlens_q = ids(device, &case.cu_seqlens_q);
    let kv = PagedKv {
        k_pool: pool.view(),
        v_pool: pool.view(),
        page_table: page_table.view(),
        page_size: case.page_size,
    };
    let batch = VarlenBatch {
        rows: rows.view(),
        cu_seqlens_q: cu_seqlens_q.view(),
        kv_lens: kv_lens.view(),
    };
    let params = AttentionParams { scale: 1.0, window: case.window };
    ops::paged_attention(stream, q.view(), kv, batch, params, out.view_mut())
}

#[test]
fn attention_refuses_every_table_that_leads_outside() {
    for_each_cpu(|_, stream| {
        attend(stream, &GOOD).unwrap();
        // The pool's end cuts the last page short; one position of it is in use.
        attend(stream, &Attention { kv_lens: [5, 7], ..GOOD }).unwrap();
        attend(stream, &Attention { page_table: [0, 1, 2, 0], ..GOOD }).unwrap();
        let cases = [
            (Attention { rows: [0, 2], ..GOOD }, "rows[1] is 2, allowed is 0..2"),
            (Attention { rows: [-1, 0], ..GOOD }, "rows[0] is -1"),
            (
                Attention { cu_seqlens_q: [1, 3, 6], ..GOOD },
                "cu_seqlens_q[0] is 1, allowed is 0..1",
            ),
            (Attention { cu_seqlens_q: [0, 7, 6], ..GOOD }, "cu_seqlens_q[1] is 7"),
            (
                Attention { cu_seqlens_q: [0, 3, 2], ..GOOD },
                "cu_seqlens_q[2] is 2, allowed is 3..7",
            ),
            (
                Attention { cu_seqlens_q: [0, 3, 5], ..GOOD },
                "cu_seqlens_q[2] is 5, allowed is 6..7",
            ),
            (Attention { kv_lens: [2, 5], ..GOOD }, "kv_lens[0] is 2, allowed is 3..9"),
            (Attention { kv_lens: [5, 9], ..GOOD }, "kv_lens[1] is 9"),
            (Attention { kv_lens: [5, 8], ..GOOD }, "page_table[3] is 3, allowed is 0..3"),
            (Attention { page_table: [0, -1, 2, 3], ..GOOD }, "page_table[1] is -1"),
            (Attention { page_table: [0, 1, 4, 3], ..GOOD }, "page_table[2] is 4"),
            (Attention { page_size: 0, ..GOOD }, "page_size is 0"),
            (Attention { window: Some(0), ..GOOD }, "window is 0"),
            (Attention { num_q_heads: 3, ..GOOD }, "number of query heads is 3"),
        ];
        for (case, want) in cases {
            let got = message(attend(stream, &case));
            assert!(got.contains(want), "{got:?} does not say {want:?}");
        }
    });
}

#[test]
fn the_threshold_search_refuses_unknown_modes_and_rounds() {
    for_each_cpu(|device, stream| {
        let logits = device.zeros(DType::F32, [1, 4]).unwrap();
        let one = floats(device, &[1.0]);
        let mut hist = device.zeros(DType::F32, [1, 256]).unwrap();
        let mut call = |mode: i32, round: usize| {
            let mode = ids(device, &[mode]);
            let (mut prefix, mut remaining) = (ids(device, &[0]), floats(device, &[1.0]));
            let state = ThresholdState {
                mode: mode.view(),
                prefix: prefix.view_mut(),
                remaining: remaining.view_mut(),
            };
            let (x, one, hist) = (logits.view(), one.view(), hist.view_mut());
            sampling::threshold_histogram(stream, x, one, one, &state, round, hist)
        };
        call(1, 3).unwrap();
        assert!(message(call(3, 0)).contains("mode[0] is 3, allowed is 0..3"));
        assert!(message(call(1, 4)).contains("round is 4"));
    });
}
