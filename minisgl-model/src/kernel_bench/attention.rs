//! Attention: decode of a batch and of one sequence, and prefill. Never knows which backend is best.

use minisgl_kernels::ops::{
    Attention, AttentionBackend, AttentionConfig, AttentionParams, HostBatch, PagedKv, VarlenBatch,
};
use minisgl_kernels::{DType, Error, Stream, Tensor};

use super::{Bench, Work, fill};

/// Pages lie apart in the pool, as those of a server that has run for a while.
const PAGE_STRIDE: usize = 7919;

/// Sequences in the pools of some layers.
struct Sequences {
    /// Keys and values of each layer.
    pools: Vec<[Tensor; 2]>,
    page_table: Tensor,
    rows: Tensor,
    cu_seqlens_q: Tensor,
    kv_lens: Tensor,
    host_cu_seqlens_q: Vec<i32>,
    host_kv_lens: Vec<i32>,
    config: AttentionConfig,
}

impl Sequences {
    /// `count` sequences of `context` tokens, the last `queries` of which are asked for.
    fn new(
        stream: &Stream,
        num_layers: usize,
        [count, context, queries]: [usize; 3],
        [num_q_heads, num_kv_heads, head_dim]: [usize; 3],
        page_size: usize,
    ) -> Result<Self, Error> {
        let device = stream.device();
        let pages_per_row = context.div_ceil(page_size);
        let num_pages = count * pages_per_row;
        // A prime, so that every page comes once.
        let pages: Vec<i32> =
            (0..num_pages).map(|page| (page * PAGE_STRIDE % num_pages) as i32).collect();
        let rows: Vec<i32> = (0..count as i32).collect();
        let host_cu_seqlens_q: Vec<i32> = (0..=count).map(|j| (j * queries) as i32).collect();
        let host_kv_lens = vec![context as i32; count];
        let pool = || fill::noise(stream, [num_pages * page_size, num_kv_heads, head_dim], 1.0);
        let layer = |_| Ok::<_, Error>([pool()?, pool()?]);
        Ok(Self {
            pools: (0..num_layers).map(layer).collect::<Result<_, _>>()?,
            page_table: Tensor::from_slice(device, [count, pages_per_row], &pages)?,
            rows: Tensor::from_slice(device, [count], &rows)?,
            cu_seqlens_q: Tensor::from_slice(device, [count + 1], &host_cu_seqlens_q)?,
            kv_lens: Tensor::from_slice(device, [count], &host_kv_lens)?,
            host_cu_seqlens_q,
            host_kv_lens,
            config: AttentionConfig {
                backend: AttentionBackend::Native,
                dtype: DType::Bf16,
                kv_dtype: DType::Bf16,
                num_q_heads,
                num_kv_heads,
                head_dim,
                page_size,
                max_sequences: count,
                max_tokens: count * queries,
                max_pages: num_pages,
            },
        })
    }

    fn kv(&self, layer: usize) -> PagedKv<'_> {
        let [k_pool, v_pool] = &self.pools[layer];
        PagedKv {
            k_pool: k_pool.view(),
            v_pool: v_pool.view(),
            page_table: self.page_table.view(),
            page_size: self.config.page_size,
        }
    }

    fn batch(&self) -> VarlenBatch<'_> {
        VarlenBatch {
            rows: self.rows.view(),
            cu_seqlens_q: self.cu_seqlens_q.view(),
            kv_lens: self.kv_lens.view(),
        }
    }

    /// Seconds of one layer's attention by `backend`, with so many query heads: in a graph of `calls`,
    /// or launched one by one if those are none.
    fn time(
        &self,
        bench: &Bench<'_>,
        backend: AttentionBackend,
        num_q_heads: usize,
        calls: Option<usize>,
    ) -> Result<f64, Error> {
        let config = AttentionConfig { backend, num_q_heads, ..self.config };
        let stream = &bench.stream;
        let shape = [config.max_tokens, num_q_heads, config.head_dim];
        let q = fill::noise(stream, shape, 1.0)?;
        let mut out = stream.device().zeros(DType::Bf16, shape)?;
        let params = AttentionParams { scale: 1.0 / (config.head_dim as f32).sqrt(), window: None };
        let mut attention = Attention::new(stream, &config)?;
        let host = HostBatch {
            cu_seqlens_q: &self.host_cu_seqlens_q,
            kv_lens: &self.host_kv_lens,
            fixed_batch: calls.is_some(),
        };
        attention.plan(stream, self.kv(0), self.batch(), host)?;
        let call = |stream: &Stream, number: usize| {
            let kv = self.kv(number % self.pools.len());
            attention.run(stream, q.view(), kv, self.batch(), params, out.view_mut())
        };
        match calls {
            Some(calls) => bench.timer.in_graph(stream, calls, call),
            None => bench.timer.as_is(stream, call),
        }
    }
}

impl Bench<'_> {
    /// Many long sequences, by query heads per KV head.
    pub(super) fn decode(&mut self, backends: &[AttentionBackend]) -> Result<(), Error> {
        let sizes = self.sizes;
        let (count, context) = (sizes.decode_batch, sizes.decode_context);
        let (num_kv_heads, head_dim) = (sizes.num_kv_heads, sizes.head_dim);
        self.section(format!(
            "decode attention: {count} sequences of {context} tokens, {num_kv_heads} KV heads of \
             {head_dim}, pages of {}",
            sizes.page_size
        ));
        let heads = [num_kv_heads, num_kv_heads, head_dim];
        let sequences =
            Sequences::new(&self.stream, 1, [count, context, 1], heads, sizes.page_size);
        let sequences = match sequences {
            Ok(sequences) => sequences,
            Err(error) => return self.unless_lacking(|| "all".to_owned(), Err(error)),
        };
        for &backend in backends {
            let timed = self.decode_groups(&sequences, backend);
            self.unless_lacking(|| backend.to_string(), timed)?;
        }
        Ok(())
    }

    fn decode_groups(
        &mut self,
        sequences: &Sequences,
        backend: AttentionBackend,
    ) -> Result<(), Error> {
        const CALLS: usize = 4;
        let sizes = self.sizes;
        for group in sizes.decode_groups {
            let num_q_heads = group * sizes.num_kv_heads;
            let seconds = sequences.time(self, backend, num_q_heads, Some(CALLS))?;
            let heads = [num_q_heads, sizes.num_kv_heads, sizes.head_dim];
            let work = Work::decode(sizes.decode_batch, sizes.decode_context, heads);
            let what = format!("{backend}, {group} query heads per KV head");
            self.timed(what, seconds, work, String::new());
        }
        Ok(())
    }

    /// One short sequence, in a graph with one call for each layer.
    pub(super) fn one_sequence(&mut self, backends: &[AttentionBackend]) -> Result<(), Error> {
        let sizes = self.sizes;
        let heads = [sizes.single_q_heads, sizes.num_kv_heads, sizes.head_dim];
        let calls = sizes.single_calls;
        self.section(format!(
            "decode attention: one sequence of {} tokens, {} query heads, {} KV heads of {}, {calls} \
             layers that take turns",
            sizes.single_context, heads[0], heads[1], heads[2]
        ));
        let lengths = [1, sizes.single_context, 1];
        let sequences = Sequences::new(&self.stream, calls, lengths, heads, sizes.page_size)?;
        for &backend in backends {
            let work = Work::decode(1, sizes.single_context, heads);
            let timed = sequences.time(self, backend, sizes.single_q_heads, Some(calls));
            let timed = timed.map(|seconds| {
                self.timed(backend.to_string(), seconds, work, String::new());
            });
            self.unless_lacking(|| backend.to_string(), timed)?;
        }
        Ok(())
    }

    /// One long prompt.
    pub(super) fn prefill(&mut self, backends: &[AttentionBackend]) -> Result<(), Error> {
        let sizes = self.sizes;
        let tokens = sizes.prefill_tokens;
        let heads = [sizes.prefill_q_heads, sizes.num_kv_heads, sizes.head_dim];
        self.section(format!(
            "causal prefill attention: one sequence of {tokens} tokens, {} query heads, {} KV heads \
             of {}",
            heads[0], heads[1], heads[2]
        ));
        let lengths = [1, tokens, tokens];
        let sequences = Sequences::new(&self.stream, 1, lengths, heads, sizes.page_size)?;
        for &backend in backends {
            let work = Work::prefill(tokens, heads);
            let timed = sequences.time(self, backend, sizes.prefill_q_heads, None);
            let timed = timed.map(|seconds| {
                self.timed(backend.to_string(), seconds, work, String::new());
            });
            self.unless_lacking(|| backend.to_string(), timed)?;
        }
        Ok(())
    }
}
