//! One attention layer over a paged KV pool, on the CPU: a prompt at once, then the same prompt in
//! chunks and token by token. The outputs are the same to the last bit.
//!
//! `cargo run --release -p minisgl-kernels --example attention_layer`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::num::NonZeroUsize;
use std::ops::Range;

use minisgl_kernels::ops::sampling::uniform;
use minisgl_kernels::ops::{self, AttentionParams, PagedKv, VarlenBatch};
use minisgl_kernels::{DType, Device, Error, Stream, Tensor};

const HIDDEN: usize = 256;
const NUM_Q_HEADS: usize = 8;
const NUM_KV_HEADS: usize = 2;
const HEAD_DIM: usize = 32;
const Q_SIZE: usize = NUM_Q_HEADS * HEAD_DIM;
const KV_SIZE: usize = NUM_KV_HEADS * HEAD_DIM;

const PROMPT_LEN: usize = 40;
const PAGE_SIZE: usize = 16;
/// The sequence's pages, anywhere in the pool and in any order.
const PAGES: [i32; 3] = [5, 0, 2];
const NUM_SLOTS: usize = 6 * PAGE_SIZE;

struct Layer {
    norm: Tensor,    // [HIDDEN]
    qkv: Tensor,     // [Q_SIZE + 2 * KV_SIZE, HIDDEN]
    out: Tensor,     // [HIDDEN, Q_SIZE]
    cos_sin: Tensor, // [PROMPT_LEN, HEAD_DIM]
    k_pool: Tensor,  // [NUM_SLOTS, NUM_KV_HEADS, HEAD_DIM]
    v_pool: Tensor,  // [NUM_SLOTS, NUM_KV_HEADS, HEAD_DIM]
}

impl Layer {
    fn new(device: &Device) -> Result<Self, Error> {
        let angle = |position: usize, i: usize| {
            position as f32 * 10_000f32.powf(-2.0 * i as f32 / HEAD_DIM as f32)
        };
        let mut cos_sin = Vec::new();
        for position in 0..PROMPT_LEN {
            cos_sin.extend((0..HEAD_DIM / 2).map(|i| angle(position, i).cos()));
            cos_sin.extend((0..HEAD_DIM / 2).map(|i| angle(position, i).sin()));
        }
        let pool_shape = [NUM_SLOTS, NUM_KV_HEADS, HEAD_DIM];
        Ok(Self {
            norm: Tensor::from_slice(device, [HIDDEN], &[1.0f32; HIDDEN])?,
            qkv: random(device, 1, [Q_SIZE + 2 * KV_SIZE, HIDDEN])?,
            out: random(device, 2, [HIDDEN, Q_SIZE])?,
            cos_sin: Tensor::from_slice(device, [PROMPT_LEN, HEAD_DIM], &cos_sin)?,
            k_pool: device.zeros(DType::F32, pool_shape)?,
            v_pool: device.zeros(DType::F32, pool_shape)?,
        })
    }

    /// The layer's output for the tokens at `positions`; those before are in the pool already.
    fn forward(
        &mut self,
        stream: &Stream,
        prompt: &Tensor,
        positions: Range<usize>,
    ) -> Result<Vec<f32>, Error> {
        let device = stream.device();
        let num_tokens = positions.len();
        let ids = |values: Vec<i32>| Tensor::from_slice(device, [values.len()], &values);
        let zeros = |columns: usize| device.zeros(DType::F32, [num_tokens, columns]);

        let mut x = zeros(HIDDEN)?;
        let residual = prompt.view().rows(positions.clone())?;
        ops::rms_norm(stream, residual, self.norm.view(), 1e-6, x.view_mut())?;
        let mut qkv = zeros(Q_SIZE + 2 * KV_SIZE)?;
        ops::gemm(stream, x.view(), self.qkv.view(), None, qkv.view_mut())?;

        let (q, kv) = qkv.view_mut().split_columns(Q_SIZE)?;
        let (k, v) = kv.split_columns(KV_SIZE)?;
        let mut q = q.reshape([num_tokens, NUM_Q_HEADS, HEAD_DIM])?;
        let mut k = k.reshape([num_tokens, NUM_KV_HEADS, HEAD_DIM])?;
        let v = v.reshape([num_tokens, NUM_KV_HEADS, HEAD_DIM])?;
        let position_ids = ids(positions.clone().map(|position| position as i32).collect())?;
        let (q_mut, k_mut) = (q.reborrow(), k.reborrow());
        ops::qk_norm_rope(stream, q_mut, k_mut, None, position_ids.view(), self.cos_sin.view())?;

        let slot = |p: usize| PAGES[p / PAGE_SIZE] * PAGE_SIZE as i32 + (p % PAGE_SIZE) as i32;
        let slots = ids(positions.clone().map(slot).collect())?;
        let (k_pool, v_pool) = (self.k_pool.view_mut(), self.v_pool.view_mut());
        ops::store_kv(stream, k.as_view(), v.as_view(), slots.view(), k_pool, v_pool)?;

        let page_table = Tensor::from_slice(device, [1, PAGES.len()], &PAGES)?;
        let rows = ids(vec![0])?;
        let cu_seqlens_q = ids(vec![0, num_tokens as i32])?;
        let kv_lens = ids(vec![positions.end as i32])?;
        let kv = PagedKv {
            k_pool: self.k_pool.view(),
            v_pool: self.v_pool.view(),
            page_table: page_table.view(),
            page_size: PAGE_SIZE,
        };
        let batch = VarlenBatch {
            rows: rows.view(),
            cu_seqlens_q: cu_seqlens_q.view(),
            kv_lens: kv_lens.view(),
        };
        let params = AttentionParams { scale: (HEAD_DIM as f32).powf(-0.5), window: None };
        let mut attended = zeros(Q_SIZE)?;
        let heads = attended.view_mut().reshape([num_tokens, NUM_Q_HEADS, HEAD_DIM])?;
        ops::paged_attention(stream, q.as_view(), kv, batch, params, heads)?;

        ops::gemm(stream, attended.view(), self.out.view(), None, x.view_mut())?;
        x.to_vec()
    }
}

/// Uniform numbers in `-0.1..0.1`.
fn random(device: &Device, seed: u64, shape: [usize; 2]) -> Result<Tensor, Error> {
    let ids = 0..(shape[0] * shape[1]) as i32;
    let values: Vec<f32> = ids.map(|id| uniform(seed, 0, id) * 0.2 - 0.1).collect();
    Tensor::from_slice(device, shape, &values)
}

fn main() -> Result<(), Error> {
    let num_threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let device = Device::cpu(num_threads)?;
    let stream = device.new_stream()?;
    println!("device: {}", device.description());

    let prompt = random(&device, 3, [PROMPT_LEN, HIDDEN])?;
    let whole = Layer::new(&device)?.forward(&stream, &prompt, 0..PROMPT_LEN)?;
    for chunk in [17, 1] {
        let mut layer = Layer::new(&device)?;
        let mut parts = Vec::new();
        for start in (0..PROMPT_LEN).step_by(chunk) {
            let end = PROMPT_LEN.min(start + chunk);
            parts.extend(layer.forward(&stream, &prompt, start..end)?);
        }
        assert!(whole.iter().map(|x| x.to_bits()).eq(parts.iter().map(|x| x.to_bits())));
        println!("{PROMPT_LEN} tokens in chunks of {chunk}: the same {} bits", 32 * parts.len());
    }
    Ok(())
}
