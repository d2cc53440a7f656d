//! Paged attention against the reference.

use minisgl_kernels::ops::{self, Attention, AttentionParams, PagedKv, VarlenBatch};
use minisgl_kernels::{DType, Device, Error, Stream, Tensor, reference};

use crate::support::{Array, Rng, STORED, for_each_device, host, ids, is_gpu};

/// The sequences of one step and the pool they live in, on the host.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) num_q_heads: usize,
    pub(crate) num_kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) page_size: usize,
    pub(crate) window: Option<usize>,
    /// Queries and keys of each sequence in this step.
    pub(crate) sequences: Vec<(usize, usize)>,
}

/// [`Case`] on a device, with random data and a shuffled page table.
pub(crate) struct Step {
    pub(crate) q: Array,
    pub(crate) k_pool: Array,
    pub(crate) v_pool: Array,
    page_table: Tensor,
    rows: Tensor,
    cu_seqlens_q: Tensor,
    kv_lens: Tensor,
    pub(crate) out: Array,
    out_gap: usize,
    case: Case,
}

impl Step {
    pub(crate) fn new(device: &Device, dtype: DType, case: &Case, seed: u64) -> Self {
        Self::stored(device, [dtype, dtype], case, seed, [7, 5])
    }

    /// With keys and values of another type, and these gaps between the rows of the queries and of the
    /// planned output.
    pub(crate) fn stored(
        device: &Device,
        [dtype, kv_dtype]: [DType; 2],
        case: &Case,
        seed: u64,
        [q_gap, out_gap]: [usize; 2],
    ) -> Self {
        let Case { num_q_heads, num_kv_heads, head_dim, page_size, ref sequences, .. } = *case;
        let mut rng = Rng::fresh(seed);
        let num_tokens: usize = sequences.iter().map(|&(q_len, _)| q_len).sum();
        let max_pages = sequences.iter().map(|&(_, kv_len)| kv_len.div_ceil(page_size)).max();
        let max_pages = max_pages.unwrap_or(0) + 1;
        let n = sequences.len();
        let num_pages = n * max_pages;
        let num_slots = num_pages * page_size;

        let pages = rng.permutation(num_pages);
        let rows = rng.permutation(n);
        let mut cu_seqlens_q = vec![0];
        for &(q_len, _) in sequences {
            cu_seqlens_q.push(cu_seqlens_q[cu_seqlens_q.len() - 1] + q_len as i32);
        }
        let kv_lens: Vec<i32> = sequences.iter().map(|&(_, kv_len)| kv_len as i32).collect();
        // Slots that no position uses hold NaN: reading one shows.
        let (mut k, mut v) = (vec![f32::NAN; num_slots * num_kv_heads * head_dim], vec![]);
        v.clone_from(&k);
        let kv_row = num_kv_heads * head_dim;
        for (j, &(_, kv_len)) in sequences.iter().enumerate() {
            for position in 0..kv_len {
                let page = pages[rows[j] as usize * max_pages + position / page_size] as usize;
                let slot = page * page_size + position % page_size;
                k[slot * kv_row..][..kv_row].copy_from_slice(&rng.floats(kv_row));
                v[slot * kv_row..][..kv_row].copy_from_slice(&rng.floats(kv_row));
            }
        }
        let q: Vec<f32> =
            rng.floats(num_tokens * num_q_heads * head_dim).iter().map(|x| x * 3.0).collect();
        let q_shape = [num_tokens, num_q_heads, head_dim];
        let kv_shape = [num_slots, num_kv_heads, head_dim];
        Self {
            q: Array::new(device, dtype, q_shape, q_gap, &q),
            k_pool: Array::new(device, kv_dtype, kv_shape, 0, &k),
            // A GPU's pools have no gaps.
            v_pool: Array::new(device, kv_dtype, kv_shape, if is_gpu(device) { 0 } else { 3 }, &v),
            page_table: Tensor::from_slice(device, [n, max_pages], &pages).unwrap(),
            rows: ids(device, &rows),
            cu_seqlens_q: ids(device, &cu_seqlens_q),
            kv_lens: ids(device, &kv_lens),
            out: Array::poisoned(device, dtype, q_shape, 0),
            out_gap,
            case: case.clone(),
        }
    }

    pub(crate) fn kv(&self) -> PagedKv<'_> {
        PagedKv {
            k_pool: self.k_pool.view(),
            v_pool: self.v_pool.view(),
            page_table: self.page_table.view(),
            page_size: self.case.page_size,
        }
    }

    pub(crate) fn batch(&self) -> VarlenBatch<'_> {
        VarlenBatch {
            rows: self.rows.view(),
            cu_seqlens_q: self.cu_seqlens_q.view(),
            kv_lens: self.kv_lens.view(),
        }
    }

    /// Says that the sequences are shorter than they were made.
    pub(crate) fn shorten(&mut self, stream: &Stream, kv_lens: &[usize]) {
        let kv_lens: Vec<i32> = kv_lens.iter().map(|&kv_len| kv_len as i32).collect();
        stream.upload(&kv_lens, self.kv_lens.view_mut()).unwrap();
    }

    /// The whole step into a fresh, poisoned output, as `attention` has planned it.
    pub(crate) fn run_planned(&mut self, attention: &mut Attention, stream: &Stream) {
        self.try_run_planned(attention, stream).unwrap();
    }

    pub(crate) fn try_run_planned(
        &mut self,
        attention: &mut Attention,
        stream: &Stream,
    ) -> Result<(), Error> {
        let q = self.q.view();
        self.out = Array::poisoned(q.device(), q.dtype(), q.shape(), self.out_gap);
        self.run_into(attention, stream)
    }

    /// The whole step into the output there is, which can be captured.
    pub(crate) fn run_into_out(&mut self, attention: &mut Attention, stream: &Stream) {
        self.run_into(attention, stream).unwrap();
    }

    fn run_into(&mut self, attention: &mut Attention, stream: &Stream) -> Result<(), Error> {
        let params = self.params();
        let Self { q, k_pool, v_pool, page_table, rows, cu_seqlens_q, kv_lens, out, case, .. } =
            self;
        let kv = PagedKv {
            k_pool: k_pool.view(),
            v_pool: v_pool.view(),
            page_table: page_table.view(),
            page_size: case.page_size,
        };
        let batch = VarlenBatch {
            rows: rows.view(),
            cu_seqlens_q: cu_seqlens_q.view(),
            kv_lens: kv_lens.view(),
        };
        attention.run(stream, q.view(), kv, batch, params, out.view_mut())
    }

    fn params(&self) -> AttentionParams {
        let scale = 1.0 / (self.case.head_dim as f32).sqrt();
        AttentionParams { scale, window: self.case.window }
    }

    /// The whole step, on `stream` or by the reference.
    pub(crate) fn run(&mut self, stream: Option<&Stream>) {
        let batch = VarlenBatch {
            rows: self.rows.view(),
            cu_seqlens_q: self.cu_seqlens_q.view(),
            kv_lens: self.kv_lens.view(),
        };
        let (q, kv, params) = (self.q.view(), self.kv(), self.params());
        let mut out = Array::poisoned(q.device(), q.dtype(), q.shape(), 5);
        match stream {
            Some(stream) => ops::paged_attention(stream, q, kv, batch, params, out.view_mut()),
            None => reference::paged_attention(q, kv, batch, params, out.view_mut()),
        }
        .unwrap();
        self.out = out;
    }

    /// The bits of query `i` of sequence `j`, computed in a step of its own.
    pub(crate) fn run_one(&self, stream: &Stream, j: usize, i: usize) -> Vec<u32> {
        let (q_len, kv_len) = self.case.sequences[j];
        let token: usize = self.case.sequences[..j].iter().map(|&(q_len, _)| q_len).sum();
        let q = self.q.view().rows(token + i..token + i + 1).unwrap();
        let device = stream.device();
        let mut out = Array::poisoned(device, q.dtype(), q.shape(), 0);
        let cu_seqlens_q = ids(device, &[0, 1]);
        let kv_lens = ids(device, &[(kv_len - (q_len - 1 - i)) as i32]);
        let batch = VarlenBatch {
            rows: self.rows.view().rows(j..j + 1).unwrap(),
            cu_seqlens_q: cu_seqlens_q.view(),
            kv_lens: kv_lens.view(),
        };
        ops::paged_attention(stream, q, self.kv(), batch, self.params(), out.view_mut()).unwrap();
        out.bits()
    }
}

#[test]
fn paged_attention_is_the_reference() {
    let base = Case {
        num_q_heads: 4,
        num_kv_heads: 2,
        head_dim: 64,
        page_size: 16,
        window: None,
        sequences: vec![(1, 1), (1, 300), (5, 5), (0, 10), (17, 150), (1, 128), (3, 129)],
    };
    let cases = [
        base.clone(),
        Case { page_size: 1, ..base.clone() },
        Case { head_dim: 17, page_size: 3, ..base.clone() },
        Case { num_q_heads: 3, num_kv_heads: 3, head_dim: 1, ..base.clone() },
        Case { num_q_heads: 8, num_kv_heads: 1, head_dim: 96, ..base.clone() },
        Case { num_q_heads: 40, num_kv_heads: 1, head_dim: 16, ..base.clone() },
        Case { window: Some(1), ..base.clone() },
        Case { window: Some(20), page_size: 4, ..base.clone() },
        Case { window: Some(130), head_dim: 128, ..base.clone() },
        Case { sequences: vec![(200, 200)], ..base.clone() },
        Case { sequences: vec![(64, 700)], window: Some(257), ..base.clone() },
        Case { sequences: vec![], ..base },
    ];
    for_each_device(|device, stream| {
        for dtypes in STORED {
            for (i, case) in cases.iter().enumerate() {
                let mut got = Step::stored(device, dtypes, case, i as u64, [7, 5]);
                let mut want = Step::stored(&host(), dtypes, case, i as u64, [7, 5]);
                got.run(Some(stream));
                want.run(None);
                got.out.assert_close(&want.out, &format!("paged_attention case {i}, {dtypes:?}"));
            }
        }
    });
}

#[test]
fn pages_that_a_sliding_window_left_behind_may_be_gone() {
    let case = Case {
        num_q_heads: 2,
        num_kv_heads: 1,
        head_dim: 32,
        page_size: 8,
        window: Some(20),
        sequences: vec![(3, 500)],
    };
    for_each_device(|device, stream| {
        let mut whole = Step::new(device, DType::F32, &case, 1);
        whole.run(Some(stream));
        let mut freed = Step::new(device, DType::F32, &case, 1);
        // The first query stands at 497 and sees 478 and later, so page 59 is the first in use.
        let mut pages = freed.page_table.to_vec::<i32>().unwrap();
        pages[..59].fill(-1);
        stream.upload(&pages, freed.page_table.view_mut()).unwrap();
        freed.run(Some(stream));
        assert_eq!(whole.out.bits(), freed.out.bits());
    });
}
